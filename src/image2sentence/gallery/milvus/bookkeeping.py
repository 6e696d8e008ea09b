"""Bookkeeping of a Milvus gallery: roots, columns, failures, ids, writer."""

from __future__ import annotations

import hashlib
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image2sentence.errors import GalleryError
from image2sentence.gallery.filters.language import ColumnType
from image2sentence.gallery.filters.milvus import any_of, literal
from image2sentence.gallery.locations import Place, stored_place
from image2sentence.gallery.milvus.address import MilvusAddress
from image2sentence.gallery.milvus.database import Database, Fields
from image2sentence.gallery.milvus.layout import (
    LEDGER,
    ledger_schema,
    new_about,
    pictures_schema,
    read_path,
    stored_path,
)
from image2sentence.images import printable

CLAIM_SECONDS = 120.0
"""Seconds without a renewal after which a writer is taken for dead."""

_RENEW_SECONDS = 15.0
_ID_BATCH = 1_000


@dataclass(frozen=True)
class Failed:
    """A file that could not be read."""

    id: int
    root: int
    path: str
    size: int
    mtime_ns: int
    reason: str
    offset: int | None = None


class Ledger:
    """Reads and writes the ledger's rows: a key, a kind, a root (0 where there is none), and a JSON value."""

    def __init__(self, database: Database, collection: str) -> None:
        self._database = database
        self._collection = collection + LEDGER

    def open(self) -> dict[str, Any] | None:
        """Load the ledger; gives what the gallery says of itself, None where there is no ledger."""
        if not self._database.has(self._collection):
            return None
        self._database.load(self._collection)
        return next((dict(row["value"]) for row in self._rows("about")), None)

    def set_about(self, about: Mapping[str, Any]) -> None:
        """Write what a new gallery says of itself."""
        self._write([_row("about", "about", 0, dict(about))])

    def roots(self) -> dict[int, Place]:
        """The indexed places by id."""
        rows = self._rows("root")
        return {int(row["root"]): stored_place(read_path(row["value"]["path"])) for row in rows}

    def add_root(self, place: Place) -> int:
        """The id of an indexed place, new or known."""
        roots = self.roots()
        known = next((root_id for root_id, root in roots.items() if root == place), None)
        if known is not None:
            return known
        root_id = max(roots, default=0) + 1
        self._write([_row(f"root:{root_id}", "root", root_id, {"path": stored_path(os.fspath(place))})])
        return root_id

    def remove_root(self, root_id: int) -> None:
        """Forget a place."""
        self._database.delete(self._collection, [f"root:{root_id}"])

    def columns(self) -> dict[str, ColumnType]:
        """The metadata columns and their types, in the order in which they came."""
        found = sorted((int(row["key"].partition(":")[2]), row["value"]) for row in self._rows("column"))
        return {value["name"]: value["type"] for _, value in found}

    def add_columns(self, columns: Mapping[str, ColumnType]) -> None:
        """Write new columns behind those that are there."""
        numbers = [int(row["key"].partition(":")[2]) for row in self._rows("column")]
        first = max(numbers, default=0) + 1
        self._write(
            [
                _row(f"column:{number}", "column", 0, {"name": name, "type": kind})
                for number, (name, kind) in enumerate(columns.items(), first)
            ]
        )

    def set_column(self, name: str, kind: ColumnType | None) -> None:
        """Write a column's other type; None forgets the column."""
        key = next(str(row["key"]) for row in self._rows("column") if row["value"]["name"] == name)
        if kind is None:
            self._database.delete(self._collection, [key])
        else:
            self._write([_row(key, "column", 0, {"name": name, "type": kind})])

    def failed(self, root: int | None = None) -> list[Failed]:
        """The files that failed, by id; those below one root."""
        return sorted(map(_as_failed, self._rows("failed", root)), key=lambda failed: failed.id)

    def failed_at(self, root: int, paths: Sequence[str]) -> dict[str, Failed]:
        """The failures of some files below a root, by path."""
        if not paths:
            return {}
        condition = any_of("key", [_failed_key(root, path) for path in paths])
        rows = self._database.find(self._collection, condition, ["root", "value"], len(paths))
        return {failed.path: failed for failed in map(_as_failed, rows)}

    def put_failed(self, failed: Sequence[Failed]) -> None:
        """Remember files that failed, in place of what was known of them."""
        rows = []
        for one in failed:
            value = {name: given for name, given in vars(one).items() if name != "root"}
            value["path"] = stored_path(one.path)
            rows.append(_row(_failed_key(one.root, one.path), "failed", one.root, value))
        self._write(rows)

    def drop_failed(self, files: Sequence[tuple[int, str]]) -> None:
        """Forget failures, by root and path."""
        if files:
            self._database.delete(self._collection, [_failed_key(*file) for file in files])

    def notes(self, kind: str) -> dict[str, Any]:
        """The notes of a kind by name."""
        start = len(_note_key(kind, ""))
        return {str(row["key"])[start:]: row["value"]["note"] for row in self._rows(f"note {kind}")}

    def set_notes(self, kind: str, values: Mapping[str, Any]) -> None:
        """Write notes of a kind by name; None takes one away."""
        gone = [_note_key(kind, name) for name, value in values.items() if value is None]
        rows = [
            _row(_note_key(kind, name), f"note {kind}", 0, {"note": value})
            for name, value in values.items()
            if value is not None
        ]
        self._write(rows)
        self._database.delete(self._collection, gone)

    def counters(self) -> tuple[int, int]:
        """The next free id, and the generation."""
        value = next((row["value"] for row in self._rows("counter")), {"next": 1, "generation": 0})
        return int(value["next"]), int(value["generation"])

    def set_counters(self, next_id: int, generation: int) -> None:
        """Write the next free id and the generation."""
        self._write([_row("counter", "counter", 0, {"next": next_id, "generation": generation})])

    def writer(self) -> dict[str, Any] | None:
        """Who claims to be writing."""
        return next((dict(row["value"]) for row in self._rows("writer")), None)

    def set_writer(self, claim: Mapping[str, Any]) -> None:
        """Write a claim."""
        self._write([_row("writer", "writer", 0, dict(claim))])

    def drop_writer(self) -> None:
        """Take the claim away."""
        self._database.delete(self._collection, ["writer"])

    def _rows(self, kind: str, root: int | None = None) -> Iterator[Fields]:
        condition = f"kind == {literal(kind)}" + ("" if root is None else f" and root == {root}")
        return self._database.rows(self._collection, condition, ["key", "root", "value"])

    def _write(self, rows: Sequence[Fields]) -> None:
        if rows:
            self._database.upsert(self._collection, rows)


class Ids:
    """Gives out picture ids, none twice: blocks are reserved in the ledger before they are used."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._next, self._generation = ledger.counters()
        self._reserved = self._next

    def reserve(self, count: int) -> None:
        """Make sure that the next `count` ids are ours, and that readers see that something changes."""
        if self._next + count > self._reserved:
            self._reserved = self._next + count + _ID_BATCH
        self._generation += 1
        self._ledger.set_counters(self._reserved, self._generation)

    def take(self) -> int:
        """A new id, out of those reserved."""
        self._next += 1
        return self._next - 1

    def give_back(self) -> None:
        """Free what was reserved and not used, at the end of writing."""
        self._ledger.set_counters(self._next, self._generation)


class WriterClaim:
    """One writer at a time, by a note in the ledger that is renewed while writing goes on.

    Milvus has no locks. The note keeps out writers that look, which all writers of this package do; two that
    begin within the same moment see each other when they look again. The note of a writer that was killed is
    void at once on its own machine, and after `CLAIM_SECONDS` elsewhere.

    Raises:
        GalleryError: another writer is at work; the message names it.
    """

    def __init__(self, ledger: Ledger, name: str) -> None:
        self._ledger = ledger
        self._name = name
        self._since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self._token = uuid.uuid4().hex
        self._seen = 0.0
        self._require_free()
        self.renew()
        self._require_mine()

    def renew(self) -> None:
        """Tell that writing goes on, now and then. Raises GalleryError where another writer has taken over."""
        if time.monotonic() - self._seen < _RENEW_SECONDS:
            return
        if self._seen:
            self._require_mine()
        self._ledger.set_writer(
            {
                "token": self._token,
                "process": os.getpid(),
                "host": socket.gethostname(),
                "since": self._since,
                "seen": time.time(),
            }
        )
        self._seen = time.monotonic()

    def release(self) -> None:
        """Let another writer in."""
        other = self._ledger.writer()
        if other is not None and other["token"] == self._token:
            self._ledger.drop_writer()

    def _require_free(self) -> None:
        other = self._ledger.writer()
        if other is None or _is_dead(other):
            return
        left = max(0.0, CLAIM_SECONDS - (time.time() - float(other["seen"])))
        raise self._taken(other, f"wait until it ends; if it was killed, it is given up in {left:.0f} s")

    def _require_mine(self) -> None:
        other = self._ledger.writer()
        if other is not None and other["token"] != self._token:
            raise self._taken(other, "wait until it ends; what this run wrote before is kept")

    def _taken(self, other: Mapping[str, Any], advice: str) -> GalleryError:
        return GalleryError(
            f"{self._name} is being written by process {other['process']} on {printable(str(other['host']))} "
            f"since {other['since']}: {advice}; reading goes on meanwhile"
        )


def _is_dead(claim: Mapping[str, Any]) -> bool:
    if time.time() - float(claim["seen"]) > CLAIM_SECONDS:
        return True
    if claim["host"] != socket.gethostname() or int(claim["process"]) == os.getpid():
        return False
    return not Path(f"/proc/{claim['process']}").exists() if Path("/proc/self").exists() else False


def _as_failed(row: Fields) -> Failed:
    return Failed(root=int(row["root"]), **{**row["value"], "path": read_path(row["value"]["path"])})


def _row(key: str, kind: str, root: int, value: Any) -> Fields:
    return {"key": key, "kind": kind, "root": root, "value": value, "nothing": [1.0, 0.0]}


def _note_key(kind: str, name: str) -> str:
    return f"note:{kind}:{name}"


def _failed_key(root: int, path: str) -> str:
    return f"failed:{root}:{hashlib.sha256(os.fsencode(path)).hexdigest()}"


def create_collections(database: Database, place: MilvusAddress, fingerprint: str, width: int) -> None:
    """Make both collections; the one that says that there is a gallery comes last. Raises GalleryError."""
    ledger = place.collection + LEDGER
    if database.has(ledger):
        database.drop(ledger)  # left by a creation that was interrupted
    database.create(ledger, *ledger_schema())
    Ledger(database, place.collection).set_about(new_about(fingerprint, width))
    index = place.index or ("AUTOINDEX" if place.file is None else "FLAT")
    database.create(place.collection, *pictures_schema(width, index))
