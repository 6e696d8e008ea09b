"""Filters over metadata columns in memory, sorted by value.

Each column is kept sorted by value, so that every test is a run (or a few) of that order. Of tests joined by `and`,
the rarest is looked up, and the others are held against what it found.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from image2sentence.errors import QueryError
from image2sentence.gallery.filters.language import (
    And,
    ColumnType,
    Comparison,
    Condition,
    Filter,
    Membership,
    Missing,
    Or,
    Pattern,
    Test,
    Value,
    as_filter,
)
from image2sentence.gallery.filters.patterns import LikePattern

_SMALL = 1 / 16  # of the pictures: fewer are sorted, more are marked
_ANSWERS_KEPT = 4  # pages of one listing, and the count behind a search, ask for the same filter again

MAX_VALUES = 200_000_000
"""Values that all tests of one filter may look at: one for each picture and test."""

MAX_PATTERN_TESTS = 2_000_000
"""Searches through texts that `like` and `contains` of one filter may take, each different text of a column once."""

MAX_PATTERN_CHARACTERS = 200_000_000
"""Character comparisons that they may take."""


class ColumnSource(Protocol):
    """A gallery's metadata columns."""

    def generation(self) -> int:
        """A number that grows with every change."""
        ...

    def columns(self) -> dict[str, ColumnType]:
        """The columns and their types."""
        ...

    def column(self, name: str) -> tuple[NDArray[np.int64], list[Value]]:
        """Ascending ids of the pictures that have a value in a column or of a fact (`@name`), and the values."""
        ...

    def select(self, where: str | Filter) -> NDArray[np.int64]:
        """Ascending ids of the pictures that a filter holds for."""
        ...


class ColumnCache:
    """Answers filters for the pictures of one Searcher, with their metadata as it is now.

    The first filter, and the first after a change of the gallery, is answered by SQLite unless it has a `like` or
    `contains`: many a process asks only once. From the second on, the columns that filters ask for are read into
    memory: 8 bytes a picture and column, and the different values.

    Args:
        gallery: Stays open as long as this is used.
        ids: (n,) ascending ids of the pictures.
    """

    def __init__(self, gallery: ColumnSource, ids: NDArray[np.int64]) -> None:
        self._gallery = gallery
        self._ids = ids
        self._columns: dict[str, SortedColumn] = {}
        self._types: dict[str, ColumnType] = {}
        self._answers: dict[str | Filter, NDArray[np.int64]] = {}
        self._generation: int | None = None
        self._lock = threading.Lock()

    def select(self, where: str | Filter) -> NDArray[np.int64]:
        """Ascending ids of the pictures that a filter holds for.

        Raises QueryError, see `Gallery.select`; and where it would have to look at too many values, or its patterns
        be compared with too much text.
        """
        with self._lock:
            changed = self._generation != (generation := self._gallery.generation())
            if changed:
                self._columns.clear()
                self._answers.clear()
                self._types, self._generation = self._gallery.columns(), generation
            if where not in self._answers:
                found = self._found(where, changed)
                while len(self._answers) >= _ANSWERS_KEPT:
                    del self._answers[next(iter(self._answers))]
                self._answers[where] = found
            return self._answers[where]

    def _found(self, where: str | Filter, changed: bool) -> NDArray[np.int64]:
        condition = as_filter(where).checked(self._types).condition
        tests = list(tests_of(condition))
        check_count(len(tests), len(self._ids))
        patterns = [test for test in tests if isinstance(test, Pattern)]
        if not len(self._ids) or (changed and not patterns):
            return self._gallery.select(where)
        check_cost(patterns, self._column)
        return self._ids[positions(condition, self._column, len(self._ids))]

    def _column(self, name: str) -> SortedColumn:
        if name not in self._columns:
            self._columns[name] = self._loaded(name)
        return self._columns[name]

    def _loaded(self, name: str) -> SortedColumn:
        picture_ids, values = self._gallery.column(name)
        places = np.minimum(np.searchsorted(self._ids, picture_ids), len(self._ids) - 1)
        there = self._ids[places] == picture_ids
        kept = [value for value, known in zip(values, there.tolist(), strict=True) if known]
        return SortedColumn.of(places[there], kept, len(self._ids))


@dataclass(frozen=True)
class SortedColumn:
    """One column: its different values ascending, the number of each picture's, and the pictures in that order.

    Attributes:
        values: u different values, ascending.
        codes: (n,) int32 place of each picture's value in `values`; -1 where it is missing.
        order: (m,) int32 positions of the pictures with a value, by value and then by position.
        starts: (u + 1,) where each value's run in `order` begins.
    """

    values: Sequence[Any]
    codes: NDArray[np.int32]
    order: NDArray[np.int32]
    starts: NDArray[np.int64]

    @cached_property
    def characters(self) -> int:
        """Characters of all different values together."""
        return sum(len(str(value)) for value in self.values)

    @classmethod
    def of(cls, places: NDArray[np.int64], values: Sequence[Any], count: int) -> SortedColumn:
        """The column of values at some ascending places among `count` positions."""
        different, inverse = _different(values)
        codes = np.full(count, -1, np.int32)
        codes[places] = inverse
        order = places[np.argsort(inverse, kind="stable")].astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(np.bincount(inverse, minlength=len(different)))])
        return cls(different, codes, order, starts.astype(np.int64))

    def hits(self, test: Test) -> NDArray[np.bool_]:
        """(u + 1,) whether a test holds for each different value, and last for a missing one."""
        held = np.zeros(len(self.values) + 1, bool)
        if isinstance(test, Missing):
            held[:] = test.negated
            held[-1] = not test.negated
        elif isinstance(test, Comparison):
            for low, high in self._runs(test):
                held[low:high] = True
        elif isinstance(test, Membership):
            for value in test.values:
                held[self._place(value, bisect_left) : self._place(value, bisect_right)] = True
            held[:-1] ^= test.negated
        else:
            held[:-1] = LikePattern(test.pattern).matching(self.values)
            held[:-1] ^= test.negated
        return held

    def count(self, hits: NDArray[np.bool_]) -> int:
        """How many pictures have a value that was hit."""
        there = int(np.diff(self.starts)[hits[:-1]].sum())
        return there + (len(self.codes) - len(self.order) if hits[-1] else 0)

    def positions(self, hits: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Ascending positions of the pictures whose value was hit."""
        if hits[-1] or self.count(hits) > _SMALL * len(self.codes):
            return np.flatnonzero(hits[self.codes])
        runs = [self.order[self.starts[code] : self.starts[code + 1]] for code in np.flatnonzero(hits)]
        found = np.concatenate([np.empty(0, np.int32), *runs]).astype(np.int64)
        found.sort()
        return found

    def _runs(self, test: Comparison) -> list[tuple[int, int]]:
        low, high = self._place(test.value, bisect_left), self._place(test.value, bisect_right)
        end = len(self.values)
        return {
            "=": [(low, high)],
            "!=": [(0, low), (high, end)],
            "<": [(0, low)],
            "<=": [(0, high)],
            ">": [(high, end)],
            ">=": [(low, end)],
        }[test.operator]

    def _place(self, value: Any, side: Callable[[Sequence[Any], Any], int]) -> int:
        return side(self.values, value)


def tests_of(condition: Condition) -> Iterator[Test]:
    """The tests of a condition, from left to right."""
    if isinstance(condition, And | Or):
        for part in condition.parts:
            yield from tests_of(part)
    else:
        yield condition


def check_count(tests: int, pictures: int) -> None:
    """Refuse more tests than so many pictures allow. Raises QueryError."""
    if tests * pictures > MAX_VALUES:
        raise QueryError(
            f"the filter is too costly: with {tests} tests of {pictures:,} pictures it would look at "
            f"{tests * pictures:,} values ({MAX_VALUES:,} at most); use fewer tests, or `in` with many values"
        )


def check_cost(patterns: Sequence[Pattern], column: Callable[[str], SortedColumn]) -> None:
    """Refuse patterns that would have to be compared with too much text. Raises QueryError."""
    parts = [(LikePattern(one.pattern), column(one.column)) for one in patterns]
    texts = sum(like.searches * len(one.values) for like, one in parts)
    characters = sum(like.cost * one.characters for like, one in parts)
    if texts > MAX_PATTERN_TESTS or characters > MAX_PATTERN_CHARACTERS:
        raise QueryError(
            f"the filter is too costly: its {len(patterns)} `like` and `contains` would be compared with {texts:,} "
            f"texts ({MAX_PATTERN_TESTS:,} at most) and {characters:,} characters ({MAX_PATTERN_CHARACTERS:,} at "
            "most); use fewer of them, fewer `%` and `_`, or `=` and `in`"
        )


def positions(condition: Condition, column: Callable[[str], SortedColumn], count: int) -> NDArray[np.int64]:
    """Ascending positions, of `count`, that a checked condition holds for."""
    return _Plan(column, count).positions(condition)


class _Plan:
    """One filter being answered; each test is looked up in its column once."""

    def __init__(self, column: Callable[[str], SortedColumn], count: int) -> None:
        self._column = column
        self._count = count
        self._hits: dict[int, NDArray[np.bool_]] = {}
        self._own: list[Test] = []

    def positions(self, condition: Condition) -> NDArray[np.int64]:
        if isinstance(condition, Or):
            return self._either(condition.parts)
        if not isinstance(condition, And):
            return self._column(condition.column).positions(self._hit(condition))
        first, *others = sorted(self._merged(condition.parts), key=self._most)
        found = self.positions(first)
        for part in others:
            found = found[self._holds(part, found)]
        return found

    def _merged(self, parts: Sequence[Condition]) -> list[Condition]:
        """The parts of an `and` with all tests of one column as one: both ends of a range are looked up at once."""
        tests: dict[str, Test] = {}
        merged: list[Condition] = []
        for part in parts:
            if isinstance(part, And | Or):
                merged.append(part)
            elif part.column in tests:
                self._hits[id(tests[part.column])] &= self._hit(part)
            else:
                # A test of its own, which nothing else in the filter can be.
                tests[part.column] = one = copy(part)
                self._hits[id(one)] = self._hit(part).copy()
        self._own += tests.values()
        return merged + list(tests.values())

    def _either(self, parts: Sequence[Condition]) -> NDArray[np.int64]:
        found = [self.positions(part) for part in parts]
        if sum(map(len, found)) < _SMALL * self._count:
            return np.unique(np.concatenate(found))
        held = np.zeros(self._count, bool)
        for one in found:
            held[one] = True
        return np.flatnonzero(held)

    def _most(self, condition: Condition) -> int:
        """At most how many positions a condition holds for."""
        if isinstance(condition, And):
            return min(map(self._most, condition.parts))
        if isinstance(condition, Or):
            return min(self._count, sum(map(self._most, condition.parts)))
        return self._column(condition.column).count(self._hit(condition))

    def _holds(self, condition: Condition, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a condition holds at each of some positions."""
        if isinstance(condition, And | Or):
            join = np.logical_and if isinstance(condition, And) else np.logical_or
            held = self._holds(condition.parts[0], places)
            for part in condition.parts[1:]:
                held = join(held, self._holds(part, places))
            return held
        return self._hit(condition)[self._column(condition.column).codes[places]]

    def _hit(self, test: Test) -> NDArray[np.bool_]:
        if id(test) not in self._hits:
            self._hits[id(test)] = self._column(test.column).hits(test)
        return self._hits[id(test)]


def _different(values: Sequence[Any]) -> tuple[Sequence[Any], NDArray[np.int64]]:
    """The different values, ascending, and each value's place among them."""
    first: dict[Any, int] = {}
    numbers = np.fromiter((first.setdefault(value, len(first)) for value in values), np.int64, len(values))
    ascending = sorted(first)
    place = np.empty(len(first), np.int64)
    place[[first[value] for value in ascending]] = np.arange(len(first))
    return ascending, place[numbers] if len(values) else numbers
