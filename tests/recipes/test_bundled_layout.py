"""The stage that teaches the bundled tower's layout head: what a step compares, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the recipes need the [train] extra")
pytest.importorskip("transformers", reason="the recipes need the [train] extra")

import torch

from image2sentence.training.vl.blip import BlipVL
from image2sentence.training.vl.load import load_vl
from recipes.bundled import data, train_layout
from recipes.bundled.style_pairs import StylePairTable
from recipes.bundled.train_layout import DRAWINGS, LayoutSettings, Maps, Readings, Step, Steps, train
from recipes.bundled.train_vl import Batches
from tiny_vl import save_tiny_vl

STYLES = ("noto", "fluent_3d", "fluent_flat")
RECORDS = [
    {"source": "drawn", "type": "shirt", "colour": "red", "pattern": "plain", "pattern_colour": ""},
    {"source": "photo", "type": "Shirt", "kids": "False", "colour": "red"},
    *[
        {"source": "emoji", "thing": f"thing {number}", "style": style, "skin_tone": "", "gender_word": ""}
        for number in range(45)
        for style in STYLES
    ],
]
SETTINGS = LayoutSettings(steps=2, readings=(1, 2, 3), invented=40, pairs=10, invented_each=4)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_layout, "_CAPTIONED", replace(train_layout._CAPTIONED, batch=6, side=32))


@pytest.fixture(scope="module")
def pictures() -> data.Pictures:
    drawn = np.random.default_rng(0).integers(0, 256, (len(RECORDS), data.SIDE, data.SIDE, 3), np.uint8)
    return data.Pictures(drawn, RECORDS)


class Numbered(Readings):
    """Maps that say of which picture they are, and of which invented subject and style."""

    def __init__(self, pictures: int) -> None:
        self._counts, self._starts = np.ones(pictures, np.int64), np.arange(pictures)
        self._maps = Maps(torch.arange(pictures)[:, None].half(), torch.zeros(pictures, 1))
        numbers = torch.arange(SETTINGS.invented * DRAWINGS)
        self._invented_maps = Maps(numbers[:, None].half(), torch.zeros(len(numbers), 1))


def drawn_step(pictures: data.Pictures) -> tuple[Batches, Step]:
    batches = Batches(pictures, train_layout._CAPTIONED)
    style_pairs = StylePairTable(pictures.records, DRAWINGS)
    return batches, Steps(batches, style_pairs, Numbered(len(pictures)), SETTINGS).draw(0)


def test_a_steps_pairs_are_one_thing_in_three_styles(pictures: data.Pictures) -> None:
    batches, step = drawn_step(pictures)
    shown, style_pairs, of = step.extras[0], step.extras[-1], step.means[:, 0].long()
    invented = 6 + DRAWINGS * SETTINGS.pairs
    assert len(of) == len(shown) == len(style_pairs) == invented + DRAWINGS * SETTINGS.invented_each
    assert len(step.verdicts) == 6
    assert (style_pairs[:6] == -1).all()
    for row, others in enumerate(style_pairs.tolist()[6:], 6):
        assert sorted(shown[[row, *others], batches.style].tolist()) == [0, 1, 2]
        if row < invented:
            assert {RECORDS[of[place]]["thing"] for place in (row, *others)} == {RECORDS[of[row]]["thing"]}
            assert shown[row, batches.style] == batches.attributes.shown[of[row], batches.style]
        else:
            assert {int(of[place]) // DRAWINGS for place in (row, *others)} == {int(of[row]) // DRAWINGS}
            assert shown[row, batches.style] == of[row] % DRAWINGS
            assert (shown[row] >= 0).sum() == 1


def test_only_what_stands_behind_the_convolutions_learns(pictures: data.Pictures, tmp_path: Path) -> None:
    save_tiny_vl("conv_blip", tmp_path / "vl")
    vl = load_vl(str(tmp_path / "vl"))
    assert isinstance(vl, BlipVL)
    vl.model.float()
    before = {name: tensor.clone() for name, tensor in vl.model.state_dict().items()}
    train(vl, pictures, SETTINGS)
    after = vl.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    learned = ("vision_model.layout.", "vision_model.norm.", "vision_proj.")
    assert changed
    assert all(name.startswith(learned) for name in changed)
    assert "vision_model.layout.layers.5.weight" in changed
