"""Indexing on a Ray cluster of this machine against indexing in one process, on the same cores.

    RAY_worker_niceness=0 python -m benchmarks.indexing.ray_cluster PICTURES [--model DIR] [--count N] [--rounds N]

In turns, into new galleries: `index_pictures`, and `index_on_ray` with a worker for each core. The cluster is there
before; starting the workers counts, and is also printed by itself (the seconds of an index run of one picture).
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from functools import partial
from pathlib import Path

import click

from image2sentence.encoders import load_encoder
from image2sentence.gallery import Gallery
from image2sentence.indexing import IndexReport, index_pictures
from image2sentence.indexing.ray import index_on_ray

try:
    import ray
except ModuleNotFoundError:
    ray = None  # `main` says so


def index(folder: Path, model: Path | None, on_ray: bool) -> IndexReport:
    """Index a folder into a new gallery."""
    encoder = load_encoder(model)
    with (
        tempfile.TemporaryDirectory() as place,
        Gallery.create(place, encoder.fingerprint, encoder.width) as gallery,
    ):
        if on_ray:
            make = partial(load_encoder, model, threads=1)
            return index_on_ray(folder, gallery, encoder, make_encoder=make)
        return index_pictures(folder, gallery, encoder)


def chosen(pictures: Path, place: Path, count: int) -> Path:
    """A folder with the first pictures only."""
    place.mkdir()
    for path in sorted(pictures.iterdir())[:count]:
        shutil.copy(path, place / path.name)
    return place


@click.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--model", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A model folder."
)
@click.option("--count", default=5_000, show_default=True, help="Pictures.")
@click.option("--rounds", default=3, show_default=True, help="Runs of each.")
def main(pictures: Path, model: Path | None, count: int, rounds: int) -> None:
    """Compare."""
    if ray is None:
        raise click.ClickException("indexing on a cluster needs: pip install 'image2sentence[ray]'")
    cores = len(os.sched_getaffinity(0))
    ray.init(address="local", num_cpus=cores, log_to_driver=False, configure_logging=False)
    with tempfile.TemporaryDirectory() as place:
        many, one = (chosen(pictures, Path(place) / str(n), n) for n in (count, 1))
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(rounds):
            for on_ray in seconds:
                seconds[on_ray].append(index(many, model, on_ray).seconds)
        begin = statistics.median(index(one, model, True).seconds for _ in range(rounds))
    alone, cluster = (statistics.median(seconds[on_ray]) for on_ray in (False, True))
    print(f"{count:,} pictures, {cores} cores, median of {rounds}")
    print(f"one process  {count / alone:8.1f} pictures/s")
    print(f"Ray          {count / cluster:8.1f} pictures/s, ratio {alone / cluster:.2f}")
    print(f"... without starting workers ({begin:.1f} s) ratio {alone / (cluster - begin):.2f}")
    ray.shutdown()


if __name__ == "__main__":
    main()
