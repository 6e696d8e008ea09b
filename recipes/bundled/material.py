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
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import click
from PIL import Image
from tqdm import tqdm

from image2sentence.catalogue import draw, sample
from image2sentence.images import load_image
from recipes.bundled import data, language, variants, words
from recipes.bundled.guide import guiding_phrases

MODIFIERS = {"drawn": 3_000, "photos": 900, "emoji": 2_100}
DRAWN = 16_000  # as many as the VL model knows: one picture in seven, with the variants of the others
NEAR = 60  # an emoji is spliced with one of as many that look like it


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


def write_variants(out: Path) -> None:
    """Pictures of things that do not exist, out of the photographs and the emoji. The same ones every time."""
    with ProcessPoolExecutor() as pool:
        for part in ("photos", "emoji"):
            (out / f"{part}-varied").mkdir(exist_ok=True)
            paths = sorted((out / part).iterdir())
            others = random.Random(part).sample(paths, len(paths))
            near = variants.alike([load_image(path) for path in paths], NEAR) if part == "emoji" else ()
            looks = [[paths[other] for other in row] for row in near] or [[] for _ in paths]
            done = pool.map(_vary, paths, others, looks, chunksize=64)
            list(tqdm(done, total=len(paths), desc=f"{part}, varied"))


def _vary(path: Path, other: Path, alike: Sequence[Path]) -> None:
    """All variants of a picture; `other` is any other one, those in `alike` look like it."""

    def image() -> Image.Image:
        return load_image(path)

    def splice(rng: random.Random) -> Image.Image:
        return variants.spliced(image(), load_image(rng.choice(alike)), rng)

    def frame(rng: random.Random) -> Image.Image:
        return variants.framed(variants.partly_recoloured(image(), rng), rng, recolour=0)

    made: dict[str, Callable[[random.Random], Image.Image]] = {
        "hue": lambda rng: variants.recoloured(image(), rng),
        "part": lambda rng: variants.partly_recoloured(image(), rng),
        "bent": lambda rng: variants.bent(image(), rng),
    }
    if path.parent.name == "emoji":
        made |= {
            "pair": lambda rng: variants.joined(image(), load_image(other), rng),
            "spliced": splice,
            "spliced again": splice,
            "spliced bent": lambda rng: variants.bent(splice(rng), rng),
            "spliced part": lambda rng: variants.partly_recoloured(splice(rng), rng),
            "part bent": lambda rng: variants.bent(variants.partly_recoloured(image(), rng), rng),
        }
    else:
        made |= {
            "framed": lambda rng: variants.framed(image(), rng),
            "framed part": frame,
            "framed again": frame,
            "spliced": lambda rng: variants.spliced(image(), load_image(other), rng),
        }
    for kind, make in made.items():
        name = f"{path.stem}-{kind.replace(' ', '-')}.png"
        rng = random.Random(f"{path.name}/{kind}")  # each file's own: an interruption changes none
        _save_once(path.parent.with_name(f"{path.parent.name}-varied") / name, partial(make, rng), "PNG")


def _draw(index: int, path: Path) -> None:
    _save_once(path, lambda: draw(sample(random.Random(data.TRAIN_SEED + index)), 168), "JPEG", quality=92)


def _save_once(path: Path, make: Callable[[], Image.Image], kind: str, **options: int) -> None:
    """Writes what `make` draws, whole or not at all; nothing where `path` exists."""
    if not path.is_file():
        draft = path.with_suffix(".draft")
        make().save(draft, kind, **options)
        draft.replace(path)


def banks(data_folder: Path) -> dict[str, list[str]]:
    """The phrase banks: every drawn kind in every colour, pattern and sleeve; photographed kinds; names of emoji.

    That each product has its own phrase, in plain words, matters more than anything else about a bank, and what its
    phrases leave unsaid is for the residual to keep: little of a drawn product, much of an emoji (recipes/LOG.md).
    """
    kinds = itertools.product(language.PHOTO_TYPES, language.VALUES["colour"])
    emoji = (emoji_phrase(record) for _, record in data.emoji_records(data_folder, held=False))
    return {
        "drawn": guiding_phrases(),
        "photos": [f"a {colour} {words.SYNONYMS['type'][kind][0]}" for kind, colour in kinds],
        "emoji": list(dict.fromkeys(emoji)),
    }


def emoji_phrase(record: language.Record) -> str:
    """What the bank says of an emoji: "woman astronaut with light skin tone in 3d style"."""
    tone = f" with {record['skin_tone']}" if record["skin_tone"] else ""
    style = words.SYNONYMS["style"][record["style"]][0]
    return f"{record['thing'].replace('{g}', record['gender_word'])}{tone} in {style} style"


def modifiers(rng: random.Random) -> dict[str, list[str]]:
    """Words that ask for a change, drawn without looking at any picture: a list for each phrase bank."""
    return {
        bank: list(dict.fromkeys(language.random_modifier(rng, bank.removesuffix("s")) for _ in range(count)))
        for bank, count in MODIFIERS.items()
    }


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
@click.option("--drawn", default=DRAWN)
def main(data_folder: Path, out: Path, drawn: int) -> None:
    """Writes OUT/pictures, each bank's OUT/phrases-NAME.txt and OUT/modifiers-NAME.txt, and all in one of each."""
    write_pictures(data_folder, out / "pictures", drawn)
    write_variants(out / "pictures")
    lists: dict[str, list[str]] = {}
    for kind, named in (("phrases", banks(data_folder)), ("modifiers", modifiers(random.Random(0)))):
        lists |= {f"{kind}-{name}": lines for name, lines in named.items()}
        lists[kind] = list(dict.fromkeys(itertools.chain(*named.values())))
    for name, lines in lists.items():
        (out / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        click.echo(f"{len(lines)} {name}")


if __name__ == "__main__":
    main()
