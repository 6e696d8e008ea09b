"""Lookup from picture ids to rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from image2sentence.errors import DataError, QueryError
from image2sentence.gallery.search.base import Positions


class _HashedNames:
    """Any different hashable ids."""

    def __init__(self, ids: Sequence[Hashable]) -> None:
        self._ids = list(ids)
        self._positions = {name: place for place, name in enumerate(self._ids)}
        if len(self._positions) != len(self._ids):
            raise DataError(f"id {_first_repeated(self._ids)!r} is given twice: ids must differ")

    def all(self) -> Sequence[Hashable]:
        return self._ids

    def at(self, position: int | np.int64) -> Hashable:
        return self._ids[position]

    def positions(self, wanted: Collection[Hashable], who: str) -> Positions:
        unknown = next((one for one in wanted if one not in self._positions), None)
        if unknown is not None:
            raise QueryError(f"{who}: id {unknown!r} is not in the gallery")
        return np.fromiter((self._positions[one] for one in wanted), np.int64, len(wanted))

    def present(self, wanted: NDArray[np.int64]) -> Positions:
        found = (self._positions.get(one) for one in wanted.tolist())
        return np.array(sorted(place for place in found if place is not None), np.int64)


class _AscendingNames:
    """Ascending int64 ids, looked up by bisection: 8 bytes each."""

    def __init__(self, ids: NDArray[np.int64]) -> None:
        self._ids = ids
        self._dense = len(ids) > 0 and int(ids[-1]) - int(ids[0]) + 1 == len(ids)

    def all(self) -> Sequence[Hashable]:
        names: list[int] = self._ids.tolist()
        return names

    def at(self, position: int | np.int64) -> Hashable:
        return int(self._ids[position])

    def positions(self, wanted: Collection[Hashable], who: str) -> Positions:
        numbers = wanted if isinstance(wanted, np.ndarray) else self._whole_numbers(wanted, who)
        if self._dense:
            near: Positions = numbers - int(self._ids[0])
            if not len(near) or (near.min() >= 0 and near.max() < len(self._ids)):
                return near
        places = np.minimum(np.searchsorted(self._ids, numbers), max(len(self._ids) - 1, 0))
        strange = numbers != self._ids[places] if len(self._ids) else np.ones(len(numbers), bool)
        if strange.any():
            raise QueryError(f"{who}: id {numbers[strange][0].item()!r} is not in the gallery")
        return places

    def present(self, wanted: NDArray[np.int64]) -> Positions:
        if self._dense:
            near: Positions = wanted - int(self._ids[0])
            within = (near >= 0) & (near < len(self._ids))
            return near if within.all() else near[within]
        places = np.minimum(np.searchsorted(self._ids, wanted), max(len(self._ids) - 1, 0))
        return places[self._ids[places] == wanted] if len(self._ids) else places[:0]

    def _whole_numbers(self, wanted: Collection[Hashable], who: str) -> NDArray[np.int64]:
        strange = next((one for one in wanted if not isinstance(one, int | np.integer)), None)
        if strange is not None:
            raise QueryError(f"{who}: id {strange!r} is not in the gallery")
        return np.fromiter(wanted, np.int64, len(wanted))


def _names(ids: Sequence[Hashable] | NDArray[np.int64]) -> _HashedNames | _AscendingNames:
    if isinstance(ids, np.ndarray) and ids.dtype == np.int64 and (np.diff(ids) > 0).all():
        return _AscendingNames(ids)
    return _HashedNames(ids.tolist() if isinstance(ids, np.ndarray) else ids)


def _first_repeated(ids: Sequence[Hashable]) -> Hashable:
    counts = Counter(ids)
    return next(name for name in ids if counts[name] > 1)
