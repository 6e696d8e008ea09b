"""What a query usually scores in a gallery, so that a score can be told from chance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from image2sentence.encoders.base import Vectors
from image2sentence.gallery.searcher import VectorSearch

SAMPLE = 4_096
LEAST = 30
"""Fewer pictures than this say nothing of what is usual."""

_NORMAL = 1.4826  # the deviation of a normal distribution in median absolute deviations
_SEED = 0


class Usual(NamedTuple):
    """The middle and the spread of one query's scores over a gallery."""

    middle: float
    spread: float


class Background:
    """A fixed sample of a gallery's vectors.

    Args:
        searcher: Of the gallery; up to `SAMPLE` of its pictures are drawn, always the same.
    """

    def __init__(self, searcher: VectorSearch) -> None:
        ids = searcher.ids
        draw = np.random.default_rng(_SEED).permutation(len(ids))[:SAMPLE]
        self.vectors: Vectors = searcher.vectors_of([ids[place] for place in np.sort(draw).tolist()])

    def usual(self, query: Vectors) -> Usual | None:
        """Median and spread of the scores of a (1, d) query; None where the gallery is too small or all score equal.

        The spread is the median absolute deviation times 1.4826, which equals the standard deviation for normally
        distributed scores and is not moved by the few pictures that are right (Huber, Robust Statistics, section 5.1).
        """
        if len(self.vectors) < LEAST:
            return None
        scores = self.vectors @ query[0]
        middle = float(np.median(scores))
        spread = _NORMAL * float(np.median(np.abs(scores - middle)))
        return Usual(middle, spread) if spread > 0 else None
