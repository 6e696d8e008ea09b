"""Falls back to the weighted sum for modifiers unlike those of training.

A trained query side composes well what it was trained to compose; of words unlike any modifier of its training it makes
too much. With s the sentence, m the user's words, T the text vector, m_i the modifiers of training and unit()
normalisation:

    g = (max_i T(m) . T(m_i) - low) / (high - low), cut off at 0 and 1
    query = unit(g T(s m) + (1 - g) unit((1 - weight) T(s) + weight T(m)))

Words that training had (g = 1) are not changed at all. All of it is text: the reference image is seen by the light
encoder only, and the vectors of training's modifiers are computed once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.config import FallbackConfig
from image2sentence.encoders.interpolation import weighted_sum
from image2sentence.encoders.model_folder import FALLBACK, ModelFolder
from image2sentence.encoders.protocols import Vectors
from image2sentence.encoders.vector_table import read_vector_table
from image2sentence.errors import ModelError

MAX_MODIFIERS = 50_000
"""More would be slow to go through at each query."""


class SumFallback:
    """Training's modifiers as text vectors.

    Args:
        vectors: (n, d) numbers of any float or integer type; only their directions count.
        settings: How they are used.
    """

    def __init__(self, vectors: NDArray[np.generic], settings: FallbackConfig) -> None:
        rows = vectors.astype(np.float32)
        self.vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self.settings = settings

    @classmethod
    def read(cls, folder: ModelFolder) -> SumFallback | None:
        """A model folder's; None where it has none. Raises ModelError on a file that is not such a table."""
        settings = folder.config.fallback
        if settings is None:
            return None
        where = folder.path / FALLBACK
        try:
            vectors = read_vector_table(folder.read(FALLBACK))
        except ValueError as error:
            raise ModelError(f"{where} is not a table of vectors: {error}") from error
        width = folder.config.width
        if vectors.dtype != np.int8 or vectors.ndim != 2 or vectors.shape[1] != width:
            raise ModelError(
                f"expected int8 vectors (n, {width}) in {where}, got {vectors.dtype} {vectors.shape}"
            )
        if not 0 < len(vectors) <= MAX_MODIFIERS or not vectors.any(axis=1).all():
            raise ModelError(f"expected 1 to {MAX_MODIFIERS:,} vectors in {where}, none of zeros")
        return cls(vectors, settings)

    def trust(self, words: Vectors) -> Vectors:
        """How far the composed query is trusted, (n,) float32 in 0..1, for unit rows T(m) (n, d)."""
        low, high = self.settings.low, self.settings.high
        nearest = (words @ self.vectors.T).max(axis=1)
        return np.asarray(np.clip((nearest - low) / (high - low), 0, 1), np.float32)

    def apply(
        self, composed: Vectors, words: Vectors, embed_sentences: Callable[[NDArray[np.int64]], Vectors]
    ) -> Vectors:
        """Query vectors with the weighted sum's part in them.

        Args:
            composed: (n, d) unit rows, T(s m).
            words: (n, d) unit rows, T(m).
            embed_sentences: Gives T(s) of these rows, (k, d) unit rows; called only where a row needs it.

        Returns:
            (n, d) float32 unit rows.
        """
        trust = self.trust(words)
        rows = np.flatnonzero(trust < 1)
        result: Vectors = composed.copy()
        if len(rows):
            sums = weighted_sum(embed_sentences(rows), words[rows], self.settings.weight)
            result[rows] = weighted_sum(sums, composed[rows], trust[rows, None])
        return result
