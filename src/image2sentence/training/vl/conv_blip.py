"""A small BLIP whose visual tower is convolutional: the architecture of the bundled model.

Everything but `vision_model` is transformers' own `BlipForImageTextRetrieval`: the projections, the text encoder, its
cross-attention to patch features and the match head. A convolutional tower learns from tens of thousands of pictures
on a CPU what a vision transformer of the same cost does not (figures in docs/model.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BlipConfig, BlipForImageTextRetrieval
from transformers.modeling_outputs import BaseModelOutputWithPooling

ARCHITECTURE = "ConvBlipForImageTextRetrieval"


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut (He et al., "Deep residual learning", CVPR 2016, figure 2)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class ConvVisionModel(nn.Module):
    """Pixels (B, 3, S, S) -> `last_hidden_state` (B, 1 + N, C): the pooled picture, then its N = (S / 16)^2 places.

    The order is that of BLIP's vision transformer (class token first), so the text encoder's cross-attention and the
    projection heads need not know which tower they sit on.
    """

    def __init__(self, stem: int, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, stem, 4, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU()]
        width_in = stem
        for width, depth in zip(widths, depths, strict=True):
            for index in range(depth):
                layers.append(ResidualBlock(width_in, width, 2 if index == 0 else 1))
                width_in = width
        self.body = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(width_in)

    def forward(self, pixel_values: Tensor, **_: object) -> BaseModelOutputWithPooling:
        places = self.body(pixel_values).flatten(2).transpose(1, 2)
        tokens = self.norm(torch.cat([places.mean(1, keepdim=True), places], dim=1))
        return BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=tokens[:, 0])


class ConvBlipForImageTextRetrieval(BlipForImageTextRetrieval):
    """`BlipForImageTextRetrieval` on a `ConvVisionModel`; `vision_config` carries `stem`, `widths` and `depths`."""

    def __init__(self, config: BlipConfig) -> None:
        super().__init__(config)
        vision: Any = config.vision_config
        tower: Any = ConvVisionModel(vision.stem, vision.widths, vision.depths)
        self.vision_model = tower


def conv_blip_config(
    vocab_size: int,
    *,
    image_size: int = 112,
    stem: int = 32,
    widths: Sequence[int] = (64, 128, 320),
    depths: Sequence[int] = (2, 2, 2),
    text_width: int = 256,
    text_layers: int = 4,
    text_heads: int = 4,
    joint_width: int = 256,
    max_length: int = 64,
) -> BlipConfig:
    """The configuration of a small BLIP; token ids 0 to 3 are [PAD], [UNK], [CLS] and [SEP]."""
    text = {
        "vocab_size": vocab_size,
        "hidden_size": text_width,
        "intermediate_size": 2 * text_width,
        "num_hidden_layers": text_layers,
        "num_attention_heads": text_heads,
        "max_position_embeddings": max_length,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
    }
    vision = {
        "hidden_size": widths[-1],
        "image_size": image_size,
        "patch_size": 16,
        "stem": stem,
        "widths": list(widths),
        "depths": list(depths),
        "num_hidden_layers": 1,  # the transformer tower that BLIP builds is thrown away: keep it small
        "num_attention_heads": 1,
        "intermediate_size": 1,
        "initializer_range": 0.02,
    }
    return BlipConfig(
        text_config=text,
        vision_config=vision,
        image_text_hidden_size=joint_width,
        projection_dim=joint_width,
        architectures=[ARCHITECTURE],
    )
