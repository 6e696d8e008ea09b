"""Scene that a painter of one product type draws in."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from image2sentence.catalogue.attributes import Product
from image2sentence.catalogue.canvas import Canvas, Points, Rgb, ellipse, outline
from image2sentence.catalogue.fabric import Fabric, darker, lighter, luminance, mixed, seam_of

METAL: Rgb = (188, 190, 196)


@dataclass
class Scene:
    """One product being drawn. `details` varies what has no name."""

    product: Product
    canvas: Canvas
    fabric: Fabric
    details: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.details = random.Random(f"{self.product.variation}/details")

    def about(self, value: float, spread: float) -> float:
        """`value`, give or take `spread`."""
        return value + self.details.uniform(-spread, spread)

    def piece(
        self, points: Points, angle: float = 0.0, puff: float = 1.0, lift: float = 0.0, soft: float = 0.09
    ) -> None:
        """A panel of the product's own cloth, its pattern turned by `angle`; the rest as in Canvas.panel."""
        self.canvas.panel(points, self.fabric.sheet(angle), puff, soft, lift)

    def trim(
        self, points: Points, puff: float = 0.8, lift: float = 0.0, soft: float = 0.04, clip: bool = False
    ) -> None:
        """A panel of plain cloth in a slightly other shade: ribbing, waistbands, heels."""
        self.canvas.panel(points, seam_of(self.fabric.base, 0.45), puff, soft, lift, clip)

    def patch(self, points: Points, lift: float = 0.16) -> None:
        """A flat piece of the product's own cloth sewn on with a seam around: a pocket or its flap."""
        self.piece(points, puff=0.45, lift=lift, soft=0.03)
        self.seam(points, 0.012)

    def seam(self, points: Points, width: float = 0.014) -> None:
        """A seam line."""
        self.canvas.line(points, self.fabric.seam, width)

    def stitches(self, points: Points) -> None:
        """A dashed row of stitches."""
        self.canvas.stitches(points, self.fabric.seam)

    def crease(self, points: Points, depth: float = 0.2, width: float = 0.03) -> None:
        """A fold of the cloth: a dark line, and a light one beside it towards the light."""
        self.canvas.fold(points, -depth, width)
        self.canvas.fold(points + (-0.6 * width, 1.1 * width), 0.5 * depth, width)

    def ribs(self, start: Points, end: Points, every: float = 0.045) -> None:
        """Fine ribbing between two straight lines, each given by its two ends (2, 2), as of a cuff."""
        count = max(2, round(float(np.hypot(*(start[1] - start[0]))) / every))
        for share in np.linspace(0.0, 1.0, count + 1)[1:-1]:
            rib = [line[0] + share * (line[1] - line[0]) for line in (start, end)]
            self.canvas.fold(np.stack(rib), -0.13, 0.016)

    def button(self, x: float, y: float, radius: float = 0.034) -> None:
        """A round button with two holes."""
        base = self.fabric.base
        face = lighter(base, 0.80) if luminance(base) < 150 else darker(base, 0.66)
        self.canvas.shape(ellipse((x + 0.008, y + 0.012), radius * 1.1, radius * 1.1, 18), darker(base, 0.35))
        self.canvas.shape(ellipse((x, y), radius, radius, 18), face)
        dish = mixed(face, (128, 128, 128), 0.16)
        self.canvas.shape(ellipse((x, y), radius * 0.68, radius * 0.68, 18), dish)
        for side in (-0.3, 0.3):
            hole = ellipse((x + side * radius, y), 0.15 * radius, 0.15 * radius, 8)
            self.canvas.shape(hole, mixed(face, (60, 60, 60), 0.7))

    def zip(self, x: float, top: float, bottom: float) -> None:
        """A closed zip with a puller at its top."""
        line = np.array([[x, top], [x, bottom]])
        self.canvas.line(line, seam_of(self.fabric.base, 1.3), 0.085)
        self.canvas.line(line, METAL, 0.045)
        self.canvas.stitches(line, darker(METAL, 0.5), 0.045, 0.034)
        puller = [(x - 0.026, top), (x + 0.026, top), (x + 0.034, top + 0.13), (x - 0.034, top + 0.13)]
        self.canvas.shape(outline(puller), lighter(METAL, 0.3))
        self.canvas.shape(ellipse((x, top + 0.1), 0.013, 0.016, 10), darker(METAL, 0.5))
