"""Makes the bundled model again, from data and seeds to the files in the package and the table in docs/results.md.

    python -m recipes.bundled --data ../shared/data

Two rounds of towers, matching encoder and query side; the second starts from what the first has made and adds the loss
of meanings.py. About three and a half hours on two CPU cores. Every stage can be interrupted; run the command again
and it goes on.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

HERE = Path(__file__).parent
MODULE = "recipes.bundled."


@click.command()
@click.option("--data", "folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/bundled"))
def main(folder: Path, runs: Path) -> None:
    """Runs all stages in order."""
    data = ["--data", str(folder)]
    material = runs / "material"
    stages = {material / "modifiers.txt": [f"{MODULE}material", *data, "--out", str(material)]}
    first, second = runs / "first", runs / "second"
    stages |= one_round(data, material, first, None) | one_round(data, material, second, first)
    for made, command in stages.items():
        if not made.exists():
            step(command)
    step(
        [f"{MODULE}bundle", f"--vl={second / 'vl'}", f"--query={second / 'query'}", f"--material={material}"]
    )
    step([f"{MODULE}evaluate", *data])


def one_round(data: list[str], material: Path, out: Path, before: Path | None) -> dict[Path, list[str]]:
    """What each stage makes, and its command: towers, their matching encoder, the query side.

    The query side is trained by the product's own command, on pictures without labels.
    """
    vl, query = out / "vl", out / "query"
    words = [
        f"--{kind}={material / f'{kind}-{bank}.txt'}"
        for kind in ("phrases", "modifiers")
        for bank in ("drawn", "photos", "emoji")
    ]
    train = ["image2sentence", "train", str(material / "pictures"), f"--vl={vl / 'model'}", "--light=tiny"]
    train += [f"--out={query}", f"--config={HERE / 'query.json'}", *words]
    towers = [f"{MODULE}train_vl", *data, f"--out={vl}"]
    if before:
        towers.append(f"--start={before / 'vl' / 'model'}")
        train += [f"--start={before / 'query' / 'model'}", "--other-vl"]
    return {
        vl / "towers": towers,
        vl / "model": [f"{MODULE}train_matching", *data, f"--vl={vl}"],
        query / "model": train,
    }


def step(command: list[str]) -> None:
    """One stage in a process of its own, so that each starts with all of the memory."""
    click.echo(f"\n$ python -m {' '.join(command)}")
    subprocess.run([sys.executable, "-m", *command], check=True)


if __name__ == "__main__":
    main()
