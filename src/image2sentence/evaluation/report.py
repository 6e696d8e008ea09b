"""Result table: figures with intervals, and all that they depend on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from image2sentence.errors import DataError
from image2sentence.evaluation.datasets.annotation_files import Record, read_json
from image2sentence.evaluation.evaluate import BASELINES, Evaluation, Row
from image2sentence.evaluation.metrics import Difference, Interval, paired_difference

NOT_STATED = "not stated"
FORMAT = 1
SAME_TASK = ("dataset", "split", "gallery size", "change", "keep", "reference", "gallery")
"""Facts in which two runs have to agree for their figures to be compared."""


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
    others: Mapping[str, str] = field(default_factory=dict)
    """Rows answered by other models of the same vector space: row -> what that model is."""


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
        **{f"row {name}": other for name, other in model.others.items()},
    }
    if evaluation.weight is not None:
        stated["text weight of the sum"] = f"{evaluation.weight:.2f}"
        stated["weight tuned on"] = evaluation.tuned_on
    missing = [name for name in BASELINES if name not in {row.name for row in evaluation.rows}]
    if missing:
        stated["baselines not run"] = ", ".join(missing)
    return {**stated, **evaluation.notes, **benchmark.options}


def as_text(evaluation: Evaluation, model: ModelDescription, metrics: Sequence[str] | None = None) -> str:
    """The facts, then an aligned table: one row per way to answer, one column per metric, in percent.

    `metrics` None: all that are not split by aspect. A cell is "mean [low, high]".
    """
    columns = list(metrics) if metrics is not None else _main_metrics(evaluation)
    head = [f"{name}: {value}" for name, value in facts(evaluation, model).items()]
    cells = [["", *columns, ""], *(_cells(row, columns) for row in evaluation.rows)]
    return "\n".join([*head, "", _table(cells)])


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
    write_json(Path(path), as_document(evaluation, model))


def write_json(path: Path, document: Mapping[str, object]) -> list[Path]:
    """Writes a report to `path`; of one with several parts, each part also to a file of its own beside it.

    `evaluate compare` reads reports of one part.
    """
    parts = document.get("parts")
    files = {path: document}
    for part in parts if isinstance(parts, list) else []:
        name = str(part["facts"]["dataset"]).rpartition("/")[2]
        files[path.with_name(f"{path.stem}-{name}{path.suffix}")] = part
    for file, value in files.items():
        file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    return list(files)


def aspects_as_text(evaluation: Evaluation) -> str:
    """Figures by aspect: one row per metric and aspect, one column per way to answer; empty without aspects."""
    names = [name for name in evaluation.rows[0].scores.values if "/" in name]
    if not names:
        return ""
    intervals = [row.scores.intervals() for row in evaluation.rows]
    counts = evaluation.rows[0].scores.values
    head = ["", "queries", *(row.name for row in evaluation.rows)]
    lines = [[name, str(len(counts[name])), *(_shown(own[name]) for own in intervals)] for name in names]
    return _table([head, *lines])


def means_as_text(means: Mapping[str, Mapping[str, Interval]]) -> str:
    """Row -> metric -> mean over several benchmarks, as a table."""
    columns = list(next(iter(means.values())))
    lines = [[row, *(_shown(own[metric]) for metric in columns)] for row, own in means.items()]
    return _table([["", *columns], *lines])


def means_as_document(means: Mapping[str, Mapping[str, Interval]]) -> dict[str, object]:
    """The same as a JSON value."""
    return {row: {metric: vars(value) for metric, value in own.items()} for row, own in means.items()}


@dataclass(frozen=True)
class Comparison:
    """One row and metric of two runs, in percent: both means, and the paired difference first - second."""

    row: str
    other_row: str
    metric: str
    first: float
    second: float
    difference: Difference


def compare_documents(
    first: Path | str, second: Path | str, row: str, metric: str = "mAP@10", other_row: str | None = None
) -> Difference:
    """Paired bootstrap, in percentage points, of one row's metric between two written runs: first - second.

    `other_row` names the second run's row where it is called differently. Runs that differ in what they ask
    (`SAME_TASK`, queries) are a DataError: their figures must not share a table.
    """
    a, b = _same_task(Path(first), Path(second))
    return _compared(a, b, row, other_row or row, metric).difference


def compare_runs(
    first: Path | str,
    second: Path | str,
    rows: Sequence[tuple[str, str]] | None = None,
    metrics: Sequence[str] | None = None,
) -> list[Comparison]:
    """As `compare_documents`, for pairs of rows (None: rows of the same name) and metrics (None: all of both)."""
    a, b = _same_task(Path(first), Path(second))
    shared = [name for name in _rows(a) if name in _rows(b)]
    pairs = [(name, name) for name in shared] if rows is None else rows
    if not pairs:
        raise DataError(f"{a.path} and {b.path} have no row in common: name one of each")
    return [
        _compared(a, b, row, other, metric)
        for row, other in pairs
        for metric in (_shared_metrics(a, b, row, other) if metrics is None else metrics)
    ]


def differing_facts(first: Path | str, second: Path | str) -> dict[str, tuple[str, str]]:
    """What two written runs say differently of themselves: name -> both values."""
    a, b = (_read_document(Path(path)).part("facts").fields for path in (first, second))
    return {
        name: (str(a.get(name, NOT_STATED)), str(b.get(name, NOT_STATED)))
        for name in dict.fromkeys([*a, *b])
        if a.get(name) != b.get(name)
    }


def _same_task(first: Path, second: Path) -> tuple[Record, Record]:
    a, b = _read_document(first), _read_document(second)
    for name in SAME_TASK:
        one, other = (document.part("facts").fields.get(name) for document in (a, b))
        if one != other:
            raise DataError(
                f"{a.path} and {b.path} differ in {name} ({one} and {other}): their figures cannot be compared"
            )
    if a.texts("queries") != b.texts("queries"):
        raise DataError(f"{a.path} and {b.path} asked different queries: they cannot be compared")
    return a, b


def _compared(a: Record, b: Record, row: str, other_row: str, metric: str) -> Comparison:
    first, second = _values(a, row, metric), _values(b, other_row, metric)
    if len(first) != len(a.texts("queries")) or len(second) != len(first):
        raise DataError(f"{a.path} or {b.path} is damaged: expected one value of {metric} per query")
    means = float(np.mean(first)), float(np.mean(second))
    return Comparison(row, other_row, metric, *means, paired_difference(first, second))


def _rows(document: Record) -> dict[str, Record]:
    return {entry.text("name"): entry for entry in document.parts("rows")}


def _shared_metrics(a: Record, b: Record, row: str, other: str) -> list[str]:
    names = [_row_of(document, name).part("values").fields for document, name in ((a, row), (b, other))]
    return [name for name in names[0] if name in names[1]]


def _row_of(document: Record, row: str) -> Record:
    rows = _rows(document)
    if row not in rows:
        raise DataError(f"{document.path} has no row {row!r}; rows: {', '.join(rows)}")
    return rows[row]


def _main_metrics(evaluation: Evaluation) -> list[str]:
    return [name for name in evaluation.rows[0].scores.values if "/" not in name]


def _cells(row: Row, columns: Sequence[str]) -> list[str]:
    intervals = row.scores.intervals()
    return [row.name, *(_shown(intervals[name]) for name in columns), row.note]


def _shown(interval: Interval) -> str:
    return f"{interval.mean:.1f} [{interval.low:.1f}, {interval.high:.1f}]"


def _table(cells: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(_aligned(line, widths) for line in cells)


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
    own = _row_of(document, row).part("values")
    values = own.fields.get(metric)
    if not isinstance(values, list):
        known = ", ".join(own.fields) or "none"
        raise document.problem(f"row {row!r} has no values of {metric!r}; metrics: {known}")
    return [float(value) for value in values]
