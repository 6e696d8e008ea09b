"""Approximate search by FAISS, for candidates that are ranked exactly afterwards.

An inverted file: vectors are grouped around centres by k-means and kept in 8 bits a value; a query looks into the
groups whose centres are nearest. What it finds is ranked again from the full vectors by the Searcher, so that an error
can only be a result that is missing, never a wrong score. (Douze et al., The Faiss library, arXiv 2401.08281.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from types import ModuleType
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import ConfigError
from image2sentence.gallery.search.faiss_bytes import require_own_form

Code: TypeAlias = Literal["sq8", "pq"]
"""How vectors are kept in the index: 1 byte a value, or product quantisation of 4 values into 1 byte."""

EXACT_BELOW = 50_000
"""Pictures from which on an approximate index is made: exact search of fewer takes 2 ms."""

_PQ_FROM = 10_000_000
_TRAINED_PER_LIST = 50
_ROUNDS = 10
_TRIALS = 256
_BLOCK = 100_000
_K = 10
# Vectors that a lone query looks at from which on its groups are shared out to threads; fewer take 0.2 ms.
_SHARED_OUT_FROM = 8_000


@dataclass(frozen=True)
class AnnSettings:
    """How the index is made. What is None is chosen: from the number of vectors, or by trial for the recall.

    Attributes:
        recall: Share of the exact 10 best that a query must find, on trial queries.
        exact_below: Number of pictures below which there is no index.
        code: "sq8" below ten million vectors, else "pq".
        lists: Groups of vectors: the power of two nearest 4 sqrt(n).
        probes: Groups looked into: the fewest that reach the recall.
        rerank: Candidates ranked again for each result wanted, and at least ten times as many.
    """

    recall: float = 0.99
    exact_below: int = EXACT_BELOW
    code: Code | None = None
    lists: int | None = None
    probes: int | None = None
    rerank: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise ConfigError(f"recall is a share: expected more than 0 and at most 1, got {self.recall}")
        if self.code not in (None, *get_args(Code)):
            raise ConfigError(f"code: expected one of {', '.join(get_args(Code))}, got {self.code!r}")
        for name in ("exact_below", "lists", "probes", "rerank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class AnnParameters:
    """What an index was made with; `measured` is the recall at 10 on the trial queries."""

    code: Code
    lists: int
    probes: int
    rerank: int
    measured: float

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AnnParameters:
        """The reverse of `as_dict`. Raises KeyError or TypeError on anything else."""
        made = cls(**{field.name: values[field.name] for field in fields(cls)})
        whole = (made.lists, made.probes, made.rerank)
        if made.code not in get_args(Code) or any(type(one) is not int or one < 1 for one in whole):
            raise TypeError(f"expected a code and numbers from 1 on, got {values!r:.200}")
        if not isinstance(made.measured, float) or not 0 <= made.measured <= 1:
            raise TypeError(f"expected a recall from 0 to 1, got {made.measured!r:.80}")
        return made


def faiss_module() -> ModuleType | None:
    """FAISS, None where it is not installed."""
    try:
        import faiss
    except ModuleNotFoundError:
        return None
    module: ModuleType = faiss
    return module


class AnnIndex:
    """A FAISS index and the parameters to ask it with; its labels are the rows that it was made from."""

    def __init__(self, index: Any, parameters: AnnParameters) -> None:
        self._index = index
        self.parameters = parameters

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def to_bytes(self) -> NDArray[np.uint8]:
        """The index as FAISS writes it. Raises ConfigError where that is not a form that would be read again."""
        data: NDArray[np.uint8] = _faiss().serialize_index(self._index)
        try:
            require_own_form(data, self.parameters.code, self.parameters.lists, len(self), self._index.d)
        except ValueError as error:
            raise ConfigError(
                f"FAISS {_faiss().__version__} writes indexes in a form that is not known here ({error}): install "
                "another version of faiss-cpu, or search without an index"
            ) from error
        return data

    @classmethod
    def from_bytes(
        cls, data: NDArray[np.uint8], parameters: AnnParameters, count: int, width: int
    ) -> AnnIndex:
        """The reverse of `to_bytes`, of an index of (count, width) vectors.

        Raises ValueError for bytes that no index written here has, before FAISS, which trusts them, sees them.
        """
        require_own_form(data, parameters.code, parameters.lists, count, width)
        return cls(_faiss().deserialize_index(data), parameters)

    def fits(self, count: int, width: int) -> bool:
        """Whether it is an inverted file of so many vectors of this width, with the lists that are said of it."""
        index = self._index
        return (
            isinstance(index, _faiss().IndexIVF)
            and (index.ntotal, index.d, index.nlist) == (count, width, self.parameters.lists)
            and index.metric_type == _faiss().METRIC_INNER_PRODUCT
        )

    def nearest(
        self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Rows that hold the best of each query.

        Args:
            queries: (q, d) float32.
            k: Results wanted of them.
            allowed: (n,) which rows may come; None for all.

        Returns:
            (q, m) int64 rows, m >= k, in no stated order; -1 where fewer were found.
        """
        faiss = _faiss()
        wanted = min(max(k, _K) * self.parameters.rerank, max(len(self), 1))
        # Tuned for 10 results: the further ones of a longer list lie further out.
        probes = min(self.parameters.lists, round(self.parameters.probes * max(1.0, k / _K) ** 0.5))
        settings: dict[str, Any] = {"nprobe": probes}
        if allowed is not None:
            # Where a part p of the rows is allowed, the best lie about 1 / p times as far around.
            share = max(float(allowed.mean()), 1 / max(len(self), 1))
            settings["nprobe"] = min(self.parameters.lists, round(probes / share))
            bits = np.packbits(allowed, bitorder="little")
            settings["sel"] = faiss.IDSelectorBitmap(bits)
        looked_at = settings["nprobe"] * len(self) / self.parameters.lists
        # FAISS shares out queries (0) or one query's groups (1): results are the same, whatever another thread sets.
        self._index.parallel_mode = int(len(queries) == 1 and looked_at >= _SHARED_OUT_FROM)
        _, found = self._index.search(queries, wanted, params=faiss.SearchParametersIVF(**settings))
        return np.asarray(found, np.int64)


def build(vectors: Vectors, settings: AnnSettings, seed: int = 0) -> AnnIndex:
    """Make an index of (n, d) float32 unit rows; the same rows, settings and threads give the same index.

    Raises:
        ConfigError: FAISS is not installed, or the width is not divisible by 4 and the code is "pq".
    """
    code = settings.code or ("sq8" if len(vectors) < _PQ_FROM else "pq")
    lists = settings.lists or _lists(len(vectors))
    index = _trained(vectors, code, lists, np.random.default_rng(seed))
    for start in range(0, len(vectors), _BLOCK):
        index.add(np.ascontiguousarray(vectors[start : start + _BLOCK]))
    rerank = settings.rerank or (10 if code == "sq8" else 40)
    made = AnnIndex(index, AnnParameters(code, lists, settings.probes or 1, rerank, 0.0))
    return _tuned(made, vectors, settings, np.random.default_rng(seed + 1))


def _faiss() -> ModuleType:
    module = faiss_module()
    if module is None:
        raise ConfigError("an index of so many pictures needs FAISS: pip install 'image2sentence[faiss]'")
    return module


def _lists(count: int) -> int:
    return int(2 ** round(np.log2(max(4 * count**0.5, 1))))


def _trained(vectors: Vectors, code: Code, lists: int, rng: np.random.Generator) -> Any:
    faiss = _faiss()
    count, width = vectors.shape
    if lists > count:
        raise ConfigError(f"lists: expected at most one for each of the {count} vectors, got {lists}")
    if code == "pq" and width % 4:
        raise ConfigError(f"the code pq needs a width divisible by 4, got {width}: choose sq8")
    kind = "SQ8" if code == "sq8" else f"PQ{width // 4}"
    index = faiss.index_factory(width, f"IVF{lists},{kind}", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = _ROUNDS
    # FAISS warns of fewer points per centre than this; a small sample is what was asked for.
    index.cp.min_points_per_centroid = 1
    if code == "pq":
        index.pq.cp.min_points_per_centroid = 1
    sample = np.sort(rng.choice(count, min(count, max(_TRAINED_PER_LIST * lists, 20_000)), replace=False))
    index.train(np.ascontiguousarray(vectors[sample]))
    return index


def _tuned(made: AnnIndex, vectors: Vectors, settings: AnnSettings, rng: np.random.Generator) -> AnnIndex:
    """The index with the fewest probes that reach the recall, in steps of a quarter more."""
    trials = _trial_queries(vectors, rng)
    best = _exact(vectors, trials)
    p = made.parameters
    probes = p.probes
    while True:
        candidate = AnnIndex(made._index, AnnParameters(p.code, p.lists, probes, p.rerank, 0.0))
        recall = _recall(candidate, vectors, trials, best)
        if settings.probes is not None or recall >= settings.recall or probes >= p.lists:
            return AnnIndex(made._index, AnnParameters(p.code, p.lists, probes, p.rerank, recall))
        probes = min(p.lists, max(probes + 1, round(1.25 * probes)))


def _trial_queries(vectors: Vectors, rng: np.random.Generator) -> Vectors:
    """Queries beside the gallery: halves are a picture's vector, turned, and a mean of two pictures' vectors.

    Composed queries lie between pictures rather than on one, and are harder; the mean stands for them.
    """
    one, other = (vectors[np.sort(rng.choice(len(vectors), _TRIALS))] for _ in range(2))
    far = other[rng.permutation(_TRIALS)]
    weight = np.where(np.arange(_TRIALS) % 2, 0.5, 0.15).astype(np.float32)[:, None]
    mixed = (1 - weight) * one + weight * far
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), np.float32)


def _exact(vectors: Vectors, queries: Vectors) -> list[set[int]]:
    """The 10 best rows of each query."""
    scores = np.full((len(queries), _K), -np.inf, np.float32)
    rows = np.full((len(queries), _K), -1, np.int64)
    for start in range(0, len(vectors), _BLOCK):
        block = queries @ vectors[start : start + _BLOCK].T
        there = np.argpartition(block, -min(_K, block.shape[1]), axis=1)[:, -_K:]
        scores = np.concatenate([scores, np.take_along_axis(block, there, 1)], axis=1)
        rows = np.concatenate([rows, there + start], axis=1)
        kept = np.argpartition(scores, -_K, axis=1)[:, -_K:]
        scores, rows = np.take_along_axis(scores, kept, 1), np.take_along_axis(rows, kept, 1)
    return [set(row.tolist()) for row in rows]


def _recall(index: AnnIndex, vectors: Vectors, queries: Vectors, best: Sequence[set[int]]) -> float:
    """Share of the best that the candidates, ranked again, hold; here: that are among the candidates."""
    found = index.nearest(queries, _K)
    hits = (len(right & set(row.tolist())) / len(right) for right, row in zip(best, found, strict=True))
    return float(np.mean(list(hits)))
