"""Makes the bundled model again, from data and seeds to the files in the package and the table of results.

    python -m recipes.bundled --data ../shared/data

Five rounds of towers, matching encoder and query side. Each starts from what the one before has made; the second adds
the loss of attribute_loss.py, the third that of style_pairs.py, the fourth harder batches for it and the words of
train_words.py, the fifth larger pictures, a head for where in them things are, and plurals. About eleven hours on two
CPU cores. Every stage can be interrupted; run the command again and it goes on.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

HERE = Path(__file__).parent
MODULE = "recipes.bundled."
ROUNDS = ("first", "second", "third", "fourth", "fifth")
WORDS = 4  # the round from which on the words are trained on a tower that stands still
LARGER = 5  # the round from which on both sides see larger pictures, and nouns are known in the plural


@click.command()
@click.option("--data", "folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/bundled"))
def main(folder: Path, runs: Path) -> None:
    """Runs all stages in order."""
    data = ["--data", str(folder)]
    material = runs / "material"
    stages = {material / "modifiers.txt": [f"{MODULE}material", *data, "--out", str(material)]}
    rounds = [runs / name for name in ROUNDS]
    for turn, out in enumerate(rounds):
        stages |= one_round(data, material, out, rounds[turn - 1] if turn else None, turn + 1)
    for made, command in stages.items():
        if not made.exists():
            step(command)
    last = rounds[-1]
    step(
        [f"{MODULE}bundle", f"--vl={last / 'plurals'}", f"--query={last / 'query'}", f"--material={material}"]
    )
    step([f"{MODULE}evaluate", *data])


def one_round(
    data: list[str], material: Path, out: Path, before: Path | None, turn: int
) -> dict[Path, list[str]]:
    """What each stage makes, and its command: towers, head, words, matching encoder, plurals, the query side.

    The query side is trained by the product's own command, on pictures without labels.
    """
    vl, query, light = out / "vl", out / "query", "tiny/128" if turn >= LARGER else "tiny"
    asked = out / "plurals" if turn >= LARGER else vl  # the VL model that the query side is trained for
    words = [
        f"--{kind}={material / f'{kind}-{bank}.txt'}"
        for kind in ("phrases", "modifiers")
        for bank in ("drawn", "photos", "emoji")
    ]
    train = [
        "image2sentence",
        "train",
        str(material / "pictures"),
        f"--vl={asked / 'model'}",
        f"--light={light}",
    ]
    train += [f"--out={query}", f"--config={HERE / 'query.json'}", *words]
    tower_folder = out / "towers-only" if turn >= WORDS else vl
    towers = [f"{MODULE}train_vl", *data, f"--out={tower_folder}", f"--round={turn}"]
    if before:
        towers.append(f"--start={before / 'vl' / 'model'}")
        train += [f"--start={before / 'query' / 'model'}", "--other-vl"]
    stages = {tower_folder / "towers": towers}
    if turn >= LARGER:
        stages[tower_folder / "layout" / "towers"] = [
            f"{MODULE}train_layout",
            *data,
            f"--vl={tower_folder}",
            f"--out={tower_folder / 'layout'}",
        ]
        tower_folder /= "layout"
    if tower_folder != vl:
        stages[vl / "towers"] = [f"{MODULE}train_words", *data, f"--vl={tower_folder}", f"--out={vl}"]
    stages[vl / "model"] = [f"{MODULE}train_matching", *data, f"--vl={vl}"]
    if asked != vl:
        stages[asked / "model"] = [f"{MODULE}plurals", *data, f"--vl={vl}", f"--out={asked / 'model'}"]
    return stages | {query / "model": train}


def step(command: list[str]) -> None:
    """One stage in a process of its own, so that each starts with all of the memory."""
    click.echo(f"\n$ python -m {' '.join(command)}")
    subprocess.run([sys.executable, "-m", *command], check=True)


if __name__ == "__main__":
    main()
