"""Figures of a benchmark from features: load, rank through `Searcher`, take the protocol's metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from image2sentence.benchmarks.datasets import load
from image2sentence.benchmarks.metrics import (
    Scores,
    Values,
    average_precision_at,
    by_aspect,
    coverage_at,
    ranks_of_first,
    recall_at,
)
from image2sentence.benchmarks.protocol import Benchmark, Query
from image2sentence.benchmarks.ranking import open_gallery, order_queries, rank, rank_subsets, relevance
from image2sentence.encoders.base import Vectors
from image2sentence.errors import DataError
from image2sentence.gallery.searcher import Searcher


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
    depth = benchmark.protocol.depth
    rankings = rank(searcher, benchmark, vectors, depth)
    values = _ranking_values(benchmark, rankings, depth)
    if benchmark.protocol.subset_recall_at:
        values |= _subset_values(benchmark, rank_subsets(searcher, benchmark, vectors))
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
