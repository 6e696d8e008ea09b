"""The pictures, what is known of each, and what it is for: training, validation or the table.

What a picture is for follows from a hash of its name (of its subject or label, where those are kept apart), never from
what else there is. Nothing is chosen on pictures of the table; fashion is in the table alone.
"""

from __future__ import annotations

import csv
import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from image2sentence.catalogue import draw, sample
from image2sentence.errors import DataError
from image2sentence.images import load_image
from recipes.bundled import data as garments_and_emoji
from recipes.bundled.measured_colour import measured_colour

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SHARE_ALIKE = "CC-BY-SA"  # these pictures are measured on and never trained on
SAME_PICTURES = (
    "clothing"  # a source of `everyday` whose photographs are those of `clothing`, under other names
)
DRAWN_SEED = 20_000_000
SIDE = 192  # of a drawn picture
Record = Mapping[str, str]


@dataclass(frozen=True)
class Picture:
    """A picture's file, or the seed of a drawn one; `record` is what is known of it, `part` what it is for.

    `apart` says that its subject or label is nowhere in training.
    """

    name: str
    record: Record
    part: str
    apart: bool = False
    path: Path | None = None

    def open(self) -> Image.Image:
        """The RGB picture."""
        if self.path is not None:
            return load_image(self.path, at_least=256)
        return draw(sample(random.Random(int(self.name.rpartition("/")[2]))), SIDE)


def bucket(name: str, count: int) -> int:
    """A number below `count` that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(f"default model/{name}".encode()).digest()[:4], "big") % count


def all_pictures(data: Path, drawn: int) -> list[Picture]:
    """Drawn products, garments, emoji and everyday things, in that order."""
    return [*drawn_pictures(drawn), *garments(data), *emoji(data), *everyday(data)]


def drawn_pictures(count: int) -> list[Picture]:
    """`count` to train on, and a tenth as many to validate on."""
    found = []
    for number in range(count + count // 10):
        seed = DRAWN_SEED + number
        record = garments_and_emoji.product_record(sample(random.Random(seed)))
        found.append(Picture(f"drawn/{seed}", record, TRAIN if number < count else VALIDATION))
    return found


def garments(data: Path) -> list[Picture]:
    """Garment photographs with type, age group, and colour as measured from pixels."""
    found = []
    for held in (False, True):
        for path, record in garments_and_emoji.photo_records(data, held):
            part = TEST if held else VALIDATION if bucket(path.name, 12) == 0 else TRAIN
            colour = measured_colour(load_image(path))
            known = {**record, "colour": colour} if colour else record
            found.append(Picture(f"clothing/{path.name}", known, part, path=path))
    return found


def emoji(data: Path) -> list[Picture]:
    """Emoji; of subjects kept apart, one part in five is for the table and one in ten of the rest for validation."""
    found = []
    for held in (False, True):
        for path, record in garments_and_emoji.emoji_records(data, held):
            person = garments_and_emoji.anyone(record["thing"])
            part = TEST if held else VALIDATION if bucket(person, 12) == 0 else TRAIN
            found.append(Picture(f"emoji/{path.name}", record, part, part != TRAIN, path))
    return found


def everyday(data: Path) -> list[Picture]:
    """Photographs of everyday things: a fifth of the labels apart, and a fifth of the others' pictures."""
    folder = data / "everyday"
    found = []
    for row in _rows(folder / "everyday.csv"):
        if row["source"] == SAME_PICTURES:
            continue
        part, apart = _everyday_part(row["label"], row["file"])
        if part == TRAIN and row["licence"].startswith(SHARE_ALIKE):
            part, apart = TEST, True  # its label may be trained on, but mostly is not: one picture a label
        record = {"source": "everyday", "label": row["label"], "broader": row["broader"]}
        found.append(Picture(f"everyday/{row['file']}", record, part, apart, folder / "images" / row["file"]))
    trained = {picture.record["label"] for picture in found if picture.part == TRAIN}
    return [
        Picture(p.name, p.record, p.part, p.record["label"] not in trained, p.path) if p.part == TEST else p
        for p in found
    ]


def _everyday_part(label: str, file: str) -> tuple[str, bool]:
    by_label = bucket(f"label {label}", 20)
    if by_label < 6:
        return (TEST if by_label < 4 else VALIDATION), True
    by_file = bucket(file, 20)
    return (TEST if by_file < 4 else VALIDATION if by_file < 5 else TRAIN), False


def captions(data: Path) -> dict[str, list[str]]:
    """What people wrote of some everyday pictures (COCO captions), by the picture's name."""
    found: dict[str, list[str]] = {}
    for row in _rows(data / "everyday" / "coco_captions.csv"):
        found.setdefault(f"everyday/{row['file']}", []).append(row["caption"])
    return found


def chosen(pictures: Sequence[Picture], source: str, part: str) -> list[int]:
    """Rows of the pictures of this source and for this."""
    return [row for row, p in enumerate(pictures) if p.record["source"] == source and p.part == part]


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataError(f"expected the training data's table at {path}")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
