"""The trained models of the miniature experiments, by the names that their table gives them."""

from __future__ import annotations

from pathlib import Path

import click

from image2sentence.encoders import OnnxEncoder, load_encoder
from recipes.miniature.variants import VARIANTS, Variant


def variant(world: str, name: str, study: str = "main", seed: int = 0) -> Variant:
    """The variant of this name. KeyError where the table has none."""
    for one in VARIANTS[world]:
        if (one.name, one.study, one.seed) == (name, study, seed):
            return one
    raise KeyError(f"{world} has no variant {name!r} of study {study!r} with seed {seed}")


def open_model(runs: Path, world: str, one: Variant) -> OnnxEncoder:
    """A variant's model. Says which command trains it where it is not there."""
    folder = runs / world / one.folder / "model"
    if not (folder / "config.json").is_file():
        raise click.ClickException(
            f"no model at {folder}: train it with `python -m recipes.miniature.train_queries {world} --runs {runs}`"
        )
    return load_encoder(folder)
