"""Calibrate what a model knows: the classifier in its folder's scope.json.

    python -m recipes.scope MODEL --out DIR --knows "garments, drawn products and emoji" \
        --inside ../shared/data/clothing --inside ../shared/data/emoji --outside ../shared/data/everyday \
        --measure-inside ../shared/data/fashion

Logistic regression with an L2 penalty on gallery vectors, every folder given with the same weight. Half of each
folder's pictures, by their content's digest, calibrate; the others are measured: how many folders of 50 drawn from them
are called out. Pictures of --measure-inside are measured only. Give pictures whose licence lets what is made of them
ship.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from image2sentence.encoders import OnnxEncoder, load_encoder
from image2sentence.encoders.scope import Scope, add_scope
from image2sentence.images import MIN_DECODE_SIDE, load_image

PENALTY = 1e-2
FOLDERS, PICTURES = 1000, 50
_BLOCK = 32
Rows = NDArray[np.float64]


def encode(encoder: OnnxEncoder, folder: Path, count: int, seed: int = 0) -> tuple[Rows, Rows]:
    """Gallery vectors of up to `count` of a folder's pictures: of those that calibrate, and of those measured."""
    files = sorted(file for file in folder.rglob("*") if file.suffix in (".jpg", ".png"))
    files = random.Random(seed).sample(files, min(count, len(files)))
    halves: tuple[list[Rows], list[Rows]] = ([], [])
    for start in tqdm(range(0, len(files), _BLOCK), desc=folder.name):
        block = files[start : start + _BLOCK]
        rows = encoder.encode_images([load_image(file, at_least=MIN_DECODE_SIDE) for file in block])
        for file, row in zip(block, rows, strict=True):
            halves[hashlib.sha256(file.read_bytes()).digest()[0] % 2].append(row.astype(np.float64))
    return np.stack(halves[0]), np.stack(halves[1])


def fit(inside: Sequence[Rows], outside: Sequence[Rows], knows: str) -> Scope:
    """The classifier by Newton's method; each side has half of the weight, shared evenly by its folders."""
    rows = np.concatenate([*inside, *outside])
    rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    target = np.concatenate([np.zeros(sum(map(len, inside))), np.ones(sum(map(len, outside)))])
    weight = np.concatenate([np.full(len(r), 0.5 / len(s) / len(r)) for s in (inside, outside) for r in s])
    penalty = np.diag([*np.full(rows.shape[1] - 1, PENALTY), 1e-9])
    found = np.zeros(rows.shape[1])
    for _ in range(30):
        chance = 1 / (1 + np.exp(-rows @ found))
        slope = rows.T @ (weight * (chance - target)) + penalty @ found
        curve = (rows * (weight * chance * (1 - chance))[:, None]).T @ rows + penalty
        found -= np.linalg.solve(curve, slope)
    return Scope(knows, tuple(float(f"{value:.5g}") for value in found[:-1]), float(f"{found[-1]:.5g}"))


def called_out(scope: Scope, rows: Rows, seed: int = 0) -> float:
    """The percentage of `FOLDERS` folders of `PICTURES` pictures, drawn from the rows, that are called out."""
    rng = np.random.default_rng(seed)
    drawn = (rows[rng.choice(len(rows), min(PICTURES, len(rows)), replace=False)] for _ in range(FOLDERS))
    return 100 * float(np.mean([scope.mostly_outside(one.astype(np.float32)) for one in drawn]))


_PLACE = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("model")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="May be the model's own folder.")
@click.option("--knows", required=True, help="What it knows, in a few words.")
@click.option("--inside", type=_PLACE, multiple=True, required=True)
@click.option("--outside", type=_PLACE, multiple=True, required=True)
@click.option("--measure-inside", type=_PLACE, multiple=True)
@click.option("--count", default=1200, show_default=True, help="Pictures of each folder.")
def main(
    model: str,
    out: Path,
    knows: str,
    inside: tuple[Path, ...],
    outside: tuple[Path, ...],
    measure_inside: tuple[Path, ...],
    count: int,
) -> None:
    """Calibrate, measure, and write the model folder OUT."""
    encoder = load_encoder(model)
    vectors = {folder: encode(encoder, folder, count) for folder in (*inside, *outside, *measure_inside)}
    scope = fit([vectors[one][0] for one in inside], [vectors[one][0] for one in outside], knows)
    for folder, (_, rows) in vectors.items():
        single = 100 * scope.share_outside(rows.astype(np.float32))
        click.echo(
            f"{folder.name}: {called_out(scope, rows):.1f} % of folders called out, {single:.1f} % of pictures outside"
        )
    add_scope(encoder.folder, scope, out)


if __name__ == "__main__":
    main()
