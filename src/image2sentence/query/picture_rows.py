"""Rows of a gallery's pictures, read and checked once in each of its generations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.filters.language import Value
from image2sentence.gallery.records import Picture

MOST_KEPT = 4_096
"""Rows kept of pictures, and as many of metadata."""

Row = TypeVar("Row")


class PictureRows:
    """Pictures and their metadata as the gallery has them now; threads may share it.

    What is kept belongs to one generation of the gallery, which is asked for at each call: a change is seen at once.

    Args:
        gallery: Stays open as long as this is used.
    """

    def __init__(self, gallery: GalleryStore) -> None:
        self._gallery = gallery
        self._generation: int | None = None
        self._pictures: dict[int, Picture | None] = {}
        self._metadata: dict[int, dict[str, Value]] = {}
        self._lock = threading.Lock()

    def pictures(self, ids: Collection[int]) -> list[Picture | None]:
        """The pictures with these ids, in their order; None for an id that is not there. Raises GalleryError."""
        return self._rows(ids, self._pictures, self._gallery.pictures_of)

    def metadata(self, ids: Collection[int]) -> list[dict[str, Value]]:
        """The metadata of pictures, in the order of their ids; empty where there is none. Raises GalleryError."""
        return [dict(row) for row in self._rows(ids, self._metadata, self._read_metadata)]

    def _read_metadata(self, ids: Sequence[int]) -> list[dict[str, Value]]:
        return self._gallery.metadata(ids) if self._gallery.columns() else [{} for _ in ids]

    def _rows(
        self, ids: Collection[int], kept: dict[int, Row], read: Callable[[list[int]], list[Row]]
    ) -> list[Row]:
        with self._lock:
            generation = (
                self._gallery.generation()
            )  # before reading: no later row passes for one of this generation
            if generation != self._generation or not generation:  # galleries of format 1 have none
                self._pictures.clear()
                self._metadata.clear()
                self._generation = generation
            missing = [one for one in ids if one not in kept]
            if len(kept) + len(missing) > MOST_KEPT:
                kept.clear()
                missing = list(ids)
            if missing:
                kept.update(zip(missing, read(missing), strict=True))
            return [kept[one] for one in ids]
