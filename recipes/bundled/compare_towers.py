"""Which visual tower learns faster on a CPU: the convolutional one, or BLIP's vision transformer of about its cost?

    python -m recipes.bundled.compare_towers --steps 250

Both train on the same batches with the same schedule, one after the other, and are asked for unseen drawn products by
their full descriptions. Prints time per step and recall@10 with its 95 % interval.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import click
import numpy as np
import torch

from image2sentence.catalogue import draw, sample
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.evaluation.metrics import Interval, bootstrap_interval
from image2sentence.training.vl.load import load_vl
from recipes.bundled import data, language
from recipes.bundled.train_vl import Settings, train

UNSEEN, SEED = 500, 31


def ask(folder: Path) -> Interval:
    """Recall@10 of full descriptions among unseen drawn products; any product that the words fit is right."""
    rng = random.Random(SEED)
    products = [sample(rng) for _ in range(UNSEEN)]
    records = [data.product_record(product) for product in products]
    captions = [language.describe(record, rng, full=True) for record in records]
    right = language.judge(language.facts(records, {}), captions, {}).T == 1
    vl = load_vl(str(folder / "towers"))
    with torch.no_grad():
        pixels = torch.from_numpy(to_pixels([draw(product, 168) for product in products], vl.preprocessing))
        pictures = torch.cat([vl.encode_images(block).vectors for block in pixels.split(50)])
        texts = vl.encode_words(vl.words([caption.text for caption in captions]))
    best = (texts @ pictures.T).topk(10).indices.numpy()
    return bootstrap_interval(np.take_along_axis(right, best, 1).any(1).astype(float))


@click.command()
@click.option("--data", "data_folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/bundled"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/compare_towers"))
@click.option("--steps", default=250, show_default=True)
def main(data_folder: Path, cache: Path, out: Path, steps: int) -> None:
    """Trains both and prints the table."""
    pictures = data.training_pictures(data_folder, cache, Settings.drawn)
    click.echo("| tower | s a step | recall@10, unseen products |\n| --- | --- | --- |")
    for architecture in ("conv", "vit"):
        folder = out / f"{architecture}-{steps}"
        start = time.monotonic()
        train(pictures, Settings(architecture=architecture, steps=steps, warmup=50, average=0.98), folder)
        seconds, recall = (time.monotonic() - start) / steps, ask(folder)
        shown = f"{100 * recall.mean:.1f} ({100 * recall.low:.1f} to {100 * recall.high:.1f})"
        click.echo(f"| {architecture} | {seconds:.2f} | {shown} |")


if __name__ == "__main__":
    main()
