"""Vectors of words and of WordNet's synsets in one space, by whatever they were made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Meanings:
    """Unit rows: `words` (W, d) and `synsets` (S, d), with the place of each."""

    words: NDArray[np.float32]
    word_rows: dict[str, int]
    synsets: NDArray[np.float32]
    synset_rows: dict[str, int]

    def word(self, text: str) -> NDArray[np.float32] | None:
        """A word's vector (d,), None for one that is not there."""
        row = self.word_rows.get(text.lower())
        return None if row is None else self.words[row]


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of unit length; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-9), np.float32)
