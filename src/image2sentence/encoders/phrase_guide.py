"""Guiding phrases: a model's own words for a picture, beside its sentence.

A light image encoder's sentence lies near the words that the VL model would choose for the picture, not on them. Where
a list of phrases is at hand (a shop's titles, every kind in every colour), the sentence is read on its own first, and
the phrases nearest to it are applied to the query. With s the sentence, m the user's words, T the text vector
and unit() normalisation:

    h = T(s);  c_1 .. c_k the phrases with the largest h . T(c);  w_j = softmax_j(h . T(c_j) / temperature)
    g = (h . T(c_1) - low) / (high - low), cut off at 0 and 1
    query = unit((1 - g) T(s m) + g unit(sum_j w_j (T(c_j m) + residual (h - T(c_j)))))

The residual keeps what a phrase leaves unsaid of the picture, as the target of modifier-aware distillation does. A
picture that no phrase describes (g = 0) is asked about by its sentence alone. All of it is text: the picture is seen
by the light encoder only, and the phrases' vectors are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.config import GuideConfig
from image2sentence.encoders.model_folder import (
    GUIDE,
    ModelFolder,
)
from image2sentence.encoders.protocols import Vectors
from image2sentence.encoders.vector_table import read_vector_table
from image2sentence.errors import ModelError

if TYPE_CHECKING:
    pass

PHRASES, VECTORS = GUIDE
MAX_PHRASES = 200_000
"""More would be slow to go through at each query."""

_BLOCK = 64

EncodeTexts = Callable[[Sequence[str]], Vectors]
"""Texts -> (n, d) float32 unit rows."""


@dataclass(frozen=True)
class Near:
    """For n pictures: the nearest phrases (n, k) by number, their weights (n, k), and the trust in them (n,)."""

    phrases: NDArray[np.int64]
    weights: Vectors
    trust: Vectors


class Guide:
    """Phrases with their text vectors, `vectors` (n, d) float32 unit rows.

    Args:
        phrases: n texts.
        vectors: (n, d) numbers of any float or integer type; only their directions count.
        settings: How they are used.
    """

    def __init__(self, phrases: Sequence[str], vectors: NDArray[np.generic], settings: GuideConfig) -> None:
        self.phrases, self.settings = tuple(phrases), settings
        rows = vectors.astype(np.float32)
        self.vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    @classmethod
    def read(cls, folder: ModelFolder) -> Guide | None:
        """A model folder's; None where it has none. Raises ModelError on files that do not belong together."""
        settings = folder.config.guide
        if settings is None:
            return None
        where = folder.path / VECTORS
        try:
            phrases = folder.read(PHRASES).decode("utf-8").splitlines()
            vectors = read_vector_table(folder.read(VECTORS))
        except ValueError as error:
            raise ModelError(f"{where} is not a table of vectors with phrases beside it: {error}") from error
        if len(phrases) > MAX_PHRASES:
            raise ModelError(f"{where} has {len(phrases):,} phrases: expected at most {MAX_PHRASES:,}")
        if vectors.dtype != np.int8 or vectors.shape != (len(phrases), folder.config.width):
            raise ModelError(
                f"expected int8 vectors ({len(phrases)}, {folder.config.width}) in {where}, "
                f"got {vectors.dtype} {vectors.shape}"
            )
        if not vectors.any(axis=1).all():
            raise ModelError(f"{where} holds a vector of zeros")
        return cls(phrases, vectors, settings)

    def near(self, sentence_embeddings: Vectors) -> Near:
        """The phrases nearest to (n, d) unit rows, of equal ones the first."""
        scores = sentence_embeddings @ self.vectors.T
        count = min(self.settings.neighbours, len(self.phrases))
        one = count == 1  # without sorting them all
        phrases = scores.argmax(1)[:, None] if one else np.argsort(-scores, axis=1, kind="stable")[:, :count]
        best = np.take_along_axis(scores, phrases, axis=1)
        weights = np.exp((best - best[:, :1]) / self.settings.temperature)
        low, high = self.settings.low, self.settings.high
        trust = np.clip((best[:, 0] - low) / (high - low), 0, 1)
        return Near(phrases, weights / weights.sum(axis=1, keepdims=True), trust.astype(np.float32))

    def apply(
        self, plain: Vectors, sentence_embeddings: Vectors, texts: Sequence[str], encode_texts: EncodeTexts
    ) -> Vectors:
        """Query vectors with the phrases' part in them.

        Args:
            plain: (n, d) unit rows, T(s m).
            sentence_embeddings: (n, d) unit rows, T(s).
            texts: n modifiers m, none of them empty.
            encode_texts: Gives T of texts; a phrase and a modifier are joined by a blank, as in training.

        Returns:
            (n, d) float32, of any length.
        """
        near = self.near(sentence_embeddings)
        rows = np.flatnonzero(near.trust > 0)
        result: Vectors = plain.copy()
        if len(rows):
            texts_of_phrases = [
                f"{self.phrases[phrase]} {texts[row]}"
                for row in rows.tolist()
                for phrase in near.phrases[row]
            ]
            vectors = encode_texts(texts_of_phrases).reshape(len(rows), -1, plain.shape[1])
            rest = sentence_embeddings[rows, None] - self.vectors[near.phrases[rows]]
            words = np.einsum("nk,nkd->nd", near.weights[rows], vectors + self.settings.residual * rest)
            words /= np.linalg.norm(words, axis=1, keepdims=True)
            trust = near.trust[rows, None]
            result[rows] = (1 - trust) * plain[rows] + trust * words
        return result
