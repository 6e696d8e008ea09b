"""`image2sentence gallery`: checks, folders, duplicates, vectors in and out."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from image2sentence.cli.columns import columns
from image2sentence.cli.groups import OrderedGroup
from image2sentence.cli.list_pictures import list_pictures
from image2sentence.cli.options import (
    GALLERY_NAME,
    PlaceType,
    device_option,
    find_gallery,
    gallery_option,
    gallery_place,
    json_option,
    model_option,
    print_json,
    print_table,
    progress_bar,
    require_gallery,
)
from image2sentence.errors import GalleryError

if TYPE_CHECKING:
    from image2sentence.gallery.records import Picture
    from image2sentence.gallery.search.faiss_index import AnnParameters
    from image2sentence.gallery.sqlite.gallery import Gallery

LISTED = 20
"""Files or groups named one by one; `--json` names all."""


@click.group(cls=OrderedGroup)
def gallery() -> None:
    """Look after a gallery: check it, make it smaller, find duplicates, take vectors out and in.

    A gallery is what `image2sentence index` makes: vectors and metadata of your pictures. None of these
    commands changes a picture.
    """


gallery.add_command(list_pictures)
gallery.add_command(columns)


@gallery.command()
@gallery_option
@json_option
def verify(gallery: Path | str | None, as_json: bool) -> None:
    """Check that nothing in the gallery is damaged or missing.

    Reads every byte: checksums of all rows, the database's own structures, commits that a damaged log lost,
    and the index file of large galleries. Counts the pictures whose files are not there. Changes nothing. Ends
    with exit code 1 at the first damage, saying what it is and what to do.
    """
    from image2sentence.gallery.locations import file_may_exist
    from image2sentence.gallery.opening import open_gallery

    start = time.perf_counter()
    with open_gallery(require_gallery(gallery)) as opened:
        opened.verify()
        index = opened.index_state(thorough=True)
        missing = sum(not file_may_exist(picture.path) for picture in opened.pictures("ready"))
        name = opened.name
        about = {
            "gallery": gallery_place(opened),
            "pictures": len(opened),
            "failed": len(opened.pictures("failed")),
            "missing": missing,
            "index": "none" if index is None else index.state,
            "seconds": round(time.perf_counter() - start, 1),
        }
    if index is not None and index.state == "unusable":
        raise GalleryError(
            f"the gallery {name} is whole, but its index file cannot be used ({index.detail}): search is "
            "exact and slower; `image2sentence gallery index` makes the file again"
        )
    last = "nothing is damaged or missing"
    if missing:
        last = (
            f"nothing is damaged; the files of {missing:,} pictures are not there: `image2sentence gallery roots` "
            "shows which folders are away"
        )
    _show(about, as_json, last)


@gallery.command()
@gallery_option
@json_option
def compact(gallery: Path | str | None, as_json: bool) -> None:
    """Give the room of deleted pictures back to the disk.

    Needs up to twice the gallery's size free on the disk while it runs. Searching goes on meanwhile. The index
    file of a large gallery is made again where it no longer fits.
    """
    with _for_writing(gallery) as opened:
        before = _bytes(opened)
        opened.compact()
        opened.refresh_index()
        after = _bytes(opened)
    about = {
        "gallery": gallery_place(opened),
        "megabytes_before": round(before / 1e6, 1),
        "megabytes_after": round(after / 1e6, 1),
    }
    _show(about, as_json, f"{(before - after) / 1e6:,.1f} MB given back")


@gallery.command()
@gallery_option
@click.option("--recall", type=float, metavar="R", help="Share of the 10 best to be found. Default: 0.99.")
@click.option(
    "--exact-below",
    type=click.IntRange(min=0),
    metavar="N",
    help="No index for fewer pictures. Default: 50,000.",
)
@click.option(
    "--code", type=click.Choice(["sq8", "pq"]), help="1 byte a value, or a quarter of it. Default: by size."
)
@click.option("--lists", type=click.IntRange(min=1), metavar="N", help="Groups of vectors. Default: by size.")
@click.option(
    "--probes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Groups looked into. Default: by trial, for --recall.",
)
@click.option(
    "--rerank",
    type=click.IntRange(min=1),
    metavar="N",
    help="Candidates compared in full for each result. Default: by code.",
)
@json_option
def index(gallery: Path | str | None, as_json: bool, **given: Any) -> None:
    """Make the index file of a large gallery again.

    From 50,000 pictures on, searching asks an index in place of comparing every picture. `index` and `compact`
    keep it up to date by themselves: this command is for other settings, which later rebuilds keep, and for a
    file that was damaged. The file is derived: nothing is lost without it.
    """
    from image2sentence.gallery.sqlite.index import make_index, settings_of

    start = time.perf_counter()
    chosen = {name: value for name, value in given.items() if value is not None}
    with _for_writing(gallery) as opened:
        settings = replace(settings_of(opened), **chosen)
        made = make_index(opened, settings)
        size = len(opened)
    about = {"gallery": gallery_place(opened), "pictures": size, **_described(made)}
    about["seconds"] = round(time.perf_counter() - start, 1)
    last = f"{size:,} pictures are compared one by one; an index is made from {settings.exact_below:,} on"
    _show(about, as_json, last if made is None else "the index file is up to date")


@gallery.command(short_help="Show files that have the same content.")
@gallery_option
@json_option
def duplicates(gallery: Path | str | None, as_json: bool) -> None:
    """Show files that have the same content, those that waste most first.

    Only files that are equal byte for byte count. Nothing is deleted. (Pictures that merely look alike:
    `image2sentence search --near-duplicates`.)
    """
    from image2sentence.gallery.base import duplicates as find
    from image2sentence.gallery.base import wasted
    from image2sentence.gallery.opening import open_gallery
    from image2sentence.images import display_path

    with open_gallery(require_gallery(gallery)) as opened:
        groups = find(opened)
    if as_json:
        print_json([_group(group) for group in groups])
        return
    for group in groups[:LISTED]:
        click.echo(f"{len(group)} times the same content, {max(group[0].size, 0):,} bytes each:")
        for picture in group:
            click.echo(f"  {display_path(picture.path)}")
    if len(groups) > LISTED:
        click.echo(f"... and {len(groups) - LISTED:,} more groups; --json lists all")
    copies, waste = sum(len(group) - 1 for group in groups), sum(map(wasted, groups))
    click.echo(f"pictures with copies {len(groups):,} · copies {copies:,} · they take {waste / 1e6:,.1f} MB")


@gallery.command(short_help="Write vectors, paths and metadata to Parquet or npy.")
@click.argument("out", type=click.Path(path_type=Path))
@gallery_option
@json_option
def export(out: Path, gallery: Path | str | None, as_json: bool) -> None:
    """Write all vectors, paths and metadata to OUT for other programs.

    OUT.parquet becomes a Parquet file (pandas, DuckDB, Spark; needs pip install 'image2sentence[parquet]'). Any
    other name becomes a folder with vectors.npy (NumPy) and pictures.jsonl, a line for each vector.
    """
    from image2sentence.gallery.opening import open_gallery
    from image2sentence.indexing.import_export import export_vectors

    with open_gallery(require_gallery(gallery)) as opened:
        count = export_vectors(opened, out)
        about = {"gallery": gallery_place(opened), "out": out, "pictures": count, "width": opened.width}
    _show(about, as_json, f"{count:,} pictures written")


@gallery.command("import", short_help="Take in vectors that were computed elsewhere.")
@click.argument("vectors", type=click.Path(exists=True, path_type=Path))
@click.argument("pictures", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@gallery_option
@model_option
@device_option
@click.option(
    "--check",
    default=16,
    show_default=True,
    type=click.IntRange(min=0),
    metavar="N",
    help="Compute N of the vectors again and compare, to see whether they are this model's.",
)
@json_option
def import_(
    vectors: Path,
    pictures: Path | None,
    gallery: Path | str | None,
    model: Path | None,
    device: str,
    check: int,
    as_json: bool,
) -> None:
    """Take in vectors that were computed elsewhere, as on a machine with a GPU.

    VECTORS is what `image2sentence gallery export` writes: a .parquet file with the columns `file` and `vector`,
    or a folder with vectors.npy and pictures.jsonl. PICTURES is the folder that the paths in it start from, where
    VECTORS does not name it. Every picture is read and hashed but not encoded. Index the folder afterwards for
    pictures that have no vector.
    """
    from image2sentence.encoders import load_encoder
    from image2sentence.gallery.files.vectors import open_vectors
    from image2sentence.gallery.opening import open_or_create_gallery
    from image2sentence.indexing.import_export import import_vectors
    from image2sentence.indexing.model_choice import space_of

    name = find_gallery(gallery) or Path(GALLERY_NAME)
    encoder = load_encoder(model, device=device, space=space_of(name))
    file = open_vectors(vectors)
    with open_or_create_gallery(name, encoder.fingerprint, encoder.width) as opened:
        with progress_bar("importing") as progress:
            report = import_vectors(opened, file, encoder, pictures, check=check, progress=progress)
        size, shown, place = len(opened), opened.name, gallery_place(opened)
    if as_json:
        print_json({"gallery": place, "pictures": size, **vars(report)})
        return
    counts = {
        name: value if isinstance(value, int) else len(value) for name, value in _counts(report).items()
    }
    click.echo(" · ".join(f"{name} {count:,}" for name, count in counts.items()))
    _list("not there", report.missing)
    _list("other pictures than the vectors were computed from", report.changed)
    _list("could not be read", [f"{file}: {reason}" for file, reason in report.failed])
    if report.least_alike is not None:
        click.echo(f"vectors compared with the model's own: cosine at least {report.least_alike:.4f}")
    click.echo(f"gallery {shown}: {size:,} pictures")


@gallery.command(short_help="List the folders of a gallery.")
@gallery_option
@json_option
def roots(gallery: Path | str | None, as_json: bool) -> None:
    """List the folders, URLs and shards that were indexed: how many pictures, and whether each is there now."""
    from image2sentence.gallery.opening import open_gallery
    from image2sentence.images import display_path
    from image2sentence.indexing.roots import list_roots

    with open_gallery(require_gallery(gallery)) as opened:
        found = list_roots(opened)
    if as_json:
        print_json([vars(root) for root in found])
        return
    for root in found:
        notes = [f"{root.failed:,} could not be read"] if root.failed else []
        notes += ["not there now"] if root.reachable is False else []
        noted = f"  ({', '.join(notes)})" if notes else ""
        click.echo(f"{root.pictures:9,}  {display_path(root.place)}{noted}")
    if not found:
        click.echo("nothing has been indexed", err=True)


@gallery.command(short_help="Take a folder out of a gallery.")
@click.argument("folder", type=PlaceType(path_type=Path))
@gallery_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def forget(folder: Path | str, gallery: Path | str | None, yes: bool, as_json: bool) -> None:
    """Forget the pictures in FOLDER and below: an indexed folder, URL or shard, or a part of one.

    FOLDER need not be there any more, and no file is touched. What was set by hand is kept by content for 90
    days. A part of an indexed folder comes back when that is indexed again, as long as its files are there.
    """
    from image2sentence.gallery.opening import open_gallery
    from image2sentence.images import display_path
    from image2sentence.indexing.roots import find_below
    from image2sentence.indexing.roots import forget as forget_below

    with open_gallery(require_gallery(gallery), readonly=False) as opened:
        below = find_below(opened, folder)
        if not yes:
            question = f"Forget {len(below.pictures):,} pictures in {display_path(folder)}?"
            click.confirm(question, abort=True, err=True)
        forget_below(opened, below)
        opened.refresh_index()
        about = {"gallery": gallery_place(opened), "forgotten": len(below.pictures), "pictures": len(opened)}
    _show(about, as_json, f"{len(below.pictures):,} pictures forgotten")


@gallery.command("move-root", short_help="Say that an indexed folder is in another place now.")
@click.argument("old", type=PlaceType(path_type=Path))
@click.argument("new", type=PlaceType(path_type=Path))
@gallery_option
@json_option
def move_root(old: Path | str, new: Path | str, gallery: Path | str | None, as_json: bool) -> None:
    """Say that the indexed folder OLD is in the place NEW now, with the same files below.

    Ids and metadata stay, and nothing is read or encoded. OLD need not be there any more. (Without this
    command, indexing NEW finds the pictures of a folder that is gone by their content, which reads all files.)
    """
    from image2sentence.gallery.opening import open_gallery
    from image2sentence.images import display_path
    from image2sentence.indexing.roots import move_root as move

    with open_gallery(require_gallery(gallery), readonly=False) as opened:
        count = move(opened, old, new)
        about = {
            "gallery": gallery_place(opened),
            "moved": count,
            "root": new if isinstance(new, str) else new.absolute(),
        }
    _show(about, as_json, f"{count:,} pictures are in {display_path(new)} now")


def _counts(report: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(report).items() if name != "least_alike"}


def _list(title: str, names: list[str]) -> None:
    from image2sentence.images import printable

    if names:
        click.echo(f"{title}:")
        for name in names[:LISTED]:
            click.echo(f"  {printable(name)}")
        if len(names) > LISTED:
            click.echo(f"  ... and {len(names) - LISTED:,} more; --json lists all")


def _group(group: list[Picture]) -> dict[str, Any]:
    pictures = [{"id": picture.id, "path": picture.path} for picture in group]
    return {"bytes": group[0].size, "pictures": pictures}


def _described(made: AnnParameters | None) -> dict[str, Any]:
    if made is None:
        return {"index": "none"}
    about = made.as_dict()
    return {"index": "current", **about, "measured": round(about["measured"], 4)}


def _for_writing(given: Path | str | None) -> Gallery:
    """A gallery in a folder, for writing. Raises GalleryError where it is a database."""
    from image2sentence.gallery.opening import is_database, open_gallery
    from image2sentence.gallery.sqlite.gallery import Gallery

    name = require_gallery(given)
    if not is_database(name):
        return Gallery.open(name, readonly=False)
    with open_gallery(name) as opened:
        raise GalleryError(
            f"{opened.name} is kept by a database, which looks after its own files and index: "
            "this command is for galleries in a folder"
        )


def _bytes(opened: Gallery) -> int:
    return sum(file.stat().st_size for file in opened.folder.iterdir() if file.is_file())


def _show(about: dict[str, Any], as_json: bool, last: str) -> None:
    if as_json:
        print_json(about)
        return
    print_table({name.replace("_", " "): value for name, value in about.items()})
    click.echo(last)
