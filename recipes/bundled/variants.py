"""Pictures of things that do not exist, for the query side to imitate the VL model on: no label is needed for that.

The light encoder sees 1,231 emoji subjects, and a VL model that tells subjects apart well lets it learn them by heart.
Hues turned in the whole picture or in one colour of it, halves of two pictures put together, bent shapes and a second
picture beside or upon the first make subjects of which there is one picture each.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

THUMBNAIL = 8  # side in pixels of what `alike` compares


def turned_hue(image: Image.Image, angle: float) -> Image.Image:
    """Every colour turned by `angle` (radians) about the grey axis; white, black and greys stay as they are."""
    pixels = np.asarray(image.convert("RGB"), np.float32) @ _rotation(angle).T
    return Image.fromarray(np.clip(pixels.round(), 0, 255).astype(np.uint8))


def _rotation(angle: float) -> NDArray[np.float32]:
    """Rodrigues' formula for the axis (1, 1, 1)."""
    third, root = (1 - math.cos(angle)) / 3, math.sin(angle) / math.sqrt(3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    matrix = math.cos(angle) * np.eye(3) + third + root * cross
    return matrix.astype(np.float32)


def recoloured(image: Image.Image, rng: random.Random) -> Image.Image:
    """`image` in other hues, as often as not mirrored."""
    turned = turned_hue(image, rng.uniform(0.3, 2 * math.pi - 0.3))
    return ImageOps.mirror(turned) if rng.random() < 0.5 else turned


def joined(first: Image.Image, second: Image.Image, rng: random.Random) -> Image.Image:
    """Two pictures on white in one of the first's size: side by side, or the second small in a corner."""
    width, height = first.size
    half = (width // 2, height // 2)
    small = second.convert("RGB").resize(half, Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        out = Image.new("RGB", first.size, "white")
        out.paste(first.convert("RGB").resize(half, Image.Resampling.BICUBIC), (0, height // 4))
        out.paste(small, (half[0], height // 4))
    else:
        out = first.convert("RGB").copy()
        drawn = small.convert("L").point(lambda value: 255 if value < 250 else 0)
        out.paste(small, (rng.choice((0, width - half[0])), rng.choice((0, height - half[1]))), drawn)
    return recoloured(out, rng) if rng.random() < 0.3 else out


def partly_recoloured(image: Image.Image, rng: random.Random) -> Image.Image:
    """`image` with one of its colours, and what is near it in hue, turned: a jacket, a hat, the background."""
    rgb = image.convert("RGB")
    hsv = np.asarray(rgb.convert("HSV"), np.int16)
    coloured = np.argwhere(hsv[..., 1] > 40)
    if not len(coloured):
        return recoloured(rgb, rng)
    row, column = coloured[rng.randrange(len(coloured))]
    away = np.abs((hsv[..., 0] - hsv[row, column, 0] + 128) % 256 - 128)  # 256 steps are a whole turn
    mask = np.clip((rng.uniform(16, 40) - away) / 8, 0, 1) * (hsv[..., 1] > 25)
    shade = Image.fromarray((255 * mask).astype(np.uint8))
    return Image.composite(turned_hue(rgb, rng.uniform(0.6, 2 * math.pi - 0.6)), rgb, shade)


def spliced(first: Image.Image, second: Image.Image, rng: random.Random) -> Image.Image:
    """The first picture on one side of a line near the middle, the second on the other: a head on another body."""
    width, height = first.size
    angle = rng.choice((0, 90, 180, 270)) + rng.gauss(0, 12)
    across, down = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    side = np.clip(0.5 + (across * x + down * y - rng.uniform(-0.4, 0.4)) * width / 4, 0, 1)
    mask = Image.fromarray((255 * side).astype(np.uint8))
    return Image.composite(second.convert("RGB").resize(first.size), first.convert("RGB"), mask)


def bent(image: Image.Image, rng: random.Random) -> Image.Image:
    """`image` on white: turned by up to 25 degrees, sheared, made wider or narrower, smaller or larger."""
    width, height = image.size
    angle, shear = math.radians(rng.uniform(-25, 25)), rng.uniform(-0.3, 0.3)
    wide, tall = (math.exp(rng.uniform(-0.3, 0.2)) for _ in range(2))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = np.linalg.inv(turn @ np.array([[wide, shear], [0, tall]]))
    middle = np.array([width, height]) / 2
    offset = middle - matrix @ middle
    data = (*matrix[0], offset[0], *matrix[1], offset[1])
    white = (255, 255, 255)
    transform, bicubic = Image.Transform.AFFINE, Image.Resampling.BICUBIC
    return image.convert("RGB").transform(image.size, transform, data, bicubic, fillcolor=white)


def invented_drawings(
    drawings: Sequence[Image.Image], others: Sequence[Image.Image], rng: random.Random
) -> list[Image.Image]:
    """The same changes of each drawing of one thing, so that they show one other thing, which nobody has drawn.

    `others` are another thing's drawings in the same styles and order; as often as not a part of each is put in.
    """
    seed, splice, bend, turn = rng.random(), rng.random() < 0.6, rng.random() < 0.5, rng.random() < 0.5
    angle = rng.uniform(0.3, 2 * math.pi - 0.3)
    found = []
    for drawing, other in zip(drawings, others, strict=True):
        alike = random.Random(seed)  # draws the same numbers for each
        if splice:
            drawing = spliced(drawing, other, alike)
        if bend or not (splice or turn):
            drawing = bent(drawing, alike)
        found.append(turned_hue(drawing, angle) if turn else drawing)
    return found


def framed(image: Image.Image, rng: random.Random, recolour: float = 0.3) -> Image.Image:
    """`image` cropped and small on white, as a shop shows a product; `recolour` of all in other hues."""
    rgb = image.convert("RGB")
    width, height = rgb.size
    cut = [rng.uniform(0, 0.2) for _ in range(4)]
    box = (cut[0] * width, cut[1] * height, (1 - cut[2]) * width, (1 - cut[3]) * height)
    share = rng.uniform(0.45, 0.9)
    size = (max(1, round(share * width)), max(1, round(share * height)))
    out = Image.new("RGB", rgb.size, "white")
    small = rgb.resize(size, Image.Resampling.BICUBIC, box=box)
    out.paste(small, (rng.randrange(width - size[0] + 1), rng.randrange(height - size[1] + 1)))
    return recoloured(out, rng) if rng.random() < recolour else out


def alike(images: Sequence[Image.Image], count: int) -> NDArray[np.int64]:
    """For each picture the `count` others (n, count) whose thumbnails are the nearest to its own, nearest first.

    Fewer where there are not as many others.
    """
    size = (THUMBNAIL, THUMBNAIL)
    thumbnails = [np.asarray(image.convert("RGB").resize(size), np.float32).ravel() for image in images]
    table = np.stack(thumbnails) - np.mean(thumbnails, axis=0)
    lengths = np.square(table).sum(1)
    found = []
    for start in range(0, len(table), 1024):
        rows = np.arange(start, min(start + 1024, len(table)))
        distances = lengths - 2 * table[rows] @ table.T
        distances[np.arange(len(rows)), rows] = np.inf
        found.append(distances.argsort(1)[:, : min(count, len(table) - 1)])
    return np.concatenate(found)
