"""Adaptive token learner: a feature map to L pseudo-words.

See docs/method.md, "Token learner".

Selection picks L attention-weighted means out of the feature map; relation blocks let the tokens look at each other
and at the map again; gates may mask a token out; projection lands in the VL model's word-embedding space at the length
of a real word. The attention maps are an output: they show which part of the picture each pseudo-word stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from image2sentence.encoders.config import LearnerConfig
from image2sentence.errors import ConfigError


@dataclass(frozen=True)
class Sentence:
    """`tokens` (B, L, w); `attention` (B, L, H, W), each map summing to 1 over places; `gates` (B, L) in 0..1."""

    tokens: Tensor
    attention: Tensor
    gates: Tensor

    def first(self, count: int) -> Sentence:
        """Those of the first `count` pictures."""
        return Sentence(self.tokens[:count], self.attention[:count], self.gates[:count])


def build_learner(config: LearnerConfig, feature_width: int, word_width: int, word_norm: float) -> nn.Module:
    """The learner that `config.kind` names; every kind maps (B, C, H, W) to a `Sentence`.

    Raises ConfigError for a kind that is not known.
    """
    if config.kind not in LEARNERS:
        raise ConfigError(f"unknown learner kind {config.kind!r}; known: {', '.join(LEARNERS)}")
    return LEARNERS[config.kind](config, feature_width, word_width, word_norm)


def register_learner(name: str, make: MakeLearner) -> None:
    """Make a mapper of one's own known as `learner.kind`. Raises ConfigError for a name that is taken."""
    if name in LEARNERS:
        raise ConfigError(f"there is a learner {name!r} already: give yours another name")
    LearnerConfig(kind=name)  # refuses what cannot be one
    LEARNERS[name] = make


class AdaptiveTokenLearner(nn.Module):
    """Feature map (B, C, H, W) -> Sentence."""

    def __init__(self, config: LearnerConfig, feature_width: int, word_width: int, word_norm: float) -> None:
        super().__init__()
        self.config = config
        # A bias would cancel in a softmax over places: nothing could ever train it.
        self.select = nn.Conv2d(feature_width, config.tokens, 1, bias=config.softmax == "tokens")
        self.enter = nn.Linear(feature_width, config.width)
        self.identity = nn.Parameter(0.02 * torch.randn(config.tokens, config.width))
        self.blocks = nn.ModuleList(RelationBlock(config.width, config.heads) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)
        self.gate = nn.Linear(config.width, 1) if config.gates else None
        if self.gate is not None:
            nn.init.constant_(self.gate.bias, 3.0)  # open to begin with
        self.leave = Projection(config.width, word_width, word_norm)

    def forward(self, features: Tensor) -> Sentence:
        attention = self._attention(features)
        places = self.enter(features.flatten(2).transpose(1, 2))
        tokens = attention.flatten(2) @ places + self.identity
        for block in self.blocks:
            tokens = block(tokens, places)
        tokens = self.norm(tokens)
        gates = torch.ones_like(tokens[..., 0]) if self.gate is None else self.gate(tokens)[..., 0].sigmoid()
        return Sentence(self.leave(tokens), attention, gates)

    def _attention(self, features: Tensor) -> Tensor:
        """(B, L, H, W), summing to 1 over places for each token, whichever axis competes."""
        logits = self.select(features)
        if self.config.softmax == "places":
            return logits.flatten(2).softmax(-1).unflatten(2, logits.shape[2:])
        votes = logits.softmax(1)
        return votes / votes.sum((2, 3), keepdim=True).clamp(min=1e-6)


class RelationBlock(nn.Module):
    """Pre-norm self-attention among tokens, cross-attention to places, MLP.

    Output projections start at zero, so that training starts from the plain pooled tokens.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_self, self.norm_cross, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.norm_places = nn.LayerNorm(width)
        self.attend_self = Attention(width, heads)
        self.attend_cross = Attention(width, heads)
        last = nn.Linear(2 * width, width)
        for layer in (self.attend_self.out, self.attend_cross.out, last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), last)

    def forward(self, tokens: Tensor, places: Tensor) -> Tensor:
        normed = self.norm_self(tokens)
        tokens = tokens + self.attend_self(normed, normed)
        tokens = tokens + self.attend_cross(self.norm_cross(tokens), self.norm_places(places))
        result: Tensor = tokens + self.mlp(self.norm_mlp(tokens))
        return result


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., 2017, section 3.2.2) from queries (B, L, w) to context (B, N, w)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)  # a bias would cancel in the softmax

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        q, k, v = (self._split(x) for x in (self.query(queries), self.key(context), self.value(context)))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class SingleWordMapper(nn.Module):
    """The baseline: mean pooling and an MLP to one pseudo-word (the Pic2Word / SEARLE kind of mapper)."""

    def __init__(self, config: LearnerConfig, feature_width: int, word_width: int, word_norm: float) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(feature_width, 2 * config.width),
            nn.GELU(),
            nn.Linear(2 * config.width, config.width),
            nn.GELU(),
        )
        self.leave = Projection(config.width, word_width, word_norm)

    def forward(self, features: Tensor) -> Sentence:
        pooled = features.mean((2, 3))
        height, width = features.shape[2:]
        attention = features.new_full((len(features), 1, height, width), 1 / (height * width))
        return Sentence(self.leave(self.mlp(pooled))[:, None], attention, torch.ones_like(pooled[:, :1]))


class Projection(nn.Module):
    """To the word-embedding width, at the length of a real word times a learned factor that starts at one."""

    def __init__(self, width: int, word_width: int, word_norm: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, word_width)
        self.log_factor = nn.Parameter(torch.zeros(()))
        self.word_norm: Tensor
        self.register_buffer("word_norm", torch.tensor(word_norm))

    def forward(self, tokens: Tensor) -> Tensor:
        direction = functional.normalize(self.linear(tokens), dim=-1)
        return direction * (self.word_norm * self.log_factor.exp())


MakeLearner = Callable[[LearnerConfig, int, int, float], nn.Module]
"""Config, width C of the feature map, width w of words and their length -> module from (B, C, H, W) to `Sentence`."""

LEARNERS: dict[str, MakeLearner] = {"adaptive": AdaptiveTokenLearner, "mapper": SingleWordMapper}
