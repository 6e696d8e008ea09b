"""The colour of a garment in a photograph, measured from its pixels by code: no label, no model.

Each pixel of the middle of the picture votes for the nearest of the catalogue's colour names in CIELAB; votes that
the picture's border casts too count less, since the border shows the floor or the wall. The winner is returned only
when its share is clear, so a patterned garment or a dark photo has no measured colour rather than a wrong one.
"""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image2sentence.catalogue.attributes import COLOURS

CLEAR_SHARE = 0.4
_SIDE = 48
_BORDER = 5


def measured_colour(image: Image.Image) -> str:
    """The name of the garment's colour (a key of the catalogue's COLOURS), or "" where no colour is clear."""
    small = image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    nearest = _nearest_names(np.asarray(small, np.float32) / 255)
    inside = np.bincount(nearest[_MIDDLE], minlength=len(_NAMES)) / _MIDDLE.sum()
    outside = np.bincount(nearest[_EDGE], minlength=len(_NAMES)) / _EDGE.sum()
    votes = np.maximum(inside - 0.5 * outside, 0)
    if votes.sum() == 0:
        return ""
    share = votes / votes.sum()
    best = int(share.argmax())
    return _NAMES[best] if share[best] >= CLEAR_SHARE else ""


def _nearest_names(rgb: NDArray[np.float32]) -> NDArray[np.int64]:
    distance = ((_to_lab(rgb)[..., None, :] - _CENTRES) ** 2 * _WEIGHTS).sum(-1)
    return _OWNER[distance.argmin(-1)]


def _to_lab(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """sRGB in 0..1 -> CIELAB (D65), by the CIE 1976 formulae."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    ).astype(np.float32)


def _palette() -> tuple[tuple[str, ...], NDArray[np.float32], NDArray[np.int64]]:
    """Names, CIELAB centres (several lightnesses a name: photographs are darker than drawings), each centre's name."""
    names, centres, owner = tuple(COLOURS), [], []
    for index, span in enumerate(COLOURS.values()):
        hue, saturation, lightness = (sum(pair) / 2 for pair in (span.hue, span.saturation, span.lightness))
        for scale in (0.8, 1.0):
            centres.append(colorsys.hls_to_rgb(hue % 360 / 360, lightness * scale, saturation))
            owner.append(index)
    return names, _to_lab(np.array(centres, np.float32)), np.array(owner)


def _regions() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    y, x = np.mgrid[:_SIDE, :_SIDE] / (_SIDE - 1) - 0.5
    middle = (x / 0.26) ** 2 + (y / 0.3) ** 2 <= 1
    edge = np.ones_like(middle)
    edge[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    return middle, edge


_NAMES, _CENTRES, _OWNER = _palette()
_MIDDLE, _EDGE = _regions()
_WEIGHTS = np.array([0.6, 1.0, 1.0], np.float32)  # lighting moves lightness more than hue
