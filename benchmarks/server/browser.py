"""The query side in a headless Chromium against the Python runtime, in one run: milliseconds, and vectors compared.

    python -m benchmarks.server.browser PICTURES [--rounds 100]

PICTURES is a folder of photographs. Needs node, chromium and `npm ci` in js/.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from image2sentence.encoders import OnnxEncoder, load_encoder
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.images import MIN_DECODE_SIDE, decode_image

SCRIPT = Path(__file__).resolve().parents[2] / "js" / "scripts" / "bench.js"
WORDS = "in red with long sleeves and white stripes"
PICTURES = 100
PHOTO = (640, 480)
LARGE = (4000, 3000)
WARM_UP = 20
STAGES = ("decode_ms", "resize_ms", "sentence_ms", "words_ms", "query_ms")


def prepare(folder: Path, pictures: list[Path]) -> list[str]:
    """Copies of the pictures, the first of them 640 x 480, and one of 12 megapixels; names of all but the last."""
    names = []
    for number, path in enumerate(pictures):
        names.append(f"{number}{path.suffix.lower()}")
        (folder / names[-1]).write_bytes(path.read_bytes())
    with Image.open(pictures[0]) as picture:
        for name, size in (("photo.jpg", PHOTO), ("large.jpg", LARGE)):
            picture.convert("RGB").resize(size).save(folder / name, quality=90)
    return ["photo.jpg", *names]


def in_browser(folder: Path, names: list[str], threads: int, rounds: int) -> dict[str, Any]:
    """What scripts/bench.js measures."""
    asked = json.dumps({"pictures": names, "large": "large.jpg", "words": WORDS})
    command = ["node", str(SCRIPT), str(folder), str(threads), str(rounds)]
    ran = subprocess.run(command, input=asked, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def in_python(folder: Path, threads: int, rounds: int) -> dict[str, float]:
    """Milliseconds of the same stages."""
    encoder = load_encoder(threads=threads)
    photo, large = ((folder / name).read_bytes() for name in ("photo.jpg", "large.jpg"))
    picture = decode_image(photo, at_least=MIN_DECODE_SIDE).picture
    sentence = encoder.encode_sentences([picture])
    stages: dict[str, Callable[[], object]] = {
        "decode_ms": lambda: decode_image(photo, at_least=MIN_DECODE_SIDE),
        "resize_ms": lambda: to_pixels([picture], encoder.config.query_preprocessing),
        "sentence_ms": lambda: encoder.encode_sentences([picture]),
        "words_ms": lambda: encoder.encode_queries(sentence, [WORDS]),
        "query_ms": lambda: encoder.encode_queries(encoder.encode_sentences([picture]), [WORDS]),
    }
    found = {name: _median(stage, rounds) for name, stage in stages.items()}
    return found | {"large_decode_ms": _median(lambda: decode_image(large, at_least=MIN_DECODE_SIDE), 5)}


def _median(stage: Callable[[], object], rounds: int) -> float:
    for _ in range(min(WARM_UP, rounds)):
        stage()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        stage()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def python_vectors(encoder: OnnxEncoder, folder: Path, names: list[str]) -> np.ndarray:
    """(n, d) query vectors."""
    pictures = (
        decode_image((folder / name).read_bytes(), at_least=MIN_DECODE_SIDE).picture for name in names
    )
    return np.concatenate(
        [encoder.encode_queries(encoder.encode_sentences([one]), [WORDS]) for one in pictures]
    )


def apart(mine: list[list[float]], theirs: np.ndarray) -> str:
    """Largest and mean 1 - cosine of rows."""
    rows = np.array(mine)
    distances = 1 - (rows * theirs).sum(1) / (np.linalg.norm(rows, axis=1) * np.linalg.norm(theirs, axis=1))
    return f"largest {distances.max():.1e}, mean {distances.mean():.1e}"


def report(browsers: list[dict[str, Any]], pythons: list[dict[str, float]]) -> None:
    """A table: a column for each number of threads, in the browser and in Python."""
    print(f"Chromium {browsers[0]['browser']}; medians in ms; words: {WORDS!r}")
    columns = [(f"WebAssembly {one['threads']}", one) for one in browsers]
    columns += [(f"Python {place}", one) for place, one in enumerate(pythons, 1)]
    print(
        f"{'':18}" + "".join(f"{name:>15}" for name, _ in columns) + "    browser / Python, 1 and 2 threads"
    )
    for stage in (*STAGES, "large_decode_ms"):
        cells = "".join(f"{column[stage]:15.2f}" for _, column in columns)
        ratios = [one[stage] / other[stage] for one, other in zip(browsers, pythons, strict=True)]
        print(f"{stage:18}{cells}    " + " ".join(f"{ratio:5.1f}" for ratio in ratios))
    for stage in ("load_ms", "load_kept_ms", "first_picture_ms", "first_words_ms"):
        print(f"{stage:18}" + "".join(f"{one[stage]:15.0f}" for one in browsers))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    chosen = sorted(p for p in options.pictures.rglob("*") if p.suffix.lower() in (".jpg", ".png"))[:PICTURES]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = prepare(folder, chosen)
        browsers = [in_browser(folder, names, threads, options.rounds) for threads in (1, 2)]
        pythons = [in_python(folder, threads, options.rounds) for threads in (1, 2)]
        report(browsers, pythons)
        theirs = python_vectors(load_encoder(threads=1), folder, names)
    print(f"1 - cosine to Python's vectors, {len(names)} pictures: {apart(browsers[0]['vectors'], theirs)}")
    print(f"the same with the canvas's own scaling: {apart(browsers[0]['scaled_by_canvas'], theirs)}")


if __name__ == "__main__":
    main()
