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


def trained(runs: Path, world: str, *names: str) -> dict[str, OnnxEncoder]:
    """The main variants of these names that are trained, first seed; says which are not. The first one has to be."""
    found = {names[0]: open_model(runs, world, variant(world, names[0]))}
    for name in names[1:]:
        one = variant(world, name)
        if (runs / world / one.folder / "model" / "config.json").is_file():
            found[name] = open_model(runs, world, one)
        else:
            click.echo(f"{world}: {name} is not trained yet; run this again when it is")
    return found
