"""The loss of one emoji in several drawing styles, beside the contrastive one.

An emoji's vector, moved by the difference of two styles, has to lie nearest to the same emoji in the other style, among
all pictures of the batch. Names cannot do this for a thing that was never named in training; what two drawings of it
have in common can. The nearest wrong answers are drawn into the batch on purpose: the same emoji in a third style, its
other tones and genders, and emoji that the model to begin with takes for much the same. The styles' vectors are thrown
away afterwards, as those of attribute_loss.py are.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from recipes.bundled import language

_MOST_VARIANTS = 3  # tones and genders of one subject that a batch may hold side by side
_NEAR = 12  # look-alikes of an emoji, of other subjects, among which a batch's are drawn
_MOST_ALIKE = 3


class StylePairTable:
    """Which pictures show the same emoji (subject, skin tone, gender word), each in `styles` styles or more.

    With `vectors` (records, d), a model's of these pictures, it knows which emoji look alike, too.
    """

    def __init__(
        self,
        records: Sequence[language.Record],
        styles: int = 2,
        vectors: NDArray[np.float32] | None = None,
    ) -> None:
        pictures: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
        for row, record in enumerate(records):
            if record["source"] == "emoji":
                identity = (record["thing"], record["skin_tone"], record["gender_word"])
                pictures[identity][record["style"]] = row
        self._styles = styles
        self._emoji: list[list[int]] = []
        by_subject: dict[str, list[int]] = defaultdict(list)
        for (thing, *_), drawings in sorted(pictures.items()):
            if len(drawings) >= styles:
                by_subject[thing].append(len(self._emoji))
                self._emoji.append(sorted(drawings.values()))
        self._subjects = list(by_subject.values())
        self._alike = None if vectors is None else self._look_alikes(records, vectors)

    def draw(self, count: int, choose: np.random.Generator) -> NDArray[np.int64]:
        """(styles, `count`) int64: pictures, and under each one the same emoji in other styles; no emoji twice.

        Raises:
            ValueError: the table has fewer than `count` emoji in so many styles.
        """
        if count > len(self._emoji):
            raise ValueError(f"asked for {count} emoji in {self._styles} styles, and there are fewer")
        drawn: dict[int, None] = {}
        while len(drawn) < count:
            variants = self._subjects[choose.integers(len(self._subjects))]
            some = choose.permutation(len(variants))[: choose.integers(1, _MOST_VARIANTS + 1)]
            drawn |= dict.fromkeys(variants[place] for place in some)
            if self._alike is not None:
                alike = choose.permutation(self._alike[variants[some[0]]])
                drawn |= dict.fromkeys(alike[: choose.integers(1, _MOST_ALIKE + 1)].tolist())
        rows = [choose.permutation(self._emoji[emoji])[: self._styles] for emoji in list(drawn)[:count]]
        return np.array(rows, np.int64).reshape(-1, self._styles).T

    def _look_alikes(
        self, records: Sequence[language.Record], vectors: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """(emoji, near): for each emoji the nearest ones of other subjects, by vectors without their style's mean."""
        styles = np.array([record.get("style", "") for record in records])
        plain = vectors.copy()
        for style in set(styles):
            plain[styles == style] -= vectors[styles == style].mean(0)
        means = np.stack([plain[rows].mean(0) for rows in self._emoji])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        nearness = means @ means.T
        for variants in self._subjects:
            nearness[np.ix_(variants, variants)] = -np.inf
        others = len(self._emoji) - max(map(len, self._subjects))
        return nearness.argsort(1)[:, ::-1][:, : min(_NEAR, others)]


class StylePairLoss(nn.Module):
    """The loss: InfoNCE from a picture's vector, moved to another drawing's style, to that drawing, times `weight`."""

    def __init__(self, styles: int, width: int, weight: float, temperature: float = 0.05) -> None:
        super().__init__()
        self.weight, self.temperature = weight, temperature
        self.styles = nn.Parameter(torch.zeros(styles, width))

    def forward(self, pictures: Tensor, styles: Tensor, pairs: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            pictures: (B, d), unit vectors.
            styles: (B,) int64, each picture's style; -1 for those without.
            pairs: (B, k) int64, where in the batch the other drawings of each picture's emoji are; -1 for none.
        """
        rows, columns = (pairs >= 0).nonzero(as_tuple=True)
        if not len(rows):
            return pictures.new_zeros(())
        right = pairs[rows, columns]
        moved = self.styles[styles[right]] - self.styles[styles[rows]]
        asked = functional.normalize(pictures[rows].float() + moved, dim=-1)
        logits = asked @ pictures.float().T / self.temperature
        itself = functional.one_hot(rows, len(pictures)).bool()
        return self.weight * functional.cross_entropy(logits.masked_fill(itself, -math.inf), right)
