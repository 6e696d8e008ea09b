"""The benchmarks' tasks as vectors, for studies that ask them with other things than a query side."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from image2sentence.catalogue import write_catalogue
from image2sentence.encoders import load_encoder
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.evaluation.datasets.attributes import attribute_queries
from image2sentence.evaluation.datasets.labels import FILE_COLUMN, Catalogue, load_catalogue
from image2sentence.evaluation.metrics import average_precision_at
from image2sentence.evaluation.protocol import Query
from image2sentence.images import load_image
from image2sentence.training.vl.base import VisionLanguageModel
from recipes.bundled.evaluate import CHANGES, COUNT, SEED, emoji_files, photograph_folder


@dataclass(frozen=True)
class Task:
    """Queries about a gallery of one `kind`: its files in `folder`, and vectors (G, d)."""

    kind: str
    change: str
    files: list[str]
    gallery: NDArray[np.float32]
    queries: list[Query]
    folder: Path = Path()

    @property
    def paths(self) -> list[Path]:
        """The gallery's pictures."""
        return [self.folder / file for file in self.files]

    @property
    def name(self) -> str:
        """Such as "emoji: style"."""
        return f"{self.kind}: {self.change}"

    @cached_property
    def places(self) -> list[int]:
        """Each query's reference, as a row of the gallery."""
        row_of = {file: row for row, file in enumerate(self.files)}
        return [row_of[query.reference] for query in self.queries]

    @property
    def references(self) -> Tensor:
        """(n, d) gallery vectors of what is asked about."""
        return torch.from_numpy(self.gallery[self.places])

    def recall(self, vectors: Tensor, k: int = 1) -> float:
        """Percent of `vectors` (n, d) with a right answer among the nearest `k` pictures, the reference left out."""
        return 100 * float(np.mean([any(found) for found in self._found(vectors, k)]))

    def average_precision(self, vectors: Tensor, k: int = 10) -> float:
        """mAP@k of `vectors` (n, d) in percent, the reference left out."""
        answers = [len(query.answers) for query in self.queries]
        return 100 * float(np.mean(average_precision_at(self._found(vectors, k), answers, k)))

    def _found(self, vectors: Tensor, k: int) -> list[list[bool]]:
        """For each vector, whether each of the nearest `k` pictures is an answer, best first."""
        scores = vectors.numpy() @ self.gallery.T
        scores[np.arange(len(scores)), self.places] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return [
            [self.files[place] in query.answers for place in places]
            for places, query in zip(best, self.queries, strict=True)
        ]


def tasks(
    folder: Path,
    work: Path,
    count: int,
    names: Collection[str] | None = None,
    vl: VisionLanguageModel | None = None,
) -> list[Task]:
    """The tasks named so, or all of them: up to `count` queries each, drawn by a fixed seed.

    Galleries are those of `vl`, or of the bundled model's VL side as it ships.
    """
    made = []
    for kind, changes in CHANGES.items():
        wanted = [change for change in changes if names is None or f"{kind}: {change[0]}" in names]
        if not wanted:
            continue
        catalogue, references = _catalogue(kind, folder, work)
        split = "val" if kind == "fashion" else None
        files = [row[FILE_COLUMN] for row in catalogue.of_split(split)]
        gallery = _vectors([catalogue.path(file) for file in files], kind, vl)
        for change, keep in wanted:
            asked = attribute_queries(catalogue, change, keep, split, references=references).queries
            chosen = random.Random(0).sample(list(asked), min(count, len(asked)))
            made.append(Task(kind, change, files, gallery, chosen, catalogue.folder))
    return made


def _catalogue(kind: str, folder: Path, work: Path) -> tuple[Catalogue, Sequence[str] | None]:
    """The pictures, and those of them that may be asked about if not all."""
    if kind == "drawn":
        return load_catalogue(write_catalogue(work / f"drawn-{COUNT}-{SEED}", COUNT, SEED)), None
    if kind == "photographs":
        return load_catalogue(photograph_folder(folder, work)), None
    catalogue = load_catalogue(folder / kind)
    return catalogue, emoji_files(catalogue, held=True) if kind == "emoji" else None


def _vectors(paths: Sequence[Path], kind: str, vl: VisionLanguageModel | None) -> NDArray[np.float32]:
    encode = load_encoder().without_sentences().encode_images if vl is None else partial(_encode, vl)
    blocks = [paths[start : start + 64] for start in range(0, len(paths), 64)]
    return np.concatenate(
        [encode([load_image(path, at_least=512) for path in block]) for block in tqdm(blocks, desc=kind)]
    )


@torch.no_grad()
def _encode(vl: VisionLanguageModel, images: Sequence[Image.Image]) -> NDArray[np.float32]:
    pixels = torch.from_numpy(to_pixels(images, vl.preprocessing))
    return vl.encode_images(pixels).vectors.float().numpy()
