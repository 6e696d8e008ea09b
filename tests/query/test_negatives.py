"""What is taken off scores for what is not wanted, against its formula."""

from __future__ import annotations

import numpy as np
import pytest

from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery.search.base import Hit
from image2sentence.gallery.search.searcher import Searcher
from image2sentence.query import negatives
from image2sentence.query.negatives import NegativeQuery
from image2sentence.query.score_statistics import ScoreStatistics

COUNT, WIDTH = 40, 6


def unit_rows(count: int, seed: int) -> Vectors:
    rows = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


GALLERY = unit_rows(COUNT, 1)
QUERY, *UNWANTED = unit_rows(3, 2)[:, None]


def middle_and_spread(vector: Vectors) -> tuple[float, float]:
    scores = GALLERY @ vector[0]
    middle = float(np.median(scores))
    return middle, 1.4826 * float(np.median(np.abs(scores - middle)))


@pytest.fixture
def negative() -> NegativeQuery:
    return NegativeQuery(QUERY, UNWANTED, ScoreStatistics(Searcher(np.arange(COUNT), GALLERY)))


def test_a_picture_loses_the_spreads_it_lies_above_the_middle_of_each_unwanted(
    negative: NegativeQuery,
) -> None:
    expected = GALLERY.astype(np.float64) @ QUERY[0]
    _, spread = middle_and_spread(QUERY)
    for unwanted in UNWANTED:
        middle, own = middle_and_spread(unwanted)
        expected -= spread * np.maximum(0, (GALLERY @ unwanted[0] - middle) / own)
    np.testing.assert_allclose(negative.scores(GALLERY), expected, atol=1e-6)


def test_candidates_are_fetched_half_turned_away_from_the_unwanted(negative: NegativeQuery) -> None:
    _, spread = middle_and_spread(QUERY)
    turned = QUERY[0] - 0.5 * sum(one[0] * spread / middle_and_spread(one)[1] for one in UNWANTED)
    expected = turned / np.linalg.norm(turned)
    assert negative.retrieval_vector.shape == (1, WIDTH)
    assert negative.retrieval_vector.dtype == np.float32
    np.testing.assert_allclose(negative.retrieval_vector[0], expected, atol=1e-6)


def test_hits_compete_within_blocks_and_take_their_new_scores(
    negative: NegativeQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negatives, "POOL", 15)
    hits = [Hit(100 + row, 0.0) for row in range(COUNT)]
    rescored = negative.rescore(hits, GALLERY)
    scores = negative.scores(GALLERY).tolist()
    for start, end in ((0, 15), (15, 30), (30, 40)):
        expected = sorted(range(start, end), key=lambda row: -scores[row])
        assert [hit.id for hit in rescored[start:end]] == [100 + row for row in expected]
        assert [hit.score for hit in rescored[start:end]] == [scores[row] for row in expected]


def test_where_all_pictures_score_the_same_nothing_is_taken_off() -> None:
    alike = np.repeat(GALLERY[:1], COUNT, axis=0)
    none = NegativeQuery(QUERY, UNWANTED, ScoreStatistics(Searcher(np.arange(COUNT), alike)))
    np.testing.assert_allclose(none.scores(alike), alike @ QUERY[0], atol=1e-6)
    np.testing.assert_allclose(none.retrieval_vector, QUERY, atol=1e-6)
