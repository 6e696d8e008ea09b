"""`image2sentence gallery list`: a gallery's pictures and stored facts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from image2sentence.cli.options import gallery_option, json_option, print_json, require_gallery
from image2sentence.cli.output import asks_for_paths, paths_options, write_paths

if TYPE_CHECKING:
    from image2sentence.gallery.base import GalleryStore

_BATCH = 1_000


@click.command("list", short_help="List pictures with what is stored of them.")
@gallery_option
@click.option("--where", metavar="FILTER", help="Only pictures for which this holds: \"folder = 'summer'\".")
@click.option("-k", type=click.IntRange(min=1), metavar="N", help="At most so many. Default: all.")
@click.option("--offset", type=click.IntRange(min=0), default=0, metavar="N", help="Pictures to pass over.")
@paths_options
@json_option
def list_pictures(
    gallery: Path | str | None,
    where: str | None,
    k: int | None,
    offset: int,
    paths_only: bool,
    null: bool,
    as_json: bool,
) -> None:
    """List the pictures of a gallery, or those for which a filter holds, in the order in which they came.

    Each line is id, bytes, width x height, date and path.
    """
    from image2sentence.gallery.opening import open_gallery
    from image2sentence.images import display_path

    paths_only = asks_for_paths(paths_only, null, as_json)
    with open_gallery(require_gallery(gallery)) as opened:
        asked = (
            [one.id for one in opened.pictures("ready")] if where is None else opened.select(where).tolist()
        )
        ids = asked[offset : None if k is None else offset + k]
        rows = [
            row for start in range(0, len(ids), _BATCH) for row in _rows(opened, ids[start : start + _BATCH])
        ]
    if as_json:
        print_json(rows)
    elif paths_only:
        write_paths([row["path"] for row in rows], null=null)
    else:
        for row in rows:
            pixels, date = f"{row['width']}x{row['height']}", row["date"] or "-"
            click.echo(
                f"{row['id']:6d}  {row['size'] or 0:11,}  {pixels:>11}  {date:19}  {display_path(row['path'])}"
            )
        if not rows:
            click.echo("no pictures" if where is None else "no picture fulfils --where", err=True)


def _rows(opened: GalleryStore, ids: list[int]) -> list[dict[str, Any]]:
    """What is stored of some pictures."""
    from image2sentence.gallery.facts import facts_of

    roots = list(opened.roots().values())
    pictures = zip(opened.pictures_of(ids), opened.metadata(ids), strict=True)
    return [
        {"id": one.id, **facts_of(one, roots, metadata), "path": one.path, "metadata": metadata}
        for one, metadata in pictures
        if one is not None
    ]
