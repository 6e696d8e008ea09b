"""One opened gallery with its engine and caches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Encoder, Vectors
from image2sentence.errors import QueryError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.filters.language import Value
from image2sentence.gallery.locations import Identity
from image2sentence.lru_cache import LruCache
from image2sentence.query import QueryEngine, Reference
from image2sentence.server.facets import Facet

SENTENCES_KEPT = 1_024


JPEG_BYTES_KEPT = 64 << 20
ORDERS_KEPT = 8
"""Orders of the gallery, by condition, column and direction."""
COUNTS_KEPT = 8
"""Columns whose values have been counted."""


@dataclass(frozen=True)
class ReadPicture:
    """A picture as the model has read it.

    Attributes:
        name: SHA-256 of the file's content, 64 hexadecimal digits.
        sentence: (1, L, w) float32.
        attention: (L, H, W) float32 maps that sum to 1; None where the encoder cannot tell.
        gates: (L,) float32, 0 to 1; None where the encoder cannot tell.
        region: Left, top, width and height of what the maps cover, in parts (0 to 1) of the upright picture.
    """

    name: str
    sentence: Vectors
    attention: Vectors | None
    gates: Vectors | None
    region: tuple[float, float, float, float]

    def reference(self, item: int | None = None, muted: Collection[int] = ()) -> Reference | None:
        """Its sentence without the pseudo-words of these numbers (from 1), to ask with; None where none is left.

        Raises QueryError where it has no pseudo-word of such a number.
        """
        words = len(self.sentence[0])
        if any(number > words for number in muted):
            raise QueryError(f"muted: the sentence has {words} pseudo-words, numbered from 1")
        kept = [row for row in range(words) if row + 1 not in muted]
        if not kept:
            return None
        return Reference(sentence=self.sentence[0, kept], item=item, sha256=bytes.fromhex(self.name))


class GallerySession:
    """A gallery and what is remembered of it: left as a whole where another gallery has come to its place.

    Args:
        encoder: The model.
        gallery: Open.
        file: Which file the gallery was opened from, as `GalleryStore.file_identity` tells.

    Raises:
        GalleryError: the gallery is of another model, or damaged.
    """

    def __init__(self, encoder: Encoder, gallery: GalleryStore, file: Identity | None) -> None:
        self.engine = QueryEngine(encoder, gallery)
        self.gallery = gallery
        self.file = file
        self.read_items: LruCache[ReadPicture] = LruCache(SENTENCES_KEPT)
        self.jpegs: LruCache[bytes] = LruCache(JPEG_BYTES_KEPT, len)
        self.facets: dict[str, Facet] | None = None
        self.orders: LruCache[NDArray[np.int64]] = LruCache(ORDERS_KEPT)
        self.counts: LruCache[Counter[Value]] = LruCache(COUNTS_KEPT)

    def refresh(self) -> None:
        """Notice what an indexing run has changed in this gallery."""
        if self.engine.refresh():
            self.facets = None
            self.orders.clear()
            self.counts.clear()
            self.read_items.clear()
            self.jpegs.clear()
