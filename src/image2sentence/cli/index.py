"""`image2sentence index`: bring a gallery up to date with a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from image2sentence.cli.common import (
    GALLERY_NAME,
    find_gallery,
    gallery_option,
    json_option,
    model_option,
    print_json,
    progress_bar,
)

if TYPE_CHECKING:
    from image2sentence.gallery.indexing import IndexReport

LISTED = 20
"""Unreadable files named one by one; `--json` names all."""

_COUNTS = ("found", "encoded", "unchanged", "moved", "duplicates", "deleted")


@click.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@gallery_option
@model_option
@click.option("--retry-failed", is_flag=True, help="Read files again that could not be read before.")
@json_option
def index(
    pictures: Path, gallery: Path | None, model: Path | None, retry_failed: bool, as_json: bool
) -> None:
    """Bring a gallery up to date with the pictures below the folder PICTURES.

    Only new and changed pictures are encoded. Files that cannot be read are listed and never stop the run.
    Where there is no gallery yet, one is made: by default in this folder, as .image2sentence.
    """
    from image2sentence.encoders import load_encoder
    from image2sentence.gallery.indexing import index_pictures
    from image2sentence.gallery.store import Gallery

    encoder = load_encoder(model)
    folder = find_gallery(gallery) or Path(GALLERY_NAME)
    with Gallery.open_or_create(folder, encoder.fingerprint, encoder.width) as opened:
        with progress_bar("indexing") as progress:
            report = index_pictures(pictures, opened, encoder, retry_failed=retry_failed, progress=progress)
        size = len(opened)
    if as_json:
        print_json({"gallery": str(folder.absolute()), "pictures": size, **report.as_dict()})
    else:
        _print_report(report, folder, size)


def _print_report(report: IndexReport, folder: Path, size: int) -> None:
    counts = [f"{name} {getattr(report, name):,}" for name in _COUNTS]
    click.echo(" · ".join([*counts, f"failed {len(report.failed):,}"]))
    click.echo(f"{report.seconds:.1f} s, {report.rate:.0f} pictures/s encoded")
    _print_reasons("could not be read", report.failed)
    _print_reasons("folders that could not be listed", report.unreadable_folders)
    click.echo(f"gallery {folder}: {size:,} pictures")


def _print_reasons(title: str, reasons: list[tuple[Path, str]]) -> None:
    from image2sentence.images import display_path

    if not reasons:
        return
    click.echo(f"{title}:")
    for path, reason in reasons[:LISTED]:
        click.echo(f"  {display_path(path)}: {reason}")
    if len(reasons) > LISTED:
        click.echo(f"  ... and {len(reasons) - LISTED:,} more; --json lists all")
