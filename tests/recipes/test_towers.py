"""The recipes' tower training: its result is the mean of an early and the last point of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the recipes need the [train] extra")
pytest.importorskip("transformers", reason="the recipes need the [train] extra")

import torch

from image2sentence.training import checkpoint as state
from image2sentence.training.vl.blip import BlipVL
from image2sentence.training.vl.load import load_vl
from recipes.towers import TowerBatch, TowerSettings, mean_weights, train_towers
from tiny_vl import save_tiny_vl

SETTINGS = TowerSettings(steps=4, batch=2, warmup=1, early=2, early_share=0.25)


@dataclass(frozen=True)
class Caption:
    text: str


@dataclass(frozen=True)
class Batches:
    """Two pictures and two captions a step."""

    side: int

    def ahead(self, first: int) -> Iterator[TowerBatch]:
        for step in range(first, SETTINGS.steps):
            drawn = torch.Generator().manual_seed(step)
            pixels = torch.randint(0, 256, (2, 3, self.side, self.side), dtype=torch.uint8, generator=drawn)
            yield TowerBatch(pixels, [Caption("a red shirt"), Caption("a blue mug")], torch.eye(2))


def trained(vl_folder: Path, out: Path) -> dict[str, torch.Tensor]:
    vl = load_vl(str(vl_folder))
    assert isinstance(vl, BlipVL)
    model = vl.model.float().requires_grad_(True)
    side = vl.preprocessing.size
    train_towers(model, vl.tokenizer, Batches(side), SETTINGS, out, side)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_result_is_the_mean_of_an_early_and_the_last_point(tmp_path: Path) -> None:
    save_tiny_vl("conv_blip", tmp_path / "vl")
    weights = trained(tmp_path / "vl", tmp_path / "run")
    early, _ = state.load_tensors(tmp_path / "run" / "early.safetensors")
    kept, _ = state.load_tensors(tmp_path / "run" / "state.safetensors")
    last = state.group("average", kept)
    name = "vision_proj.weight"
    expected = 0.75 * last[f"model.{name}"] + 0.25 * early[f"model.{name}"]
    assert not torch.equal(last[f"model.{name}"], early[f"model.{name}"])
    torch.testing.assert_close(weights[name].float(), expected, atol=1e-3, rtol=1e-3)  # float16


def test_means_leave_counters_to_the_last() -> None:
    last = {"weight": torch.tensor([4.0]), "seen": torch.tensor(9)}
    early = {"weight": torch.tensor([0.0]), "seen": torch.tensor(2)}
    assert mean_weights(last, early, 0.25) == {"weight": torch.tensor([3.0]), "seen": torch.tensor(9)}
