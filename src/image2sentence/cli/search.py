"""`image2sentence search`: ask a gallery with pictures, words, or both."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from image2sentence.cli import STARTED
from image2sentence.cli.common import gallery_option, json_option, model_option, print_json, require_gallery

if TYPE_CHECKING:
    from image2sentence.query import Answer, QueryEngine


@click.command()
@click.argument("asked", nargs=-1, metavar="[PHOTO] [WORDS]")
@gallery_option
@model_option
@click.option(
    "--image",
    "images",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="A picture to ask with; may be given several times.",
)
@click.option(
    "--text", metavar="WORDS", help="What should be different, or without a picture, what to look for."
)
@click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, help="Results wanted.")
@json_option
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw the query and its results into this picture file.",
)
@click.option("--timing", is_flag=True, help="Print milliseconds by stage on standard error.")
def search(
    asked: tuple[str, ...],
    gallery: Path | None,
    model: Path | None,
    images: tuple[Path, ...],
    text: str | None,
    k: int,
    as_json: bool,
    sheet: Path | None,
    timing: bool,
) -> None:
    """Find pictures that look like PHOTO, changed as WORDS say.

    Either may be left out: a picture alone finds pictures like it, words alone find what they describe.
    With words, the asked picture itself is left out of the results. Of several pictures, what they have in
    common is sought.

    \b
      image2sentence search photo.jpg "but red"
      image2sentence search photo.jpg
      image2sentence search "a striped shirt"
    """
    pictures, words = read_query(asked, images, text)
    folder = require_gallery(gallery)

    from image2sentence.encoders import load_encoder
    from image2sentence.gallery.store import Gallery
    from image2sentence.query import QueryEngine

    with Gallery.open(folder) as opened:
        engine = QueryEngine(load_encoder(model), opened)
        engine.prepare(pictures=bool(pictures))
        load_ms = 1000 * (time.perf_counter() - STARTED)
        answer = engine.search(pictures, words, k)
        milliseconds = {"load_ms": load_ms, **answer.milliseconds}
        milliseconds["total_ms"] = 1000 * (time.perf_counter() - STARTED)
        if sheet is not None:
            save_sheet(answer, sheet)
        if as_json:
            print_json(as_document(engine, pictures, answer, milliseconds))
        else:
            _print_answer(answer)
    _print_notes(answer, milliseconds if timing else {})


def read_query(asked: tuple[str, ...], images: tuple[Path, ...], text: str | None) -> tuple[list[Path], str]:
    """The pictures and the words meant by the arguments. Raises UsageError where that is not clear."""
    if len(asked) > 2:
        raise click.UsageError(
            "expected a picture and words; put the words in quotes, more pictures in --image FILE"
        )
    photos = [Path(asked[0])] if asked and (len(asked) == 2 or _is_picture(asked[0])) else []
    words = asked[len(photos) :]
    if len(asked) == 2:
        _check_pair(*asked)
    if words and text is not None:
        raise click.UsageError("words are given twice: as an argument and as --text")
    pictures = [*photos, *images]
    said = words[0] if words else text or ""
    if not pictures and not said.strip():
        raise click.UsageError("expected a picture, words, or both")
    return pictures, said


def _is_picture(argument: str) -> bool:
    """Whether a lone argument names a picture; words otherwise."""
    named_so = _has_picture_ending(argument)
    if named_so and not os.path.isfile(argument):
        raise click.UsageError(
            f"there is no picture {argument!r}; if these are words, say --text {argument!r}"
        )
    if os.path.isfile(argument) and not named_so:
        raise click.UsageError(
            f"{argument!r} is a file, but not named like a picture: say --image {argument!r},"
            " or --text if these are words"
        )
    return named_so


def _check_pair(photo: str, words: str) -> None:
    if not os.path.isfile(photo):
        raise click.UsageError(
            f"there is no picture {photo!r}; if all of it is words, put them in one pair of quotes"
        )
    if _has_picture_ending(words) and os.path.isfile(words):
        raise click.UsageError(
            f"{words!r} is a picture, not words: give further pictures as --image {words!r}"
        )


def _has_picture_ending(argument: str) -> bool:
    from image2sentence.images import EXTENSIONS

    return os.path.splitext(argument)[1].lower() in EXTENSIONS


def save_sheet(answer: Answer, file: Path) -> None:
    """Draw the answer into a picture file. Raises ClickException where it cannot be written."""
    try:
        answer.draw().save(file)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"cannot write the sheet {file}: {error}") from error


def as_document(
    engine: QueryEngine, pictures: list[Path], answer: Answer, milliseconds: dict[str, float]
) -> dict[str, Any]:
    """The answer as a JSON value."""
    from image2sentence.images import display_path

    return {
        "query": {"images": [display_path(path) for path in pictures], "text": answer.words},
        "gallery": {"folder": display_path(engine.gallery.folder), "pictures": len(engine.gallery)},
        "model": engine.encoder.fingerprint,
        "results": [result._asdict() | {"path": display_path(result.path)} for result in answer.results],
        "not_understood": [unknown._asdict() for unknown in answer.not_understood],
        "timing": {stage: round(spent, 1) for stage, spent in milliseconds.items()},
    }


def _print_answer(answer: Answer) -> None:
    from image2sentence.images import display_path

    here = Path.cwd()
    for result in answer.results:
        path = result.path.relative_to(here) if result.path.is_relative_to(here) else result.path
        click.echo(f"{result.rank:3d}  {result.score:.3f}  {display_path(path)}")


def _print_notes(answer: Answer, milliseconds: dict[str, float]) -> None:
    for unknown in answer.not_understood:
        hint = f" (near: {', '.join(unknown.near)})" if unknown.near else ""
        click.echo(f"not understood: {unknown.word!r}{hint}", err=True)
    if not answer.results:
        click.echo("no results: the gallery holds no other picture", err=True)
    if milliseconds:
        click.echo(
            " · ".join(f"{name[:-3]} {spent:.0f} ms" for name, spent in milliseconds.items()), err=True
        )
