"""Cloth: shades of named colours, and patterned sheets."""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from image2sentence.catalogue.attributes import COLOURS, HslRange
from image2sentence.catalogue.canvas import Canvas, Points, Rgb, ellipse, turned

_REACH = 1.5  # Patterns cover the product frame and its surroundings: products are turned and shifted.


def shade_of(spread: HslRange, rng: random.Random) -> Rgb:
    """One exact shade of a named colour."""
    hue = rng.uniform(*spread.hue) % 360.0 / 360.0
    saturation, lightness = rng.uniform(*spread.saturation), rng.uniform(*spread.lightness)
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def mixed(first: Rgb, second: Rgb, share: float) -> Rgb:
    """`first` with `share` (0 to 1) of it replaced by `second`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def darker(colour: Rgb, share: float = 0.25) -> Rgb:
    """`colour` with black mixed in."""
    return mixed(colour, (0, 0, 0), share)


def lighter(colour: Rgb, share: float = 0.25) -> Rgb:
    """`colour` with white mixed in."""
    return mixed(colour, (255, 255, 255), share)


def luminance(colour: Rgb) -> float:
    """How bright a colour looks, 0 to 255 (the luma weights of ITU-R BT.601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def seam_of(colour: Rgb, strength: float = 1.0) -> Rgb:
    """A colour for seams: darker than the cloth, or lighter where the cloth is nearly black."""
    if luminance(colour) < 58:
        return lighter(colour, 0.24 * strength)
    return darker(colour, 0.26 * strength)


class Fabric:
    """The cloth of one product. `base` is its main colour, `accent` its pattern's colour (`base` where
    plain)."""

    def __init__(
        self, canvas: Canvas, colour: str, pattern: str, pattern_colour: str, variation: int
    ) -> None:
        shades = random.Random(f"{variation}/shade")
        self.base = shade_of(COLOURS[colour], shades)
        self.accent = shade_of(COLOURS[pattern_colour], shades) if pattern_colour else self.base
        self._canvas = canvas
        self._pattern = pattern
        self._variation = variation
        self._sheets: dict[float, Image.Image] = {}

    @property
    def seam(self) -> Rgb:
        """The colour of seams on this cloth."""
        return seam_of(self.base)

    def sheet(self, angle: float = 0.0) -> Rgb | Image.Image:
        """The cloth with its pattern turned by `angle` radians: a colour, or a supersampled picture to cut
        from."""
        if self._pattern == "plain":
            return self.base
        if self._pattern not in _DIRECTED:
            angle = 0.0
        if angle not in self._sheets:
            self._sheets[angle] = self._drawn(angle)
        return self._sheets[angle]

    def _drawn(self, angle: float) -> Image.Image:
        rng = random.Random(f"{self._variation}/pattern")
        sheet = Image.new("RGB", (self._canvas.side, self._canvas.side), self.base)
        _PATTERNS[self._pattern](_Loom(self._canvas, sheet, angle), self.base, self.accent, rng)
        return sheet


class _Loom:
    """Draws shapes given in the cloth's own frame, which is turned by `angle`, on a sheet."""

    def __init__(self, canvas: Canvas, sheet: Image.Image, angle: float) -> None:
        self.canvas, self.sheet, self.angle = canvas, sheet, angle
        self._pen = ImageDraw.Draw(sheet)

    def fill(self, points: Points, colour: Rgb | int) -> None:
        """Fills the outline `points` (n, 2)."""
        self._pen.polygon(self.canvas.pixels(turned(points, self.angle)), fill=colour)

    def scatter(self, motif: Image.Image, mask: Image.Image, spacing: float, phase: float) -> None:
        """Puts the motif, upright, wherever it is in the picture on a brick-wise grid."""
        rows = _bands(0.87 * spacing, phase)
        places = [(x, y) for number, y in enumerate(rows) for x in _bands(spacing, 0.5 * (number % 2))]
        half, side = motif.width / 2, self.canvas.side
        for x, y in self.canvas.pixels(np.array(places)):
            if -half < x < side + half and -half < y < side + half:
                self.sheet.paste(motif, (round(x - half), round(y - half)), mask)


def _bands(period: float, phase: float) -> list[float]:
    """Where the bands start that fill the cloth, one each `period`."""
    count = math.ceil(_REACH / period)
    return [(step + phase) * period for step in range(-count, count + 1)]


def _upright(left: float, right: float) -> Points:
    return np.array([[left, -_REACH], [right, -_REACH], [right, _REACH], [left, _REACH]])


def _level(top: float, bottom: float) -> Points:
    return np.array([[-_REACH, top], [_REACH, top], [_REACH, bottom], [-_REACH, bottom]])


def _striped(loom: _Loom, base: Rgb, accent: Rgb, rng: random.Random) -> None:
    period = rng.uniform(0.21, 0.27)
    for y in _bands(period, rng.random()):
        loom.fill(_level(y, y + 0.42 * period), accent)


def _pinstriped(loom: _Loom, base: Rgb, accent: Rgb, rng: random.Random) -> None:
    period = rng.uniform(0.15, 0.19)
    for x in _bands(period, 0.5):
        loom.fill(_upright(x - 0.13 * period, x + 0.13 * period), accent)


def _checked(loom: _Loom, base: Rgb, accent: Rgb, rng: random.Random) -> None:
    """Gingham: two sets of bands that each mix half of the accent in, and all of it where they cross."""
    period = rng.uniform(0.22, 0.27)
    half = mixed(base, accent, 0.5)
    crossing, rows = Image.new("RGB", loom.sheet.size, half), Image.new("L", loom.sheet.size)
    in_rows, mask = _Loom(loom.canvas, crossing, loom.angle), _Loom(loom.canvas, rows, loom.angle)
    for start in _bands(period, 0.25):
        end = start + 0.42 * period
        loom.fill(_upright(start, end), half)
        in_rows.fill(_upright(start, end), accent)
        mask.fill(_level(start, end), 255)
    loom.sheet.paste(crossing, mask=rows)


def _zigzag(loom: _Loom, base: Rgb, accent: Rgb, rng: random.Random) -> None:
    period, tooth = rng.uniform(0.23, 0.28), rng.uniform(0.11, 0.13)
    teeth = np.arange(-14, 15)
    saw = np.stack([teeth * tooth, (teeth % 2) * 1.1 * tooth], axis=1)
    band = np.concatenate([saw, (saw + (0.0, 0.36 * period))[::-1]])
    for y in _bands(period, rng.random()):
        loom.fill(band + (0.0, y), accent)


def _motif(loom: _Loom, reach: float, colour: Rgb) -> tuple[Image.Image, Image.Image, float]:
    """A picture for a motif of `reach` around its centre, its empty mask, and half its side in pixels."""
    side = 2 * loom.canvas.width(reach) + 1
    return Image.new("RGB", (side, side), colour), Image.new("L", (side, side)), side / 2


def _cut(mask: Image.Image, shape: Points) -> None:
    """Opens the mask where `shape` is, given in [-1, 1] each way."""
    places = (shape + 1.0) * (mask.width / 2)
    ImageDraw.Draw(mask).polygon([(x, y) for x, y in places.tolist()], fill=255)


def _dotted(loom: _Loom, base: Rgb, accent: Rgb, rng: random.Random) -> None:
    radius = rng.uniform(0.055, 0.068)
    motif, mask, _ = _motif(loom, radius, accent)
    _cut(mask, ellipse((0.0, 0.0), 0.98, 0.98, 40))
    loom.scatter(motif, mask, 3.6 * radius, rng.random())


def _hearts(loom: _Loom, base: Rgb, accent: Rgb, rng: random.Random) -> None:
    reach = rng.uniform(0.10, 0.115)
    motif, mask, _ = _motif(loom, reach, accent)
    t = np.linspace(0.0, 2.0 * math.pi, 40, endpoint=False)
    # The common parametric heart; 17.5 brings it into [-1, 1].
    down = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    _cut(mask, np.stack([16 * np.sin(t) ** 3, down], axis=1) / 17.5)
    loom.scatter(motif, mask, 2.7 * reach, rng.random())


def _floral(loom: _Loom, base: Rgb, accent: Rgb, rng: random.Random) -> None:
    reach, turn = rng.uniform(0.135, 0.15), rng.uniform(0.0, math.pi)
    motif, mask, half = _motif(loom, reach, accent)
    for number in range(5):
        _cut(mask, turned(ellipse((0.56, 0.0), 0.40, 0.30, 20), turn + number * 2.0 * math.pi / 5.0))
    centre = lighter(base, 0.35) if luminance(accent) < 140 else darker(base, 0.1)
    _cut(mask, ellipse((0.0, 0.0), 0.26, 0.26, 20))
    ImageDraw.Draw(motif).ellipse((0.74 * half, 0.74 * half, 1.26 * half, 1.26 * half), fill=centre)
    loom.scatter(motif, mask, 2.35 * reach, rng.random())


_DIRECTED = frozenset({"striped", "pinstriped", "checked", "zigzag"})
_PATTERNS: dict[str, Callable[[_Loom, Rgb, Rgb, random.Random], None]] = {
    "striped": _striped,
    "pinstriped": _pinstriped,
    "checked": _checked,
    "dotted": _dotted,
    "floral": _floral,
    "zigzag": _zigzag,
    "hearts": _hearts,
}
