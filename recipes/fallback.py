"""Chooses when a model falls back to the weighted sum, and writes the model with that.

    python -m recipes.fallback --data ../shared/data --out runs/fallback/model

Training's modifiers are those of the folder's vl/modifiers.txt. `low`, `high` and `weight` are those of a grid with
the best mean of mAP@10 over the tuning queries of all tasks of recipes/compositions.py, which are never reported; what
comes out on the reported queries is printed beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

from image2sentence.encoders import load_encoder
from image2sentence.encoders.config import FallbackConfig
from image2sentence.encoders.guide_files import add_fallback, read_lines
from image2sentence.encoders.interpolation import weighted_sum
from image2sentence.encoders.model_folder import ModelFolder
from image2sentence.encoders.onnx_encoder import OnnxEncoder
from image2sentence.encoders.sum_fallback import SumFallback
from image2sentence.evaluation.metrics import paired_difference
from recipes.compositions import WEIGHTS, Asked, Corpus, Reader, Vectors, tasks

GRID = [
    FallbackConfig(low, high, weight)
    for low, high, weight in itertools.product((0.4, 0.5, 0.6, 0.7), (0.6, 0.7, 0.8, 0.9), (0.3, 0.4, 0.5))
    if low < high
]
QUERIES = 500


@dataclass(frozen=True)
class Measured:
    """A task's queries as vectors: those that choices are made on, and those that are reported."""

    name: str
    tuning: Asked
    reported: Asked


def asked_with(asked: Asked, modifiers: Vectors, how: FallbackConfig | None) -> Vectors:
    """The composed queries (q, d), with the fallback if there is one."""
    if how is None:
        return asked.composed
    return SumFallback(modifiers, how).apply(asked.composed, asked.words, lambda rows: asked.sentences[rows])


def value(asked: Asked, modifiers: Vectors, how: FallbackConfig | None) -> float:
    """Mean mAP@10 in percent."""
    return 100 * float(asked.precision(asked_with(asked, modifiers, how) @ asked.gallery.T).mean())


def choose(measured: Sequence[Measured], modifiers: Vectors) -> FallbackConfig:
    """The setting of `GRID` with the best mean over the tasks' tuning queries."""
    means = [np.mean([value(task.tuning, modifiers, how) for task in measured]) for how in GRID]
    return GRID[int(np.argmax(means))]


def report(task: Measured, modifiers: Vectors, how: FallbackConfig) -> str:
    """A line of Markdown on the reported queries: tuned sum, without and with the fallback, the difference."""

    def summed(asked: Asked, weight: float) -> Vectors:
        return weighted_sum(asked.pictures, asked.words, weight) @ asked.gallery.T

    best = max(WEIGHTS, key=lambda weight: task.tuning.precision(summed(task.tuning, weight)).mean())
    own = task.reported
    base = own.precision(summed(own, best))
    without, with_it = (
        own.precision(asked_with(own, modifiers, setting) @ own.gallery.T) for setting in (None, how)
    )
    difference = paired_difference(100 * with_it, 100 * without)
    cells = " | ".join(f"{100 * values.mean():.1f}" for values in (base, without, with_it))
    return f"| {task.name} | {len(own.own)} | {cells} | {difference.low:+.1f} to {difference.high:+.1f} |"


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"), show_default=True)
@click.option("--model", help="A model folder with vl/modifiers.txt; else the one that ships.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/compositions"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Writes the model there; else prints only.")
def main(data: Path, model: str | None, work: Path, out: Path | None) -> None:
    """Prints what a fallback changes, and writes a model folder that has it."""
    work.mkdir(parents=True, exist_ok=True)
    folder = load_encoder(model).folder
    encoder = OnnxEncoder(ModelFolder(folder.path, replace(folder.config, fallback=None)))
    reader = Reader(encoder, work)
    phrases = read_lines(folder.path / "vl" / "modifiers.txt")
    modifiers = reader.texts(phrases)
    corpus = Corpus(modifiers, modifiers, phrases[:1])  # no phrases are needed here
    found = [
        Measured(
            task.name,
            reader.asked(task, task.tuning, QUERIES, corpus),
            reader.asked(task, task.reported, QUERIES, corpus),
        )
        for task in tasks(data, work)
    ]
    how = choose(found, modifiers)
    click.echo(f"{how}\n")
    click.echo(
        "| task; mAP@10 | queries | tuned sum | without | with fallback | difference |\n|" + " --- |" * 6
    )
    for task in found:
        click.echo(report(task, modifiers, how))
    if out is not None:
        add_fallback(encoder, phrases, how, out)
        click.echo(f"model: {out}")


if __name__ == "__main__":
    main()
