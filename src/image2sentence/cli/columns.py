"""`image2sentence gallery columns`: see, retype and drop metadata columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from image2sentence.cli.options import gallery_option, json_option, print_json, require_gallery


@click.command(short_help="See, retype and drop metadata columns.")
@gallery_option
@click.option(
    "--retype",
    multiple=True,
    metavar="NAME=TYPE",
    help="Give a column another type: number, text, boolean or date; may be repeated.",
)
@click.option(
    "--discard", is_flag=True, help="With --retype, take values away that the new type cannot hold."
)
@click.option(
    "--drop", multiple=True, metavar="NAME", help="Take a column and its values away; may be repeated."
)
@click.option("--yes", is_flag=True, help="Do not ask before values are taken away.")
@json_option
def columns(
    gallery: Path | str | None,
    retype: tuple[str, ...],
    discard: bool,
    drop: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> None:
    """List metadata columns with their types and how many pictures have a value, after the changes asked for."""
    from image2sentence.gallery.columns import drop_column, list_columns, retype_column
    from image2sentence.gallery.opening import open_gallery
    from image2sentence.images import display_path, printable

    wanted = [_as_type(one) for one in retype]
    losing = [f"the column {printable(name)}" for name in drop]
    losing += ["values that their new type cannot hold"] if discard and wanted else []
    if losing and not yes:
        click.confirm(f"Take {' and '.join(losing)} away?", abort=True, err=True)
    with open_gallery(require_gallery(gallery), readonly=not (wanted or drop)) as opened:
        for name, kind in wanted:
            lost = retype_column(opened, name, kind, discard=discard)
            if lost:
                click.echo(f"{printable(name)}: {lost:,} values taken away", err=True)
        for name in drop:
            drop_column(opened, name)
        found = list_columns(opened)
    if as_json:
        print_json([vars(one) for one in found])
        return
    for one in found:
        click.echo(f"{one.type:8}  {one.values:11,}  {display_path(one.name)}")
    if not found:
        click.echo("there are no metadata columns", err=True)


def _as_type(text: str) -> tuple[str, Any]:
    from image2sentence.gallery.filters.language import ColumnType

    name, separator, kind = text.rpartition("=")
    if not separator or kind not in get_args(ColumnType):
        raise click.UsageError(
            f"--retype: expected NAME=TYPE with the type {', '.join(get_args(ColumnType))}, got {text!r}"
        )
    return name, kind
