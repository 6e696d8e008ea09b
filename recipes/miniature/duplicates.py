"""Whether a folder with each picture twice trains as one with each picture once.

    python -m recipes.miniature.duplicates --work runs/duplicates
    python -m recipes.miniature.duplicates --work runs/duplicates --vl runs/miniature/fashion/vl/model --pictures photos

The paper's losses (InfoNCE, LAR with hard negatives where the VL model has a matching encoder), in which a copy that
counts as a negative would be pushed away from its own picture. Copies are other files of the same bytes. Asked is with
pictures that training never saw: is a picture's own gallery vector the nearest to its sentence's? A third row counts
copies as negatives, to show what leaving them out is worth.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from image2sentence.catalogue import write_catalogue
from image2sentence.encoders import OnnxEncoder, load_encoder
from image2sentence.evaluation.metrics import Difference, Interval, bootstrap_interval, paired_difference
from image2sentence.images import load_image
from image2sentence.training import losses
from image2sentence.training import train as run
from image2sentence.training.dataset import find_pictures
from image2sentence.training.presets import read_preset

ONCE, TWICE, UNMASKED = "each once", "each twice", "each twice, copies as negatives"
ROWS = (ONCE, TWICE, UNMASKED)
HELD = 4
"""Every fourth picture is not trained on."""
NOTHING = 2.0
"""A dot product that no two unit rows have."""
SETTINGS: dict[str, Any] = {
    "steps": 300,
    "batch": 32,
    "lar_batch": 16,
    "learning_rate": 2e-3,
    "warmup": 30,
    "average": 0.98,
    "validation": 8,
    "save_every": 300,
    "keep": "last",
}

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Material:
    """Folders of the pictures to train on, each once and each twice, and of those that are asked with."""

    once: Path
    twice: Path
    held: Path


def prepare(pictures: Path, work: Path) -> Material:
    """Copies the pictures into the three folders below `work`, unless they are there."""
    made = Material(work / "once", work / "twice", work / "held")
    for folder in (made.once, made.twice, made.held):
        folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(find_pictures(pictures)):
        source = pictures / file.path
        name = f"{number}{source.suffix}"
        targets = [made.held / name] if number % HELD == 0 else [made.once / name, made.twice / name]
        if number % HELD:
            targets.append(made.twice / f"copy-{name}")
        for target in targets:
            if not target.exists():
                shutil.copy2(source, target)
    return made


@contextmanager
def copies_as_negatives(asked: bool) -> Iterator[None]:
    """Inside, losses take copies for other pictures, where `asked`."""
    before = losses.SAME
    losses.SAME = NOTHING if asked else before
    try:
        yield
    finally:
        losses.SAME = before


def recalls(encoder: OnnxEncoder, folder: Path) -> Values:
    """(n,) percent: 100 where a picture's own gallery vector is the nearest to its sentence's, else 0."""
    images = [load_image(folder / file.path) for file in find_pictures(folder)]
    sentences = encoder.encode_sentences(images)
    queries = encoder.encode_queries(sentences, [""] * len(images))
    nearest = (queries @ encoder.encode_images(images).T).argmax(1)
    return 100.0 * (nearest == np.arange(len(images)))


def compare(
    material: Material, vl: str | None, light: str, work: Path, seeds: Sequence[int], **changes: Any
) -> dict[str, Values]:
    """Row -> (n,) percent of each picture asked with, the mean over seeds. Runs that are done are not done again."""
    folders = {ONCE: material.once, TWICE: material.twice, UNMASKED: material.twice}
    found = {}
    for row, folder in folders.items():
        own = []
        for seed in seeds:
            settings = run.read_settings(None, SETTINGS | changes | {"seed": seed}, read_preset("paper"))
            out = work / "runs" / f"{row.replace(', ', '-').replace(' ', '-')}-{seed}"
            if not (out / "model" / "config.json").is_file():
                with copies_as_negatives(row == UNMASKED):
                    run.train(run.TrainRequest(folder, vl, light, out, settings))
            own.append(recalls(load_encoder(out / "model"), material.held))
        found[row] = np.mean(own, axis=0)
    return found


def table(found: dict[str, Values]) -> str:
    """Markdown: recall@1 of each row, and its paired difference from each picture once."""
    lines = ["| folder | recall@1 | over each once |", "| --- | --- | --- |"]
    for row, values in found.items():
        gap = "" if row == ONCE else _shown(paired_difference(values, found[ONCE]), "+")
        lines.append(f"| {row} | {_shown(bootstrap_interval(values))} | {gap} |")
    return "\n".join(lines)


def _shown(value: Interval | Difference, sign: str = "") -> str:
    return f"{value.mean:{sign}.1f} ({value.low:{sign}.1f} to {value.high:{sign}.1f})"


@click.command()
@click.option("--pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/duplicates"), show_default=True)
@click.option("--vl", help="The VL model; unless given the bundled one.")
@click.option("--light", default="tiny/64", show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=300, show_default=True)
@click.option("--count", type=click.IntRange(min=40), default=400, show_default=True, help="Drawn pictures.")
def main(
    pictures: Path | None, work: Path, vl: str | None, light: str, seeds: int, steps: int, count: int
) -> None:
    """Prints a table; drawn products unless --pictures are given."""
    source = pictures or write_catalogue(work / "drawn", count, 91) / "images"
    material = prepare(source, work)
    changes = {"steps": steps, "save_every": steps, "warmup": min(30, steps // 4)}
    if vl is None:
        changes["lar"] = "off"  # the bundled matching encoder is weak, and dear
    click.echo(table(compare(material, vl, light, work, range(seeds), **changes)))


if __name__ == "__main__":
    main()
