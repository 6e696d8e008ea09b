"""The table of benchmarks by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from image2sentence.errors import ConfigError
from image2sentence.evaluation.datasets import circo, cirr, domain_conversion, fashioniq, genecis
from image2sentence.evaluation.protocol import Benchmark


@dataclass(frozen=True)
class Dataset:
    """How a benchmark is loaded, which splits it has, and where its files come from."""

    load: Callable[..., Benchmark]
    splits: tuple[str, ...]
    source: str


DATASETS: dict[str, Dataset] = {
    "cirr": Dataset(cirr.load, cirr.SPLITS, cirr.SOURCE),
    **{
        f"fashioniq/{category}": Dataset(
            partial(fashioniq.load, category=category), fashioniq.SPLITS, fashioniq.SOURCE
        )
        for category in fashioniq.CATEGORIES
    },
    "circo": Dataset(circo.load, circo.SPLITS, circo.SOURCE),
    **{
        f"genecis/{focus}": Dataset(partial(genecis.load, focus=focus), genecis.SPLITS, genecis.SOURCE)
        for focus in genecis.FOCUSES
    },
    "domain_conversion": Dataset(domain_conversion.load, domain_conversion.SPLITS, domain_conversion.SOURCE),
}


def dataset(name: str) -> Dataset:
    """The entry of `name`; an unknown name is a ConfigError that lists those known."""
    if name not in DATASETS:
        raise ConfigError(f"unknown benchmark {name!r}; known: {', '.join(DATASETS)}")
    return DATASETS[name]


def load(name: str, root: Path | str, split: str = "val", **options: str) -> Benchmark:
    """Reads one benchmark split from its annotation files.

    `root` is the folder of that dataset's annotations, in the layout of its public download or flat.
    `options` are the named choices of the dataset's own loader, such as `caption_rule`.
    """
    entry = dataset(name)
    if split not in entry.splits:
        raise ConfigError(f"{name} has the splits {', '.join(entry.splits)}, got {split!r}")
    return entry.load(root, split=split, **options)
