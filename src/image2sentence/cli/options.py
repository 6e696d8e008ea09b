"""What several commands share: options, the default gallery, progress bars, output."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from image2sentence.cli.output import json_ready
from image2sentence.errors import GalleryError

if TYPE_CHECKING:
    from image2sentence.encoders import Encoder
    from image2sentence.gallery.base import GalleryStore
    from image2sentence.gallery.locations import Place

GALLERY_VARIABLE = "IMAGE2SENTENCE_GALLERY"
GALLERY_NAME = ".image2sentence"
PROGRESS_SECONDS = 30.0
"""Between lines that tell how far a command is, where standard error is no terminal."""

TRAINING_PACKAGES = frozenset(
    {"accelerate", "onnx", "onnxscript", "safetensors", "tensorboard", "torch", "transformers"}
)


class PlaceType(click.Path):
    """A path, or what looks like a URL, which is passed on as it is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The URL as text; all else as a Path, checked as asked for."""
        return value if isinstance(value, str) and "://" in value else super().convert(value, param, ctx)


gallery_option = click.option(
    "--gallery",
    type=PlaceType(file_okay=False, path_type=Path),
    metavar="DIR|ADDRESS",
    help="The gallery: a folder, or milvus://HOST:PORT/COLLECTION. "
    f"Default: ${GALLERY_VARIABLE}, else {GALLERY_NAME} here or in a folder above.",
)
model_option = click.option(
    "--model",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="MODEL",
    help="A folder, or a name that `models` lists. Default: $IMAGE2SENTENCE_MODEL, else the gallery's, else the "
    "one of the package that knows the pictures.",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "directml", "coreml", "openvino", "rocm"]),
    envvar="IMAGE2SENTENCE_DEVICE",
    default="auto",
    show_default=True,
    help="What large graphs run on; auto: a GPU that ONNX Runtime can use, else the processor.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def find_gallery(given: Path | str | None) -> Path | str | None:
    """The gallery's folder or address: as given, else $IMAGE2SENTENCE_GALLERY, else the nearest .image2sentence."""
    named = given or os.environ.get(GALLERY_VARIABLE)
    if named:
        return str(named) if "://" in str(named) else Path(named)
    here = Path.cwd()
    return next(
        (place / GALLERY_NAME for place in (here, *here.parents) if (place / GALLERY_NAME).is_dir()), None
    )


def require_gallery(given: Path | str | None) -> Path | str:
    """As `find_gallery`. Raises GalleryError, saying what to do, where there is none."""
    found = find_gallery(given)
    if found is None:
        raise GalleryError(
            f"no gallery: there is no {GALLERY_NAME} in {Path.cwd()} or above it. Make one with "
            f"`image2sentence index PICTURES`, or name one with --gallery DIR or ${GALLERY_VARIABLE}"
        )
    return found


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, total) that moves a bar on standard error; now and then a line where that is no terminal."""
    from tqdm import tqdm

    start = said = time.monotonic()
    with tqdm(desc=label, unit=" pictures", disable=None, leave=False) as bar:

        def show(done: int, total: int) -> None:
            nonlocal said
            bar.total = total
            bar.update(done - bar.n)
            now = time.monotonic()
            if bar.disable and now - said >= PROGRESS_SECONDS:
                said = now
                click.echo(progress_line(label, done, total, now - start), err=True)

        yield show


def progress_line(label: str, done: int, total: int, seconds: float) -> str:
    """How far something is that has taken so many seconds: "indexing: 1,200 of 5,000 pictures, 40/s, 95 s left"."""
    rate = done / max(seconds, 1e-9)
    left = f", {(total - done) / rate:,.0f} s left" if rate and total > done else ""
    return f"{label}: {done:,} of {total:,} pictures, {rate:,.{0 if rate >= 10 else 1}f}/s{left}"


@contextmanager
def optional_extra(name: str, packages: Collection[str]) -> Iterator[None]:
    """Around imports that need the extra `name`: says how to install what is missing of its packages."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in packages:
            raise
        raise click.ClickException(
            f"this command needs {error.name}, which searching does not: pip install 'image2sentence[{name}]'"
        ) from error


def training_extra() -> AbstractContextManager[None]:
    """Around imports of `image2sentence.training`."""
    return optional_extra("train", TRAINING_PACKAGES)


def tell_model(encoder: Encoder, *, err: bool) -> None:
    """Say in one line which model answers and what it knows; nothing of an encoder that is no model folder."""
    from image2sentence.encoders.scope import about_model
    from image2sentence.images import printable

    about = about_model(encoder)
    if about is not None:
        click.echo(printable(str(about)), err=err)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Write a value to standard output as JSON in ASCII, which every encoding takes; see `json_ready`."""
    click.echo(json.dumps(json_ready(value), indent=indent))


def gallery_place(gallery: GalleryStore) -> Place:
    """The gallery's folder, or its address without secrets: its `name` as it is, for JSON."""
    own = gallery.own_folder
    return own.absolute() if own is not None and "://" not in gallery.name else gallery.name


def print_table(rows: dict[str, Any]) -> None:
    """Write names and values in two columns."""
    width = max(len(name) for name in rows)
    for name, value in rows.items():
        click.echo(f"  {name.ljust(width)}  {_shown(value)}")


def _shown(value: Any) -> str:
    from image2sentence.images import display_path

    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return display_path(value) if isinstance(value, Path) else str(value)
