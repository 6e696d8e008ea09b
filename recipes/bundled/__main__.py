"""Makes the bundled model again, from data and seeds to the files in the package and the table in docs/results.md.

    python -m recipes.bundled --data ../shared/data

About two hours on two CPU cores. Every stage can be interrupted; run the command again and it goes on.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

HERE = Path(__file__).parent


@click.command()
@click.option("--data", "folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"))
def main(folder: Path, runs: Path) -> None:
    """Runs all stages in order."""
    vl, material, query = runs / "vl", runs / "material", runs / "query"
    data = ["--data", str(folder)]
    module = "recipes.bundled."
    stages = {
        vl / "towers": [f"{module}train_vl", *data, "--out", str(vl)],
        vl / "model": [f"{module}train_matching", *data, "--vl", str(vl)],
        material / "modifiers.txt": [f"{module}material", *data, "--out", str(material)],
        query / "model": train_query(vl, material, query),
    }
    for made, command in stages.items():
        if not made.exists():
            step(command)
    step([f"{module}bundle", "--vl", str(vl), "--query", str(query), "--material", str(material)])
    step([f"{module}evaluate", *data])


def train_query(vl: Path, material: Path, query: Path) -> list[str]:
    """The query side is trained by the product's own command, on pictures without labels."""
    words = [f"--{name}={material / f'{name}.txt'}" for name in ("phrases", "modifiers")]
    return [
        "image2sentence",
        "train",
        str(material / "pictures"),
        f"--vl={vl / 'model'}",
        "--light=tiny",
        f"--out={query}",
        f"--config={HERE / 'query.json'}",
        *words,
    ]


def step(command: list[str]) -> None:
    """One stage in a process of its own, so that each starts with all of the memory."""
    click.echo(f"\n$ python -m {' '.join(command)}")
    subprocess.run([sys.executable, "-m", *command], check=True)


if __name__ == "__main__":
    main()
