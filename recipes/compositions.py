"""Compares ways to compose a picture and words without training with the trained query side.

    python -m recipes.compositions --data ../shared/data

All ways search the same gallery vectors, those of the model's VL towers alone. What each has to choose (the words'
weight, BASIC's subspace and penalty) is chosen on other queries than the reported ones, a task at a time, by mAP@10.
`phrases` are guiding phrases with the picture's own vector for a sentence's (`image2sentence.encoders.phrase_guide`),
the corpus of things as the phrases. `blend` is the query side's own vector and a share of the light weighted sum of
T(s) and T(m), so it never sees the reference through the large encoder. A few minutes on two CPU cores; gallery vectors
are kept in WORK.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from image2sentence.catalogue import write_catalogue
from image2sentence.encoders import load_encoder
from image2sentence.encoders.config import GuideConfig
from image2sentence.encoders.interpolation import slerp, weighted_sum
from image2sentence.encoders.onnx_encoder import OnnxEncoder
from image2sentence.encoders.phrase_guide import Guide
from image2sentence.evaluation.datasets.attributes import (
    attribute_queries,
    load_catalogue,
    reported_and_tuning,
)
from image2sentence.evaluation.datasets.labels import FILE_COLUMN, Catalogue
from image2sentence.evaluation.metrics import average_precision_at, bootstrap_interval, paired_difference
from image2sentence.evaluation.protocol import Benchmark, Query
from image2sentence.images import load_image
from recipes.bundled.evaluate import CHANGES, COUNT, SEED, emoji_files, photograph_folder
from recipes.text_vectors import TextVectors

Vectors = NDArray[np.float32]
WEIGHTS = tuple(round(0.05 * step, 2) for step in range(1, 20))
BLENDS = (0.0, 0.25, 0.5, 1.0, 2.0)
BLEND_WEIGHTS = (0.3, 0.5, 0.7)
DIRECTIONS = (16, 32, 64, 128)
PENALTIES = (0.0, 0.1)
NEGATIVE = 0.2  # share of the modifiers' corpus in BASIC's contrastive covariance, as in the paper
PHRASED = tuple(itertools.product((1, 3), (0.1, 0.3, 0.5, 0.75)))  # neighbours, residual
CONTEXTS = 32  # phrases that a modifier is put into
QUERIES, TUNING = 600, 300
_BATCH = 64


@dataclass(frozen=True)
class Task:
    """Queries about a gallery: reported ones, and others that choices are made on."""

    name: str
    catalogue: Catalogue
    reported: Benchmark
    tuning: Benchmark


@dataclass(frozen=True)
class Corpus:
    """Unit rows of what pictures show (`things`, n x d) and of changes (`changes`), and the phrases themselves."""

    things: Vectors
    changes: Vectors
    phrases: Sequence[str]


@dataclass(frozen=True)
class Asked:
    """One benchmark's queries (q) as vectors; `own` and `right` are rows of the gallery.

    `by_phrases` are (q, d) by guiding phrases alone, for each of `PHRASED`.
    """

    gallery: Vectors
    pictures: Vectors
    words: Vectors
    in_context: Vectors
    sentences: Vectors
    composed: Vectors
    own: NDArray[np.int64]
    right: Sequence[frozenset[int]]
    by_phrases: Mapping[tuple[int, float], Vectors]

    def precision(self, scores: Vectors) -> NDArray[np.float64]:
        """mAP@10's values (q,) for scores (q, n); the reference itself is left out."""
        scores = scores.copy()
        scores[np.arange(len(scores)), self.own] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        hits = [[row in right for row in rows] for rows, right in zip(best.tolist(), self.right, strict=True)]
        return average_precision_at(hits, [len(right) for right in self.right], 10)


Way = Callable[[Asked, Corpus], Vectors]
"""Queries -> scores (q, n)."""


def ways() -> dict[str, list[Way]]:
    """Each way with all the settings that it may choose from."""

    def by_query(make: Callable[[Asked], Vectors]) -> Way:
        return lambda asked, corpus: make(asked) @ asked.gallery.T

    def blended(share: float, weight: float) -> Way:
        return by_query(
            lambda a: (
                a.composed + share * weighted_sum(a.sentences, a.words, weight)
            )  # length changes no order
        )

    chosen = itertools.product((False, True), DIRECTIONS, PENALTIES)
    return {
        "weighted sum": [by_query(lambda a, w=w: weighted_sum(a.pictures, a.words, w)) for w in WEIGHTS],  # type: ignore[misc]
        "Slerp": [by_query(lambda a, w=w: slerp(a.pictures, a.words, w)) for w in WEIGHTS],  # type: ignore[misc]
        "BASIC": [lambda a, c, how=how: basic(a, c, *how) for how in chosen],  # type: ignore[misc]
        "phrases": [by_query(lambda a, how=how: a.by_phrases[how]) for how in PHRASED],  # type: ignore[misc]
        "ISA": [by_query(lambda a: a.composed)],
        "ISA, blend": [blended(0, 0.5)] + [blended(b, w) for b in BLENDS[1:] for w in BLEND_WEIGHTS],
    }


def basic(asked: Asked, corpus: Corpus, in_context: bool, directions: int, penalty: float) -> Vectors:
    """BASIC's fused scores (q, n) (Psomas et al., "Instance-level composed image retrieval", NeurIPS 2025).

    Means of both modalities are taken off, pictures are compared in the subspace of what texts about things vary in
    and texts about changes do not, and both sides' scores, from 0 at their minimum on, are multiplied.
    """
    centre, text_centre = asked.gallery.mean(0), corpus.things.mean(0)
    things, changes = corpus.things - text_centre, corpus.changes - text_centre
    spread = (1 - NEGATIVE) * things.T @ things / len(things) - NEGATIVE * changes.T @ changes / len(changes)
    base = np.linalg.eigh(spread)[1][:, ::-1][:, :directions]
    gallery = asked.gallery - centre
    words = (asked.in_context if in_context else asked.words) - text_centre
    by_picture = _from_minimum(_unit((asked.pictures - centre) @ base) @ _unit(gallery @ base).T)
    by_words = _from_minimum(_unit(words) @ _unit(gallery).T)
    return np.asarray(by_picture * by_words - penalty * (by_picture + by_words) ** 2, np.float32)


def _from_minimum(scores: Vectors) -> Vectors:
    lowest = scores.min()
    return np.asarray((scores - lowest) / abs(lowest), np.float32)


def _unit(rows: Vectors) -> Vectors:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)


def tasks(data: Path, work: Path) -> Iterator[Task]:
    """Changes of drawn products, garments, product photographs and emoji of subjects never trained on."""
    drawn = load_catalogue(write_catalogue(work / f"drawn-{COUNT}-{SEED}", COUNT, SEED))
    photographs = load_catalogue(photograph_folder(data, work))
    fashion, emoji = load_catalogue(data / "fashion"), load_catalogue(data / "emoji")
    for kind, catalogue, split, more in (
        ("drawn", drawn, None, []),
        ("photographs", photographs, None, []),
        ("fashion", fashion, "val", [("gender", ["type", "colour"])]),
    ):
        for change, keep in CHANGES[kind] + more:
            yield Task(f"{kind}: {change}", catalogue, *reported_and_tuning(catalogue, change, keep, split))
    unseen, seen = (emoji_files(emoji, held=held) for held in (True, False))
    for change, keep in CHANGES["emoji"]:
        reported = attribute_queries(emoji, change, keep, references=unseen)
        others = random.Random(0).sample(seen, 1000)
        yield Task(
            f"emoji: {change}", emoji, reported, attribute_queries(emoji, change, keep, references=others)
        )


class Reader:
    """A model's vectors; those of pictures are kept in a folder."""

    def __init__(self, encoder: OnnxEncoder, work: Path) -> None:
        self.encoder, self.work = encoder, work
        self.texts = TextVectors(encoder)

    def gallery(self, name: str, catalogue: Catalogue, files: Sequence[str]) -> Vectors:
        """(n, d) unit rows of the files."""
        path = self.work / f"{name}-{self.encoder.fingerprint[:12]}-{len(files)}.npy"
        if not path.is_file():
            blocks = (files[at : at + _BATCH] for at in range(0, len(files), _BATCH))
            found = [
                self.encoder.encode_images([_open(catalogue, file) for file in block]) for block in blocks
            ]
            np.save(path, np.concatenate(found))
        return np.asarray(np.load(path, allow_pickle=False), np.float32)

    def corpus(self, phrases: Sequence[str], modifiers: Sequence[str]) -> Corpus:
        """The vectors of the VL model's own phrases and modifiers."""
        return Corpus(self.texts(phrases), self.texts(modifiers), phrases)

    def asked(self, task: Task, benchmark: Benchmark, most: int, corpus: Corpus) -> Asked:
        """The vectors of at most `most` of the benchmark's queries, evenly spread."""
        queries = benchmark.queries[:: max(1, -(-len(benchmark.queries) // most))]
        files = list(benchmark.gallery_ids or [row[FILE_COLUMN] for row in task.catalogue.rows])
        name = f"{task.name.partition(':')[0]}-{benchmark.split}"
        gallery, place = (
            self.gallery(name, task.catalogue, files),
            {file: row for row, file in enumerate(files)},
        )
        own = np.array([place[query.reference] for query in queries])
        words = [query.texts[0] for query in queries]
        sentences, composed = self._composed(task.catalogue, queries)
        chosen = random.Random(0).sample(list(corpus.phrases), min(CONTEXTS, len(corpus.phrases)))
        context = {w: _unit(self.texts([f"{p} {w}" for p in chosen]).mean(0)[None])[0] for w in set(words)}
        right = [frozenset(place[answer] for answer in query.answers) for query in queries]
        in_context = np.stack([context[w] for w in words])
        by_phrases = self._by_phrases(gallery[own], words, corpus)
        return Asked(
            gallery, gallery[own], self.texts(words), in_context, sentences, composed, own, right, by_phrases
        )

    def _by_phrases(
        self, pictures: Vectors, words: Sequence[str], corpus: Corpus
    ) -> dict[tuple[int, float], Vectors]:
        """Unit rows (q, d) of what the words make of the pictures' nearest phrases."""
        found = {}
        for neighbours, residual in PHRASED:
            how = GuideConfig(neighbours, residual=residual, low=-1.0, high=-0.99)  # trusted everywhere
            guide = Guide(corpus.phrases, corpus.things, how)
            found[neighbours, residual] = _unit(guide.apply(pictures, pictures, words, self.texts))
        return found

    def _composed(self, catalogue: Catalogue, queries: Sequence[Query]) -> tuple[Vectors, Vectors]:
        """Of each query T(s) and T([s] m), both (q, d)."""
        alone, composed = [], []
        for at in range(0, len(queries), _BATCH):
            block = queries[at : at + _BATCH]
            said = self.encoder.encode_sentences([_open(catalogue, query.reference) for query in block])
            alone.append(self.encoder.encode_queries(said, [""] * len(block)))
            composed.append(self.encoder.encode_queries(said, [query.texts[0] for query in block]))
        return np.concatenate(alone), np.concatenate(composed)


def _open(catalogue: Catalogue, file: str):  # type: ignore[no-untyped-def]
    return load_image(catalogue.path(file), at_least=512)


def measure(task: Task, reader: Reader, corpus: Corpus) -> Mapping[str, tuple[NDArray[np.float64], int]]:
    """Of each way the values (q,) of mAP@10, and which of its settings was chosen."""
    tuning = reader.asked(task, task.tuning, TUNING, corpus)
    reported = reader.asked(task, task.reported, QUERIES, corpus)
    found = {}
    for name, settings in ways().items():
        means = [tuning.precision(way(tuning, corpus)).mean() for way in settings]
        best = int(np.argmax(means))
        found[name] = reported.precision(settings[best](reported, corpus)), best
    return found


def table_row(task: str, found: Mapping[str, tuple[NDArray[np.float64], int]]) -> str:
    """A line of Markdown: percent with intervals, and how far BASIC and phrases are from the sum."""
    cells = []
    for values, _ in found.values():
        interval = bootstrap_interval(values)
        cells.append(f"{100 * values.mean():.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})")
    for other in ("BASIC", "phrases"):
        difference = paired_difference(100 * found[other][0], 100 * found["weighted sum"][0])
        cells.append(f"{difference.low:+.1f} to {difference.high:+.1f}")
    return f"| {task} | {len(next(iter(found.values()))[0])} | " + " | ".join(cells) + " |"


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"), show_default=True)
@click.option("--model", help="A model folder with vl/phrases.txt; else the one that ships.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/compositions"), show_default=True)
@click.option("--only", default="", help="Tasks whose name contains this.")
def main(data: Path, model: str | None, work: Path, only: str) -> None:
    """Prints the table of all tasks."""
    work.mkdir(parents=True, exist_ok=True)
    encoder = load_encoder(model).without_sentences().unguided()
    reader = Reader(encoder, work)
    lists = [(encoder.folder.path / "vl" / f"{name}.txt") for name in ("phrases", "modifiers")]
    phrases, modifiers = (path.read_text(encoding="utf-8").splitlines() for path in lists)
    corpus = reader.corpus(phrases, modifiers)
    names = list(ways())
    click.echo(
        f"| task; mAP@10 | queries | {' | '.join(names)} | BASIC - sum | phrases - sum |\n"
        f"|{' --- |' * (len(names) + 4)}"
    )
    for task in tasks(data, work):
        if only in task.name:
            found = measure(task, reader, corpus)
            click.echo(table_row(task.name, found))
            click.echo(
                f"{task.name}: settings { ({name: best for name, (_, best) in found.items()}) }", err=True
            )


if __name__ == "__main__":
    main()
