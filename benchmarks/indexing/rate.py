"""What indexing loses against the bare encoder, and where its time goes.

    python -m benchmarks.indexing.rate PICTURES [--model DIR] [--count N] [--rounds N]

In turns, on the same pictures: `index_pictures` into a new gallery (listing, reading, hashing, decoding, encoding,
committing); the encoder alone on batches decoded beforehand; and reading, decoding and encoding one after the other.
Prints pictures per second of each (the median round), their ratios, and milliseconds per picture of every step alone.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
from PIL import Image

from image2sentence.encoders import OnnxEncoder, load_encoder
from image2sentence.gallery import Gallery
from image2sentence.images import decode_image
from image2sentence.indexing import index_pictures

BATCH = 32
MIN_DECODE_SIDE = 512


def decode(path: Path) -> Image.Image:
    """A picture as indexing decodes it."""
    return decode_image(path.read_bytes(), at_least=MIN_DECODE_SIDE).picture


def index(folder: Path, encoder: OnnxEncoder) -> None:
    """Index a folder into a new gallery."""
    with tempfile.TemporaryDirectory() as place:
        with Gallery.create(place, encoder.fingerprint, encoder.width) as gallery:
            report = index_pictures(folder, gallery, encoder, batch_size=BATCH)
        assert report.encoded + report.duplicates + len(report.failed) == report.found


def encode(images: list[Image.Image], encoder: OnnxEncoder) -> None:
    """Encode decoded pictures batch by batch."""
    for start in range(0, len(images), BATCH):
        encoder.encode_images(images[start : start + BATCH])


def serial(paths: list[Path], encoder: OnnxEncoder) -> None:
    """Decode and encode, batch by batch, nothing at once."""
    for start in range(0, len(paths), BATCH):
        encoder.encode_images([decode(path) for path in paths[start : start + BATCH]])


def seconds(work: Callable[[], object]) -> float:
    """Wall time."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def steps(paths: list[Path], encoder: OnnxEncoder) -> dict[str, float]:
    """Seconds of each step alone, one picture after the other in one thread; the encoder's graph in batches."""
    data = [path.read_bytes() for path in paths]
    images = [decode_image(content, at_least=MIN_DECODE_SIDE).picture for content in data]
    rows = [encoder.prepare(image) for image in images]
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    return {
        "read": seconds(lambda: [path.read_bytes() for path in paths]),
        "hash": seconds(lambda: [hashlib.sha256(content).digest() for content in data]),
        "decode": seconds(lambda: [decode_image(content, at_least=MIN_DECODE_SIDE) for content in data]),
        "resize and normalise": seconds(lambda: [encoder.prepare(image) for image in images]),
        "encoder's graph (one batch's cores)": seconds(
            lambda: [encoder.encode_prepared(batch) for batch in batches]
        ),
    }


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--model", type=click.Path(path_type=Path))
@click.option("--count", default=1_500, show_default=True, help="Pictures taken of the folder.")
@click.option("--rounds", default=5, show_default=True)
def main(folder: Path, model: Path | None, count: int, rounds: int) -> None:
    """Measure with the pictures of FOLDER."""
    encoder = load_encoder(model)
    with tempfile.TemporaryDirectory() as copy:
        paths = [Path(shutil.copy(path, copy)) for path in sorted(folder.iterdir())[:count]]
        images = [decode(path) for path in paths]
        encode(images[: 4 * BATCH], encoder)
        works: dict[str, Callable[[], object]] = {
            "index": lambda: index(Path(copy), encoder),
            "bare encoder": lambda: encode(images, encoder),
            "decode, then encode": lambda: serial(paths, encoder),
        }
        spent = {name: [] for name in works}
        for _ in range(rounds):
            for name, work in works.items():
                spent[name].append(seconds(work))
        alone = steps(paths, encoder)
    rates = {name: len(paths) / statistics.median(times) for name, times in spent.items()}
    for name, rate in rates.items():
        print(f"{name:20} {rate:7.0f} pictures/s   {rate / rates['bare encoder']:.3f} of the bare encoder")
    for name, spent_alone in alone.items():
        print(f"  {name:36} {1000 * spent_alone / len(paths):6.3f} ms a picture")


if __name__ == "__main__":
    main()
