"""What holds for every store of a gallery, in a folder and in Milvus alike."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import fsspec
import numpy as np
import pytest
from test_sources import jpeg, shard

from fakes import FakeEncoder, awkward_folder, encoded, photo
from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import DataError, GalleryError, QueryError
from image2sentence.gallery.base import GalleryStore, duplicates
from image2sentence.gallery.files.vectors import open_vectors
from image2sentence.gallery.locations import read_picture
from image2sentence.gallery.opening import open_gallery, open_or_create_gallery
from image2sentence.gallery.records import Content, FileEntry
from image2sentence.indexing.import_export import export_vectors, import_vectors
from image2sentence.indexing.index_pictures import IndexReport, index_pictures

WIDTH = 8
MODEL = "model-a"
METADATA = [
    {"price": 5, "colour": "red", "sale": True, "day": "2026-01-05T00:00:00"},
    {"price": 49.5, "colour": "dark red", "sale": False, "day": "2026-11-21T09:30:00"},
    {"price": 50, "colour": 'it\'s 100% "wool"\\', "sale": True},
    {"colour": "100_wool", "day": "2025-12-31T23:59:59"},
    {"price": -3, "colour": "größe\n2"},
    {},
]
COLUMNS = {"price": "number", "colour": "text", "sale": "boolean", "day": "date"}


@pytest.fixture(params=["folder", "milvus"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of a gallery that is not there yet."""
    if request.param == "folder":
        return str(tmp_path / "gallery")
    pytest.importorskip("milvus_lite")
    pytest.importorskip("pymilvus")
    return f"milvus+file://{tmp_path}/gallery.db?collection=shop"


def unit(seed: int) -> Vectors:
    row = np.random.default_rng(seed).standard_normal(WIDTH)
    vector: Vectors = (row / np.linalg.norm(row)).astype(np.float32)
    return vector


def content(number: int) -> Content:
    return Content(bytes([number]) * 32, 30 + number, 20, unit(number))


def filled(place: str, count: int = 6) -> GalleryStore:
    """A gallery, open for writing, of `count` ready pictures with metadata and a failed one."""
    gallery = open_or_create_gallery(place, MODEL, WIDTH)
    root = gallery.add_root(Path("/pictures"))
    gallery.add_columns(COLUMNS)  # type: ignore[arg-type]
    contents = [content(i) for i in range(count)]
    entries = [
        FileEntry(f"{i}.jpg", 100 + i, 1_000 + i, c.sha256, metadata=METADATA[i % len(METADATA)])  # type: ignore[arg-type]
        for i, c in enumerate(contents)
    ]
    gallery.commit(root, contents, [*entries, FileEntry("bad.jpg", 1, 2, reason="empty")])
    return gallery


def names(gallery: GalleryStore, ids: object) -> list[str]:
    pictures = gallery.pictures_of(np.asarray(ids).tolist())
    return [str(picture.path) for picture in pictures if picture is not None]


def test_what_is_written_is_read_back(place: str) -> None:
    filled(place).close()
    with open_gallery(place, fingerprint=MODEL) as gallery:
        assert (len(gallery), gallery.width, gallery.readonly) == (6, WIDTH, True)
        assert gallery.roots() == {1: Path("/pictures")}
        ready, failed = gallery.pictures("ready"), gallery.pictures("failed")
        assert [p.path for p in ready] == [Path(f"/pictures/{i}.jpg") for i in range(6)]
        assert (ready[1].size, ready[1].mtime_ns, ready[1].width, ready[1].height) == (101, 1001, 31, 20)
        assert [(p.path, p.reason, p.width) for p in failed] == [(Path("/pictures/bad.jpg"), "empty", None)]
        assert gallery.pictures() == [*ready, *failed]
        assert gallery.picture(ready[2].id) == ready[2]
        assert gallery.picture(failed[0].id) == failed[0]
        ids, vectors = gallery.vectors()
        assert ids.tolist() == [p.id for p in ready]
        assert np.array_equal(vectors, np.stack([content(i).vector for i in range(6)]))
        assert gallery.find_content(b"\2" * 32) == ready[2].content_id
        assert gallery.find_content(b"\xff" * 32) is None
        assert gallery.columns() == COLUMNS
        assert gallery.metadata(ids.tolist()) == METADATA
        assert gallery.pictures_of([ready[3].id, 777, ready[0].id]) == [ready[3], None, ready[0]]
        assert gallery.pictures_of([2**63, -1, 10**30]) == [None] * 3
        with pytest.raises(QueryError, match="has no picture 777"):
            gallery.picture(777)


def test_paths_of_any_bytes_and_urls_come_back(place: str) -> None:
    odd = os.fsdecode(b"caf\xe9 100%.jpg")
    with open_or_create_gallery(place, MODEL, WIDTH) as gallery:
        here, there = gallery.add_root(Path("/pictures")), gallery.add_root("s3://bucket/a%20b")
        assert gallery.add_root(Path("/pictures")) == here
        gallery.commit(here, [content(1)], [FileEntry(odd, 1, 1, content(1).sha256)])
        gallery.commit(there, [], [FileEntry("0.tar/größe.jpg", 1, 1, content(1).sha256, offset=1536)])
        gallery.commit(there, [], [FileEntry(odd, 1, 1, reason="empty")])
        assert [p.path for p in gallery.pictures()] == [
            Path("/pictures") / odd,
            "s3://bucket/a%20b/0.tar/größe.jpg",
            f"s3://bucket/a%20b/{odd}",
        ]
        assert [p.offset for p in gallery.pictures()] == [None, 1536, None]
        assert list(gallery.known(here)) == [odd]
        assert gallery.known(there)[odd].reason == "empty"


def test_a_file_keeps_its_id_when_it_changes_fails_and_moves(place: str) -> None:
    with closing(filled(place)) as gallery:
        number = {p.path.name: p.id for p in gallery.pictures()}  # type: ignore[union-attr]
        before = gallery.generation()
        gallery.commit(1, [content(9)], [FileEntry("0.jpg", 7, 7, content(9).sha256)])
        gallery.commit(1, [], [FileEntry("1.jpg", 7, 7, reason="cut short")])
        gallery.commit(1, [], [FileEntry("bad.jpg", 7, 7, content(9).sha256)])
        gallery.commit(1, [], [FileEntry("new.jpg", 7, 7, content(2).sha256, moved_from=number["2.jpg"])])
        gallery.commit(1, [], [FileEntry("3.jpg", 7, 7, content(4).sha256, moved_from=number["4.jpg"])])
        after = {p.path.name: p for p in gallery.pictures()}  # type: ignore[union-attr]
        assert after["0.jpg"].id == number["0.jpg"]
        assert (after["1.jpg"].id, after["1.jpg"].state) == (number["1.jpg"], "failed")
        assert (after["bad.jpg"].id, after["bad.jpg"].state) == (number["bad.jpg"], "ready")
        assert after["bad.jpg"].content_id == after["0.jpg"].content_id == gallery.find_content(b"\x09" * 32)
        assert after["new.jpg"].id == number["2.jpg"]
        assert after["3.jpg"].id == number["4.jpg"]
        assert sorted(after) == ["0.jpg", "1.jpg", "3.jpg", "5.jpg", "bad.jpg", "new.jpg"]
        assert gallery.metadata([number["2.jpg"], number["0.jpg"]]) == [METADATA[2], METADATA[0]]
        assert gallery.generation() > before


def test_ids_of_forgotten_pictures_are_not_given_out_again(place: str) -> None:
    with closing(filled(place)) as gallery:
        last = max(p.id for p in gallery.pictures())
        gallery.delete([p.id for p in gallery.pictures()])
        assert (len(gallery), gallery.pictures(), gallery.find_content(b"\2" * 32)) == (0, [], None)
    with open_gallery(place, readonly=False) as gallery:
        gallery.commit(1, [content(1)], [FileEntry("1.jpg", 1, 1, content(1).sha256)])
        assert gallery.pictures()[0].id > last


def test_readers_may_not_write(place: str) -> None:
    filled(place).close()
    with open_gallery(place) as gallery:
        for write in (
            lambda: gallery.add_root(Path("/more")),
            lambda: gallery.commit(1, [], []),
            lambda: gallery.delete([1]),
        ):
            with pytest.raises(GalleryError, match="opened for reading only"):
                write()


def test_another_model_is_refused_and_both_are_named(place: str) -> None:
    filled(place).close()
    with pytest.raises(GalleryError, match=r"model-a .*width 8.*not with model-b"):
        open_gallery(place, fingerprint="model-b")
    with pytest.raises(GalleryError, match="not with model-b"):
        open_or_create_gallery(place, "model-b", WIDTH)
    with pytest.raises(GalleryError, match=r"width 8.*not with model-a \(width 9\)"):
        open_or_create_gallery(place, MODEL, 9)
    with open_or_create_gallery(place, MODEL, WIDTH) as gallery:
        assert len(gallery) == 6


def test_a_gallery_that_is_not_there_is_named(place: str) -> None:
    with pytest.raises(GalleryError, match=r"there is no gallery .*gallery"):
        open_gallery(place)


def test_a_second_writer_is_refused_and_the_first_is_named(place: str) -> None:
    with (
        closing(filled(place)),
        pytest.raises(GalleryError, match=f"is being written by process {os.getpid()}"),
    ):
        open_gallery(place, readonly=False)
    open_gallery(place, readonly=False).close()


FILTERS = [
    "price < 50",
    "price >= 50",
    "price = 5 or price = 49.5",
    "price != 5",
    "not price < 50",
    "price in (5, 50)",
    "price not in (5, 50)",
    "colour = 'red'",
    "colour != 'red'",
    "colour like '%red'",
    "colour not like '%red'",
    "colour like '_ed'",
    "colour contains '100%'",
    "colour contains '0_w'",
    "colour contains '\\'",
    "colour contains '\"'",
    "colour = 'it''s 100% \"wool\"\\'",
    "colour contains 'öß'",
    "colour > 'd' and colour < 'r'",
    "colour in ('red', '100_wool')",
    "sale",
    "not sale",
    "sale = false or price is null",
    "price is null",
    "price is not null and not (sale or colour is null)",
    "day = '2026'",
    "day > '2026-01-05'",
    "day != '2026-11-21'",
    "day in ('2025-12', '2026-11')",
]


@pytest.mark.parametrize("sealed", [False, True], ids=["fresh", "reopened"])
def test_filters_hold_for_the_same_pictures(place: str, tmp_path: Path, sealed: bool) -> None:
    gallery = filled(place)
    if sealed:
        gallery.close()
        gallery = open_gallery(place)
    with closing(gallery), closing(filled(str(tmp_path / "reference"))) as reference:
        for where in FILTERS:
            expected = names(reference, reference.select(where))
            assert names(gallery, gallery.select(where)) == expected, where
            assert len(expected) in range(1, 6), where
        assert gallery.select("colour contains 'Red'").tolist() == []
        with pytest.raises(QueryError, match="there is no column 'prize'"):
            gallery.select("prize < 3")


def test_metadata_are_set_kept_and_taken_away(place: str) -> None:
    with closing(filled(place)) as gallery:
        first, second = (p.id for p in gallery.pictures()[:2])
        gallery.add_columns({"price": "number", "shelf": "text"})
        changes = [(first, {"shelf": "A 1", "price": 6}), (second, {"colour": None})]
        assert gallery.set_metadata(changes) == 2  # type: ignore[arg-type]
        assert gallery.set_metadata(changes) == 0  # type: ignore[arg-type]
        assert gallery.metadata([first]) == [METADATA[0] | {"shelf": "A 1", "price": 6}]
        assert "colour" not in gallery.metadata([second])[0]
        assert gallery.select("shelf = 'A 1'").tolist() == [first]
        with pytest.raises(DataError, match="holds the type number, got 'cheap'"):
            gallery.set_metadata([(first, {"price": "cheap"})])
        with pytest.raises(DataError, match="holds the type text"):
            gallery.add_columns({"shelf": "number"})


@pytest.fixture
def many(place: str, tmp_path: Path) -> Iterator[tuple[GalleryStore, GalleryStore]]:
    """The gallery and one in a folder, of the same 300 pictures, every tenth with the vector of another."""
    contents = [
        Content(bytes([i % 256, i // 256]) * 16, 10, 10, unit(i - i % 10 if i % 10 == 1 else i))
        for i in range(300)
    ]
    entries = [FileEntry(f"{i}.jpg", 1, 1, c.sha256, metadata={"n": i}) for i, c in enumerate(contents)]
    opened = []
    for name in (place, str(tmp_path / "reference")):
        with open_or_create_gallery(name, MODEL, WIDTH) as gallery:
            gallery.add_columns({"n": "number"})
            gallery.commit(gallery.add_root(Path("/p")), contents, entries)
        opened.append(open_gallery(name))
    yield opened[0], opened[1]
    for gallery in opened:
        gallery.close()


def test_searches_give_the_same_pictures_and_scores(many: tuple[GalleryStore, GalleryStore]) -> None:
    queries = np.stack([unit(seed) for seed in (0, 10, 1000)])
    asked: list[dict[str, object]] = [
        {},
        {"exclude": [[0, 1], [], [5, 7, 200]]},
        {"among": [range(0, 300, 7), [3], []]},
        {"among": [range(0, 300, 7)] * 3, "exclude": [[0], [14], [21]]},
        {"where": "n < 100 or n >= 295"},
        {"where": "n < 100", "exclude": [[0, 1], [], [5]]},
        {"where": "n = -1"},
    ]
    gallery, reference = many
    places = {g: [p.id for p in g.pictures()] for g in many}
    for options in asked:
        for k in (1, 2, 10, 400):
            found = [
                [
                    [(places[g].index(hit.id), hit.score) for hit in hits]
                    for hits in g.searcher().search(queries, k, **_ids(options, places[g]))  # type: ignore[arg-type]
                ]
                for g in (gallery, reference)
            ]
            assert found[0] == found[1], (options, k)


def _ids(options: dict[str, object], ids: list[int]) -> dict[str, object]:
    return {
        name: value if isinstance(value, str) else [[ids[i] for i in one] for one in value]  # type: ignore[attr-defined]
        for name, value in options.items()
    }


def test_searchers_have_ids_and_vectors(many: tuple[GalleryStore, GalleryStore]) -> None:
    gallery, _ = many
    searcher = gallery.searcher()
    ids, vectors = gallery.vectors()
    assert (len(searcher), searcher.width, list(searcher.ids)) == (300, WIDTH, ids.tolist())
    assert np.array_equal(searcher.vectors_of([ids[7], ids[2]]), vectors[[7, 2]])
    with pytest.raises(QueryError, match=r"vectors_of: id 9999"):
        searcher.vectors_of([9999])
    with pytest.raises(QueryError, match=r"expected float32 queries of shape \(q, 8\)"):
        searcher.search(np.ones((1, 9), np.float32), 1)
    with pytest.raises(QueryError, match=r"got 0|gives 1 to 16,384"):
        searcher.search(vectors[:1], 0)


def run(folder: Path | str, place: str, **options: object) -> IndexReport:
    encoder = FakeEncoder()
    with open_or_create_gallery(place, encoder.fingerprint, encoder.width) as gallery:
        return index_pictures(folder, gallery, encoder, batch_size=4, threads=2, **options)  # type: ignore[arg-type]


def state(place: str) -> dict[str, tuple[object, ...]]:
    """Everything that searching sees, by path."""
    with open_gallery(place) as gallery:
        ids, vectors = gallery.vectors()
        rows = dict(zip(ids.tolist(), vectors, strict=True))
        return {
            str(p.path): (p.state, p.reason, p.size, p.width, rows[p.id].tobytes() if p.id in rows else b"")
            for p in gallery.pictures()
        }


def change(folder: Path) -> None:
    """What becomes of a folder within a day."""
    (folder / "new.jpg").write_bytes(encoded(photo(50), "JPEG"))
    (folder / "001.jpg").write_bytes(encoded(photo(51), "JPEG"))
    (folder / "002.jpg").rename(folder / "moved.jpg")
    (folder / "003.jpg").unlink()
    (folder / "004.jpg").write_bytes(b"bad")
    shutil.copy(folder / "005.jpg", folder / "copy.jpg")
    (folder / "text.png").write_bytes(encoded(photo(52), "PNG"))


COUNTS = ("found", "encoded", "unchanged", "moved", "duplicates", "deleted")


def test_indexing_does_the_same_to_every_store(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    awkward_folder(folder)
    for number in range(8):
        (folder / f"{number:03}.jpg").write_bytes(encoded(photo(number), "JPEG"))
    reference = str(tmp_path / "reference")
    steps: list[Callable[[Path], None]] = [lambda _: None, lambda _: None, change, lambda _: None]
    for step in steps:
        step(folder)
        first, second = run(folder, place), run(folder, reference)
        assert [getattr(first, name) for name in COUNTS] == [getattr(second, name) for name in COUNTS]
        assert first.failed == second.failed
        assert state(place) == state(reference)
    assert first.unchanged == first.found - len(first.failed)
    folder.rename(tmp_path / "renamed")
    assert run(tmp_path / "renamed", place).moved == run(tmp_path / "renamed", reference).moved > 0
    assert len(state(place)) == len(state(reference))


def test_a_run_that_finds_nothing_new_changes_nothing(place: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    photo(1).save(photos / "1.png")
    encoder = FakeEncoder()
    with open_or_create_gallery(place, encoder.fingerprint, encoder.width) as gallery:
        index_pictures(photos, gallery, encoder)
        before = gallery.generation()
        index_pictures(photos, gallery, encoder)
        assert gallery.generation() == before, "readers would read all vectors again"


def test_a_picture_goes_and_its_duplicate_stays(place: str) -> None:
    with closing(filled(place)) as gallery:
        gallery.commit(1, [], [FileEntry("copy.jpg", 1, 1, content(2).sha256, metadata={"price": 7})])
        number = {p.path.name: p.id for p in gallery.pictures()}  # type: ignore[union-attr]
        found = gallery.find_content(content(2).sha256)
        assert found is not None
        assert gallery.with_content(found) == [number["2.jpg"], number["copy.jpg"]]
        gallery.delete([number["2.jpg"], number["0.jpg"], 999])
    with open_gallery(place) as gallery:
        assert gallery.with_content(found) == [number["copy.jpg"]]
        assert names(gallery, gallery.select("price < 50")) == [
            f"/pictures/{name}" for name in ("1.jpg", "4.jpg", "copy.jpg")
        ]
        searcher = gallery.searcher()
        hits = searcher.search(unit(2)[None], 9)[0]
        assert (hits[0].id, hits[0].score, len(hits)) == (number["copy.jpg"], pytest.approx(1), 5)
        assert [hit.id for hit in searcher.search(unit(2)[None], 9, where="price = 7")[0]] == [hits[0].id]
        assert gallery.find_content(content(0).sha256) is None


def test_values_are_filtered_by_as_soon_as_they_are_set(place: str) -> None:
    with closing(filled(place)) as gallery:
        ids = [p.id for p in gallery.pictures("ready")]
        gallery.add_columns({"rare": "boolean"})
        assert gallery.set_metadata([(ids[4], {"rare": True}), (ids[1], {"rare": False})]) == 2
        assert [hit.id for hit in gallery.searcher().search(unit(1)[None], 3, where="rare")[0]] == [ids[4]]
        gallery.set_metadata([(ids[4], {"rare": None}), (ids[5], {"rare": True})])
        assert [hit.id for hit in gallery.searcher().search(unit(1)[None], 3, where="rare")[0]] == [ids[5]]


def test_shards_and_urls_do_the_same_to_every_store(place: str, tmp_path: Path) -> None:
    bucket = fsspec.filesystem("memory")
    if bucket.exists("/stores"):
        bucket.rm("/stores", recursive=True)
    url, reference = "memory://stores", str(tmp_path / "reference")
    bucket.pipe("/stores/0.jpg", jpeg(0))
    bucket.pipe("/stores/0.tar", shard({"a.jpg": jpeg(1), "b.jpg": jpeg(0), "../c.jpg": jpeg(2)}))

    def change() -> None:
        bucket.pipe("/stores/0.tar", shard({"a.jpg": jpeg(3), "new.jpg": jpeg(1), "bad.jpg": b"bad"}))
        bucket.pipe("/stores/1.tar", shard({"a.jpg": jpeg(4)}))
        bucket.rm("/stores/0.jpg")

    for step in (lambda: None, change, lambda: None):
        step()
        first, second = run(url, place, shards=True), run(url, reference, shards=True)
        assert [getattr(first, name) for name in COUNTS] == [getattr(second, name) for name in COUNTS]
        assert first.failed == second.failed
        assert state(place) == state(reference)
    with open_gallery(place) as gallery:
        read = {str(p.path): read_picture(p) for p in gallery.pictures("ready")}
    assert read == {
        f"{url}/0.tar/a.jpg": jpeg(3),
        f"{url}/0.tar/new.jpg": jpeg(1),
        f"{url}/1.tar/a.jpg": jpeg(4),
    }


def test_files_that_failed_are_read_again_when_asked(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "big.jpg").write_bytes(jpeg(1))
    assert len(run(folder, place, max_pixels=100).failed) == 1
    report = run(folder, place)
    assert (len(report.failed), report.encoded) == (1, 0)
    report = run(folder, place, retry_failed=True)
    assert (report.failed, report.encoded) == ([], 1)
    assert [known[:1] for known in state(place).values()] == [("ready",)]


def test_vectors_go_from_one_store_to_another(place: str, tmp_path: Path) -> None:
    encoder = FakeEncoder()
    folder = tmp_path / "p"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(encoded(photo(number), "JPEG"))
    shutil.copy(folder / "0.jpg", folder / "again.jpg")
    with open_or_create_gallery(place, encoder.fingerprint, encoder.width) as gallery:
        gallery.add_columns(COLUMNS)  # type: ignore[arg-type]
        index_pictures(folder, gallery, encoder)
        ids = gallery.vectors()[0].tolist()
        gallery.set_metadata(zip(ids, METADATA, strict=True))
        gallery.verify()
        assert [[p.path.name for p in group] for group in duplicates(gallery)] == [["0.jpg", "again.jpg"]]  # type: ignore[union-attr]
        assert export_vectors(gallery, tmp_path / "out") == 6
        right = exported(gallery)
    for other in (str(tmp_path / "other"), f"{place}2"):
        with open_or_create_gallery(other, encoder.fingerprint, encoder.width) as gallery:
            report = import_vectors(gallery, open_vectors(tmp_path / "out"), encoder)
            assert (report.imported, report.duplicates, report.failed) == (5, 1, [])
            assert exported(gallery) == right


def exported(gallery: GalleryStore) -> dict[str, tuple[object, ...]]:
    ids, vectors = gallery.vectors()
    rows = zip(gallery.pictures_of(ids.tolist()), vectors, gallery.metadata(ids.tolist()), strict=True)
    return {str(p.path): (p.width, p.height, p.size, v.tobytes(), values) for p, v, values in rows if p}


def test_notes_are_kept_by_kind_and_name(place: str) -> None:
    with filled(place) as gallery:
        gallery.set_notes("forgotten", {"a": {"values": [1, "größe"]}, "b": [True, None]})
        gallery.set_notes("mounts", {"a": ["x"]})
        gallery.set_notes("forgotten", {"b": None, "c": 1.5, "none": None})
        gallery.verify()
    with open_gallery(place) as gallery:
        assert gallery.notes("forgotten") == {"a": {"values": [1, "größe"]}, "c": 1.5}
        assert gallery.notes("mounts") == {"a": ["x"]}
        assert gallery.notes("other") == {}
