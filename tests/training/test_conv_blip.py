"""The bundled model's visual tower: what its layout head adds, and that a new head adds nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the visual tower needs the [train] extra")
pytest.importorskip("transformers", reason="the visual tower needs the [train] extra")

import torch
from torch import nn

from image2sentence.errors import ModelError
from image2sentence.training.vl.blip import BlipVL
from image2sentence.training.vl.conv_blip import ConvVisionModel
from image2sentence.training.vl.load import load_vl
from tiny_vl import save_tiny_vl

STEM, WIDTHS, DEPTHS, SIDE = 8, (8, 12, 24), (1, 1, 1), 64


def tower(layout: int) -> ConvVisionModel:
    torch.manual_seed(0)
    return ConvVisionModel(STEM, WIDTHS, DEPTHS, layout).eval()


def pixels(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def whole(model: ConvVisionModel, shown: torch.Tensor) -> torch.Tensor:
    return model(shown).last_hidden_state[:, 0]


def switch_on(model: ConvVisionModel) -> None:
    assert model.layout is not None
    last = model.layout.layers[-1]
    assert isinstance(last, nn.Linear)
    nn.init.normal_(last.weight, generator=torch.Generator().manual_seed(2))


def test_a_new_head_changes_nothing() -> None:
    plain, headed = tower(0), tower(6)
    headed.load_state_dict(headed.state_dict() | plain.state_dict())
    torch.testing.assert_close(headed(pixels()).last_hidden_state, plain(pixels()).last_hidden_state)


def test_the_head_sees_where_things_are_and_the_mean_does_not() -> None:
    model = tower(6)
    model.body = nn.Sequential(
        nn.AvgPool2d(8), nn.Conv2d(3, WIDTHS[1], 1), nn.Conv2d(WIDTHS[1], WIDTHS[2], 1)
    )
    quarter = torch.zeros(1, 3, SIDE, SIDE)
    quarter[..., : SIDE // 2, : SIDE // 2] = 1
    moved = quarter.flip(-1)
    torch.testing.assert_close(whole(model, quarter), whole(model, moved))
    switch_on(model)
    assert (whole(model, quarter) - whole(model, moved)).abs().max() > 0.1


def test_places_are_those_of_a_tower_without_head() -> None:
    model = tower(6)
    before = model(pixels()).last_hidden_state
    switch_on(model)
    after = model(pixels()).last_hidden_state
    assert after.shape == (2, 1 + (SIDE // 16) ** 2, WIDTHS[-1])
    torch.testing.assert_close(after[:, 1:], before[:, 1:])
    assert not torch.allclose(after[:, 0], before[:, 0])


def test_the_head_reads_the_means_of_cells() -> None:
    model = tower(6)
    before = model.maps(pixels())[0]
    cells = model.cells(before)
    assert cells.shape == (2, 16 * WIDTHS[1])
    torch.testing.assert_close(cells.reshape(2, WIDTHS[1], 4, 4)[..., 0, 0], before[..., :2, :2].mean((2, 3)))


def test_in_training_some_pictures_have_the_head_alone() -> None:
    model = tower(6)
    model.body.eval()  # so that only what is under test is drawn
    shown = pixels(1).expand(400, -1, -1, -1)
    model.training = True
    assert model.layout is not None
    alone = (whole(model, shown) == model.norm.bias).all(1)  # a new head adds nothing: nothing is left
    assert 0.2 < alone.float().mean() < 0.4


def test_the_head_is_saved_and_loaded_with_its_model(tmp_path: Path) -> None:
    folder = save_tiny_vl("conv_blip", tmp_path / "vl")
    vl = load_vl(str(folder))
    assert isinstance(vl, BlipVL)
    switch_on(vl.model.vision_model)
    vl.model.save_pretrained(folder)
    again = load_vl(str(folder))
    size = vl.preprocessing.size
    shown = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(again.encode_images(shown).vectors, vl.encode_images(shown).vectors)


def test_a_tower_with_the_branch_of_earlier_versions_is_named(tmp_path: Path) -> None:
    folder = save_tiny_vl("conv_blip", tmp_path / "vl")
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["shapes"] = 0  # what configurations without the branch say
    (folder / "config.json").write_text(json.dumps(config))
    load_vl(str(folder))
    config["vision_config"]["shapes"] = 96
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="shapes = 96"):
        load_vl(str(folder))
