"""`image2sentence catalogue`: draw product pictures with known attributes."""

from __future__ import annotations

from pathlib import Path

import click

from image2sentence.cli.options import progress_bar


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--count", type=int, required=True, help="How many pictures.")
@click.option("--seed", type=int, required=True, help="The same seed gives the same pictures.")
@click.option("--size", type=int, default=256, show_default=True, help="Pixels a side.")
def catalogue(out: Path, count: int, seed: int, size: int) -> None:
    """Draw a catalogue of products into the folder OUT.

    Writes OUT/images and OUT/attributes.csv. A run that was stopped is continued by running it again.
    """
    from image2sentence.catalogue import write_catalogue

    with progress_bar("drawing") as progress:
        write_catalogue(out, count, seed, size, lambda done: progress(done, count))
    click.echo(f"{count} pictures in {out}, their attributes in {out / 'attributes.csv'}")
