"""Memory of text vectors that queries have in common: those of sentences alone and of words alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.lru_cache import LruCache

EncodeIds = Callable[[Vectors, Sequence[Sequence[int]]], Vectors]
"""Sentences (n, L, w), L 0 for words alone, and the token ids around them -> (n, d) float32 unit rows."""

_KEY_BYTES = 16


class TextMemory:
    """The text vectors asked for last; threads may share it.

    What is not remembered is encoded one row at a time: an int8 text graph takes its ranges from the whole batch, and
    what is remembered must not depend on which queries came together.

    Args:
        limit: Vectors kept.
    """

    def __init__(self, limit: int) -> None:
        self._vectors: LruCache[Vectors] = LruCache(limit)

    def vectors(self, sentences: Vectors, ids: Sequence[Sequence[int]], encode: EncodeIds) -> Vectors:
        """(n, d) float32 unit rows of at least one input, given as `encode` takes them."""
        return np.concatenate(
            [self._vector(sentences[row : row + 1], one, encode) for row, one in enumerate(ids)]
        )

    def _vector(self, sentence: Vectors, ids: Sequence[int], encode: EncodeIds) -> Vectors:
        key = _digest(sentence), tuple(ids)
        known = self._vectors.get(key)
        if known is None:
            known = encode(sentence, [ids])
            self._vectors.put(key, known)
        return known


def _digest(sentence: NDArray[np.float32]) -> bytes:
    """Of a (1, L, w) sentence; its length is in it."""
    return hashlib.blake2b(sentence.tobytes(), digest_size=_KEY_BYTES).digest()
