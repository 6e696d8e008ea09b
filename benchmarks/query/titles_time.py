"""What titles cost: processor time of searches by words alone, with titles and without, in turns.

    python -m benchmarks.query.titles_time WORK --data ../shared/data/fashion [--rows 5096] [--rows 100000]

Makes a gallery of so many rows in WORK (kept for the next run): the set's titles in turn, as the only metadata, with
the model's vector of each title and some noise as the picture's. Asked for are the set's colours with its types and its
brands. Each way has a model and an engine of its own, so that neither finds what the other has just remembered.
"""

from __future__ import annotations

import hashlib
import os
import random
import statistics
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the server does, before numpy comes

import click
import numpy as np

from benchmarks.query.titles import brand_of
from image2sentence import Encoder, Gallery, Query, QueryEngine, load_encoder
from image2sentence.evaluation.datasets.labels import load_catalogue
from image2sentence.gallery.records import Content, FileEntry

BATCH, ENCODED = 10_000, 64
NOISE = 0.05
K, QUERIES = 10, 200
WARM = 5


def gallery_of(work: Path, titles: list[str], rows: int, encoder: Encoder) -> Gallery:
    """The gallery of so many rows, made where it is not there."""
    folder = work / f"titles-{rows}"
    if folder.exists():
        return Gallery.open(folder)
    read = [encoder.encode_queries(None, titles[at : at + ENCODED]) for at in range(0, len(titles), ENCODED)]
    vectors, rng = np.concatenate(read), np.random.default_rng(0)
    gallery = Gallery.create(folder, encoder.fingerprint, encoder.width)
    gallery.add_columns({"title": "text"})
    root = gallery.add_root((work / "pictures").resolve())
    for start in range(0, rows, BATCH):
        numbers = range(start, min(start + BATCH, rows))
        noisy = vectors[np.array(numbers) % len(titles)]
        noisy = noisy + NOISE * rng.standard_normal(noisy.shape).astype(np.float32)
        noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
        hashes = [hashlib.sha256(str(number).encode()).digest() for number in numbers]
        contents = [Content(one, 60, 80, vector) for one, vector in zip(hashes, noisy, strict=True)]
        entries = [
            FileEntry(f"{number:06}.jpg", 1, 0, one, metadata={"title": titles[number % len(titles)]})
            for number, one in zip(numbers, hashes, strict=True)
        ]
        gallery.commit(root, contents, entries)
    return gallery


def times(gallery: Gallery, asked: list[str]) -> str:
    """Both ways, of queries that neither has been asked before, and of the same once more."""
    engines = {titles: QueryEngine(load_encoder(threads=1), gallery) for titles in (False, True)}
    return "   ".join(f"{name}: {measured(engines, asked)}" for name in ("new", "again"))


def measured(engines: dict[bool, QueryEngine], asked: list[str]) -> str:
    """Medians of the processor time of both ways, in turns, each of them first as often as the other."""
    spent: dict[bool, list[float]] = {False: [], True: []}
    for number, words in enumerate(asked):
        for titles in (False, True) if number % 2 else (True, False):
            start = time.process_time()
            engines[titles].rank(Query(words=words, k=K, titles=titles))
            spent[titles].append(1000 * (time.process_time() - start))
    without, with_titles = (spent[titles][WARM:] for titles in (False, True))
    ratio = statistics.median(b / a for a, b in zip(without, with_titles, strict=True))
    return (
        f"{statistics.median(without):.2f} ms without, {statistics.median(with_titles):.2f} ms with titles, "
        f"ratio of pairs {ratio:.3f}"
    )


@click.command()
@click.argument("work", type=click.Path(path_type=Path, file_okay=False))
@click.option("--data", type=click.Path(path_type=Path, exists=True), default="../shared/data/fashion")
@click.option("--rows", "sizes", multiple=True, default=(5_096, 100_000), show_default=True)
def main(work: Path, data: Path, sizes: tuple[int, ...]) -> None:
    """Report what titles add to the time of a search by words."""
    catalogue = load_catalogue(data)
    looks = sorted({f"{row['colour']} {row['type']}".lower() for row in catalogue.rows})
    brands = sorted({f"{brand_of(row)} {row['type']}".lower() for row in catalogue.rows})
    for rows in sizes:
        encoder = load_encoder(threads=1)
        with gallery_of(work, [row["title"] for row in catalogue.rows], rows, encoder) as gallery:
            for name, asked in (("a colour and a type", looks), ("a brand and a type", brands)):
                random.Random(0).shuffle(asked)
                print(f"{rows:,} rows, {name}: {times(gallery, asked[:QUERIES])}", flush=True)


if __name__ == "__main__":
    main()
