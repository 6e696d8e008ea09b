"""Where the time of a query goes, and where that of indexing goes, stage by stage, in one run.

    python -m benchmarks.query.stages PICTURES [--model DIR] [--vectors N]

Query side: one picture and some words, median milliseconds of one at a time, and the symmetric query beside it, which
has the large visual encoder on the asking side. Gallery side: milliseconds per picture in batches, one thread but for
the encoder's own; below it the rate of `index_pictures`, which overlaps the stages.
`image2sentence bench` measures the query side of a model more closely.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from image2sentence.encoders import OnnxEncoder, load_encoder
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.gallery.records import Content, Entry
from image2sentence.gallery.search.searcher import Searcher
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.images import decode_image, load_image
from image2sentence.indexing.index_pictures import index_pictures
from image2sentence.indexing.walk import walk
from recipes.charts import markdown

WORDS = "but in red with long sleeves"
BATCH = 32
ROUNDS = 40
MIN_DECODE_SIDE = 512


def medians(stages: dict[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median milliseconds of every stage; they take turns, so that what else the machine does meets them alike."""
    spent: dict[str, list[float]] = {name: [] for name in stages}
    for turn in range(rounds + 3):
        for name, stage in stages.items():
            start = time.perf_counter()
            stage()
            if turn >= 3:
                spent[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(own) for name, own in spent.items()}


def query_side(encoder: OnnxEncoder, content: bytes, vectors: int) -> dict[str, float]:
    """Stages of one query, each with its input ready."""
    picture = decode_image(content, at_least=MIN_DECODE_SIDE).picture
    light, large = encoder.config.query_preprocessing, encoder.config.gallery_preprocessing
    sentence = encoder.encode_sentences([picture])
    query = encoder.encode_queries(sentence, [WORDS])
    rows = np.random.default_rng(0).standard_normal((vectors, encoder.width), np.float32)
    searcher = Searcher(list(range(vectors)), rows / np.linalg.norm(rows, axis=1, keepdims=True))
    alone = encoder.without_sentences()
    spent = medians(
        {
            "decode": lambda: decode_image(content, at_least=MIN_DECODE_SIDE),
            "resize and normalise": lambda: to_pixels([picture], light),
            "light encoder + token learner": lambda: encoder.encode_sentences([picture]),
            "text encoder": lambda: encoder.encode_queries(sentence, [WORDS]),
            f"search of {vectors:,} vectors": lambda: searcher.search(query, 10),
            "symmetric: resize and normalise": lambda: to_pixels([picture], large),
            "symmetric: large visual encoder": lambda: alone.encode_images([picture]),
        }
    )
    spent["light encoder + token learner"] -= spent["resize and normalise"]
    spent["symmetric: large visual encoder"] -= spent["symmetric: resize and normalise"]
    return spent


def gallery_side(encoder: OnnxEncoder, files: Sequence[Path]) -> dict[str, float]:
    """Milliseconds per picture of what indexing does with it."""
    how, spent = encoder.config.gallery_preprocessing, dict.fromkeys(_GALLERY_STAGES, 0.0)
    alone = encoder.without_sentences()

    def timed(name: str, stage: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = stage()
        spent[name] += 1000 * (time.perf_counter() - start) / len(files)
        return result

    with tempfile.TemporaryDirectory() as folder:
        gallery = Gallery.create(folder, encoder.fingerprint, encoder.width)
        with gallery:
            root = gallery.add_root(files[0].parent)
            alone.encode_images([load_image(files[0])])
            encoder.encode_images([load_image(files[0])])
            for first in range(0, len(files), BATCH):
                some = files[first : first + BATCH]
                contents = timed("read and hash", lambda some=some: [_read(file) for file in some])
                pictures = timed("decode", lambda contents=contents: [_decoded(data) for data, _ in contents])
                ready = timed("resize and normalise", lambda pictures=pictures: to_pixels(pictures, how))
                del ready
                timed("large visual encoder", lambda pictures=pictures: alone.encode_images(pictures))
                vectors = timed("own sentence", lambda pictures=pictures: encoder.encode_images(pictures))
                timed("write", lambda: gallery.commit(root, *_rows(some, contents, pictures, vectors)))  # noqa: B023
    spent["own sentence"] -= spent["large visual encoder"]  # it was timed with everything
    spent["large visual encoder"] -= spent["resize and normalise"]
    return spent


_GALLERY_STAGES = (
    "read and hash",
    "decode",
    "resize and normalise",
    "large visual encoder",
    "own sentence",
    "write",
)


def _read(file: Path) -> tuple[bytes, bytes]:
    data = file.read_bytes()
    return data, hashlib.sha256(data).digest()


def _decoded(data: bytes) -> Image.Image:
    return decode_image(data, at_least=MIN_DECODE_SIDE).picture


def _rows(
    files: Sequence[Path],
    contents: Sequence[tuple[bytes, bytes]],
    pictures: Sequence[Image.Image],
    vectors: np.ndarray,
) -> tuple[list[Content], list[Entry]]:
    rows = zip(files, contents, pictures, vectors, strict=True)
    stored = [
        (Content(digest, *picture.size, vector), Entry(file.name, len(data), 0, digest))
        for file, (data, digest), picture, vector in rows
    ]
    return [content for content, _ in stored], [entry for _, entry in stored]


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--model", type=click.Path(path_type=Path))
@click.option("--vectors", default=10_000, show_default=True, help="Made-up vectors that are searched.")
@click.option("--pictures", default=512, show_default=True, help="Pictures of the gallery side, at most.")
@click.option("--threads", default=0, show_default=True, help="Of ONNX Runtime; 0: one a core.")
def main(folder: Path, model: Path | None, vectors: int, pictures: int, threads: int) -> None:
    """Measure with the pictures of FOLDER."""
    encoder = load_encoder(model, threads)
    files = [folder / file.path for file in walk(folder, skip=folder / ".image2sentence").files][:pictures]
    query = query_side(encoder, files[0].read_bytes(), vectors)
    asked = sum(own for name, own in query.items() if not name.startswith("symmetric"))
    symmetric = asked - query["light encoder + token learner"] - query["resize and normalise"]
    symmetric += query["symmetric: resize and normalise"] + query["symmetric: large visual encoder"]
    gallery = gallery_side(encoder, files)
    print(
        _table(
            "query side, one at a time", "ms", query, {"composed query": asked, "symmetric query": symmetric}
        )
    )
    print(f"\nsymmetric / composed: {symmetric / asked:.2f}\n")
    whole = sum(gallery.values())
    print(
        _table(
            f"gallery side, {len(files)} pictures", "ms a picture", gallery, {"one after the other": whole}
        )
    )
    with (
        tempfile.TemporaryDirectory() as out,
        Gallery.create(out, encoder.fingerprint, encoder.width) as store,
    ):
        start = time.perf_counter()
        report = index_pictures(folder, store, encoder)
        each = 1000 * (time.perf_counter() - start) / report.encoded
    print(
        f"\nindex_pictures: {each:.2f} ms a picture over {report.encoded}; stages / whole: {whole / each:.2f}"
    )


def _table(title: str, unit: str, stages: dict[str, float], sums: dict[str, float]) -> str:
    lines = [[name, f"{value:.2f}"] for name, value in stages.items()]
    return markdown([title, unit], [*lines, *([f"**{n}**", f"**{v:.2f}**"] for n, v in sums.items())])


if __name__ == "__main__":
    main()
