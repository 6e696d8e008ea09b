"""How many threads a query's two small graphs should have, and whether idle ones should spin: settings compared.

    python -m benchmarks.query.threads [--work WORK]      # a minute; WORK as written by query_cost.py

A composed query as a program asks it: picture to sentence, sentence and words to vector, then the exact search of
10,000 vectors, whose matrix product has threads of its own. ONNX Runtime's idle threads spin for a while by default and
so take the cores from what comes next; `briefly` is how large graphs of a query are loaded. Every setting has a process
of its own, because such threads would disturb its neighbours too; the processes take turns, and the figures are medians
over all turns.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from image2sentence.encoders.model_folder import QUERY_IMAGE, QUERY_TEXT, bundled
from image2sentence.encoders.onnx_session import BETWEEN_OPERATORS
from recipes.charts import markdown

VECTORS, TURNS, QUERIES, WARM_UP = 10_000, 3, 30, 5
STAGES = ("image", "text", "search")


@dataclass(frozen=True)
class Setting:
    """`threads` of ONNX Runtime for each graph (0: one per core), whether idle ones spin, and within a run only."""

    threads: int
    spin: bool
    briefly: bool = False

    def session(self, graph: Path) -> Any:
        """`graph` loaded so."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self.threads, 3
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(self.spin)))
        for name, value in (BETWEEN_OPERATORS if self.briefly else {}).items():
            options.add_session_config_entry(name, value)
        return onnxruntime.InferenceSession(os.fspath(graph), options, providers=["CPUExecutionProvider"])


SETTINGS = {
    "one per core, spinning": Setting(0, True),
    "one per core, sleeping": Setting(0, False),
    "one per core, briefly": Setting(0, True, briefly=True),
    "one thread": Setting(1, False),
}


def ask(image: Path, text: Path, setting: Setting) -> dict[str, list[float]]:
    """Milliseconds of every stage in `QUERIES` queries, asked one after another."""
    from image2sentence.gallery.search.searcher import Searcher

    looking, reading = setting.session(image), setting.session(text)
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((1, *looking.get_inputs()[0].shape[1:]), np.float32)
    ids = rng.integers(4, 300, (1, 10))
    rows = rng.standard_normal((VECTORS, reading.run(None, _first(reading, ids))[0].shape[1]), np.float32)
    searcher = Searcher(list(range(VECTORS)), rows / np.linalg.norm(rows, axis=1, keepdims=True))
    spent: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for turn in range(WARM_UP + QUERIES):
        sentence, first = _timed(lambda: looking.run(None, {"pixels": pixels})[0])
        feed = {"sentence": sentence, "ids": ids}
        vector, second = _timed(lambda feed=feed: reading.run(None, feed)[0])  # type: ignore[misc]
        _, third = _timed(lambda vector=vector: searcher.search(vector, 10))  # type: ignore[misc]
        if turn >= WARM_UP:
            for stage, value in zip(STAGES, (first, second, third), strict=True):
                spent[stage].append(value)
    return spent


def compare(image: Path, text: Path) -> list[list[str]]:
    """A row for each setting: its median milliseconds by stage, and those of whole queries."""
    spent: dict[str, dict[str, list[float]]] = {name: {stage: [] for stage in STAGES} for name in SETTINGS}
    fresh = multiprocessing.get_context("spawn")
    for _ in range(TURNS):
        for name, setting in SETTINGS.items():
            with ProcessPoolExecutor(1, mp_context=fresh) as process:
                for stage, values in process.submit(ask, image, text, setting).result().items():
                    spent[name][stage] += values
    return [[name, *_medians(stages)] for name, stages in spent.items()]


def _medians(stages: dict[str, list[float]]) -> list[str]:
    whole = [sum(parts) for parts in zip(*stages.values(), strict=True)]
    return [f"{statistics.median(values):.2f}" for values in (*stages.values(), whole)]


def _first(reading: Any, ids: np.ndarray) -> dict[str, np.ndarray]:
    width = reading.get_inputs()[0].shape[2]
    return {"sentence": np.zeros((1, 4, width), np.float32), "ids": ids}


def _timed(stage: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = stage()
    return result, 1000 * (time.perf_counter() - start)


@click.command()
@click.option("--work", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Larger graphs.")
def main(work: Path | None) -> None:
    """Compare thread settings for the bundled model, and for graphs of BLIP-base's size in WORK."""
    models = {"bundled, int8": (bundled() / QUERY_IMAGE, bundled() / QUERY_TEXT)}
    if work is not None:
        light = "light-mobilenet-v2-160"
        models["MobileNetV2 + BLIP-base, fp32"] = (work / f"{light}.onnx", work / "text.onnx")
        models["MobileNetV2 + BLIP-base, int8"] = (work / f"{light}.int8.onnx", work / "text.int8.onnx")
    for name, (image, text) in models.items():
        click.echo(markdown([f"{name}: ms", *STAGES, "query"], compare(image, text)) + "\n")


if __name__ == "__main__":
    main()
