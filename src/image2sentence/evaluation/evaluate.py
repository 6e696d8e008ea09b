"""Rows of a table: the same queries, answered by each baseline and by the composed query."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from image2sentence.encoders.protocols import Encoder, SupportsGuidance, Vectors
from image2sentence.errors import ConfigError, DataError, ModelError
from image2sentence.evaluation.datasets.attributes import reported_and_tuning
from image2sentence.evaluation.datasets.labels import Catalogue
from image2sentence.evaluation.metrics import Difference, Scores, paired_difference
from image2sentence.evaluation.protocol import Benchmark, named
from image2sentence.evaluation.ranking import Rankings, rank, require_answers, score_vectors
from image2sentence.gallery.search.searcher import Searcher
from image2sentence.images import load_image

IMAGE_ONLY = "image only"
TEXT_ONLY = "text only"
SUM = "image + text sum"
COMPOSED = "composed"
UNGUIDED = "composed, without guiding phrases"
FULL_TEXT = "full text of the right answer"
BASELINES = (IMAGE_ONLY, TEXT_ONLY, SUM)
ROWS = (*BASELINES, COMPOSED, FULL_TEXT)
WEIGHTS = tuple(round(0.05 * step, 2) for step in range(21))
TUNING_METRICS = ("mAP@10", "recall@10", "recall@1")
BATCH = 32

_Item = TypeVar("_Item")

Opener = Callable[[str], Image.Image]
"""Picture id -> RGB picture."""
Distortion = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Row:
    """One way to answer the queries, with its per-query values and its query vectors (q, d)."""

    name: str
    scores: Scores
    note: str = ""
    vectors: Vectors | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Evaluation:
    """All rows of one benchmark. `weight` is the share of the text in the sum, None where no sum was run, and
    `tuned_on` names the queries it was chosen on; `searcher` holds the gallery.
    """

    benchmark: Benchmark
    gallery_size: int
    fingerprint: str
    rows: tuple[Row, ...]
    weight: float | None = None
    tuned_on: str = ""
    searcher: Searcher | None = field(default=None, repr=False, compare=False)

    def row(self, name: str) -> Row:
        """A row by its name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise DataError(f"no row {name!r}; rows: {', '.join(row.name for row in self.rows)}")

    def compare(self, first: str, second: str, metric: str = "mAP@10") -> Difference:
        """Paired bootstrap of two rows, first - second, in percentage points."""
        a, b = (self.row(name).scores.values[metric] for name in (first, second))
        return paired_difference(100 * a, 100 * b)

    def rankings(self, name: str, depth: int) -> Rankings:
        """The first `depth` picture ids of every query as a row ranks them, best first."""
        vectors = self.row(name).vectors
        if self.searcher is None or vectors is None:
            raise DataError(f"row {name!r} was kept without its vectors: run the evaluation again")
        return rank(self.searcher, self.benchmark, vectors, depth)


def folder_opener(benchmark: Benchmark, root: Path | str) -> Opener:
    """Opens the benchmark's pictures below `root`; missing ones are a DataError before anything runs."""
    found = {image: locate_image(benchmark, image, Path(root)) for image in benchmark_images(benchmark)}
    files = {image: file for image, file in found.items() if file is not None}
    if missing := [image for image in found if image not in files]:
        raise DataError(
            f"{benchmark.name} {benchmark.split}: {len(missing)} pictures missing: {named(missing)}"
        )
    return lambda image: load_image(files[image])


def locate_image(benchmark: Benchmark, image: str, root: Path) -> Path | None:
    """The file of a picture, in whichever of the places that downloads use; None if it is in none."""
    places = (root / place for place in benchmark.images.get(image, ()))
    return next((path for path in places if path.is_file()), None)


def evaluate(
    benchmark: Benchmark,
    encoder: Encoder,
    open_image: Opener,
    *,
    tuning: Benchmark | None = None,
    rows: Sequence[str] | None = None,
    composers: Mapping[str, Encoder] | None = None,
    distort: Distortion | None = None,
    clean: Evaluation | None = None,
) -> Evaluation:
    """Scores every row of `rows` (None: all that the benchmark allows) on the benchmark's queries.

    - image only: the reference as the gallery side sees it (`encode_images`);
    - text only: the modifier alone; with several phrasings, the normalised mean of their vectors;
    - image + text sum: normalised (1 - w) * image + w * text of those two, w in 0, 0.05 ... 1 chosen by
      mAP@10 (or recall@10) on `tuning`; without `tuning`, on the reported queries themselves, which favours
      the sum;
    - composed: sentence of the reference + modifier, once per entry of `composers` (None:
      `default_composers`), which have to share the vector space of `encoder`;
    - full text of the right answer: the query's caption, where labels give one.

    `open_image` gives the RGB picture of an id; it serves `tuning` as well. `distort` changes every reference
    (blur, noise) and leaves the gallery as it is; from `clean`, an evaluation of the same gallery without it, the
    gallery's vectors and the weight of the sum are taken over, so that the references alone differ.

    Raises DataError for hidden answers or missing captions, ConfigError for unknown rows, ModelError for a composer
    or `clean` evaluation of another vector space.
    """
    require_answers(benchmark)
    chosen = _chosen_rows(benchmark, rows)
    composing = default_composers(encoder) if composers is None else composers
    _require_one_space(encoder, composing)
    features = _Features(benchmark, encoder, open_image, distort)
    weight, source = None, _tuning_source(benchmark, tuning)
    if clean is not None:
        features.take_gallery(clean)
        weight, source = clean.weight, clean.tuned_on
    if SUM in chosen and weight is None:
        other = features if tuning is None else features.for_queries_of(tuning)
        weight = _best_weight(other)
    results = [row for name in chosen for row in _run(name, features, weight, composing)]
    return Evaluation(
        benchmark,
        len(features.gallery),
        encoder.fingerprint,
        tuple(results),
        weight,
        source,
        features.searcher,
    )


def evaluate_attributes(
    catalogue: Catalogue,
    encoder: Encoder,
    change: str | Sequence[str],
    keep: str | Sequence[str],
    split: str | None = None,
    seed: int = 0,
    *,
    rows: Sequence[str] | None = None,
    composers: Mapping[str, Encoder] | None = None,
    distort: Distortion | None = None,
    **settings: object,
) -> Evaluation:
    """`evaluate` on the attribute-change benchmark of a labelled catalogue.

    The weight of the sum is chosen on the split `train`, or on references left out of the figures
    (`reported_and_tuning`); `settings` are those of `attribute_queries`.
    """
    reported, tuning = reported_and_tuning(catalogue, change, keep, split, seed, **settings)

    def open_image(image: str) -> Image.Image:
        return load_image(catalogue.path(image))

    return evaluate(
        reported, encoder, open_image, tuning=tuning, rows=rows, composers=composers, distort=distort
    )


class _Features:
    """Vectors of a benchmark's gallery and queries, each encoded once and only when a row asks for it."""

    def __init__(
        self, benchmark: Benchmark, encoder: Encoder, open_image: Opener, distort: Distortion | None
    ) -> None:
        self.benchmark = benchmark
        self.gallery = benchmark.needed_ids()
        self._encoder = encoder
        self._open = open_image
        self._distort = distort
        names = dict.fromkeys(query.reference for query in benchmark.queries)
        self._references = tuple(names)
        at = {name: row for row, name in enumerate(names)}
        self._reference_of = np.array([at[query.reference] for query in benchmark.queries])

    def for_queries_of(self, benchmark: Benchmark) -> _Features:
        """The same for other queries; a gallery of the same pictures is not encoded again."""
        made = _Features(benchmark, self._encoder, self._open, self._distort)
        if made.gallery == self.gallery:
            made._gallery_vectors = self._gallery_vectors
        return made

    def take_gallery(self, other: Evaluation) -> None:
        """Use the gallery of an evaluation in place of encoding it again."""
        if other.searcher is None or other.fingerprint != self._encoder.fingerprint:
            raise ModelError(
                "the clean evaluation is of another vector space, or without vectors: run it again"
            )
        if set(other.searcher.ids) != set(self.gallery):
            raise DataError(f"the clean evaluation of {other.benchmark.name} has another gallery")
        self._gallery_vectors = other.searcher.vectors_of(self.gallery)

    @cached_property
    def searcher(self) -> Searcher:
        return Searcher(self.gallery, self._gallery_vectors)

    @cached_property
    def _gallery_vectors(self) -> Vectors:
        return _in_batches(
            self.gallery, lambda ids: self._encoder.encode_images([self._open(i) for i in ids])
        )

    @cached_property
    def images(self) -> Vectors:
        """(q, d): the reference of every query."""
        at = {name: row for row, name in enumerate(self.gallery)}
        if self._distort is None and all(name in at for name in self._references):
            vectors = self._gallery_vectors[[at[name] for name in self._references]]
        else:
            vectors = _in_batches(
                self._references, lambda ids: self._encoder.encode_images(self._opened(ids))
            )
        return np.asarray(vectors[self._reference_of], dtype=np.float32)

    @cached_property
    def texts(self) -> Vectors:
        """(q, d): the modifier of every query."""
        return _mean_of_phrasings([self._encode_texts(texts) for texts in self._phrasings()])

    @cached_property
    def full_texts(self) -> Vectors:
        """(q, d): the caption of every query."""
        return self._encode_texts([query.caption for query in self.benchmark.queries])

    def composed(self, encoder: Encoder) -> Vectors:
        """(q, d): sentence of the reference + modifier, by `encoder`."""
        sentences = _in_batches(
            self._references, lambda ids: np.asarray(encoder.encode_sentences(self._opened(ids)))
        )
        return _mean_of_phrasings([self._compose(encoder, sentences, texts) for texts in self._phrasings()])

    def _compose(self, encoder: Encoder, sentences: Vectors, texts: Sequence[str]) -> Vectors:
        def encode(rows: Sequence[int]) -> Vectors:
            return encoder.encode_queries(sentences[self._reference_of[rows]], [texts[row] for row in rows])

        return _in_batches(range(len(texts)), encode)

    def _encode_texts(self, texts: Sequence[str]) -> Vectors:
        different = list(dict.fromkeys(texts))
        vectors = _in_batches(different, lambda some: self._encoder.encode_queries(None, list(some)))
        at = {text: row for row, text in enumerate(different)}
        return np.asarray(vectors[[at[text] for text in texts]], dtype=np.float32)

    def _phrasings(self) -> list[list[str]]:
        """First, second ... phrasing of every query; one rule words all queries, so the counts agree."""
        return [list(texts) for texts in zip(*(query.texts for query in self.benchmark.queries), strict=True)]

    def _opened(self, ids: Sequence[str]) -> list[Image.Image]:
        pictures = [self._open(image) for image in ids]
        return pictures if self._distort is None else [self._distort(picture) for picture in pictures]


def _best_weight(features: _Features) -> float:
    """The share of the text in the sum that scores best on these queries; the smallest of equals."""
    scored = {weight: _tuning_value(_score_sum(features, weight)) for weight in WEIGHTS}
    return max(scored, key=lambda weight: scored[weight])


def _score_sum(features: _Features, weight: float) -> Scores:
    return score_vectors(features.benchmark, features.searcher, _sum(features, weight))


def _sum(features: _Features, weight: float) -> Vectors:
    """The normalised (1 - weight) * image + weight * text."""
    return _unit((1 - weight) * features.images + weight * features.texts)


def default_composers(encoder: Encoder) -> dict[str, Encoder]:
    """The composed row, and one without guiding phrases where the encoder has any."""
    if isinstance(encoder, SupportsGuidance) and encoder.is_guided:
        return {COMPOSED: encoder, UNGUIDED: encoder.unguided()}
    return {COMPOSED: encoder}


def _run(name: str, features: _Features, weight: float | None, composers: Mapping[str, Encoder]) -> list[Row]:
    def row(label: str, vectors: Vectors, note: str = "") -> Row:
        return Row(label, score_vectors(features.benchmark, features.searcher, vectors), note, vectors)

    if name == IMAGE_ONLY:
        return [row(name, features.images, "gallery side")]
    if name == TEXT_ONLY:
        return [row(name, features.texts)]
    if name == SUM and weight is not None:
        return [row(name, _sum(features, weight), f"gallery side, text weight {weight:.2f}")]
    if name == FULL_TEXT:
        return [row(name, features.full_texts, "oracle")]
    return [row(label, features.composed(encoder)) for label, encoder in composers.items()]


def _chosen_rows(benchmark: Benchmark, rows: Sequence[str] | None) -> tuple[str, ...]:
    described = all(query.caption for query in benchmark.queries)
    if rows is None:
        return ROWS if described else tuple(name for name in ROWS if name != FULL_TEXT)
    if unknown := [name for name in rows if name not in ROWS]:
        raise ConfigError(f"unknown row {named(unknown)}; rows: {', '.join(ROWS)}")
    if FULL_TEXT in rows and not described:
        raise DataError(f"{benchmark.name} has no full text of the right answers: leave out {FULL_TEXT!r}")
    return tuple(dict.fromkeys(rows))


def _require_one_space(encoder: Encoder, composers: Mapping[str, Encoder]) -> None:
    for name, other in composers.items():
        if other.fingerprint != encoder.fingerprint:
            raise ModelError(
                f"row {name!r} searches the space {other.fingerprint}, the gallery is of "
                f"{encoder.fingerprint}: rows of one table need the same gallery model, and of models whose gallery "
                "has something of their sentences the exports without it (`image2sentence export --sentence-share 0`)"
            )


def _tuning_source(benchmark: Benchmark, tuning: Benchmark | None) -> str:
    if tuning is None:
        return "the reported queries themselves, which favours the sum"
    if tuning.split != benchmark.split:
        return f"{tuning.name} {tuning.split}, {len(tuning.queries)} queries"
    return f"{len(tuning.queries)} queries of the same split that are not reported"


def _tuning_value(scores: Scores) -> float:
    metric = next((name for name in TUNING_METRICS if name in scores.values), next(iter(scores.values)))
    return float(scores.values[metric].mean())


def benchmark_images(benchmark: Benchmark) -> list[str]:
    """Every picture that a run has to open, each once: the gallery, then references outside it."""
    references = (query.reference for query in benchmark.queries)
    return list(dict.fromkeys([*benchmark.needed_ids(), *references]))


def _mean_of_phrasings(vectors: Sequence[Vectors]) -> Vectors:
    return vectors[0] if len(vectors) == 1 else _unit(np.mean(vectors, axis=0))


def _unit(rows: Vectors) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _in_batches(items: Sequence[_Item], encode: Callable[[Sequence[_Item]], Vectors]) -> Vectors:
    parts = [encode(items[start : start + BATCH]) for start in range(0, len(items), BATCH)]
    return np.concatenate(parts)
