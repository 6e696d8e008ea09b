"""Gallery in a folder: a facade over its SQLite file."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.config import MAX_WIDTH
from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import GalleryError, QueryError
from image2sentence.gallery.base import BaseGallery
from image2sentence.gallery.filters.language import ColumnType, Filter, Value, as_filter
from image2sentence.gallery.locations import Identity, Place
from image2sentence.gallery.records import Content, FileEntry, KnownFile, Picture
from image2sentence.gallery.search.searcher import Searcher
from image2sentence.gallery.sqlite.conditions import matching_ids, values_of
from image2sentence.gallery.sqlite.creation import create_file
from image2sentence.gallery.sqlite.database import DATABASE, LOCK, Database
from image2sentence.gallery.sqlite.folder import is_there, make_folder, writing_errors
from image2sentence.gallery.sqlite.index import IndexState, index_state, open_searcher, refresh_index
from image2sentence.gallery.sqlite.lock import WriterLock
from image2sentence.gallery.sqlite.metadata_tables import (
    add_columns,
    change_column,
    check_metadata,
    read_columns,
    read_metadata,
    write_metadata,
)
from image2sentence.gallery.sqlite.notes import check_notes, read_notes, write_notes
from image2sentence.gallery.sqlite.picture_tables import PictureTables
from image2sentence.gallery.sqlite.schema import RESTORE, read_generation
from image2sentence.gallery.sqlite.totals import check_ids, check_total
from image2sentence.gallery.sqlite.words import check_words, find_words, update_words
from image2sentence.images import display_path

_METADATA_BATCH = 10_000

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


class Gallery(BaseGallery):
    """A gallery in a folder; make one with `create`, `open` or `open_or_create`, and close it (`with` does).

    Any number of readers may be open while one writer writes; each read sees all commits before it and
    nothing of a commit half done. Threads may share a gallery: its methods take turns.
    """

    place = "folder"

    def __init__(self, database: Database) -> None:
        self.folder = database.folder
        self._database = database
        self.fingerprint = database.meta["fingerprint"]
        self.width = int(database.meta["width"])
        self.created = database.meta["created"]
        self.id = database.id
        self._tables = PictureTables(database, self.width)
        self._whole: int | None = None  # the generation whose metadata was found to be all there

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
        if width > MAX_WIDTH:
            raise GalleryError(f"the width of vectors must be at most {MAX_WIDTH:,}, got {width}")
        make_folder(place)
        with ExitStack() as undo:
            lock = WriterLock(place / LOCK)
            undo.callback(lock.release)
            if is_there(place):
                raise GalleryError(
                    f"{display_path(place)} holds a gallery already: open it, or choose another folder"
                )
            with writing_errors(place):
                create_file(place / DATABASE, fingerprint, width)
            gallery = cls(Database.open(place, lock))
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
        if not is_there(place):
            raise GalleryError(
                f"there is no gallery in {display_path(place)}: "
                f"make one with `image2sentence index PICTURES --gallery {display_path(place)}`"
            )
        with ExitStack() as undo:
            lock = None if readonly else WriterLock(place / LOCK)
            if lock is not None:
                undo.callback(lock.release)
            gallery = cls(Database.open(place, None))
            undo.callback(gallery.close)
            gallery._warn_of_lost_commits(keep=not readonly)
            if lock is not None:
                # Until here nothing has been written: only a writer's connection takes the log up for good.
                gallery.close()
                gallery = cls(Database.open(place, lock))
                undo.callback(gallery.close)
            if fingerprint is not None:
                gallery.require(fingerprint)
            undo.pop_all()
        return gallery

    @classmethod
    def open_or_create(cls, folder: str | os.PathLike[str], fingerprint: str, width: int) -> Gallery:
        """Open this encoder's gallery for writing, or make it where there is none. Raises GalleryError."""
        if is_there(Path(folder)):
            return cls.open(folder, readonly=False).required(fingerprint, width)
        return cls.create(folder, fingerprint, width)

    def _warn_of_lost_commits(self, *, keep: bool) -> None:
        """Warn where commits are missing; before a writer goes on from there, check what is left and keep the log."""
        lost = self.lost_commits()
        if not lost:
            return
        log = self._database.file.with_name(f"{DATABASE}-wal")
        kept = log.with_name(f"{log.name}.lost")
        if keep:
            self._verify_rows()
            if log.exists():
                with writing_errors(self.folder):
                    shutil.copyfile(log, kept)
        _log.warning(
            "%s. What is left is whole%s",
            self._database.missing(lost),
            f"; the log as it was is kept as {display_path(kept)}" if keep and kept.exists() else "",
        )

    def close(self) -> None:
        """Close the file and let another writer in; calling again does nothing."""
        self._database.close()

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
        return self._database.readonly

    def __len__(self) -> int:
        """Number of pictures that can be found."""
        return len(self._tables)

    def roots(self) -> dict[int, Place]:
        """The places that were indexed (folders, shards, URLs), by their id."""
        return self._tables.roots()

    def pictures(self, state: str | None = None) -> list[Picture]:
        """All pictures in gallery order (by id), or those in one state. Raises GalleryError where damaged."""
        return self._tables.pictures(state)

    def pictures_of(self, picture_ids: Sequence[int]) -> list[Picture | None]:
        """The pictures with these ids, in their order; None for an id that is not there (any more)."""
        return self._tables.pictures_of(picture_ids)

    def hashes_of(self, picture_ids: Sequence[int]) -> list[bytes | None]:
        """SHA-256 (32 bytes) of the content of each of these pictures; None for one that is failed or not there."""
        return self._tables.hashes_of(picture_ids)

    def generation(self) -> int:
        """A number that grows with every change of pictures, vectors or metadata; 0 in galleries of format 1."""
        return self._database.generation()

    def columns(self) -> dict[str, ColumnType]:
        """The metadata columns and their types, in the order in which they came."""
        with self.snapshot() as connection:
            return {name: column.type for name, column in read_columns(connection).items()}

    def metadata(self, picture_ids: Sequence[int]) -> list[dict[str, Value]]:
        """For each picture's id, its metadata: the values that are there by column. Raises GalleryError."""
        with self.snapshot() as connection:
            self._require_metadata(connection)
            return read_metadata(connection, picture_ids)

    def select(self, where: str | Filter) -> NDArray[np.int64]:
        """Ascending ids of the ready pictures that a filter holds for; see `image2sentence.gallery.filters.language`.

        Raises:
            QueryError: the filter is not one, does not fit the columns, or takes longer than MAX_SELECT_SECONDS.
        """
        with self.snapshot() as connection, _deadline(connection):
            self._require_metadata(connection)
            return matching_ids(connection, self.roots(), as_filter(where))

    def column(self, name: str) -> tuple[NDArray[np.int64], list[Value]]:
        """Ascending ids of the pictures that have a value in a column or of a stored fact, and the values."""
        with self.snapshot() as connection:
            self._require_metadata(connection)
            rows = list(values_of(connection, self.roots(), name))
        return np.fromiter((row[0] for row in rows), np.int64, len(rows)), [row[1] for row in rows]

    def _require_metadata(self, connection: sqlite3.Connection) -> None:
        """See once in each generation that all metadata is there, with the ids that it was written for."""
        generation = read_generation(connection, self._database.file)
        if self._database.version >= 3 and generation != self._whole:
            check_total(connection, "metadata")
            self._whole = generation

    def find_words(self, words: Sequence[str], most: int) -> dict[str, NDArray[np.int64]]:
        """See `GalleryStore.find_words`; empty for older formats until they are opened for writing."""
        with self._database.reading() as connection:
            return find_words(connection, words, most)

    def pairs(self) -> NDArray[np.int64]:
        """(n, 2) int64: ids of the ready pictures, ascending, and the ids of their contents."""
        return self._tables.pairs()

    def vectors(self, picture_ids: NDArray[np.int64] | None = None) -> tuple[NDArray[np.int64], Vectors]:
        """Ids (n,) int64 and vectors (n, d) float32 of the ready pictures, in gallery order, each checked.

        Args:
            picture_ids: Ids of the pictures wanted; None for all.

        Raises:
            GalleryError: a vector is not the one that was written.
        """
        return self._tables.vectors(picture_ids)

    def searcher(self) -> Searcher:
        """A Searcher over the ready pictures as they are now; its ids are the pictures' ids (int).

        It asks the approximate index of a large gallery where that is sound, else it is exact.
        """
        return open_searcher(self)

    def refresh_index(self) -> None:
        """Make the index file where the gallery is large enough for one and has none that serves.

        Raises GalleryError where it cannot be written. Without FAISS, a warning says how to install it.
        """
        refresh_index(self)

    def index_state(self, *, thorough: bool = False) -> IndexState:
        """Whether there is an index file that serves: by its header, or with `thorough` by all of it."""
        return index_state(self, thorough=thorough)

    def file_identity(self) -> Identity:
        """Device and inode of the file. No other has the same as long as this gallery is open.

        Raises GalleryError where there is none any more.
        """
        try:
            status = os.stat(self._database.file)
        except OSError as error:
            raise GalleryError(
                f"the gallery in {self.name} cannot be reached any more ({error.strerror}): put it back, or index the "
                "pictures again"
            ) from error
        return status.st_dev, status.st_ino

    def derived_token(self, name: str) -> bytes | None:
        """The token of the derived file that belongs to this gallery; None where there is none."""
        return self._database.derived_token(name)

    def set_derived_token(self, name: str, token: bytes | None) -> None:
        """Say which derived file belongs to this gallery; None for no such file. Raises GalleryError."""
        self._database.set_derived_token(name, token)

    def snapshot(self) -> AbstractContextManager[sqlite3.Connection]:
        """Reads inside it see one state of the gallery, whatever another process commits meanwhile."""
        return self._database.snapshot()

    def lost_commits(self) -> int:
        """How many commits were made that are not there, as a damaged log loses them; 0 where that is unknown."""
        return self._database.lost_commits()

    def compact(self) -> None:
        """Rewrite the file without the room that deleted pictures left; readers go on meanwhile.

        SQLite needs up to twice the file's size of free disk for it: in its folder for temporary files, and beside
        the file.

        Raises:
            GalleryError: the disk is full, the file damaged, or the gallery was opened for reading only.
        """
        self._database.compact()

    def verify(self) -> None:
        """Check the whole file: SQLite's structures, every row's checksum, every reference, every commit.

        Raises:
            GalleryError: naming the first damage found.
        """
        self._verify_rows()
        lost = self.lost_commits()
        if lost:
            raise GalleryError(self._database.missing(lost))

    def _verify_rows(self) -> None:
        database = self._database
        problem = database.structure_problem()
        self._tables.check_contents()
        with database.reading() as connection:
            read_generation(connection, database.file)
            check_metadata(connection)
            check_notes(connection)
            check_words(connection)
            check_ids(connection)
        if problem is not None:
            raise GalleryError(f"{display_path(database.file)} is damaged ({problem}): {RESTORE}")
        self.pictures()

    def known(self, root: int) -> dict[str, KnownFile]:
        """What is known of the files below a root, by path relative to it."""
        return self._tables.known(root)

    def find_content(self, sha256: bytes) -> int | None:
        """Id of the content with this SHA-256, None when the gallery does not hold it."""
        return self._tables.find_content(sha256)

    def with_content(self, content: int) -> list[int]:
        """Ids of the ready pictures that have this content, in gallery order."""
        return self._tables.with_content(content)

    def gone(self, root: int) -> dict[int, deque[int]]:
        """Ready pictures of other roots that no longer exist: content id -> picture ids."""
        return self._tables.gone(root)

    def add_root(self, folder: Place) -> int:
        """The id of an indexed place (an absolute path or a URL), new or known. Raises GalleryError."""
        return self._tables.add_root(folder)

    def move_root(self, root: int, into: int, prefix: str) -> None:
        """Make a root's pictures those of another one, at `prefix` below it. Raises GalleryError."""
        self._tables.move_root(root, into, prefix)

    def remove_root(self, root: int) -> None:
        """Forget a root that has no pictures. Raises GalleryError."""
        self._tables.remove_root(root)

    def commit(self, root: int, contents: Sequence[Content], entries: Sequence[FileEntry]) -> None:
        """Write contents and the entries that refer to them, all or nothing.

        Raises:
            GalleryError: the disk is full, the file damaged, or the gallery was opened for reading only.
        """
        self._tables.write(root, contents, entries)

    def add_columns(self, columns: Mapping[str, ColumnType]) -> None:
        """Make the metadata columns that are not there yet.

        Raises:
            DataError: a column is there with another type, a name cannot be used, or there are too many.
        """
        known = self.columns()
        if any(known.get(name) != kind for name, kind in columns.items()):
            with self._database.transaction() as connection:
                add_columns(connection, columns)

    def change_column(
        self, name: str, kind: ColumnType | None, values: Iterable[tuple[int, Value | None]]
    ) -> None:
        """Give a column another type (None: take it away), and pictures these values of it, in one transaction."""
        with self._database.transaction() as connection:
            change_column(connection, name, kind, values)
            update_words(connection)

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
        while batch := list(islice(waiting, _METADATA_BATCH)):
            with self._database.transaction() as connection:
                changed += write_metadata(connection, batch)
                update_words(connection, [picture_id for picture_id, _ in batch])
        return changed

    def notes(self, kind: str) -> dict[str, Any]:
        """The notes of a kind by name: JSON values. Raises GalleryError."""
        with self._database.reading() as connection:
            return read_notes(connection, kind)

    def set_notes(self, kind: str, values: Mapping[str, Any]) -> None:
        """Set notes of a kind by name; None takes one away. Raises GalleryError."""
        with self._database.transaction(changes=False) as connection:
            write_notes(connection, kind, values)

    def delete(self, pictures: Sequence[int]) -> None:
        """Forget pictures, and contents that no picture refers to any more. Raises GalleryError."""
        self._tables.delete(pictures)
