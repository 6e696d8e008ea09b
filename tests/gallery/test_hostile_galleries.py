"""Galleries that somebody else has changed: what they name, hold and carry is refused by name."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from image2sentence.errors import GalleryError, ImageError
from image2sentence.gallery import locations
from image2sentence.gallery.locations import is_share_or_device, joined, read_picture, stored_place
from image2sentence.gallery.records import Content, FileEntry, Picture
from image2sentence.gallery.search.faiss_index import AnnSettings
from image2sentence.gallery.sqlite import lock, schema
from image2sentence.gallery.sqlite.gallery import DATABASE, Gallery
from image2sentence.gallery.sqlite.index import make_index
from image2sentence.gallery.sqlite.index_file import NAME
from image2sentence.gallery.sqlite.totals import count_totals
from image2sentence.images.decode import MAX_STATED_PIXELS, DecodeLimits
from image2sentence.images.worker import Request, write_request

WIDTH = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Gallery.create(tmp_path / "g", "model", WIDTH) as gallery:
        vectors = np.random.default_rng(1).normal(size=(64, WIDTH)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        contents = [Content(bytes([n]) * 32, 3, 2, vector) for n, vector in enumerate(vectors)]
        entries = [FileEntry(f"{n}.jpg", 9, 9, one.sha256) for n, one in enumerate(contents)]
        gallery.commit(gallery.add_root(Path("/pictures")), contents, entries)
    return tmp_path / "g"


def change(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        connection.execute(statement, values)


@pytest.mark.parametrize("name", ["/pictures", "C:\\pictures", "\\\\host\\pictures", "s3://bucket/a%20b"])
def test_roots_of_any_system_and_store_come_back(name: str) -> None:
    assert str(stored_place(name)) == name


SHARES = (
    "\\\\host\\share",
    "//host/share",
    "\\\\?\\C:\\x",
    "\\\\.\\pipe\\x",
    "/\\host/x",
    "\\/host",
    "\\??\\C:\\x",
)


@pytest.mark.parametrize("name", SHARES)
def test_shares_and_devices_of_windows_are_known(name: str) -> None:
    assert is_share_or_device(name)


@pytest.mark.parametrize(
    "name", ["/pictures", "C:\\pictures", "C:/pictures", "pictures", "/a//b", "\\pictures"]
)
def test_folders_are_no_shares(name: str) -> None:
    assert not is_share_or_device(name)


@pytest.mark.parametrize("name", SHARES)
def test_a_stored_share_is_refused_on_windows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations, "os", SimpleNamespace(name="nt", environ={}, fspath=os.fspath))
    with pytest.raises(GalleryError, match="names a network share or device"):
        stored_place(name)


def test_shares_may_be_allowed_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = {"IMAGE2SENTENCE_PROTOCOLS": "unc"}
    monkeypatch.setattr(locations, "os", SimpleNamespace(name="nt", environ=allowed, fspath=os.fspath))
    assert str(stored_place("\\\\host\\share")) == "\\\\host\\share"


def test_objects_below_a_slash_keep_their_names() -> None:
    assert joined("s3://bucket/shop", "/x.jpg") == "s3://bucket/shop//x.jpg"


def test_a_picture_whose_name_is_a_chain_is_not_read() -> None:
    picture = Picture(1, "memory://a/x::file:///etc/passwd", "ready", None, 9, 9, 1, 3, 2)
    with pytest.raises(ImageError, match="chains"):
        read_picture(picture)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW v AS SELECT 1",
        "CREATE TRIGGER t AFTER DELETE ON pictures BEGIN DELETE FROM contents; END",
        "CREATE VIRTUAL TABLE f USING fts5(a)",
        "CREATE VIRTUAL TABLE words2 USING fts5(text, columnsize = 0, tokenize = 'porter unicode61')",
        "CREATE TABLE other (a, b AS (zeroblob(400000000)))",
        "ALTER TABLE contents ADD COLUMN more AS (zeroblob(400000000))",
        "ALTER TABLE metadata ADD COLUMN c9 CHECK (length(hex(zeroblob(400000000))) > 0 OR c9 IS NULL)",
        "CREATE INDEX other ON pictures (hex(path))",
        "CREATE INDEX other ON pictures (path) WHERE length(zeroblob(400000000)) > 0",
        "CREATE TABLE other (a REFERENCES pictures (id) ON DELETE CASCADE)",
    ],
)
def test_what_no_gallery_holds_is_refused(folder: Path, statement: str) -> None:
    change(folder, statement)
    for readonly in (True, False):
        with pytest.raises(GalleryError, match="which no gallery has"):
            Gallery.open(folder, readonly=readonly)


def test_plain_tables_of_others_and_statistics_are_left_alone(folder: Path) -> None:
    for statement in (
        "CREATE TABLE mine (a INTEGER PRIMARY KEY, b TEXT)",
        "CREATE INDEX m ON mine (b)",
        "ANALYZE",
    ):
        change(folder, statement)
    with Gallery.open(folder, readonly=False) as gallery:
        gallery.add_columns({"a": "text", "b": "number"})
        gallery.verify()
    with Gallery.open(folder) as gallery:
        assert len(gallery.searcher()) == 64


@pytest.mark.parametrize(
    ("table", "changed", "row"),
    [
        ("roots", "path", (5,)),
        ("roots", "path", ("/pictures",)),
        ("pictures", "path", ("1.jpg",)),
        ("pictures", "size", ("large",)),
        ("pictures", "mtime_ns", (0.5,)),
        ("pictures", "state", ("odd",)),
        ("contents", "width", ("wide",)),
        ("contents", "width", (0,)),
        ("contents", "height", (-3,)),
        ("contents", "height", (2**32,)),
        ("contents", "width", (2**62,)),
        ("contents", "vector", ("x" * 4 * WIDTH,)),
        ("columns", "type", ("evil",)),
        ("columns", "name", (b"a",)),
    ],
)
def test_values_of_other_types_with_right_checksums_are_refused(
    folder: Path, table: str, changed: str, row: tuple[object]
) -> None:
    with Gallery.open(folder, readonly=False) as gallery:
        gallery.add_columns({"a": "text"})
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        kept = "(SELECT max(id) FROM contents)" if table == "contents" else "1"
        connection.execute(f"UPDATE {table} SET {changed} = ? WHERE id = {kept}", row)
        seal(connection)
    with Gallery.open(folder) as gallery, pytest.raises(GalleryError, match="wrong checksum"):
        read_all(gallery)


def read_all(gallery: Gallery) -> None:
    gallery.columns()
    gallery.pictures()
    gallery.searcher()


def seal(connection: sqlite3.Connection) -> None:
    """Put right checksums over whatever the tables hold."""
    for number, path in connection.execute("SELECT id, path FROM roots").fetchall():
        row = (schema.checksum(path), schema.checksum(number, schema.checksum(path)), number)
        connection.execute("UPDATE roots SET checksum = ?, id_checksum = ? WHERE id = ?", row)
    for number, *pair in connection.execute("SELECT id, name, type FROM columns").fetchall():
        row = (schema.checksum(*pair), schema.checksum(number, schema.checksum(*pair)), number)
        connection.execute("UPDATE columns SET checksum = ?, id_checksum = ? WHERE id = ?", row)
    for number, *fields in connection.execute(
        "SELECT id, sha256, width, height, vector FROM contents"
    ).fetchall():
        connection.execute(
            "UPDATE contents SET checksum = ? WHERE id = ?", (schema.checksum(*fields), number)
        )
    query = (
        "SELECT pictures.id, sha256, root_id, path, size, mtime_ns, state, reason, content_id"
        " FROM pictures JOIN contents ON contents.id = content_id"
    )
    for number, sha256, *fields in connection.execute(query).fetchall():
        stored = schema.checksum(*fields)
        row = (stored, schema.checksum(number, sha256, stored), number)
        connection.execute("UPDATE pictures SET checksum = ?, id_checksum = ? WHERE id = ?", row)
    count_totals(connection)


def test_the_schema_of_a_file_is_not_trusted(folder: Path) -> None:
    with Gallery.open(folder) as gallery:
        assert gallery._database.connection.execute("PRAGMA trusted_schema").fetchone() == (0,)
        assert gallery._database.connection.execute("PRAGMA cell_size_check").fetchone() == (1,)


@pytest.mark.parametrize("protocol", ["sftp", "ssh", "smb", "hdfs", "webhdfs", "http", "ftp", "github"])
def test_a_gallery_names_no_host_to_sign_in_to(protocol: str) -> None:
    with pytest.raises(GalleryError, match="not among the protocols"):
        stored_place(f"{protocol}://host/pictures")


@pytest.mark.parametrize(("offset", "size"), [(512, 1 << 40), (512, -2), (0, 9), (-512, 9)])
def test_a_member_of_any_size_is_not_read(tmp_path: Path, offset: int, size: int) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(2_048))
    picture = Picture(1, tmp_path / "a.tar" / "1.jpg", "ready", None, size, 9, 1, 3, 2, offset)
    with pytest.raises(ImageError, match="the limit"):
        read_picture(picture)


@pytest.mark.parametrize("what", ["faiss", "other", "header"])
def test_an_index_that_cannot_be_read_means_exact_search(
    folder: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    faiss = pytest.importorskip("faiss", reason="needs FAISS")
    with Gallery.open(folder, readonly=False) as gallery:
        make_index(gallery, AnnSettings(exact_below=10, lists=4, probes=4, rerank=20))
    flat = faiss.serialize_index(faiss.IndexFlatIP(WIDTH)).tobytes()
    forge(folder / NAME, {"faiss": b"IwFl" + bytes(40), "other": flat, "header": b""}[what])
    query = np.eye(WIDTH, dtype=np.float32)[:1]
    with Gallery.open(folder) as gallery, caplog.at_level(logging.WARNING):
        assert len(gallery.searcher().search(query, 5)[0]) == 5
    assert "searching exactly" in caplog.text


def forge(file: Path, index: bytes) -> None:
    """Put other bytes in place of the FAISS index, or nonsense into the header, with checksums that are right."""
    data = file.read_bytes()
    length = int.from_bytes(data[16:24], "little")
    header, rest = json.loads(data[56 : 56 + length]), data[56 + length :]
    section = header["sections"]["index"]
    if index:
        rest = rest[: section["start"]] + index
        section |= {"bytes": len(index), "sha256": [hashlib.sha256(index).hexdigest()]}
    else:
        section["start"] = "0"
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 56) % 64)
    front = data[:16] + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest()
    file.write_bytes(front + text + rest)


def test_a_file_system_without_locks_is_not_another_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", none)
    with pytest.raises(GalleryError, match="gives no locks") as caught:
        lock.WriterLock(tmp_path / "writer.lock")
    assert "written by" not in str(caught.value)


@pytest.mark.parametrize("width", ["", "0", "-8", "many", "9" * 5_000, "8.0", "65537", "999999999"])
def test_a_width_that_is_none_is_refused(tmp_path: Path, width: str) -> None:
    Gallery.create(tmp_path, "model-a", 8).close()
    connection = sqlite3.connect(tmp_path / "gallery.sqlite")
    meta = dict(connection.execute("SELECT key, value FROM meta WHERE key != 'checksum'")) | {"width": width}
    rows = [("width", width), ("checksum", str(schema.meta_checksum(meta)))]
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
    connection.commit()
    connection.close()
    with pytest.raises(GalleryError, match="holds no width of vectors"):
        Gallery.open(tmp_path)


def test_a_gallery_of_vectors_without_end_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="at most 65,536"):
        Gallery.create(tmp_path / "g", "model", 65_537)


@pytest.mark.parametrize(("width", "height"), [(2**32 - 1, 2**32 - 1), (2**20, 2**20)])
def test_a_stated_size_raises_no_limit_without_end(width: int, height: int) -> None:
    limits = DecodeLimits().for_picture(width, height)
    assert limits.max_pixels == MAX_STATED_PIXELS
    with io.BytesIO() as told:  # a number that the decoder's process is told, and that the system takes
        write_request(told, Request(b"", None, limits))


def test_a_picture_that_was_let_in_by_a_larger_limit_is_shown() -> None:
    assert DecodeLimits().for_picture(20_000, 20_000).max_pixels == 400_000_000
