"""The gallery in a Milvus collection."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import GalleryError
from image2sentence.gallery.base import BaseGallery
from image2sentence.gallery.filters.language import ColumnType, Filter, Value
from image2sentence.gallery.filters.milvus import any_of
from image2sentence.gallery.locations import Place, may_exist
from image2sentence.gallery.metadata import is_new_column
from image2sentence.gallery.milvus import layout
from image2sentence.gallery.milvus.address import MilvusAddress
from image2sentence.gallery.milvus.bookkeeping import Ids, Ledger, WriterClaim, create_collections
from image2sentence.gallery.milvus.conditions import condition_of
from image2sentence.gallery.milvus.database import Database, Fields
from image2sentence.gallery.milvus.known_keys import Hints
from image2sentence.gallery.milvus.rows import (
    as_failed,
    as_failed_picture,
    changed_row,
    check_metadata,
    content_fields,
    id_of,
    last_of_each,
    picture_row,
)
from image2sentence.gallery.milvus.searcher import MAX_RESULTS, MilvusSearcher
from image2sentence.gallery.records import Content, FileEntry, KnownFile, Picture

_KEY_BATCH = 500
_METADATA_BATCH = 1_000
_EVERYTHING = ("*",)


class MilvusGallery(BaseGallery):
    """A gallery in a database; make one with `create`, `open` or `open_or_create`, and close it (`with` does).

    It keeps the promises of `Gallery` with three differences, which come from Milvus: a commit is not one
    transaction (a run that is killed inside one is put right by the next run), two writers are distinguished by a
    note and not by a lock, and Milvus Lite lets one process in at a time.
    """

    place = "collection"

    def __init__(self, address: MilvusAddress, database: Database, *, readonly: bool) -> None:
        self.address = address
        self.readonly = readonly
        self._database = database
        self._collection = address.collection
        self._ledger = Ledger(database, address.collection)
        self._lock = threading.RLock()
        self._changed = False
        about = layout.checked_about(self._ledger.open(), self.name)
        self.fingerprint = str(about["fingerprint"])
        self.width = int(about["width"])
        self.created = str(about["created"])
        self.id = str(about["id"])
        database.load(self._collection)
        self._claim = None if readonly else WriterClaim(self._ledger, self.name)
        self._ids = Ids(self._ledger) if self._claim is not None else None
        self._hints = Hints(database, self._collection) if self._claim is not None else None

    @classmethod
    def create(cls, address: str, fingerprint: str, width: int) -> MilvusGallery:
        """Make a gallery and open it for writing.

        Args:
            address: Where; see `image2sentence.gallery.milvus.address`.
            fingerprint: Identity of the vector space (`Encoder.fingerprint`).
            width: Width d of the vectors, at least 1.

        Raises:
            GalleryError: the collection is there already, or the database cannot be reached or written.
        """
        place = MilvusAddress.parse(address)
        if width < 1:
            raise GalleryError(f"the width of vectors must be at least 1, got {width}")
        with ExitStack() as undo:
            database = Database(place)
            undo.callback(database.close)
            if database.has(place.collection):
                raise GalleryError(f"{place} is there already: open it, or choose another collection")
            create_collections(database, place, fingerprint, width)
            gallery = cls(place, database, readonly=False)
            undo.pop_all()
        return gallery

    @classmethod
    def open(cls, address: str, *, readonly: bool = True, fingerprint: str | None = None) -> MilvusGallery:
        """Open a gallery.

        Args:
            address: Where it is.
            readonly: False to write; one writer at a time.
            fingerprint: Identity of the encoder it will be used with; None to take any.

        Raises:
            GalleryError: there is none, it is no gallery, of another format version or another model, another
                process is writing, or the database cannot be reached.
        """
        place = MilvusAddress.parse(address)
        with ExitStack() as undo:
            if place.file is not None and not place.file.exists():
                raise _no_gallery(place)
            database = Database(place)
            undo.callback(database.close)
            if not database.has(place.collection):
                raise _no_gallery(place)
            gallery = cls(place, database, readonly=readonly)
            undo.callback(gallery.close)
            if fingerprint is not None:
                gallery.require(fingerprint)
            undo.pop_all()
        return gallery

    @classmethod
    def open_or_create(cls, address: str, fingerprint: str, width: int) -> MilvusGallery:
        """Open for writing; make it first where there is none. Raises GalleryError as both."""
        place = MilvusAddress.parse(address)
        if place.file is None or place.file.exists():
            database = Database(place)
            try:
                there = database.has(place.collection)
            finally:
                database.close()
            if there:
                return cls.open(address, readonly=False).required(fingerprint, width)
        return cls.create(address, fingerprint, width)

    @property
    def name(self) -> str:
        """The address, without secrets."""
        return str(self.address)

    @property
    def keeps_contents(self) -> bool:
        """See `GalleryStore.keeps_contents`: here a vector lies in its picture's row."""
        return False

    @property
    def own_folder(self) -> Path | None:
        """Milvus Lite's file (a folder), which holds no pictures to index; None on a server."""
        return self.address.file

    def close(self) -> None:
        """Seal what was written, let another writer in, and hang up; calling again does nothing."""
        with self._lock:
            claim, self._claim = self._claim, None
            try:
                if claim is not None:
                    self._seal()
                    if self._ids is not None:
                        self._ids.give_back()
                    claim.release()
            finally:
                self._database.close()

    def __len__(self) -> int:
        """Number of pictures that can be found."""
        return self._database.count(self._collection)

    def roots(self) -> dict[int, Place]:
        """The places that were indexed, by their id."""
        return self._ledger.roots()

    def generation(self) -> int:
        """A number that grows with every change of pictures, vectors or metadata."""
        return self._ledger.counters()[1]

    def pictures(self, state: str | None = None) -> list[Picture]:
        """All pictures in gallery order (by id), or those in one state."""
        roots = self.roots()
        found: list[Picture] = []
        if state in (None, "ready"):
            found += (layout.as_picture(row, roots) for row in self._rows("", layout.PICTURE_FIELDS))
        if state in (None, "failed"):
            found += (as_failed_picture(failed, roots) for failed in self._ledger.failed())
        return sorted(found, key=lambda picture: picture.id)

    def picture(self, picture_id: int) -> Picture:
        """The picture with this id, ready or failed. Raises QueryError when there is none."""
        failed = (one for one in self._ledger.failed() if one.id == picture_id)
        found = next((as_failed_picture(one, self.roots()) for one in failed), None)
        return super().picture(picture_id) if found is None else found

    def pictures_of(self, picture_ids: Sequence[int]) -> list[Picture | None]:
        """The ready pictures with these ids, in their order; None for an id that is not there (any more)."""
        roots = self.roots()
        wanted = [int(one) for one in picture_ids if 0 <= one < 2**63]  # Milvus takes no others
        rows = self._rows_with("id", wanted, layout.PICTURE_FIELDS)
        found = {int(row["id"]): layout.as_picture(row, roots) for row in rows}
        return [found.get(int(one)) for one in picture_ids]

    def hashes_of(self, picture_ids: Sequence[int]) -> list[bytes | None]:
        """SHA-256 (32 bytes) of the content of each of these pictures; None for one that is not there."""
        rows = self._rows_with("id", [int(one) for one in picture_ids], ("id", "content"))
        found = {int(row["id"]): bytes.fromhex(row["content"]) for row in rows}
        return [found.get(int(one)) for one in picture_ids]

    def columns(self) -> dict[str, ColumnType]:
        """The metadata columns and their types, in the order in which they came."""
        return self._ledger.columns()

    def metadata(self, picture_ids: Sequence[int]) -> list[dict[str, Value]]:
        """For each picture's id, its metadata: the values that are there by column."""
        rows = self._rows_with("id", [int(one) for one in picture_ids], ("id", "$meta"))
        found = {int(row["id"]): layout.metadata_of(row) for row in rows}
        return [found.get(int(one), {}) for one in picture_ids]

    def select(self, where: str | Filter) -> NDArray[np.int64]:
        """Ascending ids of the ready pictures that a filter holds for. Raises QueryError."""
        condition = self._compiled(where)
        return np.sort(np.fromiter((row["id"] for row in self._rows(condition, ("id",))), np.int64))

    def vectors(self) -> tuple[NDArray[np.int64], Vectors]:
        """Ids (n,) int64 and vectors (n, d) float32 of the ready pictures, in gallery order."""
        rows = [
            (row["id"], np.asarray(row["vector"], np.float32)) for row in self._rows("", ("id", "vector"))
        ]
        rows.sort(key=lambda row: row[0])
        vectors = np.stack([vector for _, vector in rows]) if rows else np.empty((0, self.width), np.float32)
        return np.asarray([picture_id for picture_id, _ in rows], np.int64), vectors

    def searcher(self) -> MilvusSearcher:
        """What ranks the ready pictures, in the database, as they are at each search."""
        self._seal()
        index = self._database.index_type(self._collection, "vector")
        return MilvusSearcher(self._database, self._collection, self.width, index, self._compiled)

    def known(self, root: int) -> dict[str, KnownFile]:
        """What is known of the files below a root, by path relative to it."""
        known = {
            failed.path: KnownFile(failed.id, failed.size, failed.mtime_ns, failed.reason, None)
            for failed in self._ledger.failed(root)
        }
        fields = ("id", "path", "size", "mtime_ns", "content")
        stale = []
        for row in self._rows(f"root == {root}", fields):
            path = layout.read_path(row["path"])
            stale += [(root, path)] if path in known else []
            content_id = layout.content_id_of(row["content"])
            known[path] = KnownFile(int(row["id"]), int(row["size"]), int(row["mtime_ns"]), None, content_id)
        if not self.readonly:
            self._ledger.drop_failed(stale)  # left by a run that was killed within a commit
        return known

    def find_content(self, sha256: bytes) -> int | None:
        """Id of the content with this SHA-256, None when the gallery does not hold it."""
        if self._hints is not None and not self._hints.content(sha256.hex()):
            return None
        found = self._database.find(self._collection, any_of("content", [sha256.hex()]), ("id",), 1)
        return layout.content_id_of(sha256.hex()) if found else None

    def with_content(self, content: int) -> list[int]:
        """Ids of the ready pictures that have this content, in gallery order."""
        condition = f'content like "{layout.content_prefix(content)}%"'
        return sorted(int(row["id"]) for row in self._rows(condition, ("id",)))

    def gone(self, root: int) -> dict[int, deque[int]]:
        """Ready pictures of other roots that no longer exist: content id -> picture ids."""
        gone: dict[int, deque[int]] = {}
        for root_id, place in self.roots().items():
            if root_id == root or may_exist(place):
                continue
            rows = sorted(
                (row["id"], row["content"]) for row in self._rows(f"root == {root_id}", ("id", "content"))
            )
            for picture, content in rows:
                gone.setdefault(layout.content_id_of(content), deque()).append(int(picture))
        return gone

    def add_root(self, folder: Place) -> int:
        """The id of an indexed place (an absolute path or a URL), new or known."""
        known = next((root_id for root_id, root in self.roots().items() if root == folder), None)
        if known is not None and not self.readonly:
            return known
        with self._writing(0):
            return self._ledger.add_root(folder)

    def move_root(self, root: int, into: int, prefix: str) -> None:
        """Make a root's pictures those of another one, at `prefix` below it; goes on where it was interrupted."""
        picture_ids = [int(row["id"]) for row in self._rows(f"root == {root}", ("id",))]
        for start in range(0, len(picture_ids), _KEY_BATCH):
            with self._writing(0):
                rows = self._rows_by_id(picture_ids[start : start + _KEY_BATCH]).values()
                self._write([layout.moved_row(row, into, prefix) for row in rows])
        failed = self._ledger.failed(root)
        with self._writing(0):
            self._ledger.put_failed(
                [replace(one, root=into, path=os.path.join(prefix, one.path)) for one in failed]
            )
            self._ledger.drop_failed([(root, one.path) for one in failed])
        self.remove_root(root)

    def remove_root(self, root: int) -> None:
        """Forget a root that has no pictures."""
        with self._writing(0):
            self._ledger.remove_root(root)

    def commit(self, root: int, contents: Sequence[Content], entries: Sequence[FileEntry]) -> None:
        """Write contents and the entries that refer to them.

        What can be found is written before what failed, and both before anything is forgotten, so that a run
        killed in between loses nothing that was there.
        """
        last = last_of_each(entries)
        ready = [entry for entry in last if entry.sha256 is not None]
        failed = [entry for entry in last if entry.sha256 is None]
        with self._writing(len(last)) as ids:
            before = {
                layout.read_path(row["path"]): row for row in self._rows_at(root, [e.path for e in last])
            }
            known = self._ledger.failed_at(root, [entry.path for entry in last])
            moved = self._rows_by_id([e.moved_from for e in ready if e.moved_from is not None])
            by_content = self._by_content(contents, ready)
            rows, replaced = [], []
            for entry in ready:
                old = before.get(entry.path)
                kept = old if entry.moved_from is None else moved[entry.moved_from]
                if old is not None and kept is not old:
                    replaced.append(int(old["id"]))
                picture_id = id_of(entry, kept, known, ids)
                rows.append(picture_row(picture_id, root, entry, by_content, kept))
            check_metadata(rows, self.columns)
            self._write(rows)
            self._ledger.put_failed([as_failed(entry, root, before, known, ids) for entry in failed])
            gone = [int(before[entry.path]["id"]) for entry in failed if entry.path in before]
            self._database.delete(self._collection, replaced + gone)
            self._ledger.drop_failed([(root, entry.path) for entry in ready if entry.path in known])

    def notes(self, kind: str) -> dict[str, Any]:
        """The notes of a kind by name: JSON values."""
        return self._ledger.notes(kind)

    def set_notes(self, kind: str, values: Mapping[str, Any]) -> None:
        """Set notes of a kind by name; None takes one away."""
        with self._writing(0):
            self._ledger.set_notes(kind, values)

    def delete(self, pictures: Sequence[int]) -> None:
        """Forget pictures, ready or failed."""
        picture_ids = set(pictures)
        if not picture_ids:
            return
        with self._writing(0):
            self._database.delete(self._collection, sorted(picture_ids))
            failed = [(one.root, one.path) for one in self._ledger.failed() if one.id in picture_ids]
            self._ledger.drop_failed(failed)

    def add_columns(self, columns: Mapping[str, ColumnType]) -> None:
        """Make the metadata columns that are not there yet. Raises DataError."""
        known = self.columns()
        new: dict[str, ColumnType] = {}
        for name, kind in columns.items():
            if is_new_column({**known, **new}, name, kind):
                new[name] = kind
        if new:
            with self._writing(0):
                self._ledger.add_columns(new)

    def change_column(
        self, name: str, kind: ColumnType | None, values: Iterable[tuple[int, Value | None]]
    ) -> None:
        """Give a column another type (None: take it away), and pictures these values of it."""
        with self._writing(0):
            if kind is not None:
                self._ledger.set_column(name, kind)
            self.set_metadata((number, {name: value}) for number, value in values)
            if kind is None:
                self._ledger.set_column(name, None)

    def set_metadata(self, rows: Iterable[tuple[int, Mapping[str, Value | None]]]) -> int:
        """Set metadata of pictures: (id, values by column; None takes a value away).

        Returns:
            How many pictures have other values than before.

        Raises:
            DataError: a value does not fit its column; rows before it may have been written.
        """
        changed = 0
        waiting = iter(rows)
        while batch := dict(islice(waiting, _METADATA_BATCH)):
            with self._writing(0):
                changed += self._set_metadata(batch)
        return changed

    def verify(self) -> None:
        """Check what can be checked from here: every row readable, every root known. Raises GalleryError."""
        roots = self.roots()
        for row in self._rows("", layout.PICTURE_FIELDS):
            if int(row["root"]) not in roots:
                raise GalleryError(
                    f"{self.name} is damaged (picture {row['id']} has an unknown root): index again"
                )
            layout.as_picture(row, roots)

    def _set_metadata(self, values: Mapping[int, Mapping[str, Value | None]]) -> int:
        columns = self.columns()
        stored = self._rows_by_id(list(values)).values()
        changed = (changed_row(row, values[int(row["id"])], columns) for row in stored)
        rows = [row for row in changed if row is not None]
        self._write(rows)
        return len(rows)

    def _write(self, rows: Sequence[Fields]) -> None:
        if self._hints is not None:
            self._hints.add(rows)
        self._database.upsert(self._collection, rows)

    def _compiled(self, where: str | Filter) -> str:
        return condition_of(where, self.columns(), self.roots(), self._rows)

    def _by_content(self, contents: Sequence[Content], ready: Sequence[FileEntry]) -> dict[str, Fields]:
        """Content, size and vector of every content that the entries refer to, new or stored."""
        found = {content.sha256.hex(): content_fields(content) for content in contents}
        wanted = {entry.sha256.hex() for entry in ready if entry.sha256 is not None} - found.keys()
        fields = ("content", "width", "height", "vector")
        for sha256 in wanted:
            for row in self._database.find(self._collection, any_of("content", [sha256]), fields, 1):
                found[sha256] = {name: row[name] for name in fields}
        return found

    def _rows(self, condition: str, fields: Sequence[str]) -> Iterator[Fields]:
        return self._database.rows(self._collection, condition, fields)

    def _rows_with(self, field: str, values: Sequence[Value], fields: Sequence[str]) -> Iterator[Fields]:
        """Rows with one of these ids, or of these paths (each once below each root)."""
        for start in range(0, len(values), _KEY_BATCH):
            condition = any_of(field, values[start : start + _KEY_BATCH])
            yield from self._database.find(self._collection, condition, fields, MAX_RESULTS)

    def _rows_at(self, root: int, paths: Sequence[str]) -> Iterator[Fields]:
        stored = [layout.stored_path(path) for path in paths]
        if self._hints is not None:
            stored = [path for path in stored if self._hints.path(root, path)]
        for row in self._rows_with("path", stored, _EVERYTHING):
            if int(row["root"]) == root:
                yield row

    def _rows_by_id(self, picture_ids: Sequence[int]) -> dict[int, Fields]:
        return {int(row["id"]): row for row in self._rows_with("id", picture_ids, _EVERYTHING)}

    def _seal(self) -> None:
        """Have what was written indexed; searching it before takes Milvus Lite 40 times as long."""
        if self._changed:
            self._database.flush(self._collection)
            self._changed = False

    @contextmanager
    def _writing(self, new_ids: int) -> Iterator[Ids]:
        with self._lock:
            if self._claim is None or self._ids is None:
                raise GalleryError(f"the gallery {self.name} was opened for reading only")
            self._claim.renew()
            self._ids.reserve(new_ids)
            self._changed = True
            yield self._ids


def _no_gallery(place: MilvusAddress) -> GalleryError:
    return GalleryError(
        f"there is no gallery {place}: make one with `image2sentence index PICTURES --gallery ...`, or check "
        "the address"
    )
