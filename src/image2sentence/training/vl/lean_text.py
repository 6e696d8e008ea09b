"""BLIP's text tower for export, with fewer and larger products.

The vector is the last state of the first position alone, so the last layer need not be computed for the others; and the
products for queries, keys and values of one layer have the same left side, so they are one. On a CPU, where a query's
dozen tokens cost mostly the reading of weights and the handing of small products to threads, this is what can be saved
without changing a number.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from image2sentence.training.vl.base import TextTower, Words


class LeanTextTower(TextTower):
    """`BlipForImageTextRetrieval`'s text side: words -> (B, d) unit rows."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embeddings, self.project = model.text_encoder.embeddings, model.text_proj
        layers = list(model.text_encoder.encoder.layer)
        self.layers = nn.ModuleList(LeanLayer(layer, layer is layers[-1]) for layer in layers)

    def embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.embeddings.word_embeddings(ids)
        return embedded

    def forward(self, words: Words, masked: bool = True) -> Tensor:
        states = self.embeddings(inputs_embeds=words.embeddings.clone())  # BLIP adds positions in place
        mask = words.bias[:, None, None, :] if masked else None
        for layer in self.layers:
            states = layer(states, mask)
        return functional.normalize(self.project(states[:, 0]), dim=-1)


class LeanLayer(nn.Module):
    """One layer: states (B, T, w) -> (B, T, w), or (B, 1, w) of the first position where it is the `last`."""

    def __init__(self, layer: Any, last: bool) -> None:
        super().__init__()
        attention = layer.attention.self
        self.heads, self.last = attention.num_attention_heads, last
        self.leave, self.widen, self.narrow = layer.attention.output, layer.intermediate, layer.output
        scale = attention.attention_head_size**-0.5
        query = _scaled(attention.query, scale)
        key_value = _joined(attention.key, attention.value)
        self.enter = nn.ModuleList([query, key_value] if last else [_joined(query, key_value)])

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = self._attended(states)
        scores = query @ key.transpose(-1, -2)
        weights = (scores if mask is None else scores + mask).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        attended = self.leave(mixed, states[:, :1] if self.last else states)
        result: Tensor = self.narrow(self.widen(attended), attended)
        return result

    def _attended(self, states: Tensor) -> list[Tensor]:
        """Queries, keys and values, each (B, heads, T or 1, w / heads); queries are scaled."""
        if self.last:
            query, key_value = self.enter
            return [*self._split(query(states[:, :1]), 1), *self._split(key_value(states), 2)]
        return self._split(self.enter[0](states), 3)

    def _split(self, joined: Tensor, parts: int) -> list[Tensor]:
        rows, length = joined.shape[:2]
        apart = joined.reshape(rows, length, parts, self.heads, -1).permute(2, 0, 3, 1, 4)
        return list(apart.unbind(0))


@torch.no_grad()
def _joined(first: Any, second: Any) -> nn.Linear:
    """One layer whose outputs are those of both, one after the other."""
    joined = nn.Linear(first.in_features, first.out_features + second.out_features)
    joined.weight.copy_(torch.cat([first.weight, second.weight]))
    joined.bias.copy_(torch.cat([first.bias, second.bias]))
    return joined.requires_grad_(False)


@torch.no_grad()
def _scaled(linear: Any, factor: float) -> nn.Linear:
    scaled = nn.Linear(linear.in_features, linear.out_features)
    scaled.weight.copy_(linear.weight * factor)
    scaled.bias.copy_(linear.bias * factor)
    return scaled.requires_grad_(False)
