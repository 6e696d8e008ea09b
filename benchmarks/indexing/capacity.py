"""What a million to a billion pictures take, computed from what is measured here.

    python -m benchmarks.indexing.capacity PICTURES [--model DIR] [--count N] [--core-hour USD] [--core-seconds S]

Measures, on this machine: pictures per second of one worker on one core (reading, decoding and encoding real files as
`index --engine ray` does), bytes and write rate of both stores (see `stores.py`), bytes of both index codes, and
memory of the process that lists and writes. Everything else is arithmetic, marked *: rates and bytes are taken to
be the same at every size, cores to add up, and a graph index of Milvus to take what its links take.
"""

from __future__ import annotations

import os
import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from benchmarks.gallery.million_vectors import clusters
from benchmarks.gallery.stores import BATCH, embedded, file_name, measured, milvus_lite
from image2sentence.encoders import load_encoder
from image2sentence.gallery.records import Known
from image2sentence.gallery.search.faiss_index import AnnSettings, Code, build
from image2sentence.images import MAX_PIXELS, MIN_DECODE_SIDE
from image2sentence.indexing.ray import Task, Worker
from image2sentence.indexing.sources import open_source
from image2sentence.indexing.walk import FoundFile

SIZES = (10**6, 10**7, 10**8, 10**9)
MACHINE_CORES, MACHINE_BYTES = 16, 128e9
FILLED = 0.7  # of a machine's memory, by vectors
LINKS = 2 * 32 * 4  # bytes of a picture's links in HNSW with M = 32 (`gallery/milvus/layout.py`)
WARM_UP = 64


@dataclass(frozen=True)
class Measured:
    """Figures of this machine; bytes are those of one picture."""

    width: int
    rate: float
    folder_rate: float
    folder_bytes: float
    milvus_rate: float
    milvus_bytes: float
    sq8_bytes: float
    pq_bytes: float
    driver_bytes: float


def worker_rate(folder: Path, model: Path | None, count: int) -> float:
    """Pictures per second of one worker that has one core: the median of three rounds."""
    source = open_source(folder)
    files = source.walk(None).files[: count + WARM_UP]
    make = partial(load_encoder, model, threads=1)
    worker = Worker(Task(source, make, make().fingerprint, BATCH, MIN_DECODE_SIDE, MAX_PIXELS))
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        worker.prepare()
        list(worker.work(files[:WARM_UP], None, 0))
        return statistics.median(_rate(worker, files[WARM_UP:]) for _ in range(3))
    finally:
        os.sched_setaffinity(0, cores)


def _rate(worker: Worker, files: list[FoundFile]) -> float:
    start = time.perf_counter()
    done = sum(len(batch) for batch in worker.work(files, None, 0))
    return done / (time.perf_counter() - start)


def index_bytes(code: Code, width: int, count: int = 50_000) -> float:
    """Bytes of a vector in an index, without its centres, which grow as the root of the number."""
    settings = AnnSettings(code=code, lists=64, probes=1)
    index = build(clusters(count, width).gallery, settings)
    return (index.to_bytes().nbytes - 64 * width * 4) / count


def driver_bytes(count: int = 50_000) -> float:
    """Memory per picture of the process that lists and writes: what is there, and what the gallery knows."""
    tracemalloc.start()
    found = [FoundFile(file_name(n), 200_000 + n, 10**18 + n) for n in range(count)]
    known = {file_name(n): Known(10**6 + n, 10**6 + n, 10**18 + n, None, n << 20) for n in range(count)}
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return 2 * size / (len(found) + len(known))


def measure(folder: Path, model: Path | None, count: int) -> Measured:
    """Measure everything."""
    width = load_encoder(model).width
    rate = worker_rate(folder, model, count)
    ours, theirs = (measured(20_000, width, made) for made in (embedded, milvus_lite))
    sq8, pq = index_bytes("sq8", width), index_bytes("pq", width)
    return Measured(
        width,
        rate,
        ours.written_per_second,
        ours.bytes_per_picture,
        theirs.written_per_second,
        theirs.bytes_per_picture,
        sq8,
        pq,
        driver_bytes(),
    )


def plan(m: Measured, rate: float, core_hour: float) -> list[tuple[str, Callable[[int], str]]]:
    """The rows: what, and its value for n pictures; `rate` is pictures per second of a core."""

    def machines(size: float) -> str:
        return f"{max(1, -(-size // (FILLED * MACHINE_BYTES))):,.0f}"

    graph = 4 * m.width + LINKS
    return [
        ("core-hours to encode *", lambda n: f"{n / rate / 3600:,.1f}"),
        ("cost to encode, USD *", lambda n: f"{n / rate / 3600 * core_hour:,.2f}"),
        (
            f"machines of {MACHINE_CORES} cores to encode in a day *",
            lambda n: f"{-(-n // (rate * 86400 * MACHINE_CORES)):,.0f}",
        ),
        ("hours of the one writer, folder *", lambda n: f"{n / m.folder_rate / 3600:,.1f}"),
        ("hours of the one writer, Milvus Lite's rate *", lambda n: f"{n / m.milvus_rate / 3600:,.1f}"),
        ("memory of the one writer, known and found, GB *", lambda n: f"{n * m.driver_bytes / 1e9:,.1f}"),
        ("gallery in a folder, disk, GB *", lambda n: f"{n * m.folder_bytes / 1e9:,.1f}"),
        (
            "search in a folder, memory (vectors and index), GB *",
            lambda n: f"{n * (4 * m.width + (m.sq8_bytes if n < 10**7 else m.pq_bytes)) / 1e9:,.1f}",
        ),
        ("Milvus, disk as in Milvus Lite, one copy, GB *", lambda n: f"{n * m.milvus_bytes / 1e9:,.1f}"),
        ("Milvus, HNSW in float32, memory, GB *", lambda n: f"{n * graph / 1e9:,.1f}"),
        ("... machines of 128 GB, 70 % filled *", lambda n: machines(n * graph)),
        ("Milvus, IVF_SQ8, memory, GB *", lambda n: f"{n * m.sq8_bytes / 1e9:,.1f}"),
        ("... machines of 128 GB, 70 % filled *", lambda n: machines(n * m.sq8_bytes)),
    ]


def table(rows: list[tuple[str, Callable[[int], str]]]) -> str:
    """The plan in Markdown."""
    head = "| | " + " | ".join(f"{size:,}" for size in SIZES) + " |\n|" + " --- |" * (len(SIZES) + 1)
    return "\n".join([head, *(f"| {what} | " + " | ".join(map(value, SIZES)) + " |" for what, value in rows)])


@click.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--model", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A model folder."
)
@click.option("--count", default=1_000, show_default=True, help="Pictures to encode.")
@click.option("--core-hour", default=0.04, show_default=True, help="Price of a core for an hour, USD.")
@click.option(
    "--core-seconds", type=float, help="Core-seconds of a picture in another model, for a plan of its own."
)
def main(
    pictures: Path, model: Path | None, count: int, core_hour: float, core_seconds: float | None
) -> None:
    """Measure and plan."""
    figures = measure(pictures, model, count)
    for name, value in vars(figures).items():
        print(f"{name:14} {value:12,.1f}")
    per_million = 1e6 / figures.rate / 3600
    print(f"a million: {per_million:.2f} core-hours, {per_million * core_hour:.2f} USD")
    print(table(plan(figures, figures.rate, core_hour)))
    if core_seconds is not None:
        print(f"\nwith {core_seconds} core-seconds a picture *")
        print(table(plan(figures, 1 / core_seconds, core_hour)[:3]))


if __name__ == "__main__":
    main()
