"""`image2sentence train` and `export`: the commands that need torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from image2sentence.cli.options import training_extra


def _list_light(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    with training_extra():
        from image2sentence.training.models.cost_table import format_light_table, light_table
    click.echo(format_light_table(light_table()))
    context.exit()


@click.command()
@click.argument("pictures", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--list-light",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_light,
    help="Print the light encoders with their size, cost and latency here, and exit.",
)
@click.option(
    "--model",
    metavar="MODEL",
    help="A model without a light side: train one for it, and keep its galleries.",
)
@click.option(
    "--vl",
    metavar="ID_OR_PATH",
    help="The frozen VL model; with --model its torch weights. Default: bundled, or those known for MODEL.",
)
@click.option("--revision", metavar="REV", help="The VL model's revision on the Hub.")
@click.option("--light", metavar="NAME", help="The light visual encoder. Default: the preset's, else tiny.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="DIR", help="The run."
)
@click.option("--preset", metavar="NAME", help="Settings by name: default, paper or laptop.")
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Settings as JSON."
)
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=VALUE", help="One setting, such as learner.tokens=8."
)
@click.option(
    "--phrases",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Phrase bank; again for another, --set targets gives each its own.",
)
@click.option(
    "--modifiers",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Modifiers; again for another phrase bank's own.",
)
@click.option(
    "--start",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="MODEL",
    help="Start from its weights.",
)
@click.option("--other-vl", is_flag=True, help="The start may have been trained for another VL model.")
def train(
    pictures: Path,
    model: str | None,
    vl: str | None,
    revision: str | None,
    light: str | None,
    out: Path,
    preset: str | None,
    config: Path | None,
    changes: tuple[str, ...],
    phrases: tuple[Path, ...],
    modifiers: tuple[Path, ...],
    start: Path | None,
    other_vl: bool,
) -> None:
    """Train a light query side for a VL model on your own unlabeled PICTURES.

    Writes the model folder DIR/model. Run the same command again after an interruption: it goes on.
    """
    with training_extra():
        from image2sentence.training import train as run
        from image2sentence.training.distributed import Processes
        from image2sentence.training.presets import read_preset

    named = None if preset is None else read_preset(preset)
    settings = run.read_settings(config, dict(_setting(change) for change in changes), named)
    chosen = light or ("tiny" if named is None else named.light)
    request = run.TrainRequest(
        pictures, vl, chosen, out, settings, revision, phrases, modifiers, start, other_vl, model
    )
    processes = Processes()
    record = run.train(request, processes, lambda line: click.echo(line, err=True))
    if not processes.main:
        return
    click.echo(
        f"{record['pictures']} pictures, {record['steps']} steps, {record['seconds'] / 60:.1f} minutes; "
        f"validation recall@1 {record['validation_recall@1']:.1f} %"
    )
    if record["unreadable"]:
        click.echo(f"{record['unreadable']} pictures could not be read: {out / 'unreadable.txt'}")
    click.echo(f"wrote {out / 'model'}; use it with --model {out / 'model'}")


@click.command()
@click.argument("model", type=click.Path(file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="DIR")
@click.option("--pictures", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="DIR")
@click.option(
    "--calibrate",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The light encoder's convolutions in 8 bits, with ranges from these pictures.",
)
@click.option(
    "--int8/--no-int8", default=True, show_default=True, help="The text graph's matrices in 8 bits."
)
@click.option("--half/--no-half", default=True, show_default=True, help="Weights stored in 16 bits.")
@click.option(
    "--int8-storage/--no-int8-storage",
    default=False,
    show_default=True,
    help="The visual encoders' and token learner's weights stored in 8 bits.",
)
@click.option(
    "--matching/--no-matching",
    default=False,
    show_default=True,
    help="Add the matching encoder, for `search --rerank`.",
)
@click.option(
    "--fixed",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Add query graphs of fixed shape, for phones: texts of up to N tokens.",
)
@click.option(
    "--sentence-share",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="A",
    help="How much of a picture's own sentence is in its gallery vector, 0 to 1; a gallery then belongs to this query "
    "side. If not given: as MODEL has it.",
)
@click.option(
    "--benchmark",
    type=click.IntRange(min=0),
    default=400,
    show_default=True,
    help="Ask both about this many drawn products; 0: not.",
)
def export(
    model: Path,
    out: Path,
    pictures: Path,
    calibrate: Path | None,
    int8: bool,
    half: bool,
    int8_storage: bool,
    matching: bool,
    fixed: int,
    sentence_share: float | None,
    benchmark: int,
) -> None:
    """Write a trained MODEL folder's graphs anew and report how far they are from torch.

    The comparison runs on up to 64 of the pictures in --pictures, and on a drawn benchmark. Graphs that drift too far
    are refused. The report is printed, and lies in the new folder as parity.json.
    """
    with training_extra():
        from image2sentence.training import trained_model
        from image2sentence.training.export.model_folder import ExportOptions

    options = ExportOptions(
        int8,
        half,
        int8_storage,
        benchmark=benchmark,
        matching=matching,
        fixed=fixed,
        sentence_share=sentence_share,
    )
    parity = trained_model.export_and_compare(model, out, pictures, calibrate, options)
    click.echo(json.dumps(parity, indent=2))


def _setting(change: str) -> tuple[str, Any]:
    name, equals, value = change.partition("=")
    if not equals:
        raise click.BadParameter(f"expected NAME=VALUE, got {change!r}", param_hint="--set")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
