"""Making a gallery file, and bringing one of an older format up to date."""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from image2sentence.gallery.sqlite.schema import (
    ADDITIONS,
    APPLICATION_ID,
    FORMAT_VERSION,
    SCHEMA,
    DamagedRow,
    checksum,
    picture_checksum,
    read_meta,
    read_version,
    sqlite_errors,
    write_generation,
    write_meta,
)
from image2sentence.gallery.sqlite.totals import count_totals
from image2sentence.gallery.sqlite.words import update_words

_ROW_BATCH = 10_000


def create_file(file: Path, fingerprint: str, width: int) -> None:
    """Write an empty gallery; it appears under its name complete or not at all."""
    unfinished = file.with_name(file.name + ".new")
    for ending in ("", "-wal", "-shm"):
        unfinished.with_name(unfinished.name + ending).unlink(missing_ok=True)
    meta: dict[str, str] = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "fingerprint": fingerprint,
        "id": secrets.token_hex(16),
        "width": str(width),
    }
    with sqlite_errors(file), closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        connection.executescript(";".join(["BEGIN", SCHEMA, *ADDITIONS.values(), "COMMIT"]))
        write_generation(connection, 0)
        count_totals(connection)
        write_meta(connection, meta)
    os.replace(unfinished, file)


def migrate(connection: sqlite3.Connection, file: Path) -> None:
    """Bring a file of an older format to this one, in one transaction; one of this format is left alone.

    Raises:
        GalleryError: the file is damaged, or cannot be written.
        DamagedRow: a row is not the one that was written.
    """
    with sqlite_errors(file):
        meta = read_meta(connection, file)
        if read_version(connection) == FORMAT_VERSION:
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            _add(connection, meta, read_version(connection))
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def _add(connection: sqlite3.Connection, meta: dict[str, str], version: int) -> None:
    for number in range(version + 1, FORMAT_VERSION + 1):
        for statement in ADDITIONS[number].split(";"):
            connection.execute(statement)
    if version == 1:
        write_generation(connection, 0)
        write_meta(connection, {**meta, "id": secrets.token_hex(16)})
    if version < 3:
        _bind_ids(connection)
        count_totals(connection)
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
    update_words(connection)


def _bind_ids(connection: sqlite3.Connection) -> None:
    """Put the ids that are there under checksums. Raises DamagedRow where a row is not the one that was written."""
    for table, kind, fields in (("roots", "root", "path"), ("columns", "column", "name, type")):
        rows = connection.execute(f"SELECT id, checksum, {fields} FROM {table}").fetchall()
        for number, stored, *values in rows:
            if stored != checksum(*values):
                raise DamagedRow(kind, number)
        _write_id_checksums(connection, table, [(checksum(row[0], row[1]), row[0]) for row in rows])
    last = -(2**63)
    query = (
        "SELECT pictures.id, pictures.checksum, data_offset, sha256, root_id, path, size, mtime_ns, state, reason,"
        " content_id FROM pictures LEFT JOIN contents ON contents.id = content_id"
        " WHERE pictures.id > ? ORDER BY pictures.id LIMIT ?"
    )
    while rows := connection.execute(query, (last, _ROW_BATCH)).fetchall():
        last = rows[-1][0]
        _write_id_checksums(connection, "pictures", [_bound_picture(row) for row in rows])


def _bound_picture(row: tuple[Any, ...]) -> tuple[int, int]:
    """(checksum of the id, id) of one picture's row, which is checked."""
    number, stored, offset, sha256, *fields = row
    if stored != picture_checksum(fields, offset) or (sha256 is None) != (fields[-1] is None):
        raise DamagedRow("picture", number)
    return checksum(number, sha256, stored), number


def _write_id_checksums(connection: sqlite3.Connection, table: str, rows: list[tuple[int, int]]) -> None:
    connection.executemany(f"UPDATE {table} SET id_checksum = ? WHERE id = ?", rows)
