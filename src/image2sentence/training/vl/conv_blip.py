"""Small BLIP with a convolutional visual tower, as bundled.

Everything but `vision_model` is transformers' own `BlipForImageTextRetrieval`: the projections, the text encoder, its
cross-attention to patch features and the match head. A convolutional tower learns from tens of thousands of pictures
on a CPU what a vision transformer of the same cost does not (recipes/LOG.md). A head may stand beside it that
says where in the picture things are; `vision_config.layout` is its width, 0 or nothing leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BlipConfig, BlipForImageTextRetrieval
from transformers.modeling_outputs import BaseModelOutputWithPooling

from image2sentence.errors import ModelError
from image2sentence.training.vl.small_blip import UNUSED_TRANSFORMER, text_config

ARCHITECTURE = "ConvBlipForImageTextRetrieval"
_CELLS = 4
_WITHOUT_MEAN = 0.3


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


class LayoutHead(nn.Module):
    """Where things are, beside what there is: the cells of maps (B, channels x 16) -> (B, width).

    Half of what it reads is left out in training, or it would learn the training pictures by heart. Its last layer
    starts at zero, so that a tower which gets a head goes on from where it was.
    """

    def __init__(self, channels: int, hidden: int, width: int) -> None:
        super().__init__()
        size = channels * _CELLS * _CELLS
        self.scale = nn.BatchNorm1d(size, affine=False)
        self.layers = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(size, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(0.3),
            last := nn.Linear(hidden, width),
        )
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, cells: Tensor) -> Tensor:
        added: Tensor = self.layers(self.scale(cells))
        return added


class ConvVisionModel(nn.Module):
    """Pixels (B, 3, S, S) -> `last_hidden_state` (B, 1 + N, C): the pooled picture, then its N = (S / 16)^2 places.

    The order is that of BLIP's vision transformer (class token first), so the text encoder's cross-attention and the
    projection heads need not know which tower they sit on. The pooled picture is the mean of the places, and with
    `layout` what a `LayoutHead` of so many channels reads from the stage before the last one. In training three
    pictures in ten have to do without the mean, which alone would do for pictures that the tower knows.
    """

    def __init__(self, stem: int, widths: Sequence[int], depths: Sequence[int], layout: int = 0) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, stem, 4, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU()]
        width_in = stem
        for width, depth in zip(widths, depths, strict=True):
            for index in range(depth):
                layers.append(ResidualBlock(width_in, width, 2 if index == 0 else 1))
                width_in = width
        self.body, self._last = nn.Sequential(*layers), depths[-1]
        self.norm = nn.LayerNorm(width_in)
        self.layout = LayoutHead(widths[-2], layout, width_in) if layout else None

    def maps(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """The map before the last stage (B, C, H, W), and the last one's places (B, N, C), not normalised yet."""
        before = self.body[: -self._last](pixel_values)
        return before, self.body[-self._last :](before).flatten(2).transpose(1, 2)

    def cells(self, before: Tensor) -> Tensor:
        """What the layout head reads of the map before the last stage (B, size): the means of its cells."""
        return functional.adaptive_avg_pool2d(before, _CELLS).flatten(1)

    def whole(self, mean: Tensor, cells: Tensor | None) -> Tensor:
        """The pooled picture (B, C): of the places' mean (B, C) and `cells`, where there is a layout head."""
        if self.layout is not None and cells is not None:
            if self.training:
                mean = mean * (torch.rand(len(mean), 1) >= _WITHOUT_MEAN)
            mean = mean + self.layout(cells)
        pooled: Tensor = self.norm(mean)
        return pooled

    def forward(self, pixel_values: Tensor, **_: object) -> BaseModelOutputWithPooling:
        before, places = self.maps(pixel_values)
        cells = None if self.layout is None else self.cells(before)
        whole = self.whole(places.mean(1), cells)
        tokens = torch.cat([whole[:, None], self.norm(places)], dim=1)
        return BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=whole)


class ConvBlipForImageTextRetrieval(BlipForImageTextRetrieval):
    """`BlipForImageTextRetrieval` on a `ConvVisionModel`; `vision_config` carries `stem`, `widths` and `depths`.

    And `layout`, where the tower has a `LayoutHead`. Raises ModelError for a tower with the branch `shapes`, which
    earlier versions could train.
    """

    def __init__(self, config: BlipConfig) -> None:
        super().__init__(config)
        vision: Any = config.vision_config
        if getattr(vision, "shapes", 0):
            raise ModelError(
                f"the model's vision_config has shapes = {vision.shapes}: this version has no such branch; train the "
                "towers again, or use the version that made the model"
            )
        layout = getattr(vision, "layout", 0)
        tower: Any = ConvVisionModel(vision.stem, vision.widths, vision.depths, layout)
        self.vision_model = tower


def conv_blip_config(
    vocab_size: int,
    *,
    image_size: int = 112,
    stem: int = 32,
    widths: Sequence[int] = (64, 128, 320),
    depths: Sequence[int] = (2, 2, 2),
    layout: int = 0,
    text_width: int = 256,
    text_layers: int = 4,
    text_heads: int = 4,
    joint_width: int = 256,
    max_length: int = 64,
) -> BlipConfig:
    """The configuration of a small BLIP; token ids 0 to 3 are [PAD], [UNK], [CLS] and [SEP]."""
    text = text_config(vocab_size, text_width, text_layers, text_heads, max_length)
    vision = {
        "hidden_size": widths[-1],
        "image_size": image_size,
        "patch_size": 16,
        "stem": stem,
        "widths": list(widths),
        "depths": list(depths),
        "layout": layout,
        **UNUSED_TRANSFORMER,
        "initializer_range": 0.02,
    }
    return BlipConfig(
        text_config=text,
        vision_config=vision,
        image_text_hidden_size=joint_width,
        projection_dim=joint_width,
        architectures=[ARCHITECTURE],
    )
