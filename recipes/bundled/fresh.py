"""The bundled model in drawn galleries other than the reported one, and what trusting its guiding phrases does there.

    python -m recipes.bundled.fresh
    python -m recipes.bundled.fresh --trust 0.56,0.68,0.1 --trust 0.5,0.62,0.1

R@1 of single and double changes, all queries of each gallery of 2,000, the galleries in the order of their seeds. Two
minutes a gallery on two CPU cores.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from image2sentence.catalogue import write_catalogue
from image2sentence.encoders import load_encoder
from image2sentence.encoders.model_folder import ModelFolder
from image2sentence.encoders.onnx_encoder import OnnxEncoder
from image2sentence.evaluation.datasets.attributes import attribute_queries, load_catalogue
from image2sentence.evaluation.evaluate import COMPOSED, Evaluation, evaluate
from image2sentence.images import load_image
from recipes.bundled.evaluate import CHANGES, COUNT, DOUBLE

SEEDS = (31_337, 777, 999, 4_242, 5_151)


def trusting(encoder: OnnxEncoder, low: float, high: float, residual: float) -> OnnxEncoder:
    """The same model with other settings of its guiding phrases."""
    settings = encoder.config.guide
    if settings is None:
        raise click.ClickException(f"{encoder.folder.path} has no guiding phrases")
    guide = replace(settings, low=low, high=high, residual=residual)
    return OnnxEncoder(ModelFolder(encoder.folder.path, replace(encoder.config, guide=guide)))


def gallery(
    work: Path, seed: int, encoder: OnnxEncoder, composers: dict[str, OnnxEncoder]
) -> list[Evaluation]:
    """Every change asked in the gallery of a seed, which is encoded once."""
    catalogue = load_catalogue(write_catalogue(work / f"drawn-{COUNT}-{seed}", COUNT, seed))
    done: list[Evaluation] = []
    for change, keep in (*CHANGES["drawn"], *DOUBLE):
        done.append(
            evaluate(
                attribute_queries(catalogue, change, keep),
                encoder,
                lambda file: load_image(catalogue.path(file), at_least=512),
                rows=[COMPOSED],
                composers=composers,
                clean=done[0] if done else None,
            )
        )
    return done


def cell(evaluations: list[Evaluation], row: str) -> str:
    """A change's R@1 in each gallery, and all of their queries together."""
    values = [evaluation.row(row).scores.values["recall@1"] for evaluation in evaluations]
    each = " · ".join(f"{100 * value.mean():.0f}" for value in values)
    return f"{each}; {100 * np.concatenate(values).mean():.1f}"


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/evaluate"))
@click.option("--model", type=click.Path(path_type=Path), help="Instead of the bundled one.")
@click.option("--seed", "seeds", multiple=True, type=int, default=SEEDS, show_default=True)
@click.option(
    "--trust", multiple=True, metavar="LOW,HIGH,RESIDUAL", help="Other settings of guiding phrases."
)
def main(work: Path, model: Path | None, seeds: tuple[int, ...], trust: tuple[str, ...]) -> None:
    """Prints a Markdown table."""
    encoder = load_encoder(model)
    composers = {"no phrases": encoder.unguided(), "as shipped": encoder}
    for text in trust:
        low, high, residual = (float(number) for number in text.split(","))
        composers[f"{low:g} to {high:g}, {residual:g}"] = trusting(encoder, low, high, residual)
    galleries = [gallery(work, seed, encoder, composers) for seed in seeds]
    changes = [*CHANGES["drawn"], *DOUBLE]
    counts = [sum(len(done[i].benchmark.queries) for done in galleries) for i in range(len(changes))]
    heads = [f"{change} ({count})" for (change, _), count in zip(changes, counts, strict=True)]
    click.echo("| trust, residual | " + " | ".join(heads) + " |")
    click.echo("| --- " * (1 + len(heads)) + "|")
    for row in composers:
        cells = [cell([done[i] for done in galleries], row) for i in range(len(changes))]
        click.echo(f"| {row} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
