"""Median and spread of a gallery's scores, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery.search.searcher import Searcher
from image2sentence.query import score_statistics
from image2sentence.query.score_statistics import MIN_PICTURES, RobustScale, ScoreStatistics


def rows(count: int) -> Vectors:
    drawn = np.random.default_rng(3).normal(size=(count, 5)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def statistics(count: int) -> ScoreStatistics:
    return ScoreStatistics(Searcher(np.arange(count), rows(count)))


def test_the_spread_is_the_median_absolute_deviation_of_a_normal_distribution() -> None:
    assert RobustScale.of(np.array([1, 2, 4, 8, 900], np.float32)) == (4, pytest.approx(1.4826 * 3))
    assert RobustScale.of(np.array([1, 3], np.float32)) == (2, pytest.approx(1.4826))


def test_where_most_scores_are_the_same_it_is_their_standard_deviation() -> None:
    assert RobustScale.of(np.array([1, 1, 1, 5], np.float32)) == (1, pytest.approx(np.sqrt(3)))


@pytest.mark.parametrize("scores", [[], [1], [2, 2], [0.5] * 9])
def test_scores_without_a_difference_have_no_scale(scores: list[float]) -> None:
    assert RobustScale.of(np.array(scores, np.float32)) is None


def test_a_pair_s_scale_is_over_all_pairs_of_different_pictures() -> None:
    vectors = rows(12)
    pairs = [float(vectors[one] @ vectors[other]) for one in range(12) for other in range(one)]
    expected = RobustScale.of(np.array(pairs, np.float32))
    assert expected is not None
    assert statistics(12).pair_scale == pytest.approx(expected, abs=1e-6)


def test_a_gallery_of_ten_pictures_is_the_smallest_with_a_scale() -> None:
    assert MIN_PICTURES == 10
    assert statistics(10).pair_scale is not None
    assert statistics(9).pair_scale is None


def test_a_query_s_scale_is_over_the_pictures_scores() -> None:
    query = rows(1)
    assert statistics(20).scale_of(query) == pytest.approx(RobustScale.of(rows(20) @ query[0]), abs=1e-6)


def test_a_large_gallery_is_sampled_without_repeats_and_always_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_statistics, "SAMPLE", 30)
    monkeypatch.setattr(score_statistics, "PAIRED", 12)
    sampled = statistics(50)
    assert sampled.vectors.shape == (30, 5)
    assert len(np.unique(sampled.vectors, axis=0)) == 30
    assert np.array_equal(sampled.vectors, statistics(50).vectors)
    assert not np.array_equal(sampled.vectors, rows(50)[:30]), "the first ones are of one folder"
    pairs = (sampled.vectors[:12] @ sampled.vectors[:12].T)[np.triu_indices(12, 1)]
    assert sampled.pair_scale == pytest.approx(RobustScale.of(pairs), abs=1e-6)
