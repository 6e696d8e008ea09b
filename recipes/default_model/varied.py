"""Files for the query side to train on: pictures, and variants that show what nobody has photographed or drawn.

A light encoder that sees few things learns them by heart. Other hues, halves of two pictures, bent shapes, a second
thing beside the first and products framed on white (recipes/bundled/variants.py) are new things at no cost: what the
gallery tower sees in them is all that training needs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from image2sentence.images import load_image
from recipes.bundled import variants
from recipes.bundled.material import link
from recipes.default_model.pictures import TRAIN, Picture

VARIED = {"photo": 1, "emoji": 3, "everyday": 2}  # variants of each picture
_NEAR = 4  # look-alikes of an emoji, of which one gives a variant its other half
_Made = Callable[[], Image.Image]


@dataclass(frozen=True)
class Files:
    """`rows[i]` of the pictures lies at `paths[i]`; `varied` are those of variants."""

    rows: list[int]
    paths: list[Path]
    varied: list[Path]


def write_files(pictures: Sequence[Picture], drawn: int, out: Path) -> Files:
    """The pictures to train on as plain files, with nothing of what they show in their names; what is there stays."""
    rows, paths, counts = [], [], dict.fromkeys([*VARIED, "drawn"], 0)
    for row, picture in enumerate(pictures):
        source = picture.record["source"]
        if picture.part != TRAIN or (source == "drawn" and counts[source] >= drawn):
            continue
        suffix = picture.path.suffix if picture.path else ".jpg"
        path = out / source / f"{counts[source]:05d}{suffix}"
        counts[source] += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        if picture.path is not None:
            link(picture.path, path)
        else:
            _save(path, picture.open, "JPEG", quality=92)
        rows.append(row)
        paths.append(path)
    return Files(rows, paths, _write_variants(paths, out))


def _write_variants(paths: Sequence[Path], out: Path) -> list[Path]:
    asked: list[tuple[Path, Path, Path, int]] = []
    for source, count in VARIED.items():
        own = [path for path in paths if path.parent.name == source]
        if len(own) < 2:
            continue
        others = random.Random(source).sample(own, len(own))
        near = variants.alike([load_image(path) for path in own], _NEAR) if source == "emoji" else None
        for number, (path, other) in enumerate(zip(own, others, strict=True)):
            rng = random.Random(f"{source}/{path.name}")
            alike = own[rng.choice(near[number].tolist())] if near is not None else other
            asked += [(path, other, alike, again) for again in range(count)]
        (out / f"{source}-varied").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2) as pool:
        return list(tqdm(pool.map(_vary, asked, chunksize=64), total=len(asked), desc="variants"))


def _vary(asked: tuple[Path, Path, Path, int]) -> Path:
    """Writes one variant of the first picture, with the second or its look-alike in some."""
    path, other, alike, number = asked
    target = path.parent.with_name(f"{path.parent.name}-varied") / f"{path.stem}-{number}.png"
    rng = random.Random(f"{path.name}/{number}")
    kinds = _EMOJI if path.parent.name == "emoji" else _PHOTOGRAPHS
    _save(target, partial(rng.choice(kinds), path, other, alike, rng), "PNG", compress_level=1)
    return target


def _splice(path: Path, alike: Path, rng: random.Random) -> Image.Image:
    return variants.spliced(load_image(path), load_image(alike), rng)


def _part(path: Path, rng: random.Random) -> Image.Image:
    return variants.partly_recoloured(load_image(path), rng)


_Kind = Callable[[Path, Path, Path, random.Random], Image.Image]
_COMMON: tuple[_Kind, ...] = (
    lambda path, other, alike, rng: variants.recoloured(load_image(path), rng),
    lambda path, other, alike, rng: _part(path, rng),
    lambda path, other, alike, rng: variants.bent(load_image(path), rng),
    lambda path, other, alike, rng: _splice(path, alike, rng),
)
_EMOJI: tuple[_Kind, ...] = (
    *_COMMON,
    lambda path, other, alike, rng: variants.joined(load_image(path), load_image(other), rng),
    lambda path, other, alike, rng: _splice(path, alike, rng),
    lambda path, other, alike, rng: variants.bent(_splice(path, alike, rng), rng),
    lambda path, other, alike, rng: variants.bent(_part(path, rng), rng),
)
_PHOTOGRAPHS: tuple[_Kind, ...] = (
    *_COMMON,
    lambda path, other, alike, rng: variants.framed(load_image(path), rng),
    lambda path, other, alike, rng: variants.framed(_part(path, rng), rng, recolour=0),
    lambda path, other, alike, rng: variants.framed(load_image(path), rng, recolour=0),
)


def _save(path: Path, made: _Made, kind: str, **options: int) -> None:
    """Writes what `made` gives, whole or not at all; nothing where `path` exists."""
    if not path.is_file():
        draft = path.with_suffix(".draft")
        made().save(draft, kind, **options)
        draft.replace(path)
