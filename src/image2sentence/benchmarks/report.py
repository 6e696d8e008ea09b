"""A table that can be believed: every figure with its interval, under everything that it depends on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from image2sentence.benchmarks.evaluation import BASELINES, Evaluation, Row
from image2sentence.benchmarks.metrics import Difference, Interval, paired_difference
from image2sentence.benchmarks.reading import Record, read_json
from image2sentence.errors import DataError

NOT_STATED = "not stated"
FORMAT = 1


@dataclass(frozen=True)
class ModelDescription:
    """What a report says about the model; the checkpoint fingerprint is that of its weights."""

    vl_model: str = NOT_STATED
    light_model: str = NOT_STATED
    tokens: str = NOT_STATED
    """L, the number of pseudo-words; several where rows differ."""
    prompt_template: str = NOT_STATED
    preprocessing: str = NOT_STATED
    checkpoint: str = NOT_STATED


def facts(evaluation: Evaluation, model: ModelDescription) -> dict[str, str]:
    """Everything that has to be printed with a figure, in the order of print."""
    benchmark = evaluation.benchmark
    stated = {
        "dataset": benchmark.name,
        "split": benchmark.split,
        "gallery size": str(evaluation.gallery_size),
        "query count": str(len(benchmark.queries)),
        "prompt template": model.prompt_template,
        "caption rule": benchmark.options.get("caption rule", "as annotated"),
        "preprocessing": model.preprocessing,
        "VL model": model.vl_model,
        "light model": model.light_model,
        "L": model.tokens,
        "checkpoint fingerprint": model.checkpoint,
        "gallery fingerprint": evaluation.fingerprint,
        "interval": "95 % bootstrap over queries",
        "ties": "gallery order",
    }
    if evaluation.weight is not None:
        stated["text weight of the sum"] = f"{evaluation.weight:.2f}"
        stated["weight tuned on"] = evaluation.tuned_on
    missing = [name for name in BASELINES if name not in {row.name for row in evaluation.rows}]
    if missing:
        stated["baselines not run"] = ", ".join(missing)
    return {**stated, **benchmark.options}


def as_text(evaluation: Evaluation, model: ModelDescription, metrics: Sequence[str] | None = None) -> str:
    """The facts, then an aligned table: one row per way to answer, one column per metric, in percent.

    `metrics` None: all that are not split by aspect. A cell is "mean [low, high]".
    """
    columns = list(metrics) if metrics is not None else _main_metrics(evaluation)
    head = [f"{name}: {value}" for name, value in facts(evaluation, model).items()]
    cells = [["", *columns, ""], *(_cells(row, columns) for row in evaluation.rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(columns) + 2)]
    lines = [_aligned(line, widths) for line in cells]
    return "\n".join([*head, "", *lines])


def as_document(evaluation: Evaluation, model: ModelDescription) -> dict[str, object]:
    """The same as a JSON value, with the value of every query, so that runs can be compared later."""
    return {
        "format": FORMAT,
        "facts": facts(evaluation, model),
        "queries": [query.id for query in evaluation.benchmark.queries],
        "rows": [_row_document(row) for row in evaluation.rows],
    }


def write_document(path: Path | str, evaluation: Evaluation, model: ModelDescription) -> None:
    """Writes `as_document` as JSON."""
    Path(path).write_text(json.dumps(as_document(evaluation, model), indent=1) + "\n", encoding="utf-8")


def compare_documents(
    first: Path | str, second: Path | str, row: str, metric: str = "mAP@10", other_row: str | None = None
) -> Difference:
    """Paired bootstrap, in percentage points, of one row's metric between two written runs: first - second.

    `other_row` names the second run's row where it is called differently. Runs of another dataset, split or
    set of queries are a DataError: their figures must not share a table.
    """
    a, b = _read_document(Path(first)), _read_document(Path(second))
    for name in ("dataset", "split"):
        if a.part("facts").text(name) != b.part("facts").text(name):
            raise DataError(f"{a.path} and {b.path} differ in {name}: their figures cannot be compared")
    if a.texts("queries") != b.texts("queries"):
        raise DataError(f"{a.path} and {b.path} asked different queries: they cannot be compared")
    return paired_difference(_values(a, row, metric), _values(b, other_row or row, metric))


def _main_metrics(evaluation: Evaluation) -> list[str]:
    return [name for name in evaluation.rows[0].scores.values if "/" not in name]


def _cells(row: Row, columns: Sequence[str]) -> list[str]:
    intervals = row.scores.intervals()
    return [row.name, *(_shown(intervals[name]) for name in columns), row.note]


def _shown(interval: Interval) -> str:
    return f"{interval.mean:.1f} [{interval.low:.1f}, {interval.high:.1f}]"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _row_document(row: Row) -> dict[str, object]:
    return {
        "name": row.name,
        "note": row.note,
        "metrics": {
            name: {"mean": value.mean, "low": value.low, "high": value.high}
            for name, value in row.scores.intervals().items()
        },
        "values": {
            name: np.round(100 * own, 4).tolist()
            for name, own in row.scores.values.items()
            if "/" not in name
        },
    }


def _read_document(path: Path) -> Record:
    value = read_json(path)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DataError(f"{path}: expected a report of format {FORMAT}; run the evaluation again")
    return Record(path, 0, value)


def _values(document: Record, row: str, metric: str) -> list[float]:
    rows: Mapping[str, Record] = {entry.text("name"): entry for entry in document.parts("rows")}
    if row not in rows:
        raise DataError(f"{document.path} has no row {row!r}; rows: {', '.join(rows)}")
    values = rows[row].part("values").get(metric)
    if not isinstance(values, list):
        raise document.problem(f"row {row!r} has no values of {metric!r}")
    return [float(value) for value in values]
