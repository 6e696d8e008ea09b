"""The stage that teaches the bundled tower's branch what a teacher's maps say, and the teacher itself."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pytest

pytest.importorskip("torch", reason="the recipes need the [train] extra")
pytest.importorskip("transformers", reason="the recipes need the [train] extra")

import torch

from image2sentence.images import load_image
from image2sentence.training.vl.blip import BlipVL
from image2sentence.training.vl.load import load_vl
from recipes.bundled import general, train_shapes
from recipes.bundled.train_shapes import Pairs, ShapeSettings
from tiny_vl import save_tiny_vl

SETTINGS = ShapeSettings(channels=4, steps=400, batch=16, pictures=3)


@pytest.fixture
def vl(tmp_path: Path) -> BlipVL:
    vl = load_vl(str(save_tiny_vl("conv_blip", tmp_path / "vl")))
    assert isinstance(vl, BlipVL)
    vl.model.float()
    return vl


def test_a_tower_with_a_new_branch_says_what_it_said(vl: BlipVL) -> None:
    shown = torch.randn(
        2, 3, vl.preprocessing.size, vl.preprocessing.size, generator=torch.Generator().manual_seed(0)
    )
    last = vl.model.vision_model.layout.layers[-1]
    torch.nn.init.normal_(last.weight, generator=torch.Generator().manual_seed(1))
    before = vl.encode_images(shown).vectors
    train_shapes.with_shapes(vl, SETTINGS)
    assert vl.model.vision_model.shapes is not None
    vl.model.eval()
    torch.testing.assert_close(vl.encode_images(shown).vectors, before)


def test_the_branch_learns_what_the_teacher_says(vl: BlipVL) -> None:
    train_shapes.with_shapes(vl, SETTINGS)
    branch = vl.model.vision_model.shapes.requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    read = torch.randn(64, vl.model.config.vision_config.widths[-2], 8, 8, generator=generator)
    said = torch.nn.functional.avg_pool2d(read[:, :1], 2) * torch.ones(1, general.CHANNELS, 1, 1)
    left = train_shapes.train(branch, Pairs(read.half(), said.half()), SETTINGS)
    assert left < 0.7  # 1 is to know nothing


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match=r"recipes\.bundled\.material"):
        train_shapes.chosen(tmp_path, SETTINGS)


def test_pictures_are_the_same_every_time_and_drafts_are_none(tmp_path: Path) -> None:
    folder = tmp_path / "pictures" / "emoji"
    folder.mkdir(parents=True)
    for name in ("a.png", "b.png", "c.png", "d.png", "e.draft"):
        (folder / name).touch()
    first = train_shapes.chosen(tmp_path, SETTINGS)
    assert first == train_shapes.chosen(tmp_path, SETTINGS)
    assert len(set(first)) == 3
    assert all(path.suffix == ".png" for path in first)


def test_a_missing_teacher_is_named(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match=r"CONTRIBUTING\.md"):
        general.load_shapes(tmp_path)


def test_the_teacher_has_the_numbers_of_its_file(shared_data: Path) -> None:
    """The float32 map against the 8-bit network's own."""
    interpreter_module = pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert")
    picture = sorted((shared_data / "emoji" / "images").iterdir())[0]
    pixels = np.array(load_image(picture).resize((224, 224)))
    path = str(shared_data / general.FILE)
    interpreter = interpreter_module.Interpreter(path, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels[None])
    interpreter.invoke()
    last = next(
        tensor
        for tensor in interpreter.get_tensor_details()
        if tensor["name"].startswith("MobilenetV2/expanded_conv_12/add") and len(tensor["shape"]) == 4
    )
    scale, zero = last["quantization"]
    wanted = (interpreter.get_tensor(last["index"])[0].astype(np.float32) - zero) * scale
    found = general.load_shapes(shared_data)(torch.from_numpy(pixels[None]).permute(0, 3, 1, 2))
    found = found[0].permute(1, 2, 0).numpy()
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.9
