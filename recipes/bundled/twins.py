"""The same thing in two drawing styles, taught directly: a loss beside the contrastive one.

An emoji's vector, moved by the difference of two styles, has to lie nearest to the same emoji in the other style, among
all pictures of the batch. Names cannot do this for a thing that was never named in training; what two drawings of it
have in common can. The styles' vectors are thrown away afterwards, as those of meanings.py are.
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

_MOST_VARIANTS = (
    3  # tones and genders of one subject that a batch may hold side by side: the nearest wrong answers
)


class TwinTable:
    """Which pictures show the same emoji (subject, skin tone, gender word) in different styles."""

    def __init__(self, records: Sequence[language.Record]) -> None:
        pictures: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
        for row, record in enumerate(records):
            if record["source"] == "emoji":
                identity = (record["thing"], record["skin_tone"], record["gender_word"])
                pictures[identity][record["style"]] = row
        by_subject: dict[str, list[list[int]]] = defaultdict(list)
        for (thing, *_), styles in sorted(pictures.items()):
            if len(styles) > 1:
                by_subject[thing].append(sorted(styles.values()))
        self._subjects = list(by_subject.values())

    def draw(self, count: int, choose: np.random.Generator) -> NDArray[np.int64]:
        """(2, `count`) int64: pictures, and under each one its twin; no emoji twice.

        Raises:
            ValueError: the table has fewer than `count` emoji in two styles.
        """
        if count > sum(map(len, self._subjects)):
            raise ValueError(f"asked for {count} emoji in two styles, and there are fewer")
        drawn: dict[tuple[int, ...], None] = {}
        while len(drawn) < count:
            variants = self._subjects[choose.integers(len(self._subjects))]
            some = choose.permutation(len(variants))[: choose.integers(1, _MOST_VARIANTS + 1)]
            drawn |= dict.fromkeys(tuple(variants[place]) for place in some)
        pairs = [choose.permutation(same)[:2] for same in list(drawn)[:count]]
        return np.array(pairs, np.int64).reshape(-1, 2).T


class Twins(nn.Module):
    """The loss: InfoNCE from a picture's vector, moved to its twin's style, to its twin, times `weight`."""

    def __init__(self, styles: int, width: int, weight: float, temperature: float = 0.05) -> None:
        super().__init__()
        self.weight, self.temperature = weight, temperature
        self.styles = nn.Parameter(torch.zeros(styles, width))

    def forward(self, pictures: Tensor, styles: Tensor, twins: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            pictures: (B, d), unit vectors.
            styles: (B,) int64, each picture's style; -1 for those without.
            twins: (B,) int64, where in the batch each picture's twin is; -1 for those without.
        """
        rows = (twins >= 0).nonzero()[:, 0]
        if not len(rows):
            return pictures.new_zeros(())
        moved = self.styles[styles[twins[rows]]] - self.styles[styles[rows]]
        asked = functional.normalize(pictures[rows].float() + moved, dim=-1)
        logits = asked @ pictures.float().T / self.temperature
        itself = functional.one_hot(rows, len(pictures)).bool()
        return self.weight * functional.cross_entropy(logits.masked_fill(itself, -math.inf), twins[rows])
