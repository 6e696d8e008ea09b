"""Values of a gallery's metadata columns, for choosing among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.filters.language import ColumnType, Value

PICTURES_READ = 20_000
"""Pictures whose values are looked at; a larger gallery's facets are those of its first ones."""

MAX_VALUES = 40
MAX_VALUE_LENGTH = 80

_BATCH = 1_000


@dataclass(frozen=True)
class Facet:
    """A column's values: of numbers and dates the least and the greatest, of others each and how often it comes.

    `values` are the most frequent ones, most frequent first; empty where a column has so many different ones that a
    choice among them helps nobody.
    """

    type: ColumnType
    least: Value | None = None
    greatest: Value | None = None
    values: tuple[tuple[Value, int], ...] = ()


def facets_of(gallery: GalleryStore, ids: Sequence[int]) -> dict[str, Facet]:
    """The facets of these pictures, by column."""
    types = gallery.columns()
    counts: dict[str, Counter[Value]] = {name: Counter() for name in types}
    ids = ids[:PICTURES_READ] if types else []
    for start in range(0, len(ids), _BATCH):
        for row in gallery.metadata(ids[start : start + _BATCH]):
            for name, value in row.items():
                counts[name][value] += 1
    return {name: _facet(kind, counts[name]) for name, kind in types.items()}


def _facet(kind: ColumnType, counts: Counter[Value]) -> Facet:
    if kind in ("number", "date"):
        key = str if kind == "date" else float
        return Facet(kind, min(counts, key=key), max(counts, key=key)) if counts else Facet(kind)
    short = [(value, count) for value, count in counts.most_common() if len(str(value)) <= MAX_VALUE_LENGTH]
    return Facet(kind, values=tuple(short) if len(short) <= MAX_VALUES else ())
