"""Light text encoder, a student of the VL model's.

Once the light visual encoder has replaced the large one, the text encoder is what a query costs. This one is distilled
from it (`distill_text.py`) and takes its place in the query graph; the gallery stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from image2sentence.errors import ConfigError
from image2sentence.training.vl.base import TextTower, VisionLanguageModel, Words


@dataclass(frozen=True)
class LightTextConfig:
    """`layers` transformer layers of `width`, with `heads` attention heads and a hidden layer of `hidden` widths."""

    width: int = 192
    layers: int = 2
    heads: int = 4
    hidden: int = 2

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.heads, self.hidden) < 1 or self.width % self.heads:
            raise ConfigError(
                f"a light text encoder needs positive sizes and a width that its heads divide, got {self}"
            )


class LightText(TextTower):
    """Words of the VL model's embedding space, of width w -> (B, d) unit rows in its vector space.

    Real words and pseudo-words come in through the same projection, because they lie in the same space; so a word that
    distillation never saw is not unknown, only unpractised. The vector is read off the mean of all positions, each
    counting as much as its gate.
    """

    table: Tensor | None

    def __init__(self, config: LightTextConfig, vl: VisionLanguageModel) -> None:
        super().__init__()
        self.config = config
        self._vl = [vl]  # not registered: its weights are neither trained nor saved here
        self.project = nn.Linear(vl.word_width, config.width)
        self.positions = nn.Parameter(0.02 * torch.randn(vl.max_length, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.leave = nn.Linear(config.width, vl.width)
        self.register_buffer("table", None, persistent=False)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, T) -> (B, T, width)."""
        if self.table is not None:
            return functional.embedding(ids, self.table)
        return self.enter(self._vl[0].embed(ids))

    def enter(self, sentences: Tensor) -> Tensor:
        """Pseudo-words (B, L, w) -> (B, L, width)."""
        entered: Tensor = self.project(sentences)
        return entered

    def forward(self, words: Words, masked: bool = True) -> Tensor:
        states = words.embeddings + self.positions[: words.embeddings.shape[1]]
        for block in self.blocks:
            states = block(states, words.bias[:, None, None, :] if masked else None)
        states = self.norm(states)
        if masked:
            share = words.bias.exp()[..., None]
            pooled = (states * share).sum(1) / share.sum(1)
        else:
            pooled = states.mean(1)
        return functional.normalize(self.leave(pooled), dim=-1)

    def read(self, words: Words) -> Tensor:
        """The vectors (B, d) of words as the VL model has them, wide."""
        vectors: Tensor = self(Words(self.enter(words.embeddings), words.bias))
        return vectors

    @torch.no_grad()
    def fold(self) -> LightText:
        """Projects the whole vocabulary once, so that the graph holds narrow word rows in place of the wide ones."""
        vl = self._vl[0]
        ids = torch.arange(vl.tokenizer.get_vocab_size())
        self.table = torch.cat([self.enter(vl.embed(block[None])[0]) for block in ids.split(4096)])
        return self


class Block(nn.Module):
    """Pre-norm self-attention and MLP (Vaswani et al., 2017, section 3; norms first)."""

    def __init__(self, config: LightTextConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.hidden * config.width
        self.heads = config.heads
        self.norm_attend, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, states: Tensor, bias: Tensor | None) -> Tensor:
        states = states + self._attend(self.norm_attend(states), bias)
        result: Tensor = states + self.mlp(self.norm_mlp(states))
        return result

    def _attend(self, states: Tensor, bias: Tensor | None) -> Tensor:
        rows, length, width = states.shape
        joined = self.query_key_value(states).reshape(rows, length, 3, self.heads, width // self.heads)
        query, key, value = joined.permute(2, 0, 3, 1, 4).unbind(0)
        scores = query @ key.transpose(-1, -2) * (width // self.heads) ** -0.5
        weights = (scores if bias is None else scores + bias).softmax(-1)
        attended: Tensor = self.out((weights @ value).transpose(1, 2).flatten(2))
        return attended
