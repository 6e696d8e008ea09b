"""`image2sentence data`: look at benchmark downloads before they are used."""

from __future__ import annotations

from pathlib import Path

import click

from image2sentence.cli.groups import OrderedGroup


@click.group(cls=OrderedGroup)
def data() -> None:
    """Look at benchmark downloads before they are used."""


@data.command()
@click.argument("name")
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Where the annotations and pictures were put.",
)
@click.option("--split", help="Look at one split only.")
@click.option("--decode", is_flag=True, help="Open every picture too; takes minutes for large sets.")
@click.pass_context
def doctor(ctx: click.Context, name: str, root: Path, split: str | None, decode: bool) -> None:
    """Say what is missing from the download of benchmark NAME.

    NAME is cirr, fashioniq, circo, genecis, domain_conversion, or a part such as fashioniq/dress. Ends with
    exit code 1 where something is missing.
    """
    from image2sentence.evaluation.datasets.check import diagnose

    diagnosis = diagnose(name, root, split, decode)
    click.echo(str(diagnosis))
    if not diagnosis.complete:
        ctx.exit(1)
