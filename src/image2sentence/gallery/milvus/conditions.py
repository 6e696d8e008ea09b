"""Filters as expressions of Milvus, over metadata fields and stored facts.

Paths lie in the database below their root and escaped, so tests of `path`, `folder` and `name` are answered here, from
all rows, and go to the database as ids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from image2sentence.errors import QueryError
from image2sentence.gallery.facts import TAKEN, folder_of, name_of, nanoseconds, path_of
from image2sentence.gallery.filters.in_memory import SortedColumn, check_cost, tests_of
from image2sentence.gallery.filters.language import (
    FACTS,
    ColumnType,
    Comparison,
    Filter,
    Membership,
    Missing,
    Operator,
    Pattern,
    Test,
    Value,
    as_filter,
)
from image2sentence.gallery.filters.milvus import any_of, compile_filter
from image2sentence.gallery.locations import Place
from image2sentence.gallery.milvus.layout import read_path

MAX_PATHS = 1_000_000
"""Pictures whose paths are compared for one filter."""

_ALWAYS, _NEVER = "id >= 0", "id < 0"
_MAX_INTEGER = 2**63 - 1
_UNSEEN = -1

Rows = Callable[[str, Sequence[str]], Iterable[Mapping[str, Any]]]
"""Rows of the pictures' collection, by condition and fields."""


def condition_of(
    where: str | Filter, columns: Mapping[str, ColumnType], roots: Mapping[int, Place], rows: Rows
) -> str:
    """A filter as a boolean expression. Raises QueryError, also where too many paths would be compared."""
    checked = as_filter(where).checked(columns).condition
    texts = [test for test in tests_of(checked) if FACTS.get(test.column) == "text"]
    paths = _Paths(roots, rows, texts)

    def of_fact(test: Test) -> str:
        if FACTS[test.column] == "text":
            return paths.expression(test)
        return _date(test, columns, roots) if test.column == "@date" else _number(test)

    return compile_filter(checked, of_fact)


class _Paths:
    """Tests of paths, answered from all rows where there is such a test."""

    def __init__(self, roots: Mapping[int, Place], rows: Rows, tests: Sequence[Test]) -> None:
        self._columns: dict[str, SortedColumn] = {}
        self._ids: list[int] = []
        if not tests:
            return
        places: list[tuple[int, int, str]] = []
        for row in rows("", ("id", "root", "path")):
            places.append((int(row["id"]), int(row["root"]), read_path(row["path"])))
            if len(places) > MAX_PATHS:
                raise QueryError(
                    f"path, folder and name can be asked for in galleries in Milvus of up to {MAX_PATHS:,} pictures: "
                    "use a metadata column"
                )
        self._ids = [number for number, _, _ in places]
        everywhere = np.arange(len(places), dtype=np.int64)
        read: dict[str, Callable[[int, str], str]] = {
            "@path": lambda root, path: path_of(roots[root], path),
            "@folder": lambda root, path: folder_of(path),
            "@name": lambda root, path: name_of(roots[root], path),
        }
        for name in {test.column for test in tests}:
            values = [read[name](root, path) for _, root, path in places]
            self._columns[name] = SortedColumn.of(everywhere, values, len(places))
        check_cost([test for test in tests if isinstance(test, Pattern)], self._columns.__getitem__)

    def expression(self, test: Test) -> str:
        """The pictures that a test holds for, by their ids."""
        column = self._columns[test.column]
        found = [self._ids[place] for place in column.positions(column.hits(test)).tolist()]
        if len(found) == len(self._ids):
            return _ALWAYS
        return any_of("id", found) if found else _NEVER


def _number(test: Test) -> str:
    """A test of `size`, `width` or `height`, which are whole numbers in fields of their own."""
    field = test.column[1:]
    known = f"{field} >= 0"
    if isinstance(test, Missing):
        return known if test.negated else f"{field} < 0"
    if isinstance(test, Comparison):
        return f"({known} and {_compared(field, test.operator, test.value)})"
    assert isinstance(test, Membership)
    operator: Operator = "!=" if test.negated else "="
    word = " and " if test.negated else " or "
    tests = word.join(_compared(field, operator, value) for value in test.values)
    return f"({known} and ({tests}))"


def _compared(field: str, operator: Operator, value: Value) -> str:
    """`field operator value` with a whole number as value."""
    assert not isinstance(value, str)
    if abs(value) > _MAX_INTEGER or (value != int(value) and operator in ("=", "!=")):
        above = operator in ("<", "<=") if value > 0 else operator in (">", ">=")
        return _ALWAYS if above or operator == "!=" else _NEVER
    # Between two whole numbers, `<` and `>=` begin at the one above, `<=` and `>` at the one below.
    whole = math.ceil(value) if operator in ("<", ">=") else math.floor(value)
    return f"{field} {'==' if operator == '=' else operator} {whole}"


def _date(test: Test, columns: Mapping[str, ColumnType], roots: Mapping[int, Place]) -> str:
    """A test of `date`: of the column `taken` where it has a value, else of the modification time."""
    local = [number for number, place in roots.items() if isinstance(place, Path)]
    stamped = f"({any_of('root', local)} and mtime_ns != {_UNSEEN})" if local else _NEVER
    present = "" if columns.get(TAKEN) != "date" else compile_filter(Missing(TAKEN, True))
    if isinstance(test, Missing):
        known = f"({present} or {stamped})" if present else stamped
        return known if test.negated else f"(not {known})"
    assert isinstance(test, Comparison)
    assert isinstance(test.value, str)
    by_file = f"({stamped} and {_compared('mtime_ns', test.operator, nanoseconds(test.value))})"
    if not present:
        return by_file
    taken = compile_filter(Comparison(TAKEN, test.operator, test.value))
    return f"(({present} and {taken}) or ((not ({present})) and {by_file}))"
