"""What modifier-aware distillation teaches: its targets, asked as queries themselves.

    python -m recipes.bundled.targets --data ../shared/data
    python -m recipes.bundled.targets --data ../shared/data --vl runs/words/towers --only "emoji: style" --k 5

R@1 of the vectors that `Target` describes on the benchmarks' galleries, by its settings; where several pseudo-captions
are drawn from, of the mean of their targets. A query side trained towards them is no worse than they are on pictures
that it knows, so this is where the settings of query.json come from. About five minutes on two CPU cores.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import click
import torch
from torch import Tensor
from torch.nn import functional

from image2sentence.encoders.model_folder import bundled
from image2sentence.training.phrase_bank import WordLists, build_bank
from image2sentence.training.settings import Target
from image2sentence.training.vl.base import VisionLanguageModel
from image2sentence.training.vl.load import load_vl
from recipes.bundled import material
from recipes.bundled.tasks import Task, tasks

RESIDUALS = (0.1, 0.2, 0.5, 0.85, 1.0, 1.25)
STEPS = (  # push, and share of the words alone
    (1.0, 0.0),
    (1.3, 0.0),
    (1.45, 0.0),
    (1.0, 0.2),
    (1.2, 0.2),
    (1.7, 0.25),
    (2.3, 0.2),
)
CAPTIONS = (1, 3, 5)
TARGETS = [
    Target(residual, push, captions=captions, alone=alone)
    for captions, residual, (push, alone) in itertools.product(CAPTIONS, RESIDUALS, STEPS)
]
BANKS = {"photographs": "photos", "fashion": "photos"}  # what one of fashion's pictures is nearest to
BATCH = 256


@torch.no_grad()
def read(vl: VisionLanguageModel, texts: list[str]) -> Tensor:
    """(n, d) text vectors."""
    blocks = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    return torch.cat([vl.encode_words(vl.words(block)).float() for block in blocks])


def recalls(
    vl: VisionLanguageModel, task: Task, phrases: list[str], modifiers: list[str], k: int = 1
) -> list[float]:
    """R@k in percent of each of `TARGETS`."""
    asked = [query.texts[0] for query in task.queries]
    bank, said = build_bank(vl, WordLists(phrases, modifiers)), read(vl, asked)
    nearest = bank.nearest(task.references, max(CAPTIONS)).T.tolist()
    changed = [
        read(vl, [f"{bank.phrases[i]} {m}" for i, m in zip(chosen, asked, strict=True)]) for chosen in nearest
    ]
    found = []
    for target in TARGETS:
        wanted = replace(bank, lists=[WordLists(phrases, modifiers, target)])
        pairs = zip(nearest[: target.captions], changed[: target.captions], strict=True)
        vectors = [wanted.targets(chosen, to, task.references, said) for chosen, to in pairs]
        found.append(task.recall(functional.normalize(torch.stack(vectors).mean(0), dim=-1), k))
    return found


@click.command()
@click.option("--data", "folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/evaluate"))
@click.option("--queries", default=700, show_default=True, help="Queries a task, at most.")
@click.option("--vl", "towers", type=click.Path(path_type=Path), help="Instead of the bundled model's.")
@click.option("--only", multiple=True, metavar="KIND: CHANGE", help="A task; all of them if none is named.")
@click.option("--k", default=1, show_default=True, help="Recall@k.")
def main(folder: Path, work: Path, queries: int, towers: Path | None, only: tuple[str, ...], k: int) -> None:
    """Prints a Markdown table."""
    vl = load_vl(str(towers or bundled() / "vl")).freeze()
    phrases, modifiers = material.banks(folder), material.modifiers(random.Random(0))
    columns = {}
    for task in tasks(folder, work, queries, only or None, vl if towers else None):
        kind = BANKS.get(task.kind, task.kind)
        columns[f"{task.name} ({len(task.queries)})"] = recalls(vl, task, phrases[kind], modifiers[kind], k)
    click.echo("| captions | residual | push | alone | " + " | ".join(columns) + " |")
    click.echo("| --- " * (4 + len(columns)) + "|")
    for target, *values in zip(TARGETS, *columns.values(), strict=True):
        named = (target.captions, target.residual, target.push, target.alone or "")
        click.echo("| " + " | ".join([*map(str, named), *(f"{value:.0f}" for value in values)]) + " |")


if __name__ == "__main__":
    main()
