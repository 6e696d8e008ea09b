"""`image2sentence index`: bring a gallery up to date with a folder of pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from image2sentence.cli.common import (
    GALLERY_NAME,
    PlaceType,
    find_gallery,
    gallery_option,
    json_option,
    model_option,
    optional_extra,
    print_json,
    progress_bar,
)

if TYPE_CHECKING:
    from image2sentence.gallery.indexing import IndexReport
    from image2sentence.gallery.metadata_file import MetadataReport
    from image2sentence.places import Place

LISTED = 20
"""Unreadable files named one by one; `--json` names all."""

_COUNTS = ("found", "encoded", "unchanged", "moved", "duplicates", "deleted")


@click.command()
@click.argument("pictures", type=PlaceType(exists=True, path_type=Path))
@gallery_option
@model_option
@click.option(
    "--metadata",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="CSV, JSONL or Parquet with a column `file` and values to filter by.",
)
@click.option("--shards", is_flag=True, help="Take the .tar files in PICTURES as shards of pictures.")
@click.option(
    "--engine",
    type=click.Choice(["threads", "ray"]),
    default="threads",
    show_default=True,
    help="Encode in this process, or in workers on a Ray cluster ($RAY_ADDRESS, else one started here).",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --engine ray: workers, one core each. Default: as many as there are cores.",
)
@click.option("--retry-failed", is_flag=True, help="Read files again that could not be read before.")
@click.option("--watch", is_flag=True, help="Go on: follow the folder and index what changes, until Ctrl-C.")
@json_option
def index(
    pictures: Path | str,
    gallery: Path | str | None,
    model: Path | None,
    metadata: Path | None,
    shards: bool,
    engine: str,
    workers: int | None,
    retry_failed: bool,
    watch: bool,
    as_json: bool,
) -> None:
    """Bring a gallery up to date with the pictures in PICTURES: a folder, a URL (s3://...), or a .tar shard.

    Only new and changed pictures are encoded. Files that cannot be read are listed and never stop the run.
    Where there is no gallery yet, one is made: by default in this folder, as .image2sentence.
    """
    from image2sentence.cli.following import follow_and_tell
    from image2sentence.encoders import load_encoder
    from image2sentence.gallery.indexing import index_pictures
    from image2sentence.gallery.large import refresh_index
    from image2sentence.gallery.metadata_file import MetadataFile, apply_metadata
    from image2sentence.gallery.opening import open_or_create_gallery

    if watch and metadata is not None:
        raise click.UsageError(
            "--watch and --metadata do not go together: apply the metadata in a run of its own"
        )
    if workers is not None and engine != "ray":
        raise click.UsageError("--workers goes with --engine ray")
    encoder = load_encoder(model)
    name = find_gallery(gallery) or Path(GALLERY_NAME)
    with open_or_create_gallery(name, encoder.fingerprint, encoder.width) as opened:
        values = None if metadata is None else MetadataFile(metadata, opened.columns())
        if values is not None:
            opened.add_columns(values.columns)  # before indexing, which makes `taken` where it is not there
        engine_run = index_pictures if engine == "threads" else _on_ray(model, workers)

        def run() -> IndexReport:
            with progress_bar("indexing") as progress:
                report = engine_run(
                    pictures, opened, encoder, retry_failed=retry_failed, shards=shards, progress=progress
                )
            refresh_index(opened)
            return report

        if watch:
            shown = opened.name if isinstance(name, str) else str(name)
            follow_and_tell(
                pictures, opened, run, lambda report: _print_report(report, shown, len(opened)), as_json
            )
            return
        report = run()
        joined = None if values is None else apply_metadata(opened, pictures, values)
        size, shown = len(opened), opened.name
    if as_json:
        about = {"gallery": shown, "pictures": size, **report.as_dict()}
        print_json(about if joined is None else {**about, "metadata": vars(joined)})
        return
    _print_report(report, shown if isinstance(name, str) else str(name), size)
    if joined is not None:
        _print_metadata(joined)


def _on_ray(model: Path | None, workers: int | None) -> Callable[..., IndexReport]:
    """`index_pictures` on a Ray cluster, whose workers load the same model."""
    from image2sentence.encoders.onnx import MODEL_VARIABLE, load_encoder
    from image2sentence.gallery.ray_engine import index_on_ray

    with optional_extra("ray", ("ray",)):
        import ray  # noqa: F401
    named = model or os.environ.get(MODEL_VARIABLE)
    if named is not None and Path(named).is_dir():
        named = Path(named).absolute()
    return partial(index_on_ray, make_encoder=partial(load_encoder, named, threads=1), workers=workers)


def _print_report(report: IndexReport, gallery: str, size: int) -> None:
    from image2sentence.images import EXTENSIONS

    counts = [f"{name} {getattr(report, name):,}" for name in _COUNTS]
    click.echo(" · ".join([*counts, f"failed {len(report.failed):,}"]))
    click.echo(f"{report.seconds:.1f} s, {report.rate:.0f} pictures/s encoded")
    _print_reasons("could not be read", report.failed)
    _print_reasons("folders that could not be listed", report.unreadable_folders)
    if report.skipped_other:
        click.echo(f"passed over {report.skipped_other:,} files without a picture's ending")
    if not report.found:
        endings = " ".join(sorted(EXTENSIONS))
        click.echo(f"no pictures found; their names end in {endings}, or in .tar with --shards", err=True)
    click.echo(f"gallery {gallery}: {size:,} pictures")


def _print_metadata(joined: MetadataReport) -> None:
    from image2sentence.images import display_path

    columns = ", ".join(f"{display_path(name)} ({kind})" for name, kind in joined.columns.items())
    click.echo(f"metadata: {joined.matched:,} rows, {joined.changed:,} pictures changed; columns {columns}")
    for name in joined.kept_as_text:
        click.echo(
            f"  {display_path(name)} stays text, as it was first given; give it another name to have it typed"
        )
    if joined.unmatched:
        shown = ", ".join(display_path(name) for name in joined.examples)
        click.echo(f"  {joined.unmatched:,} rows name no picture here: {shown}")


def _print_reasons(title: str, reasons: list[tuple[Place, str]]) -> None:
    from image2sentence.images import display_path

    if not reasons:
        return
    click.echo(f"{title}:")
    for path, reason in reasons[:LISTED]:
        click.echo(f"  {display_path(path)}: {reason}")
    if len(reasons) > LISTED:
        click.echo(f"  ... and {len(reasons) - LISTED:,} more; --json lists all")
