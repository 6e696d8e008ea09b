"""Distils a light text encoder for the bundled model, and asks both the same on data kept out of training.

    python -m recipes.bundled.light_text --data ../shared/data

A quarter of an hour of one CPU core; interrupted, it goes on when repeated. Pictures and words are those that the
bundled model's query side was trained on (`recipes.bundled.material`), in no relation to each other; without guiding
phrases. What each costs:
`image2sentence bench src/image2sentence/models/default RUNS/light-text/model`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from image2sentence.catalogue import write_catalogue
from image2sentence.encoders import OnnxEncoder, load_encoder
from image2sentence.encoders.model_folder import bundled
from image2sentence.evaluation.datasets.attributes import load_catalogue
from image2sentence.evaluation.evaluate import COMPOSED, Evaluation, evaluate_attributes
from recipes.bundled.__main__ import step
from recipes.bundled.evaluate import COUNT, SEED
from recipes.charts import markdown

METRICS = ("recall@1", "recall@10")
DRAWN = {
    "type": ("colour", "pattern", "sleeve"),
    "colour": ("type", "pattern", "sleeve"),
    "pattern": ("type", "colour", "sleeve"),
    "type,colour": ("pattern", "sleeve"),
}
FASHION = {"colour": ("gender", "type"), "type": ("gender", "colour")}


def distil(material: Path, out: Path) -> list[str]:
    """The product's own command, as it is set."""
    words = [f"--{name}={material / f'{name}.txt'}" for name in ("phrases", "modifiers")]
    pictures = f"--pictures={material / 'pictures'}"
    return ["image2sentence", "train-text", str(bundled()), pictures, f"--out={out}", *words]


def asked(data: Path, work: Path, full: OnnxEncoder, light: OnnxEncoder) -> Iterator[tuple[str, Evaluation]]:
    """Composed queries through both text encoders, in the galleries of `recipes.bundled.evaluate`."""
    both = {"full": full, "light": light}
    drawn = load_catalogue(write_catalogue(work / f"drawn-{COUNT}-{SEED}", COUNT, SEED))
    for change, keep in DRAWN.items():
        yield (
            f"drawn: {change}",
            evaluate_attributes(drawn, full, change, keep, rows=[COMPOSED], composers=both),
        )
    fashion = load_catalogue(data / "fashion")
    for change, keep in FASHION.items():
        yield (
            f"fashion, never trained on: {change}",
            evaluate_attributes(fashion, full, change, keep, "val", rows=[COMPOSED], composers=both),
        )


def row(task: str, evaluation: Evaluation) -> list[str]:
    """Percent of both, and the difference with its 95 % interval."""
    cells = []
    for metric in METRICS:
        full, light = (evaluation.row(name).scores.percent()[metric] for name in ("full", "light"))
        change = evaluation.compare("light", "full", metric)
        cells += [
            f"{full:.1f}",
            f"{light:.1f}",
            f"{change.mean:+.1f} ({change.low:+.1f} to {change.high:+.1f})",
        ]
    return [task, str(len(evaluation.benchmark.queries)), *cells]


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"))
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/evaluate"))
def main(data: Path, runs: Path, work: Path) -> None:
    """Makes RUNS/light-text/model and prints a table."""
    material, out = runs / "material", runs / "light-text"
    if not (material / "modifiers.txt").is_file():
        step(["recipes.bundled.material", "--data", str(data), "--out", str(material)])
    if not (out / "model").exists():
        step(distil(material, out))
    full, light = (load_encoder(model).unguided() for model in (bundled(), out / "model"))
    rows = [row(*task) for task in asked(data, work, full, light)]
    heads = [f"{metric}{part}" for metric in METRICS for part in (", full", ", light", ", difference")]
    click.echo(markdown(["task", "queries", *heads], rows))


if __name__ == "__main__":
    main()
