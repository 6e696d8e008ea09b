"""Words without pictures: the phrase bank for pseudo-captions, and modifiers (METHOD: "Beyond the paper").

Neither needs a label or a pair. A bank is any list of texts; modifiers come from a text file, or from templates and
word lists.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from image2sentence.errors import DataError
from image2sentence.training.vl.base import VisionLanguageModel

DEFAULT_TEMPLATES = ("in {w}", "but {w}", "with {w}", "{w}", "make it {w}", "{w} instead", "without {w}")


@dataclass(frozen=True)
class PhraseBank:
    """`phrases`, their text vectors (P, d) and the modifiers to draw from."""

    phrases: Sequence[str]
    vectors: Tensor
    modifiers: Sequence[str]

    def nearest(self, gallery: Tensor, count: int) -> Tensor:
        """Indices (n, count) of the phrases nearest to each gallery vector (n, d), best first."""
        count = min(count, len(self.phrases))
        blocks = [(block @ self.vectors.T).topk(count, dim=-1).indices for block in gallery.split(4096)]
        return torch.cat(blocks)


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a UTF-8 text file, once each, in order. Raises DataError if there are none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as UTF-8 text, one phrase a line: {error}") from error
    kept = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not kept:
        raise DataError(f"{path} holds no phrase; expected one a line")
    return kept


def from_words(words: Sequence[str], templates: Sequence[str] = DEFAULT_TEMPLATES) -> list[str]:
    """Every word in every template ("{w}" stands for the word): modifiers out of a plain word list."""
    return [template.replace("{w}", word) for template, word in itertools.product(templates, words)]


def build_bank(
    vl: VisionLanguageModel, phrases: Sequence[str], modifiers: Sequence[str], batch: int = 256
) -> PhraseBank:
    """Encodes the phrases once with the frozen text encoder."""
    device = next(vl.parameters()).device
    with torch.no_grad():
        vectors = [
            vl.encode_words(vl.words(list(phrases[i : i + batch]))) for i in range(0, len(phrases), batch)
        ]
    return PhraseBank(phrases, torch.cat(vectors).to(device), modifiers)


def draw(items: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """`count` items with replacement."""
    return [items[rng.randrange(len(items))] for _ in range(count)]
