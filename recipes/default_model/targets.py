"""Chooses the targets of modifier-aware distillation on validation pictures, a source at a time.

A query side trained towards its targets is no better than they are, asked as queries themselves: so each source gets
those of a grid that find most (R@1, mean over the changes asked of it) among pictures kept for validation.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from image2sentence.encoders.interpolation import weighted_sum
from image2sentence.errors import DataError
from image2sentence.evaluation.datasets.attributes import attribute_queries
from image2sentence.evaluation.datasets.labels import FILE_COLUMN, Catalogue
from image2sentence.evaluation.protocol import Query
from image2sentence.training.phrase_bank import PhraseBank, WordLists, build_bank
from image2sentence.training.settings import Target
from image2sentence.training.vl.base import VisionLanguageModel
from recipes.default_model.pictures import TEST, VALIDATION, Picture

_DRAWN = ("type", "colour", "pattern", "sleeve")
CHANGES: dict[str, list[tuple[str, list[str], str | None]]] = {  # change, what is kept, how it is said
    "drawn": [(name, [other for other in _DRAWN if other != name], None) for name in _DRAWN],
    "photo": [("colour", ["type"], None)],
    "emoji": [
        ("skin_tone", ["thing", "style", "gender_word"], None),
        ("style", ["thing", "skin_tone", "gender_word"], None),
    ],
    "everyday": [("label", ["broader"], "as a {value}")],
}
RESIDUALS = (0.1, 0.3, 0.5, 0.75, 1.0, 1.25)
STEPS = ((1.0, 0.0), (1.3, 0.0), (1.7, 0.0), (1.0, 0.2), (1.3, 0.2))  # push, share of the words alone
CAPTIONS = (1, 3)
GRID = [
    Target(residual, push, captions=captions, alone=alone)
    for captions, residual, (push, alone) in itertools.product(CAPTIONS, RESIDUALS, STEPS)
]
WEIGHTS = tuple(round(0.05 * step, 2) for step in range(4, 17))
_QUERIES = 300  # of one change
_BATCH = 256


@dataclass(frozen=True)
class Task:
    """Queries about a gallery: vectors (G, d), the row of each query's reference and of its answers."""

    name: str
    gallery: NDArray[np.float32]
    queries: Sequence[Query]
    rows: dict[str, int]

    @property
    def references(self) -> list[int]:
        """Rows of what is asked about."""
        return [self.rows[query.reference] for query in self.queries]

    def recall(self, asked: NDArray[np.float32]) -> float:
        """Percent of `asked` (n, d) whose nearest picture is an answer, the reference left out."""
        scores = asked @ self.gallery.T
        scores[np.arange(len(scores)), self.references] = -np.inf
        pairs = zip(scores.argmax(1).tolist(), self.queries, strict=True)
        return 100 * float(np.mean([best in {self.rows[a] for a in query.answers} for best, query in pairs]))


def tasks(pictures: Sequence[Picture], vectors: NDArray[np.float32], source: str) -> Iterator[Task]:
    """Changes asked of validation pictures, among all pictures of the source but those of the table."""
    known = [row for row, p in enumerate(pictures) if p.record["source"] == source and p.part != TEST]
    columns = sorted({name for row in known for name in pictures[row].record})
    labels = [
        {FILE_COLUMN: pictures[row].name} | {name: pictures[row].record.get(name, "") for name in columns}
        for row in known
    ]
    catalogue = Catalogue(Path(source), Path(source), (FILE_COLUMN, *columns), tuple(labels))
    asked = {pictures[row].name for row in known if pictures[row].part == VALIDATION}
    for change, keep, said in CHANGES[source]:
        try:
            found = attribute_queries(catalogue, change, keep, template=said, references=asked).queries
        except DataError:  # a miniature has too few pictures
            continue
        chosen = random.Random(0).sample(list(found), min(_QUERIES, len(found)))
        rows = {pictures[row].name: place for place, row in enumerate(known)}
        yield Task(f"{source}: {change}", vectors[known], chosen, rows)


@torch.no_grad()
def choose_target(vl: VisionLanguageModel, source: str, asked: Sequence[Task], words: WordLists) -> Target:
    """The target of `GRID` that finds most; that of `words` where there is no task."""
    if not asked:
        return words.target
    bank = build_bank(vl, words)
    found = np.mean([_recalls(vl, task, bank, words) for task in asked], axis=0)
    return GRID[int(found.argmax())]


@torch.no_grad()
def choose_weight(vl: VisionLanguageModel, asked: Sequence[Task]) -> float:
    """The words' weight in the weighted sum that finds most, by the mean over tasks of R@1."""
    found = np.zeros(len(WEIGHTS))
    for task in asked:
        pictures, words = (
            task.gallery[task.references],
            _read(vl, [query.texts[0] for query in task.queries]).numpy(),
        )
        found += [task.recall(weighted_sum(pictures, words, weight)) for weight in WEIGHTS]
    return WEIGHTS[int(found.argmax())]


def _recalls(vl: VisionLanguageModel, task: Task, bank: PhraseBank, words: WordLists) -> list[float]:
    """R@1 of each of `GRID`; where several captions are drawn from, of the mean of their targets."""
    pictures = torch.from_numpy(task.gallery[task.references])
    said = [query.texts[0] for query in task.queries]
    alone = _read(vl, said)
    nearest = bank.nearest(pictures, max(CAPTIONS)).T.tolist()
    changed = [
        _read(vl, [f"{bank.phrases[i]} {m}" for i, m in zip(chosen, said, strict=True)]) for chosen in nearest
    ]
    found = []
    for target in GRID:
        wanted = replace(bank, lists=[replace(words, target=target)])
        pairs = zip(nearest[: target.captions], changed[: target.captions], strict=True)
        vectors = torch.stack([wanted.targets(chosen, to, pictures, alone) for chosen, to in pairs])
        found.append(task.recall(functional.normalize(vectors.mean(0), dim=-1).numpy()))
    return found


def _read(vl: VisionLanguageModel, texts: Sequence[str]) -> Tensor:
    blocks = [list(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
    return torch.cat([vl.encode_words(vl.words(block)).float() for block in blocks])
