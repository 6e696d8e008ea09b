"""Attention maps of pseudo-words, laid over the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image2sentence.encoders.onnx_encoder import Explanation
from image2sentence.errors import QueryError
from image2sentence.visualize.contact_sheet import TILE, Panel, panel_sheet

# Dark to bright in even steps of lightness, as the colour map "inferno" (Smith and van der Walt, matplotlib).
_STOPS = np.array(
    [(0, 0, 4), (51, 10, 95), (120, 28, 109), (187, 55, 84), (237, 105, 37), (252, 181, 25), (252, 255, 164)],
    np.float32,
)
_FAINT, _STRONG = 0.3, 0.85  # share of the colour where a token looks least and most
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def overlays(picture: Image.Image, attention: NDArray[np.float32]) -> list[Image.Image]:
    """Each map of `attention` (L, H, W) as heat over the picture in grey, at the picture's size.

    A map is scaled by its own largest value, so that what one token prefers shows whatever it gives away elsewhere;
    maps of different tokens are not comparable by brightness.
    """
    if attention.ndim != 3 or not np.isfinite(attention).all():
        raise QueryError(f"expected finite attention maps (L, H, W), got shape {attention.shape}")
    grey = (np.asarray(picture.convert("RGB"), np.float32) @ _GREY)[..., None]
    return [_blend(grey, _heat(one, picture.size)) for one in attention]


def attention_sheet(pictures: Sequence[Image.Image], explanations: Sequence[Explanation]) -> Image.Image:
    """One line per picture: the picture, then its overlay for every pseudo-word, with gates that are not open."""
    lines = []
    for picture, explanation in zip(pictures, explanations, strict=True):
        small = picture.copy()
        small.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
        heats = overlays(small, explanation.attention)
        shown = [
            Panel(heat, f"word {number}" + ("" if gate > 0.995 else f", gate {gate:.2f}"))
            for number, (heat, gate) in enumerate(zip(heats, explanation.gates, strict=True), 1)
        ]
        lines.append([Panel(small, "picture"), *shown])
    return panel_sheet(lines)


def _heat(attention: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A map as shares of its largest value, (height, width) of the picture."""
    scaled = attention / max(float(attention.max()), np.finfo(np.float32).tiny)
    smooth = Image.fromarray(scaled.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float32).clip(0, 1)


def _blend(grey: NDArray[np.float32], heat: NDArray[np.float32]) -> Image.Image:
    places = np.linspace(0, 1, len(_STOPS))
    colour = np.stack([np.interp(heat, places, _STOPS[:, channel]) for channel in range(3)], axis=-1)
    share = (_FAINT + (_STRONG - _FAINT) * heat)[..., None]
    mixed = (1 - share) * grey + share * colour
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))
