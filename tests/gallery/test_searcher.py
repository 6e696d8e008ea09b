"""The Searcher: exact, in a stated order, and strict about what it is given."""

from __future__ import annotations

import numpy as np
import pytest

from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import DataError, QueryError
from image2sentence.gallery.search import searcher as module
from image2sentence.gallery.search.base import Hit
from image2sentence.gallery.search.searcher import Searcher


def unit_rows(count: int, width: int, seed: int) -> Vectors:
    rows = np.random.default_rng(seed).standard_normal((count, width))
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def slow_search(
    vectors: Vectors, query: Vectors, k: int, exclude: set[int], among: set[int] | None
) -> list[tuple[int, float]]:
    """The ranking by definition, one exact dot product at a time."""
    scores = [sum(float(a) * float(b) for a, b in zip(row, query, strict=True)) for row in vectors]
    allowed = [i for i in range(len(vectors)) if i not in exclude and (among is None or i in among)]
    return [(i, scores[i]) for i in sorted(allowed, key=lambda i: -scores[i])[:k]]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_ROWS", 17)
    monkeypatch.setattr(module, "_BLOCK_QUERIES", 3)
    monkeypatch.setattr(module, "_RANKED_ROWS", 5)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("k", [1, 2, 10, 16, 17, 18, 99, 100, 1000])
def test_equals_the_definition_across_blocks(k: int) -> None:
    vectors, queries = unit_rows(100, 8, 1), unit_rows(7, 8, 2)
    rng = np.random.default_rng(3)
    exclude = [set(rng.choice(100, size, replace=False).tolist()) for size in (0, 1, 5, 50, 99, 100, 3)]
    among = [set(rng.choice(100, size, replace=False).tolist()) for size in (100, 6, 1, 0, 40, 20, 5)]
    searcher = Searcher(range(100), vectors)
    for out, only in ((None, None), (exclude, None), (None, among), (exclude, among)):
        found = searcher.search(queries, k, exclude=out, among=only)
        for number, hits in enumerate(found):
            out_here, only_here = out[number] if out else set(), only[number] if only else None
            expected = slow_search(vectors, queries[number], k, out_here, only_here)
            assert [hit.id for hit in hits] == [i for i, _ in expected]
            assert [hit.score for hit in hits] == pytest.approx([s for _, s in expected], abs=1e-12)


@pytest.mark.usefixtures("small_blocks")
def test_equal_vectors_score_equal_and_rank_in_gallery_order() -> None:
    few = unit_rows(4, 33, 5)
    vectors = few[np.arange(90) % 4]
    searcher = Searcher([f"p{i}" for i in range(90)], vectors)
    for query in unit_rows(5, 33, 6):
        for k in (1, 5, 23, 90):
            hits = searcher.search(query[None], k)[0]
            order = np.argsort(-(few.astype(np.float64) @ query), kind="stable")
            expected = [i for group in order for i in range(90) if i % 4 == group][:k]
            assert [hit.id for hit in hits] == [f"p{i}" for i in expected]
            assert len({hit.score for hit in hits}) == len({i % 4 for i in expected})


def test_a_result_does_not_depend_on_the_other_queries_or_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = unit_rows(500, 64, 7), unit_rows(70, 64, 8)
    searcher = Searcher(range(500), vectors)
    together = searcher.search(queries, 20)
    alone = [searcher.search(query[None], 20)[0] for query in queries]
    among = searcher.search(queries, 20, among=[range(500)] * 70)
    monkeypatch.setattr(module, "_BLOCK_ROWS", 30)
    assert together == alone == among == searcher.search(queries, 20)


def test_scores_of_all_are_given_where_all_were_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = unit_rows(80, 16, 1), unit_rows(3, 16, 2)
    searcher = Searcher(range(80), vectors)
    hits, scores = searcher.search_scored(
        queries, 5, exclude=[[], [4, 7], []], among=[range(80), range(80), [1]]
    )
    assert hits == searcher.search(queries, 5, exclude=[[], [4, 7], []], among=[range(80), range(80), [1]])
    assert scores[2] is None
    for query, row, out in zip(queries[:2], scores[:2], ([], [4, 7]), strict=True):
        assert row is not None
        assert np.flatnonzero(row == -np.inf).tolist() == out
        expected = vectors @ query
        expected[out] = -np.inf
        np.testing.assert_allclose(row, expected, atol=1e-6)
    monkeypatch.setattr(module, "_BLOCK_ROWS", 30)
    assert searcher.search_scored(queries, 5)[1] == [None] * 3


def test_ids_of_any_kind_come_back_best_first() -> None:
    searcher = Searcher(["red", ("b", 2), 3], np.eye(3, dtype=np.float32))
    queries = np.array([[0.1, 0.9, 0.3]], np.float32)
    hits = searcher.search(queries, 10)[0]
    assert [hit.id for hit in hits] == [("b", 2), 3, "red"]
    assert hits[0] == Hit(("b", 2), float(np.float32(0.9)))
    assert searcher.search(queries, 1, exclude=[[("b", 2)]])[0][0].id == 3
    assert searcher.search(queries, 3, among=[["red", 3]], exclude=[[3]])[0][0].id == "red"


def test_an_empty_gallery_and_no_queries_give_nothing() -> None:
    empty = Searcher([], np.empty((0, 4), np.float32))
    assert len(empty) == 0
    assert empty.search(unit_rows(2, 4, 0), 5) == [[], []]
    assert Searcher([1], unit_rows(1, 4, 0)).search(np.empty((0, 4), np.float32), 5) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(bad: float) -> None:
    vectors = unit_rows(5, 4, 0)
    searcher = Searcher(list("abcde"), vectors.copy())
    queries = unit_rows(3, 4, 1)
    queries[1, 2] = bad
    with pytest.raises(QueryError, match="query 1 holds a value that is not finite"):
        searcher.search(queries, 1)
    vectors[3, 0] = bad
    with pytest.raises(DataError, match="id 'd' holds a value that is not finite"):
        Searcher(list("abcde"), vectors)


def test_wrong_galleries_are_refused() -> None:
    with pytest.raises(DataError, match="id 'b' is given twice"):
        Searcher(["a", "b", "b"], unit_rows(3, 4, 0))
    with pytest.raises(DataError, match=r"shape \(2, d\).*got float32 of shape \(3, 4\)"):
        Searcher(["a", "b"], unit_rows(3, 4, 0))
    with pytest.raises(DataError, match="float64"):
        Searcher(["a"], np.eye(1))  # type: ignore[arg-type]


def test_wrong_queries_are_refused() -> None:
    searcher = Searcher(["a", "b"], unit_rows(2, 4, 0))
    query = unit_rows(1, 4, 1)
    with pytest.raises(QueryError, match=r"\(q, 4\), got float32 of shape \(1, 5\)"):
        searcher.search(unit_rows(1, 5, 1), 1)
    with pytest.raises(QueryError, match="at least 1, got 0"):
        searcher.search(query, 0)
    with pytest.raises(QueryError, match="`exclude` of query 0: id 'z' is not in the gallery"):
        searcher.search(query, 1, exclude=[["a", "z"]])
    with pytest.raises(QueryError, match="`among` of query 0: id 'y'"):
        searcher.search(query, 1, among=[["y"]])
    with pytest.raises(QueryError, match="`among` needs one collection of ids per query: 1, got 2"):
        searcher.search(query, 1, among=[["a"], ["b"]])
