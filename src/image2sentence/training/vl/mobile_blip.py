"""A BLIP whose visual tower is a frozen MobileNetV2 with a head.

Everything but `vision_model` is transformers' own `BlipForImageTextRetrieval`. The tower's vector has two parts of unit
length each: what things are, a fixed linear map of the network's pooled feature, and how they look, which a head reads
from maps of all depths. So what the network knows of a thousand kinds is kept to the number, whatever the head learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BlipConfig, BlipForImageTextRetrieval
from transformers.modeling_outputs import BaseModelOutputWithPooling

from image2sentence.training.vl.mobilenet import POOLED, STAGES, STEM, MobileNetV2
from image2sentence.training.vl.small_blip import UNUSED_TRANSFORMER, text_config

ARCHITECTURE = "MobileBlipForImageTextRetrieval"
LOOKED_AT = ((0, 4), (2, 4), (3, 4), (4, 1), (5, 4), (7, 2))
"""Maps that the head reads (0: the stem's, n: that of stage n) and how many cells a side each is cut into."""


def pyramid_width() -> int:
    """How many numbers `pyramid` gives."""
    widths = [STEM, *(width for _, width, _, _ in STAGES)]
    return POOLED + sum(widths[number] * (cells**2 + 1) for number, cells in LOOKED_AT)


def pyramid(network: MobileNetV2, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (B, 3, S, S) -> numbers of all depths (B, `pyramid_width()`) and the last stage's map (B, 320, H, W).

    The pooled feature comes first; then, of each map, the means of its cells and each channel's deviation.
    """
    maps = network.maps(pixels)
    parts = [network.pool(maps[-1])]
    for number, cells in LOOKED_AT:
        found = maps[number]
        centred = found - found.mean((2, 3), keepdim=True)
        parts += [_cells(found, cells).flatten(1), (centred.square().mean((2, 3)) + 1e-6).sqrt()]
    return torch.cat(parts, 1), maps[-1]


def _cells(found: Tensor, count: int) -> Tensor:
    """(B, C, S, S) -> means of `count` x `count` cells; a place on the border of two belongs to both by its share."""
    side = found.shape[-1]
    edges = torch.arange(count + 1) * (side / count)
    places = torch.arange(side)
    overlap = torch.minimum(edges[1:, None], places + 1.0) - torch.maximum(edges[:-1, None], places)
    share = (overlap.clamp(min=0) * (count / side)).to(found)
    return share @ found @ share.T


class MobileVisionModel(nn.Module):
    """Pixels (B, 3, S, S) -> `last_hidden_state` (B, 1 + N, C): the whole picture, then its N = (S / 32)^2 places.

    C is the width of the vectors; of the whole picture the first `kinds` numbers say what is there.
    """

    def __init__(self, kinds: int, looks: int, hidden: int) -> None:
        super().__init__()
        self.network = MobileNetV2(pooled=True)
        self.kinds = nn.Linear(POOLED, kinds)
        self.looks = LooksHead(hidden, looks)
        self.places = nn.Linear(self.network.width, kinds + looks)

    def whole(self, numbers: Tensor) -> Tensor:
        """What `pyramid` gives -> (B, C), two parts of unit length."""
        kinds = functional.normalize(self.kinds(numbers[:, :POOLED]), dim=-1)
        return torch.cat([kinds, functional.normalize(self.looks(numbers), dim=-1)], 1)

    def forward(self, pixel_values: Tensor, **_: object) -> BaseModelOutputWithPooling:
        numbers, features = pyramid(self.network, pixel_values)
        whole = self.whole(numbers)
        places = self.places(features.flatten(2).transpose(1, 2))
        tokens = torch.cat([whole[:, None], places], 1)
        return BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=whole)


class LooksHead(nn.Module):
    """The numbers of `pyramid` -> (B, width), scaled by what they are in training pictures.

    Part of what it reads is left out in training, or it would learn the training pictures by heart.
    """

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        size = pyramid_width()
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.layers = nn.Sequential(
            nn.Dropout(0.25),
            nn.Linear(size, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(0.2),
            nn.Linear(hidden, width),
        )

    def forward(self, numbers: Tensor) -> Tensor:
        scaled = ((numbers - self.centre) / self.scale).clamp(-6, 6)
        found: Tensor = self.layers(scaled)
        return found


class MobileBlipForImageTextRetrieval(BlipForImageTextRetrieval):
    """`BlipForImageTextRetrieval` on a `MobileVisionModel`; `vision_config` has `kinds`, `looks` and `looks_hidden`.

    The vector is the tower's own: `vision_proj` is the identity.
    """

    def __init__(self, config: BlipConfig) -> None:
        super().__init__(config)
        vision: Any = config.vision_config
        tower: Any = MobileVisionModel(vision.kinds, vision.looks, vision.looks_hidden)
        self.vision_model = tower
        self.vision_proj = nn.Linear(vision.hidden_size, vision.hidden_size)
        nn.init.eye_(self.vision_proj.weight)
        nn.init.zeros_(self.vision_proj.bias)


def mobile_blip_config(
    vocab_size: int,
    *,
    image_size: int = 224,
    kinds: int = 192,
    looks: int = 128,
    looks_hidden: int = 640,
    text_width: int = 256,
    text_layers: int = 2,
    text_heads: int = 4,
    max_length: int = 48,
    specials: Sequence[int] = (0, 2, 3),
) -> BlipConfig:
    """The configuration; `specials` are the token ids of [PAD], [CLS] and [SEP]."""
    text = text_config(vocab_size, text_width, text_layers, text_heads, max_length, specials)
    vision = {
        "hidden_size": kinds + looks,
        "image_size": image_size,
        "patch_size": 32,
        "kinds": kinds,
        "looks": looks,
        "looks_hidden": looks_hidden,
        **UNUSED_TRANSFORMER,
    }
    return BlipConfig(
        text_config=text,
        vision_config=vision,
        image_text_hidden_size=kinds + looks,
        projection_dim=kinds + looks,
        architectures=[ARCHITECTURE],
    )
