"""`image2sentence evaluate`: measure a model on data with known answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from image2sentence.cli.groups import OrderedGroup
from image2sentence.cli.options import device_option, model_option

if TYPE_CHECKING:
    from image2sentence.encoders import OnnxEncoder
    from image2sentence.evaluation.report import Comparison, ModelDescription


@click.group(cls=OrderedGroup)
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
@device_option
@click.option(
    "--also",
    multiple=True,
    metavar="ROW=DIR",
    help="A row of another model folder of the same vision-language model; may be repeated.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT",
    help="Write the report with every query's values to this file too.",
)
@click.option(
    "--pictures",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Draw right and wrong cases, and what the pseudo-words look at, into this folder.",
)
@click.option(
    "--audit",
    is_flag=True,
    help="Also: hard negatives above right answers, queries that one modality alone solves, six wordings.",
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
    device: str,
    also: Sequence[str],
    json_file: Path | None,
    pictures: Path | None,
    audit: bool,
) -> None:
    """Change some attributes of labelled pictures, keep others, and see whether a right answer is found.

    Prints R@1, R@5, R@10, R@50 and mAP@10 with 95 % intervals for image only, text only, their best weighted sum,
    the composed query, that of other models named with --also (a single-word mapper, the symmetric model), and
    the full text of the right answer.
    """
    from image2sentence.encoders import load_encoder
    from image2sentence.evaluation.audit import audit_attributes
    from image2sentence.evaluation.datasets.labels import load_catalogue
    from image2sentence.evaluation.evaluate import default_composers, evaluate_attributes
    from image2sentence.evaluation.examples import write_pictures
    from image2sentence.evaluation.report import as_document, as_text, write_json
    from image2sentence.images import load_image

    others = {row: load_encoder(folder, device=device) for row, folder in other_models(also).items()}
    encoder = load_encoder(model, device=device)
    composers = default_composers(encoder) | others
    catalogue = load_catalogue(data)
    evaluation = evaluate_attributes(
        catalogue,
        encoder,
        change,
        keep,
        split,
        seed,
        composers=composers,
        queries_per_image=queries_per_image,
        template=template,
    )
    description = describe_model(encoder, others)
    click.echo(as_text(evaluation, description))
    document = as_document(evaluation, description)
    if audit:
        audited = audit_attributes(
            evaluation, catalogue, encoder, lambda name: load_image(catalogue.path(name)), composers
        )
        click.echo("\n" + audited.as_text())
        document["audit"] = audited.as_dict()
    try:
        if json_file is not None:
            write_json(json_file, document)
        if pictures is not None:
            for file in write_pictures(
                evaluation, composers, lambda name: load_image(catalogue.path(name)), pictures, seed=seed
            ):
                click.echo(f"wrote {file}", err=True)
    except OSError as error:
        raise click.ClickException(f"cannot write {error.filename}: {error.strerror}") from error


def other_models(also: Sequence[str], taken: Sequence[str] = ()) -> dict[str, Path]:
    """ "ROW=DIR" texts as row -> model folder; `taken` are rows of the table beside those of every one."""
    from image2sentence.evaluation.evaluate import ROWS, UNGUIDED

    folders: dict[str, Path] = {}
    for text in also:
        row, equals, folder = (part.strip() for part in text.partition("="))
        if not (row and equals and folder):
            raise click.BadParameter(f"expected ROW=DIR, such as mapper=runs/mapper/model, got {text!r}")
        if row in folders or row in (*ROWS, UNGUIDED, *taken):
            raise click.BadParameter(f"row {row!r} is there already: call {folder} something else")
        folders[row] = Path(folder)
    return folders


def describe_model(encoder: OnnxEncoder, others: Mapping[str, OnnxEncoder] | None = None) -> ModelDescription:
    """What a report says about a model, and in short about those of other rows."""
    from image2sentence.evaluation.report import ModelDescription

    config = encoder.config
    sides = (config.gallery_preprocessing, config.query_preprocessing)
    shown = [f"{side.fit} to {side.size} px, {side.resample}" for side in sides]
    if config.sentence_share:
        shown[0] += f", {100 * config.sentence_share:.0f} % of its vector from its own sentence"
    return ModelDescription(
        vl_model=f"{config.vl.name}, revision {config.vl.revision or 'none'}",
        light_model=config.light,
        tokens=str(config.learner.tokens),
        prompt_template=config.template,
        preprocessing=f"gallery {shown[0]}; query {shown[1]}",
        checkpoint=config.query_fingerprint or config.fingerprint,
        others={row: _in_short(other) for row, other in (others or {}).items()},
    )


def _in_short(encoder: OnnxEncoder) -> str:
    config = encoder.config
    kind = "" if config.learner.kind == "adaptive" else f", {config.learner.kind}"
    return (
        f"{config.light}, L = {config.learner.tokens}{kind}, prompt template {config.template}, "
        f"checkpoint {config.query_fingerprint or config.fingerprint}"
    )


@evaluate.command()
@click.argument("first", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("second", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--row", help="Compare this row only. Default: every row that both runs have.")
@click.option("--other-row", help="What the row is called in SECOND. Default: the same.")
@click.option(
    "--metric", multiple=True, help="Compare this metric only; may be repeated. Default: all of both."
)
def compare(first: Path, second: Path, row: str | None, other_row: str | None, metric: Sequence[str]) -> None:
    """Compare two reports of `evaluate attributes --json`, query by query.

    Prints both means in percent, and FIRST - SECOND in percentage points with its 95 % interval and p value (paired
    bootstrap: both are resampled with the same queries). FIRST and SECOND may be one file, to compare two of its rows.
    """
    from image2sentence.evaluation.report import compare_runs, differing_facts

    if other_row is not None and row is None:
        raise click.UsageError("--other-row needs --row, the row of FIRST that it is compared with")
    pairs = None if row is None else [(row, other_row or row)]
    compared = compare_runs(first, second, pairs, metric or None)
    for name, (one, other) in differing_facts(first, second).items():
        click.echo(f"{name}: {one} | {other}")
    for line in _comparison_lines(compared):
        click.echo(line)


def _comparison_lines(compared: Sequence[Comparison]) -> list[str]:
    head = ("row", "metric", "first", "second", "difference", "p")
    cells = [head, *(_comparison_cells(one) for one in compared)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _comparison_cells(one: Comparison) -> tuple[str, ...]:
    name = one.row if one.row == one.other_row else f"{one.row} | {one.other_row}"
    gap = one.difference
    shown = f"{gap.mean:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]"
    return (name, one.metric, f"{one.first:.1f}", f"{one.second:.1f}", shown, f"{gap.p:.3f}")
