"""A gallery in a folder against the same in Milvus Lite: writing, bytes, opening, searching, filters.

    python -m benchmarks.gallery.stores [--count N] [--width D]

Both get the same vectors (synthetic clusters of `million_vectors.py`), paths and metadata, committed in batches of 32
as indexing does, and the same queries, one at a time, in turns. Search is exact in both: the folder's Searcher without
an index file, Milvus Lite's FLAT index. Answers must be the same pictures with the same scores.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from benchmarks.gallery.million_vectors import clusters
from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.opening import open_gallery, open_or_create_gallery
from image2sentence.gallery.records import Content, Entry
from image2sentence.gallery.search.base import Hit

BATCH = 32
K = 10
FILTER = "price < 10"  # of prices from 0 to 1,000: 1 %
QUERIES = 50

Answers = list[list[Hit]]


@dataclass(frozen=True)
class StoreFigures:
    """What a store takes: `search` and `filtered` are milliseconds of a query, medians."""

    written_per_second: float
    bytes_per_picture: float
    open_seconds: float
    search: float
    filtered: float
    answers: Answers


def file_name(number: int) -> str:
    """A path of the usual length."""
    return f"shop/{number // 1000:05}/{number:09}.jpg"


def batches(vectors: Vectors) -> Iterator[tuple[list[Content], list[Entry]]]:
    """What indexing commits, for each batch."""
    prices = np.random.default_rng(3).integers(0, 1000, len(vectors)).tolist()
    for start in range(0, len(vectors), BATCH):
        contents, entries = [], []
        for number in range(start, min(start + BATCH, len(vectors))):
            sha256 = number.to_bytes(32, "big")
            contents.append(Content(sha256, 1280, 960, vectors[number]))
            entries.append(
                Entry(file_name(number), 200_000, number, sha256, metadata={"price": prices[number]})
            )
        yield contents, entries


def write(name: str, vectors: Vectors) -> float:
    """Make the gallery; seconds."""
    with open_or_create_gallery(name, "benchmark", vectors.shape[1]) as gallery:
        gallery.add_columns({"price": "number"})
        root = gallery.add_root(Path("/pictures"))
        start = time.perf_counter()
        for contents, entries in batches(vectors):
            gallery.commit(root, contents, entries)
    return time.perf_counter() - start


def bytes_below(folder: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def asked(gallery: GalleryStore, queries: Vectors, where: str | None) -> tuple[float, Answers]:
    """Median milliseconds of a query, and the answers."""
    searcher = gallery.searcher()
    spent, answers = [], []
    searcher.search(queries[:1], K, where=where)
    for number in range(len(queries)):
        start = time.perf_counter()
        answers += searcher.search(queries[number : number + 1], K, where=where)
        spent.append(1000 * (time.perf_counter() - start))
    return statistics.median(spent), answers


def measure(name: str, folder: Path, vectors: Vectors, queries: Vectors) -> StoreFigures:
    """Write, weigh, open and ask one store, whose files lie below `folder`."""
    seconds = write(name, vectors)
    start = time.perf_counter()
    with open_gallery(name) as gallery:
        gallery.searcher().search(queries[:1], K)
        opened = time.perf_counter() - start
        plain, answers = asked(gallery, queries, None)
        filtered, few = asked(gallery, queries, FILTER)
    size = bytes_below(folder) / len(vectors)
    return StoreFigures(len(vectors) / seconds, size, opened, plain, filtered, answers + few)


def measured(count: int, width: int, made: Callable[[Path], str]) -> StoreFigures:
    """The figures of one store, of `count` vectors in a folder that is gone afterwards."""
    material = clusters(count, width)
    with tempfile.TemporaryDirectory() as place:
        return measure(made(Path(place)), Path(place), material.gallery, material.queries[:QUERIES])


def embedded(folder: Path) -> str:
    """The name of a gallery in a folder."""
    return str(folder / "gallery")


def milvus_lite(folder: Path) -> str:
    """The name of a gallery in Milvus Lite."""
    return f"milvus+file://{folder}/gallery.db"


def same(first: Answers, second: Answers) -> bool:
    """Whether both name the same pictures with the same scores."""
    return [[(h.id, h.score) for h in hits] for hits in first] == [
        [(h.id, h.score) for h in hits] for hits in second
    ]


@click.command()
@click.option("--count", default=20_000, show_default=True, help="Pictures.")
@click.option("--width", default=256, show_default=True, help="Width of the vectors.")
def main(count: int, width: int) -> None:
    """Compare the stores."""
    folder, milvus = (measured(count, width, made) for made in (embedded, milvus_lite))
    print(f"{count:,} pictures, width {width}; folder, Milvus Lite, ratio")
    for name in ("written_per_second", "bytes_per_picture", "open_seconds", "search", "filtered"):
        ours, theirs = getattr(folder, name), getattr(milvus, name)
        print(f"{name:20} {ours:12,.2f} {theirs:12,.2f} {theirs / ours:8.2f}")
    print("answers the same" if same(folder.answers, milvus.answers) else "ANSWERS DIFFER")
    print(
        f"memory of this process at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
    )


if __name__ == "__main__":
    main()
