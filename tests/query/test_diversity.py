"""Near-duplicates that are hidden, and results that are spread out, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from image2sentence.encoders.protocols import Vectors
from image2sentence.query import diversity
from image2sentence.query.diversity import hide_near_duplicates, spread_out


def at_angles(*degrees: float) -> Vectors:
    """Unit rows of the plane: the dot product of two is the cosine of the angle between them."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_a_near_duplicate_is_hidden_behind_the_kept_row_that_it_is_most_like() -> None:
    rows = at_angles(0, 50, 30, 20, 120)
    assert hide_near_duplicates(rows, np.cos(np.radians(40))) == {0: [3], 1: [2], 4: []}


def test_what_is_like_a_hidden_row_alone_is_kept() -> None:
    assert hide_near_duplicates(at_angles(0, 30, 60), np.cos(np.radians(40))) == {0: [1], 2: []}


@pytest.mark.parametrize(("similarity", "kept"), [(0.5, 1), (0.500002, 2), (-1.0, 1), (1.0, 2)])
def test_the_limit_itself_is_similar(similarity: float, kept: int) -> None:
    rows = np.array([[1, 0], [0.5, np.sqrt(0.75)]], np.float32)
    assert len(hide_near_duplicates(rows, similarity)) == kept


def test_nothing_is_hidden_of_nothing() -> None:
    assert hide_near_duplicates(np.empty((0, 4), np.float32), 0.5) == {}


def looped_order(rows: Vectors, relevance: list[float], weight: float, start: int, end: int) -> list[int]:
    """Maximal marginal relevance of the rows from `start` to `end`, by its definition."""
    left, order = list(range(start, end)), [start]
    left.remove(start)
    while left:
        gains = {
            row: (1 - weight) * relevance[row] - weight * max(float(rows[row] @ rows[one]) for one in order)
            for row in left
        }
        order.append(max(gains, key=lambda row: gains[row]))
        left.remove(order[-1])
    return order


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("count", [1, 5, 12, 13, 30, 40])
def test_rows_are_spread_out_by_marginal_relevance_block_by_block(
    weight: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diversity, "BLOCK", 12)
    draw = np.random.default_rng(4)
    rows = draw.normal(size=(30, 6)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    relevance = sorted(draw.random(30).tolist(), reverse=True)
    expected = [
        row
        for start, end in ((0, 12), (12, 24), (24, 30))
        for row in looped_order(rows, relevance, weight, start, end)
    ]
    assert spread_out(rows, relevance, weight, count).tolist() == expected[:count]


def test_without_diversity_the_order_is_that_of_relevance() -> None:
    rows = at_angles(0, 1, 2, 90)
    assert spread_out(rows, [0.9, 0.8, 0.7, 0.1], 0.0, 4).tolist() == [0, 1, 2, 3]
    assert spread_out(rows, [0.9, 0.8, 0.7, 0.1], 1.0, 4).tolist() == [0, 3, 2, 1]
