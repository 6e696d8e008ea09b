"""Painters of socks and shoes; shoes are seen from the side."""

from __future__ import annotations

import numpy as np

from image2sentence.catalogue.canvas import Points, Rgb, ellipse, outline, turned
from image2sentence.catalogue.fabric import darker, luminance
from image2sentence.catalogue.scene import Scene

_SOLE: Rgb = (244, 242, 236)
_SOLE_EDGE: Rgb = (200, 196, 188)
_HEEL: Rgb = (58, 46, 40)
_WELT: Rgb = (196, 164, 120)


def socks(scene: Scene) -> None:
    """A pair of socks, to the ankle or to the knee."""
    top = 0.02 if scene.product.length == "short" else -0.90
    for move, tilt in ((-0.45, -0.05), (0.27, 0.06)):
        _sock(scene, top, move, tilt + scene.details.uniform(-0.03, 0.03))
    scene.canvas.knit(0.04, 0.04)


def _sock(scene: Scene, top: float, move: float, tilt: float) -> None:
    def place(points: Points) -> Points:
        return turned(points, tilt) + (move, 0.0)

    foot = outline(
        [
            (-0.19, top),
            (0.19, top, 0.02),
            (0.17, 0.34),
            (0.40, 0.60, -0.14),
            (0.42, 0.78, 0.30),
            (0.02, 0.84, 0.06),
            (-0.18, 0.58, 0.16),
            (-0.19, top),
        ]
    )
    scene.piece(place(foot), angle=tilt, puff=1.1, lift=0.1)
    heel = outline(
        [(-0.185, 0.42), (0.0, 0.62, 0.14), (-0.04, 0.83), (-0.19, 0.60, 0.16), (-0.185, 0.42, 0.02)]
    )
    toe = outline([(0.24, 0.46), (0.45, 0.58), (0.43, 0.78, 0.30), (0.24, 0.83, 0.03), (0.30, 0.49, 0.14)])
    for part in (heel, toe):
        scene.trim(place(part), 0.9, 0.0, 0.05, clip=True)
    cuff = outline(
        [(-0.20, top - 0.03), (0.20, top - 0.03, 0.02), (0.195, top + 0.14), (-0.195, top + 0.14, -0.02)]
    )
    scene.trim(place(cuff), 1.0, 0.14, 0.05)
    scene.ribs(place(cuff[[0, 10]]), place(cuff[[-1, 11]]))
    scene.canvas.fold(place(outline([(-0.10, 0.40), (0.12, 0.36, 0.1)])), -0.2, 0.03)


def sneaker(scene: Scene) -> None:
    """A low trainer seen from the side."""
    upper = outline(
        [
            (-0.80, 0.34),
            (-0.78, -0.14, 0.08),
            (-0.66, -0.32, 0.05),
            (-0.56, -0.24, -0.2),
            (-0.20, -0.34, -0.14),
            (-0.10, -0.30, 0.2),
            (0.30, -0.02, -0.06),
            (0.74, 0.10, 0.10),
            (0.88, 0.34, 0.20),
            (-0.80, 0.34),
        ]
    )
    opening = ellipse((-0.42, -0.27), 0.24, 0.07)
    tongue = outline(
        [(-0.22, -0.26), (-0.16, -0.48, 0.06), (0.0, -0.46, 0.3), (0.12, -0.12, 0.04), (-0.22, -0.26)]
    )
    scene.canvas.panel(opening, darker(scene.fabric.base, 0.5), 0.5, 0.04)
    scene.trim(tongue, 0.9, 0.0, 0.06)
    scene.piece(upper, puff=1.3, soft=0.12)
    _sneaker_sole(scene)
    quarter = outline([(-0.10, -0.24), (0.06, 0.10, 0.08), (-0.10, 0.32, -0.06)])
    scene.seam(quarter, 0.018)
    scene.stitches(quarter + (-0.04, 0.0))
    cap_line = outline([(0.46, 0.30), (0.52, 0.03, 0.22)])
    scene.seam(cap_line, 0.02)
    scene.stitches(cap_line + (-0.04, 0.0))
    heel = outline([(-0.80, 0.30), (-0.78, -0.12, 0.08), (-0.62, -0.12), (-0.54, 0.30, -0.1), (-0.80, 0.30)])
    scene.trim(heel, 0.8, 0.1, 0.05)
    _laces(scene)


def _sneaker_sole(scene: Scene) -> None:
    sole = outline(
        [
            (-0.84, 0.30),
            (0.90, 0.30, -0.02),
            (0.93, 0.42, 0.2),
            (0.84, 0.50, 0.2),
            (-0.78, 0.50),
            (-0.86, 0.42, 0.2),
            (-0.84, 0.30, 0.1),
        ]
    )
    scene.canvas.panel(sole, _SOLE, 1.0, 0.05, 0.25)
    scene.canvas.line(outline([(-0.84, 0.42), (0.92, 0.42)]), _SOLE_EDGE, 0.018)


def _laces(scene: Scene) -> None:
    cord = (250, 249, 245) if luminance(scene.fabric.base) < 205 else (92, 92, 98)
    for step in np.linspace(0.0, 1.0, 4):
        x, y = -0.10 + 0.36 * float(step), -0.24 + 0.22 * float(step)
        lace = outline([(x, y - 0.09), (x - 0.15, y + 0.12, 0.06)])
        scene.canvas.line(lace + (0.006, 0.014), darker(scene.fabric.base, 0.4), 0.05)
        scene.canvas.line(lace, cord, 0.042)


def boot(scene: Scene) -> None:
    """A boot with a heel, ending at the ankle or below the knee."""
    top, wide = (-0.16, 0.0) if scene.product.length == "short" else (-0.88, 0.05)
    opening = ellipse((-0.28, top + 0.02), 0.27 + wide, 0.07)
    scene.canvas.panel(opening, darker(scene.fabric.base, 0.5), 0.5, 0.04)
    _boot_upper(scene, top, wide)
    loop = np.array([[-0.60, -0.10], [-0.53, -0.10], [-0.50, 0.12], [-0.56, 0.12]])
    scene.trim(loop + (-wide, top), 0.8, 0.1, 0.02)
    _boot_sole(scene)


def _boot_upper(scene: Scene, top: float, wide: float) -> None:
    """The leather from the sole to `top`, where it is wider by `wide`, with an elastic gore."""
    shaft = outline(
        [
            (-0.55 - wide, top),
            (-0.01 + wide, top, -0.10),
            (-0.02, 0.26, -0.03),
            (0.40, 0.48, -0.12),
            (0.64, 0.72, 0.22),
            (-0.56, 0.72),
            (-0.55 - wide, top, 0.03),
        ]
    )
    scene.piece(shaft, puff=1.3, soft=0.12)
    scene.seam(outline([(-0.04, 0.24), (-0.16, 0.50, -0.1), (-0.10, 0.72, 0.05)]), 0.016)
    scene.seam(outline([(-0.55, 0.40), (-0.36, 0.50, 0.1), (-0.34, 0.72)]), 0.016)
    gore = outline([(-0.37, top + 0.10), (-0.19, top + 0.10), (-0.23, top + 0.40), (-0.33, top + 0.40)])
    scene.trim(gore, 0.6, 0.0, 0.03)
    scene.ribs(gore[:2], gore[[3, 2]], 0.03)
    for y in (0.14, 0.26):
        crease = outline([(-0.06, y), (-0.34, y + 0.08, -0.12)])
        scene.canvas.fold(crease, -0.26, 0.035)
        scene.canvas.fold(crease + (0.0, 0.04), 0.16, 0.035)


def _boot_sole(scene: Scene) -> None:
    sole = outline(
        [
            (-0.58, 0.70),
            (0.66, 0.70),
            (0.65, 0.79, 0.2),
            (-0.20, 0.79),
            (-0.22, 0.90),
            (-0.57, 0.90),
            (-0.58, 0.70),
        ]
    )
    scene.canvas.panel(sole, _HEEL, 0.9, 0.04, 0.2)
    scene.canvas.line(outline([(-0.56, 0.705), (0.64, 0.705)]), _WELT, 0.016)
