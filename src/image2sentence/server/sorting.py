"""A gallery's pictures in the order of a metadata column or a stored fact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from image2sentence.errors import QueryError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.facts import facts_of
from image2sentence.gallery.filters.language import Value

SORTING_FACTS = ("@name", "@size", "@width", "@height", "@date")
"""Facts to sort by; places are not among them, since not everyone may know them."""

_BATCH = 1_000


@runtime_checkable
class ReadsColumns(Protocol):
    """A gallery that reads one column at once."""

    def column(self, name: str) -> tuple[NDArray[np.int64], list[Value]]:
        """Ascending ids of the pictures that have a value of a column or fact, and the values."""
        ...


def sorted_ids(
    gallery: GalleryStore, ids: Sequence[int], by: str, *, descending: bool = False
) -> NDArray[np.int64]:
    """(n,) the ids in the order of a column or a fact; those without a value last, equals in the order of `ids`.

    Text goes without regard to case. Raises QueryError where there is no such column.
    """
    if by not in gallery.columns() and by not in SORTING_FACTS:
        raise QueryError(f"sort: there is no column {by!r}; facts to sort by are {', '.join(SORTING_FACTS)}")
    values = values_by_id(gallery, ids, by)
    known = [one for one in ids if one in values]
    known.sort(key=lambda one: _key(values[one]), reverse=descending)  # which leaves equals in their order
    return np.array([*known, *(one for one in ids if one not in values)], np.int64)


def values_by_id(gallery: GalleryStore, ids: Sequence[int], name: str) -> dict[int, Value]:
    """The values that these pictures have in a column or of a fact."""
    if isinstance(gallery, ReadsColumns):
        found, values = gallery.column(name)
        return dict(zip(found.tolist(), values, strict=True))
    read: dict[int, Value] = {}
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        for one, value in zip(batch, _values(gallery, batch, name), strict=True):
            if value is not None:
                read[one] = value
    return read


def _values(gallery: GalleryStore, ids: Sequence[int], name: str) -> list[Value | None]:
    rows = gallery.metadata(ids) if gallery.columns() else [{} for _ in ids]
    if name not in SORTING_FACTS:
        return [row.get(name) for row in rows]
    roots = list(gallery.roots().values())
    return [
        None if one is None else facts_of(one, roots, row)[name.removeprefix("@")]
        for one, row in zip(gallery.pictures_of(ids), rows, strict=True)
    ]


def _key(value: Value) -> tuple[str, str] | tuple[float, str]:
    return (value.casefold(), value) if isinstance(value, str) else (float(value), "")
