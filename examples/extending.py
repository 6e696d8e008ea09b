"""Four parts of one's own: a mapper, a loss, a composition and a light encoder.

Each is one registered class or function. Run as the command line, with the parts known to it:

    python examples/extending.py train photos --out runs/mine --light patches --set learner.kind=grid \\
        --set learner.tokens=4 --set gcd=margin --set modifier_weight=0
    python examples/extending.py search photo.jpg "but red" --model runs/mine/model --gallery my-gallery

Searching needs none of the first, second and fourth part: the exported graphs hold what they have learned.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from image2sentence.cli.main import cli
from image2sentence.encoders.composition import register_composition
from image2sentence.encoders.config import LearnerConfig, Preprocessing
from image2sentence.encoders.protocols import Vectors
from image2sentence.training.losses import register_gcd, same_rows
from image2sentence.training.models.light_encoders import LightEncoder, register_light
from image2sentence.training.models.token_learner import Projection, Sentence, register_learner


class GridMapper(nn.Module):
    """A mapper: the feature map (B, C, H, W) in L vertical strips, each a pseudo-word of its own."""

    def __init__(self, config: LearnerConfig, feature_width: int, word_width: int, word_norm: float) -> None:
        super().__init__()
        self.tokens = config.tokens
        self.leave = Projection(feature_width, word_width, word_norm)

    def forward(self, features: Tensor) -> Sentence:
        """(B, C, H, W) -> tokens (B, L, w), attention (B, L, H, W) that sums to 1, gates (B, L) in 0..1.

        It is traced for export: the batch has to come out of `features`, not out of its length.
        """
        height, width = features.shape[2:]
        column = torch.arange(width) * self.tokens // width
        strips = (column == torch.arange(self.tokens)[:, None]).to(features)[:, None, :].repeat(1, height, 1)
        attention = strips / strips.sum((1, 2), keepdim=True) + 0 * features[:, :1]
        pooled = attention.flatten(2) @ features.flatten(2).transpose(1, 2)
        return Sentence(self.leave(pooled), attention, torch.ones_like(pooled[..., 0]))


def margin(queries: Tensor, gallery: Tensor, temperature: Tensor) -> Tensor:
    """A loss: each query (B, d) has to be 0.2 nearer to its picture (B, d) than to any other of the batch."""
    scores = queries @ gallery.T
    own = torch.eye(len(scores), dtype=torch.bool) | same_rows(gallery, gallery)
    worse = (scores - scores.diagonal()[:, None] + 0.2).masked_fill(own, 0)
    return functional.relu(worse).mean()


def only_what_words_add(pictures: Vectors, words: Vectors, weight: float) -> Vectors:
    """A composition: the words (n, d) without what the picture (n, d) says already, added to it by `weight`."""
    added = words - (words * pictures).sum(1, keepdims=True) * pictures
    rows = (1 - weight) * pictures + weight * added
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def patches() -> LightEncoder:
    """A light encoder: 96 pixels a side in patches of 16, an MLP for each: (B, 3, 96, 96) -> (B, 64, 6, 6)."""
    layers = nn.Sequential(nn.Conv2d(3, 128, 16, 16), nn.GELU(), nn.Conv2d(128, 64, 1), nn.GELU())
    return LightEncoder(layers, 64, Preprocessing(size=96))


register_learner("grid", GridMapper)
register_gcd("margin", margin)
register_composition("added", only_what_words_add)
register_light("patches", patches, 96)

if __name__ == "__main__":
    cli()
