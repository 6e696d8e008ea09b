"""Canvas on which a product is drawn, with soft light and shadow.

Outlines, patterns and seams are drawn three times as large as the picture and then reduced, which smooths
their edges; light and shadow are soft anyway and are computed at the size of the picture.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Rgb = tuple[int, int, int]
Points = NDArray[np.float64]
FloatMap = NDArray[np.float32]

SUPERSAMPLING = 3


@dataclass(frozen=True)
class Placement:
    """Where the product lies: its frame (y down, about [-1, 1] each way) is moved so that `centre` comes to
    zero, turned by `angle` (radians), scaled, then shifted from the picture's middle.

    `scale` and `shift` are fractions of the picture's side.
    """

    scale: float
    angle: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)
    shift: tuple[float, float] = (0.0, 0.0)


def outline(corners: Sequence[tuple[float, ...]]) -> Points:
    """A line (n, 2) through `corners`: (x, y), or (x, y, bend) with the bend of the edge that leads there.

    The bend is the edge's height in the middle as a fraction of its length, positive to the left of the
    direction of travel (y down), and zero for a straight edge.
    """
    points = [np.asarray(corners[0][:2], dtype=np.float64)[None]]
    for start, end in pairwise(corners):
        bend = end[2] if len(end) == 3 else 0.0
        points.append(_edge(start[:2], end[:2], bend))
    return np.concatenate(points)


def flat(sag: float, half: float) -> float:
    """The bend of half an edge, `half` wide and `sag` deep, that meets its mirror image without a kink."""
    return sag / (4.0 * half)


def mirrored(half: Points) -> Points:
    """The closed outline of which `half` is the right side, from top to bottom."""
    return np.concatenate([half, (half * (-1.0, 1.0))[::-1]])


def ellipse(centre: tuple[float, float], radius_x: float, radius_y: float, steps: int = 28) -> Points:
    """The outline of an ellipse."""
    angles = np.linspace(0.0, 2.0 * math.pi, steps, endpoint=False)
    return np.stack([centre[0] + radius_x * np.cos(angles), centre[1] + radius_y * np.sin(angles)], axis=1)


def turned(points: Points, angle: float, centre: tuple[float, float] = (0.0, 0.0)) -> Points:
    """`points` turned about `centre` by `angle` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = points[:, 0] - centre[0], points[:, 1] - centre[1]
    return np.stack([x * cos - y * sin + centre[0], x * sin + y * cos + centre[1]], axis=1)


def _edge(start: tuple[float, ...], end: tuple[float, ...], bend: float) -> Points:
    if bend == 0.0:
        return np.asarray(end, dtype=np.float64)[None]
    (x0, y0), (x1, y1) = start, end
    # A quadratic curve passes its control point at half the distance.
    control = ((x0 + x1) / 2 + 2 * bend * (y1 - y0), (y0 + y1) / 2 - 2 * bend * (x1 - x0))
    t = np.linspace(0.0, 1.0, 11)[1:, None]
    curve: Points = (
        (1 - t) ** 2 * np.array(start) + 2 * t * (1 - t) * np.array(control) + t**2 * np.array(end)
    )
    return curve


class Canvas:
    """Collects the panels, lines and folds of one product; `finished` puts it on a background."""

    def __init__(self, size: int, placement: Placement) -> None:
        self.size = size
        self.side = size * SUPERSAMPLING
        self._placement = placement
        cos, sin = math.cos(placement.angle), math.sin(placement.angle)
        self._rotation = np.array([[cos, sin], [-sin, cos]]) * (placement.scale * self.side)
        self._origin = (0.5 + np.array(placement.shift)) * self.side - np.array(
            placement.centre
        ) @ self._rotation
        self._paint = Image.new("RGB", (self.side, self.side))
        self._pen = ImageDraw.Draw(self._paint)
        self._cover = Image.new("L", (self.side, self.side))
        self._light: FloatMap = np.ones((size, size), dtype=np.float32)
        self._folds = Image.new("L", (size, size), 128)
        self._folds_pen = ImageDraw.Draw(self._folds)
        self._corners: list[Points] = []

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of all panels so far, in the product frame."""
        corners = np.concatenate(self._corners)
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        return float(left), float(top), float(right), float(bottom)

    def pixels(self, points: Points) -> list[tuple[float, float]]:
        """The places of `points` (n, 2) in the supersampled picture."""
        return [(x, y) for x, y in (points @ self._rotation + self._origin).tolist()]

    def width(self, length: float) -> int:
        """A length of the product frame in pixels of the supersampled picture, at least one."""
        return max(1, round(length * self._placement.scale * self.side))

    def panel(
        self,
        points: Points,
        paint: Rgb | Image.Image,
        puff: float = 1.0,
        soft: float = 0.09,
        lift: float = 0.0,
        clip: bool = False,
    ) -> None:
        """Lays a closed piece of cloth with the outline `points` on the product.

        `paint` is a colour or a supersampled picture of the cloth. `puff` is how strongly it bulges, `soft`
        how wide its rounded rim is (product frame), `lift` how dark a shadow it throws on what is below.
        `clip` keeps to what is covered already.
        """
        self._corners.append(points)
        polygon = self.pixels(points)
        box = self._box(polygon, soft)
        left, top, right, bottom = (edge * SUPERSAMPLING for edge in box)
        big = (left, top, right, bottom)
        mask = self._mask(polygon, big)
        if clip:
            mask = ImageChops.multiply(mask, self._cover.crop(big))
        self._paint.paste(paint.crop(big) if isinstance(paint, Image.Image) else paint, big, mask)
        self._cover.paste(255, big, mask)
        self._shade(mask.reduce(SUPERSAMPLING), box, puff, soft, lift)

    def line(self, points: Points, colour: Rgb, width: float) -> None:
        """Draws a line on the product, `width` wide in the product frame."""
        self._pen.line(self.pixels(points), fill=colour, width=self.width(width), joint="curve")

    def stitches(self, points: Points, colour: Rgb, width: float = 0.012, every: float = 0.05) -> None:
        """Draws a dashed line, one stitch `every` so far in the product frame."""
        steps = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
        for start in np.arange(0.0, steps[-1] - 0.5 * every, every):
            along = np.array([start, start + 0.6 * every])
            dash = np.stack([np.interp(along, steps, points[:, axis]) for axis in (0, 1)], axis=1)
            self._pen.line(self.pixels(dash), fill=colour, width=self.width(width))

    def shape(self, points: Points, colour: Rgb) -> None:
        """Fills a flat shape (a button, an eyelet) on the product, without light of its own."""
        self._pen.polygon(self.pixels(points), fill=colour)

    def fold(self, points: Points, depth: float, width: float = 0.05) -> None:
        """Adds a soft crease; `depth` in -1 to 1, negative is dark."""
        places = [(x / SUPERSAMPLING, y / SUPERSAMPLING) for x, y in self.pixels(points)]
        thick = max(1, round(self.width(width) / SUPERSAMPLING))
        self._folds_pen.line(places, fill=round(128 + 127 * depth), width=thick, joint="curve")

    def knit(self, period: float = 0.042, depth: float = 0.05) -> None:
        """Gives all panels so far the fine relief of knitting: columns of small V's."""
        x, y = self._frame()
        column = x / period
        slant = np.abs(column % 1.0 - 0.5)
        stitch = np.cos(2.0 * math.pi * (y / (0.8 * period) + 1.2 * slant))
        self._light += depth * (stitch * 0.6 - np.cos(2.0 * math.pi * column) * 0.8)

    def undulate(self, rng: random.Random, depth: float = 0.035) -> None:
        """Gives all panels so far broad soft waves, as of cloth that has been laid down by hand."""
        coarse = rng.randbytes(64)
        waves = Image.frombytes("L", (8, 8), coarse).resize((self.size, self.size), Image.Resampling.BICUBIC)
        self._light += (np.asarray(waves, dtype=np.float32) / 127.5 - 1.0) * depth

    def _frame(self) -> tuple[FloatMap, FloatMap]:
        """The product frame's x and y at every pixel of the picture, (size, size) each."""
        place = self._placement
        across = (np.arange(self.size, dtype=np.float32) + 0.5) / self.size - 0.5
        x = (across - np.float32(place.shift[0]))[None, :] / np.float32(place.scale)
        y = (across - np.float32(place.shift[1]))[:, None] / np.float32(place.scale)
        cos, sin = np.float32(math.cos(place.angle)), np.float32(math.sin(place.angle))
        return x * cos + y * sin + np.float32(place.centre[0]), y * cos - x * sin + np.float32(
            place.centre[1]
        )

    def finished(self, background: FloatMap, ground: float) -> Image.Image:
        """The picture (size, size) RGB: the product with its light and shadow on `background` (size, size,
        3).

        `ground` in 0 to 1: 0 for a product seen lying flat, 1 for one that stands on the ground below it.
        """
        cover = np.asarray(self._cover.reduce(SUPERSAMPLING), dtype=np.float32) / 255.0
        covered = Image.composite(self._paint, Image.new("RGB", self._paint.size), self._cover)
        paint = np.asarray(covered.reduce(SUPERSAMPLING), dtype=np.float32)
        inside = np.maximum(cover, 1e-3)[..., None]
        paint = np.minimum(paint / inside, 255.0)
        folds = self._folds.filter(ImageFilter.GaussianBlur(0.012 * self.size))
        light = self._light + (np.asarray(folds, dtype=np.float32) - 128.0) / 127.0
        # The constant lets light and shade show on black cloth too.
        lit = (paint + 34.0) * light[..., None] - 34.0
        scene = background * (1.0 - self._shadow(cover, ground))[..., None]
        mixed = scene + (lit - scene) * cover[..., None]
        return Image.fromarray(np.clip(mixed, 0.0, 255.0).astype(np.uint8))

    def _box(self, polygon: list[tuple[float, float]], soft: float) -> tuple[int, int, int, int]:
        """The picture's part (left, top, right, bottom) that a panel and its soft rim touch."""
        corners = np.asarray(polygon) / SUPERSAMPLING
        margin = 2.0 * self.width(soft) / SUPERSAMPLING + 1.0
        low = np.clip(np.floor(corners.min(axis=0) - margin), 0, self.size - 1)
        high = np.clip(np.ceil(corners.max(axis=0) + margin), low + 1, self.size)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    def _mask(self, polygon: list[tuple[float, float]], box: tuple[int, int, int, int]) -> Image.Image:
        left, top, right, bottom = box
        mask = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in polygon], fill=255)
        return mask

    def _shade(
        self, mask: Image.Image, box: tuple[int, int, int, int], puff: float, soft: float, lift: float
    ) -> None:
        """Light from the upper left on a panel that bulges towards its middle."""
        reach = self.width(soft) / SUPERSAMPLING
        height = np.asarray(mask.filter(ImageFilter.GaussianBlur(reach)), dtype=np.float32) / 255.0
        step = max(1, round(0.5 * reach))
        slope = height - np.roll(height, (step, step), axis=(0, 1))
        lit = 1.0 + puff * (0.55 * slope + 0.34 * np.minimum(height - 0.92, 0.0) + 0.04)
        inside = np.asarray(mask, dtype=np.float32) / 255.0
        left, top, right, bottom = box
        below = self._light[top:bottom, left:right] * (1.0 - lift * height)
        self._light[top:bottom, left:right] = below + (lit - below) * inside

    def _shadow(self, cover: FloatMap, ground: float) -> FloatMap:
        """How much of the background's light the product takes, (size, size) in 0 to 1."""
        size = self.size
        wide = _blurred(_moved(cover, round(0.022 * size), round(0.034 * size)), 0.034 * size)
        near = _blurred(_moved(cover, round(0.006 * size), round(0.010 * size)), 0.010 * size)
        shadow = 0.24 * wide + 0.16 * near
        if ground > 0.0:
            shadow = 0.3 * shadow + ground * self._ground_shadow(cover)
        return shadow

    def _ground_shadow(self, cover: FloatMap) -> FloatMap:
        rows, columns = np.nonzero(cover > 0.5)
        sheet = Image.new("L", (self.size, self.size))
        foot, thick = float(rows.max()), 0.022 * self.size
        spread = 0.02 * self.size
        box = (columns.min() - spread, foot - thick, columns.max() + 2 * spread, foot + thick)
        ImageDraw.Draw(sheet).ellipse([float(edge) for edge in box], fill=255)
        soft = sheet.filter(ImageFilter.GaussianBlur(0.018 * self.size))
        return np.asarray(soft, dtype=np.float32) * (0.5 / 255.0)


def _moved(cover: FloatMap, right: int, down: int) -> FloatMap:
    moved = np.zeros_like(cover)
    moved[down:, right:] = cover[: cover.shape[0] - down, : cover.shape[1] - right]
    return moved


def _blurred(cover: FloatMap, radius: float) -> FloatMap:
    sheet = Image.fromarray((cover * 255.0).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(sheet, dtype=np.float32) / 255.0
