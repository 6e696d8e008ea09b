"""The labelled collections that the miniature experiments are made on.

A *world* has pictures with labels. Its labels write the captions that the vision-language model of the world learns
from, and judge what is found; the query side is trained on the same pictures without them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from image2sentence.evaluation.datasets.labels import FILE_COLUMN, Catalogue, load_catalogue
from image2sentence.images import load_image
from recipes.bundled.data import held_out, subject

Record = dict[str, str]

MARGIN = 1.08  # pictures are stored a little larger than the model sees them, so that crops can move


@dataclass(frozen=True)
class World:
    """A labelled collection and how it is split.

    Attributes:
        name: Also the folder below the data folder.
        side: Side in pixels of what the models see.
        shares: Attribute -> how often a description names it.
        editable: Attributes that a modifier may change.
        listed: Attributes whose values, all with all, make the phrase bank.
        trains: Whether a row is training material.
        mirrors: Whether a row's picture may be mirrored.
        vl: The VL model; None where one is trained here, for this world.
    """

    name: str
    side: int
    shares: dict[str, float]
    editable: tuple[str, ...]
    listed: tuple[str, ...]
    trains: Callable[[Record], bool]
    mirrors: Callable[[Record], bool]
    vl: str | None = None

    def catalogue(self, data: Path) -> Catalogue:
        """Pictures and labels."""
        return load_catalogue(data / self.name)

    def training_rows(self, data: Path) -> list[Record]:
        """The labels of the training pictures."""
        return [dict(row) for row in self.catalogue(data).rows if self.trains(dict(row))]


_SIDED = frozenset(
    {"left", "right", "leftwards", "rightwards", "clockwise", "counterclockwise"}
    | {"arrow", "button", "clock", "o’clock", "keycap"}
)

FASHION = World(
    name="fashion",
    side=112,
    shares={"colour": 0.85, "gender": 0.7, "type": 0.95, "usage": 0.35, "season": 0.35},
    editable=("colour", "type", "gender", "usage", "season"),
    listed=("colour", "gender", "type"),
    trains=lambda row: row["split"] == "train",
    mirrors=lambda row: True,
)
EMOJI = World(
    name="emoji",
    side=64,
    shares={"skin_tone": 0.8, "base": 0.95, "style": 0.75},
    editable=("skin_tone", "style"),
    listed=("skin_tone", "base", "style"),
    trains=lambda row: not held_out(subject(row["base"], row["gender_word"])),
    mirrors=lambda row: not _SIDED & set(row["base"].lower().split()),
)
DRAWN = World("drawn", 112, {}, (), (), lambda row: False, lambda row: True, vl="bundled")
WORLDS = {world.name: world for world in (FASHION, EMOJI, DRAWN)}


def read_pixels(world: World, data: Path, rows: list[Record], cache: Path) -> NDArray[np.uint8]:
    """The rows' pictures (n, s, s, 3), squashed to a side of MARGIN times the world's; read once, kept in `cache`."""
    side = round(world.side * MARGIN)
    kept = cache / f"{world.name}-{side}-{len(rows)}.npy"
    if kept.is_file():
        pixels: NDArray[np.uint8] = np.load(kept, allow_pickle=False)
        return pixels
    pixels = np.empty((len(rows), side, side, 3), np.uint8)
    for index, row in enumerate(tqdm(rows, desc=f"reading {world.name}")):
        image = load_image(data / world.name / row[FILE_COLUMN])
        pixels[index] = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.save(kept, pixels, allow_pickle=False)
    return pixels
