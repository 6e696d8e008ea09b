"""`image2sentence evaluate`: measure a model on data with known answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from image2sentence.cli.common import model_option

if TYPE_CHECKING:
    from image2sentence.benchmarks.report import ModelDescription
    from image2sentence.encoders import OnnxEncoder


@click.group()
def evaluate() -> None:
    """Measure a model on data with known answers."""


@evaluate.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Pictures, and one CSV with a `file` column and their attributes.",
)
@click.option("--change", required=True, metavar="NAME,...", help="The attributes that a query changes.")
@click.option("--keep", required=True, metavar="NAME,...", help="The attributes that a right answer keeps.")
@click.option("--split", help="Ask about this value of the column `split` only. Default: all pictures.")
@click.option(
    "--queries-per-image",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Changes asked of a picture.",
)
@click.option("--template", metavar="WORDS", help='How a change is asked for, such as "in {value}".')
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the changes.")
@model_option
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT",
    help="Write the report with every query's values to this file too.",
)
def attributes(
    data: Path,
    change: str,
    keep: str,
    split: str | None,
    queries_per_image: int,
    template: str | None,
    seed: int,
    model: Path | None,
    json_file: Path | None,
) -> None:
    """Change some attributes of labelled pictures, keep others, and see whether a right answer is found.

    Prints R@1, R@10, R@50 and mAP@10 with 95 % intervals for image only, text only, their best weighted sum,
    the composed query, and the full text of the right answer.
    """
    from image2sentence.benchmarks.evaluation import evaluate_attributes
    from image2sentence.benchmarks.labels import load_catalogue
    from image2sentence.benchmarks.report import as_text, write_document
    from image2sentence.encoders import load_encoder

    encoder = load_encoder(model)
    evaluation = evaluate_attributes(
        load_catalogue(data),
        encoder,
        change,
        keep,
        split,
        seed,
        queries_per_image=queries_per_image,
        template=template,
    )
    description = describe_model(encoder)
    click.echo(as_text(evaluation, description))
    if json_file is not None:
        try:
            write_document(json_file, evaluation, description)
        except OSError as error:
            raise click.ClickException(f"cannot write the report {json_file}: {error.strerror}") from error


def describe_model(encoder: OnnxEncoder) -> ModelDescription:
    """What a report says about a model."""
    from image2sentence.benchmarks.report import ModelDescription

    config = encoder.config
    sides = (config.gallery_preprocessing, config.query_preprocessing)
    shown = [f"{side.fit} to {side.size} px, {side.resample}" for side in sides]
    return ModelDescription(
        vl_model=f"{config.vl.name}, revision {config.vl.revision or 'none'}",
        light_model=config.light,
        tokens=str(config.learner.tokens),
        prompt_template=config.template,
        preprocessing=f"gallery {shown[0]}; query {shown[1]}",
        checkpoint=config.query_fingerprint or config.fingerprint,
    )
