"""Values of a gallery's metadata columns, for choosing among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.filters.language import ColumnType, Value
from image2sentence.server.sorting import values_by_id

PICTURES_READ = 20_000
"""Pictures whose values are looked at; a larger gallery's facets are those of its first ones."""

VALUES_READ = 500_000
"""Pictures whose values are searched."""

MAX_VALUES = 40
MAX_VALUE_LENGTH = 80

_BATCH = 1_000


@dataclass(frozen=True)
class Facet:
    """A column's values: of numbers and dates the least and the greatest, of others each and how often it comes.

    `values` are the most frequent ones, most frequent first; where a column has `many` different ones it is empty, and
    they are to be searched instead (`counted`, `matching`).
    """

    type: ColumnType
    least: Value | None = None
    greatest: Value | None = None
    values: tuple[tuple[Value, int], ...] = ()
    many: bool = False


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


def counted(gallery: GalleryStore, ids: Sequence[int], name: str) -> Counter[Value]:
    """How often each value of a column comes among these pictures; of a larger gallery among the first ones."""
    ids = ids[:VALUES_READ]
    among, values = set(ids), values_by_id(gallery, ids, name)
    return Counter(
        value for one, value in values.items() if one in among and len(str(value)) <= MAX_VALUE_LENGTH
    )


def matching(counts: Counter[Value], wanted: str, k: int) -> list[tuple[Value, int]]:
    """Up to k values that hold a text, in any case: those that begin with it first, then the most frequent."""
    wanted = wanted.strip().casefold()
    found = [(value, count) for value, count in counts.items() if wanted in str(value).casefold()]
    found.sort(key=lambda one: (not str(one[0]).casefold().startswith(wanted), -one[1], str(one[0])))
    return found[:k]


def _facet(kind: ColumnType, counts: Counter[Value]) -> Facet:
    if kind in ("number", "date"):
        key = str if kind == "date" else float
        return Facet(kind, min(counts, key=key), max(counts, key=key)) if counts else Facet(kind)
    short = [(value, count) for value, count in counts.most_common() if len(str(value)) <= MAX_VALUE_LENGTH]
    many = len(short) > MAX_VALUES
    return Facet(kind, values=() if many else tuple(short), many=many)
