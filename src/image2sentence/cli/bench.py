"""`image2sentence bench`: what a query costs on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from image2sentence.cli.options import device_option, json_option, print_json, training_extra


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--model",
    "named",
    multiple=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="MODEL",
    help="A model as the other commands take it, the same as an argument; may be repeated.",
)
@click.option(
    "--variants",
    is_flag=True,
    help="Export each model in float32 and in int8 first, and measure these (needs the extra [train]).",
)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A picture to ask with. Default: a drawn one.",
)
@click.option("--words", metavar="WORDS", help="What to ask. Default: eight words.")
@click.option(
    "--gallery-size", type=click.IntRange(min=1), default=10_000, show_default=True, help="Vectors searched."
)
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of ONNX Runtime; 0: one for small graphs of the query side, else one for each core.",
)
@device_option
@click.option(
    "--rounds", type=click.IntRange(min=1), default=30, show_default=True, help="Turns of every stage."
)
@json_option
def bench(
    models: tuple[Path, ...],
    named: tuple[Path, ...],
    variants: bool,
    picture: Path | None,
    words: str | None,
    gallery_size: int,
    threads: int,
    device: str,
    rounds: int,
    as_json: bool,
) -> None:
    """Measure what a query costs here, by stage, beside the symmetric query, which runs the large visual encoder.

    Measures each MODEL (a folder, or a name as `image2sentence models` lists them), or the one that a search would
    use. One without a light side has no light stages: its composed query is the symmetric one. Medians in milliseconds.
    """
    from image2sentence.errors import ImageError
    from image2sentence.evaluation import latency as timing
    from image2sentence.images import read_regular
    from image2sentence.query.query import check_words

    if words is not None:
        check_words(words)
    try:
        asked = timing.drawn_picture() if picture is None else read_regular(picture)[0]
    except ImageError as error:
        raise ImageError(f"{picture}: {error}") from error
    with _columns(models + named, variants) as columns:
        results = timing.measure(
            columns,
            asked,
            words or timing.WORDS,
            gallery=gallery_size,
            threads=threads,
            rounds=rounds,
            device=device,
        )
    if as_json:
        print_json(results)
    else:
        click.echo(timing.table(results))


@contextmanager
def _columns(models: tuple[Path, ...], variants: bool) -> Iterator[dict[str, Path]]:
    """Names of columns and the folders behind them; variants are exported into a folder that does not stay."""
    from image2sentence.encoders import load_encoder

    folders = list(models) or [load_encoder().folder.path]
    names = [str(folder) for folder in models] or [folders[0].name]
    columns = dict(zip(names, folders, strict=True))
    with tempfile.TemporaryDirectory() as work:
        if variants:
            columns = {
                f"{name} {precision}": folder
                for i, (name, model) in enumerate(columns.items())
                for precision, folder in _exported(model, Path(work, str(i))).items()
            }
        yield columns


def _exported(model: Path, work: Path) -> dict[str, Path]:
    with training_extra():
        from image2sentence.training import trained_model
        from image2sentence.training.export.model_folder import ExportOptions

    from image2sentence.catalogue import write_catalogue

    shown, others = (write_catalogue(work / f"drawn-{seed}", 32, seed, 224) / "images" for seed in (1, 2))
    trained_model.export_and_compare(
        model, work / "fp32", shown, None, ExportOptions(int8_text=False, half=False)
    )
    trained_model.export_and_compare(model, work / "int8", shown, others, ExportOptions())
    return {name: work / name for name in ("fp32", "int8")}
