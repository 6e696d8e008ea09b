"""Connection to the gallery file: reads, transactions, lock, lost commits."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from image2sentence.errors import GalleryError
from image2sentence.gallery.sqlite.creation import migrate
from image2sentence.gallery.sqlite.lock import Mark, WriterLock, read_mark
from image2sentence.gallery.sqlite.schema import (
    DamagedRow,
    Field,
    checksum,
    connect,
    damage_error,
    read_generation,
    read_meta,
    read_version,
    sqlite_errors,
    write_generation,
)
from image2sentence.gallery.sqlite.totals import SUMMED, check_ids, check_total, follow_changes, write_totals
from image2sentence.images import display_path

DATABASE = "gallery.sqlite"
LOCK = "writer.lock"

Row: TypeAlias = tuple[Any, ...]


class Database:
    """An open gallery file. Any number of threads may share it: its methods take turns.

    Attributes:
        folder: The gallery's folder.
        file: The SQLite file in it.
        connection: For use inside `reading` and `transaction` alone.
        writer_lock: The lock of the gallery's one writer; None when opened for reading only.
        version: The file's format version.
        meta: Its table `meta`: fingerprint, width, time of creation and id.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection, writer_lock: WriterLock | None) -> None:
        self.folder = folder
        self.file = folder / DATABASE
        self.connection = connection
        self.writer_lock = writer_lock
        self._lock = threading.RLock()
        with sqlite_errors(self.file):
            self.meta = read_meta(connection, self.file)
            self.version = read_version(connection)
        self.id = self.meta.get("id", "")

    @classmethod
    def open(cls, folder: Path, writer_lock: WriterLock | None) -> Database:
        """Open the file; a writer's brings an older format up to date. Raises GalleryError."""
        with sqlite_errors(folder / DATABASE):
            connection = connect(folder / DATABASE, readonly=writer_lock is None)
        try:
            if writer_lock is not None:
                migrate(connection, folder / DATABASE)
            database = cls(folder, connection, writer_lock)
            if writer_lock is not None:
                database._begin_writing()
                writer_lock.record(Mark(database.generation(), database.id))
            return database
        except GalleryError:
            connection.close()
            raise

    def _begin_writing(self) -> None:
        """See that all rows are there, whose totals are carried on from here."""
        with self.reading() as connection:
            for table in SUMMED:
                check_total(connection, table)
            check_ids(connection)
            follow_changes(connection)

    def close(self) -> None:
        """Close the file and let another writer in; calling again does nothing."""
        with self._lock:
            self.connection.close()
            if self.writer_lock is not None:
                self.writer_lock.release()

    @property
    def readonly(self) -> bool:
        """Whether it was opened for reading only."""
        return self.writer_lock is None

    def generation(self) -> int:
        """A number that grows with every change of pictures, vectors or metadata; 0 in galleries of format 1."""
        with self.reading() as connection:
            return read_generation(connection, self.file)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone. Raises GalleryError for what SQLite raises, and for damage."""
        with self._lock, sqlite_errors(self.file):
            yield self.connection

    @contextmanager
    def transaction(self, *, changes: bool = True) -> Iterator[sqlite3.Connection]:
        """The connection in a transaction, which is committed at its end. Raises GalleryError.

        Args:
            changes: Whether the gallery is another one after it: the generation grows.
        """
        if self.writer_lock is None:
            raise self.for_reading_only()
        with self.reading():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                generation = read_generation(self.connection, self.file) + int(changes)
                if changes:
                    write_generation(self.connection, generation)
                    write_totals(self.connection)
                self.connection.execute("COMMIT")
            finally:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
            self.writer_lock.record(Mark(generation, self.id))

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Reads inside it see one state of the gallery, whatever another process commits meanwhile."""
        with self.reading() as connection:
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    def rows(self, query: str, *values: Field) -> list[Row]:
        """All rows of one statement. Raises GalleryError."""
        with self.reading() as connection:
            return connection.execute(query, values).fetchall()

    def lost_commits(self) -> int:
        """How many commits were made that are not there, as a damaged log loses them; 0 where that is unknown."""
        lost = 0
        for _ in range(2):  # a writer may be in the midst of noting its commit
            mark = read_mark(self.folder / LOCK)
            lost = 0 if mark is None or mark.gallery != self.id else mark.generation - self.generation()
            if lost <= 0:
                return 0
        return lost

    def missing(self, lost: int) -> str:
        """What to say and do about commits that are lost."""
        return (
            f"{display_path(self.file)} or its -wal file has lost the last {lost} commits: damaged, cut short by a "
            "power failure, or replaced by an older copy. Index the folders again, and give metadata and imported "
            "vectors again that came last"
        )

    def derived_token(self, name: str) -> bytes | None:
        """The token of the derived file that belongs to this gallery; None where there is none."""
        if self.version == 1:
            return None
        rows = self.rows("SELECT token, checksum FROM derived WHERE name = ?", name)
        if rows and rows[0][1] != checksum(name, rows[0][0]):
            raise damage_error(self.file, DamagedRow("derived", name))
        return bytes(rows[0][0]) if rows else None

    def set_derived_token(self, name: str, token: bytes | None) -> None:
        """Say which derived file belongs to this gallery; None for no such file. Raises GalleryError."""
        with self.transaction(changes=False) as connection:
            connection.execute("DELETE FROM derived WHERE name = ?", (name,))
            if token is not None:
                row = (name, token, checksum(name, token))
                connection.execute("INSERT INTO derived (name, token, checksum) VALUES (?, ?, ?)", row)

    def compact(self) -> None:
        """Rewrite the file without the room that deleted pictures left; readers go on meanwhile.

        SQLite needs up to twice the file's size of free disk for it: in its folder for temporary files, and beside
        the file.

        Raises:
            GalleryError: the disk is full, the file damaged, or the gallery was opened for reading only.
        """
        if self.readonly:
            raise self.for_reading_only()
        with self.reading() as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def structure_problem(self) -> str | None:
        """What is wrong with SQLite's own structures or a reference; None if nothing. Raises GalleryError."""
        with self.reading() as connection:
            read_meta(connection, self.file)
            problem = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            dangling = connection.execute("PRAGMA foreign_key_check").fetchone()
        if problem != "ok":
            return str(problem)
        return None if dangling is None else f"row {dangling[1]} of {dangling[0]} refers to nothing"

    def for_reading_only(self) -> GalleryError:
        """The error of a writing call."""
        return GalleryError(f"the gallery in {display_path(self.folder)} was opened for reading only")
