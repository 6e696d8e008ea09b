"""Hiding of near-duplicates and diversification of results.

Whatever is done to the order of score depends on the candidates before a place, or on those of its block, and never on
how many results were asked for. So the pages of a query fit together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors

BLOCK = 200
"""Results are spread out within this many."""

_ROUNDING = 1e-6


def hide_near_duplicates(vectors: Vectors, similarity: float) -> dict[int, list[int]]:
    """Keep what is not too similar to what was kept before it.

    Args:
        vectors: (n, d) float32 unit rows, best first.
        similarity: The dot product from which a row is a near-duplicate of another.

    Returns:
        For each row that is kept, in order, the rows hidden behind it: each behind the kept row it is most similar to.
    """
    rows: list[int] = []
    behind: list[list[int]] = []
    kept = np.empty_like(vectors)
    for row, vector in enumerate(vectors):
        similar = kept[: len(rows)] @ vector
        if len(rows) and similar.max() >= similarity - _ROUNDING:
            behind[int(similar.argmax())].append(row)
        else:
            kept[len(rows)] = vector
            rows.append(row)
            behind.append([])
    return dict(zip(rows, behind, strict=True))


def spread_out(
    vectors: Vectors, relevance: Sequence[float], diversity: float, count: int
) -> NDArray[np.int64]:
    """The first `count` rows in order of maximal marginal relevance.

    The next row is the one with the greatest (1 - diversity) * relevance - diversity * similarity, similarity being
    its largest dot product with a row chosen before (Carbonell and Goldstein, "The use of MMR", SIGIR 1998). It is
    applied to one block of `BLOCK` rows after the other.
    """
    order: list[int] = []
    for start in range(0, min(count, len(vectors)), BLOCK):
        block = slice(start, start + BLOCK)
        chosen = _block_order(
            vectors[block], np.asarray(relevance[block], np.float64), diversity, count - start
        )
        order += [start + row for row in chosen]
    return np.array(order[:count], np.int64)


def _block_order(vectors: Vectors, relevance: NDArray[np.float64], diversity: float, count: int) -> list[int]:
    order: list[int] = []
    similarity = np.full(len(vectors), -1.0)
    left = np.ones(len(vectors), bool)
    while len(order) < min(count, len(vectors)):
        gain = (1 - diversity) * relevance - (diversity * similarity if order else 0)
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        order.append(best)
        left[best] = False
        similarity = np.maximum(similarity, vectors @ vectors[best])
    return order
