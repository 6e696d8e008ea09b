"""`image2sentence guide`: phrases that help a trained model compose."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from image2sentence.cli.options import model_option

if TYPE_CHECKING:
    from PIL import Image

CALIBRATION = 500
"""Pictures that thresholds are taken from, at most."""


@click.command("guide")
@click.argument("phrases", type=click.Path(dir_okay=False, path_type=Path))
@model_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="The new model folder. May be the model's own; another model that is there is replaced.",
)
@click.option(
    "--neighbours", type=int, default=8, show_default=True, help="Phrases that take part in a query."
)
@click.option(
    "--temperature",
    type=float,
    default=0.05,
    show_default=True,
    help="How much the nearest ones outweigh others.",
)
@click.option(
    "--trust",
    type=(float, float),
    default=(0.6, 0.8),
    show_default=True,
    metavar="LOW HIGH",
    help="Dot products of picture and nearest phrase at which phrases begin to count, and count alone.",
)
@click.option(
    "--calibrate",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="PICTURES",
    help="Take LOW and HIGH from up to 500 of these pictures: the worst tenth below LOW, the better half above HIGH.",
)
@click.option(
    "--residual",
    type=float,
    default=0.3,
    show_default=True,
    help="How much of what a phrase leaves unsaid of the picture is kept.",
)
def guide(
    phrases: Path,
    model: Path | None,
    out: Path,
    neighbours: int,
    temperature: float,
    trust: tuple[float, float],
    calibrate: Path | None,
    residual: float,
) -> None:
    """Give a model guiding PHRASES: a text file with one a line, such as a shop's titles.

    No training, no labels: queries of picture and words then go by the phrases nearest to the picture, too. Best are
    phrases that name what has to stay when something else is changed ("striped navy shirt with long sleeves"), and
    nothing besides. Galleries made with the model stay valid.
    """
    from image2sentence.encoders.config import GuideConfig
    from image2sentence.encoders.guide_files import add_guide, calibrate_trust, read_phrases
    from image2sentence.encoders.onnx_encoder import load_encoder

    settings = GuideConfig(neighbours, temperature, *trust, residual)
    lines = read_phrases(phrases)
    encoder = load_encoder(model)
    if calibrate is not None:
        settings = calibrate_trust(encoder, lines, _some_pictures(calibrate), settings)
        click.echo(f"phrases begin to count at {settings.low} and count alone at {settings.high}")
    add_guide(encoder, lines, settings, out)
    click.echo(f"wrote {out} with {len(lines)} guiding phrases; use it with --model {out}")


def _some_pictures(folder: Path) -> Iterator[Image.Image]:
    """Up to `CALIBRATION` readable pictures below a folder, the same each time."""
    from image2sentence.errors import ImageError
    from image2sentence.images import MIN_DECODE_SIDE, load_image
    from image2sentence.indexing.walk import walk

    files = walk(folder, None).files
    chosen = files if len(files) <= CALIBRATION else random.Random(0).sample(files, CALIBRATION)
    for file in chosen:
        try:
            yield load_image(folder / file.path, at_least=MIN_DECODE_SIDE)
        except ImageError as error:
            click.echo(f"left out: {error}", err=True)
