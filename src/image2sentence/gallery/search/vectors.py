"""Vectors in gallery order, in one array or an index file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery.search.faiss_index import AnnIndex


class Rows:
    """(n, d) float32 vectors by position.

    Args:
        stored: Vectors of which `places` names some.
        newer: Vectors that come after them; place len(stored) + i is newer[i].
        places: (n,) int64 for each position its place; None where position and place are the same.
    """

    def __init__(
        self, stored: Vectors, newer: Vectors | None = None, places: NDArray[np.int64] | None = None
    ) -> None:
        self._stored = stored
        self._newer = stored[:0] if newer is None else newer
        self._places = places

    def __len__(self) -> int:
        return len(self._stored) if self._places is None else len(self._places)

    @property
    def width(self) -> int:
        """Width d."""
        return int(self._stored.shape[1])

    def take(self, positions: NDArray[np.int64] | slice) -> Vectors:
        """(m, d) vectors at some positions; a slice of one array is not copied."""
        if self._places is None:
            stored = self._stored
            return stored[positions] if isinstance(positions, slice) else stored.take(positions, axis=0)
        places = self._places[positions]
        taken = np.empty((len(places), self.width), np.float32)
        late = places >= len(self._stored)
        taken[~late] = self._stored[places[~late]]
        taken[late] = self._newer[places[late] - len(self._stored)]
        return taken

    def blocks(self, rows: int) -> Iterator[tuple[int, Vectors]]:
        """(first position, vectors) of blocks of so many rows."""
        for start in range(0, len(self), rows):
            yield start, self.take(slice(start, min(start + rows, len(self))))


@dataclass(frozen=True)
class Nearby:
    """An approximate index over most positions, in terms of positions.

    Attributes:
        index: Its labels are places in a file's vectors.
        position_of: (m,) the position of each label's vector, -1 where the gallery has it no more; None where label
            and position are the same.
        newer: Ascending positions that the index does not know.
        count: Number of positions.
    """

    index: AnnIndex
    position_of: NDArray[np.int64] | None
    newer: NDArray[np.int64]
    count: int

    def candidates(
        self, queries: Vectors, k: int, allowed: NDArray[np.int64] | None
    ) -> list[NDArray[np.int64]]:
        """For each query, ascending positions that hold its best k among those the index knows.

        `allowed` are the only positions that may come; None for all.
        """
        found = self.index.nearest(queries, k, allowed=self._labels(allowed))
        return [self._positions(row[row >= 0]) for row in found]

    def _labels(self, allowed: NDArray[np.int64] | None) -> NDArray[np.bool_] | None:
        if self.position_of is None and allowed is None:
            return None
        may = np.ones(self.count, bool)
        if allowed is not None:
            may[:] = False
            may[allowed] = True
        if self.position_of is None:
            return may
        return np.asarray(np.append(may, False)[self.position_of])

    def _positions(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.sort(labels if self.position_of is None else self.position_of[labels])
