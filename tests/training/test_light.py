"""Light encoders: feature maps, weights by path, costs, and names that do not exist."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: light encoders belong to training")
pytest.importorskip("transformers", reason="transformers is not installed: light encoders belong to training")

import torch
from torch import nn
from transformers import MobileNetV2Config, MobileNetV2Model, MobileViTV2Config, MobileViTV2Model

from image2sentence.encoders.model_folder import bundled
from image2sentence.errors import ConfigError, ModelError
from image2sentence.training.models.cost_table import (
    LightCost,
    format_light_table,
    light_table,
    multiply_adds,
)
from image2sentence.training.models.light_encoders import LIGHT, ShufflingMobileViTV2, build_light

# Parameters and multiply-adds in millions, as the papers print them (Sandler et al. 2018, Tan and Le 2019, Mehta and
# Rastegari 2022, Shaker et al. 2023), less the parameters of a classifier of 1,000 classes.
PUBLISHED = {
    "mobilenet-v2": (3.4 - 1.28, 300),
    "efficientnet-b0": (5.3 - 1.28, 390),
    "efficientnet-b2": (9.2 - 1.41, 1000),
    "mobilevit-v2": (4.9 - 0.51, 1800),
    "swiftformer-xs": (3.5 - 0.44, 600),
}


@pytest.mark.parametrize("name", LIGHT)
def test_feature_maps_and_gradients(name: str) -> None:
    torch.manual_seed(0)
    encoder = build_light(name)
    assert encoder.training
    size = encoder.preprocessing.size
    assert size == LIGHT[name].size
    features = encoder(torch.randn(2, 3, size, size))
    assert features.shape[:2] == (2, encoder.width)
    assert features.shape[2] == features.shape[3] == -(-size // (16 if name in ("tiny", "mobile") else 32))
    assert features.mean((2, 3)).std(0).mean() > 0.05, "as initialised, pictures must be separated"
    features.pow(3).mean().backward()
    for key, parameter in encoder.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    assert next(encoder.parameters()).grad.norm() > 1e-4


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_are_the_published_ones(name: str) -> None:
    encoder = build_light(name)
    parameters, million = PUBLISHED[name]
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(parameters, rel=0.05)
    assert multiply_adds(encoder, encoder.preprocessing.size) / 1e6 == pytest.approx(million, rel=0.03)
    assert encoder.training, "counting must leave the mode as it was"


def test_the_side_of_the_input_can_be_chosen() -> None:
    small = build_light("tiny/64")
    assert small.preprocessing.size == 64
    assert small(torch.zeros(1, 3, 64, 64)).shape == (1, small.width, 4, 4)
    whole = build_light("tiny")
    assert multiply_adds(small, 64) / multiply_adds(whole, 112) == pytest.approx((64 / 112) ** 2, rel=0.01)


@pytest.mark.parametrize("name", ["tiny/8", "tiny/big", "tiny/-64", "mobilenet-v2/0112x"])
def test_a_side_that_cannot_be(name: str) -> None:
    with pytest.raises(ConfigError, match="input's side in pixels, at least 32"):
        build_light(name)


def test_multiply_adds_of_known_layers() -> None:
    assert multiply_adds(nn.Conv2d(3, 8, 3, padding=1), 10) == 100 * 8 * 3 * 9
    assert multiply_adds(nn.Conv2d(3, 6, 3, padding=1, groups=3), 10) == 100 * 6 * 9
    assert multiply_adds(nn.Conv2d(3, 8, 3, stride=2, padding=1), 10) == 25 * 8 * 3 * 9
    assert multiply_adds(nn.Sequential(nn.Flatten(), nn.Linear(300, 7)), 10) == 300 * 7

    class SelfAttention(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            places = pixels.flatten(2).transpose(1, 2)[:, None]  # (1, 1, 100, 3)
            return nn.functional.scaled_dot_product_attention(places, places, places)

    assert multiply_adds(SelfAttention(), 10) == 2 * 100 * 100 * 3


def test_the_table_has_a_row_for_each() -> None:
    rows = light_table(["mobilenet-v2", "tiny"], runs=1)
    assert [row.name for row in rows] == ["tiny", "mobilenet-v2"]
    assert all(row.latency > 0 for row in rows)
    printed = format_light_table([LightCost("some", 1_500_000, 250_000_000, 224, 3.21)]).splitlines()
    assert re.split(r"\s{2,}", printed[1]) == ["some", "1.50 M", "0.250", "224 px", "3.2 ms"]


def test_shuffling_equals_folding() -> None:
    config = MobileViTV2Config()
    torch.manual_seed(0)
    native, ours = (
        MobileViTV2Model(config),
        ShufflingMobileViTV2(config),
    )
    native.load_state_dict(build_light("mobilevit-v2").body.state_dict())
    ours.load_state_dict(native.state_dict())
    pixels = torch.randn(2, 3, 64, 64)
    expected = native(pixels).last_hidden_state
    assert expected.std() > 0.1
    assert torch.equal(ours(pixels).last_hidden_state, expected)


def test_running_statistics_are_not_the_last_batchs() -> None:
    for name in LIGHT.keys() - {"mobile"}:  # whose batch norms are part of its convolutions
        momenta = [m.momentum for m in build_light(name).modules() if isinstance(m, nn.BatchNorm2d)]
        assert momenta
        assert max(momenta) <= 0.1


def test_weights_by_path(tmp_path: Path) -> None:
    torch.manual_seed(1)
    saved = MobileNetV2Model(MobileNetV2Config())
    saved.save_pretrained(tmp_path / "weights")
    name = f"mobilenet-v2@{tmp_path / 'weights'}"
    loaded = build_light(name).body
    assert all(torch.equal(saved.state_dict()[k], v) for k, v in loaded.state_dict().items())
    fresh = build_light(name, pretrained=False).body
    assert not torch.equal(
        fresh.conv_stem.first_conv.convolution.weight, saved.conv_stem.first_conv.convolution.weight
    )


def test_weights_that_read_blue_first_are_turned_around(tmp_path: Path) -> None:
    saved = MobileViTV2Model(MobileViTV2Config())
    saved.load_state_dict(build_light("mobilevit-v2").body.state_dict())
    saved.save_pretrained(tmp_path)
    ours = build_light(f"mobilevit-v2@{tmp_path}")
    pixels = torch.rand(4, 3, 64, 64)
    expected = saved(pixels.flip(1)).last_hidden_state
    assert (saved(pixels).last_hidden_state - expected).abs().max() > 0.1
    torch.testing.assert_close(ours(pixels), expected, atol=1e-3, rtol=1e-3)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.5)).save_pretrained(tmp_path / "half")
    with pytest.raises(ModelError, match="MobileNetV2Model weights"):
        build_light(f"mobilenet-v2@{tmp_path / 'half'}")
    with pytest.raises(ModelError, match=r"weights.*another kind of model|no usable"):
        build_light(f"efficientnet-b0@{tmp_path / 'half'}")
    with pytest.raises(ModelError, match="there is no such folder"):
        build_light(f"mobilenet-v2@{tmp_path / 'none'}")


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="unknown light encoder 'mobilenet'; known: efficientnet-b0"):
        build_light("mobilenet")
    with pytest.raises(ModelError, match="somewhere"):
        build_light("tiny@somewhere")


def test_weights_of_a_trained_model() -> None:
    """`tiny@bundled` is the bundled query side's light encoder, at any side; a checkpoint loaded next needs none."""
    first, second = build_light("tiny@bundled").state_dict(), build_light("tiny/64@bundled").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    fresh = build_light("tiny@bundled", pretrained=False).state_dict()
    assert not torch.equal(first["body.0.weight"], fresh["body.0.weight"])


def _without_checksum(text: str) -> str:
    values = json.loads(text)
    values.pop("checksum", None)
    return json.dumps(values)


def test_weights_of_another_light_encoder(tmp_path: Path) -> None:
    shutil.copytree(bundled(), tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    text = config.read_text().replace('"light": "tiny/128"', '"light": "mobilenet-v2/112"')
    config.write_text(_without_checksum(text))
    with pytest.raises(ModelError, match="has the light encoder 'mobilenet-v2'; expected one of 'tiny'"):
        build_light(f"tiny@{tmp_path / 'model'}")


def test_timm_that_is_missing_or_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match="need timm and torchvision, and one is missing"):
        build_light("timm:mobilenetv4_conv_small")
    monkeypatch.delitem(sys.modules, "timm")
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"torchvision::nms does not exist.*does not fit torch"):
        build_light("timm:mobilenetv4_conv_small")


TIMM = """
import torch
from torch import nn
from types import SimpleNamespace

class Body(nn.Module):
    def __init__(self, channels_last):
        super().__init__()
        self.conv, self.channels_last = nn.Conv2d(3, 12, 8, 8), channels_last
    def forward(self, x):
        y = self.conv(x)
        return [y.permute(0, 2, 3, 1) if self.channels_last else y]

def is_model(name):
    return name in ("good", "swin", "plain")

def list_models(pattern):
    return ["good"]

def create_model(name, features_only, out_indices, **_):
    assert features_only and out_indices == (-1,)
    if name == "plain":
        raise RuntimeError("features_only not implemented")
    return Body(name == "swin")

data = SimpleNamespace(resolve_model_data_config=lambda body: dict(
    input_size=(3, 48, 48), interpolation="random", mean=(0.5,) * 3, std=(0.25,) * 3))
"""


def test_timm_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in with timm's interface, since timm needs torchvision."""
    (tmp_path / "timm.py").write_text(TIMM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    encoder = build_light("timm:good")
    assert (encoder.width, encoder.preprocessing.size) == (12, 48)
    assert encoder.preprocessing.std == (0.25, 0.25, 0.25)
    assert encoder(torch.zeros(2, 3, 48, 48)).shape == (2, 12, 6, 6)
    with pytest.raises(ConfigError, match="no model 'goof'; near it: good"):
        build_light("timm:goof")
    with pytest.raises(ConfigError, match="plain gives no feature maps"):
        build_light("timm:plain")
    with pytest.raises(ConfigError, match=r"\(1, 6, 6, 12\)"):
        build_light("timm:swin")
    with pytest.raises(ModelError, match="there is no such file"):
        build_light(f"timm:good@{tmp_path / 'none.safetensors'}")
    monkeypatch.delitem(sys.modules, "timm", raising=False)
