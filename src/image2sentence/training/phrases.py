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
from torch.nn import functional

from image2sentence.errors import DataError
from image2sentence.training.vl.base import VisionLanguageModel

DEFAULT_TEMPLATES = ("in {w}", "but {w}", "with {w}", "{w}", "make it {w}", "{w} instead", "without {w}")


@dataclass(frozen=True)
class WordLists:
    """A kind of picture's words: its phrases, the modifiers that are asked of it, and how its targets are made.

    `residual`, `push` and `captions` (how many of the nearest phrases are drawn from) are those of the settings where
    they are None. What one kind's phrases name fully another's leave unsaid.
    """

    phrases: Sequence[str]
    modifiers: Sequence[str]
    residual: float | None = None
    push: float | None = None
    captions: int | None = None


@dataclass(frozen=True)
class PhraseBank:
    """All lists' `phrases`, once each, their text vectors (P, d) and the number of the list that each is of (P,)."""

    phrases: Sequence[str]
    vectors: Tensor
    owners: Tensor
    lists: Sequence[WordLists]

    def residuals(self, chosen: Sequence[int], default: float) -> Tensor:
        """(n, 1) of the `chosen` phrases' residuals; `default` where their list has none."""
        return self._each([words.residual for words in self.lists], chosen, default)

    def pushes(self, chosen: Sequence[int], default: float) -> Tensor:
        """(n, 1) of the `chosen` phrases' pushes; `default` where their list has none."""
        return self._each([words.push for words in self.lists], chosen, default)

    def target(
        self, chosen: Sequence[int], changed: Tensor, gallery: Tensor, residual: float, push: float
    ) -> Tensor:
        """Where the changed picture should be (n, d), unit rows: T(c) + push (T(c m) - T(c)) + residual (v - T(c)).

        `chosen` numbers each picture's phrase c; `changed` (n, d) is T(c m), `gallery` (n, d) v. `residual` and `push`
        are for lists that have none of their own.
        """
        plain = self.vectors[chosen]
        step = self.pushes(chosen, push) * (changed - plain)
        return functional.normalize(
            plain + step + self.residuals(chosen, residual) * (gallery - plain), dim=-1
        )

    def draw_captions(self, nearest: Tensor, rng: random.Random, default: int) -> list[int]:
        """One of each row's phrases (n, k), best first: among as many as the list of the best has for `captions`."""
        counts = [default if words.captions is None else words.captions for words in self.lists]
        return [
            int(row[rng.randrange(min(counts[int(self.owners[row[0]])], len(row)))]) for row in nearest.cpu()
        ]

    def _each(self, own: Sequence[float | None], chosen: Sequence[int], default: float) -> Tensor:
        values = [default if value is None else value for value in own]
        return torch.tensor(values, device=self.vectors.device)[self.owners[chosen], None]

    def draw_modifiers(self, chosen: Sequence[int], rng: random.Random) -> list[str]:
        """One for each of the `chosen` phrases, out of its own list."""
        return [rng.choice(self.lists[owner].modifiers) for owner in self.owners[chosen].tolist()]

    def nearest(self, gallery: Tensor, count: int) -> Tensor:
        """Indices (n, count) of the phrases nearest to each gallery vector (n, d), best first."""
        count = min(count, len(self.phrases))
        blocks = [(block @ self.vectors.T).topk(count, dim=-1).indices for block in gallery.split(4096)]
        return torch.cat(blocks)


def from_words(words: Sequence[str], templates: Sequence[str] = DEFAULT_TEMPLATES) -> list[str]:
    """Every word in every template ("{w}" stands for the word): modifiers out of a plain word list."""
    return [template.replace("{w}", word) for template, word in itertools.product(templates, words)]


def build_bank(vl: VisionLanguageModel, *lists: WordLists, batch: int = 256) -> PhraseBank:
    """Encodes the phrases once with the frozen text encoder; one that several lists have is the first one's.

    Raises DataError where there are none, or where a phrase with a modifier of its list is longer than the text
    encoder reads.
    """
    owner: dict[str, int] = {}
    for number, words in enumerate(lists):
        if not words.phrases or not words.modifiers:
            raise DataError(
                f"expected phrases and modifiers, got {len(words.phrases)} and {len(words.modifiers)}"
            )
        _check_lengths(vl, words.phrases, words.modifiers)
        for phrase in words.phrases:
            owner.setdefault(phrase, number)
    phrases = list(owner)
    with torch.no_grad():
        vectors = [vl.encode_words(vl.words(phrases[i : i + batch])) for i in range(0, len(phrases), batch)]
    return PhraseBank(phrases, torch.cat(vectors), torch.tensor(list(owner.values())), lists)


def _check_lengths(vl: VisionLanguageModel, phrases: Sequence[str], modifiers: Sequence[str]) -> None:
    """Any phrase may meet any modifier of its list: that the longest fit is better known now than at step 10,000."""
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
