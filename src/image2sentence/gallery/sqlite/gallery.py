"""The embedded gallery: a folder whose SQLite file holds paths, contents, states and vectors."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import GalleryError, QueryError
from image2sentence.gallery.filters.language import ColumnType, Filter, Value, as_filter
from image2sentence.gallery.filters.sql import compile_filter
from image2sentence.gallery.locations import Place, joined, may_exist, stored_place
from image2sentence.gallery.records import Content, Entry, Known, Picture
from image2sentence.gallery.search.searcher import Searcher
from image2sentence.gallery.sqlite.index import open_searcher
from image2sentence.gallery.sqlite.index_file import NAME as INDEX
from image2sentence.gallery.sqlite.lock import Mark, WriterLock, read_mark
from image2sentence.gallery.sqlite.metadata_tables import (
    DamagedRow,
    add_columns,
    check_metadata,
    column_values,
    read_columns,
    read_metadata,
    write_metadata,
)
from image2sentence.gallery.sqlite.notes import check_notes, read_notes, write_notes
from image2sentence.gallery.sqlite.schema import (
    Field,
    checksum,
    connect,
    create_file,
    migrate,
    read_generation,
    read_meta,
    read_version,
    sqlite_errors,
    write_generation,
)
from image2sentence.images import display_path

DATABASE = "gallery.sqlite"
LOCK = "writer.lock"

Row: TypeAlias = tuple[Any, ...]

_ROWS_AT_ONCE = 4_096
_METADATA_AT_ONCE = 10_000
_PICTURES = (
    "SELECT pictures.id, root_id, path, size, mtime_ns, state, reason, content_id, {offset},"
    " pictures.checksum, width, height FROM pictures LEFT JOIN contents ON contents.id = content_id"
)
_DAMAGED = "restore the file from a copy, or delete the gallery folder and index again"

_log = logging.getLogger(__name__)

MAX_SELECT_SECONDS = 10.0
"""How long SQLite may work on one filter."""


@contextmanager
def _deadline(connection: sqlite3.Connection) -> Iterator[None]:
    """End statements of a filter that run for too long. Raises QueryError where one did."""
    ended = time.monotonic() + MAX_SELECT_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > ended, 10_000)
    try:
        yield
    except sqlite3.OperationalError as error:
        if "interrupted" not in str(error):
            raise
        raise QueryError(
            f"the filter is too costly: it took longer than {MAX_SELECT_SECONDS:g} s; use fewer tests of text"
        ) from error
    finally:
        connection.set_progress_handler(None, 0)


class Gallery:
    """A gallery in a folder; make one with `create`, `open` or `open_or_create`, and close it (`with` does).

    Any number of readers may be open while one writer writes; each read sees all commits before it and
    nothing of a commit half done. Threads may share a gallery: its methods take turns.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection, lock: WriterLock | None) -> None:
        self.folder = folder
        self._file = folder / DATABASE
        self._connection = connection
        self._lock = lock
        self._turn = threading.RLock()
        with sqlite_errors(self._file):
            meta = read_meta(connection, self._file)
            self._version = read_version(connection)
        offset = "NULL" if self._version == 1 else "data_offset"
        self._pictures_query = _PICTURES.format(offset=offset)
        self.fingerprint = meta["fingerprint"]
        self.width = int(meta["width"])
        self.created = meta["created"]
        self.id = meta.get("id", "")

    @classmethod
    def create(cls, folder: str | os.PathLike[str], fingerprint: str, width: int) -> Gallery:
        """Make a gallery in a new or empty folder and open it for writing.

        Args:
            folder: Where to make it; parents are made too.
            fingerprint: Identity of the vector space (`Encoder.fingerprint`).
            width: Width d of the vectors, at least 1.

        Raises:
            GalleryError: the folder holds something else, or a gallery already, or cannot be written.
        """
        place = Path(folder)
        if width < 1:
            raise GalleryError(f"the width of vectors must be at least 1, got {width}")
        _make_folder(place)
        with ExitStack() as undo:
            lock = WriterLock(place / LOCK)
            undo.callback(lock.release)
            if _is_there(place):
                raise GalleryError(
                    f"{display_path(place)} holds a gallery already: open it, or choose another folder"
                )
            with _writing_errors(place):
                create_file(place / DATABASE, fingerprint, width)
            gallery = cls._opened(place, lock)
            undo.pop_all()
        return gallery

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str], *, readonly: bool = True, fingerprint: str | None = None
    ) -> Gallery:
        """Open a gallery.

        Args:
            folder: The gallery's folder.
            readonly: False to write; one writer at a time.
            fingerprint: Identity of the encoder it will be used with; None to take any.

        Raises:
            GalleryError: there is none, it is damaged, of another format version or another model, or another
                process is writing.
        """
        place = Path(folder)
        if not _is_there(place):
            raise GalleryError(
                f"there is no gallery in {display_path(place)}: "
                f"make one with `image2sentence index PICTURES --gallery {display_path(place)}`"
            )
        with ExitStack() as undo:
            lock = None if readonly else WriterLock(place / LOCK)
            if lock is not None:
                undo.callback(lock.release)
            gallery = cls._opened(place, None)
            undo.callback(gallery.close)
            gallery._miss_commits(keep=not readonly)
            if lock is not None:
                # Until here nothing has been written: only a writer's connection takes the log up for good.
                gallery.close()
                gallery = cls._opened(place, lock)
                undo.callback(gallery.close)
            if fingerprint is not None:
                gallery.require(fingerprint)
            undo.pop_all()
        return gallery

    @classmethod
    def open_or_create(cls, folder: str | os.PathLike[str], fingerprint: str, width: int) -> Gallery:
        """Open this encoder's gallery for writing, or make it where there is none. Raises GalleryError."""
        if _is_there(Path(folder)):
            gallery = cls.open(folder, readonly=False)
            try:
                gallery.require(fingerprint, width)
            except GalleryError:
                gallery.close()
                raise
            return gallery
        return cls.create(folder, fingerprint, width)

    @classmethod
    def _opened(cls, folder: Path, lock: WriterLock | None) -> Gallery:
        with sqlite_errors(folder / DATABASE):
            connection = connect(folder / DATABASE, readonly=lock is None)
        try:
            if lock is not None:
                migrate(connection, folder / DATABASE)
            gallery = cls(folder, connection, lock)
            if lock is not None:
                lock.record(Mark(gallery.generation(), gallery.id))
            return gallery
        except GalleryError:
            connection.close()
            raise

    def _miss_commits(self, *, keep: bool) -> None:
        """Warn where commits are missing; before a writer goes on from there, check what is left and keep the log."""
        lost = self.lost_commits()
        if not lost:
            return
        log = self._file.with_name(f"{DATABASE}-wal")
        kept = log.with_name(f"{log.name}.lost")
        if keep:
            self._verify_rows()
            if log.exists():
                with _writing_errors(self.folder):
                    shutil.copyfile(log, kept)
        _log.warning(
            "%s. What is left is whole%s",
            self._missing(lost),
            f"; the log as it was is kept as {display_path(kept)}" if keep and kept.exists() else "",
        )

    def _missing(self, lost: int) -> str:
        return (
            f"{display_path(self._file)} or its -wal file has lost the last {lost} commits: damaged, cut short by a "
            "power failure, or replaced by an older copy. Index the folders again, and give metadata and imported "
            "vectors again that came last"
        )

    def require(self, fingerprint: str, width: int | None = None) -> None:
        """Raise GalleryError unless the gallery was made with this encoder."""
        if fingerprint != self.fingerprint or (width is not None and width != self.width):
            raise GalleryError(
                f"the gallery in {display_path(self.folder)} was made with the encoder {self.fingerprint} "
                f"(vectors of width {self.width}), not with {fingerprint}"
                f"{'' if width is None else f' (width {width})'}: "
                "use that model, or index the pictures into another folder"
            )

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let another writer in; calling again does nothing."""
        with self._turn:
            self._connection.close()
            if self._lock is not None:
                self._lock.release()

    @property
    def name(self) -> str:
        """The folder, ready to be shown."""
        return display_path(self.folder.absolute())

    @property
    def keeps_contents(self) -> bool:
        """See `GalleryStore.keeps_contents`."""
        return True

    @property
    def own_folder(self) -> Path:
        """The folder, which holds no pictures to index."""
        return self.folder

    @property
    def readonly(self) -> bool:
        """Whether it was opened for reading only."""
        return self._lock is None

    def __len__(self) -> int:
        """Number of pictures that can be found."""
        return int(self._rows("SELECT count(*) FROM pictures WHERE state = 'ready'")[0][0])

    def roots(self) -> dict[int, Place]:
        """The places that were indexed (folders, shards, URLs), by their number."""
        roots = {}
        for number, path, stored in self._rows("SELECT id, path, checksum FROM roots ORDER BY id"):
            if stored != checksum(path):
                raise self._damage("root", number)
            roots[number] = stored_place(os.fsdecode(path))
        return roots

    def pictures(self, state: str | None = None) -> list[Picture]:
        """All pictures in gallery order (by id), or those in one state. Raises GalleryError where damaged."""
        rows = self._rows(f"{self._pictures_query} ORDER BY pictures.id")
        roots = self.roots()
        pictures = (self._picture(row, roots) for row in rows)
        return [picture for picture in pictures if state in (None, picture.state)]

    def picture(self, number: int) -> Picture:
        """The picture with this id. Raises QueryError when there is none, GalleryError where damaged."""
        (found,) = self.pictures_of([number])
        if found is None:
            raise QueryError(f"the gallery in {display_path(self.folder)} has no picture {number}")
        return found

    def pictures_of(self, numbers: Sequence[int]) -> list[Picture | None]:
        """The pictures with these ids, in their order; None for an id that is not there (any more)."""
        roots = self.roots()
        found: dict[int, Picture] = {}
        for start in range(0, len(numbers), _ROWS_AT_ONCE):
            wanted = [int(number) for number in numbers[start : start + _ROWS_AT_ONCE]]
            wanted = [number for number in wanted if 0 <= number < 2**63]  # SQLite takes no others
            marks = ", ".join("?" * len(wanted))
            for row in self._rows(f"{self._pictures_query} WHERE pictures.id IN ({marks})", *wanted):
                found[row[0]] = self._picture(row, roots)
        return [found.get(int(number)) for number in numbers]

    def hashes_of(self, numbers: Sequence[int]) -> list[bytes | None]:
        """SHA-256 (32 bytes) of the content of each of these pictures; None for one that is failed or not there."""
        found: dict[int, bytes] = {}
        for start in range(0, len(numbers), _ROWS_AT_ONCE):
            wanted = [int(number) for number in numbers[start : start + _ROWS_AT_ONCE]]
            query = "SELECT pictures.id, sha256 FROM pictures JOIN contents ON contents.id = content_id"
            found |= self._rows(f"{query} WHERE pictures.id IN ({', '.join('?' * len(wanted))})", *wanted)
        return [found.get(int(number)) for number in numbers]

    def generation(self) -> int:
        """A number that grows with every change of pictures, vectors or metadata; 0 in galleries of format 1."""
        with self._reading() as connection:
            return read_generation(connection, self._file)

    def columns(self) -> dict[str, ColumnType]:
        """The metadata columns and their types, in the order in which they came."""
        with self._reading() as connection:
            return {name: column.type for name, column in read_columns(connection).items()}

    def metadata(self, numbers: Sequence[int]) -> list[dict[str, Value]]:
        """For each picture's id, its metadata: the values that are there by column. Raises GalleryError."""
        with self._reading() as connection:
            return read_metadata(connection, numbers)

    def select(self, where: str | Filter) -> NDArray[np.int64]:
        """Ascending ids of the ready pictures that a filter holds for; see `image2sentence.gallery.filters.language`.

        Raises:
            QueryError: the filter is not one, does not fit the columns, or takes longer than MAX_SELECT_SECONDS.
        """
        with self._reading() as connection, _deadline(connection):
            columns = read_columns(connection)
            checked = as_filter(where).checked({name: column.type for name, column in columns.items()})
            places = {name: column.place for name, column in columns.items()}
            condition, values = compile_filter(checked.condition, places)
            rows = connection.execute(
                "SELECT pictures.id FROM pictures LEFT JOIN metadata ON picture_id = pictures.id"
                f" WHERE state = 'ready' AND {condition} ORDER BY pictures.id",
                values,
            )
            return np.fromiter((row[0] for row in rows), np.int64)

    def column(self, name: str) -> tuple[NDArray[np.int64], list[Value]]:
        """Ascending ids of the pictures that have a value in a metadata column, and the values."""
        with self._reading() as connection:
            column = read_columns(connection)[name]
            rows = list(column_values(connection, column))
        return np.fromiter((row[0] for row in rows), np.int64, len(rows)), [row[1] for row in rows]

    def pairs(self) -> NDArray[np.int64]:
        """(n, 2) int64: ids of the ready pictures, ascending, and the numbers of their contents."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT id, content_id FROM pictures WHERE content_id IS NOT NULL ORDER BY id"
            )
            flat = np.fromiter((number for row in rows for number in row), np.int64)
        return flat.reshape(-1, 2)

    def vectors(self, numbers: NDArray[np.int64] | None = None) -> tuple[NDArray[np.int64], Vectors]:
        """Ids (n,) int64 and vectors (n, d) float32 of the ready pictures, in gallery order, each checked.

        Args:
            numbers: Ids of the pictures wanted; None for all.

        Raises:
            GalleryError: a vector is not the one that was written.
        """
        query = (
            "SELECT pictures.id, contents.id, sha256, width, height, vector, contents.checksum"
            " FROM pictures JOIN contents ON contents.id = content_id"
        )
        with self.snapshot() as connection:
            if numbers is None:
                count = len(self)
                return self._read_vectors(connection.execute(f"{query} ORDER BY pictures.id"), count)
            return self._read_vectors(self._wanted_vectors(connection, query, numbers), len(numbers))

    def _wanted_vectors(
        self, connection: sqlite3.Connection, query: str, numbers: NDArray[np.int64]
    ) -> Iterator[Row]:
        for start in range(0, len(numbers), _ROWS_AT_ONCE):
            wanted = np.sort(numbers[start : start + _ROWS_AT_ONCE]).tolist()
            marks = ", ".join("?" * len(wanted))
            yield from connection.execute(
                f"{query} WHERE pictures.id IN ({marks}) ORDER BY pictures.id", wanted
            )

    def _read_vectors(self, rows: Iterable[Row], count: int) -> tuple[NDArray[np.int64], Vectors]:
        ids = np.empty(count, np.int64)
        vectors = np.empty((count, self.width), np.float32)
        waiting = iter(rows)
        done = 0
        while block := list(islice(waiting, _ROWS_AT_ONCE)):
            for row in block:
                self._check_content(row[1:])
            stop = done + len(block)
            ids[done:stop] = [row[0] for row in block]
            vectors[done:stop] = np.frombuffer(b"".join(row[5] for row in block), "<f4").reshape(
                -1, self.width
            )
            done = stop
        return ids[:done], vectors[:done]

    def searcher(self) -> Searcher:
        """A Searcher over the ready pictures as they are now; its ids are the pictures' ids (int).

        It asks the approximate index of a large gallery where that is sound, else it is exact.
        """
        return open_searcher(self)

    def derived_token(self, name: str) -> bytes | None:
        """The token of the derived file that belongs to this gallery; None where there is none."""
        if self._version == 1:
            return None
        rows = self._rows("SELECT token, checksum FROM derived WHERE name = ?", name)
        if rows and rows[0][1] != checksum(name, rows[0][0]):
            raise GalleryError(
                f"{display_path(self._file)} is damaged (derived {name} has a wrong checksum): {_DAMAGED}"
            )
        return bytes(rows[0][0]) if rows else None

    def set_derived_token(self, name: str, token: bytes | None) -> None:
        """Say which derived file belongs to this gallery; None for no such file. Raises GalleryError."""
        with self._transaction(changes=False) as connection:
            connection.execute("DELETE FROM derived WHERE name = ?", (name,))
            if token is not None:
                row = (name, token, checksum(name, token))
                connection.execute("INSERT INTO derived (name, token, checksum) VALUES (?, ?, ?)", row)

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Reads inside it see one state of the gallery, whatever another process commits meanwhile."""
        with self._reading() as connection:
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    def lost_commits(self) -> int:
        """How many commits were made that are not there, as a damaged log loses them; 0 where that is unknown."""
        lost = 0
        for _ in range(2):  # a writer may be in the midst of noting its commit
            mark = read_mark(self.folder / LOCK)
            lost = 0 if mark is None or mark.gallery != self.id else mark.generation - self.generation()
            if lost <= 0:
                return 0
        return lost

    def compact(self) -> None:
        """Rewrite the file without the room that deleted pictures left; readers go on meanwhile.

        SQLite needs up to twice the file's size of free disk for it: in its folder for temporary files, and beside
        the file.

        Raises:
            GalleryError: the disk is full, the file damaged, or the gallery was opened for reading only.
        """
        if self.readonly:
            raise self._for_reading_only()
        with self._reading() as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def verify(self) -> None:
        """Check the whole file: SQLite's structures, every row's checksum, every reference, every commit.

        Raises:
            GalleryError: naming the first damage found.
        """
        self._verify_rows()
        lost = self.lost_commits()
        if lost:
            raise GalleryError(self._missing(lost))

    def _verify_rows(self) -> None:
        with self._turn, sqlite_errors(self._file):
            read_meta(self._connection, self._file)
            problem = self._connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            dangling = self._connection.execute("PRAGMA foreign_key_check").fetchone()
            contents = self._connection.execute(
                "SELECT id, sha256, width, height, vector, checksum FROM contents"
            )
            for row in contents:
                self._check_content(row)
        with self._reading() as connection:
            read_generation(connection, self._file)
            check_metadata(connection)
            check_notes(connection)
        if problem != "ok" or dangling is not None:
            detail = f"row {dangling[1]} of {dangling[0]} refers to nothing" if problem == "ok" else problem
            raise GalleryError(f"{display_path(self._file)} is damaged ({detail}): {_DAMAGED}")
        self.pictures()

    def known(self, root: int) -> dict[str, Known]:
        """What is known of the files below a root, by path relative to it."""
        known = {}
        for row in self._rows(f"{self._pictures_query} WHERE root_id = ?", root):
            self._check_picture(row)
            number, _, path, size, mtime_ns, _, reason, content = row[:8]
            known[os.fsdecode(path)] = Known(number, size, mtime_ns, reason, content)
        return known

    def find_content(self, sha256: bytes) -> int | None:
        """Number of the content with this SHA-256, None when the gallery does not hold it."""
        rows = self._rows("SELECT id FROM contents WHERE sha256 = ?", sha256)
        return int(rows[0][0]) if rows else None

    def with_content(self, content: int) -> list[int]:
        """Ids of the ready pictures that have this content, in gallery order."""
        return [
            row[0] for row in self._rows("SELECT id FROM pictures WHERE content_id = ? ORDER BY id", content)
        ]

    def gone(self, root: int) -> dict[int, deque[int]]:
        """Ready pictures of other roots that no longer exist: content number -> picture ids."""
        gone: dict[int, deque[int]] = {}
        for number, folder in self.roots().items():
            if number == root or may_exist(folder):
                continue
            query = "SELECT content_id, id FROM pictures WHERE root_id = ? AND state = 'ready' ORDER BY id"
            for content, picture in self._rows(query, number):
                gone.setdefault(content, deque()).append(picture)
        return gone

    def add_root(self, folder: Place) -> int:
        """The number of an indexed place (an absolute path or a URL), new or known. Raises GalleryError."""
        path = os.fsencode(folder)
        with self._transaction() as connection:
            found = connection.execute("SELECT id FROM roots WHERE path = ?", (path,)).fetchone()
            if found is None:
                connection.execute("INSERT INTO roots (path, checksum) VALUES (?, ?)", (path, checksum(path)))
                found = connection.execute("SELECT last_insert_rowid()").fetchone()
        return int(found[0])

    def commit(self, root: int, contents: Sequence[Content], entries: Sequence[Entry]) -> None:
        """Write contents and the entries that refer to them, all or nothing.

        Raises:
            GalleryError: the disk is full, the file damaged, or the gallery was opened for reading only.
        """
        with self._transaction() as connection:
            for content in contents:
                _insert_content(connection, content)
            _clear_places(connection, [entry.moved_from for entry in entries if entry.moved_from is not None])
            for entry in entries:
                number = _write_entry(connection, root, entry)
                if entry.metadata:
                    write_metadata(connection, [(number, entry.metadata)])

    def add_columns(self, columns: Mapping[str, ColumnType]) -> None:
        """Make the metadata columns that are not there yet.

        Raises:
            DataError: a column is there with another type, a name cannot be used, or there are too many.
        """
        known = self.columns()
        if any(known.get(name) != kind for name, kind in columns.items()):
            with self._transaction() as connection:
                add_columns(connection, columns)

    def set_metadata(self, rows: Iterable[tuple[int, Mapping[str, Value | None]]]) -> int:
        """Set metadata of pictures: (id, values by column; None takes a value away), in many transactions.

        Returns:
            How many pictures have other values than before.

        Raises:
            DataError: a value does not fit its column; rows before it may have been written.
            GalleryError: the disk is full, the file damaged, or the gallery was opened for reading only.
        """
        changed = 0
        waiting = iter(rows)
        while batch := list(islice(waiting, _METADATA_AT_ONCE)):
            with self._transaction() as connection:
                changed += write_metadata(connection, batch)
        return changed

    def notes(self, kind: str) -> dict[str, Any]:
        """The notes of a kind by name: JSON values. Raises GalleryError."""
        with self._reading() as connection:
            return read_notes(connection, kind)

    def set_notes(self, kind: str, values: Mapping[str, Any]) -> None:
        """Set notes of a kind by name; None takes one away. Raises GalleryError."""
        with self._transaction(changes=False) as connection:
            write_notes(connection, kind, values)

    def delete(self, pictures: Sequence[int]) -> None:
        """Forget pictures, and contents that no picture refers to any more. Raises GalleryError."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM pictures WHERE id = ?", [(number,) for number in pictures])
            connection.execute(
                "DELETE FROM contents WHERE NOT EXISTS"
                " (SELECT 1 FROM pictures WHERE pictures.content_id = contents.id)"
            )

    @contextmanager
    def _transaction(self, *, changes: bool = True) -> Iterator[sqlite3.Connection]:
        if self._lock is None:
            raise self._for_reading_only()
        with self._reading():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                generation = read_generation(self._connection, self._file) + int(changes)
                if changes:
                    write_generation(self._connection, generation)
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            self._lock.record(Mark(generation, self.id))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._turn, sqlite_errors(self._file):
            try:
                yield self._connection
            except DamagedRow as error:
                raise self._damage(error.kind, error.number) from error

    def _rows(self, query: str, *values: Field) -> list[Row]:
        with self._reading() as connection:
            return connection.execute(query, values).fetchall()

    def _picture(self, row: Row, roots: dict[int, Place]) -> Picture:
        self._check_picture(row)
        number, root, path, size, mtime_ns, state, reason, content, offset, _, width, height = row
        place = joined(roots[root], os.fsdecode(path))
        return Picture(number, place, state, reason, size, mtime_ns, content, width, height, offset)

    def _check_picture(self, row: Row) -> None:
        number, *fields, offset, stored, _, _ = row
        if stored != _picture_checksum(fields, offset):
            raise self._damage("picture", number)

    def _check_content(self, row: Row) -> None:
        number, sha256, width, height, vector, stored = row
        if stored != checksum(sha256, width, height, vector) or len(vector) != 4 * self.width:
            raise self._damage("content", number)

    def _for_reading_only(self) -> GalleryError:
        return GalleryError(f"the gallery in {display_path(self.folder)} was opened for reading only")

    def _damage(self, kind: str, number: int) -> GalleryError:
        return GalleryError(
            f"{display_path(self._file)} is damaged ({kind} {number} has a wrong checksum): {_DAMAGED}"
        )


def _is_there(folder: Path) -> bool:
    """Whether a gallery is in the folder. Raises GalleryError where that cannot be seen."""
    try:
        return (folder / DATABASE).is_file()
    except OSError as error:
        raise GalleryError(
            f"cannot look into {display_path(folder)} ({error.strerror}): check the permissions"
        ) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        strangers = sorted(
            name for name in os.listdir(folder) if not name.startswith((DATABASE, INDEX, LOCK))
        )
    except OSError as error:
        raise GalleryError(f"cannot make a gallery in {display_path(folder)} ({error.strerror})") from error
    if strangers:
        raise GalleryError(
            f"{display_path(folder)} is not empty (it holds {display_path(strangers[0])}): "
            "choose a new or empty folder for the gallery"
        )


@contextmanager
def _writing_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise GalleryError(
            f"cannot write in {display_path(folder)} ({error.strerror}): make room or check the permissions"
        ) from error


def _insert_content(connection: sqlite3.Connection, content: Content) -> None:
    vector = content.vector.astype("<f4").tobytes()
    fields = (content.sha256, content.width, content.height, vector)
    connection.execute(
        "INSERT INTO contents (sha256, width, height, vector, checksum) VALUES (?, ?, ?, ?, ?)",
        (*fields, checksum(*fields)),
    )


def _picture_checksum(fields: Sequence[Field], offset: int | None) -> int:
    """Over the columns that format 1 had, and the offset where there is one."""
    return checksum(*fields, *(() if offset is None else (offset,)))


def _clear_places(connection: sqlite3.Connection, moved: Sequence[int]) -> None:
    """Take pictures that move away from their paths, which others of them may be given; no file has such a path."""
    connection.executemany(
        "UPDATE pictures SET path = ? WHERE id = ?", [(b"\0%d" % number, number) for number in moved]
    )


def _write_entry(connection: sqlite3.Connection, root: int, entry: Entry) -> int:
    """Write a file's state; gives the picture's id."""
    content = None
    if entry.sha256 is not None:
        found = connection.execute("SELECT id FROM contents WHERE sha256 = ?", (entry.sha256,))
        content = found.fetchone()[0]
    state = "ready" if entry.reason is None else "failed"
    path = os.fsencode(entry.path)
    fields = (root, path, entry.size, entry.mtime_ns, state, entry.reason, content)
    if entry.moved_from is not None:
        connection.execute("DELETE FROM pictures WHERE root_id = ? AND path = ?", (root, path))
        connection.execute(
            "UPDATE pictures SET root_id = ?, path = ? WHERE id = ?", (root, path, entry.moved_from)
        )
    connection.execute(
        "INSERT INTO pictures (root_id, path, size, mtime_ns, state, reason, content_id, data_offset, checksum)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (root_id, path) DO UPDATE SET size = excluded.size,"
        " mtime_ns = excluded.mtime_ns, state = excluded.state, reason = excluded.reason,"
        " content_id = excluded.content_id, data_offset = excluded.data_offset, checksum = excluded.checksum",
        (*fields, entry.offset, _picture_checksum(fields, entry.offset)),
    )
    found = connection.execute("SELECT id FROM pictures WHERE root_id = ? AND path = ?", (root, path))
    return int(found.fetchone()[0])
