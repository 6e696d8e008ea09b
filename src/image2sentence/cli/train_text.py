"""`image2sentence train-text`: a light text encoder for a trained model."""

from __future__ import annotations

from pathlib import Path

import click

from image2sentence.cli.options import training_extra


@click.command("train-text")
@click.argument("model", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--pictures",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Unlabeled pictures.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="DIR", help="The run."
)
@click.option(
    "--phrases", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Phrase bank."
)
@click.option(
    "--modifiers", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Modifiers."
)
@click.option("--layers", type=click.IntRange(min=1), default=2, show_default=True, help="Its layers.")
@click.option("--width", type=click.IntRange(min=4), default=192, show_default=True, help="Its width.")
@click.option(
    "--steps", type=click.IntRange(min=1), default=3000, show_default=True, help="Steps of 128 queries."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Draws weights and batches.")
@click.option(
    "--benchmark",
    type=click.IntRange(min=0),
    default=400,
    show_default=True,
    help="Ask about this many drawn products; 0: not.",
)
def train_text(
    model: Path,
    pictures: Path,
    out: Path,
    phrases: Path | None,
    modifiers: Path | None,
    layers: int,
    width: int,
    steps: int,
    seed: int,
    benchmark: int,
) -> None:
    """Distil a light text encoder for a trained MODEL folder, from unlabeled pictures and unpaired words.

    Writes the model folder DIR/model, which asks the same galleries. Run the same command again after an
    interruption: it goes on.
    """
    with training_extra():
        from image2sentence.training import train_text as run_text
        from image2sentence.training.export.model_folder import ExportOptions
        from image2sentence.training.models.text_student import LightTextConfig
        from image2sentence.training.text_distillation import DistillSettings

    settings = DistillSettings(text=LightTextConfig(width=width, layers=layers), steps=steps, seed=seed)
    options = ExportOptions(benchmark=benchmark)
    record = run_text.train_text(
        run_text.TextRequest(model, pictures, out, settings, options, phrases, modifiers)
    )
    click.echo(_summary(record))
    if record["unreadable"]:
        click.echo(f"{record['unreadable']} pictures could not be read and were left out")
    click.echo(f"wrote {out / 'model'}; use it with --model {out / 'model'}")


def _summary(record: dict[str, object]) -> str:
    full = record["parity"]["full_text"]  # type: ignore[index]
    lines = [f"against the full text encoder: mean cosine {full['composed_query']['mean']:.4f}"]
    if "benchmark" in full:
        for metric in ("recall@1", "recall@10"):
            row = full["benchmark"][metric]
            lines.append(
                f"  drawn benchmark {metric}: {row['exported']:.1f} (full text encoder {row['reference']:.1f})"
            )
    return "\n".join(lines)
