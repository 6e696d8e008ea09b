"""Evaluation of queries by the composed method and its baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from image2sentence.encoders.protocols import Encoder, SupportsGuidance, Vectors
from image2sentence.errors import ConfigError, DataError, ModelError
from image2sentence.evaluation.datasets.attributes import reported_and_tuning
from image2sentence.evaluation.datasets.labels import Catalogue
from image2sentence.evaluation.features import Distortion, Features, Opener, unit
from image2sentence.evaluation.kept_gallery import picture_files
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
    notes: Mapping[str, str] = field(default_factory=dict)
    """Further facts to print with the figures."""
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
    files = picture_files(benchmark, Path(root))
    return lambda image: files[image].open(Path(root))


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
    require_one_space(encoder, composing)
    features = Features(benchmark, encoder, open_image, distort)
    weight, source = None, _tuning_source(benchmark, tuning)
    if clean is not None:
        if clean.searcher is None or clean.fingerprint != encoder.fingerprint:
            raise ModelError(
                "the clean evaluation is of another vector space, or without vectors: run it again"
            )
        features.take_gallery(clean.searcher)
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
        searcher=features.searcher,
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


def _best_weight(features: Features) -> float:
    """The share of the text in the sum that scores best on these queries; the smallest of equals."""
    scored = {weight: _tuning_value(_score_sum(features, weight)) for weight in WEIGHTS}
    return max(scored, key=lambda weight: scored[weight])


def _score_sum(features: Features, weight: float) -> Scores:
    return score_vectors(features.benchmark, features.searcher, _sum(features, weight))


def _sum(features: Features, weight: float) -> Vectors:
    """The normalised (1 - weight) * image + weight * text."""
    return unit((1 - weight) * features.images + weight * features.texts)


def default_composers(encoder: Encoder) -> dict[str, Encoder]:
    """The composed row, and one without guiding phrases where the encoder has any."""
    if isinstance(encoder, SupportsGuidance) and encoder.is_guided:
        return {COMPOSED: encoder, UNGUIDED: encoder.unguided()}
    return {COMPOSED: encoder}


def _run(name: str, features: Features, weight: float | None, composers: Mapping[str, Encoder]) -> list[Row]:
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


def require_one_space(encoder: Encoder, composers: Mapping[str, Encoder]) -> None:
    """ModelError unless every composer searches the vector space of `encoder`."""
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
