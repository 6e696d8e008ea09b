"""`image2sentence index`: bring a gallery up to date with a folder of pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from image2sentence.cli.options import (
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
from image2sentence.errors import ConfigError

if TYPE_CHECKING:
    from image2sentence.gallery.base import GalleryStore
    from image2sentence.gallery.files.metadata import MetadataReport
    from image2sentence.gallery.locations import Place
    from image2sentence.indexing.index_pictures import IndexReport

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
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    metavar="N",
    help="Largest picture read, in pixels (width x height). Default: 120,000,000.",
)
@click.option("--retry-failed", is_flag=True, help="Read files again that could not be read before.")
@click.option(
    "--allow-empty",
    is_flag=True,
    help="Forget pictures that are gone even if they are most of PICTURES, or all of it.",
)
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
    max_pixels: int | None,
    retry_failed: bool,
    allow_empty: bool,
    watch: bool,
    as_json: bool,
) -> None:
    """Bring a gallery up to date with the pictures in PICTURES: a folder, a URL (s3://...), or a .tar shard.

    Only new and changed pictures are encoded. Files that cannot be read are listed and never stop the run.
    Where there is no gallery yet, one is made: by default in this folder, as .image2sentence.
    """
    from image2sentence.cli.index import follow_and_show
    from image2sentence.encoders import load_encoder
    from image2sentence.gallery.files.metadata import MetadataFile, apply_metadata
    from image2sentence.gallery.opening import open_or_create_gallery
    from image2sentence.indexing.index_pictures import index_pictures

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
        if max_pixels is not None:
            engine_run = partial(engine_run, max_pixels=max_pixels)
        engine_run = partial(engine_run, allow_empty=allow_empty)

        def run() -> IndexReport:
            with progress_bar("indexing") as progress:
                report = engine_run(
                    pictures, opened, encoder, retry_failed=retry_failed, shards=shards, progress=progress
                )
            opened.refresh_index()
            return report

        if watch:
            shown = opened.name if isinstance(name, str) else str(name)
            follow_and_show(
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
    from image2sentence.encoders.onnx_encoder import MODEL_VARIABLE, load_encoder
    from image2sentence.indexing.ray import index_on_ray

    with optional_extra("ray", ("ray",)):
        import ray  # noqa: F401
    named = model or os.environ.get(MODEL_VARIABLE)
    if named is not None and Path(named).is_dir():
        named = Path(named).absolute()
    return partial(index_on_ray, make_encoder=partial(load_encoder, named, threads=1), workers=workers)


def _print_report(report: IndexReport, gallery: str, size: int) -> None:
    from image2sentence.images import EXTENSIONS, display_path

    counts = [f"{name} {getattr(report, name):,}" for name in _COUNTS]
    click.echo(" · ".join([*counts, f"failed {len(report.failed):,}"]))
    click.echo(f"{report.seconds:.1f} s, {report.rate:.0f} pictures/s encoded")
    _print_reasons("could not be read", report.failed)
    _print_reasons("folders that could not be listed", report.unreadable_folders)
    _print_reasons("pictures that are not there (--allow-empty forgets them)", report.away)
    _print_reasons("passed over, since another indexed folder holds them", report.elsewhere)
    if report.undated:
        click.echo(f"without a date: {report.undated:,} of the pictures encoded")
    if report.skipped_other:
        endings = ", ".join(
            f"{display_path(ending) or 'none'} {count:,}" for ending, count in _first(report.passed_over)
        )
        click.echo(f"passed over {report.skipped_other:,} files without a picture's ending: {endings}")
    if not report.found:
        endings = " ".join(sorted(EXTENSIONS))
        click.echo(f"no pictures found; their names end in {endings}, or in .tar with --shards", err=True)
    click.echo(f"gallery {gallery}: {size:,} pictures")


def _first(endings: dict[str, int]) -> list[tuple[str, int]]:
    """The most frequent endings; the rest are counted together."""
    named = list(endings.items())
    rest = sum(count for _, count in named[LISTED:])
    return named[:LISTED] + ([("others", rest)] if rest else [])


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


def _print_reasons(title: str, reasons: Sequence[tuple[Place, str] | Place]) -> None:
    from image2sentence.images import display_path

    if not reasons:
        return
    click.echo(f"{title}:")
    for one in reasons[:LISTED]:
        path, reason = one if isinstance(one, tuple) else (one, "")
        click.echo(f"  {display_path(path)}" + (f": {reason}" if reason else ""))
    if len(reasons) > LISTED:
        click.echo(f"  ... and {len(reasons) - LISTED:,} more; --json lists all")


_CHANGES = ("encoded", "moved", "duplicates", "deleted")


def follow_and_show(
    pictures: Place,
    gallery: GalleryStore,
    run: Callable[[], IndexReport],
    show: Callable[[IndexReport], None],
    as_json: bool,
) -> None:
    """Follow a folder until Ctrl-C: the first run is shown in full, of later ones what they changed."""
    from image2sentence.indexing.watch import follow

    if not isinstance(pictures, Path) or not pictures.is_dir():
        raise ConfigError(f"--watch follows a folder of this machine, and {pictures} is none")
    failures = _ReportedFailures()
    try:
        for number, report in enumerate(follow(pictures, gallery.own_folder, run)):
            if as_json:
                click.echo(
                    json.dumps({"gallery": gallery.name, "pictures": len(gallery), **report.as_dict()})
                )
            elif number == 0:
                show(report)
                click.echo("following the folder; Ctrl-C ends it", err=True)
            failures.report(report, aloud=number > 0 and not as_json)
    except KeyboardInterrupt:
        click.echo("\nStopped. Everything that was finished is in the gallery.", err=True)


class _ReportedFailures:
    """Failures that have been shown."""

    def __init__(self) -> None:
        self._failed: set[tuple[Place, str]] = set()

    def report(self, report: IndexReport, *, aloud: bool) -> None:
        """Say what changed in a run, if anything did."""
        from image2sentence.images import display_path

        new = [failed for failed in report.failed if failed not in self._failed]
        self._failed = set(report.failed)
        counts = [f"{name} {getattr(report, name):,}" for name in _CHANGES if getattr(report, name)]
        if aloud and (counts or new):
            click.echo(f"{datetime.now():%H:%M:%S} " + " · ".join([*counts, *(["failed"] if new else [])]))
            for path, reason in new:
                click.echo(f"  {display_path(path)}: {reason}")
