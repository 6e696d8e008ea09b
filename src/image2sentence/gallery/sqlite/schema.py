"""Schema of the gallery file: tables, format version, checksums, SQLite's errors.

The format is documented in `docs/formats.md`; a change here is a new `FORMAT_VERSION` and a change there.
"""

from __future__ import annotations

import os
import re
import sqlite3
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from image2sentence.encoders.config import MAX_WIDTH
from image2sentence.errors import GalleryError
from image2sentence.images import display_path, printable

APPLICATION_ID = 0x69327347
"""Marks the SQLite file as a gallery (the letters `i2sG`)."""

FORMAT_VERSION = 4

READABLE_VERSIONS = (1, 2, 3, 4)
"""Formats that are read; opening for writing makes the newest of an older one."""

RESTORE = "restore the file from a copy, or delete the gallery folder and index again"

Field: TypeAlias = bytes | str | int | float | None

SCHEMA = """
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

# What format 2 added. The table `metadata` gets a column c1, c2, ... for each row of `columns`.
_SCHEMA_2 = """
ALTER TABLE pictures ADD COLUMN data_offset INTEGER;
CREATE TABLE state (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL,
    checksum   INTEGER NOT NULL
);
CREATE TABLE columns (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    name     TEXT NOT NULL UNIQUE,
    type     TEXT NOT NULL CHECK (type IN ('number', 'text', 'boolean', 'date')),
    checksum INTEGER NOT NULL
);
CREATE TABLE metadata (
    picture_id INTEGER PRIMARY KEY REFERENCES pictures (id) ON DELETE CASCADE,
    checksum   INTEGER NOT NULL
);
CREATE TABLE derived (
    name     TEXT PRIMARY KEY,
    token    BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
"""

# What format 3 added: ids under checksums, and how many rows there are.
_SCHEMA_3 = """
ALTER TABLE roots ADD COLUMN id_checksum INTEGER;
ALTER TABLE columns ADD COLUMN id_checksum INTEGER;
ALTER TABLE pictures ADD COLUMN id_checksum INTEGER;
CREATE TABLE totals (
    name     TEXT PRIMARY KEY,
    rows     INTEGER NOT NULL,
    total    INTEGER NOT NULL,
    checksum INTEGER NOT NULL
);
"""

# What format 4 added, see `image2sentence.gallery.sqlite.words`: the one virtual table that a gallery has.
WORDS_SCHEMA = (
    "CREATE VIRTUAL TABLE words"
    " USING fts5(text, columnsize = 0, tokenize = 'porter unicode61 remove_diacritics 2')"
)

ADDITIONS = {2: _SCHEMA_2, 3: _SCHEMA_3, 4: WORDS_SCHEMA}
"""SQL that makes each format of the one before."""

_NEW_KEYS = {"created", "fingerprint", "id", "width"}
_KEYS = {1: _NEW_KEYS - {"id"}, **dict.fromkeys((2, 3, 4), _NEW_KEYS)}


class Damage(Exception):
    """Rows of the file that are not those that were written; the text says which."""


class DamagedRow(Damage):
    """A row that is not the one that was written."""

    def __init__(self, kind: str, number: int | str) -> None:
        super().__init__(f"{kind} {number} has a wrong checksum")


def checksum(*fields: Field) -> int:
    """CRC-32 of the fields, joined by zero bytes, each as a letter for its type and its bytes.

    b and the bytes; t and the text in UTF-8; i and the whole number in decimal; f and the number as 8 bytes, IEEE
    754, little-endian; n alone for NULL.
    """
    return zlib.crc32(b"\0".join(_field_bytes(field) for field in fields))


def picture_checksum(fields: Sequence[Field], offset: int | None) -> int:
    """Over the columns of a picture that format 1 had, and the offset where there is one."""
    return checksum(*fields, *(() if offset is None else (offset,)))


def _field_bytes(field: Field) -> bytes:
    if isinstance(field, bytes):
        return b"b" + field
    if isinstance(field, str):
        return b"t" + field.encode()
    if isinstance(field, float):
        return b"f" + struct.pack("<d", field)
    return b"n" if field is None else b"i%d" % field


@contextmanager
def sqlite_errors(file: Path) -> Iterator[None]:
    """Turn what SQLite raises about this file, and damage, into a GalleryError that says what to do."""
    try:
        yield
    except Damage as problem:
        raise damage_error(file, problem) from problem
    except (sqlite3.Error, sqlite3.Warning, UnicodeDecodeError, OverflowError) as error:
        raise GalleryError(f"{display_path(file)}: {error}. {_advice(str(error))}") from error


def damage_error(file: Path, problem: Damage) -> GalleryError:
    """The error of rows that are not those that were written."""
    return GalleryError(f"{display_path(file)} is damaged ({problem}): {RESTORE}")


def _advice(message: str) -> str:
    if "full" in message:
        return "Nothing committed is lost; make room on the disk and run again."
    if "disk I/O error" in message:
        return "Nothing committed is lost; see whether the disk is full, gone or failing, and run again."
    if "locked" in message:
        return "Another program holds the file; try again when it has ended."
    if "no such module" in message:
        return "This Python's SQLite lacks FTS5: use a Python that has it, such as python.org's or your system's."
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
    _harden(connection)
    if not readonly:
        connection.execute("PRAGMA foreign_keys = ON")
        # In WAL mode, NORMAL survives every death of the process; a power cut can undo only the last commits.
        connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _harden(connection: sqlite3.Connection) -> None:
    """Have SQLite distrust the file: whoever made it may have written more into it than rows."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        if sqlite3.sqlite_version_info >= (3, 35):  # before, the connection's own would be off as well
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER, False)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW, False)


def _check_schema(connection: sqlite3.Connection, name: str) -> None:
    """Raise GalleryError where the file holds more than a gallery's tables, and plain ones beside them.

    SQLite computes what a schema says (generated columns, constraints, expressions of indexes), and each can take any
    time and memory for every row.
    """
    usual = _usual_statements(read_version(connection))
    for kind, called, statement in connection.execute("SELECT type, name, sql FROM sqlite_master"):
        if statement is not None and not _is_harmless(str(statement), usual):
            raise GalleryError(
                f"{name} holds the {printable(str(kind))} {printable(str(called))}, which no gallery has: "
                "it was changed by somebody; use a copy that you trust, or index the pictures again"
            )


def _is_harmless(statement: str, usual: frozenset[str]) -> bool:
    plain = _one_line(statement)
    if plain in usual or _COLUMNS_ADDED.sub(")", plain) in usual:
        return True
    if _PLAIN_INDEX.fullmatch(plain):
        return True
    return plain.startswith("CREATE TABLE ") and not _COMPUTED.search(plain)


@lru_cache
def _usual_statements(version: int) -> frozenset[str]:
    """What a gallery of this format is made by, as SQLite keeps it."""
    parts = [SCHEMA, *(ADDITIONS[number] for number in range(2, version + 1))]
    with closing(sqlite3.connect(":memory:")) as made:
        made.executescript(";".join(parts))
        return frozenset(
            _one_line(row[0]) for row in made.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL")
        )


def _one_line(statement: str) -> str:
    return " ".join(statement.split()).replace(" )", ")").replace(" ,", ",")


_COLUMNS_ADDED = re.compile(r"(, c[0-9]+)+\)\Z")
_PLAIN_INDEX = re.compile(r"CREATE (UNIQUE )?INDEX \w+ ON \w+ ?\(\w+( DESC)?(, ?\w+( DESC)?)*\)")
_COMPUTED = re.compile(r"\b(AS|CHECK|DEFAULT|GENERATED|REFERENCES|VIRTUAL)\b", re.IGNORECASE)


def write_meta(connection: sqlite3.Connection, meta: dict[str, str]) -> None:
    """Write the table `meta` with its checksum."""
    rows = {**meta, "checksum": str(meta_checksum(meta))}
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", sorted(rows.items()))


def write_generation(connection: sqlite3.Connection, generation: int) -> None:
    """Set the number that grows with every change."""
    row = (generation, checksum(generation))
    connection.execute("INSERT OR REPLACE INTO state (id, generation, checksum) VALUES (1, ?, ?)", row)


def read_generation(connection: sqlite3.Connection, file: Path) -> int:
    """The number that grows with every change; 0 for a file of format 1."""
    if read_version(connection) == 1:
        return 0
    row = connection.execute("SELECT generation, checksum FROM state").fetchone()
    if row is None or row[1] != checksum(row[0]):
        raise GalleryError(f"{display_path(file)}: the table `state` is damaged. {_advice('')}")
    return int(row[0])


def read_version(connection: sqlite3.Connection) -> int:
    """The file's format version."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def meta_checksum(meta: dict[str, str]) -> int:
    """Checksum of the `meta` table's own keys and values, in the order of the keys."""
    return checksum(*(part for item in sorted(meta.items()) for part in item))


def read_meta(connection: sqlite3.Connection, file: Path) -> dict[str, str]:
    """The `meta` table, after checking that the file is a gallery of a known format and undamaged there."""
    name = display_path(file)
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise GalleryError(f"{name} is not a gallery of image2sentence: choose another folder")
    version = read_version(connection)
    if version not in READABLE_VERSIONS:
        raise GalleryError(
            f"{name} has gallery format {version}, this version of image2sentence reads formats up to "
            f"{FORMAT_VERSION}: install the version that wrote it, or index into a new folder"
        )
    _check_schema(connection, name)
    meta: dict[str, str] = dict(connection.execute("SELECT key, value FROM meta"))
    stored = meta.pop("checksum", None)
    if meta.keys() != _KEYS[version] or stored != str(meta_checksum(meta)):
        raise GalleryError(f"{name}: the table `meta` is damaged. {_advice('')}")
    if not re.fullmatch("[1-9][0-9]{0,4}", meta["width"]) or int(meta["width"]) > MAX_WIDTH:
        raise GalleryError(f"{name}: the table `meta` holds no width of vectors. {_advice('')}")
    return meta
