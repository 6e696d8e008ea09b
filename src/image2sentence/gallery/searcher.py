"""Exact search by dot product: what the command line, the server and the evaluation all rank with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.base import Vectors
from image2sentence.errors import DataError, QueryError

Positions: TypeAlias = NDArray[np.int64]

_BLOCK_ROWS = 65_536
_BLOCK_QUERIES = 64
_RANKED_ROWS = 4_096


class Hit(NamedTuple):
    """One result: the picture's id and its score, the dot product of query and picture vector."""

    id: Any
    score: float


class Searcher:
    """Ranks a gallery held in memory.

    Scores are dot products summed in float64, so a result does not depend on block sizes, threads or the
    other queries; equal vectors score equal, and equal scores rank in gallery order (the order of `ids`).

    Args:
        ids: n different names of the pictures.
        vectors: (n, d) float32, rows of length 1, all finite; kept without copying where contiguous.

    Raises:
        DataError: another shape or type, a value that is not finite, or an id given twice.
    """

    def __init__(self, ids: Sequence[Hashable], vectors: Vectors) -> None:
        if vectors.ndim != 2 or vectors.dtype != np.float32 or len(vectors) != len(ids):
            raise DataError(
                f"expected float32 vectors of shape ({len(ids)}, d), one row per id; "
                f"got {vectors.dtype} of shape {vectors.shape}"
            )
        self._ids = list(ids)
        self._positions = {name: place for place, name in enumerate(self._ids)}
        if len(self._positions) != len(self._ids):
            raise DataError(f"id {_first_repeated(self._ids)!r} is given twice: ids must differ")
        bad = _first_not_finite(vectors)
        if bad is not None:
            raise DataError(f"the vector of id {self._ids[bad]!r} holds a value that is not finite")
        self._vectors = np.ascontiguousarray(vectors)
        self._longest = float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max(initial=0.0)))

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> Sequence[Hashable]:
        """The ids in gallery order."""
        return self._ids

    @property
    def width(self) -> int:
        """Width d of the vectors."""
        return int(self._vectors.shape[1])

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        exclude: Sequence[Collection[Hashable]] | None = None,
        among: Sequence[Collection[Hashable]] | None = None,
    ) -> list[list[Hit]]:
        """Rank the gallery for each query.

        Args:
            queries: (q, d) float32, finite.
            k: Results wanted per query, at least 1; a query gets fewer where fewer pictures are left to rank.
            exclude: For each query, ids that may not appear (such as the reference itself).
            among: For each query, the only ids that may appear.

        Returns:
            For each query, up to k hits, best first; equal scores in gallery order.

        Raises:
            QueryError: wrong shape, a value that is not finite, k < 1, or an id that is not in the gallery.
        """
        self._check_queries(queries, k)
        excluded = self._per_query("exclude", exclude, len(queries))
        if among is not None:
            allowed = self._per_query("among", among, len(queries))
            pools = [np.setdiff1d(a, e) for a, e in zip(allowed, excluded, strict=True)]
            return [
                self._ranked(query, self._best(query, pool, k), k)
                for query, pool in zip(queries, pools, strict=True)
            ]
        hits: list[list[Hit]] = []
        for start in range(0, len(queries), _BLOCK_QUERIES):
            block = slice(start, start + _BLOCK_QUERIES)
            candidates = self._scan(queries[block], k, excluded[block])
            hits += [self._ranked(query, c, k) for query, c in zip(queries[block], candidates, strict=True)]
        return hits

    def _scan(self, queries: Vectors, k: int, excluded: Sequence[Positions]) -> list[Positions]:
        """Positions that can be among each query's best k, block by block of the gallery."""
        pools = [_Candidates(k, self._margin(query)) for query in queries]
        for start in range(0, len(self), _BLOCK_ROWS):
            scores = queries @ self._vectors[start : start + _BLOCK_ROWS].T
            stop = start + scores.shape[1]
            for row, pool, out in zip(scores, pools, excluded, strict=True):
                row[out[np.searchsorted(out, start) : np.searchsorted(out, stop)] - start] = -np.inf
                pool.add(start, row)
        return [pool.positions for pool in pools]

    def _best(self, query: Vectors, pool: Positions, k: int) -> Positions:
        """The positions of a pool that can be among its best k."""
        candidates = _Candidates(k, self._margin(query))
        for start in range(0, len(pool), _BLOCK_ROWS):
            candidates.add(start, self._vectors[pool[start : start + _BLOCK_ROWS]] @ query)
        return pool[candidates.positions]

    def _ranked(self, query: Vectors, candidates: Positions, k: int) -> list[Hit]:
        """The best k of some candidates (ascending positions) by their scores in float64."""
        scores = np.empty(len(candidates), np.float64)
        wide = query.astype(np.float64)
        for start in range(0, len(candidates), _RANKED_ROWS):
            rows = self._vectors[candidates[start : start + _RANKED_ROWS]]
            # Row by row, not a matrix product, whose last bits depend on where in the matrix a row stands.
            scores[start : start + _RANKED_ROWS] = (rows * wide).sum(axis=1)
        order = np.argsort(-scores, kind="stable")[:k]
        return [Hit(self._ids[candidates[place]], float(scores[place])) for place in order]

    def _margin(self, query: Vectors) -> float:
        """Bound on how far the difference of two float32 scores can be from the true difference.

        Each score is off by at most d u |q| |v| with u half an eps (Higham, Accuracy and Stability of
        Numerical Algorithms, section 3.1); a few eps more cover the rounding of the bound itself.
        """
        rounding = (self.width + 8) * float(np.finfo(np.float32).eps)
        return rounding * self._longest * float(np.linalg.norm(query))

    def _check_queries(self, queries: Vectors, k: int) -> None:
        if queries.ndim != 2 or queries.dtype != np.float32 or queries.shape[1] != self.width:
            raise QueryError(
                f"expected float32 queries of shape (q, {self.width}), "
                f"got {queries.dtype} of shape {queries.shape}"
            )
        if k < 1:
            raise QueryError(f"k is the number of results wanted: expected at least 1, got {k}")
        bad = _first_not_finite(queries)
        if bad is not None:
            raise QueryError(f"query {bad} holds a value that is not finite")

    def _per_query(
        self, name: str, ids: Sequence[Collection[Hashable]] | None, queries: int
    ) -> list[Positions]:
        """Ascending gallery positions of the ids given for each query."""
        if ids is None:
            return [np.empty(0, np.int64)] * queries
        if len(ids) != queries:
            raise QueryError(f"`{name}` needs one collection of ids per query: {queries}, got {len(ids)}")
        return [self._positions_of(name, number, wanted) for number, wanted in enumerate(ids)]

    def _positions_of(self, name: str, number: int, wanted: Collection[Hashable]) -> Positions:
        unknown = next((one for one in wanted if one not in self._positions), None)
        if unknown is not None:
            raise QueryError(f"`{name}` of query {number}: id {unknown!r} is not in the gallery")
        return np.unique(np.fromiter((self._positions[one] for one in wanted), np.int64, len(wanted)))


class _Candidates:
    """Keeps the positions whose float32 score is within a margin of the k-th best seen so far."""

    def __init__(self, k: int, margin: float) -> None:
        self._k = k
        self._margin = margin
        self._floor = -np.inf
        self._scores = np.empty(0, np.float32)
        self.positions: Positions = np.empty(0, np.int64)

    def add(self, start: int, scores: NDArray[np.float32]) -> None:
        """Take the scores of the positions from `start` on; -inf marks an excluded one."""
        if len(scores) > self._k and self._floor == -np.inf:
            self._raise_floor(scores)
        kept = np.flatnonzero((scores >= self._floor) & (scores > -np.inf))
        self.positions = np.concatenate([self.positions, kept + start])
        self._scores = np.concatenate([self._scores, scores[kept]])
        if len(self._scores) > self._k:
            self._raise_floor(self._scores)
            kept = np.flatnonzero(self._scores >= self._floor)
            self.positions, self._scores = self.positions[kept], self._scores[kept]

    def _raise_floor(self, scores: NDArray[np.float32]) -> None:
        kth = float(np.partition(scores, -self._k)[-self._k])
        self._floor = max(self._floor, kth - self._margin)


def _first_not_finite(rows: Vectors) -> int | None:
    for start in range(0, len(rows), _BLOCK_ROWS):
        bad = np.flatnonzero(~np.isfinite(rows[start : start + _BLOCK_ROWS]).all(axis=1))
        if len(bad):
            return start + int(bad[0])
    return None


def _first_repeated(ids: Sequence[Hashable]) -> Hashable:
    counts = Counter(ids)
    return next(name for name in ids if counts[name] > 1)
