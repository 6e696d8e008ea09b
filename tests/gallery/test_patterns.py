"""Patterns of `like`: what they match, and that matching takes linear time."""

from __future__ import annotations

import os
import random
import re
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from image2sentence.errors import QueryError
from image2sentence.gallery.filters import in_memory
from image2sentence.gallery.filters.in_memory import ColumnCache, SortedColumn, check_cost, check_count
from image2sentence.gallery.filters.language import Pattern
from image2sentence.gallery.filters.patterns import LikePattern
from image2sentence.gallery.filters.sql import as_glob

PATTERNS = int(os.environ.get("I2S_PATTERNS", "20000"))
"""Random patterns that are compared; the long form of this test takes 200,000."""


def by_regular_expression(pattern: str, text: str) -> bool:
    """What a pattern means, by an expression that may take exponential time."""
    pieces = re.findall(r"\\.|.", pattern, re.DOTALL)
    parts = {"%": ".*", "_": "."}
    expression = "".join(parts.get(piece, re.escape(piece[-1])) for piece in pieces)
    return re.fullmatch(expression, text, re.DOTALL) is not None


def test_random_patterns_match_as_a_regular_expression_and_sqlite_do() -> None:
    draw = random.Random(5)
    database = sqlite3.connect(":memory:")
    matched = 0
    for _ in range(PATTERNS):
        pattern = "".join(draw.choices("ab%_\\*[é\n", [6, 6, 5, 2, 1, 1, 1, 1, 1], k=draw.randrange(9)))
        text = "".join(draw.choices("ab*[%_é\n", [6, 6, 1, 1, 1, 1, 1, 1], k=draw.randrange(11)))
        expected = by_regular_expression(pattern, text)
        assert LikePattern(pattern).matches(text) == expected, (pattern, text)
        assert LikePattern(pattern).matching([text]) == [expected], (pattern, text)
        found = database.execute("SELECT ? GLOB ?", (text, as_glob(Pattern("c", pattern)))).fetchone()[0]
        assert bool(found) == expected, (pattern, text)
        matched += expected
    assert matched > PATTERNS / 20


@pytest.mark.parametrize("pattern", ["%a" * 200 + "%b", "%a_" * 200 + "b", "a%" * 2_000 + "b"])
def test_many_wildcards_in_a_long_text_are_answered(pattern: str) -> None:
    assert not LikePattern(pattern).matches("a" * 10_000)
    assert LikePattern(pattern).matches("a" * 10_000 + "b")


def column(values: list[Any]) -> SortedColumn:
    return SortedColumn.of(np.arange(len(values)), values, len(values))


def test_a_filter_that_compares_too_much_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = column([f"text {number}" for number in range(100)])
    patterns = [Pattern("c", f"%{number}%") for number in range(4)]
    check_cost(patterns, lambda name: texts)
    monkeypatch.setattr(in_memory, "MAX_PATTERN_TESTS", 399)
    with pytest.raises(
        QueryError, match=r"its 4 `like` and `contains` would be compared with 400 texts \(399"
    ):
        check_cost(patterns, lambda name: texts)


def test_characters_that_may_be_compared_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = column(["abc" * 100, "abd" * 100])
    assert LikePattern("%a_c%").cost == 4
    monkeypatch.setattr(in_memory, "MAX_PATTERN_CHARACTERS", 2_399)
    check_cost([Pattern("c", "%abc%")], lambda name: texts)
    with pytest.raises(QueryError, match="2,400 characters"):
        check_cost([Pattern("c", "%a_c%")], lambda name: texts)


def test_a_pattern_counts_once_for_each_piece_between_its_wildcards() -> None:
    patterns = ("a", "a%", "%a%", "%a%b%", "%a%b%c", "a%b%c%")
    assert [LikePattern(one).searches for one in patterns] == [1, 1, 1, 2, 2, 2]


def test_a_filter_of_too_many_tests_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_memory, "MAX_VALUES", 1_000)
    check_count(10, 100)
    with pytest.raises(QueryError, match=r"with 11 tests of 100 pictures it would look at 1,100 values"):
        check_count(11, 100)


def test_a_filter_that_is_asked_again_is_not_computed_again() -> None:
    titles = {"generation": 1, "read": 0}

    class Columns:
        def generation(self) -> int:
            return titles["generation"]

        def columns(self) -> dict[str, str]:
            return {"title": "text"}

        def column(self, name: str) -> tuple[np.ndarray[Any, Any], list[str]]:
            titles["read"] += 1
            return np.array([1, 2]), ["red", "blue"] if titles["generation"] == 1 else ["red", "red"]

    cache = ColumnCache(Columns(), np.array([1, 2]))  # type: ignore[arg-type]
    first = cache.select("title like 'r%'")
    assert cache.select("title like 'r%'") is first
    for number in range(4):
        cache.select(f"title like '{number}%'")
    assert cache.select("title like 'r%'") is not first
    titles["generation"] = 2
    assert cache.select("title like 'r%'").tolist() == [1, 2]
    assert titles["read"] == 2


def test_the_first_filter_of_a_gallery_is_bounded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Columns:
        def generation(self) -> int:
            return 1

        def columns(self) -> dict[str, str]:
            return {"title": "text"}

        def column(self, name: str) -> tuple[np.ndarray[Any, Any], list[str]]:
            return np.array([1, 2]), ["a" * 5_000, "a" * 5_000 + "b"]

        def select(self, where: object) -> None:
            raise AssertionError("patterns are not given to SQLite")

    cache = ColumnCache(Columns(), np.array([1, 2]))  # type: ignore[arg-type]
    assert cache.select("title like '" + "%a" * 8 + "%b'").tolist() == [2]


def test_a_filter_that_takes_too_long_in_sqlite_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    from image2sentence.gallery.sqlite import gallery

    monkeypatch.setattr(gallery, "MAX_SELECT_SECONDS", 0.05)
    database = sqlite3.connect(":memory:")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(QueryError, match=r"took longer than 0\.05 s"), gallery._deadline(database):
        database.execute(endless).fetchone()
    assert database.execute("SELECT 1").fetchone() == (1,)
