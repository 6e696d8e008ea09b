"""Words without pictures: the phrase bank for pseudo-captions, and modifiers (METHOD: "Beyond the paper").

Neither needs a label or a pair. A bank is any list of texts; modifiers come from a text file, or from
templates and word lists.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from image2sentence.errors import DataError
from image2sentence.training.vl.base import VisionLanguageModel

DEFAULT_TEMPLATES = ("in {w}", "but {w}", "with {w}", "{w}", "make it {w}", "{w} instead", "without {w}")


@dataclass(frozen=True)
class PhraseBank:
    """`phrases`, their text vectors (P, d) and the modifiers to draw from.

    `residuals` (P,) takes the place of the settings' `residual`, phrase by phrase; None: that for all.
    """

    phrases: Sequence[str]
    vectors: Tensor
    modifiers: Sequence[str]
    residuals: Tensor | None = None

    def nearest(self, gallery: Tensor, count: int) -> Tensor:
        """Indices (n, count) of the phrases nearest to each gallery vector (n, d), best first."""
        count = min(count, len(self.phrases))
        blocks = [(block @ self.vectors.T).topk(count, dim=-1).indices for block in gallery.split(4096)]
        return torch.cat(blocks)


def from_words(words: Sequence[str], templates: Sequence[str] = DEFAULT_TEMPLATES) -> list[str]:
    """Every word in every template ("{w}" stands for the word): modifiers out of a plain word list."""
    return [template.replace("{w}", word) for template, word in itertools.product(templates, words)]


def build_bank(
    vl: VisionLanguageModel,
    phrases: Sequence[str],
    modifiers: Sequence[str],
    batch: int = 256,
    residuals: Sequence[float] | None = None,
) -> PhraseBank:
    """Encodes the phrases once with the frozen text encoder.

    Raises DataError where there are none, or where a phrase with a modifier is longer than the text encoder
    reads.
    """
    if not phrases or not modifiers:
        raise DataError(f"expected phrases and modifiers, got {len(phrases)} and {len(modifiers)}")
    _check_lengths(vl, phrases, modifiers)
    with torch.no_grad():
        vectors = [vl.encode_words(vl.words(phrases[i : i + batch])) for i in range(0, len(phrases), batch)]
    joined = torch.cat(vectors)
    own = None if residuals is None else torch.tensor(residuals, device=joined.device)
    return PhraseBank(phrases, joined, modifiers, own)


def join_banks(
    banks: Sequence[Sequence[str]], residuals: Sequence[float]
) -> tuple[list[str], list[float] | None]:
    """The phrases of several banks, once each, and each one's residual: its first bank's. None without `residuals`.

    Raises DataError where there are residuals, but not one for each bank.
    """
    if residuals and len(residuals) != len(banks):
        raise DataError(f"expected a residual for each of {len(banks)} phrase banks, got {len(residuals)}")
    owner: dict[str, int] = {}
    for number, bank in enumerate(banks):
        for phrase in bank:
            owner.setdefault(phrase, number)
    return list(owner), [residuals[number] for number in owner.values()] if residuals else None


def _check_lengths(vl: VisionLanguageModel, phrases: Sequence[str], modifiers: Sequence[str]) -> None:
    """Any phrase may meet any modifier, so the longest of both must fit: better known now than at step 10,000."""
    phrase, modifier = (_longest(vl, texts) for texts in (phrases, modifiers))
    special = len(vl.tokenizer.encode("").ids)
    if phrase[0] + modifier[0] + special > vl.max_length:
        raise DataError(
            f"the longest phrase ({phrase[0]} tokens) and the longest modifier ({modifier[0]}) do not fit the text "
            f"encoder together ({vl.max_length - special} at most); shorten {phrase[1][:80]!r} or {modifier[1][:80]!r}"
        )


def _longest(vl: VisionLanguageModel, texts: Sequence[str]) -> tuple[int, str]:
    encoded = vl.tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return max((len(e.ids), text) for e, text in zip(encoded, texts, strict=True))


def draw(items: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """`count` items with replacement."""
    return [items[rng.randrange(len(items))] for _ in range(count)]
