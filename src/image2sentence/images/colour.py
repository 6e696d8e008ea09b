"""Conversion of pixels of any mode to 8-bit RGB."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms

Convert: TypeAlias = Callable[[Image.Image], Image.Image]

GROUNDS = ((255, 255, 255), (0, 0, 0), (128, 128, 128))
"""What transparent pictures are put on: the first of these that shows enough of them."""

MAX_LOST = 0.25
"""Share of a picture's visible pixels that may look like the ground."""

ALIKE = 48
"""Difference in every channel below which a pixel looks like the ground, of 255."""

_STRIP_PIXELS = 1 << 21
_PROFILES_KEPT = 32
_UNCHANGED = 2  # units of 255 by which a profile may move colours and still be taken for sRGB
_CMS_MODES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}


def to_rgb(picture: Image.Image, at_least: int | None, profile: bytes = b"") -> Image.Image:
    """A loaded picture as 8-bit RGB in sRGB, reduced by a whole factor where both sides stay `at_least` pixels.

    Works in strips, so that it needs little more memory than the picture and the result. 16-bit grey is scaled
    (65535 -> 255), 32-bit and float grey stretched from its smallest to its largest value. Transparent pixels are
    put on `ground_of(picture)`.

    Args:
        picture: Of any mode of Pillow.
        at_least: Smallest side that is needed; None keeps the size.
        profile: ICC profile; a broken one, or one for other channels, is passed over.
    """
    factor = max(1, min(picture.size) // at_least) if at_least is not None else 1
    mode = "CMYK" if picture.mode == "CMYK" and profile else "RGB"
    convert = _conversion(picture, mode)
    reduced = Image.new(mode, (-(-picture.width // factor), -(-picture.height // factor)))
    for top, strip in _strips(picture, factor):
        part = convert(strip)
        reduced.paste(part.reduce(factor) if factor > 1 else part, (0, top // factor))
    return _in_srgb(reduced, picture.mode, profile)


def ground_of(picture: Image.Image) -> tuple[int, int, int]:
    """The ground that shows a transparent picture: white, else black, else grey, decided by its visible pixels.

    A pixel counts by its opacity, and is lost on a ground that is nearly its colour. White on transparent comes out on
    black; what is mostly neither white nor black stays on white.
    """
    visible, lost = 0, [0] * len(GROUNDS)
    for _, strip in _strips(picture, 1):
        red, green, blue, alpha = strip.convert("RGBA").split()
        visible += _sum(alpha)
        for number, (ground, _, _) in enumerate(GROUNDS):
            alike = Image.new("L", alpha.size, 255)
            for channel in (red, green, blue):
                near = channel.point([255 * (abs(value - ground) < ALIKE) for value in range(256)])
                alike = ImageChops.darker(alike, near)
            lost[number] += _sum(ImageChops.darker(alike, alpha))
    if not visible:
        return GROUNDS[0]
    shown = [number for number, share in enumerate(lost) if share <= MAX_LOST * visible]
    return GROUNDS[shown[0] if shown else lost.index(min(lost))]


def _sum(channel: Image.Image) -> int:
    return sum(value * count for value, count in enumerate(channel.histogram()))


def _strips(picture: Image.Image, factor: int) -> Iterator[tuple[int, Image.Image]]:
    """Parts of full width, with their upper edge, each a whole number of `factor` rows high."""
    rows = max(factor, _STRIP_PIXELS // max(picture.width, 1) // factor * factor)
    if rows >= picture.height:
        yield 0, picture
        return
    for top in range(0, picture.height, rows):
        yield top, picture.crop((0, top, picture.width, min(top + rows, picture.height)))


def _conversion(picture: Image.Image, mode: str) -> Convert:
    """What makes a strip of this picture RGB, or leaves it CMYK."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _deep_grey(picture)
    if picture.mode == "LAB":
        return _from_lab
    if not picture.has_transparency_data:
        return lambda strip: strip if strip.mode == mode else strip.convert(mode)
    if picture.mode in ("RGBA", "LA") and picture.getextrema()[-1] == (255, 255):
        return lambda strip: strip.convert("RGB")
    ground = ground_of(picture)

    def on_ground(strip: Image.Image) -> Image.Image:
        rgba = strip.convert("RGBA")
        below = Image.new("RGB", strip.size, ground)
        below.paste(rgba, mask=rgba.getchannel("A"))
        return below

    return on_ground


# ---- grey of more than 8 bits; Pillow's own conversion would clip it ----


def _deep_grey(picture: Image.Image) -> Convert:
    # Pillow before 11 opens 16-bit PNG as 32-bit "I".
    if picture.mode.startswith("I;16") or picture.format == "PNG":
        return _sixteen_bits(picture.info.get("transparency"))
    low, high = _range(picture)
    scale = 255.0 / ((high - low) or 1.0)

    def stretched(strip: Image.Image) -> Image.Image:
        values = np.asarray(strip).astype(np.float32)
        values = np.where(np.isfinite(values), values, low)
        return Image.fromarray(np.round((values - low) * scale).astype(np.uint8)).convert("RGB")

    return stretched


def _sixteen_bits(transparent: object) -> Convert:
    table = ((np.arange(1 << 16) + 128) // 257).astype(np.uint8)

    def scaled(strip: Image.Image) -> Image.Image:
        values = np.asarray(strip)
        grey = table[np.clip(values, 0, 65535)]
        if isinstance(transparent, int):
            grey[values == transparent] = 255
        return Image.fromarray(grey).convert("RGB")

    return scaled


def _range(picture: Image.Image) -> tuple[float, float]:
    """The smallest and largest finite value. Raises ValueError where there is none."""
    found: list[NDArray[np.float32]] = []
    for _, strip in _strips(picture, 1):
        values = np.asarray(strip).astype(np.float32)
        values = values[np.isfinite(values)]
        if values.size:
            found.append(np.array([values.min(), values.max()], np.float32))
    if not found:
        raise ValueError("no finite pixel value")
    return float(min(part[0] for part in found)), float(max(part[1] for part in found))


# ---- colour profiles ----


def _in_srgb(picture: Image.Image, mode: str, profile: bytes) -> Image.Image:
    """The picture in sRGB; `mode` is what it was before it was made RGB or CMYK."""
    is_grey = mode in ("1", "L", "LA", "La") or mode.startswith("I;16")
    channels = "L" if is_grey else picture.mode
    transform = _to_srgb(profile, channels) if profile else None
    if transform is None:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    source = picture.getchannel("R") if is_grey else picture
    converted = Image.new("RGB", picture.size)
    for top, strip in _strips(source, 1):
        converted.paste(transform.apply(strip), (0, top))
    return converted


@lru_cache(_PROFILES_KEPT)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The way from a profile to sRGB; None where it changes little, is broken, or is for other channels."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space != _CMS_MODES[mode]:
            return None
        transform = ImageCms.ImageCmsTransform(
            opened, _builtin("sRGB"), mode, "RGB", ImageCms.Intent.PERCEPTUAL
        )
        if mode != "CMYK":
            probe = _probe(mode)
            change = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
            return transform if np.abs(change).max() > _UNCHANGED else None
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None
    return transform


def _probe(mode: str) -> Image.Image:
    """Colours of the whole range, to see what a profile does."""
    if mode == "L":
        return Image.linear_gradient("L")
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    return Image.fromarray(colours)


def _from_lab(strip: Image.Image) -> Image.Image:
    return ImageCms.ImageCmsTransform(_builtin("LAB"), _builtin("sRGB"), "LAB", "RGB").apply(strip)


def _builtin(name: Literal["LAB", "sRGB"]) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name))
