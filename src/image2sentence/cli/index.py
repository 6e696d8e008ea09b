"""`image2sentence index`: bring a gallery up to date with folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from image2sentence.cli.options import (
    GALLERY_NAME,
    PlaceType,
    device_option,
    find_gallery,
    gallery_option,
    gallery_place,
    json_option,
    model_option,
    optional_extra,
    print_json,
    progress_bar,
    tell_model,
)
from image2sentence.errors import ConfigError, StorageAwayError

if TYPE_CHECKING:
    from image2sentence.encoders import Encoder
    from image2sentence.gallery.base import GalleryStore
    from image2sentence.gallery.files.metadata import MetadataReport
    from image2sentence.gallery.locations import Place
    from image2sentence.indexing.report import IndexReport
    from image2sentence.indexing.several import Indexed

LISTED = 20
"""Unreadable files named one by one; `--json` names all."""

_COUNTS = ("found", "encoded", "unchanged", "moved", "duplicates", "deleted")


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=PlaceType(path_type=Path))
@gallery_option
@model_option
@device_option
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Of ONNX Runtime; 0: one for each core.",
)
@click.option(
    "--metadata",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="CSV, Excel, JSONL or Parquet with a column `file` and values to filter by; may be repeated.",
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
    type=click.IntRange(1, 1 << 30),
    metavar="N",
    help="Largest picture read, in pixels (width x height). Default: 120,000,000; at most 1,073,741,824.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Pass over what fits this pattern, as in .gitignore; may be repeated. Also: .image2sentenceignore files.",
)
@click.option("--retry-failed", is_flag=True, help="Read files again that could not be read before.")
@click.option(
    "--allow-empty",
    is_flag=True,
    help="Forget pictures that are gone even if they are most of PICTURES, or all of it; with --watch at once only.",
)
@click.option("--watch", is_flag=True, help="Go on: follow the folders and index what changes, until Ctrl-C.")
@json_option
def index(
    pictures: tuple[Path | str, ...],
    gallery: Path | str | None,
    model: Path | None,
    device: str,
    threads: int,
    metadata: tuple[Path, ...],
    shards: bool,
    engine: str,
    workers: int | None,
    max_pixels: int | None,
    exclude: tuple[str, ...],
    retry_failed: bool,
    allow_empty: bool,
    watch: bool,
    as_json: bool,
) -> None:
    """Bring a gallery up to date with the pictures in PICTURES: folders, URLs (s3://...), or .tar shards.

    Only new and changed pictures are encoded. Files that cannot be read are listed and never stop the run.
    Where there is no gallery yet, one is made: by default in this folder, as .image2sentence.
    """
    from image2sentence.gallery.files.metadata import MetadataFile, apply_metadata
    from image2sentence.gallery.opening import open_or_create_gallery
    from image2sentence.images import display_path, printable
    from image2sentence.indexing.index_pictures import index_pictures
    from image2sentence.indexing.model_choice import encoder_for
    from image2sentence.indexing.several import index_several

    if watch and metadata:
        raise click.UsageError(
            "--watch and --metadata do not go together: apply the metadata in a run of its own"
        )
    if workers is not None and engine != "ray":
        raise click.UsageError("--workers goes with --engine ray")
    found = find_gallery(gallery)
    waits = watch and found is not None and (isinstance(found, str) or found.is_dir())
    places = _distinct(pictures, waits)
    encoder = encoder_for(model, found, places, threads, device)
    name = found or Path(GALLERY_NAME)
    with open_or_create_gallery(name, encoder.fingerprint, encoder.width) as opened:
        columns, tables = opened.columns(), []
        for table in metadata:
            tables.append(MetadataFile(table, columns))
            columns |= tables[-1].columns
        opened.add_columns(columns)  # before indexing, which makes `taken` where it is not there
        engine_run = index_pictures if engine == "threads" else _on_ray(model, encoder, workers, device)
        if max_pixels is not None:
            engine_run = partial(engine_run, max_pixels=max_pixels)
        engine_run = partial(engine_run, exclude=exclude, retry_failed=retry_failed, shards=shards)

        def update(due: Sequence[Place], *, allow_empty: bool) -> list[Indexed]:
            def index_one(place: Place, *, forget: Collection[int] | None) -> IndexReport:
                with progress_bar("indexing") as progress:
                    return engine_run(
                        place, opened, encoder, allow_empty=allow_empty, forget=forget, progress=progress
                    )

            beside = [place for place in places if place not in due]
            done = index_several(due, index_one, beside=beside, careful=watch)
            opened.refresh_index()
            return done

        shown = opened.name if isinstance(name, str) else printable(str(name))
        if watch:
            follow_and_show(places, opened, update, shown, allow_empty=allow_empty, as_json=as_json)
            return
        done = update(places, allow_empty=allow_empty)
        there = any(one.away is None for one in done)
        joined = [apply_metadata(opened, places[0], table, *places[1:]) for table in tables if there]
        size, gallery_shown = len(opened), gallery_place(opened)
    reports = [one.report for one in done if one.report is not None]
    if as_json and not (len(done) == 1 and done[0].away is not None):
        print_json({"model": _about(encoder, reports)} | _as_document(done, gallery_shown, size, joined))
    elif not as_json:
        _print_all(done, shown, size)
        for table, values in zip(metadata if joined else (), joined, strict=True):
            _print_metadata(values, f"metadata {display_path(table)}" if len(metadata) > 1 else "metadata")
        tell_scope(encoder, reports)
    away = [one.away for one in done if one.away is not None]
    if away:
        raise StorageAwayError("\n".join(map(str, away)))


def tell_scope(encoder: Encoder, reports: Sequence[IndexReport]) -> None:
    """Say which model encoded, what it knows, and whether most pictures lie outside of that."""
    from image2sentence.hub.table import GENERAL

    tell_model(encoder, err=False)
    share, most = _outside(encoder, reports)
    if most:
        click.echo(
            f"{100 * (share or 0):.0f} % of these pictures look like none of that: words will hardly find them. "
            f"For a general model, in a gallery of its own:\n  image2sentence index PICTURES --model {GENERAL} "
            "--gallery general",
            err=True,
        )


def _outside(encoder: Encoder, reports: Sequence[IndexReport]) -> tuple[float | None, bool]:
    """The share of the pictures that lie outside of what the model knows, None where unknown; whether they are most."""
    import numpy as np

    from image2sentence.encoders.model_folder import ModelFolder
    from image2sentence.encoders.scope import read_scope

    folder = getattr(encoder, "folder", None)
    samples = [report.sample for report in reports if len(report.sample)]
    scope = read_scope(folder) if isinstance(folder, ModelFolder) else None
    if scope is None or not samples:
        return None, False
    rows = np.concatenate(samples)
    return scope.share_outside(rows), scope.mostly_outside(rows)


def _about(encoder: Encoder, reports: Sequence[IndexReport]) -> dict[str, object] | None:
    """The same as a JSON value; None for an encoder that is no model folder."""
    from image2sentence.encoders.scope import about_model

    about = about_model(encoder)
    if about is None:
        return None
    share, most = _outside(encoder, reports)
    return {**vars(about), "share_outside": share, "mostly_outside": most}


def _distinct(pictures: Sequence[Path | str], waits: bool) -> list[Place]:
    """The places to index, each once. Raises GalleryError where none of them is there, unless they are waited for."""
    from image2sentence.gallery.locations import may_exist
    from image2sentence.images import display_path
    from image2sentence.indexing.several import outermost
    from image2sentence.indexing.sources import open_source

    places = outermost(pictures)
    if not waits and not any(map(may_exist, places)):
        open_source(places[0])
    if len(places) < len(pictures):
        shown = ", ".join(display_path(place) for place in places)
        click.echo(f"some of these folders are, or lie in, others of them; indexed are {shown}", err=True)
    return places


def _as_document(
    done: Sequence[Indexed], gallery: Place, size: int, joined: Sequence[MetadataReport]
) -> dict[str, object]:
    about: dict[str, object] = {"gallery": gallery, "pictures": size}
    if len(done) > 1:
        about["folders"] = [_one_document(one) for one in done]
    elif (report := done[0].report) is not None:
        about |= report.as_dict()
    tables = [vars(values) for values in joined]
    return about if not tables else {**about, "metadata": tables[0] if len(tables) == 1 else tables}


def _one_document(one: Indexed) -> dict[str, object]:
    result = {"error": str(one.away)} if one.report is None else one.report.as_dict()
    return {"folder": one.place, **result}


def _on_ray(
    model: Path | None, encoder: Encoder, workers: int | None, device: str
) -> Callable[..., IndexReport]:
    """`index_pictures` on a Ray cluster, whose workers load the same model: the one named, else `encoder`'s own."""
    from image2sentence.encoders.onnx_encoder import MODEL_VARIABLE, load_encoder
    from image2sentence.hub.find import from_anywhere
    from image2sentence.indexing.ray import index_on_ray

    with optional_extra("ray", ("ray",)):
        import ray  # noqa: F401
    named = model or os.environ.get(MODEL_VARIABLE)
    name = from_anywhere(os.fspath(named)) if named else None
    make = partial(load_encoder, name, threads=1, device=device, space=encoder.fingerprint)
    return partial(index_on_ray, make_encoder=make, workers=workers)


def _print_all(done: Sequence[Indexed], gallery: Place, size: int) -> None:
    from image2sentence.images import display_path

    for one in done:
        if one.report is not None:
            if len(done) > 1:
                click.echo(f"{display_path(one.place)}:")
            _print_report(one.report)
    if any(one.report is not None for one in done):
        click.echo(f"gallery {gallery}: {size:,} pictures")


def _print_report(report: IndexReport) -> None:
    from image2sentence.images import EXTENSIONS, display_path

    counts = [f"{name} {getattr(report, name):,}" for name in _COUNTS]
    click.echo(" · ".join([*counts, f"failed {len(report.failed):,}"]))
    click.echo(f"{report.seconds:.1f} s, {report.rate:.0f} pictures/s encoded")
    _print_reasons("could not be read", report.failed)
    _print_reasons("folders that could not be listed", report.unreadable_folders)
    _print_reasons("pictures that are not there (--allow-empty forgets them)", report.away)
    _print_reasons("passed over, since another indexed folder holds them", report.elsewhere)
    if report.excluded:
        patterns = ", ".join(f"{display_path(name)} {count:,}" for name, count in _first(report.excluded))
        click.echo(f"excluded {sum(report.excluded.values()):,} files and folders: {patterns}")
    if report.deleted_excluded:
        click.echo(
            f"of the deleted, {report.deleted_excluded:,} are excluded now; their files are untouched, and their "
            "metadata comes back if they are indexed again within 90 days"
        )
    if report.left:
        click.echo(f"moved to another indexed folder: {report.left:,}")
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


def _first(endings: dict[str, int]) -> list[tuple[str, int]]:
    """The most frequent endings; the rest are counted together."""
    named = list(endings.items())
    rest = sum(count for _, count in named[LISTED:])
    return named[:LISTED] + ([("others", rest)] if rest else [])


def _print_metadata(joined: MetadataReport, title: str) -> None:
    from image2sentence.images import display_path, printable

    columns = ", ".join(f"{display_path(name)} ({kind})" for name, kind in joined.columns.items())
    click.echo(f"{title}: {joined.matched:,} rows, {joined.changed:,} pictures changed; columns {columns}")
    if joined.encoding is not None:
        click.echo(f"  its text is not UTF-8 and was read as {joined.encoding}")
    for name, cell in joined.text_because.items():
        click.echo(f"  {display_path(name)} is text because of {printable(cell)}")
    for name in joined.kept_as_text:
        click.echo(
            f"  {display_path(name)} stays text, as it was first given; to change it: "
            f"image2sentence gallery columns --retype {display_path(name)}=number"
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


_CHANGES = ("encoded", "moved", "left", "duplicates", "deleted")


def follow_and_show(
    places: Sequence[Place],
    gallery: GalleryStore,
    update: Callable[..., list[Indexed]],
    shown: str,
    *,
    allow_empty: bool,
    as_json: bool,
) -> None:
    """Follow folders until Ctrl-C: the first run is shown in full, of later ones what they changed."""
    from image2sentence.images import display_path
    from image2sentence.indexing.watch import follow

    folders = [
        place for place in places if isinstance(place, Path) and (place.is_dir() or not place.exists())
    ]
    if len(folders) < len(places):
        other = next(place for place in places if place not in folders)
        raise ConfigError(f"--watch follows folders of this machine, and {display_path(other)} is none")
    indexed: set[Path] = set()  # what is gone later may be away: --allow-empty is for the first round only

    def bring_up_to_date(due: Sequence[Path]) -> Iterator[Indexed]:
        first = not indexed.issuperset(due)
        for one in update(due, allow_empty=allow_empty and first):
            if one.report is not None:
                indexed.add(Path(one.place))
            yield one

    logs = {folder: _FolderLog() for folder in folders}
    if not as_json:
        click.echo(f"following {', '.join(map(display_path, folders))}; Ctrl-C ends it", err=True)
    try:
        for one in follow(folders, gallery.own_folder, bring_up_to_date):
            if as_json:
                about = {"gallery": gallery_place(gallery), "pictures": len(gallery), **_one_document(one)}
                print_json(about, indent=None)
            else:
                logs[Path(one.place)].show(
                    one, len(folders) > 1, f"gallery {shown}: {len(gallery):,} pictures"
                )
    except KeyboardInterrupt:
        click.echo("\nStopped. Everything that was finished is in the gallery.", err=True)


class _FolderLog:
    """What has been shown of a folder that is followed."""

    def __init__(self) -> None:
        self._first = True
        self._was_away = False
        self._reasons: set[tuple[Place, str]] = set()

    def show(self, one: Indexed, named: bool, size: str) -> None:
        """Show the first report in full, and of later rounds what they changed, if they changed anything."""
        from image2sentence.images import display_path

        folder = display_path(one.place)
        if one.report is None:
            self._was_away = True
            click.echo(f"{datetime.now():%H:%M:%S} waiting for {folder}: {one.away}", err=True)
            return
        reasons = [*one.report.failed, *one.report.away]
        new = [reason for reason in reasons if reason not in self._reasons]
        self._reasons = set(reasons)
        if self._was_away:
            click.echo(f"{datetime.now():%H:%M:%S} {folder} is back", err=True)
        if self._first:
            if named:
                click.echo(f"{folder}:")
            _print_report(one.report)
            click.echo(size)
        else:
            self._show_changes(one.report, new, f"{folder}: " if named else "")
        self._first = self._was_away = False

    def _show_changes(self, report: IndexReport, new: list[tuple[Place, str]], start: str) -> None:
        from image2sentence.images import display_path

        counts = [f"{name} {getattr(report, name):,}" for name in _CHANGES if getattr(report, name)]
        if counts or new:
            noted = [*counts, *(["not read or not there"] if new else [])]
            click.echo(f"{datetime.now():%H:%M:%S} {start}" + " · ".join(noted))
            for path, reason in new:
                click.echo(f"  {display_path(path)}: {reason}")
