"""Ranking of given features by the `Searcher` that serves users."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import DataError
from image2sentence.evaluation.datasets.registry import load
from image2sentence.evaluation.metrics import (
    Scores,
    Values,
    average_precision_at,
    by_aspect,
    coverage_at,
    ranks_of_first,
    recall_at,
)
from image2sentence.evaluation.protocol import Benchmark, Query, named, plain_id, repeated
from image2sentence.gallery.search.searcher import Searcher

Rankings = list[list[str]]
SCORE_BLOCK = 64
"""Queries scored at once where scores are no dot products."""


def open_gallery(benchmark: Benchmark, gallery_ids: Sequence[object], gallery: ArrayLike) -> Searcher:
    """A searcher over the caller's gallery, once it is known to be the one the protocol asks for.

    `gallery_ids` are n ids (text or integers), `gallery` is (n, d), finite and nowhere zero; rows are
    normalised. A missing, repeated or foreign picture, or a row that is not finite, is a DataError that names
    it.
    """
    ids = [benchmark.image_id(value) for value in gallery_ids]
    vectors = unit_rows(gallery, ids, "gallery picture")
    if twice := repeated(ids):
        raise DataError(f"duplicate gallery picture {named(twice)}: every picture may occur once")
    _require_gallery(benchmark, ids)
    return Searcher(ids, vectors)


def order_queries(benchmark: Benchmark, query_ids: Sequence[object], queries: ArrayLike) -> Vectors:
    """The caller's query rows (q, d) in the benchmark's order; every query has to be there exactly once."""
    ids = [plain_id(value) for value in query_ids]
    vectors = unit_rows(queries, ids, "query")
    if twice := repeated(ids):
        raise DataError(f"duplicate query {named(twice)}: every query may occur once")
    at = {name: row for row, name in enumerate(ids)}
    wanted = [query.id for query in benchmark.queries]
    if missing := [name for name in wanted if name not in at]:
        raise DataError(f"{benchmark.name} {benchmark.split}: no features for query {named(missing)}")
    if unknown := sorted(at.keys() - set(wanted)):
        raise DataError(f"{benchmark.name} {benchmark.split} has no query {named(unknown)}")
    return vectors[[at[name] for name in wanted]]


def rank(searcher: Searcher, benchmark: Benchmark, vectors: Vectors, depth: int) -> Rankings:
    """The first `depth` picture ids of every query under the benchmark's protocol, best first.

    `vectors` is (q, d) in the benchmark's query order. Equal scores stand in gallery order.
    """
    queries = benchmark.queries
    exclude = [[query.reference] for query in queries] if benchmark.protocol.reference == "removed" else None
    among = [query.gallery for query in queries] if any(query.gallery for query in queries) else None
    return _search(searcher, vectors, depth, exclude, among)


def rank_subsets(searcher: Searcher, benchmark: Benchmark, vectors: Vectors) -> Rankings:
    """Every query's subset without its reference, best first (CIRR's subset protocol)."""
    among = [_without_reference(query) for query in benchmark.queries]
    return _search(searcher, vectors, max(len(ids) for ids in among), None, among)


def rank_scores(
    searcher: Searcher,
    benchmark: Benchmark,
    scores: Callable[[slice], Vectors],
    depth: int,
    subset: bool = False,
) -> Rankings:
    """As `rank` (or, with `subset`, as `rank_subsets`), by scores that are no dot products.

    `scores` gives for some queries their (b, n) scores of the gallery, in the searcher's order.
    """
    at = {str(name): row for row, name in enumerate(searcher.ids)}
    rankings: Rankings = []
    for start in range(0, len(benchmark.queries), SCORE_BLOCK):
        block = slice(start, start + SCORE_BLOCK)
        for query, own in zip(benchmark.queries[block], scores(block), strict=True):
            allowed = _allowed(query, benchmark, at, subset)
            rankings.append([str(searcher.ids[row]) for row in _first_places(own, allowed, depth)])
    return rankings


def _allowed(
    query: Query, benchmark: Benchmark, at: Mapping[str, int], subset: bool
) -> NDArray[np.int64] | None:
    """Gallery rows that a query ranks, ascending; None: all."""
    if subset:
        return np.sort([at[name] for name in _without_reference(query)])
    if query.gallery:
        return np.sort([at[name] for name in query.gallery])
    if benchmark.protocol.reference == "removed":
        return np.delete(np.arange(len(at)), at[query.reference])
    return None


def _first_places(scores: Vectors, allowed: NDArray[np.int64] | None, depth: int) -> NDArray[np.int64]:
    """Gallery rows of the `depth` largest scores, best first, equal ones in gallery order."""
    rows = np.arange(len(scores)) if allowed is None else allowed
    own = scores[rows]
    if depth < len(own):
        least = np.partition(own, -depth)[-depth]
        rows = rows[own >= least]
        own = scores[rows]
    return np.asarray(rows[np.argsort(-own, kind="stable")][:depth], np.int64)


def relevance(rankings: Rankings, right: Sequence[Collection[str]], places: int) -> NDArray[np.bool_]:
    """(q, places) booleans: does a place hold one of the query's right pictures? False past a list's end."""
    matrix = np.zeros((len(rankings), places), dtype=bool)
    for row, (ids, answers) in enumerate(zip(rankings, right, strict=True)):
        matrix[row, : len(ids)] = [name in answers for name in ids[:places]]
    return matrix


def unit_rows(rows: ArrayLike, ids: Sequence[str], what: str) -> Vectors:
    """`rows` as (n, d) float32 of length 1; a zero row or one not finite is a DataError naming it."""
    matrix = np.asarray(rows, dtype=np.float32)
    if matrix.ndim != 2 or len(matrix) != len(ids) or len(ids) == 0:
        raise DataError(
            f"expected one {what} vector per id: {len(ids)} ids, features of shape {matrix.shape}"
        )
    finite = np.asarray(np.isfinite(matrix).all(axis=1))
    _refuse(~finite, ids, f"the features of {what} {{}} are not finite")
    # In float64: the squares of finite float32 values overflow or vanish in float32.
    lengths = np.sqrt(np.einsum("nd,nd->n", matrix, matrix, dtype=np.float64))[:, None]
    _refuse(lengths[:, 0] == 0, ids, f"the features of {what} {{}} are all zero")
    return np.asarray(matrix / lengths, dtype=np.float32)


def _refuse(bad: NDArray[np.bool_], ids: Sequence[str], message: str) -> None:
    if bad.any():
        raise DataError(message.format(named([ids[int(row)] for row in np.flatnonzero(bad)])))


def _require_gallery(benchmark: Benchmark, ids: Sequence[str]) -> None:
    present = frozenset(ids)
    if missing := [image for image in benchmark.needed_ids() if image not in present]:
        references = {query.reference for query in benchmark.queries}
        note = " (a reference)" if missing[0] in references else ""
        raise DataError(f"{benchmark.name} {benchmark.split}: gallery lacks picture {named(missing)}{note}")
    if benchmark.gallery_ids is None:
        return
    if foreign := sorted(present - frozenset(benchmark.gallery_ids)):
        raise DataError(f"{benchmark.name} {benchmark.split}: the gallery has no picture {named(foreign)}")


def _without_reference(query: Query) -> list[str]:
    return [name for name in query.subset if name != query.reference]


def _search(
    searcher: Searcher,
    vectors: Vectors,
    depth: int,
    exclude: Sequence[Collection[str]] | None,
    among: Sequence[Collection[str]] | None,
) -> Rankings:
    hits = searcher.search(vectors, depth, exclude=exclude, among=among)
    return [[str(hit.id) for hit in own] for own in hits]


def score(
    name: str,
    root: Path | str,
    gallery_ids: Sequence[object],
    gallery: ArrayLike,
    query_ids: Sequence[object],
    queries: ArrayLike,
    split: str = "val",
) -> dict[str, float]:
    """Every figure of a benchmark's protocol, in percent.

    `gallery` is (n, d) with its n ids, `queries` (q, d) with its q ids, in any order; rows are normalised and
    compared by dot product, equal scores standing in gallery order. Ids are the annotations' own, as text or
    integers: picture names (CIRR, FashionIQ), COCO numbers (CIRCO, GeneCIS; "000000000042" is 42), list paths
    (domain conversion); pair ids (CIRR), query ids (CIRCO), positions in the caption file from 0 (FashionIQ,
    GeneCIS), "domain:photo path" (domain conversion).

    Keys: `cirr` recall@1,5,10,50, subset_recall@1,2,3, mean(recall@5,subset_recall@1);
    `fashioniq/dress|shirt|toptee` recall@10,50; `circo` mAP@5,10,25,50, recall@5,10,25,50, mAP@10/<aspect>;
    `genecis/focus_object|change_object` recall@1,2,3; `domain_conversion` recall@10,50 and recall@k/<domain>.

    Raises ConfigError for an unknown name or split; DataError, naming the item, for annotations that are
    missing or damaged, a gallery that lacks a picture or has one twice, features that are not finite, and
    queries that are missing, repeated or unknown.
    """
    return score_features(load(name, root, split), gallery_ids, gallery, query_ids, queries).percent()


def score_features(
    benchmark: Benchmark,
    gallery_ids: Sequence[object],
    gallery: ArrayLike,
    query_ids: Sequence[object],
    queries: ArrayLike,
) -> Scores:
    """As `score`, for a loaded benchmark, keeping every query's value for intervals and comparisons."""
    require_answers(benchmark)
    searcher = open_gallery(benchmark, gallery_ids, gallery)
    return score_vectors(benchmark, searcher, order_queries(benchmark, query_ids, queries))


def score_vectors(benchmark: Benchmark, searcher: Searcher, vectors: Vectors) -> Scores:
    """Scores of unit query rows (q, d) that stand in the benchmark's query order."""
    require_answers(benchmark)
    rankings = rank(searcher, benchmark, vectors, benchmark.protocol.depth)
    subsets = rank_subsets(searcher, benchmark, vectors) if benchmark.protocol.subset_recall_at else None
    return score_rankings(benchmark, rankings, subsets)


def score_rankings(benchmark: Benchmark, rankings: Rankings, subsets: Rankings | None = None) -> Scores:
    """Scores of ranked lists of the protocol's depth, in query order; `subsets` where the protocol ranks them."""
    require_answers(benchmark)
    values = _ranking_values(benchmark, rankings, benchmark.protocol.depth)
    if subsets is not None:
        values |= _subset_values(benchmark, subsets)
    for first, second in benchmark.protocol.averages:
        values[f"mean({first},{second})"] = (values[first] + values[second]) / 2
    return Scores(values | _aspect_values(benchmark, values))


def require_answers(benchmark: Benchmark) -> None:
    """DataError for a split whose right answers are hidden."""
    if benchmark.hidden:
        raise DataError(
            f"the right answers of {benchmark.name} {benchmark.split} are hidden: "
            "write a submission file instead"
        )


def _ranking_values(benchmark: Benchmark, rankings: list[list[str]], depth: int) -> dict[str, Values]:
    protocol, queries = benchmark.protocol, benchmark.queries
    relevant = relevance(rankings, [frozenset(query.answers) for query in queries], depth)
    answers = np.array([len(query.answers) for query in queries])
    ranks = ranks_of_first(relevance(rankings, [_counted(query) for query in queries], depth))
    values = {f"recall@{k}": recall_at(ranks, k) for k in protocol.recall_at}
    values |= {f"recall@{k}": coverage_at(relevant, answers, k) for k in protocol.coverage_at}
    return values | {f"mAP@{k}": average_precision_at(relevant, answers, k) for k in protocol.map_at}


def _subset_values(benchmark: Benchmark, rankings: list[list[str]]) -> dict[str, Values]:
    places = max(len(own) for own in rankings)
    hits: NDArray[np.bool_] = relevance(rankings, [_counted(query) for query in benchmark.queries], places)
    ranks = ranks_of_first(hits)
    return {f"subset_recall@{k}": recall_at(ranks, k) for k in benchmark.protocol.subset_recall_at}


def _counted(query: Query) -> frozenset[str]:
    """The pictures that recall counts: the single target where the dataset names one."""
    return frozenset(query.answers) if query.target is None else frozenset([query.target])


def _aspect_values(benchmark: Benchmark, values: dict[str, Values]) -> dict[str, Values]:
    aspects = [query.aspects for query in benchmark.queries]
    return {
        f"{metric}/{aspect}": own
        for metric in benchmark.protocol.by_aspect
        for aspect, own in by_aspect(values[metric], aspects).items()
    }
