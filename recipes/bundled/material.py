"""What the query side is trained on: a folder of pictures without labels, a phrase bank and modifiers.

    python -m recipes.bundled.material --data ../shared/data --out runs/material

Only file contents travel: names and labels stay behind. The phrases are unpaired: made-up products, garment kinds with
colours, and the list of emoji names, in no relation to any picture.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import click
from tqdm import tqdm

from image2sentence.catalogue import attributes, draw, sample
from recipes.bundled import data, language

MODIFIERS = 6_000


def write_pictures(data_folder: Path, out: Path, drawn: int) -> None:
    """Drawn pictures (the VL model's training seeds), photographs and emoji of the training part, as plain files."""
    for part in ("drawn", "photos", "emoji"):
        (out / part).mkdir(parents=True, exist_ok=True)
    paths = [out / "drawn" / f"{index:05d}.jpg" for index in range(drawn)]
    with ProcessPoolExecutor() as pool:
        list(tqdm(pool.map(_draw, range(drawn), paths, chunksize=64), total=drawn, desc="drawing"))
    sources = (
        ("photos", data.photo_records(data_folder, False)),
        ("emoji", data.emoji_records(data_folder, False)),
    )
    for part, rows in sources:
        for index, (path, _) in enumerate(tqdm(rows, desc=part)):
            link(path, out / part / f"{index:05d}{path.suffix}")


def _draw(index: int, path: Path) -> None:
    if not path.is_file():
        draft = path.with_suffix(".draft")
        draw(sample(random.Random(data.TRAIN_SEED + index)), 168).save(draft, "JPEG", quality=92)
        draft.replace(path)


def phrases(data_folder: Path, rng: random.Random) -> list[str]:
    """The phrase bank: every drawn kind in every colour, pattern and sleeve; photographed kinds; names of emoji.

    That each product has its own phrase matters more than anything else about the bank (docs/model.md).
    """
    records = list(products())
    records += [
        {"source": "photo", "type": kind, "colour": colour}
        for kind, colour in itertools.product(language.PHOTO_TYPES, language.VALUES["colour"])
    ]
    records += [record for _, record in data.emoji_records(data_folder, False)]
    return list(dict.fromkeys(language.describe(record, rng, full=True).text for record in records))


def products() -> Iterator[dict[str, str]]:
    """Every combination of a drawn product's main attributes."""
    for kind, colour in itertools.product(attributes.TYPES, attributes.COLOURS):
        plain = attributes.Product(kind, colour, "plain", "", "", "", "", "", "", 0)
        patterns = [plain] + [
            replace(plain, pattern=pattern, pattern_colour=second)
            for pattern in attributes.PATTERNS[1:]
            for second in attributes.choices(replace(plain, pattern=pattern), "pattern_colour")
        ]
        for product, sleeve in itertools.product(patterns, attributes.values("sleeve", kind) or ("",)):
            yield data.product_record(replace(product, sleeve=sleeve))


def modifiers(rng: random.Random) -> list[str]:
    """Words that ask for a change, drawn without looking at any picture."""
    made = (
        language.random_modifier(rng, rng.choices(("drawn", "photo", "emoji"), (0.5, 0.15, 0.35))[0])
        for _ in range(MODIFIERS)
    )
    return list(dict.fromkeys(made))


def link(source: Path, target: Path) -> None:
    """`target` is `source` once more; nothing where it exists."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


@click.command()
@click.option("--data", "data_folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/material"))
@click.option("--drawn", default=16_000)
def main(data_folder: Path, out: Path, drawn: int) -> None:
    """Writes OUT/pictures, OUT/phrases.txt and OUT/modifiers.txt."""
    write_pictures(data_folder, out / "pictures", drawn)
    rng = random.Random(0)
    for name, lines in (("phrases", phrases(data_folder, rng)), ("modifiers", modifiers(rng))):
        (out / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        click.echo(f"{len(lines)} {name}")


if __name__ == "__main__":
    main()
