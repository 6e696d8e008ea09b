"""Nearest real words to a pseudo-word."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from image2sentence.encoders.model_folder import TOKENIZER, ModelFolder
from image2sentence.encoders.protocols import Encoder, Vectors
from image2sentence.encoders.tokenizer_file import read_tokenizer
from image2sentence.query import KnowsWords

MAX_WORDS = 4_096
"""Words compared with, those with the lowest token ids: BERT's vocabulary has its words in the order of their use."""

_BATCH = 64
_ALIKE = 0.99  # cosine from which two words may be read alike: an int8 graph reads one word otherwise in each batch


class NearWord(NamedTuple):
    """A real word, and the cosine of its meaning and the pseudo-word's, -1 to 1."""

    word: str
    nearness: float


class NearestWords:
    """Words and pseudo-words as vectors of the text encoder, each without the mean of all words.

    A pseudo-word is asked as a sentence of its own. Nearness in the word-embedding table says less: the light side is
    trained for what the text encoder makes of its sentences, not for where they lie in that table.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()
        self._ready: tuple[list[str], Vectors, Vectors] | None = None

    def prepare(self) -> None:
        """Encode the vocabulary, once."""
        if isinstance(self._encoder, KnowsWords):
            self._vocabulary(self._encoder)

    def nearest(self, sentence: Vectors, count: int) -> list[list[NearWord]]:
        """(1, L, w) -> for each of the L pseudo-words its `count` nearest words, nearest first.

        Empty for an encoder whose words are not known.
        """
        if not isinstance(self._encoder, KnowsWords):
            return []
        words, vectors, mean = self._vocabulary(self._encoder)
        alone = np.swapaxes(sentence, 0, 1)  # (L, 1, w): L sentences of one pseudo-word
        asked = centred(self._encoder.encode_queries(alone, [""] * len(alone)), mean)
        return [
            [NearWord(words[place], float(row[place])) for place in np.argsort(-row, kind="stable")[:count]]
            for row in asked @ vectors.T
        ]

    def _vocabulary(self, encoder: KnowsWords) -> tuple[list[str], Vectors, Vectors]:
        with self._lock:
            if self._ready is None:
                words = _words(encoder.folder)
                blocks = (words[start : start + _BATCH] for start in range(0, len(words), _BATCH))
                vectors = np.concatenate([self._encoder.encode_queries(None, block) for block in blocks])
                own = self._distinct(words, vectors)
                words, vectors = [words[place] for place in own], vectors[own]
                mean = vectors.mean(axis=0, keepdims=True)
                self._ready = words, centred(vectors, mean), mean
            return self._ready

    def _distinct(self, words: list[str], vectors: Vectors) -> list[int]:
        """The places of words that are not read exactly as an earlier one, as plurals may be."""
        pairs = np.argwhere(np.triu(vectors @ vectors.T > _ALIKE, 1)).tolist()
        alone = {
            place: self._encoder.encode_queries(None, [words[place]])
            for place in sorted({place for pair in pairs for place in pair})
        }
        again = {later for first, later in pairs if np.array_equal(alone[first], alone[later])}
        return [place for place in range(len(words)) if place not in again]


def _words(folder: ModelFolder) -> list[str]:
    """Whole words of the vocabulary that have a meaning of their own: letters only, more than one."""
    vocabulary = read_tokenizer(folder.read(TOKENIZER), folder.path / TOKENIZER).get_vocab()
    words = sorted((number, word) for word, number in vocabulary.items() if word.isalpha() and len(word) > 1)
    return [word for _, word in words[:MAX_WORDS]]


def centred(vectors: Vectors, mean: Vectors) -> Vectors:
    """(n, d) unit rows without what they have in common, as unit rows again."""
    moved = vectors - mean
    return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-6), np.float32)
