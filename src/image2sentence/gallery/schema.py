"""The gallery file: tables, format version, checksums, and the translation of SQLite's errors.

The format is documented in `docs/gallery.md`; a change here is a new `FORMAT_VERSION` and a change there.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeAlias

from image2sentence.errors import GalleryError
from image2sentence.images import display_path

APPLICATION_ID = 0x69327347
"""Marks the SQLite file as a gallery (the letters `i2sG`)."""

FORMAT_VERSION = 1

Field: TypeAlias = bytes | str | int | None

_SCHEMA = """
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
CREATE TABLE roots (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    path     BLOB NOT NULL UNIQUE,
    checksum INTEGER NOT NULL
);
CREATE TABLE contents (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256   BLOB NOT NULL UNIQUE,
    width    INTEGER NOT NULL,
    height   INTEGER NOT NULL,
    vector   BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE pictures (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    root_id    INTEGER NOT NULL REFERENCES roots (id),
    path       BLOB NOT NULL,
    size       INTEGER NOT NULL,
    mtime_ns   INTEGER NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('ready', 'failed')),
    reason     TEXT,
    content_id INTEGER REFERENCES contents (id),
    checksum   INTEGER NOT NULL,
    UNIQUE (root_id, path),
    CHECK ((state = 'ready') = (content_id IS NOT NULL)),
    CHECK ((state = 'failed') = (reason IS NOT NULL))
);
CREATE INDEX pictures_by_content ON pictures (content_id);
"""


def checksum(*fields: Field) -> int:
    """CRC-32 of the fields, joined by zero bytes, each as a letter for its type and its bytes.

    b and the bytes; t and the text in UTF-8; i and the number in decimal; n alone for NULL.
    """
    return zlib.crc32(b"\0".join(_field_bytes(field) for field in fields))


def _field_bytes(field: Field) -> bytes:
    if isinstance(field, bytes):
        return b"b" + field
    if isinstance(field, str):
        return b"t" + field.encode()
    return b"n" if field is None else b"i%d" % field


@contextmanager
def sqlite_errors(file: Path) -> Iterator[None]:
    """Turn what SQLite raises about this file into a GalleryError that says what to do."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, UnicodeDecodeError, OverflowError) as error:
        raise GalleryError(f"{display_path(file)}: {error}. {_advice(str(error))}") from error


def _advice(message: str) -> str:
    if "full" in message:
        return "Nothing committed is lost; make room on the disk and run again."
    if "locked" in message:
        return "Another program holds the file; try again when it has ended."
    if "readonly" in message or "unable to open" in message:
        return "Check the permissions of the folder and the file."
    return "The file is damaged: restore it from a copy, or delete the gallery folder and index again."


def connect(file: Path, *, readonly: bool) -> sqlite3.Connection:
    """Open the file; threads may share the connection when they take turns."""
    uri = file.absolute().as_uri() + ("?mode=ro" if readonly else "?mode=rw")
    # In a read-only folder no writer can be at work, and SQLite cannot make its shared-memory file.
    log = file.with_name(file.name + "-wal")
    if readonly and not os.access(file.parent, os.W_OK) and not log.exists():
        uri += "&immutable=1"
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None, timeout=30)
    if not readonly:
        connection.execute("PRAGMA foreign_keys = ON")
        # In WAL mode, NORMAL survives every death of the process; a power cut can undo only the last commits.
        connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def create_file(file: Path, fingerprint: str, width: int) -> None:
    """Write an empty gallery; it appears under its name complete or not at all."""
    unfinished = file.with_name(file.name + ".new")
    for ending in ("", "-wal", "-shm"):
        unfinished.with_name(unfinished.name + ending).unlink(missing_ok=True)
    meta: dict[str, str] = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "fingerprint": fingerprint,
        "width": str(width),
    }
    meta["checksum"] = str(meta_checksum(meta))
    with sqlite_errors(file), closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        connection.executemany("INSERT INTO meta VALUES (?, ?)", sorted(meta.items()))
    os.replace(unfinished, file)


def meta_checksum(meta: dict[str, str]) -> int:
    """Checksum of the `meta` table's own keys and values, in the order of the keys."""
    return checksum(*(part for item in sorted(meta.items()) for part in item))


def read_meta(connection: sqlite3.Connection, file: Path) -> dict[str, str]:
    """The `meta` table, after checking that the file is a gallery of this format and undamaged there."""
    name = display_path(file)
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise GalleryError(f"{name} is not a gallery of image2sentence: choose another folder")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT_VERSION:
        raise GalleryError(
            f"{name} has gallery format {version}, this version of image2sentence reads format "
            f"{FORMAT_VERSION}: install the version that wrote it, or index into a new folder"
        )
    meta: dict[str, str] = dict(connection.execute("SELECT key, value FROM meta"))
    stored = meta.pop("checksum", None)
    if meta.keys() != {"created", "fingerprint", "width"} or stored != str(meta_checksum(meta)):
        raise GalleryError(f"{name}: the table `meta` is damaged. {_advice('')}")
    return meta
