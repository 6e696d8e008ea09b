"""Drawn product lines: a gallery in which every detail counts.

A line is one product in several colours and several patterns, each piece drawn anew. "This one, in red" has one right
answer when everything else is kept; the more attributes a benchmark keeps, the more the sentence has to say.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from image2sentence.catalogue import draw, sample
from image2sentence.catalogue.attributes import ATTRIBUTES, Product, change, choices

COLOURS, PATTERNS = 4, 2
DETAILS = ("type", "pattern", "pattern_colour", "sleeve", "length", "neckline", "closure", "background")


def pieces(product: Product, rng: random.Random) -> Iterator[Product]:
    """The product, some other colours of it, some other patterns; only what is asked for differs."""
    yield product
    for attribute, count in (("colour", COLOURS), ("pattern", PATTERNS)):
        options = choices(product, attribute)
        for value in rng.sample(options, min(count, len(options))):
            yield replace(change(product, attribute, value), variation=rng.getrandbits(32))


def write_lines(out: Path, lines: int, seed: int, size: int = 256) -> Path:
    """A labelled catalogue of `lines` product lines in OUT; the same arguments give the same pictures."""
    table = out / "attributes.csv"
    if table.is_file():
        return out
    (out / "images").mkdir(parents=True, exist_ok=True)
    rng = random.Random(f"lines/{seed}")
    rows = []
    for line in tqdm(range(lines), desc="drawing product lines"):
        for piece in pieces(sample(rng), rng):
            name = f"images/{len(rows):05d}.jpg"
            draw(piece, size).save(out / name, quality=90)
            rows.append([name, str(line), *(getattr(piece, attribute) for attribute in ATTRIBUTES)])
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file", "line", *ATTRIBUTES], *rows])
    return out
