"""Tables out of the reports of a table's benchmarks, with 95 % bootstrap intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image2sentence.evaluation.evaluate import COMPOSED, IMAGE_ONLY, SUM, TEXT_ONLY
from image2sentence.evaluation.metrics import Interval, mean_of_means
from image2sentence.evaluation.public_benchmarks import BASIC, SLERP
from recipes.paper.tables import Row

BASELINES = (IMAGE_ONLY, TEXT_ONLY, SUM, SLERP, BASIC)
FACTS = ("dataset", "split", "gallery size", "query count", "caption rule", "prompt template", "VL model")
METRICS = {
    "cirr": (
        "recall@1",
        "recall@5",
        "recall@10",
        "recall@50",
        "subset_recall@1",
        "mean(recall@5,subset_recall@1)",
    ),
    "fashioniq": ("recall@10", "recall@50"),
    "circo": ("mAP@5", "mAP@10", "mAP@25", "mAP@50"),
    "genecis": ("recall@1", "recall@2", "recall@3"),
}

Values = NDArray[np.float64]


def benchmark_table(benchmark: str, report: Path, rows: Sequence[Row], seeds: int) -> str:
    """Markdown: baselines and rows of one benchmark, the mean over its parts, each row the mean over its seeds."""
    document = json.loads(report.read_text(encoding="utf-8"))
    parts = document.get("parts", [document])
    labels = {row.title: [_label(row, seed, row is rows[0]) for seed in range(seeds)] for row in rows}
    shown = {name: [name] for name in BASELINES} | labels
    metrics = METRICS[benchmark]
    lines = [[title, *(_cell(parts, names, metric) for metric in metrics)] for title, names in shown.items()]
    facts = "; ".join(_fact(parts, name) for name in FACTS)
    return f"### {benchmark}\n\n{facts}\n\n{_markdown(['row', *metrics], lines)}"


def _label(row: Row, seed: int, first: bool) -> str:
    return COMPOSED if first and seed == 0 else f"{row.name}-{seed}"


def _cell(parts: Sequence[Mapping[str, Any]], names: Sequence[str], metric: str) -> str:
    values = [np.mean([_values(part, name, metric) for name in names], axis=0) for part in parts]
    return _shown(mean_of_means(values))


def _values(part: Mapping[str, Any], name: str, metric: str) -> Values:
    row = next(row for row in part["rows"] if row["name"] == name)
    return np.array(row["values"][metric], np.float64)


def _shown(value: Interval) -> str:
    return f"{value.mean:.1f} ({value.low:.1f} to {value.high:.1f})"


def _fact(parts: Sequence[Mapping[str, Any]], name: str) -> str:
    values = dict.fromkeys(str(part["facts"][name]) for part in parts)
    return f"{name} {', '.join(values)}"


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])
