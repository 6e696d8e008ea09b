"""Index files that somebody else has made, with checksums that are right: not used, and FAISS never sees them."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import ConfigError
from image2sentence.gallery.records import Content, FileEntry
from image2sentence.gallery.search import faiss_index
from image2sentence.gallery.search.faiss_bytes import require_own_form
from image2sentence.gallery.search.faiss_index import AnnIndex, AnnSettings, build
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.gallery.sqlite.index import make_index
from image2sentence.gallery.sqlite.index_file import NAME
from tests.forged_index import Change, forge, on_disk, put, set_all

faiss = pytest.importorskip("faiss", reason="needs FAISS")

COUNT, WIDTH, LISTS = 300, 8, 4
REASON = "number|length|label|lists|code|where one has to be|header|map from|after its end"


def unit_rows() -> Vectors:
    rows = np.random.default_rng(1).normal(size=(COUNT, WIDTH)).astype(np.float32)
    unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


@pytest.fixture(scope="module", params=["sq8", "pq"])
def index(request: pytest.FixtureRequest) -> AnnIndex:
    return build(unit_rows(), AnnSettings(code=request.param, lists=LISTS, probes=LISTS, rerank=20))


def check(index: AnnIndex, data: bytes) -> None:
    require_own_form(np.frombuffer(data, np.uint8), index.parameters.code, LISTS, COUNT, WIDTH)


def nested(data: bytes) -> bytes:
    head = b"IxPT" + struct.pack("<iqqqBi", WIDTH, COUNT, 1 << 20, 1 << 20, 1, 0) + bytes(4)
    return head * 10_000 + data


def with_number(place: Callable[[bytes], int], number: int) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        at = place(data)
        return data[:at] + struct.pack("<Q", number % 2**64) + data[at + 8 :]

    return changed


def of_lists(after: int) -> Callable[[bytes], int]:
    return lambda data: data.find(b"ilar") + 4 + after


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "lists on disk": on_disk,
    "nested": nested,
    "of another kind": lambda data: b"IwFl" + data[4:],
    "vectors without number": with_number(lambda data: 8, 2**62),
    "vectors fewer than none": with_number(lambda data: 8, -1),
    "lists without number": with_number(lambda data: 37, 2**40),
    "probes and all": lambda data: data[:45],
    "quantiser of graphs": lambda data: data.replace(b"IxFI", b"IHNf"),
    "centres without number": with_number(lambda data: data.find(b"IxFI") + 37, 2**61),
    "one label for all": lambda data: data[: -8 * 20] + struct.pack("<q", 1) * 20,
    "a label of nothing": lambda data: data[:-8] + struct.pack("<q", 10**15),
    "a negative label": lambda data: data[:-8] + struct.pack("<q", -2),
    "other lists": with_number(of_lists(0), 2**40),
    "codes without end": with_number(of_lists(8), 2**61),
    "lengths without number": with_number(of_lists(20), 2**61),
    "a list without end": with_number(of_lists(28), 2**61),
    "sparse lists": lambda data: data.replace(b"full", b"sprs"),
    "unknown lists": lambda data: data.replace(b"full", b"none"),
    "more after it": lambda data: data + b"\0",
    "nothing": lambda data: b"",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_other_bytes_are_refused_before_faiss_sees_them(index: AnnIndex, what: str) -> None:
    data = HOSTILE[what](index.to_bytes().tobytes())
    with pytest.raises(ValueError, match=REASON):
        check(index, data)


def test_one_that_is_cut_short_anywhere_is_refused(index: AnnIndex) -> None:
    data = index.to_bytes().tobytes()
    check(index, data)
    for size in range(0, len(data), 7):
        with pytest.raises(ValueError, match=REASON):
            check(index, data[:size])


def test_what_passes_is_searched_without_harm(index: AnnIndex) -> None:
    data, queries, passed = index.to_bytes().tobytes(), unit_rows()[:4], 0
    ends = (*range(0, 800, 2), *range(len(data) - 60, len(data), 4))
    for number, at in enumerate(ends):
        wrong = (b"\xff\xff\xff\x7f", bytes(4), b"\xff" * 4, b"\0\0\xc0\x7f")[number % 4]
        changed = data[:at] + wrong + data[at + 4 :]
        try:
            check(index, changed)
        except ValueError:
            continue
        passed += 1
        read = AnnIndex.from_bytes(np.frombuffer(changed, np.uint8), index.parameters, COUNT, WIDTH)
        assert read.nearest(queries, 10).max() < COUNT
    assert passed > 10


def test_lists_of_which_some_are_empty_are_read() -> None:
    few = np.repeat(unit_rows()[:2], 150, axis=0)
    made = build(few, AnnSettings(lists=64, probes=64, rerank=20))
    data = made.to_bytes()
    assert b"sprs" in data.tobytes()
    assert len(AnnIndex.from_bytes(data, made.parameters, 300, WIDTH)) == 300


def test_an_index_that_would_not_be_read_again_is_not_written(
    index: AnnIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SimpleNamespace(serialize_index=lambda _: np.zeros(99, np.uint8), __version__="9")
    monkeypatch.setattr(faiss_index, "_faiss", lambda: other)
    with pytest.raises(ConfigError, match="FAISS 9 writes indexes in a form that is not known"):
        index.to_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forged") / "g"
    with Gallery.create(folder, "model", WIDTH) as gallery:
        contents = [Content(b"%032d" % n, 3, 2, row) for n, row in enumerate(unit_rows())]
        entries = [FileEntry(f"{n}.jpg", 9, 9, one.sha256) for n, one in enumerate(contents)]
        gallery.commit(gallery.add_root(Path("/pictures")), contents, entries)
        make_index(gallery, AnnSettings(exact_below=10, lists=LISTS, probes=LISTS, rerank=20))
    return folder


FORGED: dict[str, Change] = {
    "probes are text": set_all("parameters", probes="4"),
    "no probes": set_all("parameters", probes=0),
    "probes of a fraction": set_all("parameters", probes=1.5),
    "reranked without end": set_all("parameters", rerank=1e308),
    "lists below none": set_all("parameters", lists=-4),
    "another code": set_all("parameters", code="flat"),
    "a recall that is none": set_all("parameters", measured=float("nan")),
    "longest is text": set_all(None, longest="1"),
    "longest is not finite": set_all(None, longest=float("inf")),
    "no width": set_all(None, width=0),
    "a count without end": set_all(None, count=2**60),
    "a vector that is not finite": put("vectors", lambda data: np.float32(np.nan).tobytes() + data[4:]),
    "lists on disk": put("index", on_disk),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_file_means_exact_search(
    folder: Path, tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    (own := tmp_path / "g").mkdir()
    for file in folder.iterdir():
        (own / file.name).write_bytes(file.read_bytes())
    forge(own / NAME, FORGED[what])
    queries = unit_rows()[:3]
    with Gallery.open(own) as gallery, caplog.at_level(logging.WARNING):
        hits = gallery.searcher().search(queries, 5)
    assert [row[0].id for row in hits] == [1, 2, 3]
    assert "searching exactly" in caplog.text


def test_the_same_file_unchanged_is_used(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (own := tmp_path / "g").mkdir()
    for file in folder.iterdir():
        (own / file.name).write_bytes(file.read_bytes())
    forge(own / NAME, lambda header, sections: None)
    with Gallery.open(own) as gallery, caplog.at_level(logging.WARNING):
        gallery.searcher().search(unit_rows()[:1], 5)
    assert "searching exactly" not in caplog.text
