"""Trains every variant of a world's query side with the product's own command, some at a time.

    python -m recipes.miniature.train_queries fashion --data ../shared/data --jobs 2
    python -m recipes.miniature.train_queries fashion --weights runs/bundled/first/query/model

The second begins the light encoders named `...@bundled` with another trained model's weights than the package's.
What is done is not done again: interrupt it at any time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from image2sentence.catalogue import write_catalogue
from image2sentence.evaluation.datasets.labels import FILE_COLUMN
from recipes.miniature.language import modifiers, phrases
from recipes.miniature.variants import COMMON, LIGHT, OVERRIDES, VARIANTS, Variant
from recipes.miniature.worlds import WORLDS, World

TARGETS = "targets.safetensors"
BUNDLED = "bundled"
DRAWN_PICTURES, DRAWN_SEED = 5_000, 77


def write_material(world: World, data: Path, out: Path, limit: int | None = None) -> None:
    """What the query side learns from: a folder of pictures without labels, and two lists of words.

    The bundled VL model brings its words along. `limit`: only so many pictures.
    """
    pictures = out / "pictures"
    if world.vl is not None:
        write_catalogue(pictures, DRAWN_PICTURES, DRAWN_SEED)
        return
    rows = world.training_rows(data)
    pictures.mkdir(parents=True, exist_ok=True)
    for row in rows[:limit]:
        copy = pictures / Path(row[FILE_COLUMN]).name
        if not copy.exists():
            shutil.copy2(data / world.name / row[FILE_COLUMN], copy)
    (out / "phrases.txt").write_text("\n".join(phrases(world, rows)) + "\n", encoding="utf-8")
    (out / "modifiers.txt").write_text("\n".join(modifiers(world, rows)) + "\n", encoding="utf-8")


def command(world: World, variant: Variant, out: Path, weights: str = BUNDLED) -> list[str]:
    """The `image2sentence train` command of a variant; `weights` is what light encoders named @bundled begin with."""
    common = {} if variant.preset else COMMON | OVERRIDES.get(world.name, {})
    settings = common | variant.changes | {"seed": variant.seed}
    settings["save_every"] = settings[
        "steps"
    ]  # the last weights count: validation is about the picture alone
    name, at, start = (variant.light or LIGHT[world.name]).partition("@")
    light = name + at + (weights if start == BUNDLED else start)
    words = () if world.vl else ("phrases", "modifiers")
    return [
        *(sys.executable, "-m", "image2sentence", "train", str(out / "pictures")),
        *(
            f"--vl={world.vl or out / 'vl' / 'model'}",
            f"--light={light}",
            f"--out={out / variant.folder}",
        ),
        *(f"--{kind}={out / f'{kind}.txt'}" for kind in words),
        *([f"--preset={variant.preset}"] if variant.preset else []),
        *(f"--set={name}={json.dumps(value)}" for name, value in settings.items()),
        *([f"--start={out / variant.start / 'model'}"] if variant.start else []),
    ]


def train(world: World, variant: Variant, out: Path, threads: int, weights: str = BUNDLED) -> None:
    """Runs one variant, its output in `run.log`, unless its model is there."""
    folder = out / variant.folder
    if (folder / "model" / "config.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    _share_targets(out, folder)
    with (folder / "run.log").open("w") as log:
        env = os.environ | {"OMP_NUM_THREADS": str(threads)}
        subprocess.run(command(world, variant, out, weights), check=True, stdout=log, stderr=log, env=env)


def _share_targets(out: Path, folder: Path) -> None:
    """The training pictures' gallery vectors are the same for all: the first run's are taken over."""
    made = sorted(out.glob(f"*/{TARGETS}"))
    if made and not (folder / TARGETS).exists():
        shutil.copy2(made[0], folder / TARGETS)


@click.command()
@click.argument("name", type=click.Choice(sorted(WORLDS)))
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/miniature"))
@click.option("--jobs", default=2, show_default=True, help="Trainings at a time.")
@click.option("--threads", default=1, show_default=True, help="Threads for each.")
@click.option(
    "--weights", default=BUNDLED, help="Model folder that @bundled stands for. Default: the package's."
)
@click.option("--limit", type=int, help="Only the first of the table. Default: all.")
def main(name: str, data: Path, runs: Path, jobs: int, threads: int, weights: str, limit: int | None) -> None:
    """Trains what is missing, in the order of the table."""
    world, out = WORLDS[name], runs / name
    write_material(world, data, out)
    first, *others = VARIANTS[name][:limit]
    train(world, first, out, jobs * threads, weights)  # alone: the others take its gallery vectors over
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda variant: train(world, variant, out, threads, weights), others))


if __name__ == "__main__":
    main()
