"""Hard negatives, single modalities, wordings and several references: audits of evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Encoder, Vectors
from image2sentence.errors import DataError
from image2sentence.evaluation.datasets.attributes import (
    AttributeBenchmark,
    hard_negatives,
    similar_references,
)
from image2sentence.evaluation.datasets.labels import Catalogue
from image2sentence.evaluation.evaluate import IMAGE_ONLY, TEXT_ONLY, Evaluation
from image2sentence.evaluation.features import Features, Opener, unit
from image2sentence.evaluation.kept_sentences import KeptSentences
from image2sentence.evaluation.metrics import Interval, bootstrap_interval
from image2sentence.evaluation.protocol import Benchmark, Protocol
from image2sentence.evaluation.ranking import require_answers, score_rankings, score_vectors

WORDINGS = ("{m}", "but {m}", "the same, {m}", "make it {m}", "similar, but {m}", "I would like this {m}")
"""How one change is asked for; `{m}` is the modifier of the benchmark, such as "in red"."""
CUT_OFFS = (1, 10)
REFERENCES = 3
"""Reference pictures that one query asks with, at most."""
LACKS_THE_CHANGE = "a picture that keeps everything but lacks the change"
THE_REFERENCE = "the reference itself, which lacks the change,"


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
        hard_negatives: By row, how often a picture that lacks the change (`negative` says which) stands above all right
            answers; None where no query has such a picture.
        hard_negative_queries: Queries that have one, of `queries`.
        single: By cut-off k, the share of queries that `image`, `text` or `either` alone solves (recall@k).
        wordings: By composed row, the same changes in six wordings.
        references: By composed row and number of reference pictures, recall@1 of the same changes asked with pictures
            of the same values, none of which is ranked; empty where labels do not say which are alike.
        references_queries: Queries that have `REFERENCES` of them.
    """

    queries: int
    hard_negative_queries: int
    hard_negatives: Mapping[str, Interval | None]
    single: Mapping[int, Mapping[str, Interval]]
    wordings: Mapping[str, WordingFigures]
    negative: str = LACKS_THE_CHANGE
    references: Mapping[str, Mapping[int, Interval]] = field(default_factory=dict)
    references_queries: int = 0

    def as_dict(self) -> dict[str, object]:
        """The same as JSON values."""
        return {**asdict(self), "single": {f"recall@{k}": asdict_of(own) for k, own in self.single.items()}}

    def as_text(self) -> str:
        """For people: short tables."""
        lines = [
            f"{self.negative} stands above every right answer "
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
        if self.references:
            lines.append(
                f"the same changes asked with several references, recall@1 ({self.references_queries} queries have "
                f"{REFERENCES} pictures of the same values)"
            )
        for row, several in self.references.items():
            lines.append(f"  {row}: " + "; ".join(f"{k} {_shown(value)}" for k, value in several.items()))
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
    features = Features(benchmark, encoder, open_image)
    features.take_gallery(evaluation.searcher)
    audit = _audit(evaluation, features, hard_negatives(catalogue, benchmark), composers)
    alike = similar_references(catalogue, benchmark, REFERENCES - 1)
    asked = [row for row, others in enumerate(alike) if len(others) == REFERENCES - 1]
    if not asked:
        return audit
    pictures = [[benchmark.queries[row].reference, *alike[row]] for row in asked]
    some = replace(benchmark, queries=tuple(benchmark.queries[row] for row in asked))
    return replace(
        audit,
        references={name: _several(features, some, pictures, one) for name, one in composers.items()},
        references_queries=len(asked),
    )


def audit_public(
    evaluation: Evaluation,
    encoder: Encoder,
    open_image: Opener,
    kept: Mapping[str, Vectors],
    composers: Mapping[str, Encoder],
    sentences: KeptSentences | None = None,
) -> Audit:
    """Audits an evaluation of a public benchmark, whose hard negative is the reference, where the gallery has it.

    `kept` and `sentences` as `evaluate_kept` takes them; only words are encoded anew. Raises DataError for hidden
    answers, or an evaluation without its vectors.
    """
    require_answers(evaluation.benchmark)
    if evaluation.searcher is None:
        raise DataError("an audit needs an evaluation with its vectors")
    features = Features(
        evaluation.benchmark, encoder, open_image, kept=kept, sentences=sentences, shorten=True
    )
    there = frozenset(evaluation.searcher.ids)
    negatives = [
        (query.reference,) if query.reference in there and not query.gallery else ()
        for query in evaluation.benchmark.queries
    ]
    return replace(_audit(evaluation, features, negatives, composers), negative=THE_REFERENCE)


def _audit(
    evaluation: Evaluation,
    features: Features,
    negatives: Sequence[Sequence[str]],
    composers: Mapping[str, Encoder],
) -> Audit:
    return Audit(
        len(evaluation.benchmark.queries),
        sum(bool(own) for own in negatives),
        {
            row.name: _hard_negative_rate(evaluation, row.vectors, negatives)
            for row in evaluation.rows
            if row.vectors is not None
        },
        {k: own for k in CUT_OFFS if (own := _single_modality(evaluation, k))},
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
    """Empty for a cut-off that the protocol does not have."""
    values = [evaluation.row(name).scores.values.get(f"recall@{k}") for name in (IMAGE_ONLY, TEXT_ONLY)]
    if values[0] is None or values[1] is None:
        return {}
    image, text = values[0] > 0, values[1] > 0
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
        solved.append(_recall_at_1(benchmark, features, features.composed(composer, texts)))
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


def _recall_at_1(benchmark: Benchmark, features: Features, vectors: Vectors) -> NDArray[np.float64]:
    """(q,) of the first place, also where the protocol reports others only."""
    first = replace(benchmark, protocol=Protocol(benchmark.protocol.reference, recall_at=(1,)))
    return score_vectors(first, features.searcher, vectors).values["recall@1"]


def _several(
    features: Features, benchmark: Benchmark, pictures: Sequence[Sequence[str]], composer: Encoder
) -> dict[int, Interval]:
    """Recall@1 with the first k of each query's pictures, whose composed vectors are averaged; none is ranked."""
    vectors = []
    for place in range(REFERENCES):
        moved = zip(benchmark.queries, pictures, strict=True)
        asked = tuple(replace(query, reference=own[place]) for query, own in moved)
        vectors.append(features.for_queries_of(replace(benchmark, queries=asked)).composed(composer))
    figures = {}
    for count in range(1, REFERENCES + 1):
        queries = unit(np.mean(vectors[:count], axis=0))
        hits = features.searcher.search(queries, benchmark.protocol.depth, exclude=pictures)
        scores = score_rankings(benchmark, [[str(hit.id) for hit in own] for own in hits])
        figures[count] = bootstrap_interval(100 * scores.values["recall@1"])
    return figures


def _shown(value: Interval | None) -> str:
    return "no query has one" if value is None else f"{value.mean:.1f} [{value.low:.1f}, {value.high:.1f}]"
