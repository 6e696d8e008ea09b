"""Presets side by side on the fashion world: what is trained, and the table of what is there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the recipes need the [train] extra")

from image2sentence.evaluation.evaluate import FULL_TEXT
from image2sentence.training.presets import read_preset
from image2sentence.training.train import read_settings
from recipes.miniature.evaluate import label
from recipes.miniature.outcomes import read
from recipes.miniature.presets import PRESETS, ROWS, results_table, study, variants
from recipes.miniature.train_queries import command
from recipes.miniature.worlds import FASHION


def test_every_row_is_a_preset_with_its_changes_and_seed(tmp_path: Path) -> None:
    made = variants(50, 3)
    assert len(made) == 3 * (len(PRESETS) + len(ROWS)) == len({one.folder for one in made})
    for one in made:
        asked = command(FASHION, one, tmp_path)
        assert f"--preset={one.preset}" in asked
        assert "--light=tiny/80@bundled" in asked, "losses are compared, not light encoders"
        given = dict(part.removeprefix("--set=").split("=", 1) for part in asked if part.startswith("--set="))
        changes = {name: json.loads(value) for name, value in given.items()}
        settings = read_settings(None, changes, read_preset(one.preset))
        assert (settings.steps, settings.save_every, settings.seed) == (50, 50, one.seed)
    paper = next(one for one in made if one.name == "paper")
    assert not any("modifier" in part for part in command(FASHION, paper, tmp_path) if "--set" in part)


def test_the_table_has_every_seed_and_the_paired_difference_to_the_default(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def row(name: str, gain: float) -> dict[str, object]:
        values = (rng.random(50) * 10 + gain).tolist()
        return {"name": name, "note": "", "values": {"recall@1": values, "mAP@10": values}}

    rows = [row(name, 0) for name in ("image only", "text only", "image + text sum", FULL_TEXT)]
    names = {"paper": 10.0, "default": 30.0, "LAR off": 30.0}
    rows += [row(label(one), names[one.name]) for one in variants(50, 2) if one.name in names]
    rows = [one for one in rows if one["name"] != f"{study(50)}: LAR off (seed 1)"]  # interrupted
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"facts": {}, "rows": rows}))
    text = results_table(read(file), 50).splitlines()
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in text}
    assert len(cells["paper"][3].split(", ")) == 2
    assert len(cells["LAR off"][3].split(", ")) == 1
    assert cells["paper"][4].startswith("-2")
    assert cells["default"][4].strip(" |") == ""
    assert cells["image only"][3].strip() == ""
