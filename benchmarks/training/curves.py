"""Loss curves of the settings before and now on the world that this project draws, with the bundled VL model.

    python -m benchmarks.training.curves [--steps 120] [--batch 16] [--row now/160]

The rows are those of `benchmarks.training.steps blip`, with the light encoder `tiny`: `before` has it at 224 px and LAR
through the matching encoder on a quarter of each batch; `now` has it at 112 px, LAR on an eighth at half the VL model's
side, and modifiers for half of each batch; `now/160` and `now/224` are the same with light encoders at those sides, to
tell what the side alone costs. `seed` is `before` with another seed: how far apart runs are that differ in
nothing else. Each figure is the mean of a loss over a fifth of the steps. Last comes recall@1 in percent of held-out
pictures.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import torch

from image2sentence.catalogue import write_catalogue
from image2sentence.encoders.model_folder import bundled
from image2sentence.training import phrase_bank as phrases
from image2sentence.training.dataset import collect
from image2sentence.training.models.query_model import build_query_model
from image2sentence.training.settings import TrainSettings
from image2sentence.training.trainer import Trainer
from image2sentence.training.vl.load import load_vl

PARTS = 5
ROWS = ("before", "seed", "now", "now/160", "now/224")


def trainers(
    folder: Path, steps: int, batch: int, pictures: int, names: Sequence[str] = ROWS
) -> dict[str, Trainer]:
    """One for each of the rows of these names."""
    vl = load_vl(str(bundled() / "vl"))
    drawn = write_catalogue(folder / "drawn", pictures, 0, 224) / "images"
    collection = collect(drawn, vl, folder / "targets.safetensors")
    texts = [
        (bundled() / "vl" / name).read_text(encoding="utf-8").splitlines()
        for name in ("phrases.txt", "modifiers.txt")
    ]
    bank = phrases.build_bank(vl, phrases.WordLists(*texts))
    plain = TrainSettings(
        steps=steps,
        batch=batch,
        lar_batch=batch // 4,
        warmup=steps // 10,
        validation=pictures // 5,
        average=0.95,
    )
    half = vl.preprocessing.size // 2
    now = replace(plain, lar_batch=batch // 8, lar_side=half, modifier_batch=batch // 2)
    rows = {
        "before": ("tiny/224", plain),
        "seed": ("tiny/224", replace(plain, seed=1)),
        "now": ("tiny/112", now),
        "now/160": ("tiny/160", now),
        "now/224": ("tiny/224", now),
    }
    made = {}
    for name in names:
        light, settings = rows[name]
        torch.manual_seed(settings.seed)
        model = build_query_model(vl, light, settings.learner)
        made[name] = Trainer(vl, model, collection, settings, folder / name.replace("/", "-"), bank)
    return made


def curve(trainer: Trainer) -> tuple[list[dict[str, float]], float, float]:
    """Mean losses of each part of the run, the recall after it, and processor seconds of the steps."""
    steps = trainer.settings.steps
    started, losses = time.process_time(), []
    for step, batch in enumerate(trainer.loader.ahead(0, steps)):
        losses.append(trainer._step(step, [batch]))
        trainer.average.update(trainer.model, step)
    seconds, part = time.process_time() - started, steps // PARTS
    means = [
        {name: sum(values[name] for values in losses[at : at + part]) / part for name in losses[0]}
        for at in range(0, part * PARTS, part)
    ]
    return means, trainer.validate(), seconds


@click.command()
@click.option("--steps", default=120, show_default=True)
@click.option("--batch", default=16, show_default=True)
@click.option("--pictures", default=400, show_default=True)
@click.option("--row", "rows", multiple=True, type=click.Choice(ROWS), help="Default: all.")
def main(steps: int, batch: int, pictures: int, rows: tuple[str, ...]) -> None:
    """Train each row and print its curve."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, trainer in trainers(Path(scratch), steps, batch, pictures, rows or ROWS).items():
            means, recall, seconds = curve(trainer)
            for loss in means[0]:
                print(f"{name:<8}{loss:<10}" + "".join(f"{values[loss]:>8.3f}" for values in means))
            print(f"{name:<8}recall@1 {recall:.1f} %, {seconds / steps:.3f} processor s a step", flush=True)


if __name__ == "__main__":
    main()
