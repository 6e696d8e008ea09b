"""Tables of pictures, contents and roots in the gallery file."""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery.locations import Place, joined, may_exist, stored_place
from image2sentence.gallery.records import Content, FileEntry, KnownFile, Picture
from image2sentence.gallery.sqlite.database import Database, Row
from image2sentence.gallery.sqlite.metadata_tables import write_metadata
from image2sentence.gallery.sqlite.schema import DamagedRow, checksum, picture_checksum
from image2sentence.gallery.sqlite.totals import check_total
from image2sentence.gallery.sqlite.words import update_words

_ROW_BATCH = 4_096
_LONGEST_SIDE = 2**32 - 1
_PICTURES = (
    "SELECT pictures.id, root_id, path, size, mtime_ns, state, reason, content_id, {offset},"
    " pictures.checksum, {of_id}, sha256, width, height FROM pictures LEFT JOIN contents ON contents.id = content_id"
)
_VECTORS = (
    "SELECT pictures.id, sha256, pictures.checksum, {of_id}, contents.id, sha256, width, height, vector,"
    " contents.checksum FROM pictures LEFT JOIN contents ON contents.id = content_id"
)

# Of root, path, size, time, state, reason and content, and of hash, width and height of that: what is as it was written
# may have been written by anyone.
_FILE, _NONE = (int, bytes, int, int, str), type(None)
_READY = (*_FILE, _NONE, int, bytes, int, int)
_FAILED = (*_FILE, str, _NONE, _NONE, _NONE, _NONE)
_CONTENT = (bytes, int, int, bytes)


class PictureTables:
    """Reads and writes pictures, contents and roots, and holds every row against its checksum."""

    def __init__(self, database: Database, width: int) -> None:
        self._database = database
        self._width = width
        offset = "NULL" if database.version == 1 else "data_offset"
        self._bound = database.version >= 3
        of_id = "id_checksum" if self._bound else "NULL"
        self._pictures_query = _PICTURES.format(offset=offset, of_id=of_id)
        self._vectors_query = _VECTORS.format(of_id=of_id)
        self._of_id = of_id

    def __len__(self) -> int:
        """Number of pictures that can be found."""
        return int(self._database.rows("SELECT count(*) FROM pictures WHERE state = 'ready'")[0][0])

    def roots(self) -> dict[int, Place]:
        """The places that were indexed (folders, shards, URLs), by their id."""
        with self._database.snapshot() as connection:
            query = f"SELECT id, path, checksum, {self._of_id} FROM roots ORDER BY id"
            rows = connection.execute(query).fetchall()
            for root_id, path, stored, of_id in rows:
                if not isinstance(path, bytes):
                    raise DamagedRow("root", root_id)
                if stored != checksum(path) or (self._bound and of_id != checksum(root_id, stored)):
                    raise DamagedRow("root", root_id)
            if self._bound:
                check_total(connection, "roots")
        return {row[0]: stored_place(os.fsdecode(row[1])) for row in rows}

    def add_root(self, folder: Place) -> int:
        """The id of an indexed place (an absolute path or a URL), new or known. Raises GalleryError."""
        path = os.fsencode(folder)
        known = self._database.rows("SELECT id FROM roots WHERE path = ?", path)
        if known and not self._database.readonly:
            # No transaction: nothing changes, and readers need not look again.
            return int(known[0][0])
        with self._database.transaction() as connection:
            connection.execute("INSERT INTO roots (path, checksum) VALUES (?, ?)", (path, checksum(path)))
            (root_id,) = connection.execute("SELECT last_insert_rowid()").fetchone()
            row = (checksum(root_id, checksum(path)), root_id)
            connection.execute("UPDATE roots SET id_checksum = ? WHERE id = ?", row)
        return int(root_id)

    def move_root(self, root: int, into: int, prefix: str) -> None:
        """Make a root's pictures those of another one, at `prefix` below it; the root is no more.

        Ids and metadata stay. The other root must not know a file of any of the new paths.
        """
        with self._database.transaction() as connection:
            rows = connection.execute(f"{self._pictures_query} WHERE root_id = ?", (root,)).fetchall()
            for row in rows:
                self._check_picture(row)
                picture_id, _, path, *state, offset, _, _, sha256, _, _ = row
                moved = os.path.join(os.fsencode(prefix), path)
                stored = picture_checksum((into, moved, *state), offset)
                connection.execute(
                    "UPDATE pictures SET root_id = ?, path = ?, checksum = ?, id_checksum = ? WHERE id = ?",
                    (into, moved, stored, checksum(picture_id, sha256, stored), picture_id),
                )
            connection.execute("DELETE FROM roots WHERE id = ?", (root,))
            update_words(connection, [row[0] for row in rows])

    def remove_root(self, root: int) -> None:
        """Forget a root that has no pictures."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM roots WHERE id = ?", (root,))

    def pictures(self, state: str | None = None) -> list[Picture]:
        """All pictures in gallery order (by id), or those in one state. Raises GalleryError where damaged."""
        with self._database.snapshot() as connection:
            rows = connection.execute(f"{self._pictures_query} ORDER BY pictures.id").fetchall()
            roots = self.roots()
            pictures = [self._picture(row, roots) for row in rows]
            if self._bound:
                check_total(connection, "pictures")
        return [picture for picture in pictures if state in (None, picture.state)]

    def pictures_of(self, picture_ids: Sequence[int]) -> list[Picture | None]:
        """The pictures with these ids, in their order; None for an id that is not there (any more)."""
        with self._database.snapshot():
            roots = self.roots()
            found = {row[0]: self._picture(row, roots) for row in self._picture_rows(picture_ids)}
        return [found.get(int(one)) for one in picture_ids]

    def hashes_of(self, picture_ids: Sequence[int]) -> list[bytes | None]:
        """SHA-256 (32 bytes) of the content of each of these pictures; None for one that is failed or not there."""
        found: dict[int, bytes] = {}
        with self._database.snapshot():
            for row in self._picture_rows(picture_ids):
                self._check_picture(row)
                found[row[0]] = row[11]
        return [found.get(int(one)) for one in picture_ids]

    def known(self, root: int) -> dict[str, KnownFile]:
        """What is known of the files below a root, by path relative to it."""
        known = {}
        with self._database.reading():
            for row in self._database.rows(f"{self._pictures_query} WHERE root_id = ?", root):
                self._check_picture(row)
                picture_id, _, path, size, mtime_ns, _, reason, content = row[:8]
                known[os.fsdecode(path)] = KnownFile(picture_id, size, mtime_ns, reason, content)
        return known

    def find_content(self, sha256: bytes) -> int | None:
        """Id of the content with this SHA-256, None when the gallery does not hold it."""
        rows = self._database.rows("SELECT id FROM contents WHERE sha256 = ?", sha256)
        return int(rows[0][0]) if rows else None

    def with_content(self, content: int) -> list[int]:
        """Ids of the ready pictures that have this content, in gallery order."""
        return [
            row[0]
            for row in self._database.rows(
                "SELECT id FROM pictures WHERE content_id = ? ORDER BY id", content
            )
        ]

    def gone(self, root: int) -> dict[int, deque[int]]:
        """Ready pictures of other roots that no longer exist: content id -> picture ids."""
        gone: dict[int, deque[int]] = {}
        for root_id, folder in self.roots().items():
            if root_id == root or may_exist(folder):
                continue
            query = "SELECT content_id, id FROM pictures WHERE root_id = ? AND state = 'ready' ORDER BY id"
            for content, picture in self._database.rows(query, root_id):
                gone.setdefault(content, deque()).append(picture)
        return gone

    def pairs(self) -> NDArray[np.int64]:
        """(n, 2) int64: ids of the ready pictures, ascending, and the ids of their contents."""
        # Rows are not held against their checksums one by one: what the index file does not have just so is read,
        # and checked, by `vectors`.
        with self._database.snapshot() as connection:
            rows = connection.execute(
                "SELECT id, content_id FROM pictures WHERE content_id IS NOT NULL ORDER BY id"
            )
            flat = np.fromiter((one for row in rows for one in row), np.int64)
            if self._bound:
                check_total(connection, "pictures")
        return flat.reshape(-1, 2)

    def vectors(self, picture_ids: NDArray[np.int64] | None = None) -> tuple[NDArray[np.int64], Vectors]:
        """Ids (n,) int64 and vectors (n, d) float32 of the ready pictures, in gallery order, each checked.

        Args:
            picture_ids: Ids of the pictures wanted; None for all.

        Raises:
            GalleryError: a vector is not the one that was written.
        """
        with self._database.snapshot() as connection:
            if picture_ids is not None:
                return self._read_vectors(self._wanted_vectors(connection, picture_ids), len(picture_ids))
            ready = f"{self._vectors_query} WHERE content_id IS NOT NULL ORDER BY pictures.id"
            found = self._read_vectors(connection.execute(ready), len(self))
            if self._bound:
                check_total(connection, "pictures")
            return found

    def write(self, root: int, contents: Sequence[Content], entries: Sequence[FileEntry]) -> None:
        """Write contents and the entries that refer to them, all or nothing.

        Raises:
            GalleryError: the disk is full, the file damaged, or the gallery was opened for reading only.
        """
        with self._database.transaction() as connection:
            for content in contents:
                _insert_content(connection, content)
            _clear_places(connection, [entry.moved_from for entry in entries if entry.moved_from is not None])
            written = []
            for entry in entries:
                written.append(_write_entry(connection, root, entry))
                if entry.metadata:
                    write_metadata(connection, [(written[-1], entry.metadata)])
            update_words(connection, written)

    def delete(self, pictures: Sequence[int]) -> None:
        """Forget pictures, and contents that no picture refers to any more. Raises GalleryError."""
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM pictures WHERE id = ?", [(one,) for one in pictures])
            update_words(connection, pictures)
            connection.execute(
                "DELETE FROM contents WHERE NOT EXISTS"
                " (SELECT 1 FROM pictures WHERE pictures.content_id = contents.id)"
            )

    def check_contents(self) -> None:
        """Check every content. Raises GalleryError at the first that is not the one that was written."""
        with self._database.reading() as connection:
            for row in connection.execute("SELECT id, sha256, width, height, vector, checksum FROM contents"):
                self._check_content(row)

    def _wanted_vectors(
        self, connection: sqlite3.Connection, picture_ids: NDArray[np.int64]
    ) -> Iterator[Row]:
        for start in range(0, len(picture_ids), _ROW_BATCH):
            wanted = np.sort(picture_ids[start : start + _ROW_BATCH]).tolist()
            marks = ", ".join("?" * len(wanted))
            yield from connection.execute(
                f"{self._vectors_query} WHERE pictures.id IN ({marks}) ORDER BY pictures.id", wanted
            )

    def _read_vectors(self, rows: Iterable[Row], count: int) -> tuple[NDArray[np.int64], Vectors]:
        ids = np.empty(count, np.int64)
        vectors = np.empty((count, self._width), np.float32)
        waiting = iter(rows)
        done = 0
        while block := list(islice(waiting, _ROW_BATCH)):
            for row in block:
                self._check_id(*row[:4])
                self._check_content(row[4:])
            stop = done + len(block)
            ids[done:stop] = [row[0] for row in block]
            vectors[done:stop] = np.frombuffer(b"".join(row[8] for row in block), "<f4").reshape(
                -1, self._width
            )
            done = stop
        return ids[:done], vectors[:done]

    def _picture_rows(self, picture_ids: Sequence[int]) -> Iterator[Row]:
        for start in range(0, len(picture_ids), _ROW_BATCH):
            wanted = [int(one) for one in picture_ids[start : start + _ROW_BATCH]]
            wanted = [one for one in wanted if 0 <= one < 2**63]  # SQLite takes no others
            marks = ", ".join("?" * len(wanted))
            yield from self._database.rows(f"{self._pictures_query} WHERE pictures.id IN ({marks})", *wanted)

    def _picture(self, row: Row, roots: dict[int, Place]) -> Picture:
        self._check_picture(row)
        picture_id, root, path, size, mtime_ns, state, reason, content, offset, *_, width, height = row
        place = joined(roots[root], os.fsdecode(path))
        return Picture(picture_id, place, state, reason, size, mtime_ns, content, width, height, offset)

    def _check_picture(self, row: Row) -> None:
        picture_id, *fields, offset, stored, of_id, sha256, width, height = row
        expected = {"ready": _READY, "failed": _FAILED}.get(fields[4])
        types = tuple(map(type, (*fields, sha256, width, height)))
        if types != expected or type(offset) not in (int, _NONE):
            raise DamagedRow("picture", picture_id)
        if width is not None and not _is_size(width, height):
            raise DamagedRow("picture", picture_id)
        if stored != picture_checksum(fields, offset):
            raise DamagedRow("picture", picture_id)
        self._check_id(picture_id, sha256, stored, of_id)

    def _check_id(self, picture_id: int, sha256: bytes | None, stored: int, of_id: int | None) -> None:
        """The id belongs to the rest of the row, and that to the content with this hash."""
        if self._bound and of_id != checksum(picture_id, sha256, stored):
            raise DamagedRow("picture", picture_id)

    def _check_content(self, row: Row) -> None:
        content_id, sha256, width, height, vector, stored = row
        if tuple(map(type, (sha256, width, height, vector))) != _CONTENT or not _is_size(width, height):
            raise DamagedRow("content", content_id)
        if stored != checksum(sha256, width, height, vector) or len(vector) != 4 * self._width:
            raise DamagedRow("content", content_id)


def _is_size(width: int, height: int) -> bool:
    """Whether a picture may have this size: no format has longer sides."""
    return 0 < width <= _LONGEST_SIDE and 0 < height <= _LONGEST_SIDE


def _insert_content(connection: sqlite3.Connection, content: Content) -> None:
    vector = content.vector.astype("<f4").tobytes()
    fields = (content.sha256, content.width, content.height, vector)
    connection.execute(
        "INSERT INTO contents (sha256, width, height, vector, checksum) VALUES (?, ?, ?, ?, ?)",
        (*fields, checksum(*fields)),
    )


def _clear_places(connection: sqlite3.Connection, moved: Sequence[int]) -> None:
    """Take pictures that move away from their paths, which others of them may be given; no file has such a path."""
    connection.executemany(
        "UPDATE pictures SET path = ? WHERE id = ?", [(b"\0%d" % one, one) for one in moved]
    )


def _write_entry(connection: sqlite3.Connection, root: int, entry: FileEntry) -> int:
    """Write a file's state; gives the picture's id."""
    content = None
    if entry.sha256 is not None:
        found = connection.execute("SELECT id FROM contents WHERE sha256 = ?", (entry.sha256,))
        content = found.fetchone()[0]
    state = "ready" if entry.reason is None else "failed"
    path = os.fsencode(entry.path)
    fields = (root, path, entry.size, entry.mtime_ns, state, entry.reason, content)
    stored = picture_checksum(fields, entry.offset)
    if entry.moved_from is not None:
        replaced = "SELECT id FROM pictures WHERE root_id = ? AND path = ?"
        connection.execute(f"DELETE FROM words WHERE rowid IN ({replaced})", (root, path))
        connection.execute("DELETE FROM pictures WHERE root_id = ? AND path = ?", (root, path))
        connection.execute(
            "UPDATE pictures SET root_id = ?, path = ? WHERE id = ?", (root, path, entry.moved_from)
        )
    connection.execute(
        "INSERT INTO pictures (root_id, path, size, mtime_ns, state, reason, content_id, data_offset, checksum)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (root_id, path) DO UPDATE SET size = excluded.size,"
        " mtime_ns = excluded.mtime_ns, state = excluded.state, reason = excluded.reason,"
        " content_id = excluded.content_id, data_offset = excluded.data_offset, checksum = excluded.checksum",
        (*fields, entry.offset, stored),
    )
    found = connection.execute("SELECT id FROM pictures WHERE root_id = ? AND path = ?", (root, path))
    picture_id = int(found.fetchone()[0])
    row = (checksum(picture_id, entry.sha256, stored), picture_id)
    connection.execute("UPDATE pictures SET id_checksum = ? WHERE id = ?", row)
    return picture_id
