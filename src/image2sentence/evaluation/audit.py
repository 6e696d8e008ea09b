"""Hard negatives, single modalities and wordings: audits of attribute changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Encoder, Vectors
from image2sentence.errors import DataError
from image2sentence.evaluation.datasets.attributes import AttributeBenchmark, hard_negatives
from image2sentence.evaluation.datasets.labels import Catalogue
from image2sentence.evaluation.evaluate import IMAGE_ONLY, TEXT_ONLY, Evaluation
from image2sentence.evaluation.features import Features, Opener
from image2sentence.evaluation.metrics import Interval, bootstrap_interval
from image2sentence.evaluation.ranking import score_vectors

WORDINGS = ("{m}", "but {m}", "the same, {m}", "make it {m}", "similar, but {m}", "I would like this {m}")
"""How one change is asked for; `{m}` is the modifier of the benchmark, such as "in red"."""
CUT_OFFS = (1, 10)


@dataclass(frozen=True)
class WordingFigures:
    """Recall@1 of one row over `WORDINGS`, in percent.

    `mean` is over queries and wordings, `worst` and `best` are means of single wordings, and `changing` is the share of
    queries that some wordings solve and others do not.
    """

    mean: Interval
    worst: float
    worst_wording: str
    best: float
    best_wording: str
    changing: Interval


@dataclass(frozen=True)
class Audit:
    """What a table of means does not show; all in percent, with 95 % bootstrap intervals over queries.

    Attributes:
        hard_negatives: By row, how often a picture that keeps everything but lacks the change stands above all right
            answers; None where no query has such a picture.
        hard_negative_queries: Queries that have one, of `queries`.
        single: By cut-off k, the share of queries that `image`, `text` or `either` alone solves (recall@k).
        wordings: By composed row, the same changes in six wordings.
    """

    queries: int
    hard_negative_queries: int
    hard_negatives: Mapping[str, Interval | None]
    single: Mapping[int, Mapping[str, Interval]]
    wordings: Mapping[str, WordingFigures]

    def as_dict(self) -> dict[str, object]:
        """The same as JSON values."""
        return {**asdict(self), "single": {f"recall@{k}": asdict_of(own) for k, own in self.single.items()}}

    def as_text(self) -> str:
        """For people: three short tables."""
        lines = [
            "a picture that keeps everything but lacks the change stands above every right answer "
            f"({self.hard_negative_queries} of {self.queries} queries have one)"
        ]
        lines += [f"  {row}: {_shown(rate)}" for row, rate in self.hard_negatives.items()]
        lines.append("queries that one modality alone solves")
        for k, own in self.single.items():
            shares = "; ".join(f"{name} {_shown(value)}" for name, value in own.items())
            lines.append(f"  recall@{k}: {shares}")
        lines.append(f"the same changes in {len(WORDINGS)} wordings, recall@1")
        for row, one in self.wordings.items():
            lines.append(
                f"  {row}: mean {_shown(one.mean)}; worst {one.worst:.1f} ({one.worst_wording!r}), best "
                f"{one.best:.1f} ({one.best_wording!r}); solved by some wordings only {_shown(one.changing)}"
            )
        return "\n".join(lines)


def audit_attributes(
    evaluation: Evaluation,
    catalogue: Catalogue,
    encoder: Encoder,
    open_image: Opener,
    composers: Mapping[str, Encoder],
) -> Audit:
    """Audits an evaluation by attribute changes that still has its vectors.

    `composers` are the composed rows whose wordings are varied; their sentences are encoded once more, the gallery is
    not. Raises DataError where the evaluation is of something else, or lacks the rows of single modalities.
    """
    benchmark = evaluation.benchmark
    if not isinstance(benchmark, AttributeBenchmark) or evaluation.searcher is None:
        raise DataError("an audit needs an evaluation by attribute changes with its vectors")
    negatives = hard_negatives(catalogue, benchmark)
    features = Features(benchmark, encoder, open_image)
    features.take_gallery(evaluation.searcher)
    return Audit(
        len(benchmark.queries),
        sum(bool(own) for own in negatives),
        {
            row.name: _hard_negative_rate(evaluation, row.vectors, negatives)
            for row in evaluation.rows
            if row.vectors is not None
        },
        {k: _single_modality(evaluation, k) for k in CUT_OFFS},
        {name: _wording_figures(features, one) for name, one in composers.items()},
    )


def asdict_of(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    """Intervals by name as JSON values."""
    return {name: asdict(value) for name, value in intervals.items()}


def _hard_negative_rate(
    evaluation: Evaluation, vectors: Vectors, negatives: Sequence[Sequence[str]]
) -> Interval | None:
    """How often the best-placed hard negative has a higher score than the best-placed right answer."""
    searcher = evaluation.searcher
    assert searcher is not None
    above = []
    for query, own, wrong in zip(evaluation.benchmark.queries, vectors, negatives, strict=True):
        if wrong:
            right = searcher.vectors_of(list(query.answers)) @ own
            above.append(float((searcher.vectors_of(list(wrong)) @ own).max() > right.max()))
    return bootstrap_interval(100 * np.array(above)) if above else None


def _single_modality(evaluation: Evaluation, k: int) -> dict[str, Interval]:
    image, text = (evaluation.row(name).scores.values[f"recall@{k}"] > 0 for name in (IMAGE_ONLY, TEXT_ONLY))
    return {
        "image": bootstrap_interval(100.0 * image),
        "text": bootstrap_interval(100.0 * text),
        "either": bootstrap_interval(100.0 * (image | text)),
    }


def _wording_figures(features: Features, composer: Encoder) -> WordingFigures:
    benchmark = features.benchmark
    solved = []
    for wording in WORDINGS:
        texts = [wording.replace("{m}", query.texts[0]) for query in benchmark.queries]
        scores = score_vectors(benchmark, features.searcher, features.composed(composer, texts))
        solved.append(scores.values["recall@1"])
    values: NDArray[np.float64] = 100 * np.stack(solved)
    means = values.mean(axis=1)
    worst, best = int(means.argmin()), int(means.argmax())
    return WordingFigures(
        bootstrap_interval(values.mean(axis=0)),
        float(means[worst]),
        WORDINGS[worst],
        float(means[best]),
        WORDINGS[best],
        bootstrap_interval(100.0 * (values.min(axis=0) != values.max(axis=0))),
    )


def _shown(value: Interval | None) -> str:
    return "no query has one" if value is None else f"{value.mean:.1f} [{value.low:.1f}, {value.high:.1f}]"
