"""Paths and contents that a collection may hold, kept by its writer.

Asking Milvus for a path or a content takes longer than writing one does, and in Milvus Lite the longer the larger the
collection is; of a gallery that grows almost every answer is that there is none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from image2sentence.gallery.milvus.database import Database

FIELDS = ("root", "path", "content")


class Hints:
    """Paths and contents that may be there: one that is not hinted at is not, one that is may be.

    Read from the collection when first asked, about 120 bytes a picture. `add` comes before the rows are written;
    nothing is taken back.
    """

    def __init__(self, database: Database, collection: str) -> None:
        self._database = database
        self._collection = collection
        self._lock = threading.Lock()
        self._hashes: set[int] | None = None

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Hint at rows that are about to be written."""
        self._all().update(_hashes(rows))

    def path(self, root: int, stored: str) -> bool:
        """Whether a row with this path (as it is stored) may be there."""
        return hash((root, stored)) in self._all()

    def content(self, sha256: str) -> bool:
        """Whether a row with this content (hexadecimal) may be there."""
        return hash(sha256) in self._all()

    def _all(self) -> set[int]:
        with self._lock:
            if self._hashes is None:
                self._hashes = set(_hashes(self._database.rows(self._collection, "", FIELDS)))
            return self._hashes


def _hashes(rows: Iterable[Mapping[str, Any]]) -> Iterable[int]:
    for row in rows:
        yield hash((int(row["root"]), row["path"]))
        yield hash(row["content"])
