"""Pictures to encoder inputs; the same code feeds training, export parity and the runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image2sentence.config import Preprocessing

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def fit(image: Image.Image, how: Preprocessing) -> Image.Image:
    """An RGB picture of any size -> an RGB picture of `how.size` by `how.size`."""
    resample = _FILTERS[how.resample]
    if how.fit == "squash":
        return image.resize((how.size, how.size), resample)
    scale = how.size / min(image.size)
    width, height = (max(how.size, round(side * scale)) for side in image.size)
    left, top = (width - how.size) // 2, (height - how.size) // 2
    return image.resize((width, height), resample).crop((left, top, left + how.size, top + how.size))


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
