"""Search in a million vectors against exact FAISS: time, recall, memory, build time, and filters.

    python -m benchmarks.gallery.large_gallery clusters
    python -m benchmarks.gallery.large_gallery photos PICTURES... [--model DIR]

What is searched is made by `million_vectors.py`: synthetic clusters, or the vectors of real photographs, expanded. Ours
is the `Searcher` that `Gallery.searcher()` gives for a gallery with an index file, over vectors and metadata columns in
memory; the alternative is FAISS's `IndexFlatIP` on the same vectors, with as many threads. `--cache DIR` keeps vectors,
right answers and index, so that a second run only searches.

Queries are asked one at a time. Recall@10 is the share of the exact ten best that were found. A filter of 0.1 % is
asked in two ways, with other values in every query: one rare value (`bucket = 17`), and two tests of about 3 % each
(`price < 31.6 and size >= 968.4`), so that neither alone is rare. Answers are compared with exact search.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.gallery.million_vectors import Material, clusters, photos
from image2sentence.encoders import load_encoder
from image2sentence.gallery import Filter, Searcher, parse_filter
from image2sentence.gallery.filters.in_memory import SortedColumn, positions
from image2sentence.gallery.search.faiss_index import AnnIndex, AnnParameters, AnnSettings, build
from image2sentence.gallery.search.vectors import Nearby, Rows

WIDTH = 256
K = 10
COLUMNS = {"bucket": "number", "price": "number", "size": "number"}


def megabytes() -> float:
    """Memory of this process now, mapped files included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def milliseconds(ask: Callable[[int], object], count: int) -> NDArray[np.float64]:
    """Milliseconds of each of `count` calls, after five that do not count."""
    spent = np.empty(count)
    for number in range(-5, count):
        start = time.perf_counter()
        ask(number % count)
        spent[number] = 1000 * (time.perf_counter() - start)
    return spent


def kept(file: Path | None, make: Callable[[], NDArray]) -> NDArray:  # type: ignore[type-arg]
    """An array, from its file where there is one."""
    if file is not None and file.exists():
        return np.load(file)
    array = make()
    if file is not None:
        np.save(file, array)
    return array


def index_of(
    vectors: NDArray[np.float32], settings: AnnSettings, cache: Path | None
) -> tuple[AnnIndex, float]:
    """The index and how many seconds it took to make."""
    about = cache.with_suffix(".json") if cache is not None else None
    if about is not None and about.exists():
        told = json.loads(about.read_text())
        parameters = AnnParameters.from_dict(told["parameters"])
        return AnnIndex.from_bytes(np.load(cache), parameters, *vectors.shape), told["seconds"]
    start = time.perf_counter()
    index = build(vectors, settings)
    seconds = time.perf_counter() - start
    if about is not None:
        np.save(cache, index.to_bytes())
        about.write_text(json.dumps({"parameters": index.parameters.as_dict(), "seconds": seconds}))
    return index, seconds


def columns_of(count: int) -> dict[str, SortedColumn]:
    """A column of 1,000 different values and two of numbers from 0 to 1,000, all at random."""
    rng = np.random.default_rng(5)
    every = np.arange(count)
    values = {
        "bucket": rng.integers(1000, size=count).tolist(),
        "price": np.round(rng.uniform(0, 1000, count), 2).tolist(),
        "size": np.round(rng.uniform(0, 1000, count), 1).tolist(),
    }
    return {name: SortedColumn.of(every, column, count) for name, column in values.items()}


def filters_of(name: str) -> Callable[[int], str]:
    """A filter for each number of a query."""
    return {
        "0.1 %, one rare value": lambda n: f"bucket = {n % 1000}",
        "0.1 %, two tests of 3 %": lambda n: (
            f"price < {31.6 + n / 500:.3f} and size >= {968.4 - n / 500:.3f}"
        ),
        "1 %": lambda n: f"price >= {500 + n / 10:.2f} and price < {510 + n / 10:.2f}",
        "10 %": lambda n: f"size >= {300 + n / 10:.2f} and size < {400 + n / 10:.2f}",
        "50 %": lambda n: f"not price < {500 + n / 100:.2f}",
    }[name]


def recall(found: Sequence[Sequence[int]], right: NDArray[np.int64]) -> float:
    """Share of the right answers that were found."""
    pairs = zip(found, right, strict=True)
    return float(np.mean([len(set(ids) & set(row.tolist())) / len(row) for ids, row in pairs]))


def measure_filters(
    searcher: Searcher, exact: Searcher, queries: NDArray[np.float32], unfiltered: float
) -> None:
    """Print time against unfiltered search, and recall against exact search of what the filter leaves."""
    for name in ("0.1 %, one rare value", "0.1 %, two tests of 3 %", "1 %", "10 %", "50 %"):
        make = filters_of(name)
        found: dict[int, list[int]] = {}

        def ask(n: int, make: Callable[[int], str] = make, found: dict[int, list[int]] = found) -> None:
            found[n] = [hit.id for hit in searcher.search(queries[n : n + 1], K, where=make(n))[0]]

        spent = statistics.median(milliseconds(ask, 200))
        checked = range(0, 200, 10)
        right = [exact.search(queries[n : n + 1], K, where=make(n))[0] for n in checked]
        shares = recall([found[n] for n in checked], np.array([[hit.id for hit in hits] for hits in right]))
        fewest = min(map(len, found.values()))
        print(
            f"filter of {name:24} {spent:7.3f} ms, {spent / unfiltered:5.2f} x unfiltered, "
            f"at least {fewest} results, recall@{K} {shares:.3f}"
        )


def measure(material: Material, settings: AnnSettings, cache: Path | None) -> None:
    """Print everything."""
    vectors, queries = material
    count = len(vectors)
    threads = faiss.omp_get_max_threads()
    before = megabytes()
    index, seconds = index_of(vectors, settings, cache and cache.with_name(cache.name + "-index.npy"))
    print(f"{count:,} vectors of width {vectors.shape[1]}, {len(queries):,} queries, {threads} threads")
    print(f"index        {index.parameters}")
    print(f"build        {seconds:.0f} s; index in memory {megabytes() - before:.0f} MB")
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    right = kept(cache and cache.with_name(cache.name + "-right.npy"), lambda: flat.search(queries, K)[1])
    columns = columns_of(count)
    ids = np.arange(count)

    def select(where: str | Filter) -> NDArray[np.int64]:
        assert isinstance(where, str)
        return positions(parse_filter(where).checked(COLUMNS).condition, columns.__getitem__, count)

    nearby = Nearby(index, None, ids[:0], count)
    searcher = Searcher.over(ids, Rows(vectors), 1.0, select, nearby)
    exact = Searcher.over(ids, Rows(vectors), 1.0, select)
    found: list[list[int]] = [[] for _ in queries]

    def ask(number: int) -> None:
        found[number] = [hit.id for hit in searcher.search(queries[number : number + 1], K)[0]]

    ours = milliseconds(ask, len(queries))
    plain = milliseconds(lambda number: flat.search(queries[number : number + 1], K), 40)
    faiss.omp_set_num_threads(1)  # FAISS compares a lone query in one thread, and others only disturb it
    alone = milliseconds(lambda number: flat.search(queries[number : number + 1], K), 40)
    faiss.omp_set_num_threads(threads)
    own_exact = milliseconds(lambda number: exact.search(queries[number : number + 1], K), 10)
    median = statistics.median(ours)
    print(
        f"exact FAISS  {statistics.median(plain):8.3f} ms a query, with one thread {statistics.median(alone):.3f}"
    )
    print(f"own exact    {statistics.median(own_exact):8.3f} ms")
    print(f"ours         {median:8.3f} ms (95 %: {np.percentile(ours, 95):.3f})")
    half = len(queries) // 2
    parts = [recall(found[part], right[part]) for part in (slice(half), slice(half, None))]
    print(
        f"recall@{K}    {recall(found, right):8.4f} (halves of the queries: {parts[0]:.4f}, {parts[1]:.4f})"
    )
    ratios = [statistics.median(times) / median for times in (plain, alone, own_exact)]
    print(
        f"ratio        {ratios[0]:8.1f} x faster than exact FAISS, {ratios[1]:.1f} x than it with one thread,"
    )
    print(f"             {ratios[2]:8.1f} x than our own exact search")
    measure_filters(searcher, exact, queries, median)
    print(
        f"memory       {megabytes():8.0f} MB in all, with FAISS's copy of the vectors ({vectors.nbytes / 1e6:.0f})"
    )


@click.command()
@click.argument("kind", type=click.Choice(["clusters", "photos"]))
@click.argument("folders", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--model", type=click.Path(path_type=Path))
@click.option("--count", default=1_000_000, show_default=True)
@click.option("--recall", default=AnnSettings.recall, show_default=True, help="What the index is tuned for.")
@click.option("--threads", default=os.cpu_count(), show_default=True)
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path))
def main(
    kind: str,
    folders: tuple[Path, ...],
    model: Path | None,
    count: int,
    recall: float,
    threads: int,
    cache: Path | None,
) -> None:
    """Measure with KIND of vectors; those of `photos` are made from the pictures in FOLDERS."""
    faiss.omp_set_num_threads(threads)
    place = cache / kind if cache is not None else None
    gallery = place and place.with_name(f"{kind}-gallery.npy")
    queries = place and place.with_name(f"{kind}-queries.npy")
    if gallery is not None and queries is not None and gallery.exists():
        material = Material(np.load(gallery), np.load(queries))
    else:
        make = (lambda: photos(load_encoder(model), folders, count)) if kind == "photos" else None
        material = make() if make is not None else clusters(count, WIDTH)
        if gallery is not None and queries is not None:
            gallery.parent.mkdir(parents=True, exist_ok=True)
            np.save(gallery, material.gallery)
            np.save(queries, material.queries)
    measure(material, AnnSettings(recall=recall), place)


if __name__ == "__main__":
    main()
