"""The pictures that the bundled model learns from, as one array, with what is known of each.

Drawn products (this project's own), garment photographs (CC0) and emoji (Apache-2.0 and MIT): docs/model-card.md. Held
out, and never seen by any training step: every fifth photograph and every fifth emoji subject, by a hash of its name,
so that the split does not depend on what else is in the folder.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from image2sentence.catalogue import draw, sample
from image2sentence.catalogue.attributes import ATTRIBUTES, Product
from image2sentence.errors import DataError
from image2sentence.images import load_image
from recipes.bundled import variants
from recipes.bundled.measured_colour import measured_colour

SIDE = 136  # stored side in pixels; training crops 112 or 128 out of it
TRAIN_SEED = 20_000_000  # drawn training pictures; every other seed is unseen
_VERSION = 2


@dataclass(frozen=True)
class Pictures:
    """`pixels` (n, SIDE, SIDE, 3) uint8 and a record (see language.py) for each."""

    pixels: NDArray[np.uint8]
    records: list[dict[str, str]]

    def __len__(self) -> int:
        return len(self.records)


def held_out(name: str) -> bool:
    """True for one name in five, for ever the same ones."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 5 == 0


def training_pictures(data: Path, cache: Path, drawn: int, framed: bool = False) -> Pictures:
    """All training pictures: `drawn` drawn ones, photographs and emoji from the shared data folder `data`.

    `framed` adds each photograph small on white, as a shop shows a product.
    """
    parts = [
        _kept(cache / f"drawn-{drawn}", lambda: _draw_many(drawn)),
        _kept(cache / "photos", lambda: _read_all(photo_records(data, held=False))),
        _kept(cache / "emoji", lambda: _read_all(emoji_records(data, held=False))),
    ]
    if framed:
        rows = [(path, record | {"framed": "white"}) for path, record in photo_records(data, held=False)]
        parts.append(_kept(cache / "photos-framed", lambda: _read_all(rows)))
    return Pictures(
        np.concatenate([part.pixels for part in parts]), [r for part in parts for r in part.records]
    )


def product_record(product: Product) -> dict[str, str]:
    """The record of a drawn product."""
    return {"source": "drawn"} | {name: getattr(product, name) for name in ATTRIBUTES}


def photo_records(data: Path, held: bool) -> list[tuple[Path, dict[str, str]]]:
    """Photographs with type and age group from their labels; colour is measured from pixels when they are read."""
    rows = []
    for row in _rows(data / "clothing" / "labels.csv"):
        if held_out(row["file"]) == held:
            record = {"source": "photo", "type": row["type"], "kids": row["kids"]}
            rows.append((data / "clothing" / row["file"], record))
    return rows


def emoji_records(data: Path, held: bool) -> list[tuple[Path, dict[str, str]]]:
    """Emoji; `thing` is the subject with "{g}" where its gender word stands."""
    table = _rows(data / "emoji" / "emoji.csv")
    toned = {row["base"] for row in table if row["skin_tone"]}
    rows = []
    for row in table:
        thing = subject(row["base"], row["gender_word"])
        if held_out(thing) == held:
            tone = row["skin_tone"] or ("yellow skin" if row["base"] in toned else "")
            record = {"source": "emoji", "thing": thing, "style": row["style"], "skin_tone": tone}
            rows.append((data / "emoji" / row["file"], record | {"gender_word": row["gender_word"]}))
    return rows


def subject(base: str, gender_word: str) -> str:
    """An emoji's name with its gender word, if it stands there as a word of its own, replaced by "{g}"."""
    parts = base.lower().split(" ")
    return " ".join("{g}" if part == gender_word else part for part in parts)


def anyone(thing: str) -> str:
    """A subject without its "{g}": what the woman, the man and the person have in common."""
    return " ".join(part for part in thing.split(" ") if part != "{g}")


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataError(
            f"expected the training data's table at {path}; see CONTRIBUTING.md for what belongs there"
        )
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _read_all(rows: Sequence[tuple[Path, dict[str, str]]]) -> Pictures:
    pixels = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)
    records = []
    for index, (path, record) in enumerate(tqdm(rows, desc=f"reading {rows[0][1]['source']}")):
        image = load_image(path)
        framed = "framed" in record
        shown = variants.framed(image, random.Random(path.name), recolour=0) if framed else image
        pixels[index] = _square(shown)
        if record["source"] == "photo" and (colour := measured_colour(image)):
            record = record | {"colour": colour}
        records.append(record)
    return Pictures(pixels, records)


def _draw_many(count: int) -> Pictures:
    with ProcessPoolExecutor() as pool:
        drawn = list(tqdm(pool.map(_draw_one, range(count), chunksize=64), total=count, desc="drawing"))
    return Pictures(np.stack([pixels for pixels, _ in drawn]), [record for _, record in drawn])


def _draw_one(index: int) -> tuple[NDArray[np.uint8], dict[str, str]]:
    product = sample(random.Random(TRAIN_SEED + index))
    return _square(draw(product, 168)), product_record(product)


def _square(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.uint8)


def _kept(path: Path, make: Callable[[], Pictures]) -> Pictures:
    """The pictures under `path`, made once and kept as an array and a table beside it."""
    pixels, table = path.with_suffix(f".v{_VERSION}.npy"), path.with_suffix(f".v{_VERSION}.json")
    if not table.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = make()
        np.save(pixels, made.pixels, allow_pickle=False)
        table.write_text(json.dumps(made.records))
    return Pictures(np.load(pixels, allow_pickle=False), json.loads(table.read_text()))


def subjects(records: Iterable[dict[str, str]]) -> dict[str, int]:
    """A number for each emoji subject."""
    return {name: i for i, name in enumerate(sorted({r["thing"] for r in records if r.get("thing")}))}
