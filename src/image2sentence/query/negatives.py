"""Scores of a query with negatives.

A picture loses as many of the query's spreads as it lies above the middle with what is not wanted, and nothing where it
lies below: z(q, v) - sum of max(0, z(u, v)) over the unwanted u, z being a score less its median, in robust spreads,
over the gallery. Subtracting the whole of z(u, v) keeps unwanted pictures away as well, but also draws in whatever is
least like them, wanted or not (docs/method.md, "Negatives").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery.search.base import Hit
from image2sentence.query.score_statistics import ScoreStatistics

POOL = 1_000
"""Candidates that compete with each other once the unwanted is taken off."""

_NEGATIVE_SHARE = 0.5


class NegativeQuery:
    """What one query should not find.

    Args:
        query: (1, d) float32 query vector.
        vectors: Negative (1, d) float32 vectors, at least one.
        statistics: Of the gallery; galleries in which all pictures score the same lose nothing.
    """

    def __init__(self, query: Vectors, vectors: Sequence[Vectors], statistics: ScoreStatistics) -> None:
        self._query = query[0]
        scale = statistics.scale_of(query)
        self._spread = scale.spread if scale else 0.0
        known = [(vector[0], statistics.scale_of(vector)) for vector in vectors]
        self._negatives = [(vector, scores) for vector, scores in known if scores is not None]

    @property
    def retrieval_vector(self) -> Vectors:
        """(1, d) float32: the query vector turned away from the unwanted, to fetch candidates with."""
        off = sum(vector * (self._spread / scores.spread) for vector, scores in self._negatives)
        turned = self._query - np.float32(_NEGATIVE_SHARE) * off
        return np.asarray(turned[None] / np.linalg.norm(turned), np.float32)

    def scores(self, vectors: Vectors) -> NDArray[np.float64]:
        """(n,) scores of (n, d) float32 vectors, less what is taken off them."""
        scores: NDArray[np.float64] = vectors.astype(np.float64) @ self._query
        for vector, scale in self._negatives:
            above = (vectors @ vector - scale.median) / scale.spread
            scores -= self._spread * np.maximum(0, above)
        return scores

    def rescore(self, hits: Sequence[Hit], vectors: Vectors) -> list[Hit]:
        """Hits with what is left of their scores, best first in each block of `POOL`.

        Args:
            hits: In the order in which they were fetched.
            vectors: (n, d) float32, theirs.
        """
        scores = self.scores(vectors)
        order = np.lexsort((-scores, np.arange(len(scores)) // POOL))
        return [Hit(hits[row].id, float(scores[row])) for row in order.tolist()]
