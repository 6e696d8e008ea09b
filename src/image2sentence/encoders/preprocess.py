"""Preprocessing of images to encoder inputs, in training and runtime alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image2sentence.encoders.config import Preprocessing

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


MAX_RESIZED = 16
"""Areas of the crop that are resized before cropping; of longer images only the crop is computed, in one step."""


def fit(image: Image.Image, how: Preprocessing) -> Image.Image:
    """An RGB picture of any size -> an RGB picture of `how.size` by `how.size`."""
    resample, side = _FILTERS[how.resample], how.resize or how.size
    if how.fit == "squash" and side == how.size:
        return image.resize((side, side), resample)
    width, height = (side, side) if how.fit == "squash" else _resized(image, side)
    left, top = (width - how.size) // 2, (height - how.size) // 2
    if width * height > MAX_RESIZED * side**2:
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, (left + how.size) * across, (top + how.size) * down)
        return image.resize((how.size, how.size), resample, box)
    return image.resize((width, height), resample).crop((left, top, left + how.size, top + how.size))


def _resized(image: Image.Image, shorter: int) -> tuple[int, int]:
    """Width and height with the shorter side resized; the longer one is rounded down, as transformers does."""
    least = min(image.size)
    width, height = (shorter if side == least else int(shorter * side / least) for side in image.size)
    return width, height


def to_pixels(images: Sequence[Image.Image], how: Preprocessing) -> NDArray[np.float32]:
    """n RGB pictures -> (n, 3, size, size) float32, normalised by `how.mean` and `how.std`."""
    stacked = np.empty((len(images), how.size, how.size, 3), np.uint8)
    for row, image in enumerate(images):
        stacked[row] = np.asarray(fit(image, how))
    return normalise(stacked, how)


def normalise(pixels: NDArray[np.uint8], how: Preprocessing) -> NDArray[np.float32]:
    """(n, size, size, 3) uint8 -> (n, 3, size, size) float32."""
    scale = 1 / (255 * np.array(how.std, np.float32))
    shift = np.array(how.mean, np.float32) / np.array(how.std, np.float32)
    return np.ascontiguousarray((pixels * scale - shift).transpose(0, 3, 1, 2), np.float32)
