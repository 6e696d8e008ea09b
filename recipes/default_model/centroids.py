"""Where a caption points to: at the pictures of which it is true, in closed form.

Of n pictures of which a caption is true the mean is known, but for small n it has much in it that the caption did not
speak of. An additive model of all pictures of the source, v = sum over attributes of E[value], has none of that, and
steps the same way for a change of one attribute whatever the others are. Both together, n to `PRIOR`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.bundled import language
from recipes.default_model.pictures import Record

PRIOR = 6.0
RIDGE = 2.0
_BLOCK = 64
_SKIPPED = frozenset({"source", "label", "broader"})
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Additive:
    """`effects` (values, d) and the shares (values,) that each has of its attribute; `places` finds a value's row."""

    effects: Vectors
    shares: Vectors
    places: dict[tuple[str, str], int]
    mean: Vectors

    @classmethod
    def fit(cls, records: Sequence[Record], vectors: Vectors) -> Additive:
        """Least squares with a ridge over one-hot attributes."""
        named = [[(k, v) for k, v in record.items() if k not in _SKIPPED and v] for record in records]
        places = {pair: row for row, pair in enumerate(sorted({pair for row in named for pair in row}))}
        design = np.zeros((len(records), len(places)), np.float32)
        for row, pairs in enumerate(named):
            design[row, [places[pair] for pair in pairs]] = 1
        mean = vectors.mean(0)
        gram = design.T @ design + RIDGE * np.eye(len(places), dtype=np.float32)
        effects = np.linalg.solve(gram, design.T @ (vectors - mean)).astype(np.float32)
        return cls(effects, design.sum(0), places, mean)

    def expected(self, caption: language.Caption) -> Vectors:
        """(d,) the mean over what the caption leaves open of pictures of which it would be true."""
        meant = dict(caption.allowed)
        if caption.thing:
            meant["thing"] = frozenset({caption.thing})
        total = self.mean.copy()
        for name, values in meant.items():
            rows = [self.places[name, value] for value in sorted(values) if (name, value) in self.places]
            if not rows:
                continue
            every = [row for (other, _), row in self.places.items() if other == name]
            total += self._over(rows) - self._over(every)
        return total

    def _over(self, rows: Sequence[int]) -> Vectors:
        shares = self.shares[rows]
        result: Vectors = shares @ self.effects[rows] / shares.sum()
        return result


def caption_vectors(
    captions: Sequence[language.Caption],
    records: Sequence[Record],
    vectors: Vectors,
    subjects: Mapping[str, int],
) -> Vectors:
    """(captions, d) unit rows; `vectors` (n, d) are those of the pictures that `records` tell of, of one source."""
    model, facts = Additive.fit(records, vectors), language.facts(records, subjects)
    found = []
    for start in range(0, len(captions), _BLOCK):
        block = captions[start : start + _BLOCK]
        true = (language.judge(facts, block, subjects) == 1).astype(np.float32)
        additive = np.stack([model.expected(caption) for caption in block])
        found.append((true.T @ vectors + PRIOR * additive) / (true.sum(0)[:, None] + PRIOR))
    rows = np.concatenate(found)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
