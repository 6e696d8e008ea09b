"""Asks every trained variant of a world the same questions, and keeps the value of every query.

    python -m recipes.miniature.evaluate fashion --data ../shared/data

Writes RUNS/NAME/results/TASK.json, which `recipes.miniature.report` makes the tables of. What is there of a model that
has not changed since is taken over. Ablations are asked the world's first task only.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from PIL import Image

from image2sentence.encoders import Encoder, load_encoder
from image2sentence.encoders.config import GuideConfig
from image2sentence.encoders.guide_files import add_guide, read_phrases
from image2sentence.errors import DataError
from image2sentence.evaluation.datasets.attributes import attribute_queries
from image2sentence.evaluation.datasets.labels import FILE_COLUMN, Catalogue, load_catalogue
from image2sentence.evaluation.evaluate import Evaluation, evaluate, evaluate_attributes
from image2sentence.evaluation.report import ModelDescription, write_document
from image2sentence.images import load_image
from recipes.bundled.guide import SETTINGS, guiding_phrases
from recipes.miniature.product_lines import DETAILS, write_lines
from recipes.miniature.variants import GUIDED, OURS, VARIANTS, Variant
from recipes.miniature.worlds import WORLDS, World

# What an in-domain bank says is trusted by half and more; chosen on the first fashion model.
TRUST = GuideConfig(neighbours=8, temperature=0.05, low=0.4, high=0.9)
TUNED_ON = 1_000  # references that choose the weight of the sum


@dataclass(frozen=True)
class Task:
    """A benchmark: what changes, what a right answer keeps, and how many changes are asked of a picture."""

    name: str
    change: str
    keep: str
    per_image: int = 1


TASKS = {
    "fashion": (
        Task("colour", "colour", "gender,type", 3),
        Task("colour-detailed", "colour", "gender,type,usage,season", 3),
        Task("type", "type", "gender,colour", 3),
        Task("product-line", "colour", "group", 3),
    ),
    "emoji": (
        Task("skin-tone", "skin_tone", "base,style"),
        Task("style", "style", "name"),
    ),
    # Ever more of the same product lines has to be kept.
    "drawn": tuple(
        Task(f"keep-{count}", "colour", ",".join(DETAILS[:count]), 2) for count in (1, 2, 5, len(DETAILS))
    ),
}
EVERYWHERE = ("main", "sentence length")  # the studies that every task is for
LINES, LINES_SEED = 300, 5_150


def label(variant: Variant) -> str:
    """A row's name: unique among all variants, and its table can be read off it."""
    return f"{variant.study}: {variant.name} (seed {variant.seed})"


def trained(world: World, out: Path, studies: Collection[str] | None = None) -> dict[str, Path]:
    """The model folders of the variants that have been trained, ours with guiding phrases, too; of `studies` only.

    Raises DataError where there are none.
    """
    found: dict[str, Path] = {}
    for variant in VARIANTS[world.name]:
        folder = out / variant.folder
        wanted = studies is None or variant.study in studies
        if wanted and (folder / "model" / "config.json").is_file():
            found[label(variant)] = folder / "model"
            if variant.name in OURS:
                for suffix, residual in GUIDED.items():
                    guided = replace(variant, name=variant.name + suffix)
                    found[label(guided)] = _with_phrases(world, out, folder, residual)
    if not found:
        raise DataError(
            f"no trained variant below {out}: run python -m recipes.miniature.train_queries {world.name} first"
        )
    return found


def _with_phrases(world: World, out: Path, folder: Path, residual: float) -> Path:
    """A trained query side with the world's phrase bank to guide it: the folder."""
    guided = folder / f"guided-{residual:g}"
    if not (guided / "config.json").is_file():
        own = world.vl is None
        lines = read_phrases(out / "phrases.txt") if own else guiding_phrases()
        settings = replace(TRUST if own else SETTINGS, residual=residual)
        add_guide(load_encoder(folder / "model"), lines, settings, guided)
    return guided


def measured(results: Path, models: Mapping[str, Path]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows that `results` has of `models` as they still are, and the facts of the task that they are of."""
    if not results.is_file():
        return [], {}
    since = results.stat().st_mtime
    document = json.loads(results.read_text(encoding="utf-8"))
    unchanged = {name for name, folder in models.items() if (folder / "config.json").stat().st_mtime < since}
    return [row for row in document["rows"] if row["name"] in unchanged], document["facts"]


def run(world: World, task: Task, catalogue: Catalogue, composers: Mapping[str, Encoder]) -> Evaluation:
    """All rows of one task. The sum's weight is chosen on references that the figures leave out."""
    encoder = next(iter(composers.values()))
    settings = {"queries_per_image": task.per_image}
    if world.name != "emoji":
        split = "val" if "val" in catalogue.splits() else None
        return evaluate_attributes(
            catalogue, encoder, task.change, task.keep, split, composers=composers, **settings
        )
    rows = [dict(row) for row in catalogue.rows]
    unseen = [row[FILE_COLUMN] for row in rows if not world.trains(row)]
    seen = [row[FILE_COLUMN] for row in rows if world.trains(row)]
    tuning = random.Random(0).sample(seen, min(TUNED_ON, len(seen)))

    def open_image(file: str) -> Image.Image:
        return load_image(catalogue.path(file))

    reported, chosen_on = (
        attribute_queries(
            catalogue, task.change, task.keep, queries_per_image=task.per_image, references=references
        )
        for references in (unseen, tuning)
    )
    return evaluate(reported, encoder, open_image, tuning=chosen_on, composers=composers)


def evaluate_missing(
    world: World, task: Task, catalogue: Catalogue, models: Mapping[str, Path], results: Path
) -> None:
    """Brings the file `results` up to date with `models`, and prints what is new in it."""
    kept, facts = measured(results, models)
    there = {row["name"] for row in kept}
    missing = {name: load_encoder(folder) for name, folder in models.items() if name not in there}
    if not missing:
        click.echo(f"{world.name}: {task.name} is up to date")
        return
    evaluation = run(world, task, catalogue, missing)
    draft = results.with_suffix(".draft")
    write_document(draft, evaluation, ModelDescription())
    document = json.loads(draft.read_text(encoding="utf-8"))
    if kept and document["facts"] != facts:
        raise DataError(f"{results} is of other queries than today's: move it away and run this again")
    order = {name: place for place, name in enumerate(models)}
    document["rows"] = sorted(document["rows"] + kept, key=lambda row: order.get(row["name"], -1))
    draft.write_text(json.dumps(document), encoding="utf-8")
    draft.replace(results)
    click.echo(f"\n{world.name}: {task.name}, {len(evaluation.benchmark.queries)} queries")
    for row in evaluation.rows:
        figures = row.scores.percent()
        shown = "  ".join(
            f"{metric} {figures[metric]:5.1f}" for metric in ("recall@1", "recall@10", "mAP@10")
        )
        click.echo(f"{row.name:60} {shown}  {row.note}")


def _lines(out: Path) -> Catalogue:
    return load_catalogue(write_lines(out / "lines", LINES, LINES_SEED))


@click.command()
@click.argument("name", type=click.Choice(sorted(TASKS)))
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/miniature"))
@click.option("--task", "only", help="This one only. Default: all of the world.")
def main(name: str, data: Path, runs: Path, only: str | None) -> None:
    """Evaluates what has been trained."""
    world, out = WORLDS[name], runs / name
    (out / "results").mkdir(exist_ok=True)
    catalogue = world.catalogue(data) if world.vl is None else _lines(out)
    for place, task in enumerate(TASKS[name]):
        if only in (None, task.name):
            models = trained(world, out, None if place == 0 else EVERYWHERE)
            evaluate_missing(world, task, catalogue, models, out / "results" / f"{task.name}.json")


if __name__ == "__main__":
    main()
