"""Light visual encoders, from pixels to feature maps.

Pixels (B, 3, S, S) become a feature map (B, C, H, W).

`LIGHT` is the table of names. `tiny` is this project's own and the bundled model's: `tiny@bundled` starts from that
one's weights, `tiny@FOLDER` from those of a model trained here. The others are
transformers' backbones, freshly initialised, or with the pretrained weights that `NAME@HUB_ID_OR_PATH` names.
`timm:NAME` is any convolutional or hierarchical model of timm's, where timm is installed. `/SIDE` after a name feeds
it smaller or larger pictures: the cost goes with the square of the side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    EfficientNetConfig,
    EfficientNetModel,
    MobileNetV2Config,
    MobileNetV2Model,
    MobileViTV2Config,
    MobileViTV2Model,
    SwiftFormerConfig,
    SwiftFormerModel,
)
from transformers.models.mobilevitv2.modeling_mobilevitv2 import MobileViTV2Layer

from image2sentence.encoders.config import Preprocessing
from image2sentence.encoders.model_folder import WEIGHTS, ModelFolder, bundled
from image2sentence.errors import ConfigError, ModelError
from image2sentence.training import checkpoint as state
from image2sentence.training.depthwise import strided_in_float32
from image2sentence.training.hub import load_pretrained, reading
from image2sentence.training.models.timm_encoder import timm_backbone
from image2sentence.training.vl.mobilenet import STAGES, TwoDepths

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TIMM = "timm:"
MIN_SIDE = 32


class LightEncoder(nn.Module):
    """A light encoder: `width` C of its feature map, and the preprocessing it was made for."""

    def __init__(self, body: nn.Module, width: int, preprocessing: Preprocessing) -> None:
        super().__init__()
        strided_in_float32(body)
        self.body, self.width, self.preprocessing = body, width, preprocessing

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.body(pixels)
        if isinstance(features, Tensor):
            return features
        feature_map: Tensor = features[-1] if isinstance(features, list) else features.last_hidden_state
        return feature_map


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project back (Sandler et al., "MobileNetV2", CVPR 2018, figure 3)."""

    def __init__(self, width_in: int, width: int, stride: int, expansion: int, kernel: int = 3) -> None:
        super().__init__()
        inner = width_in * expansion
        self.layers = nn.Sequential(
            nn.Conv2d(width_in, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, kernel, stride, kernel // 2, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.residual = stride == 1 and width_in == width

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


# (width, blocks, stride of the first, expansion, kernel)
_TINY_STAGES = ((24, 1, 2, 3, 3), (40, 2, 2, 4, 3), (80, 2, 1, 3, 3), (128, 2, 2, 4, 3))


def tiny() -> LightEncoder:
    """The bundled light encoder: 112 px, a 7 x 7 map, plain convolutions and ReLU so that int8 suits it."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    width_in = 16
    for width, blocks, stride, expansion, kernel in _TINY_STAGES:
        for index in range(blocks):
            layers.append(InvertedResidual(width_in, width, stride if index == 0 else 1, expansion, kernel))
            width_in = width
    layers += [nn.Conv2d(width_in, 256, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU()]
    return LightEncoder(nn.Sequential(*layers), 256, Preprocessing(size=112))


def mobile() -> LightEncoder:
    """MobileNetV2 at 76 px as TensorFlow's weights need it, its map of two depths 5 x 5."""
    body = TwoDepths()
    width = sum(STAGES[stage - 1][1] for stage in (5, 7))
    return LightEncoder(body, width, Preprocessing(size=76, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))


class ShufflingMobileViTV2(MobileViTV2Model):
    """MobileViTV2 that takes patches out of a map, and puts them back, by pixel shuffling.

    The numbers are those of transformers' `unfold` and `fold`; ONNX has no exporter for the latter.
    """

    def __init__(self, config: MobileViTV2Config) -> None:
        super().__init__(config)
        side: Any = config.patch_size
        layers: list[Any] = [m for m in self.modules() if isinstance(m, MobileViTV2Layer)]
        for layer in layers:
            layer.unfolding, layer.folding = _take_patches(side), _put_patches(side)


def _take_patches(side: int) -> Callable[[Tensor], tuple[Tensor, tuple[int, int]]]:
    def take(features: Tensor) -> tuple[Tensor, tuple[int, int]]:
        rows, width, height, length = features.shape
        taken = functional.pixel_unshuffle(features, side).reshape(rows, width, side * side, -1)
        return taken, (height, length)

    return take


def _put_patches(side: int) -> Callable[[Tensor, tuple[int, int]], Tensor]:
    def put(patches: Tensor, output_size: tuple[int, int]) -> Tensor:
        rows, width = patches.shape[:2]
        height, length = (size // side for size in output_size)
        return functional.pixel_shuffle(patches.reshape(rows, width * side * side, height, length), side)

    return put


@dataclass(frozen=True)
class LightEntry:
    """A light encoder by name.

    `build` makes it, with random weights or those of a Hub id or path; `size` is the side of its input in
    pixels.
    """

    build: Callable[[str | None], LightEncoder]
    size: int


def _own(make: Callable[[], LightEncoder], size: int, name: str | None = None) -> LightEntry:
    def build(weights: str | None) -> LightEncoder:
        encoder = make()
        if weights is not None:
            encoder.load_state_dict(_trained_weights(name or make.__name__, weights))
        return encoder

    return LightEntry(build, size)


def _trained_weights(name: str, model: str) -> dict[str, Tensor]:
    """The light encoder's tensors of a trained model folder, or of the bundled one."""
    folder = ModelFolder.open(bundled() if model == "bundled" else Path(model))
    found = folder.config.light.partition("@")[0].partition("/")[0]
    if found != name:
        raise ModelError(f"{folder.path} has the light encoder {found!r}; expected one of {name!r}")
    folder.read(WEIGHTS)  # checks that it is what config.json says
    tensors, _ = state.load_tensors(folder.path / WEIGHTS)
    return {
        key: tensor.float() if tensor.is_floating_point() else tensor
        for key, tensor in state.group("light", tensors).items()
    }


def _hub(
    model: Any, config: Callable[[], Any], preprocessing: Preprocessing, *, bgr: bool = False
) -> LightEntry:
    """One of transformers' backbones, in the size that `config` gives.

    `preprocessing` is that of the family's published weights, squashed so that the whole picture is seen.
    `bgr`: the published weights read blue first; their first kernels are turned around, since pixels here
    come red first.
    """

    def build(weights: str | None) -> LightEncoder:
        if weights is None:
            body = _initialised(model(config()))
        else:
            with reading(f"{model.__name__} weights", weights):
                body = load_pretrained(model, weights, config=config())
            if bgr:
                _reverse_channels(body)
        return _checked(_with_usual_momentum(body), preprocessing)

    return LightEntry(build, preprocessing.size)


def _imagenet(size: int) -> Preprocessing:
    return Preprocessing(size, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def _efficientnet(**sizes: Any) -> Callable[[], EfficientNetConfig]:
    return lambda: EfficientNetConfig(**sizes)


LIGHT: dict[str, LightEntry] = {
    "tiny": _own(tiny, 112),
    "mobile": _own(mobile, 76),
    "mobilenet-v2": _hub(
        MobileNetV2Model, MobileNetV2Config, Preprocessing(224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    ),
    "efficientnet-b0": _hub(
        EfficientNetModel,
        _efficientnet(width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280),
        _imagenet(224),
    ),
    "efficientnet-b2": _hub(
        EfficientNetModel,
        _efficientnet(
            width_coefficient=1.1, depth_coefficient=1.2, hidden_dim=1408, depthwise_padding=[5, 8, 16]
        ),
        _imagenet(260),
    ),
    "swiftformer-xs": _hub(SwiftFormerModel, SwiftFormerConfig, _imagenet(224)),
    "mobilevit-v2": _hub(
        ShufflingMobileViTV2,
        MobileViTV2Config,
        Preprocessing(256, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        bgr=True,
    ),
}


def register_light(name: str, make: Callable[[], LightEncoder], side: int) -> None:
    """Make a light encoder of one's own known by name; `side` is that of its input in pixels.

    `make` gives it with fresh weights. Raises ConfigError for a name that is taken, or cannot be one.
    """
    if name in LIGHT or not name or any(sign in name for sign in "/@: "):
        raise ConfigError(
            f"a light encoder cannot be called {name!r}: the name is taken, or has one of / @ : in it"
        )
    LIGHT[name] = _own(make, side, name)


def build_light(name: str, *, pretrained: bool = True) -> LightEncoder:
    """The light encoder that `name` names: NAME or timm:NAME, then /SIDE for another input side in pixels, then
    @HUB_ID_OR_PATH for pretrained weights.

    `pretrained=False` leaves the weights random whatever the name says, for a checkpoint that is loaded next.
    Raises ConfigError on an unknown name or a side that does not suit it, ModelError where the weights cannot be
    read or do not fit.
    """
    sized, _, found = name.partition("@")
    short, _, side = sized.partition("/")
    encoder = _named(short, found if found and pretrained else None)
    return _at_side(encoder, side) if side else encoder


def without_side(name: str) -> str:
    """The name without its "/SIDE", which no weights depend on."""
    sized, at, found = name.partition("@")
    return sized.partition("/")[0] + at + found


def _named(short: str, weights: str | None) -> LightEncoder:
    if short.startswith(TIMM):
        return _checked(*timm_backbone(short.removeprefix(TIMM), weights))
    if short not in LIGHT:
        raise ConfigError(
            f"unknown light encoder {short!r}; known: {', '.join(sorted(LIGHT))}; and {TIMM}NAME where timm "
            "is installed"
        )
    return LIGHT[short].build(weights)


def _at_side(encoder: LightEncoder, side: str) -> LightEncoder:
    if not side.isdecimal() or int(side) < MIN_SIDE:
        raise ConfigError(
            f"expected the input's side in pixels, at least {MIN_SIDE}, after the light encoder's name; "
            f"got {side!r}"
        )
    return _checked(encoder.body, replace(encoder.preprocessing, size=int(side)))


@torch.no_grad()
def _checked(body: nn.Module, preprocessing: Preprocessing) -> LightEncoder:
    """The encoder with its width measured. Raises ConfigError if it gives no (B, C, H, W) feature map."""
    encoder = LightEncoder(body, 0, preprocessing).eval()
    features = encoder(torch.zeros(1, 3, preprocessing.size, preprocessing.size))
    encoder.width = features.shape[1]
    if features.ndim != 4 or min(features.shape[2:]) < 2 or encoder.width <= max(features.shape[2:]):
        raise ConfigError(
            "expected a light encoder with a feature map of (batch, channels, height, width); got "
            f"{tuple(features.shape)}"
        )
    encoder.train()
    return encoder


def _initialised(body: nn.Module) -> nn.Module:
    """Kernels drawn as He et al. (ICCV 2015, eq. 10) do, batch norms starting as the identity.

    transformers draws the scales of EfficientNet's and MobileViTV2's batch norms around zero with a deviation
    of 0.02: after a few layers nothing is left of the picture, and such a model cannot be trained from
    scratch.
    """
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    return body


def _with_usual_momentum(body: nn.Module) -> nn.Module:
    """Batch norms with torch's own momentum.

    transformers hands the momentum of the TensorFlow originals (0.99: the share of the old) to torch, where
    it is the share of the new: running statistics would be those of the last batch.
    """
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d) and module.momentum is not None and module.momentum > 0.5:
            module.momentum = 0.1
    return body


@torch.no_grad()
def _reverse_channels(body: nn.Module) -> None:
    first = next(module for module in body.modules() if isinstance(module, nn.Conv2d))
    first.weight.copy_(first.weight.flip(1))
