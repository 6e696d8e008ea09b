"""Galleries with an index file: the same results as exact search, whatever happened to the file or the gallery."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import ConfigError, GalleryError
from image2sentence.gallery.records import Content, FileEntry
from image2sentence.gallery.search.base import Hit
from image2sentence.gallery.search.faiss_index import AnnSettings, build
from image2sentence.gallery.search.searcher import Searcher
from image2sentence.gallery.sqlite import index as large
from image2sentence.gallery.sqlite import index_file
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.gallery.sqlite.index import index_state, make_index, needs_index

faiss = pytest.importorskip("faiss")

WIDTH = 16
COUNT = 1_500
SOUND = AnnSettings(exact_below=100, lists=16, probes=16, rerank=60)
"""Looks everywhere, so that results must equal exact ones."""


def unit_rows(count: int, seed: int) -> Vectors:
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((20, WIDTH))
    rows = middles[rng.integers(20, size=count)] + 0.5 * rng.standard_normal((count, WIDTH))
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


QUERIES = unit_rows(12, 99)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


def add(gallery: Gallery, rows: Vectors, first: int) -> None:
    """Commit pictures named by number, each with metadata."""
    contents = [Content(f"{first + i:032}".encode(), 1, 1, row) for i, row in enumerate(rows)]
    entries = [
        FileEntry(f"{first + i}.jpg", 1, 1, c.sha256, metadata={"n": first + i, "odd": bool((first + i) % 2)})
        for i, c in enumerate(contents)
    ]
    gallery.commit(gallery.add_root(Path("/p")), contents, entries)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery with an index file."""
    folder = tmp_path_factory.mktemp("large") / "g"
    with Gallery.create(folder, "model-a", WIDTH) as gallery:
        gallery.add_columns({"n": "number", "odd": "boolean"})
        add(gallery, unit_rows(COUNT, 1), 0)
        assert make_index(gallery, SOUND) is not None
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "g"))


def exact(gallery: Gallery) -> Searcher:
    return Searcher(*gallery.vectors(), select=gallery.select)


def assert_same(gallery: Gallery, *, approximate: bool = True) -> None:
    """What the gallery's searcher finds is what exact search finds, in every way of asking."""
    searcher, right = gallery.searcher(), exact(gallery)
    assert searcher.approximate == approximate
    assert (len(searcher), searcher.width, searcher.ids) == (len(right), right.width, right.ids)
    ids = np.array(right.ids)
    some = [ids[number::7] for number in range(len(QUERIES))]
    for k in (1, 10, 50, len(ids) + 5):
        assert searcher.search(QUERIES, k) == right.search(QUERIES, k)
    for where in ("n < 30", "n >= 30", "odd and n != 77", "n < 0", "not odd or n = 3"):
        for _ in range(2):  # by SQLite, then by columns in memory
            assert searcher.search(QUERIES, 10, where=where) == right.search(QUERIES, 10, where=where)
    assert searcher.search(QUERIES, 10, exclude=some) == right.search(QUERIES, 10, exclude=some)
    assert searcher.search(QUERIES, 10, among=some) == right.search(QUERIES, 10, among=some)
    for both in (searcher, right):
        found = both.search(QUERIES, 10, among=some, exclude=[ids[:100]] * len(QUERIES), where="odd")
        assert all(len(hits) == 10 for hits in found)
    assert np.array_equal(searcher.vectors_of(right.ids[:40:3]), right.vectors_of(right.ids[:40:3]))


def test_results_are_those_of_exact_search(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Gallery.open(made) as gallery:
        assert index_state(gallery, thorough=True).state == "current"
        assert_same(gallery)
        monkeypatch.setattr("image2sentence.gallery.search.searcher._GATHER_BESIDE_INDEX", 1)
        assert_same(gallery)


def test_where_an_index_proposes_fewer_than_k_all_are_compared(folder: Path) -> None:
    with Gallery.open(folder, readonly=False) as gallery:
        make_index(gallery, AnnSettings(exact_below=100, lists=64, probes=1, rerank=4_000))
        searcher, right = gallery.searcher(), exact(gallery)
        assert searcher.approximate
        assert searcher._nearby is not None
        (proposed, *_) = searcher._nearby.candidates(QUERIES, 1_000, None)
        assert 0 < len(proposed) < 1_000
        assert proposed.min() >= 0
        assert searcher.search(QUERIES, 1_000) == right.search(QUERIES, 1_000)


def test_what_came_and_went_since_is_taken_into_account(folder: Path) -> None:
    with Gallery.open(folder, readonly=False) as gallery:
        gallery.delete([3, 4, 5, COUNT])
        add(gallery, unit_rows(40, 2), COUNT + 10)
        changed = Content(b"z" * 32, 1, 1, QUERIES[0])
        gallery.commit(
            1,
            [changed],
            [FileEntry("0.jpg", 2, 2, changed.sha256), FileEntry("new.jpg", 2, 2, changed.sha256)],
        )
        assert index_state(gallery).state == "behind"
        assert not needs_index(gallery)
        assert_same(gallery)
        best = gallery.searcher().search(QUERIES[:1], 2)[0]
        assert [gallery.picture(hit.id).path.name for hit in best] == ["0.jpg", "new.jpg"]
        gallery.set_metadata([(1, {"n": 5})])
        assert_same(gallery)
    with Gallery.open(folder, readonly=False) as gallery:
        gallery.delete(list(range(10, 900)))
        assert index_state(gallery).state == "outdated"
        assert needs_index(gallery)
        assert_same(gallery)
        made_again = make_index(gallery)
        assert made_again is not None
        assert (made_again.lists, made_again.probes) == (16, 16)
        assert index_state(gallery).state == "current"
        assert_same(gallery)
        gallery.verify()


def test_a_gallery_that_has_become_small_loses_its_index(folder: Path) -> None:
    with Gallery.open(folder, readonly=False) as gallery:
        gallery.delete(list(range(50, COUNT + 1)))
        assert make_index(gallery) is None
        assert index_state(gallery).state == "none"
        assert not (folder / index_file.NAME).exists()
        assert gallery.searcher().search(QUERIES, 10) == exact(gallery).search(QUERIES, 10)


def test_a_flipped_byte_anywhere_in_the_file_is_found_or_changes_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = folder / index_file.NAME
    original = file.read_bytes()
    places = [*range(0, 300, 13), *np.random.default_rng(0).integers(300, len(original), 30).tolist()]
    found = 0
    with Gallery.open(folder) as gallery:
        expected = exact(gallery).search(QUERIES, 5)
        for place in places:
            damaged = bytearray(original)
            damaged[place] ^= 0x10
            file.write_bytes(damaged)
            state = index_state(gallery, thorough=True)
            found += state.state == "unusable"
            assert state.state == "current" or state.detail
            assert gallery.searcher().search(QUERIES, 5) == expected
    assert found > 0.9 * len(places)
    assert "gallery.index is not used, its section" in caplog.text


@pytest.mark.parametrize("length", [0, 10, 60, 2000, -100])
def test_a_file_cut_short_is_not_used(folder: Path, length: int) -> None:
    file = folder / index_file.NAME
    file.write_bytes(file.read_bytes()[:length])
    with Gallery.open(folder) as gallery:
        assert index_state(gallery, thorough=True).state == "unusable"
        assert_same(gallery, approximate=False)


def test_a_missing_file_is_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / index_file.NAME).unlink()
    with Gallery.open(folder) as gallery:
        assert index_state(gallery) == large.IndexState("unusable", "it is missing")
        assert_same(gallery, approximate=False)
        assert needs_index(gallery) is (COUNT >= 50_000)
    assert "gallery index" in caplog.text


def test_the_file_of_another_gallery_is_not_used(folder: Path, tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "other", "model-a", WIDTH) as gallery:
        gallery.add_columns({"n": "number", "odd": "boolean"})
        add(gallery, unit_rows(COUNT, 5), 0)
        make_index(gallery, SOUND)
    shutil.copy(tmp_path / "other" / index_file.NAME, folder)
    with Gallery.open(folder) as gallery:
        assert "does not belong" in index_state(gallery).detail
        assert_same(gallery, approximate=False)


def test_copies_that_went_their_own_ways_do_not_share_a_file(folder: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(folder, tmp_path / "twin"))
    for place, seed in ((folder, 7), (twin, 8)):
        with Gallery.open(place, readonly=False) as gallery:
            add(gallery, unit_rows(30, seed), COUNT)
            make_index(gallery)
    shutil.copy(twin / index_file.NAME, folder)
    with Gallery.open(folder) as gallery:
        assert_same(gallery, approximate=False)


@pytest.mark.parametrize("moment", ["os.replace", "set_derived_token"])
def test_a_rebuild_that_stops_half_way_changes_no_result(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with Gallery.open(folder, readonly=False) as gallery:
        add(gallery, unit_rows(30, 7), COUNT)
        with monkeypatch.context() as patch:
            if moment == "os.replace":
                patch.setattr(index_file.os, "replace", stop)
            else:
                patch.setattr(Gallery, "set_derived_token", stop)
            with pytest.raises(KeyboardInterrupt):
                make_index(gallery)
        assert_same(gallery, approximate=moment == "os.replace")
        make_index(gallery, SOUND)
        assert_same(gallery)


def test_a_full_disk_leaves_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with Gallery.open(folder, readonly=False) as gallery:
        add(gallery, unit_rows(30, 7), COUNT)
        monkeypatch.setattr(index_file.os, "fsync", full)
        with pytest.raises(GalleryError, match=r"No space left on device.*make room"):
            make_index(gallery)
        assert sorted(os.listdir(folder))[0] == index_file.NAME
        assert not list(folder.glob("*.new"))
        assert_same(gallery)


def test_without_faiss_search_is_exact_and_says_so(
    made: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(large, "faiss_module", lambda: None)
    monkeypatch.setattr("image2sentence.gallery.search.faiss_index.faiss_module", lambda: None)
    with Gallery.open(made) as gallery:
        assert_same(gallery, approximate=False)
    assert "pip install 'image2sentence[faiss]'" in caplog.text
    with pytest.raises(ConfigError, match=r"image2sentence\[faiss\]"):
        build(unit_rows(300, 1), SOUND)


def test_an_old_reader_keeps_its_file_while_it_is_replaced(folder: Path) -> None:
    with Gallery.open(folder) as reader, Gallery.open(folder, readonly=False) as writer:
        searcher = reader.searcher()
        before = searcher.search(QUERIES, 10)
        writer.delete([hit.id for hits in before for hit in hits][:20])
        make_index(writer)
        assert searcher.search(QUERIES, 10) == before
        assert reader.searcher().search(QUERIES, 10) == exact(writer).search(QUERIES, 10) != before


@pytest.mark.parametrize("code", ["sq8", "pq"])
def test_parameters_are_chosen_for_the_recall(code: str) -> None:
    vectors, queries = np.split(unit_rows(6_200, 3), [6_000])
    index = build(vectors, AnnSettings(recall=0.95, code=code))  # type: ignore[arg-type]
    p = index.parameters
    assert (p.code, p.lists) == (code, 256)
    assert p.measured >= 0.95 or p.probes == p.lists
    assert p.probes < p.lists or code == "pq"
    right = Searcher(range(6_000), vectors).search(queries, 10)
    found = [set(row.tolist()) for row in index.nearest(queries, 10)]
    hits = [len(row & {hit.id for hit in best}) for row, best in zip(found, right, strict=True)]
    assert np.mean(hits) >= 9


def test_a_lone_query_shared_out_to_threads_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    index = build(unit_rows(6_000, 3), AnnSettings(lists=64, probes=32))
    together = index.nearest(QUERIES, 10)
    monkeypatch.setattr("image2sentence.gallery.search.faiss_index._SHARED_OUT_FROM", 0)
    faiss.omp_set_num_threads(2)
    try:
        alone = [index.nearest(QUERIES[number : number + 1], 10)[0] for number in range(len(QUERIES))]
    finally:
        faiss.omp_set_num_threads(1)
    assert [set(row.tolist()) for row in alone] == [set(row.tolist()) for row in together]


def test_scores_are_exact_even_where_results_are_not(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "g", "model-a", WIDTH) as gallery:
        gallery.add_columns({"n": "number", "odd": "boolean"})
        add(gallery, unit_rows(COUNT, 1), 0)
        make_index(gallery, AnnSettings(exact_below=1, lists=64, probes=2, rerank=1))
        found, right = gallery.searcher().search(QUERIES, 10), exact(gallery).search(QUERIES, COUNT)
    scores = [{hit.id: hit.score for hit in hits} for hits in right]
    assert all(
        hit == Hit(hit.id, known[hit.id]) for hits, known in zip(found, scores, strict=True) for hit in hits
    )
    assert all(hits == sorted(hits, key=lambda hit: -hit.score) and len(hits) == 10 for hits in found)


def test_settings_are_checked() -> None:
    for wrong in ({"recall": 0.0}, {"recall": 1.5}, {"lists": 0}, {"probes": -1}, {"code": "hnsw"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            AnnSettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at most one for each of the 50 vectors"):
        build(unit_rows(50, 1), AnnSettings(lists=64))
