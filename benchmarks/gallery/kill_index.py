"""Kill -9 while a gallery is being indexed, compacted and its index file rebuilt: is anything committed lost?

    python -m benchmarks.gallery.kill_index [PICTURES] [--moments N] [--repeats N]

Indexing: for each of N moments, drawn evenly over the length of an undisturbed run, a new gallery is begun by a process
of its own and the process killed. That process tells every file whose commit has returned. Then the gallery is opened
and verified, every told file must be there with its right vector, and the next run must finish it: paths, sizes,
states, metadata and vectors as in a gallery that nothing disturbed.

Compaction and rebuilding: of a gallery of 40,000 pictures half of which were deleted, killed once the rewritten pages
reach SQLite's log, and once FAISS's file is being written. All must be there, and search must find what it found.

Without PICTURES some are drawn. The bundled model encodes them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from image2sentence.catalogue import write_catalogue
from image2sentence.encoders import load_encoder
from image2sentence.gallery import Gallery
from image2sentence.gallery.records import Content, Entry
from image2sentence.gallery.search.faiss_index import AnnSettings
from image2sentence.gallery.sqlite.gallery import DATABASE
from image2sentence.gallery.sqlite.index import index_state, make_index
from image2sentence.gallery.sqlite.index_file import NAME as INDEX
from image2sentence.indexing import index_pictures

COUNT = 40_000
WIDTH = 128
BATCH = 8
SETTINGS = AnnSettings(exact_below=1_000, lists=64, probes=64, rerank=50)

State = dict[str, tuple[object, ...]]


def index(pictures: Path, gallery: Path) -> None:
    """Index, and say which files have been committed."""
    encoder = load_encoder(threads=1)
    commit = Gallery.commit

    def told(self: Gallery, root: int, contents: list[Content], entries: list[Entry]) -> None:
        commit(self, root, contents, entries)
        print("\n".join(entry.path for entry in entries), flush=True)

    Gallery.commit = told  # type: ignore[method-assign, assignment]
    print("started", flush=True)
    with Gallery.open_or_create(gallery, encoder.fingerprint, encoder.width) as opened:
        index_pictures(pictures, opened, encoder, batch_size=BATCH, threads=1)


def compact(gallery: Path) -> None:
    """Compact a gallery."""
    with Gallery.open(gallery, readonly=False) as opened:
        opened.compact()


def rebuild(gallery: Path) -> None:
    """Make a gallery's index file again."""
    with Gallery.open(gallery, readonly=False) as opened:
        make_index(opened, SETTINGS)


WORKS: dict[str, Callable[..., None]] = {"index": index, "compact": compact, "rebuild": rebuild}


@contextmanager
def working(work: str, *arguments: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that does one of the works; whatever is left of it is killed at the end."""
    command = [sys.executable, "-m", "benchmarks.gallery.kill_index", "--work", work, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def state(gallery: Path) -> State:
    """Everything about every picture, by path; the gallery is verified."""
    with Gallery.open(gallery) as opened:
        opened.verify()
        ids, vectors = opened.vectors()
        rows = {number: vector.tobytes() for number, vector in zip(ids.tolist(), vectors, strict=True)}
        pictures = opened.pictures()
        values = opened.metadata([picture.id for picture in pictures])
    return {
        os.fspath(p.path): (p.state, p.reason, p.size, p.mtime_ns, p.width, p.height, v, rows.get(p.id))
        for p, v in zip(pictures, values, strict=True)
    }


class Undisturbed(NamedTuple):
    """What a run that nothing disturbs makes, and its seconds."""

    state: State
    seconds: float


def undisturbed(pictures: Path, gallery: Path) -> Undisturbed:
    """Index once, timed from when the model has been loaded."""
    with working("index", pictures, gallery) as process:
        assert process.stdout is not None
        process.stdout.readline()
        start = time.perf_counter()
        process.wait()
        return Undisturbed(state(gallery), time.perf_counter() - start)


def kill_indexing(pictures: Path, gallery: Path, after: float) -> set[str]:
    """Kill an indexing run after some seconds; gives the files that it said were committed."""
    with working("index", pictures, gallery) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        return {os.fspath(pictures / line) for line in process.stdout.read().split("\n") if line}


def check_indexing(pictures: Path, folder: Path, right: Undisturbed, after: float) -> int:
    """One moment; gives how many files had been committed. Raises AssertionError where something is lost."""
    gallery = folder / "killed"
    told = kill_indexing(pictures, gallery, after)
    left = state(gallery) if (gallery / DATABASE).exists() else {}  # killed before there was one
    assert told <= left.keys(), f"{len(told - left.keys())} committed files are missing"
    assert left.items() <= right.state.items()
    with working("index", pictures, gallery) as process:
        assert process.stdout is not None
        process.stdout.read()
        assert process.wait() == 0, "the next run failed"
    assert state(gallery) == right.state
    shutil.rmtree(gallery)
    return len(left)


def large(gallery: Path) -> None:
    """A gallery of which half has been deleted, with an index file."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((COUNT, WIDTH), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    with Gallery.create(gallery, "benchmark", WIDTH) as opened:
        root = opened.add_root(Path("/pictures"))
        contents = [Content(f"{n:032}".encode(), 1, 1, row) for n, row in enumerate(rows)]
        entries = [Entry(f"{n}.jpg", n, n, content.sha256) for n, content in enumerate(contents)]
        opened.commit(root, contents, entries)
        opened.delete(range(1, COUNT, 2))
        make_index(opened, SETTINGS)


def found(gallery: Path) -> tuple[State, list[object]]:
    """All of a gallery, and what some searches find."""
    queries = np.random.default_rng(1).standard_normal((20, WIDTH), np.float32)
    with Gallery.open(gallery) as opened:
        return state(gallery), list(opened.searcher().search(queries, 10))


def kill_when(gallery: Path, work: str, file: Path, least: int) -> int:
    """Kill a work when a file has some bytes; gives how many it had then."""
    with working(work, gallery) as process:
        while process.poll() is None:
            size = file.stat().st_size if file.exists() else 0
            if size >= least:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return file.stat().st_size if file.exists() else 0
    raise AssertionError(f"{work} ended before it could be killed")


def unused_pages(gallery: Path) -> int:
    """Pages of the file that a compaction would free."""
    with (
        Gallery.open(gallery) as opened,
        closing(opened._database.connection.execute("PRAGMA freelist_count")) as row,
    ):
        return int(row.fetchone()[0])


def check_work(original: Path, folder: Path, work: str, name: str, least: int) -> tuple[int, bool]:
    """Kill one compaction or rebuild; gives the bytes written by then, and whether it was in the middle."""
    gallery = Path(shutil.copytree(original, folder / work))
    right = found(gallery)
    written = kill_when(gallery, work, gallery / name, least)
    assert found(gallery) == right
    midway = unused_pages(gallery) > 0 if work == "compact" else (gallery / name).exists()
    WORKS[work](gallery)
    assert found(gallery) == right
    with Gallery.open(gallery) as opened:
        assert index_state(opened, thorough=True).state == "current"
    assert work != "compact" or unused_pages(gallery) == 0
    shutil.rmtree(gallery)
    return written, midway


def measure(pictures: Path, folder: Path, moments: int, repeats: int, seed: int) -> None:
    """Print what held; end with an AssertionError at the first thing that did not."""
    right = undisturbed(pictures, folder / "right")
    print(f"undisturbed   {len(right.state)} pictures in {right.seconds:.1f} s")
    draw = random.Random(seed)
    counts = [check_indexing(pictures, folder, right, draw.uniform(0, right.seconds)) for _ in range(moments)]
    within = sum(0 < count < len(right.state) for count in counts)
    print(f"indexing      killed at {moments} moments, {within} of them with part of the pictures committed")
    print(f"              committed then: {min(counts)} to {max(counts)} of {len(right.state)}; none missing")
    print("              next run: finished each time, gallery equal to the undisturbed one each time")
    large(folder / "large")
    for work, name, least in (("compact", f"{DATABASE}-wal", 1 << 20), ("rebuild", f"{INDEX}.new", 1)):
        kills = [check_work(folder / "large", folder, work, name, least) for _ in range(repeats)]
        middle = [written for written, midway in kills if midway]
        sizes = f"{min(middle) / 1e6:.1f} to {max(middle) / 1e6:.1f} MB written" if middle else ""
        print(f"{work:13} killed {repeats} times, {len(middle)} in the middle ({sizes}); all there each time")


@click.command()
@click.argument("pictures", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--moments", default=50, show_default=True)
@click.option("--repeats", default=5, show_default=True, help="Kills of a compaction and of a rebuild.")
@click.option("--drawn", default=240, show_default=True, help="Pictures to draw where none are given.")
@click.option("--seed", default=0, show_default=True)
def main(pictures: Path | None, moments: int, repeats: int, drawn: int, seed: int) -> None:
    """Index PICTURES, killed again and again."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = pictures or write_catalogue(folder / "drawn", drawn, seed, 128) / "images"
        measure(source.absolute(), folder, moments, repeats, seed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        WORKS[sys.argv[2]](*map(Path, sys.argv[3:]))
    else:
        main()
