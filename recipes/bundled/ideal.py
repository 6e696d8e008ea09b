"""What a perfect query side could reach: sentences learned for each picture on its own, with no light encoder between.

    python -m recipes.bundled.ideal --data ../shared/data

The pictures are those of the benchmarks, so nothing here is a figure of a model: it bounds what a loss and a sentence
length can teach, whatever the light encoder. About 80 seconds a row on one CPU core.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import click
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from image2sentence.encoders.config import LearnerConfig
from image2sentence.encoders.model_folder import bundled
from image2sentence.training.distributed import Processes
from image2sentence.training.models.token_learner import Sentence
from image2sentence.training.objective import Draws, Objective
from image2sentence.training.phrase_bank import PhraseBank, WordLists, build_bank
from image2sentence.training.settings import Target, TrainSettings
from image2sentence.training.vl.base import VisionLanguageModel
from image2sentence.training.vl.load import load_vl
from recipes.bundled import material
from recipes.bundled.tasks import Task, tasks

STEPS, LEARNING_RATE = 200, 0.05
RESIDUALS = {"drawn": 0.2, "emoji": 0.75}
TASKS = ("drawn: colour", "emoji: skin_tone", "emoji: style")
COMMON = TrainSettings(lar="off", gcd="mse", gcd_weight=1.0, pseudo_captions=1, flip=False)
LOSSES = {
    "InfoNCE at 0.05": replace(COMMON, modifier="info_nce"),
    "InfoNCE at 0.02": replace(COMMON, modifier="info_nce", temperature=0.02),
    "squared distance": replace(COMMON, modifier="mse"),
    "squared distance, GCD at 0.3": replace(COMMON, modifier="mse", gcd_weight=0.3),
}
ROWS = [*((name, 4) for name in LOSSES), ("squared distance", 8)]


class FreeSentences(torch.nn.Module):
    """(n, L, w) pseudo-words, as long as real words, with nothing behind them."""

    def __init__(self, count: int, length: int, vl: VisionLanguageModel) -> None:
        super().__init__()
        self.tokens = torch.nn.Parameter(torch.randn(count, length, vl.word_width))
        self.norm = vl.word_norm()

    def forward(self) -> Sentence:
        """The sentences; there is no attention behind them."""
        gates = self.tokens.new_ones(self.tokens.shape[:2])
        return Sentence(self.norm * functional.normalize(self.tokens, dim=-1), torch.empty(0), gates)


def learn(
    vl: VisionLanguageModel, bank: PhraseBank, gallery: Tensor, settings: TrainSettings, length: int
) -> tuple[FreeSentences, Objective]:
    """Sentences of `length` for `gallery` vectors (n, d) by the losses of `settings`, learned with Adam."""
    torch.manual_seed(0)
    sentences = FreeSentences(len(gallery), length, vl)
    objective = Objective(vl, settings, bank, Processes())
    weights, pseudo = objective.weights(), bank.nearest(gallery, 1)
    optimizer = torch.optim.Adam(sentences.parameters(), lr=LEARNING_RATE)
    draws = Draws(random.Random(0), torch.Generator().manual_seed(0))
    for step in tqdm(range(STEPS), leave=False):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - step / STEPS)
        with torch.autocast("cpu", torch.bfloat16):
            found = objective(sentences(), gallery, pseudo, None, draws)
        loss = torch.stack([weights[name] * value for name, value in found.items()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return sentences, objective


@torch.no_grad()
def judge(
    vl: VisionLanguageModel, task: Task, bank: PhraseBank, sentences: FreeSentences, objective: Objective
) -> list[str]:
    """Cosines with the own vector and with the target; R@1 of the sentences, and of the targets themselves."""
    asked = [query.texts[0] for query in task.queries]
    chosen = bank.nearest(task.references, 1)[:, 0].tolist()
    changed = vl.encode_words(
        vl.words([f"{bank.phrases[i]} {m}" for i, m in zip(chosen, asked, strict=True)])
    )
    target = bank.targets(chosen, changed, task.references)
    sentence = sentences()
    alone, composed = (
        vl.encode_words(vl.compose(sentence.tokens, sentence.gates, texts, objective.template))
        for texts in ([""] * len(asked), asked)
    )
    cosines = ((alone * task.references).sum(-1).mean(), (composed * target).sum(-1).mean())
    recalls = (task.recall(composed), task.recall(target))
    return [*(f"{float(value):.2f}" for value in cosines), *(f"{value:.1f}" for value in recalls)]


@click.command()
@click.option("--data", "folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/evaluate"))
@click.option("--queries", default=96, show_default=True, help="Queries a task.")
def main(folder: Path, work: Path, queries: int) -> None:
    """Prints a Markdown table."""
    vl = load_vl(str(bundled() / "vl")).freeze()
    click.echo("| task | modifier-aware loss | L | own picture | target | R@1 | R@1 of the targets |")
    click.echo("| --- " * 7 + "|")
    phrases, modifiers = material.banks(folder), material.modifiers(random.Random(0))
    for task in tasks(folder, work, queries, TASKS):
        target = Target(RESIDUALS[task.kind])
        bank = build_bank(vl, WordLists(phrases[task.kind], modifiers[task.kind], target))
        for name, length in ROWS:
            settings = replace(LOSSES[name], learner=LearnerConfig(tokens=length))
            sentences, objective = learn(vl, bank, task.references, settings, length)
            cells = [task.name, name, str(length), *judge(vl, task, bank, sentences, objective)]
            click.echo("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
