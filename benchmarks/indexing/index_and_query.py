"""Indexing rate against the bare encoder, and a composed query from a cold command line, in one run.

    python -m benchmarks.indexing.index_and_query PICTURES [--model DIR]

Prints pictures per second of `image2sentence index` (reading, decoding, encoding, committing) beside the encoder's own
rate on pictures already decoded, and their ratio; that rate beside the large encoder's alone; then wall time of the
whole `image2sentence search` process with the part of it that encoding took, and what a second `index` of the unchanged
folder encodes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from PIL import Image

from image2sentence.encoders import load_encoder
from image2sentence.encoders.onnx_encoder import OnnxEncoder
from image2sentence.images import load_image
from image2sentence.indexing.walk import walk

BATCH = 32
DECODED = 512


def command(*arguments: str, model: Path | None) -> tuple[float, dict[str, object]]:
    """Seconds and JSON answer of one cold `image2sentence` process."""
    environment = os.environ | ({"IMAGE2SENTENCE_MODEL": str(model)} if model else {})
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "image2sentence", *arguments, "--json"],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return time.perf_counter() - start, json.loads(done.stdout)


def bare_rate(images: list[Image.Image], encoder: OnnxEncoder) -> float:
    """Pictures per second of `encode_images` alone."""
    encoder.encode_images(images[:BATCH])
    start = time.perf_counter()
    for first in range(0, len(images), BATCH):
        encoder.encode_images(images[first : first + BATCH])
    return len(images) / (time.perf_counter() - start)


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--model", type=click.Path(path_type=Path))
@click.option("--runs", default=5, show_default=True, help="Cold queries.")
def main(folder: Path, model: Path | None, runs: int) -> None:
    """Measure FOLDER."""
    pictures = [folder / file.path for file in walk(folder, skip=folder / ".image2sentence").files]
    with tempfile.TemporaryDirectory() as gallery:
        _, first = command("index", str(folder), "--gallery", gallery, model=model)
        images = [load_image(path, at_least=512) for path in pictures[:DECODED]]
        encoder = load_encoder(model)
        bare, large = (bare_rate(images, one) for one in (encoder, encoder.without_sentences()))
        _, second = command("index", str(folder), "--gallery", gallery, model=model)
        asked = ["search", str(pictures[0]), "but red", "--gallery", gallery]
        queries = [command(*asked, model=model) for _ in range(runs)]
    walls = [wall for wall, _ in queries]
    encode = [answer["timing"]["encode_ms"] for _, answer in queries]  # type: ignore[index]
    rate = float(str(first["rate"]))
    print(f"index          {rate:8.0f} pictures/s over {first['found']} files, {len(first['failed'])} failed")  # type: ignore[arg-type]
    print(f"bare encoder   {bare:8.0f} pictures/s, batches of {BATCH}, decoded beforehand")
    print(f"ratio          {rate / bare:8.2f}")
    print(f"large alone    {large:8.0f} pictures/s: gallery vectors without the pictures' own sentences")
    print(f"ratio          {bare / large:8.2f}")
    print(f"second index   {second['encoded']!s:>8} encoded")
    print(
        f"cold query     {1000 * statistics.median(walls):8.0f} ms wall (max {1000 * max(walls):.0f}), {runs} runs"
    )
    print(f"of it encoding {statistics.median(encode):8.1f} ms (max {max(encode):.1f})")


if __name__ == "__main__":
    main()
