"""Texts behind each other without padding, for a text tower that reads causally.

A token sees those of its own text up to itself. Two texts that begin alike may share their beginning: nothing in it
sees what comes after, so its states are the same for both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from image2sentence.training.vl.base import ABSENT, Words

SHARED, ALONE, CHANGED = range(3)


@dataclass(frozen=True)
class Packed:
    """N tokens of n texts.

    `embeddings` (N, w) and `bias` (N,) as in `Words`; `places` (N,), where in its text a token stands; `texts` (N,),
    the number of its text; `branches` (N,): a token sees those of `SHARED` and of its own branch. `ends` (n,) are the
    numbers of the texts' last tokens.
    """

    embeddings: Tensor
    bias: Tensor
    places: Tensor
    texts: Tensor
    branches: Tensor
    ends: Tensor

    def mask(self) -> Tensor:
        """(N, N), to be added to attention scores: the seen token's bias, or `ABSENT`."""
        same = self.texts[:, None] == self.texts
        before = self.places[:, None] >= self.places
        branch = (self.branches == SHARED) | (self.branches[:, None] == self.branches)
        return torch.where(same & before & branch, self.bias, ABSENT)


def pack(words: Words, branch: int = SHARED, first: int = 0) -> Packed:
    """The words (B, T) that are there, from place `first` on, all in one branch."""
    there = words.bias[:, first:] > ABSENT / 2
    texts, places = there.nonzero(as_tuple=True)
    last = (there * torch.arange(there.shape[1])).amax(1)
    numbers = there.flatten().cumsum(0).view(there.shape) - 1
    return Packed(
        words.embeddings[:, first:][there],
        words.bias[:, first:][there],
        places + first,
        texts,
        torch.full_like(texts, branch),
        numbers.gather(1, last[:, None])[:, 0],
    )


def pack_both(alone: Words, changed: Words, shared: int) -> Packed:
    """Texts (B, T), and others (n, T'), n ≤ B, the first `shared` places of which are those of the first n texts.

    The ends are of the B texts, then of the n.
    """
    whole, rest = pack(alone, ALONE), pack(changed, CHANGED, shared)
    branches = torch.where(whole.places < shared, SHARED, whole.branches)
    return Packed(
        torch.cat([whole.embeddings, rest.embeddings]),
        torch.cat([whole.bias, rest.bias]),
        torch.cat([whole.places, rest.places]),
        torch.cat([whole.texts, rest.texts]),
        torch.cat([branches, rest.branches]),
        torch.cat([whole.ends, rest.ends + len(whole.bias)]),
    )
