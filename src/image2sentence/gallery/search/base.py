"""Interface of vector search and its hits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery.filters.language import Filter

Positions: TypeAlias = NDArray[np.int64]


Select: TypeAlias = Callable[[str | Filter], NDArray[np.int64]]
"""Gives the ascending ids that a filter holds for."""


class Hit(NamedTuple):
    """One result: the picture's id and its score, the dot product of query and picture vector."""

    id: Any
    score: float


@runtime_checkable
class VectorSearch(Protocol):
    """What ranks a gallery, wherever its vectors are; see `Searcher` for what each promises."""

    def __len__(self) -> int: ...

    @property
    def ids(self) -> Sequence[Hashable]:
        """The ids in gallery order."""
        ...

    @property
    def width(self) -> int:
        """Width d of the vectors."""
        ...

    def vectors_of(self, ids: Sequence[Hashable]) -> Vectors:
        """(n, d) float32 vectors of n pictures."""
        ...

    def select(self, where: str | Filter) -> NDArray[np.int64]:
        """Ascending ids of the pictures that a filter holds for; see `Gallery.select`."""
        ...

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        exclude: Sequence[Collection[Hashable]] | None = None,
        among: Sequence[Collection[Hashable]] | None = None,
        where: str | Filter | None = None,
    ) -> list[list[Hit]]:
        """Rank the gallery for each query; see `Searcher.search`."""
        ...
