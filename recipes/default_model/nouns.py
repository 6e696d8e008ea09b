"""What nouns look like, in closed form: vectors in the space of MobileNetV2's classifier.

A synset with ImageNet classes at or below it is the mean of their rows. Any other one is the mean of the known
synsets that are nearest to it in WordNet's glosses (glove.py), the nearer the more. How many and how sharply is chosen
by leaving known classes out: no picture takes part.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recipes.default_model.meanings import Meanings
from recipes.default_model.wordnet import WordNet

_WORD = re.compile(r"[a-z0-9'-]+")
Vectors = NDArray[np.float32]
_SHARPNESS = (8.0, 16.0, 32.0, 64.0)
_NEIGHBOURS = (2, 4, 8, 16, 32)
_LATER_SENSES = 0.25  # what a word's second synset counts beside its first, its third beside its second
_GUESSED = 0.15  # what a guessed synset counts beside a known one


@dataclass(frozen=True)
class Nouns:
    """`vector` gives a synset's unit vector; `classes` are the keys of ImageNet's (None: not in WordNet)."""

    wordnet: WordNet
    meanings: Meanings
    classes: Sequence[str | None]
    known: dict[str, Vectors]
    neighbours: int
    sharpness: float

    @classmethod
    def build(
        cls, wordnet: WordNet, meanings: Meanings, names: Sequence[tuple[str, ...]], rows: Vectors
    ) -> Nouns:
        """`rows` (classes, d) are the classes' centred vectors, of unit length."""
        classes: list[str | None] = []
        for own in names:  # ImageNet has two cranes, and the bird comes first
            classes.append(wordnet.synset_of(own, frozenset(key for key in classes if key)))
        below: dict[str, list[int]] = {}
        for number, key in enumerate(classes):
            for above in [key, *wordnet.above(key)] if key else ():
                below.setdefault(above, []).append(number)
        known = {
            key: _unit(rows[numbers].mean(0))
            for key, numbers in below.items()
            if len(numbers) < len(rows) / 2
        }
        neighbours, sharpness = _choose(meanings, classes, rows)
        return cls(wordnet, meanings, classes, known, neighbours, sharpness)

    def vectors(self, keys: Sequence[str]) -> Vectors:
        """(n, d) unit rows of synsets."""
        missing = [key for key in dict.fromkeys(keys) if key not in self.known]
        guessed = dict(zip(missing, self._guess(missing), strict=True)) if missing else {}
        return np.stack([self.known[key] if key in self.known else guessed[key] for key in keys])

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Words that have a vector: names of what ImageNet knows and of what is above it, then the most frequent."""
        wordnet = self.wordnet
        known = [word.lower() for key in self.known for word in wordnet.synsets[key].words]
        frequent = [word for word, count in wordnet.frequency.items() if count and _WORD.fullmatch(word)]
        seen = dict.fromkeys([*known, *sorted(frequent, key=lambda word: (-wordnet.frequency[word], word))])
        return tuple(word for word in seen if self.word(word) is not None)

    def word(self, text: str) -> Vectors | None:
        """A noun's unit vector over its visible synsets; None where WordNet has none."""
        senses = [
            key
            for key in self.wordnet.senses.get(text, ())
            if key in self.known or self.wordnet.synsets[key].visible
        ][:3]
        if not senses:
            return None
        if self.wordnet.synsets[senses[0]].is_substance and senses[0] not in self.known:
            return self.described(text)
        shares = [
            _LATER_SENSES**place * (1 if key in self.known else _GUESSED) for place, key in enumerate(senses)
        ]
        return _unit(np.array(shares, np.float32) @ self.vectors(senses))

    def described(self, text: str) -> Vectors | None:
        """The unit vector of known things whose glosses speak of this word, such as "leather"; None if none could."""
        asked = self.meanings.word(text)
        return None if asked is None else self._near(asked[None])[0]

    def _guess(self, keys: Sequence[str]) -> Vectors:
        return self._near(self.meanings.synsets[[self.meanings.synset_rows[key] for key in keys]])

    def _near(self, asked: Vectors) -> Vectors:
        glosses, rows = self._library
        return _weighted(asked, glosses, rows, self.neighbours, self.sharpness)

    @cached_property
    def _library(self) -> tuple[Vectors, Vectors]:
        """Gloss vectors of the known synsets, and what they look like."""
        glosses = self.meanings.synsets[[self.meanings.synset_rows[key] for key in self.known]]
        return glosses, np.stack(list(self.known.values()))


def _choose(meanings: Meanings, classes: Sequence[str | None], rows: Vectors) -> tuple[int, float]:
    """What puts each class's own row first among all, guessed from the others', by mean reciprocal rank."""
    found = [number for number, key in enumerate(classes) if key]
    glosses = meanings.synsets[[meanings.synset_rows[str(classes[number])] for number in found]]
    own = rows[found]

    def fit(pair: tuple[int, float]) -> float:
        scores = _weighted(glosses, glosses, own, *pair, leave_out=True) @ own.T
        before = (scores > np.diag(scores)[:, None]).sum(1)
        return float((1 / (1 + before)).mean())

    return max(itertools.product(_NEIGHBOURS, _SHARPNESS), key=fit)


def _weighted(
    asked: Vectors, glosses: Vectors, rows: Vectors, count: int, sharpness: float, leave_out: bool = False
) -> Vectors:
    """Means of `rows` over the `count` nearest of `glosses`, softmax of `sharpness` times cosine."""
    likeness = asked @ glosses.T
    if leave_out:
        np.fill_diagonal(likeness, -1)
    count = min(count, len(rows) - int(leave_out))
    nearest = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
    weights = np.exp(sharpness * (np.take_along_axis(likeness, nearest, 1) - 1))
    return _unit((weights[..., None] * rows[nearest]).sum(1))


def _unit(rows: NDArray[np.floating]) -> Vectors:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9), np.float32)
