"""Pictures of things that do not exist, for the query side to imitate the VL model on: no label is needed for that.

The light encoder sees 1,231 emoji subjects, and a VL model that tells subjects apart well lets it learn them by heart.
Turned hues, and a second picture beside or upon the first, make subjects of which there is one picture each.
"""

from __future__ import annotations

import math
import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


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
