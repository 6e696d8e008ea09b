"""Every metric against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from image2sentence.errors import ConfigError, DataError
from image2sentence.evaluation import metrics
from image2sentence.evaluation.metrics import (
    Interval,
    Scores,
    average_precision_at,
    bootstrap_interval,
    by_aspect,
    coverage_at,
    mean_of_means,
    paired_difference,
    ranks_of_first,
    recall_at,
)


def test_recall_counts_ranks_up_to_and_including_k():
    ranks = [1, 5, 6, np.inf]
    assert recall_at(ranks, 1).tolist() == [1, 0, 0, 0]
    assert recall_at(ranks, 5).tolist() == [1, 1, 0, 0]
    assert recall_at(ranks, 6).tolist() == [1, 1, 1, 0]


def test_average_precision_divides_by_the_smaller_of_answers_and_k():
    # Right answers at places 1, 3 and 4 of 5 in all: precisions 1/1, 2/3, 3/4.
    relevant = [[True, False, True, True]]
    assert average_precision_at(relevant, [5], 3)[0] == pytest.approx((1 + 2 / 3) / 3)
    assert average_precision_at(relevant, [5], 4)[0] == pytest.approx((1 + 2 / 3 + 3 / 4) / 4)
    assert average_precision_at(relevant, [5], 10)[0] == pytest.approx((1 + 2 / 3 + 3 / 4) / 5)


def test_average_precision_of_a_perfect_and_of_an_empty_ranking():
    assert average_precision_at([[True, True, False]], [2], 10)[0] == 1.0
    assert average_precision_at([[False, False, False]], [2], 10)[0] == 0.0
    assert average_precision_at([[False]], [0], 10)[0] == 0.0


def test_average_precision_of_one_late_answer_is_its_reciprocal_rank():
    assert average_precision_at([[False, False, True]], [1], 5)[0] == pytest.approx(1 / 3)


def test_coverage_is_the_share_of_all_right_answers():
    relevant = [[True, False, True], [False, False, False]]
    assert coverage_at(relevant, [4, 0], 2).tolist() == [0.25, 0.0]
    assert coverage_at(relevant, [4, 0], 3).tolist() == [0.5, 0.0]


def test_rank_of_the_best_placed_answer():
    assert ranks_of_first([[False, True, True], [False, False, False]]).tolist() == [2.0, np.inf]
    assert ranks_of_first(np.zeros((2, 0), dtype=bool)).tolist() == [np.inf, np.inf]


def test_a_query_counts_in_every_aspect_it_carries():
    split = by_aspect(np.array([1.0, 0.0, 0.5]), [["negation"], ["negation", "addition"], []])
    assert {name: values.tolist() for name, values in split.items()} == {
        "addition": [0.0],
        "negation": [1.0, 0.0],
    }


def test_scores_are_means_in_percent():
    scores = Scores({"recall@1": np.array([1.0, 0.0, 0.0, 0.0])})
    assert scores.percent() == {"recall@1": 25.0}
    interval = scores.intervals()["recall@1"]
    assert interval.low < interval.mean == 25.0 < interval.high


def test_bootstrap_interval_is_close_to_the_normal_approximation():
    values = np.repeat([0.0, 1.0], 500)
    interval = bootstrap_interval(values, samples=4000, seed=3)
    half = 1.96 * 0.5 / np.sqrt(1000)
    assert interval.mean == 0.5
    assert interval.low == pytest.approx(0.5 - half, abs=0.004)
    assert interval.high == pytest.approx(0.5 + half, abs=0.004)


def test_bootstrap_is_seeded_and_a_higher_level_is_wider():
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values, seed=5) == bootstrap_interval(values, seed=5)
    wide, narrow = bootstrap_interval(values, level=0.99), bootstrap_interval(values, level=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_a_constant_difference_is_certain_however_noisy_the_queries():
    a = np.random.default_rng(1).random(40) * 100
    difference = paired_difference(a + 1, a)
    assert difference.low == pytest.approx(1.0)
    assert difference.high == pytest.approx(1.0)
    assert difference.p == pytest.approx(2 / 2001)


def test_a_difference_counts_alike_in_either_direction():
    values = np.random.default_rng(3).normal(0.1, 1.0, 200)
    forward, backward = paired_difference(values, 0 * values), paired_difference(0 * values, values)
    assert backward.p == forward.p < 1.0
    assert paired_difference(values, values + 1).p == pytest.approx(2 / 2001)


def test_the_mean_of_means_weighs_parts_alike_and_draws_each_on_its_own():
    assert mean_of_means([[1.0] * 8, [4.0], [4.0, 4.0]]) == Interval(3.0, 3.0, 3.0)
    part = np.repeat([0.0, 1.0], 200)
    alone = bootstrap_interval(part, samples=4_000)
    for parts in (2, 4):
        together = mean_of_means([part] * parts, samples=4_000, seed=1)
        narrower = (alone.high - alone.low) / (together.high - together.low)
        assert narrower == pytest.approx(np.sqrt(parts), rel=0.06)
    assert mean_of_means([part], 0.9, 50, seed=3) == bootstrap_interval(part, 0.9, 50, seed=3)


def test_runs_that_do_not_differ_have_p_one():
    a = np.random.default_rng(2).random(40)
    assert paired_difference(a, a).p == 1.0
    mirrored = paired_difference([0, 1] * 50, [1, 0] * 50)
    assert mirrored.low < 0 < mirrored.high
    assert mirrored.p > 0.5


def test_the_direction_of_a_difference_is_first_minus_second():
    assert paired_difference([1.0, 1.0, 0.0], [0.0, 0.0, 0.0]).mean == pytest.approx(2 / 3)


@pytest.mark.parametrize("values", [[], [[1.0]], [np.nan]])
def test_values_that_are_no_values_are_refused(values):
    with pytest.raises(DataError, match="one finite value per query"):
        bootstrap_interval(values)


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="k must be at least 1"):
        recall_at([1], 0)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        bootstrap_interval([1.0], level=1.0)
    with pytest.raises(ConfigError, match="samples"):
        bootstrap_interval([1.0], samples=0)
    with pytest.raises(DataError, match="same queries"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="queries, places"):
        average_precision_at([True, False], [1, 1], 5)
    with pytest.raises(DataError, match="one list of aspects per query"):
        by_aspect(np.array([1.0]), [])


def test_coverage_of_a_single_answer_is_whole():
    assert coverage_at([[False, True], [True, False]], [1, 0], 2).tolist() == [1.0, 1.0]


def test_resampling_in_blocks_is_resampling_at_once(monkeypatch):
    data = np.random.default_rng(1).normal(size=20)
    at_once = [bootstrap_interval(data, samples=count) for count in (1, 2, 3, 51)]
    monkeypatch.setattr(metrics, "BOOTSTRAP_BLOCK", 140)  # seven resamples a block
    assert [bootstrap_interval(data, samples=count) for count in (1, 2, 3, 51)] == at_once
    monkeypatch.setattr(metrics, "BOOTSTRAP_BLOCK", 1)
    assert [bootstrap_interval(data, samples=count) for count in (1, 2, 3, 51)] == at_once


def test_resampled_means_are_as_many_as_asked_for():
    # One resample has one mean, which is both ends; p of a difference that never turns is 2 / (samples + 1).
    interval = bootstrap_interval([1.0, 2.0, 5.0], samples=1, seed=3)
    assert interval.low == interval.high
    for samples in (7, 8, 99, 2_000):
        p = paired_difference([2.0, 3.0, 4.0], [1.0, 1.0, 1.0], samples=samples).p
        assert p == pytest.approx(2 / (samples + 1))


@pytest.mark.parametrize("level", [-0.5, 0.0, 1.0, 1.5])
def test_a_level_that_is_no_share_is_refused(level):
    with pytest.raises(ConfigError, match="lies between 0 and 1"):
        bootstrap_interval([1.0, 2.0], level=level)


@pytest.mark.parametrize("relevant", [[True, False], [[[True]]]])
def test_relevance_of_another_shape_is_refused(relevant):
    with pytest.raises(DataError, match=r"expected relevance as \(queries, places\)"):
        coverage_at(relevant, [1], 1)
