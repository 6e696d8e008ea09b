"""How much of its own sentence a gallery vector should hold: unit((1 - a) v + a T(s)), by the share a.

    python -m recipes.bundled.both_sides --data ../shared/data
    python -m recipes.bundled.both_sides --also symmetric=runs/symmetric/model

Composed queries of the bundled model, and of other query sides for the same VL weights, in galleries with shares from
0 (the VL model's vectors alone) to 1 (the query side on both sides). About four minutes a model on two CPU cores, ten
for a symmetric one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from tqdm import tqdm

from image2sentence.encoders import load_encoder
from image2sentence.encoders.onnx_encoder import OnnxEncoder
from image2sentence.encoders.protocols import Vectors, with_sentences
from image2sentence.images import load_image
from recipes.bundled.tasks import Task, tasks

SHARES = (0.0, 0.2, 0.4, 0.5, 0.6, 1.0)
BATCH = 64


def sentences(encoder: OnnxEncoder, paths: Sequence[Path], title: str) -> Vectors:
    """(n, L, w): what the query side says of pictures."""
    blocks = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    return np.concatenate(
        [
            encoder.encode_sentences([load_image(path, at_least=512) for path in block])
            for block in tqdm(blocks, desc=title)
        ]
    )


def heard(encoder: OnnxEncoder, said: Vectors) -> Vectors:
    """(n, d): sentences without words, one by one, as `encode_images` reads them."""
    return np.concatenate([encoder.encode_queries(sentence[None], [""]) for sentence in said])


def composed(encoder: OnnxEncoder, task: Task, said: Vectors) -> torch.Tensor:
    """(q, d): the task's queries, from sentences (n, L, w) of its gallery."""
    texts = [query.texts[0] for query in task.queries]
    places = np.array(task.places)
    vectors = [
        encoder.encode_queries(said[places[start : start + BATCH]], texts[start : start + BATCH])
        for start in range(0, len(texts), BATCH)
    ]
    return torch.from_numpy(np.concatenate(vectors))


def cell(task: Task, queries: torch.Tensor, own: Vectors, share: float) -> str:
    """R@1 · R@5 · mAP@10 in a gallery with this share of `own` (n, d)."""
    shown = replace(task, gallery=with_sentences(task.gallery, own, share))
    values = (shown.recall(queries), shown.recall(queries, 5), shown.average_precision(queries))
    return " · ".join(f"{value:.1f}" for value in values)


@click.command()
@click.option("--data", "folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/evaluate"))
@click.option("--model", type=click.Path(path_type=Path), help="Instead of the bundled one.")
@click.option("--also", multiple=True, metavar="ROW=DIR", help="Another query side for the same VL weights.")
@click.option("--guided/--unguided", default=False, help="With the models' guiding phrases.")
@click.option("--queries", default=2_000, show_default=True, help="Queries a task, at most.")
def main(
    folder: Path, work: Path, model: Path | None, also: tuple[str, ...], guided: bool, queries: int
) -> None:
    """Prints a Markdown table."""
    named = {"light": model} | {row: Path(path) for row, _, path in (text.partition("=") for text in also)}
    encoders = {row: load_encoder(path) for row, path in named.items()}
    if not guided:
        encoders = {row: encoder.unguided() for row, encoder in encoders.items()}
    seen: dict[
        tuple[str, str], tuple[Vectors, Vectors]
    ] = {}  # a gallery's sentences, and what is heard in them
    click.echo("| task | query side | " + " | ".join(f"a = {share:g}" for share in SHARES) + " |")
    click.echo("| --- " * (2 + len(SHARES)) + "|")
    for task in tasks(folder, work, queries):
        for row, encoder in encoders.items():
            if (task.kind, row) not in seen:
                said = sentences(encoder, task.paths, f"{task.kind}, {row}")
                seen[task.kind, row] = said, heard(encoder, said)
            said, own = seen[task.kind, row]
            asked = composed(encoder, task, said)
            cells = " | ".join(cell(task, asked, own, share) for share in SHARES)
            click.echo(f"| {task.name} ({len(task.queries)}) | {row} | {cells} |")


if __name__ == "__main__":
    main()
