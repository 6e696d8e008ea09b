"""Candidates of a query, fetched as many as are needed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery.filters.language import Filter
from image2sentence.gallery.search.base import Hit, VectorSearch
from image2sentence.gallery.search.searcher import Searcher


class RankedHit(NamedTuple):
    """A hit in its place.

    Attributes:
        hit: Picture id and score.
        match: Probability that it belongs to the query, by the matching encoder; None where that was not asked, or
            its file cannot be read now.
        alike: Ids of near-duplicates hidden behind it.
    """

    hit: Hit
    match: float | None = None
    alike: tuple[int, ...] = ()


class Candidates:
    """Hits of one query, best first, fetched on demand.

    Args:
        vector: (1, d) float32 query.
        exclude: Ids that may not appear.
        where: Condition on the pictures' metadata.

    Attributes:
        scores: (n,) float32 scores of the whole gallery, where a search looked at all of it; see
            `Searcher.search_scored`.
    """

    def __init__(self, vector: Vectors, exclude: Collection[int], where: str | Filter | None) -> None:
        self.vector = vector
        self.exclude = exclude
        self.where = where
        self.complete = False
        self.hits: Sequence[Hit] = ()
        self.scores: Vectors | None = None

    def best(self, searcher: VectorSearch, count: int) -> Sequence[Hit]:
        """The best `count` hits; fewer where there are no more, and then `complete` is set."""
        if count > len(self.hits) and not self.complete:
            fetch(searcher, [self], count)
        return self.hits[:count]


def fetch(searcher: VectorSearch, candidates: Sequence[Candidates], count: int) -> None:
    """Give candidates their best `count` hits; those with the same condition are searched for together."""
    by_condition: dict[str | Filter | None, list[Candidates]] = defaultdict(list)
    for one in candidates:
        by_condition[one.where].append(one)
    for where, group in by_condition.items():
        vectors = np.concatenate([one.vector for one in group])
        exclude = [one.exclude for one in group]
        if isinstance(searcher, Searcher):
            found, scores = searcher.search_scored(vectors, count, exclude=exclude, where=where)
        else:
            found = searcher.search(vectors, count, exclude=exclude, where=where)
            scores = [None] * len(group)
        for one, hits, row in zip(group, found, scores, strict=True):
            one.hits, one.complete, one.scores = hits, len(hits) < count, row
