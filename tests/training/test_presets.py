"""Presets of training: files that one can read, and what they come to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: presets belong to training")

from click.testing import CliRunner

from image2sentence.cli.main import cli
from image2sentence.errors import ConfigError, ModelError
from image2sentence.strict_json import to_dict
from image2sentence.training import train as run
from image2sentence.training.models.light_encoders import LIGHT
from image2sentence.training.presets import PRESETS, preset_file, read_preset
from image2sentence.training.settings import TrainSettings
from tiny_vl import save_tiny_vl


def test_every_file_is_a_preset_and_can_be_read() -> None:
    files = {file.stem for file in preset_file("default").parent.glob("*.json")}
    assert files == set(PRESETS)
    for name in PRESETS:
        preset = read_preset(name)
        assert preset.about
        assert preset.light.split("@")[0].split("/")[0] in LIGHT
        run.read_settings(None, {}, preset)


def test_the_default_preset_writes_out_every_default() -> None:
    assert read_preset("default").settings == to_dict(TrainSettings())
    assert run.read_settings(None, {}, read_preset("default")) == TrainSettings()


def test_the_papers_preset_is_its_two_losses_and_nothing_of_ours() -> None:
    settings = run.read_settings(None, {}, read_preset("paper"))
    assert (settings.gcd, settings.lar, settings.temperature) == ("info_nce", "matching", "auto")
    assert settings.gcd_weight > 0 < settings.lar_weight
    assert (settings.modifier_weight, settings.caption_weight) == (0, 0)
    assert (settings.learner.softmax, settings.learner.gates) == ("tokens", False)
    assert "@" in read_preset("paper").light, "its light encoder begins with ImageNet weights"


def test_a_file_changes_a_preset_and_single_settings_change_both(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps({"steps": 7, "learner": {"tokens": 2}}))
    settings = run.read_settings(tmp_path / "own.json", {"steps": 9, "batch": 4}, read_preset("paper"))
    assert (settings.steps, settings.batch, settings.learner.tokens, settings.gcd) == (9, 4, 2, "info_nce")


def test_unknown_presets_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown preset 'papers'; known: default, paper, laptop"):
        read_preset("papers")
    result = CliRunner().invoke(cli, ["train", "x", "--out", str(tmp_path / "r"), "--preset", "../x"])
    assert result.exit_code == 1
    assert "unknown preset '../x'" in result.output


def test_the_command_takes_light_encoder_and_settings_of_a_preset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def train(request: run.TrainRequest, *_: object) -> dict[str, object]:
        asked.append(request)
        raise ConfigError("enough")

    monkeypatch.setattr(run, "train", train)
    for more in (["--preset", "laptop"], ["--preset", "laptop", "--light", "tiny", "--set", "batch=8"], []):
        CliRunner().invoke(cli, ["train", "x", "--out", str(tmp_path / "r"), *more])
    laptop = run.read_settings(None, {}, read_preset("laptop"))
    assert (asked[0].light, asked[0].settings) == (read_preset("laptop").light, laptop)
    assert (asked[1].light, asked[1].settings) == ("tiny", replace(laptop, batch=8))
    assert (asked[2].light, asked[2].settings) == ("tiny", TrainSettings())


def test_matching_is_refused_for_models_without_it_before_anything_is_computed(tmp_path: Path) -> None:
    save_tiny_vl("clip", tmp_path / "vl")
    settings = run.read_settings(None, {}, read_preset("paper"))
    request = run.TrainRequest(tmp_path / "none", str(tmp_path / "vl"), "tiny", tmp_path / "run", settings)
    with pytest.raises(ModelError, match="has no matching encoder: give a BLIP-type VL model"):
        run.train(request)
    assert not (tmp_path / "run").exists()
