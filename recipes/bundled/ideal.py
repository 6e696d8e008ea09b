"""What a perfect query side could reach: sentences learned for each picture on its own, with no light encoder between.

    python -m recipes.bundled.ideal --data ../shared/data

The pictures are those of the benchmarks, so nothing here is a figure of a model: it bounds what a loss and a sentence
length can teach, whatever the light encoder. About 80 seconds a row on one CPU core.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from image2sentence.benchmarks.attributes import attribute_queries
from image2sentence.benchmarks.labels import FILE_COLUMN, Catalogue, load_catalogue
from image2sentence.benchmarks.protocol import Query
from image2sentence.catalogue import write_catalogue
from image2sentence.config import LearnerConfig
from image2sentence.encoders import load_encoder
from image2sentence.encoders.folder import bundled
from image2sentence.images import load_image
from image2sentence.training.objective import Draws, Objective
from image2sentence.training.phrases import PhraseBank, WordLists, build_bank
from image2sentence.training.processes import Processes
from image2sentence.training.settings import TrainSettings
from image2sentence.training.token_learner import Sentence
from image2sentence.training.vl.base import VisionLanguageModel
from image2sentence.training.vl.load import load_vl
from recipes.bundled import material
from recipes.bundled.evaluate import COUNT, DRAWN, SEED, emoji_files

STEPS, LEARNING_RATE = 200, 0.05
RESIDUALS = {"drawn": 0.2, "emoji": 0.75}
COMMON = TrainSettings(lar="off", gcd="mse", gcd_weight=1.0, pseudo_captions=1, flip=False)
LOSSES = {
    "InfoNCE at 0.05": replace(COMMON, modifier="info_nce"),
    "InfoNCE at 0.02": replace(COMMON, modifier="info_nce", temperature=0.02),
    "squared distance": replace(COMMON, modifier="mse"),
    "squared distance, GCD at 0.3": replace(COMMON, modifier="mse", gcd_weight=0.3),
}
ROWS = [*((name, 4) for name in LOSSES), ("squared distance", 8)]


@dataclass(frozen=True)
class Task:
    """Queries about a gallery: its vectors (G, d), the references' (n, d), and the words of their kind."""

    name: str
    files: list[str]
    gallery: NDArray[np.float32]
    queries: list[Query]
    words: WordLists

    @cached_property
    def places(self) -> list[int]:
        """Each query's reference, as a row of the gallery."""
        row_of = {file: row for row, file in enumerate(self.files)}
        return [row_of[query.reference] for query in self.queries]

    @property
    def references(self) -> Tensor:
        """(n, d) gallery vectors of what is asked about."""
        return torch.from_numpy(self.gallery[self.places])

    def recall(self, vectors: Tensor) -> float:
        """Percent of `vectors` (n, d) whose nearest picture, the reference left out, is a right answer."""
        scores = vectors.numpy() @ self.gallery.T
        scores[np.arange(len(scores)), self.places] = -np.inf
        found = [self.files[best] for best in scores.argmax(1)]
        right = [file in query.answers for file, query in zip(found, self.queries, strict=True)]
        return 100 * float(np.mean(right))


def tasks(folder: Path, work: Path, count: int) -> list[Task]:
    """A colour change of drawn products, and both changes of emoji never trained on; `count` queries each."""
    phrases, modifiers = material.banks(folder), material.modifiers(random.Random(0))
    lists = {kind: WordLists(phrases[kind], modifiers[kind], RESIDUALS[kind]) for kind in RESIDUALS}
    drawn = load_catalogue(write_catalogue(work / f"drawn-{COUNT}-{SEED}", COUNT, SEED))
    emoji = load_catalogue(folder / "emoji")
    unseen = emoji_files(emoji, held=True)
    encoder = load_encoder()

    def vectors(catalogue: Catalogue) -> NDArray[np.float32]:
        paths = [catalogue.path(row[FILE_COLUMN]) for row in catalogue.rows]
        blocks = [paths[start : start + 64] for start in range(0, len(paths), 64)]
        return np.concatenate(
            [
                encoder.encode_images([load_image(path, at_least=512) for path in block])
                for block in tqdm(blocks)
            ]
        )

    galleries = {"drawn": (drawn, vectors(drawn)), "emoji": (emoji, vectors(emoji))}

    def task(kind: str, change: str, keep: list[str], references: list[str] | None) -> Task:
        catalogue, gallery = galleries[kind]
        asked = list(attribute_queries(catalogue, change, keep, references=references).queries)
        chosen = random.Random(0).sample(asked, min(count, len(asked)))
        files = [row[FILE_COLUMN] for row in catalogue.rows]
        return Task(f"{kind}: {change}", files, gallery, chosen, lists[kind])

    return [
        task("drawn", "colour", [name for name in DRAWN if name != "colour"], None),
        task("emoji", "skin_tone", ["base", "style"], unseen),
        task("emoji", "style", ["name"], unseen),
    ]


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
    target = bank.target(chosen, changed, task.references, 0.0, 1.0)
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
    for task in tasks(folder, work, queries):
        bank = build_bank(vl, task.words)
        for name, length in ROWS:
            settings = replace(LOSSES[name], learner=LearnerConfig(tokens=length))
            sentences, objective = learn(vl, bank, task.references, settings, length)
            cells = [task.name, name, str(length), *judge(vl, task, bank, sentences, objective)]
            click.echo("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
