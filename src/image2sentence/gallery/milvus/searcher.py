"""Search in a Milvus collection, scored and ordered as by `Searcher`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import QueryError
from image2sentence.gallery.filters.language import Filter
from image2sentence.gallery.filters.milvus import any_of
from image2sentence.gallery.milvus.database import Database, Fields
from image2sentence.gallery.search.base import Hit

MAX_RESULTS = 16_384
"""Milvus's limit of results for one query."""

_MORE = 8
_ID_BATCH = 10_000
_MARGIN = 1e-5  # how far Milvus's float32 scores can be from ours


class MilvusSearcher:
    """Ranks a collection; vectors stay in the database.

    Candidates come from the database's index. Their vectors come with them, and are ranked anew by dot
    products in float64: with an exact index (FLAT) the answer is `Searcher`'s, with an approximate one that
    of `Searcher` over the candidates. Ids in `exclude` and `among` that are not there are passed over.
    """

    def __init__(
        self,
        database: Database,
        collection: str,
        width: int,
        index: str,
        compiled: Callable[[str | Filter], str],
    ) -> None:
        self._database = database
        self._collection = collection
        self._width = width
        self._index = index
        self._compiled = compiled

    def __len__(self) -> int:
        return self._database.count(self._collection)

    @property
    def ids(self) -> Sequence[Hashable]:
        """The ids in gallery order, read anew."""
        return sorted(int(row["id"]) for row in self._database.rows(self._collection, "", ["id"]))

    @property
    def width(self) -> int:
        """Width d of the vectors."""
        return self._width

    def vectors_of(self, ids: Sequence[Hashable]) -> Vectors:
        """(n, d) float32 vectors of n pictures, in the order of the ids. Raises QueryError on an unknown id."""
        wanted = [int(str(one)) for one in ids]
        found: dict[int, Vectors] = {}
        for start in range(0, len(wanted), _ID_BATCH):
            condition = any_of("id", wanted[start : start + _ID_BATCH])
            for row in self._database.rows(self._collection, condition, ["id", "vector"]):
                found[int(row["id"])] = np.asarray(row["vector"], np.float32)
        unknown = next((one for one in wanted if one not in found), None)
        if unknown is not None:
            raise QueryError(f"vectors_of: id {unknown!r} is not in the gallery")
        return np.stack([found[one] for one in wanted]) if wanted else np.empty((0, self._width), np.float32)

    def select(self, where: str | Filter) -> NDArray[np.int64]:
        """Ascending ids of the pictures that a filter holds for. Raises QueryError."""
        condition = self._compiled(where)
        rows = self._database.rows(self._collection, condition, ["id"])
        return np.array(sorted(int(row["id"]) for row in rows), np.int64)

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        exclude: Sequence[Collection[Hashable]] | None = None,
        among: Sequence[Collection[Hashable]] | None = None,
        where: str | Filter | None = None,
    ) -> list[list[Hit]]:
        """Rank the gallery for each query; see `Searcher.search`.

        At most `MAX_RESULTS` come. One more may be asked for, as a query does to learn whether there are more.
        """
        self._check(queries, k, exclude, among)
        k = min(k, MAX_RESULTS)
        condition = "" if where is None else self._compiled(where)
        return [
            self._ranked(
                query,
                k,
                condition,
                () if exclude is None else exclude[row],
                None if among is None else among[row],
            )
            for row, query in enumerate(queries)
        ]

    def _ranked(
        self,
        query: Vectors,
        k: int,
        condition: str,
        exclude: Collection[Hashable],
        among: Collection[Hashable] | None,
    ) -> list[Hit]:
        if exclude:
            condition = _both(condition, f"not ({any_of('id', _as_ids(exclude))})")
        if among is None:
            return self._best(query, k, condition)
        hits: list[Hit] = []
        wanted = _as_ids(among)
        for start in range(0, len(wanted), _ID_BATCH):
            part = any_of("id", wanted[start : start + _ID_BATCH])
            hits += self._best(query, k, _both(condition, part))
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k]

    def _best(self, query: Vectors, k: int, condition: str) -> list[Hit]:
        """The best k; asks for more while those left out could tie with the last."""
        wanted = min(k + _MORE, MAX_RESULTS)
        while True:
            ids, scores = self._candidates(query, wanted, condition)
            order = np.lexsort((ids, -scores))
            last = scores[order[k - 1]] if len(order) >= k else -np.inf
            if len(ids) < wanted or wanted == MAX_RESULTS or scores.min() < last - _MARGIN:
                return [Hit(int(ids[place]), float(scores[place])) for place in order[:k]]
            wanted = min(2 * wanted, MAX_RESULTS)

    def _candidates(
        self, query: Vectors, wanted: int, condition: str
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        found = self._database.search(
            self._collection,
            data=[query.tolist()],
            anns_field="vector",
            limit=wanted,
            filter=condition,
            output_fields=["vector"],
            search_params={"metric_type": "IP", "params": self._effort(wanted)},
        )[0]
        rows = np.asarray([_vector(hit) for hit in found], np.float32).reshape(len(found), self._width)
        scores = (rows * query.astype(np.float64)).sum(axis=1)
        return np.asarray([hit["id"] for hit in found], np.int64), scores

    def _effort(self, wanted: int) -> dict[str, Any]:
        """Search parameters of the index: how much of it is looked at."""
        if self._index == "HNSW":
            return {"ef": max(128, 2 * wanted)}
        return {"nprobe": 64} if self._index.startswith("IVF") else {}

    def _check(
        self,
        queries: Vectors,
        k: int,
        exclude: Sequence[Collection[Hashable]] | None,
        among: Sequence[Collection[Hashable]] | None,
    ) -> None:
        if queries.ndim != 2 or queries.dtype != np.float32 or queries.shape[1] != self._width:
            raise QueryError(
                f"expected float32 queries of shape (q, {self._width}), "
                f"got {queries.dtype} of shape {queries.shape}"
            )
        if not 1 <= k <= MAX_RESULTS + 1:
            raise QueryError(
                f"Milvus gives 1 to {MAX_RESULTS:,} results to a query, those before its first page and those to "
                "rerank included: ask for fewer"
            )
        bad = np.flatnonzero(~np.isfinite(queries).all(axis=1))
        if len(bad):
            raise QueryError(f"query {bad[0]} holds a value that is not finite")
        for name, ids in (("exclude", exclude), ("among", among)):
            if ids is not None and len(ids) != len(queries):
                raise QueryError(
                    f"`{name}` needs one collection of ids per query: {len(queries)}, got {len(ids)}"
                )


def _as_ids(ids: Collection[Hashable]) -> list[int]:
    return [int(str(one)) for one in ids]


def _both(first: str, second: str) -> str:
    return f"{first} and {second}" if first else second


def _vector(hit: Fields) -> list[float]:
    vector: list[float] = hit["entity"]["vector"]
    return vector
