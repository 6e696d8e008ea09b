"""Public benchmarks from the dataset's folder to a table and submission files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.interpolation import slerp, weighted_sum
from image2sentence.encoders.protocols import Encoder, Vectors
from image2sentence.errors import ConfigError, DataError
from image2sentence.evaluation.basic import DESCRIPTION, Basic
from image2sentence.evaluation.datasets import circo, fashioniq, genecis
from image2sentence.evaluation.datasets.registry import DATASETS, load
from image2sentence.evaluation.evaluate import (
    COMPOSED,
    IMAGE_ONLY,
    SUM,
    TEXT_ONLY,
    WEIGHTS,
    Evaluation,
    Row,
    require_one_space,
)
from image2sentence.evaluation.features import Features, Opener
from image2sentence.evaluation.kept_gallery import PictureFile, picture_files
from image2sentence.evaluation.kept_sentences import KeptSentences
from image2sentence.evaluation.metrics import Interval, mean_of_means
from image2sentence.evaluation.protocol import Benchmark, Protocol
from image2sentence.evaluation.ranking import (
    rank_scores,
    require_answers,
    score_rankings,
    score_vectors,
)

SLERP = "Slerp"
BASIC = "BASIC"
ROWS = (IMAGE_ONLY, TEXT_ONLY, SUM, SLERP, BASIC, COMPOSED)
GROUPS: dict[str, tuple[str, ...]] = {
    "cirr": ("cirr",),
    "fashioniq": tuple(f"fashioniq/{category}" for category in fashioniq.CATEGORIES),
    "circo": ("circo",),
    "genecis": tuple(f"genecis/{focus}" for focus in genecis.FOCUSES),
    "domain-conversion": ("domain_conversion",),
}
"""What a command runs: the benchmarks of its name."""
TUNED_ON = "for each query, the other half of the queries (halves by reference picture)"
NOT_TUNED = "nothing: the queries' reference pictures are too few to make two halves"
TUNING_QUERIES = 500
"""Queries of each half on which a weight is chosen, at most."""

Compose = Callable[[Vectors, Vectors, float], Vectors]


@dataclass(frozen=True)
class LoadedBenchmarks:
    """The benchmarks of one command, their picture files by id, and those whose annotations are not there."""

    parts: tuple[Benchmark, ...]
    files: Mapping[str, PictureFile]
    absent: tuple[str, ...] = ()


def load_benchmarks(
    name: str, root: Path, split: str | None = None, tasks: Sequence[str] = (), **options: str
) -> LoadedBenchmarks:
    """Load the benchmarks of `GROUPS[name]` and look for every picture that they need.

    `tasks` names some of a group's parts, such as "dress"; none: all, of GeneCIS' tasks those whose annotations are
    there. `options` are the loaders'. Raises ConfigError for unknown names, and DataError naming what is missing and
    where to get it.
    """
    names = _chosen_parts(name, tasks)
    absent = [one for one in names if name == "genecis" and not tasks and not _has_task(one, root)]
    present = [one for one in names if one not in absent]
    source = DATASETS[names[0]].source
    try:
        # where none is there, the first one's error says where it was looked for
        parts = [load(one, root, split or DATASETS[one].splits[0], **options) for one in present or names[:1]]
        parts = [circo.with_pictures_of(one, root) if one.name == "circo" else one for one in parts]
        files = {image: file for one in parts for image, file in picture_files(one, root).items()}
    except DataError as error:
        raise DataError(f"{error}\nwhere to get it: {source}") from error
    return LoadedBenchmarks(tuple(parts), files, tuple(absent))


def evaluate_kept(
    benchmark: Benchmark,
    encoder: Encoder,
    open_image: Opener,
    kept: Mapping[str, Vectors],
    composers: Mapping[str, Encoder],
    sentences: KeptSentences | None = None,
) -> Evaluation:
    """Every row of `ROWS`, the composed one once for each of `composers`, on kept gallery-side vectors.

    `sentences` keeps those of the references, too; None: they are encoded anew.

    The weights of the sum and of Slerp are chosen for each half of the queries on the other half, so that every
    query is reported and none chose its own weight. Raises DataError for hidden answers, ModelError for a composer
    of another vector space.
    """
    require_answers(benchmark)
    require_one_space(encoder, composers)
    features = Features(benchmark, encoder, open_image, kept=kept, sentences=sentences, shorten=True)
    sum_row, sum_weights = _tuned_row(SUM, features, weighted_sum)
    slerp_row, slerp_weights = _tuned_row(SLERP, features, slerp)
    rows = [
        _row(IMAGE_ONLY, features, features.images, "gallery side"),
        _row(TEXT_ONLY, features, features.texts),
        sum_row,
        slerp_row,
        _basic_row(features),
        *(_row(name, features, features.composed(one)) for name, one in composers.items()),
    ]
    notes = {
        "text weight of the sum": sum_weights,
        "text weight of Slerp": slerp_weights,
        "weights tuned on": TUNED_ON if len(set(halves(benchmark))) == 2 else NOT_TUNED,
        f"row {BASIC}": DESCRIPTION,
    }
    if features.shortened:
        notes["texts cut at the end"] = f"{len(features.shortened)}, longer than the text encoder reads"
    return Evaluation(
        benchmark,
        len(features.gallery),
        encoder.fingerprint,
        tuple(rows),
        notes=notes,
        searcher=features.searcher,
    )


def query_vectors(
    benchmark: Benchmark,
    encoder: Encoder,
    open_image: Opener,
    kept: Mapping[str, Vectors],
    composers: Mapping[str, Encoder],
    row: str,
    sentences: KeptSentences | None = None,
) -> Vectors:
    """(q, d) query vectors of one row that needs no weight, for a submission. Raises ConfigError for others."""
    require_one_space(encoder, composers)
    features = Features(benchmark, encoder, open_image, kept=kept, sentences=sentences, shorten=True)
    if row in composers:
        return features.composed(composers[row])
    if row == IMAGE_ONLY:
        return features.images
    if row == TEXT_ONLY:
        return features.texts
    known = ", ".join([*composers, IMAGE_ONLY, TEXT_ONLY])
    raise ConfigError(f"a submission is written of one row without a tuned weight: {known}; got {row!r}")


def part_means(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, Interval]]:
    """Row -> metric -> plain mean over several benchmarks, in percent, with its bootstrap interval.

    The queries of each benchmark are resampled on their own.
    """
    means: dict[str, dict[str, Interval]] = {}
    for row in evaluations[0].rows:
        shared = [one.row(row.name).scores.values for one in evaluations]
        means[row.name] = {
            metric: mean_of_means([100 * values[metric] for values in shared])
            for metric in shared[0]
            if "/" not in metric
        }
    return means


def halves(benchmark: Benchmark) -> NDArray[np.int64]:
    """(q,) 0 or 1: the half of a query, the same for all queries of one reference picture."""
    digests = (hashlib.sha256(query.reference.encode()).digest()[0] for query in benchmark.queries)
    return np.array([digest % 2 for digest in digests], np.int64)


def _row(name: str, features: Features, vectors: Vectors, note: str = "") -> Row:
    return Row(name, score_vectors(features.benchmark, features.searcher, vectors), note, vectors)


def _tuned_row(name: str, features: Features, compose: Compose) -> tuple[Row, str]:
    """A row whose weight is chosen for each half of the queries on the other one, and both weights in words."""
    half = halves(features.benchmark)
    vectors = np.empty_like(features.images)
    chosen = []
    for own in (0, 1):
        weight = _best_weight(features, compose, np.flatnonzero(half != own))
        rows = half == own
        vectors[rows] = compose(features.images[rows], features.texts[rows], weight)
        chosen.append(f"{weight:.2f}")
    return _row(name, features, vectors, f"text weight {' and '.join(dict.fromkeys(chosen))}"), " and ".join(
        chosen
    )


def _best_weight(features: Features, compose: Compose, queries: NDArray[np.int64]) -> float:
    """The weight that scores best on these queries, the smallest of equals; one half where there are none."""
    if not len(queries):
        return 0.5
    queries = queries[:: -(-len(queries) // TUNING_QUERIES)]
    images, texts = features.images[queries], features.texts[queries]
    gallery = features.searcher.vectors_of(features.gallery)

    def value(weight: float) -> float:
        scores = compose(images, texts, weight) @ gallery.T
        return tuning_value(features.benchmark, queries, features.gallery, scores)

    return max(WEIGHTS, key=value)


def tuning_value(
    benchmark: Benchmark, queries: Sequence[int] | NDArray[np.int64], gallery: Sequence[str], scores: Vectors
) -> float:
    """Mean mAP@10, recall@10 or recall@1, whichever the protocol has first, of some queries in [0, 1].

    `scores` are (b, n), of the queries with these numbers and of the gallery's pictures. Only the places of right
    answers are counted out; nothing is sorted.
    """
    at = {name: row for row, name in enumerate(gallery)}
    protocol = benchmark.protocol
    values = []
    for number, own in zip(queries, scores, strict=True):
        query = benchmark.queries[int(number)]
        ranked = own[[at[name] for name in query.gallery]] if query.gallery else own
        if protocol.reference == "removed" and not query.gallery:
            ranked = np.delete(own, at[query.reference])
        first = np.array([own[at[name]] for name in query.answers])
        places = np.sort([1 + np.count_nonzero(ranked > score) for score in first])
        if query.target is not None and 10 not in protocol.map_at:
            places = np.array([1 + np.count_nonzero(ranked > own[at[query.target]])])
        values.append(_gain(protocol, places, len(query.answers)))
    return float(np.mean(values))


def _gain(protocol: Protocol, places: NDArray[np.int64], answers: int) -> float:
    """A query's value, from the ascending places of its right answers."""
    near = places[places <= 10]
    if 10 in protocol.map_at:
        return float((np.arange(1, len(near) + 1) / near).sum() / max(1, min(answers, 10)))
    if 10 in protocol.coverage_at:
        return len(near) / max(1, answers)
    cut_off = 10 if 10 in protocol.recall_at else 1
    return float(len(places) > 0 and places[0] <= cut_off)


def _basic_row(features: Features) -> Row:
    benchmark, searcher = features.benchmark, features.searcher
    gallery = searcher.vectors_of(searcher.ids)
    basic = Basic.fit(gallery, features.encode_texts)

    def scores(block: slice) -> Vectors:
        return basic.scores(features.images[block], features.texts[block])

    ranked = rank_scores(searcher, benchmark, scores, benchmark.protocol.depth)
    cut_offs = benchmark.protocol.subset_recall_at
    subsets = rank_scores(searcher, benchmark, scores, max(cut_offs), subset=True) if cut_offs else None
    return Row(BASIC, score_rankings(benchmark, ranked, subsets), "no training")


def _chosen_parts(name: str, tasks: Sequence[str]) -> tuple[str, ...]:
    if name not in GROUPS:
        raise ConfigError(f"unknown benchmark {name!r}; known: {', '.join(GROUPS)}")
    known = {part.rpartition("/")[2]: part for part in GROUPS[name]}
    if unknown := [task for task in tasks if task not in known]:
        raise ConfigError(f"{name} has the parts {', '.join(known)}, got {unknown[0]!r}")
    return tuple(part for task, part in known.items() if not tasks or task in tasks)


def _has_task(name: str, root: Path) -> bool:
    return any((root / place).is_file() for place in genecis.annotation_places(name.partition("/")[2]))
