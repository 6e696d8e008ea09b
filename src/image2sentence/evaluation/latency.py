"""Latency and memory of a query by stage, for `image2sentence bench`.

The symmetric query has the large visual encoder on the asking side: what this package exists to avoid. All stages take
turns in every round, so that whatever else the machine does meets them alike. Figures are medians, in milliseconds.
"""

from __future__ import annotations

import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from image2sentence.encoders.model_folder import GRAPHS, QUERY_IMAGE
from image2sentence.encoders.onnx_encoder import OnnxEncoder, load_encoder
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.errors import ConfigError, ModelError
from image2sentence.gallery.search.searcher import Searcher
from image2sentence.images import load_image

WORDS = "but in red with long sleeves and stripes"
MIN_DECODE_SIDE = 512
"""Side in pixels that pictures are decoded to at least, as a search does."""
COMPOSED = ("prepare", "image", "token_learner", "text")
"""Stages of a composed query; a model without a light side asks with the large encoder, as `SYMMETRIC` does."""
SYMMETRIC = ("symmetric_prepare", "symmetric_image", "text")
_WARM_UP = 3
_LEARNER = "/learner/"


class Measured(TypedDict):
    """One model's costs. `stages` and the three sums below are milliseconds, `peak_bytes` is None where not known.

    `stages` and `bytes` have no `prepare`, `image`, `token_learner` and query graph for a model without a light side.
    """

    model: str
    precision: dict[str, str]
    bytes: dict[str, int]
    stages: dict[str, float]
    composed: float
    another_modifier: float
    symmetric: float
    cold_seconds: float
    peak_bytes: int | None


def measure(
    models: Mapping[str, Path | None],
    picture: bytes,
    words: str = WORDS,
    *,
    gallery: int = 10_000,
    threads: int = 0,
    rounds: int = 30,
    device: str | None = None,
) -> dict[str, Measured]:
    """Measures model folders, by any names; None is the model that a search would use.

    Args:
        models: The folders. All are loaded at once, and their stages take turns.
        picture: An encoded picture to ask with.
        words: What to ask.
        gallery: Vectors to search, made up.
        threads: As `load_encoder`'s.
        rounds: Turns that the medians are taken over.
        device: As `load_encoder`'s; that of a new process is always $IMAGE2SENTENCE_DEVICE.

    Raises:
        ModelError: a folder cannot be used.
        ImageError: the picture cannot be read.
        QueryError: the words are too long.
    """
    if rounds < 1 or gallery < 1:
        raise ConfigError(f"expected at least one round and one vector, got {rounds} and {gallery}")
    encoders = {name: load_encoder(model, threads, device=device) for name, model in models.items()}
    stages = {
        (name, stage): run
        for name, encoder in encoders.items()
        for stage, run in _stages(encoder, picture, words, gallery).items()
    }
    spent = _medians(stages, rounds)
    return {
        name: _summed(
            encoder, {stage: spent[name, stage] for owner, stage in stages if owner == name}, picture, words
        )
        for name, encoder in encoders.items()
    }


def _summed(encoder: OnnxEncoder, spent: dict[str, float], picture: bytes, words: str) -> Measured:
    light = encoder.folder.has_light_side
    stages = _apart(spent, learner_share(encoder, picture)) if light else spent
    cold, peak = cold_query(encoder.folder.path, picture, words)
    return {
        "model": str(encoder.folder.path),
        "precision": encoder.config.parity.get("precision", {}),
        "bytes": {
            name: (encoder.folder.path / name).stat().st_size
            for name in GRAPHS
            if name in encoder.config.files
        },
        "stages": stages,
        "composed": sum(stages[name] for name in (COMPOSED if light else SYMMETRIC)),
        "another_modifier": stages["text"],
        "symmetric": sum(stages[name] for name in SYMMETRIC),
        "cold_seconds": cold,
        "peak_bytes": peak,
    }


def drawn_picture(side: int = 640) -> bytes:
    """A drawn product as a JPEG file, for who gives no picture of their own."""
    from image2sentence.catalogue import draw, sample

    buffer = io.BytesIO()
    draw(sample(random.Random(1)), side).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def cold_query(model: Path, picture: bytes, words: str, runs: int = 3) -> tuple[float, int | None]:
    """Seconds from starting a Python process to the end of its first composed query, and its peak memory in bytes.

    The median of `runs`; memory is None where the system does not tell. Raises ModelError where the process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "picture")
        file.write_bytes(picture)
        program = [sys.executable, "-c", f"from {__name__} import first_query; first_query()"]
        done = [_timed_process([*program, str(model), str(file), words]) for _ in range(runs)]
    return statistics.median(seconds for seconds, _ in done), json.loads(done[-1][1])


def first_query() -> None:
    """What a cold process does: one composed query; prints its peak memory as JSON. Reads the process's arguments."""
    model, picture, words = sys.argv[1:]
    encoder = load_encoder(model)
    sentences = encoder.encode_sentences([load_image(picture, at_least=MIN_DECODE_SIDE)])
    encoder.encode_queries(sentences, [words])
    print(json.dumps(peak_memory()))


def peak_memory() -> int | None:
    """This process's largest resident memory so far, in bytes; None where the system does not tell.

    Not `getrusage`: its figure survives exec, and so would be the parent's.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(peaks[0]) if peaks else None


def learner_share(encoder: OnnxEncoder, picture: bytes, runs: int = 10) -> float:
    """The token learner's share, 0 to 1, of the time that the graph `query_image` takes, by ONNX Runtime's profile."""
    import onnxruntime

    pixels = to_pixels([load_image(picture, at_least=MIN_DECODE_SIDE)], encoder.config.query_preprocessing)
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.log_severity_level = True, 3
        options.profile_file_prefix = os.path.join(folder, "profile")
        content = encoder.folder.read(QUERY_IMAGE)
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        for _ in range(runs):
            session.run(None, {"pixels": pixels})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    spent: dict[str, list[int]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            spent.setdefault(event["name"], []).append(event["dur"])
    medians = {name: statistics.median(durations) for name, durations in spent.items()}
    whole = sum(medians.values())
    return sum(value for name, value in medians.items() if _LEARNER in name) / whole if whole else 0.0


def table(results: Mapping[str, Measured]) -> str:
    """The results as aligned columns, one for each model, with the symmetric query's cost as a multiple."""
    rows: list[tuple[str, Sequence[str]]] = [("", list(results))]
    values = list(results.values())

    def row(name: str, cell: Callable[[Measured], str]) -> None:
        rows.append((name, [cell(value) for value in values]))

    def heading(name: str) -> None:
        rows.append((name, [""] * len(values)))

    heading("stages, ms")
    for name, stage in _STAGE_NAMES.items():
        row(f"  {stage}", lambda m, key=name: _milliseconds(m, key))  # type: ignore[misc]
    heading("queries, ms, the picture decoded")
    row("  composed query", lambda m: f"{m['composed']:.2f}")
    row("  another modifier, same picture", lambda m: f"{m['another_modifier']:.2f}")
    row("  symmetric query", lambda m: f"{m['symmetric']:.2f}")
    row("  symmetric / composed", lambda m: f"{m['symmetric'] / m['composed']:.1f} x")
    heading("a new process")
    row("  to the first composed vector", lambda m: f"{1000 * m['cold_seconds']:.0f} ms")
    row("  its peak memory", lambda m: f"{m['peak_bytes'] / 1e6:.0f} MB" if m["peak_bytes"] else "unknown")
    heading("graphs")
    for name in GRAPHS:
        row(f"  {Path(name).stem}", lambda m, key=name: _size(m, key))  # type: ignore[misc]
    return _aligned(rows)


_STAGE_NAMES = {
    "decode": "decode",
    "prepare": "resize and normalise",
    "image": "light encoder",
    "token_learner": "token learner",
    "text": "text encoder",
    "search": "search",
    "symmetric_prepare": "symmetric: resize and normalise",
    "symmetric_image": "symmetric: large visual encoder",
}


def _stages(encoder: OnnxEncoder, picture: bytes, words: str, gallery: int) -> dict[str, Callable[[], Any]]:
    """What is timed, by name; each has its input ready."""
    config, image = encoder.config, load_image(picture, at_least=MIN_DECODE_SIDE)
    small, large = (
        to_pixels([image], how) for how in (config.query_preprocessing, config.gallery_preprocessing)
    )
    sentences = encoder.encode_sentences([image])
    query = encoder.encode_queries(sentences, [words])
    searcher = _made_up(gallery, encoder.width)
    light: dict[str, Callable[[], Any]] = {
        "prepare": lambda: to_pixels([image], config.query_preprocessing),
        "image": lambda: encoder._query_image.run(None, {"pixels": small}),
    }
    return {
        "decode": lambda: load_image(picture, at_least=MIN_DECODE_SIDE),
        **(light if encoder.folder.has_light_side else {}),
        "text": lambda: encoder.encode_queries(sentences, [words]),
        "search": lambda: searcher.search(query, 10),
        "symmetric_prepare": lambda: to_pixels([image], config.gallery_preprocessing),
        "symmetric_image": lambda: encoder._gallery_image.run(["vectors"], {"pixels": large}),
    }


def _apart(stages: dict[str, float], learner: float) -> dict[str, float]:
    """The token learner's share taken out of what its graph spent."""
    graph = stages["image"]
    return stages | {"image": (1 - learner) * graph, "token_learner": learner * graph}


def _made_up(count: int, width: int) -> Searcher:
    vectors = np.random.default_rng(0).standard_normal((count, width), np.float32)
    return Searcher(list(range(count)), vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _medians(
    stages: Mapping[tuple[str, str], Callable[[], Any]], rounds: int
) -> dict[tuple[str, str], float]:
    times: dict[tuple[str, str], list[float]] = {name: [] for name in stages}
    for turn in range(_WARM_UP + rounds):
        for name, run in stages.items():
            run()  # brings back what the others' turns have pushed out of the caches
            start = time.perf_counter()
            run()
            if turn >= _WARM_UP:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def _timed_process(command: Sequence[str]) -> tuple[float, str]:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise ModelError(f"a new process could not answer a query: {done.stderr.strip()[-500:]}")
    return seconds, done.stdout


def _milliseconds(measured: Measured, stage: str) -> str:
    return f"{measured['stages'][stage]:.2f}" if stage in measured["stages"] else "none"


def _size(measured: Measured, name: str) -> str:
    if name not in measured["bytes"]:
        return "none"
    graph = Path(name).stem
    return f"{measured['bytes'][name] / 1e6:.1f} MB {measured['precision'].get(graph, '')}".rstrip()


def _aligned(rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    first = max(len(name) for name, _ in rows)
    widths = [max(len(cells[i]) for _, cells in rows) for i in range(len(rows[0][1]))]
    return "\n".join(
        name.ljust(first) + "".join(f"  {c:>{w}}" for c, w in zip(cells, widths, strict=True))
        for name, cells in rows
    )
