"""Retrieval metrics as pure functions of ranks.

A rank is 1-based; `inf` means that the right answer is not in the ranked list. A relevance matrix says, per
query and place of the ranked list, whether that place holds a right answer. Every function returns one value
per query in [0, 1]; a benchmark's figure is their plain mean.

Ties: a ranking is by descending score, and pictures of equal score stand in gallery order. A metric sees
ranks only, so two pictures never share one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from image2sentence.errors import ConfigError, DataError

Values = NDArray[np.float64]
BOOTSTRAP_BLOCK = 4_000_000  # resampled values held at once: 32 MB


def recall_at(ranks: ArrayLike, k: int) -> Values:
    """R@k of queries with one right answer, or with several of which the best-placed one counts.

    R@k(q) = 1 if rank(q) <= k, else 0. `ranks` is (n,), 1-based, `inf` where not found.
    """
    _check_k(k)
    return (np.asarray(ranks, dtype=np.float64) <= k).astype(np.float64)


def coverage_at(relevant: ArrayLike, answers: ArrayLike, k: int) -> Values:
    """Share of all right answers that stand in the first k places.

    C@k(q) = (right answers among places 1..k) / |answers(q)|; 0 for a query without any. `relevant` is (n,
    places) of booleans, `answers` (n,) the number of right answers in the gallery.
    """
    hits = _first(relevant, k).sum(axis=1)
    count = np.asarray(answers, dtype=np.float64)
    return np.asarray(hits / np.maximum(count, 1.0), dtype=np.float64)


def average_precision_at(relevant: ArrayLike, answers: ArrayLike, k: int) -> Values:
    """AP@k with several right answers, as CIRCO defines it (Baldrati et al., ICCV 2023).

    AP@k(q) = 1 / min(|answers(q)|, k) * sum over i <= k of precision@i(q) * relevant_i(q), where precision@i
    is the share of right answers among the first i places; 0 for a query without any right answer. `relevant`
    is (n, places) of booleans; places beyond the list hold no right answer. `answers` is (n,).
    """
    hits = _first(relevant, k)
    places = np.arange(1, hits.shape[1] + 1)
    gained = (np.cumsum(hits, axis=1) / places * hits).sum(axis=1)
    return np.asarray(gained / np.clip(np.asarray(answers, dtype=np.float64), 1.0, k), dtype=np.float64)


def by_aspect(values: Values, aspects: Sequence[Sequence[str]]) -> dict[str, Values]:
    """Splits per-query values by aspect: each aspect gets the values of the queries that carry it, in query
    order.

    A query with three aspects counts in all three; the aspects come back sorted by name.
    """
    if len(values) != len(aspects):
        raise DataError(f"expected one list of aspects per query: {len(values)} values, {len(aspects)} lists")
    names = sorted({name for own in aspects for name in own})
    return {name: values[np.array([name in own for own in aspects])] for name in names}


def ranks_of_first(relevant: ArrayLike) -> Values:
    """Rank (n,) of each query's best-placed right answer, from (n, places) booleans; `inf` if none."""
    matrix = np.asarray(relevant, dtype=bool)
    if matrix.shape[1] == 0:
        return np.full(len(matrix), np.inf)
    return np.where(matrix.any(axis=1), matrix.argmax(axis=1) + 1.0, np.inf)


@dataclass(frozen=True)
class Interval:
    """A mean over queries with its bootstrap interval, in the unit of the values given."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Mean of a - b over the same queries, its bootstrap interval, and the two-sided bootstrap p value."""

    mean: float
    low: float
    high: float
    p: float


def bootstrap_interval(
    values: ArrayLike, level: float = 0.95, samples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the mean (Efron, 1979): queries are drawn anew with replacement.

    `values` is (n,), one per query; `level` lies in (0, 1).
    """
    data = _finite(values)
    means = _resampled_means(data, samples, seed)
    low, high = _percentiles(means, level)
    return Interval(float(data.mean()), low, high)


def paired_difference(
    a: ArrayLike, b: ArrayLike, level: float = 0.95, samples: int = 2000, seed: int = 0
) -> Difference:
    """Paired bootstrap of a - b: both runs are resampled with the same queries, so that query difficulty
    cancels.

    `a` and `b` are (n,) values of the same queries in the same order. p = 2 * min(share of resampled means <=
    0, share >= 0), each share counted as (hits + 1) / (samples + 1), at most 1.
    """
    first, second = _finite(a), _finite(b)
    if first.shape != second.shape:
        raise DataError(
            f"a paired comparison needs the same queries on both sides: {len(first)} and {len(second)}"
        )
    delta = first - second
    means = _resampled_means(delta, samples, seed)
    low, high = _percentiles(means, level)
    tail = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    return Difference(float(delta.mean()), low, high, min(1.0, 2 * (tail + 1) / (samples + 1)))


def mean_of_means(
    parts: Sequence[ArrayLike], level: float = 0.95, samples: int = 2000, seed: int = 0
) -> Interval:
    """Plain mean of the parts' means with its bootstrap interval; the queries of each part are drawn on their own.

    `parts` are (n,) values of the queries of each part.
    """
    data = [_finite(part) for part in parts]
    drawn = [_resampled_means(part, samples, seed + number) for number, part in enumerate(data)]
    low, high = _percentiles(np.asarray(np.mean(drawn, axis=0), np.float64), level)
    return Interval(float(np.mean([part.mean() for part in data])), low, high)


@dataclass(frozen=True)
class Scores:
    """Per-query values of every metric of one run, in [0, 1], in the order of the benchmark's queries.

    Metrics of one aspect, such as `mAP@10/negation`, hold the values of that aspect's queries only.
    """

    values: Mapping[str, Values]

    def percent(self) -> dict[str, float]:
        """Mean of every metric, in percent."""
        return {name: 100.0 * float(values.mean()) for name, values in self.values.items()}

    def intervals(self, level: float = 0.95, samples: int = 2000, seed: int = 0) -> dict[str, Interval]:
        """Mean and bootstrap interval of every metric, in percent."""
        return {
            name: bootstrap_interval(100.0 * values, level, samples, seed)
            for name, values in self.values.items()
        }


def _check_k(k: int) -> None:
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}")


def _first(relevant: ArrayLike, k: int) -> NDArray[np.bool_]:
    _check_k(k)
    matrix = np.asarray(relevant, dtype=bool)
    if matrix.ndim != 2:
        raise DataError(f"expected relevance as (queries, places), got shape {matrix.shape}")
    return matrix[:, :k]


def _finite(values: ArrayLike) -> Values:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size == 0 or not np.isfinite(data).all():
        raise DataError(f"expected one finite value per query and at least one query, got shape {data.shape}")
    return data


def _resampled_means(data: Values, samples: int, seed: int) -> Values:
    if samples < 1:
        raise ConfigError(f"samples must be at least 1, got {samples}")
    rng = np.random.default_rng(seed)
    block = max(1, BOOTSTRAP_BLOCK // len(data))
    sizes = [min(block, samples - start) for start in range(0, samples, block)]
    return np.concatenate(
        [data[rng.integers(len(data), size=(size, len(data)))].mean(axis=1) for size in sizes]
    )


def _percentiles(means: Values, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ConfigError(f"the level of an interval lies between 0 and 1, got {level}")
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
