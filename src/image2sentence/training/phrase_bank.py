"""Words without pictures: the phrase bank for pseudo-captions, and modifiers (docs/method.md, "Losses").

Neither needs a label or a pair. A bank is any list of texts; modifiers come from a text file, or from
templates and word lists.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from image2sentence.errors import DataError
from image2sentence.training.settings import Target
from image2sentence.training.vl.base import VisionLanguageModel

DEFAULT_TEMPLATES = ("in {w}", "but {w}", "with {w}", "{w}", "make it {w}", "{w} instead", "without {w}")


@dataclass(frozen=True)
class WordLists:
    """A kind of picture's words: its phrases, the modifiers that are asked of it, and how its targets are made."""

    phrases: Sequence[str]
    modifiers: Sequence[str]
    target: Target = field(default_factory=Target)


@dataclass(frozen=True)
class PhraseBank:
    """All lists' `phrases`, once each, their text vectors (P, d) and the number of the list that each is of (P,)."""

    phrases: Sequence[str]
    vectors: Tensor
    owners: Tensor
    lists: Sequence[WordLists]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all words, in order; the targets are among a run's settings."""
        words = [[list(part.phrases), list(part.modifiers)] for part in self.lists]
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()

    def targets(
        self, chosen: Sequence[int], changed: Tensor, gallery: Tensor, alone: Tensor | None = None
    ) -> Tensor:
        """Where the changed pictures should be (n, d), unit rows, as each list's `Target` has it.

        `chosen` numbers each picture's phrase c; `changed` (n, d) is T(c m), `gallery` (n, d) v, and `alone` (n, d)
        T(m), which only targets that have a share of it need.

        Raises:
            ValueError: they have, and there is none.
        """
        if alone is None and self.needs_modifiers:
            raise ValueError("these targets have a share of the modifiers alone: give their vectors, too")
        plain = self.vectors[chosen]
        residual, push, reach, share = self._numbers[:, self.owners[chosen], None]
        step = push * (changed - plain)
        length = step.norm(dim=-1, keepdim=True)
        step = torch.where((reach > 0) & (length > reach), step * reach / length, step)
        target = plain + step + residual * (gallery - plain)
        return functional.normalize(target if alone is None else target + share * alone, dim=-1)

    @cached_property
    def _numbers(self) -> Tensor:
        """(4, lists): residuals, pushes, reaches, shares of T(m) alone."""
        targets = [words.target for words in self.lists]
        rows = [(target.residual, target.push, target.reach, target.alone) for target in targets]
        return torch.tensor(rows, device=self.vectors.device).T

    @property
    def needs_modifiers(self) -> bool:
        """Whether any list's targets have a share of T(m) alone."""
        return any(words.target.alone for words in self.lists)

    @property
    def captions(self) -> int:
        """How many of a picture's nearest phrases are drawn from, at most."""
        return max(words.target.captions for words in self.lists)

    def draw_captions(self, nearest: Tensor, rng: random.Random) -> list[int]:
        """One of each row's phrases (n, k), best first: among as many as the list of the best draws from."""
        counts = [min(words.target.captions, nearest.shape[1]) for words in self.lists]
        owners = self.owners[nearest[:, 0].cpu()].tolist()
        rows = zip(nearest.tolist(), owners, strict=True)
        return [row[rng.randrange(counts[owner])] for row, owner in rows]

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
