"""`image2sentence search`: ask a gallery with pictures, words, or both."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from image2sentence.cli import STARTED
from image2sentence.cli.options import (
    device_option,
    gallery_option,
    gallery_place,
    json_option,
    model_option,
    print_json,
    require_gallery,
    tell_model,
)
from image2sentence.cli.output import asks_for_paths, paths_options, write_paths
from image2sentence.cli.query_options import QueryOptions, query_options
from image2sentence.cli.search_history import remember

if TYPE_CHECKING:
    from image2sentence.query import Answer, QueryEngine


@click.command()
@query_options
@gallery_option
@model_option
@device_option
@json_option
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw the query and its results into this picture file.",
)
@paths_options
@click.option("--timing", is_flag=True, help="Print milliseconds by stage on standard error.")
def search(
    gallery: Path | str | None,
    model: Path | None,
    device: str,
    as_json: bool,
    sheet: Path | None,
    paths_only: bool,
    null: bool,
    timing: bool,
    **asked: Any,
) -> None:
    """Find pictures that look like PHOTO, changed as WORDS say.

    Either may be left out: a picture alone finds pictures like it, words alone find what they describe.
    With words, the asked picture itself is left out of the results. Of several pictures, what they have in
    common is sought.

    \b
      image2sentence search photo.jpg "but red"
      image2sentence search photo.jpg
      image2sentence search "a striped shirt" --not blue --where "price < 50"
      image2sentence search --like 3 "with long sleeves"
    """
    paths_only = asks_for_paths(paths_only, null, as_json)
    options = QueryOptions(**asked)
    pictures, _ = options.pictures_and_words()
    name = require_gallery(gallery)

    from image2sentence.encoders import load_encoder
    from image2sentence.gallery.opening import open_gallery
    from image2sentence.query import QueryEngine

    with open_gallery(name) as opened:
        query = options.query(opened)
        engine = QueryEngine(load_encoder(model, device=device, space=opened.fingerprint), opened)
        engine.prepare(pictures=bool(query.references), words=bool(query.words))
        load_ms = 1000 * (time.perf_counter() - STARTED)
        answer = engine.rank(query)
        milliseconds = {"load_ms": load_ms, **answer.milliseconds}
        milliseconds["total_ms"] = 1000 * (time.perf_counter() - STARTED)
        if sheet is not None:
            save_sheet(answer, sheet, [*pictures, *(result.path for result in answer.results)])
        if as_json:
            print_json(as_document(engine, pictures, answer, milliseconds))
        elif paths_only:
            write_paths([result.path for result in answer.results], null=null)
        else:
            _print_answer(answer)
        remember(opened, answer)
        size = len(opened)
    if sys.stderr.isatty():
        tell_model(engine.encoder, err=True)
    _print_notes(answer, size, milliseconds if timing else {})


def save_sheet(answer: Answer, file: Path, shown: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Draw the answer into a picture file, whole or not at all.

    Raises ClickException where it cannot be written, or is one of the pictures `shown`.
    """
    from image2sentence.images import display_path, printable

    if any(os.path.exists(path) and file.exists() and os.path.samefile(path, file) for path in shown):
        raise click.ClickException(
            f"the sheet would overwrite the picture {display_path(file)}: choose another name"
        )
    try:
        sheet = answer.draw()
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}.") as folder:
            draft = Path(folder, file.name)
            sheet.save(draft)
            os.replace(draft, file)
    except (OSError, ValueError) as error:
        raise click.ClickException(
            f"cannot write the sheet {display_path(file)}: {printable(str(error))}"
        ) from error


def as_document(
    engine: QueryEngine, pictures: list[Path], answer: Answer, milliseconds: dict[str, float]
) -> dict[str, Any]:
    """The answer as a JSON value."""
    from image2sentence.encoders.scope import about_model

    about = about_model(engine.encoder)
    return {
        "query": {"images": pictures, "text": answer.words},
        "gallery": {"name": gallery_place(engine.gallery), "pictures": len(engine.gallery)},
        "model": engine.encoder.fingerprint,
        "about_model": None if about is None else vars(about),
        "total": answer.total,
        "more": answer.more,
        "fits": answer.fits,
        "best_fit": answer.best_fit,
        "results": [result._asdict() | {"missing": result.missing} for result in answer.results],
        "understood": answer.understood,
        "not_understood": [unknown._asdict() for unknown in answer.not_understood],
        "hints": _hints(answer.words),
        "timing": {stage: round(spent, 1) for stage, spent in milliseconds.items()},
    }


def _print_answer(answer: Answer) -> None:
    from image2sentence.gallery.locations import seen_from
    from image2sentence.images import display_path
    from image2sentence.query import fit_word

    here = Path.cwd()
    for result in answer.results:
        path = seen_from(here, result.path)
        notes = [f"match {result.match:.2f}"] if result.match is not None else []
        notes += [f"{len(result.alike)} alike hidden"] if result.alike else []
        notes += ["not there now"] if result.missing else []
        noted = f"  ({', '.join(notes)})" if notes else ""
        word = "" if result.fit is None else f"{fit_word(result.fit, answer.fits_from):<4}  "
        click.echo(f"{result.rank:3d}  {result.score:.3f}  {word}{display_path(path)}{noted}")


_WHAT_TO_DO = (
    "Some files are not there. If their disk is away, connect it; if the folder was moved, "
    "`image2sentence gallery move-root OLD NEW`; if they are gone, index again, or "
    "`image2sentence gallery forget FOLDER`"
)


def _hints(words: str) -> list[dict[str, str]]:
    """What could be asked otherwise: negations, with the words for --not."""
    from image2sentence.query.hints import negation_hints

    return [
        {
            "kind": "negation",
            "phrase": hint.phrase,
            "not": hint.unwanted,
            "message": f"{hint.phrase!r} does not keep {hint.unwanted!r} away: leave it out of the words, and say "
            f"--not {hint.unwanted!r}",
        }
        for hint in negation_hints(words)
    ]


def _print_notes(answer: Answer, size: int, milliseconds: dict[str, float]) -> None:
    from image2sentence.images import printable

    for unknown in answer.not_understood:
        hint = f" (near: {', '.join(unknown.near)})" if unknown.near else ""
        click.echo(f"not understood: {unknown.word!r}{hint}", err=True)
    if any(result.missing for result in answer.results):
        click.echo(_WHAT_TO_DO, err=True)
    for negation in _hints(answer.words):
        click.echo(f"hint: {printable(negation['message'])}", err=True)
    if not answer.results:
        click.echo(f"no results: {_why_nothing(answer, size)}", err=True)
    if milliseconds:
        click.echo(
            " · ".join(f"{name[:-3]} {spent:.0f} ms" for name, spent in milliseconds.items()), err=True
        )


def _why_nothing(answer: Answer, size: int) -> str:
    if not size:
        return "the gallery is empty; fill it with `image2sentence index PICTURES`"
    if not answer.understood:
        return "the model knows none of these words, and no name or title has one; say what is to be seen in others"
    if answer.fits is False and answer.best_fit is not None:
        return f"nothing here fits that well; the best has a fit of {answer.best_fit:.2f}"
    if answer.query.offset:
        return "there are no more"
    return "the gallery holds no other picture" + (" that fulfils --where" if answer.query.where else "")
