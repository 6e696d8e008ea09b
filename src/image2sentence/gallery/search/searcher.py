"""Search by dot product, for users, server and evaluation.

Every result's score is exact. Which pictures are looked at is all of them, or in large galleries what an approximate
index proposes.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import DataError, QueryError
from image2sentence.gallery.filters.language import Filter
from image2sentence.gallery.search.base import Hit, Positions, Select
from image2sentence.gallery.search.ids import _names
from image2sentence.gallery.search.vectors import Nearby, Rows

_BLOCK_ROWS = 65_536
_BLOCK_QUERIES = 64
_RANKED_ROWS = 4_096
# Fewer allowed rows than this are gathered and compared one by one: as a share of the gallery where the alternative
# is a pass over all of it, and as a number where it is an index that passes over what is not allowed.
_GATHER_BELOW = 1 / 8
_GATHER_BESIDE_INDEX = 10_000


class Searcher:
    """Ranks a gallery.

    Scores are dot products summed in float64, so a result does not depend on block sizes, threads or the
    other queries; equal vectors score equal, and equal scores rank in gallery order (the order of `ids`).

    Made from arrays, it is exact. `Gallery.searcher` makes one that asks an approximate index first where the
    gallery is large and has one: then a result may be missing, and the next best follow.

    Args:
        ids: n different names of the pictures; an int64 array of ascending ones takes the least memory.
        vectors: (n, d) float32, rows of length 1, all finite; kept without copying where contiguous.
        select: Looks filters up, for `where`; ids that it gives and that are not among `ids` are passed over.

    Raises:
        DataError: another shape or type, a value that is not finite, or an id given twice.
    """

    def __init__(
        self, ids: Sequence[Hashable] | NDArray[np.int64], vectors: Vectors, *, select: Select | None = None
    ) -> None:
        if vectors.ndim != 2 or vectors.dtype != np.float32 or len(vectors) != len(ids):
            raise DataError(
                f"expected float32 vectors of shape ({len(ids)}, d), one row per id; "
                f"got {vectors.dtype} of shape {vectors.shape}"
            )
        self._names = _names(ids)
        bad = _first_not_finite(vectors)
        if bad is not None:
            raise DataError(f"the vector of id {self._names.at(bad)!r} holds a value that is not finite")
        self._rows = Rows(np.ascontiguousarray(vectors))
        self._longest = float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max(initial=0.0)))
        self._select = select
        self._nearby: Nearby | None = None

    @classmethod
    def over(
        cls,
        ids: NDArray[np.int64],
        rows: Rows,
        longest: float,
        select: Select | None = None,
        nearby: Nearby | None = None,
    ) -> Searcher:
        """One over vectors that have been checked already.

        Args:
            ids: (n,) ascending.
            rows: n finite vectors.
            longest: Length of the longest.
            select: As above.
            nearby: Proposes candidates; None to compare with every vector.
        """
        searcher = cls(ids[:0], np.empty((0, rows.width), np.float32), select=select)
        searcher._names = _names(ids)
        searcher._rows, searcher._longest, searcher._nearby = rows, longest, nearby
        return searcher

    @property
    def approximate(self) -> bool:
        """Whether an index proposes what is ranked."""
        return self._nearby is not None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def ids(self) -> Sequence[Hashable]:
        """The ids in gallery order."""
        return self._names.all()

    @property
    def width(self) -> int:
        """Width d of the vectors."""
        return self._rows.width

    def vectors_of(self, ids: Sequence[Hashable]) -> Vectors:
        """(n, d) float32 vectors of n pictures, in the order of the ids. Raises QueryError on an unknown id."""
        return self._rows.take(self._names.positions(ids, "vectors_of"))

    def select(self, where: str | Filter) -> NDArray[np.int64]:
        """Ascending ids of the pictures that a filter holds for.

        Raises:
            QueryError: no filter, one that does not fit the columns or is too costly, or vectors without metadata.
        """
        if self._select is None:
            raise QueryError("these vectors have no metadata to filter by: search a gallery with `where`")
        return self._select(where)

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        exclude: Sequence[Collection[Hashable]] | None = None,
        among: Sequence[Collection[Hashable]] | None = None,
        where: str | Filter | None = None,
    ) -> list[list[Hit]]:
        """Rank the gallery for each query.

        Args:
            queries: (q, d) float32, finite.
            k: Results wanted per query, at least 1; a query gets fewer where fewer pictures are left to rank.
            exclude: For each query, ids that may not appear (such as the reference itself).
            among: For each query, the only ids that may appear.
            where: A filter that every result fulfils; see `image2sentence.gallery.filters.language`.

        Returns:
            For each query, up to k hits, best first; equal scores in gallery order.

        Raises:
            QueryError: wrong shape, a value that is not finite, k < 1, an id that is not in the gallery, or a
                filter that is not one, does not fit the columns, or has no metadata to look at.
        """
        return self.search_scored(queries, k, exclude=exclude, among=among, where=where)[0]

    def search_scored(
        self,
        queries: Vectors,
        k: int,
        *,
        exclude: Sequence[Collection[Hashable]] | None = None,
        among: Sequence[Collection[Hashable]] | None = None,
        where: str | Filter | None = None,
    ) -> tuple[list[list[Hit]], list[Vectors | None]]:
        """As `search`, and for each query the (n,) float32 scores of all pictures in gallery order, as far as known.

        They are off by rounding, and -inf for what may not appear. None where not all pictures were looked at, or in
        galleries of more than one block of rows.
        """
        self._check_queries(queries, k)
        excluded = self._per_query("exclude", exclude, len(queries)) or [_NOTHING] * len(queries)
        allowed = self._allowed(self._per_query("among", among, len(queries)), where, len(queries))
        scores: list[Vectors | None] = [None] * len(queries)
        candidates = self._candidates(queries, k, excluded, allowed, scores)
        hits = [self._ranked(query, found, k) for query, found in zip(queries, candidates, strict=True)]
        return hits, scores

    def _allowed(
        self, among: list[Positions] | None, where: str | Filter | None, queries: int
    ) -> list[Positions | None]:
        """For each query the only positions that may appear; None for all."""
        if where is None:
            return [*among] if among is not None else [None] * queries
        selected = self._names.present(self.select(where))
        if among is None:
            return [selected] * queries
        return [np.intersect1d(only, selected, assume_unique=True) for only in among]

    def _candidates(
        self,
        queries: Vectors,
        k: int,
        excluded: Sequence[Positions],
        allowed: Sequence[Positions | None],
        scores: list[Vectors | None],
    ) -> list[Positions]:
        """For each query, ascending positions that hold its best k; into `scores` what `search_scored` gives."""
        found: dict[int, Positions] = {}
        whole: dict[int, Positions | None] = {}
        for number, (out, only) in enumerate(zip(excluded, allowed, strict=True)):
            if only is not None and len(only) < self._gathered_below():
                found[number] = self._best(queries[number], np.setdiff1d(only, out, assume_unique=True), k)
            else:
                whole[number] = only
        if self._nearby is not None:
            found |= self._near(self._nearby, queries, k, excluded, whole)
        left = [number for number in whole if number not in found]
        for start in range(0, len(left), _BLOCK_QUERIES):
            block = left[start : start + _BLOCK_QUERIES]
            left_out = [self._left_out(excluded[number], whole[number]) for number in block]
            best, rows = self._scan(queries[block], k, left_out)
            found |= dict(zip(block, best, strict=True))
            for number, row in zip(block, rows, strict=True):
                scores[number] = row
        return [found[number] for number in range(len(queries))]

    def _gathered_below(self) -> float:
        return _GATHER_BELOW * len(self) if self._nearby is None else _GATHER_BESIDE_INDEX

    def _left_out(self, out: Positions, only: Positions | None) -> Positions:
        return out if only is None else np.union1d(out, _complement(only, len(self)))

    def _near(
        self,
        nearby: Nearby,
        queries: Vectors,
        k: int,
        excluded: Sequence[Positions],
        whole: Mapping[int, Positions | None],
    ) -> dict[int, Positions]:
        """What the index proposes, with what is newer than it; nothing for queries that it has too little for."""
        found: dict[int, Positions] = {}
        plain = [number for number, only in whole.items() if only is None]
        most = max((len(excluded[number]) for number in plain), default=0)
        proposed = nearby.candidates(queries[plain], k + most, None) if plain else []
        places = dict(zip(plain, proposed, strict=True))
        for number, only in whole.items():
            asked = k + len(excluded[number])
            if only is not None:
                places[number] = nearby.candidates(queries[number : number + 1], asked, only)[0]
            kept = self._with_newer(nearby, queries[number], asked, places[number], only)
            kept = np.setdiff1d(kept, excluded[number], assume_unique=True)
            if len(kept) >= k:
                found[number] = kept
        return found

    def _with_newer(
        self, nearby: Nearby, query: Vectors, k: int, places: Positions, only: Positions | None
    ) -> Positions:
        if not len(nearby.newer):
            return places
        newer = nearby.newer if only is None else np.intersect1d(nearby.newer, only, assume_unique=True)
        return np.union1d(places, self._best(query, newer, k))

    def _scan(
        self, queries: Vectors, k: int, excluded: Sequence[Positions]
    ) -> tuple[list[Positions], list[Vectors | None]]:
        """For each query, positions that can be among its best k, block by block; scores where there is one block."""
        pools = [_Candidates(k, self._margin(query)) for query in queries]
        for start, vectors in self._rows.blocks(_BLOCK_ROWS):
            scores = queries @ vectors.T
            stop = start + scores.shape[1]
            for row, pool, out in zip(scores, pools, excluded, strict=True):
                row[out[np.searchsorted(out, start) : np.searchsorted(out, stop)] - start] = -np.inf
                pool.add(start, row)
        is_whole = 0 < len(self) <= _BLOCK_ROWS
        return [pool.positions for pool in pools], [*scores] if is_whole else [None] * len(queries)

    def _best(self, query: Vectors, pool: Positions, k: int) -> Positions:
        """The positions of a pool that can be among its best k."""
        candidates = _Candidates(k, self._margin(query))
        for start in range(0, len(pool), _BLOCK_ROWS):
            candidates.add(start, self._rows.take(pool[start : start + _BLOCK_ROWS]) @ query)
        return pool[candidates.positions]

    def _ranked(self, query: Vectors, candidates: Positions, k: int) -> list[Hit]:
        """The best k of some candidates (ascending positions) by their scores in float64."""
        scores = np.empty(len(candidates), np.float64)
        wide = query.astype(np.float64)
        for start in range(0, len(candidates), _RANKED_ROWS):
            rows = self._rows.take(candidates[start : start + _RANKED_ROWS])
            # Row by row, not a matrix product, whose last bits depend on where in the matrix a row stands.
            scores[start : start + _RANKED_ROWS] = (rows * wide).sum(axis=1)
        order = np.argsort(-scores, kind="stable")[:k]
        return [Hit(self._names.at(candidates[place]), float(scores[place])) for place in order]

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
    ) -> list[Positions] | None:
        """Ascending gallery positions of the ids given for each query."""
        if ids is None:
            return None
        if len(ids) != queries:
            raise QueryError(f"`{name}` needs one collection of ids per query: {queries}, got {len(ids)}")
        return [
            np.unique(self._names.positions(wanted, f"`{name}` of query {number}"))
            for number, wanted in enumerate(ids)
        ]


_NOTHING: Positions = np.empty(0, np.int64)


def _complement(positions: Positions, count: int) -> Positions:
    left = np.ones(count, bool)
    left[positions] = False
    return np.flatnonzero(left)


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
