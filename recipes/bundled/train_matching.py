"""Second stage of the bundled VL model: its matching encoder.

python -m recipes.bundled.train_matching --vl runs/vl --data ../shared/data
"""

from __future__ import annotations

from pathlib import Path

import click

from recipes.bundled import data
from recipes.bundled.train_vl import Batches, Settings
from recipes.matching import MatchingSettings, train_matching
from recipes.towers import read_towers, save_model


@click.command()
@click.option("--vl", "run", type=click.Path(path_type=Path), default=Path("runs/vl"))
@click.option("--data", "data_folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/bundled"))
@click.option("--steps", default=MatchingSettings.steps)
def main(run: Path, data_folder: Path, cache: Path, steps: int) -> None:
    """Reads RUN/towers, writes RUN/model."""
    vl = read_towers(run / "towers")
    pictures = data.training_pictures(data_folder, cache, Settings.drawn)
    settings = MatchingSettings(steps=steps)
    drawn = Settings(batch=settings.batch, captions=1, edits=0.2, steps=steps, seed=1)
    batches = Batches(pictures, drawn)
    train_matching(vl, pictures.pixels, batches, settings)
    save_model(vl.model, vl.tokenizer, run / "model", vl.preprocessing.size)
    click.echo(f"wrote {run / 'model'}")


if __name__ == "__main__":
    main()
