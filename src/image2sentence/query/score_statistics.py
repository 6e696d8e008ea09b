"""Statistics of a gallery's scores, and the scale they give."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery.search.base import VectorSearch

SAMPLE = 2_048
PAIRED = 512
MIN_PICTURES = 10
"""Galleries of fewer pictures have no scale."""

_NORMAL = 1.4826  # the deviation of a normal distribution in median absolute deviations
_SEED = 0


class RobustScale(NamedTuple):
    """Median and spread of scores.

    The spread is the median absolute deviation times 1.4826, which equals the standard
    deviation for normally distributed scores and is not moved by the few pictures that are right (Huber, Robust
    Statistics, section 5.1).
    """

    median: float
    spread: float

    @classmethod
    def of(cls, scores: NDArray[np.float32]) -> RobustScale | None:
        """None where all scores are the same, or there are fewer than two."""
        if len(scores) < 2:
            return None
        median = float(np.median(scores))
        spread = _NORMAL * float(np.median(np.abs(scores - median))) or float(np.std(scores))
        return cls(median, spread) if spread > 0 else None


class ScoreStatistics:
    """A fixed sample of a gallery's vectors, drawn when it is first needed.

    Args:
        searcher: Of the gallery.
    """

    def __init__(self, searcher: VectorSearch) -> None:
        self._searcher = searcher

    @cached_property
    def vectors(self) -> Vectors:
        """(n, d) float32: up to `SAMPLE` pictures in random order, always the same."""
        ids = self._searcher.ids
        draw = np.random.default_rng(_SEED).permutation(len(ids))[:SAMPLE]
        return self._searcher.vectors_of([ids[place] for place in draw.tolist()])

    @cached_property
    def pair_scale(self) -> RobustScale | None:
        """What two pictures of the gallery score with each other; None in galleries too small to tell."""
        some = self.vectors[:PAIRED]
        if len(some) < MIN_PICTURES:
            return None
        return RobustScale.of((some @ some.T)[np.triu_indices(len(some), 1)])

    def scale_of(self, query: Vectors) -> RobustScale | None:
        """What the pictures of the gallery score with a (1, d) query."""
        return RobustScale.of(self.vectors @ query[0])
