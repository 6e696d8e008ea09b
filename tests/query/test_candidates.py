"""Candidates are searched for together where their condition is the same, and no more often than is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery.filters.language import Filter
from image2sentence.gallery.search.base import Hit
from image2sentence.gallery.search.searcher import Searcher
from image2sentence.query.candidates import Candidates, fetch

SCORES = np.array([0.9, 0.7, 0.5, 0.3, 0.1], np.float32)
QUERY = np.ones((1, 1), np.float32)


class Counting(Searcher):
    """A searcher over scores, which keeps how many queries it was asked for at once, and with which condition."""

    def __init__(self) -> None:
        super().__init__(np.arange(1, 6), SCORES[:, None])
        self.asked: list[tuple[int, int, str | Filter | None]] = []

    def search_scored(
        self, queries: Vectors, k: int, *, where: str | Filter | None = None, **how: Any
    ) -> tuple[list[list[Hit]], list[Vectors | None]]:
        self.asked.append((len(queries), k, where))
        return super().search_scored(queries, k, **how)


def ids(hits: Sequence[Hit]) -> list[int]:
    return [hit.id for hit in hits]


def test_those_of_one_condition_are_searched_for_together() -> None:
    searcher = Counting()
    asked = [
        Candidates(QUERY, excluded, where) for excluded, where in (((), None), ((1,), "a"), ((2,), None))
    ]
    fetch(searcher, asked, 2)
    assert searcher.asked == [(2, 2, None), (1, 2, "a")]
    assert [ids(one.hits) for one in asked] == [[1, 2], [2, 3], [1, 3]]


def test_they_are_fetched_again_only_where_more_are_wanted_than_there_are() -> None:
    searcher = Counting()
    one = Candidates(QUERY, (), None)
    assert ids(one.best(searcher, 3)) == [1, 2, 3]
    assert not one.complete
    assert ids(one.best(searcher, 3)) == [1, 2, 3]
    assert ids(one.best(searcher, 2)) == [1, 2]
    assert searcher.asked == [(1, 3, None)]
    assert ids(one.best(searcher, 5)) == [1, 2, 3, 4, 5]
    assert not one.complete, "there may be a sixth"
    assert ids(one.best(searcher, 6)) == [1, 2, 3, 4, 5]
    assert one.complete
    one.best(searcher, 50)
    assert searcher.asked == [(1, 3, None), (1, 5, None), (1, 6, None)]
