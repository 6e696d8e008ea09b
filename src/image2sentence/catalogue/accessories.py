"""Painters of hats, scarves, bags and a few things for the home."""

from __future__ import annotations

import math

import numpy as np

from image2sentence.catalogue.canvas import Points, Rgb, ellipse, flat, mirrored, outline, turned
from image2sentence.catalogue.fabric import darker, lighter, seam_of
from image2sentence.catalogue.scene import METAL, Scene

_LEATHER: Rgb = (112, 72, 44)
_BRASS: Rgb = (214, 176, 96)
_WOOD: Rgb = (150, 106, 66)


def beanie(scene: Scene) -> None:
    """A knitted cap with a folded brim and a bobble."""
    dome = mirrored(outline([(0.0, -0.56), (0.42, -0.30, 0.16), (0.56, 0.40, 0.10), (0.0, 0.48)]))
    bobble = ellipse((0.0, -0.66), scene.about(0.19, 0.02), 0.18, 36)
    scene.trim(bobble, 1.6, 0.0, 0.10)
    for number in range(16):
        angle = number * 2.399
        spot = np.array([0.0, -0.66]) + 0.13 * math.sqrt(number / 16) * np.array(
            [math.cos(angle), math.sin(angle)]
        )
        scene.canvas.fold(np.stack([spot, spot + (0.03, 0.03)]), -0.2 if number % 2 else 0.16, 0.03)
    scene.piece(dome, puff=1.3, lift=0.2, soft=0.14)
    for x in np.linspace(-0.85, 0.85, 11):
        rib = outline([(0.25 * float(x), -0.52), (0.56 * float(x), 0.40, -0.12 * float(x))])
        scene.canvas.fold(rib, -0.15, 0.022)
    brim = mirrored(
        outline(
            [(0.0, 0.28), (0.58, 0.22, flat(-0.06, 0.58)), (0.59, 0.56, 0.06), (0.0, 0.62, flat(0.06, 0.59))]
        )
    )
    scene.trim(brim, 1.2, 0.25, 0.09)
    scene.ribs(outline([(-0.58, 0.25), (0.58, 0.25)]), outline([(-0.58, 0.60), (0.58, 0.60)]), 0.07)
    scene.canvas.knit()


def cap(scene: Scene) -> None:
    """A baseball cap seen from the side front."""
    crown = outline(
        [
            (-0.66, 0.24),
            (-0.50, -0.28, 0.16),
            (0.00, -0.52, 0.16),
            (0.38, -0.28, 0.16),
            (0.52, 0.16, 0.08),
            (-0.66, 0.24, 0.08),
        ]
    )
    scene.piece(crown, puff=1.3, soft=0.14)
    scene.seam(outline([(0.0, -0.52), (0.10, 0.29, 0.06)]), 0.018)
    scene.seam(outline([(0.0, -0.52), (-0.36, 0.29, -0.16)]), 0.014)
    scene.seam(outline([(0.0, -0.52), (0.40, 0.22, 0.16)]), 0.014)
    for x, y in ((-0.28, -0.22), (0.22, -0.24)):
        scene.canvas.shape(ellipse((x, y), 0.026, 0.026, 12), scene.fabric.seam)
    visor = outline(
        [
            (0.00, 0.26),
            (0.50, 0.10, 0.06),
            (1.00, 0.34, 0.14),
            (0.93, 0.43, 0.3),
            (0.42, 0.35, -0.06),
            (0.00, 0.26, 0.08),
        ]
    )
    scene.piece(visor, angle=0.15, puff=1.1, lift=0.3, soft=0.06)
    scene.stitches(outline([(0.46, 0.16), (0.92, 0.36, 0.12)]))
    scene.stitches(outline([(0.40, 0.22), (0.86, 0.37, 0.10)]))
    scene.trim(ellipse((0.0, -0.53), 0.055, 0.035, 16), 1.0, 0.1, 0.03)


def scarf(scene: Scene) -> None:
    """A scarf laid in a loop, both ends hanging with fringes."""
    sway = scene.details.uniform(-0.04, 0.04)
    _scarf_loop(scene)
    for side, foot in ((1.0, 0.66), (-1.0, 0.78)):
        _scarf_end(scene, side, foot, 0.16 + side * sway)
    knot = outline(
        [(-0.25, -0.16), (0.22, -0.24, 0.14), (0.25, 0.04, 0.14), (-0.20, 0.12, 0.14), (-0.25, -0.16, 0.14)]
    )
    scene.piece(knot, angle=0.4, puff=1.2, lift=0.28, soft=0.09)
    scene.canvas.fold(outline([(-0.16, -0.06), (0.18, -0.10, 0.1)]), -0.2, 0.03)
    scene.canvas.knit()


def _scarf_loop(scene: Scene) -> None:
    """The part that lies around the neck."""
    back = outline(
        [
            (-0.10, 0.05),
            (-0.46, -0.32, 0.14),
            (0.0, -0.82, 0.28),
            (0.46, -0.32, 0.28),
            (0.10, 0.05, 0.14),
            (0.02, -0.10),
            (0.22, -0.30, -0.14),
            (0.0, -0.52, -0.26),
            (-0.22, -0.30, -0.26),
            (-0.02, -0.10, -0.14),
        ]
    )
    scene.piece(back, puff=1.3, soft=0.10)
    ring = outline(
        [
            (-0.30, -0.02),
            (-0.42, -0.34, 0.14),
            (0.0, -0.76, 0.28),
            (0.42, -0.34, 0.28),
            (0.30, -0.02, 0.14),
        ]
    )
    for spread in (0.86, 0.70):
        scene.canvas.fold(ring * spread + (0.0, -0.06), -0.18, 0.03)


def _scarf_end(scene: Scene, side: float, foot: float, swing: float) -> None:
    half = 0.19
    end = outline([(-0.10, -0.05), (0.10, -0.05), (half, foot, -0.02), (-half, foot), (-0.10, -0.05, -0.02)])
    angle = -side * swing
    move = (side * 0.06, 0.0)
    for x in np.linspace(-half + 0.015, half - 0.015, 10):
        fringe = outline([(float(x), foot - 0.01), (float(x) * 1.08, foot + 0.13)])
        strand = turned(fringe, angle) + move
        tassel = np.concatenate([strand + (-0.014, 0.0), (strand + (0.014, 0.0))[::-1]])
        scene.trim(tassel, 0.4, 0.0, 0.02)
    scene.piece(turned(end, angle) + move, angle=angle, puff=1.0, lift=0.2)
    for x in (-0.06, 0.05):
        crease = turned(outline([(x, 0.1), (1.6 * x, foot - 0.08, 0.03)]), angle) + move
        scene.canvas.fold(crease, -0.18, 0.035)
        scene.canvas.fold(crease + (-0.04, 0.0), 0.12, 0.035)


def bag(scene: Scene) -> None:
    """A handbag with a flap and a leather handle."""
    handle = outline([(-0.34, -0.10), (-0.20, -0.70, 0.12), (0.20, -0.70, 0.26), (0.34, -0.10, 0.12)])
    scene.canvas.panel(_band(handle, 0.045), _LEATHER, 1.0, 0.04)
    body = outline(
        [
            (-0.58, -0.14),
            (0.58, -0.14, 0.03),
            (0.68, 0.70, -0.02),
            (0.0, 0.76, 0.02),
            (-0.68, 0.70, 0.02),
            (-0.58, -0.14, -0.02),
        ]
    )
    scene.piece(body, puff=1.2, lift=0.2, soft=0.12)
    flap = outline(
        [
            (-0.60, -0.18),
            (0.60, -0.18, 0.03),
            (0.62, 0.16),
            (0.0, 0.36, 0.10),
            (-0.62, 0.16, 0.10),
            (-0.60, -0.18),
        ]
    )
    scene.piece(flap, puff=1.0, lift=0.34, soft=0.08)
    scene.stitches(outline([(0.58, 0.13), (0.0, 0.315, 0.10), (-0.58, 0.13, 0.10)]))
    tab = outline(
        [(-0.06, 0.20), (0.06, 0.20), (0.06, 0.40), (0.0, 0.46, 0.2), (-0.06, 0.40, 0.2), (-0.06, 0.20)]
    )
    scene.canvas.panel(tab, _LEATHER, 0.9, 0.03, 0.2)
    scene.canvas.shape(ellipse((0.0, 0.36), 0.036, 0.036, 16), _BRASS)
    for x in (-0.345, 0.345):
        ring = outline([(x - 0.06, -0.16), (x + 0.06, -0.16), (x + 0.05, -0.02), (x - 0.05, -0.02)])
        scene.canvas.panel(ring, _LEATHER, 0.9, 0.03, 0.15)
        scene.canvas.shape(ellipse((x, -0.08), 0.03, 0.03, 14), _BRASS)


def _band(line: Points, half: float) -> Points:
    """The outline of a band along `line`, `half` wide to each side."""
    along = np.gradient(line, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    normal /= np.maximum(np.hypot(normal[:, 0], normal[:, 1]), 1e-9)[:, None]
    return np.concatenate([line + half * normal, (line - half * normal)[::-1]])


def mug(scene: Scene) -> None:
    """A mug with a handle, its opening seen from slightly above."""
    handle = outline([(0.40, -0.30), (0.86, -0.26, 0.14), (0.84, 0.28, 0.24), (0.38, 0.40, 0.14)])
    scene.canvas.panel(_band(handle, 0.065), scene.fabric.base, 1.2, 0.05)
    body = outline(
        [
            (-0.52, -0.52),
            (0.52, -0.52),
            (0.48, 0.50),
            (0.40, 0.62, 0.16),
            (0.0, 0.68, flat(0.06, 0.40)),
            (-0.40, 0.62, flat(0.06, 0.40)),
            (-0.48, 0.50, 0.16),
            (-0.52, -0.52),
        ]
    )
    scene.piece(body, puff=1.3, lift=0.16, soft=0.16)
    scene.canvas.panel(ellipse((0.0, -0.52), 0.52, 0.13, 48), lighter(scene.fabric.base, 0.4), 0.5, 0.04)
    scene.canvas.panel(ellipse((0.0, -0.505), 0.47, 0.10, 48), darker(scene.fabric.base, 0.30), 0.7, 0.05)
    shine = outline([(-0.36, -0.34), (-0.32, 0.50, -0.02)])
    scene.canvas.fold(shine, 0.34, 0.07)


def cushion(scene: Scene) -> None:
    """A square cushion with piping."""
    edge, dent = scene.about(0.70, 0.03), 0.045
    corner = outline(
        [
            (-edge, -edge),
            (edge, -edge, -dent),
            (edge, edge, -dent),
            (-edge, edge, -dent),
            (-edge, -edge, -dent),
        ]
    )
    scene.piece(corner, puff=1.5, soft=0.20)
    scene.canvas.line(corner, seam_of(scene.fabric.base, 0.8), 0.04)
    for x, y in ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)):
        for turn in (-0.18, 0.14):
            crease = turned(np.array([[0.9 * edge, 0.9 * edge], [0.55 * edge, 0.52 * edge]]), turn)
            scene.canvas.fold(crease * (x, y), -0.18, 0.035)


def umbrella(scene: Scene) -> None:
    """An open umbrella with a hooked wooden handle."""
    scene.canvas.panel(_band(np.array([[0.0, -0.80], [0.0, 0.72]]), 0.022), METAL, 1.0, 0.03)
    hook = outline([(0.0, 0.50), (0.0, 0.76), (-0.13, 0.90, 0.30), (-0.24, 0.76, 0.30)])
    scene.canvas.panel(_band(hook, 0.038), _WOOD, 1.0, 0.04)
    ribs = np.linspace(-0.90, 0.90, 6)
    hem: list[tuple[float, float, float]] = [
        (float(x), 0.16 - 0.06 * float(x) ** 2, -0.13) for x in ribs[::-1][1:]
    ]
    canopy = outline([(-0.90, 0.11), (0.0, -0.72, 0.24), (0.90, 0.11, 0.24), *hem])
    scene.piece(canopy, puff=1.2, lift=0.2, soft=0.14)
    for x in ribs[1:-1]:
        rib = outline([(0.0, -0.72), (float(x), 0.15, 0.24 * float(x))])
        scene.seam(rib, 0.016)
        scene.canvas.fold(rib + (0.03, 0.0), -0.16, 0.05)
        scene.canvas.fold(rib + (-0.04, 0.0), 0.14, 0.05)
