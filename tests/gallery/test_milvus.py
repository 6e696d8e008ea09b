"""What is Milvus's own: addresses, a server, expressions, interrupted writers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

from benchmarks.server.process import free_port
from fakes import FakeEncoder, encoded, photo
from image2sentence.errors import GalleryError, QueryError
from image2sentence.gallery.filters.language import Pattern, parse_filter
from image2sentence.gallery.filters.milvus import compile_filter
from image2sentence.gallery.milvus import bookkeeping as ledger
from image2sentence.gallery.milvus import layout
from image2sentence.gallery.milvus.address import TOKEN_VARIABLE, MilvusAddress
from image2sentence.gallery.milvus.gallery import MilvusGallery
from image2sentence.gallery.opening import is_database, open_gallery, open_or_create_gallery
from image2sentence.gallery.records import Content, FileEntry
from image2sentence.indexing.index_pictures import index_pictures

ADDRESSES = {
    "milvus://db.example:19531/shop": ("http://db.example:19531", "shop", "", ""),
    "milvus://db.example/shop?database=main&index=hnsw": ("http://db.example:19530", "shop", "main", "HNSW"),
    "milvus+https://[::1]:1/a_b": ("https://[::1]:1", "a_b", "", ""),
    "milvus+file:///data/x%20y.db?collection=shop": ("/data/x y.db", "shop", "", ""),
    "milvus+file:///data/x.db": ("/data/x.db", "pictures", "", ""),
}
WRONG = {
    "milvus://db.example": "no name",
    "milvus://db.example/a-b": "no name",
    "milvus://db.example:port/shop": "Port could not be cast",
    "milvus:///shop": "host is missing",
    "milvus://root:hunter2@db.example/shop": TOKEN_VARIABLE,
    "milvus://db.example/shop?token=hunter2": "unknown part 'token'",
    "milvus://db.example/shop?index=BEST": "index 'BEST' is none of AUTOINDEX",
    "milvus+file:///data/x.sqlite": "named FILE.db",
}


@pytest.mark.parametrize(("address", "meant"), ADDRESSES.items())
def test_addresses_are_read_and_shown_again(address: str, meant: tuple[str, ...]) -> None:
    parsed = MilvusAddress.parse(address)
    assert (parsed.uri, parsed.collection, parsed.database, parsed.index) == meant
    assert MilvusAddress.parse(str(parsed)).uri == parsed.uri
    assert is_database(address)


@pytest.mark.parametrize(("address", "reason"), WRONG.items())
def test_wrong_addresses_are_refused_without_repeating_secrets(address: str, reason: str) -> None:
    with pytest.raises(GalleryError, match=r"expected milvus://HOST") as caught:
        MilvusAddress.parse(address)
    assert reason in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_urls_of_another_kind_are_no_galleries() -> None:
    with pytest.raises(GalleryError, match="s3://bucket/gallery is no gallery"):
        is_database("s3://bucket/gallery")
    assert not is_database("folder/gallery")


def test_expressions_hold_names_and_values_as_escaped_literals_only() -> None:
    where = parse_filter('"a""] or 1 == 1 or $meta[""" = \'x" or id > 0 or "\' and not b like \'\\%"%\'')
    assert compile_filter(where.condition) == (
        '($meta["m_a\\"] or 1 == 1 or $meta[\\""] == "x\\" or id > 0 or \\"" and '
        '(exists $meta["m_b"] and not ($meta["m_b"] like "\\\\%\\"%")))'
    )


def at(tmp_path: Path) -> str:
    return f"milvus+file://{tmp_path}/gallery.db"


def test_collections_of_others_are_refused_and_left_alone(tmp_path: Path) -> None:
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient

    file = str(tmp_path / "gallery.db")
    client = MilvusClient(file)
    client.create_collection("pictures", dimension=4)
    client.insert("pictures", [{"id": 1, "vector": [1.0, 0, 0, 0]}])
    client.close()
    for opened in (open_gallery, lambda name: open_or_create_gallery(name, "m", 4)):
        with pytest.raises(GalleryError, match="is a collection, but no gallery of image2sentence"):
            opened(at(tmp_path))
    client.close()
    client = MilvusClient(file)
    client.load_collection("pictures")
    assert client.get("pictures", ids=[1], output_fields=["id"])
    client.close()
    server_manager_instance.release_server(file)


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr(layout, "FORMAT", 2)
        MilvusGallery.create(at(tmp_path), "m", 4).close()
    with pytest.raises(GalleryError, match="has format 2, this version of image2sentence reads format 1"):
        open_gallery(at(tmp_path))


def test_a_collection_is_not_made_twice_and_widths_are_checked(tmp_path: Path) -> None:
    MilvusGallery.create(at(tmp_path), "m", 4).close()
    with pytest.raises(GalleryError, match="is there already"):
        MilvusGallery.create(at(tmp_path), "m", 4)
    with pytest.raises(GalleryError, match="at least 1, got 0"):
        MilvusGallery.create(at(tmp_path / "other"), "m", 0)


def test_a_missing_folder_and_a_file_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="the folder above is missing"):
        MilvusGallery.create(at(tmp_path / "nowhere"), "m", 4)
    (tmp_path / "gallery.db").write_bytes(b"a file of the older Milvus Lite")
    with pytest.raises(GalleryError, match="cannot open its file"):
        open_gallery(at(tmp_path))


def test_results_have_a_limit(tmp_path: Path) -> None:
    with MilvusGallery.create(at(tmp_path), "m", 4) as gallery:
        assert gallery.searcher().search(np.eye(4, dtype=np.float32)[:1], 3) == [[]]
        # A query for the most results asks for one more, to know whether there are more.
        assert gallery.searcher().search(np.eye(4, dtype=np.float32)[:1], 16_385) == [[]]
        with pytest.raises(QueryError, match="1 to 16,384 results"):
            gallery.searcher().search(np.eye(4, dtype=np.float32)[:1], 16_386)


def test_patterns_that_milvus_would_try_for_ever_are_refused() -> None:
    assert "like" in compile_filter(Pattern("c", "%a%%b%"))
    assert "like" in compile_filter(Pattern("c", "\\%" * 9))
    with pytest.raises(QueryError, match="at most 3 groups of %"):
        compile_filter(Pattern("c", "%a" * 8 + "%b"))


def test_an_unfinished_creation_is_no_hindrance(tmp_path: Path) -> None:
    with MilvusGallery.create(at(tmp_path), "m", 4) as gallery:
        gallery._database.drop("pictures")
    with MilvusGallery.create(at(tmp_path), "n", 4) as gallery:
        assert gallery.fingerprint == "n"


def test_a_writer_that_died_elsewhere_is_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MilvusGallery.create(at(tmp_path), "m", 4) as gallery:
        book = gallery._ledger
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
        gallery._claim._seen = -1e9  # type: ignore[union-attr]
        gallery.add_root(Path("/p"))
        monkeypatch.undo()
        with pytest.raises(GalleryError, match=r"process \d+ on elsewhere since .* given up in 1[12]\d s"):
            ledger.WriterClaim(book, "it")
        monkeypatch.setattr(ledger, "CLAIM_SECONDS", 0.0)
        other = ledger.WriterClaim(book, "it")
        gallery._claim._seen = -1e9  # type: ignore[union-attr]
        with pytest.raises(GalleryError, match="what this run wrote before is kept"):
            gallery.add_root(Path("/q"))
        other.release()


INDEX_SLOWLY = """
import sys
from fakes import FakeEncoder
from image2sentence.indexing.index_pictures import index_pictures
from image2sentence.gallery.opening import open_or_create_gallery

encoder = FakeEncoder(pause=0.05)
with open_or_create_gallery(sys.argv[2], encoder.fingerprint, encoder.width) as gallery:
    show = lambda done, of: print(done, flush=True)
    index_pictures(sys.argv[1], gallery, encoder, batch_size=2, threads=2, progress=show)
"""


def index_and_kill(folder: Path, gallery: str, when: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INDEX_SLOWLY, folder, gallery],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == when:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()


def found(gallery: str) -> dict[str, bytes]:
    with open_gallery(gallery) as opened:
        ids, vectors = opened.vectors()
        pictures = opened.pictures_of(ids.tolist())
        return {str(p.path): v.tobytes() for p, v in zip(pictures, vectors, strict=True) if p is not None}


def test_killed_while_writing_the_next_run_finishes(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:03}.jpg").write_bytes(encoded(photo(number), "JPEG"))
    index_and_kill(folder, at(tmp_path), when=12)
    partial = found(at(tmp_path))
    for gallery in (at(tmp_path), str(tmp_path / "reference")):
        encoder = FakeEncoder()
        with open_or_create_gallery(gallery, encoder.fingerprint, encoder.width) as opened:
            index_pictures(folder, opened, encoder)
    assert 0 < len(partial) < 20
    assert partial.items() <= found(at(tmp_path)).items()
    assert found(at(tmp_path)) == found(str(tmp_path / "reference"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server on this machine: the same protocol as a cluster's."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "milvus_lite",
        "server",
        "--data-dir",
        str(tmp_path),
        "--port",
        str(port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(1200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    yield f"milvus://127.0.0.1:{port}/shop"
    process.terminate()
    process.wait()


def test_a_server_takes_readers_while_one_writes(server: str) -> None:
    vector = np.eye(4, dtype=np.float32)[0]
    with pytest.raises(GalleryError, match=r"there is no gallery milvus://127.0.0.1:\d+/shop"):
        open_gallery(server)
    with open_or_create_gallery(server, "m", 4) as writer:
        writer.commit(
            writer.add_root(Path("/p")),
            [Content(b"1" * 32, 1, 1, vector)],
            [FileEntry("a.jpg", 1, 1, b"1" * 32)],
        )
        with open_gallery(server) as reader:
            (hit,) = reader.searcher().search(vector[None], 5)[0]
            assert (reader.picture(hit.id).path, hit.score) == (Path("/p/a.jpg"), 1.0)
        with pytest.raises(GalleryError, match="is being written by process"):
            open_gallery(server, readonly=False)


def test_a_server_that_does_not_answer_is_named_without_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "hunter2")
    with pytest.raises(
        GalleryError, match=r"milvus://127.0.0.1:9/shop: the server does not answer"
    ) as caught:
        open_gallery("milvus://127.0.0.1:9/shop")
    assert "hunter2" not in str(caught.value)
