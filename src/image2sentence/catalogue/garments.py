"""Painters of clothes, seen from the front."""

from __future__ import annotations

import numpy as np

from image2sentence.catalogue import tailoring
from image2sentence.catalogue.canvas import flat, mirrored, outline
from image2sentence.catalogue.fabric import darker, lighter, luminance
from image2sentence.catalogue.scene import Scene
from image2sentence.catalogue.tailoring import FLIP, SIDES, Cut, Sleeve


def t_shirt(scene: Scene) -> None:
    """A T-shirt: any sleeve; a round neck, a V-neck or a polo collar."""
    bare = scene.product.sleeve == "sleeveless"
    cut = Cut(
        waist=scene.about(0.45, 0.02),
        hem=scene.about(0.48, 0.02),
        bottom=scene.about(0.72, 0.04),
        shoulder=0.40 if bare else 0.52,
    )
    tailoring.sleeves(scene, cut, scene.product.sleeve, Sleeve())
    tailoring.body(scene, cut)
    tailoring.hem_stitches(scene, cut.hem, cut.bottom - 0.06, cut.sag)
    tailoring.neckline(scene, cut, scene.product.neckline)


def shirt(scene: Scene) -> None:
    """A shirt with a collar, a button placket and a breast pocket."""
    cut = Cut(waist=scene.about(0.43, 0.02), hem=0.46, bottom=scene.about(0.74, 0.03), sag=0.09)
    tailoring.sleeves(scene, cut, scene.product.sleeve, Sleeve("band"))
    tailoring.body(scene, cut)
    tailoring.neck_opening(scene, cut, 0.14)
    tailoring.placket(scene, cut.top + 0.14, cut.bottom + 0.085, 6)
    pocket = [(0.14, -0.32), (0.34, -0.32), (0.34, -0.13), (0.24, -0.08), (0.14, -0.13), (0.14, -0.32)]
    scene.patch(outline(pocket), lift=0.10)
    tailoring.collar(scene, cut, 0.16)


def jumper(scene: Scene) -> None:
    """A knitted jumper with ribbed cuffs and hem."""
    cut = Cut(waist=scene.about(0.47, 0.02), hem=0.45, bottom=scene.about(0.62, 0.03), chest=0.48)
    tailoring.sleeves(scene, cut, "long", Sleeve("rib", wide=1.12))
    tailoring.body(scene, cut)
    tailoring.rib_hem(scene, cut)
    tailoring.neckline(scene, cut, scene.product.neckline, rib=0.055)
    scene.canvas.knit()


def cardigan(scene: Scene) -> None:
    """A knitted jacket with a deep V, buttoned or open."""
    cut = Cut(waist=scene.about(0.46, 0.02), hem=0.46, bottom=scene.about(0.66, 0.03), chest=0.48)
    tailoring.sleeves(scene, cut, "long", Sleeve("rib", wide=1.1))
    tailoring.body(scene, cut)
    tailoring.rib_hem(scene, cut)
    scene.canvas.knit()
    if scene.product.closure == "open":
        tailoring.open_front(scene, cut, 0.62, cut.bottom + 0.12)
        return
    front = tailoring.neck_opening(scene, cut, 0.62, deep_v=True)
    scene.canvas.line(front, darker(scene.fabric.base, 0.16), 0.07)
    tailoring.placket(scene, cut.top + 0.62, cut.bottom + 0.125, 4, 0.042)


def hoodie(scene: Scene) -> None:
    """A hooded sweatshirt with a pouch pocket, drawcords, and a zip or none."""
    cut = Cut(waist=0.48, hem=0.46, bottom=scene.about(0.62, 0.03), chest=0.49, top=-0.60, neck=0.24)
    _hood_behind(scene, cut)
    tailoring.sleeves(scene, cut, "long", Sleeve("rib", wide=1.16))
    tailoring.body(scene, cut)
    tailoring.rib_hem(scene, cut)
    _pouch(scene, cut)
    if scene.product.closure == "zip":
        scene.zip(0.0, cut.top + 0.16, cut.bottom + 0.12)
    _hood_front(scene, cut)


def _hood_behind(scene: Scene, cut: Cut) -> None:
    half = [
        (0.0, cut.top - 0.32),
        (0.22, cut.top - 0.22, 0.16),
        (0.30, cut.top + 0.06, 0.12),
        (0.0, cut.top + 0.14),
    ]
    scene.piece(mirrored(outline(half)), puff=1.1)


def _hood_front(scene: Scene, cut: Cut) -> None:
    """The hood's opening, the rims that cross at the neck, and the cords."""
    hole = [
        (0.0, cut.top - 0.20),
        (0.15, cut.top - 0.13, 0.14),
        (0.16, cut.top, 0.08),
        (0.0, cut.top + 0.17, 0.10),
    ]
    scene.canvas.panel(mirrored(outline(hole)), tailoring.inside(scene), 0.8, 0.06)
    rim = outline(
        [
            (0.0, cut.top - 0.26),
            (0.20, cut.top - 0.17, 0.16),
            (0.27, cut.top + 0.05, 0.10),
            (0.02, cut.top + 0.27, 0.10),
            (-0.03, cut.top + 0.17),
            (0.15, cut.top + 0.02, -0.10),
            (0.13, cut.top - 0.12, -0.10),
            (0.0, cut.top - 0.18, -0.12),
        ]
    )
    for side in SIDES:
        scene.piece(rim * (side, 1.0), puff=0.9, lift=0.14, soft=0.05)
        _cord(scene, cut, side)


def _cord(scene: Scene, cut: Cut, side: float) -> None:
    bend = scene.details.uniform(-0.06, 0.06)
    cord = outline([(0.09, cut.top + 0.20), (0.10, cut.top + 0.52, bend)]) * (side, 1.0)
    pale = luminance(scene.fabric.base) > 190
    colour = darker(scene.fabric.base, 0.45) if pale else lighter(scene.fabric.base, 0.78)
    scene.canvas.line(cord, colour, 0.026)
    scene.canvas.line(cord[-2:] + (0.0, 0.02), (128, 128, 134), 0.036)


def _pouch(scene: Scene, cut: Cut) -> None:
    """The pouch pocket of a hoodie."""
    top, bottom = cut.bottom - 0.36, cut.bottom - 0.04
    half = outline([(0.0, top), (0.18, top), (0.31, bottom - 0.10, -0.12), (0.31, bottom), (0.0, bottom)])
    scene.piece(mirrored(half), puff=0.5, lift=0.16, soft=0.04)
    edge = half[1:12]
    for line in (edge, edge * FLIP):
        scene.seam(line, 0.016)
        scene.stitches(line * (0.93, 1.0))


def jacket(scene: Scene) -> None:
    """A short jacket with a collar, pockets and a buttoned, zipped or open front."""
    cut = Cut(
        waist=scene.about(0.46, 0.02), bottom=scene.about(0.58, 0.03), chest=0.49, shoulder=0.55, hem=0.47
    )
    tailoring.sleeves(scene, cut, "long", Sleeve("band", wide=1.2))
    tailoring.body(scene, cut)
    tailoring.waistband(scene, cut)
    tailoring.front(scene, cut, 3, 0.50, cut.bottom + 0.08)
    flap = outline([(0.20, -0.16), (0.40, -0.16), (0.40, -0.06), (0.30, -0.02), (0.20, -0.06), (0.20, -0.16)])
    for side in SIDES:
        scene.patch(flap * (side, 1.0))
        scene.seam(np.array([[side * 0.26, 0.42], [side * 0.38, 0.18]]), 0.028)


def coat(scene: Scene) -> None:
    """A coat to the knee or longer, with flap pockets and a buttoned, zipped or open front."""
    long = scene.product.length == "long"
    hem, bottom = (0.50, 0.93) if long else (0.43, 0.42)
    cut = Cut(
        top=-0.92,
        neck=0.16,
        shoulder=0.43,
        chest=0.37,
        waist=scene.about(0.34, 0.015),
        hem=hem,
        bottom=bottom,
    )
    tailoring.sleeves(scene, cut, "long", Sleeve("band", wide=0.98, reach=0.84))
    tailoring.body(scene, cut)
    tailoring.front(scene, cut, 4 if long else 3, 0.52, bottom + 0.02)
    flap = outline([(0.15, 0.06), (0.33, 0.04), (0.335, 0.13), (0.155, 0.15), (0.15, 0.06)])
    for side in SIDES:
        scene.patch(flap * (side, 1.0))


def dress(scene: Scene) -> None:
    """A dress with a belted waist and a flared skirt of three lengths."""
    bottom, flare = {"short": (0.26, 0.44), "knee-length": (0.60, 0.52), "long": (0.95, 0.56)}[
        scene.product.length
    ]
    flare = scene.about(flare, 0.03)
    bare = scene.product.sleeve == "sleeveless"
    cut = Cut(
        neck=0.16,
        top=-0.92,
        shoulder=0.26 if bare else 0.36,
        chest=0.30,
        waist=0.245,
        hem=0.225,
        bottom=-0.18,
        sag=0.02,
    )
    tailoring.sleeves(scene, cut, scene.product.sleeve, Sleeve(wide=0.82, reach=0.88))
    skirt_half = [
        (0.0, -0.22),
        (0.225, -0.22),
        (flare, bottom, -0.05),
        (0.0, bottom + 0.07, flat(0.07, flare)),
    ]
    scene.piece(mirrored(outline(skirt_half)))
    _fanned_folds(scene, (0.21, -0.16), (flare, bottom), 7)
    tailoring.body(scene, cut)
    belt = [(0.0, -0.245), (0.232, -0.26, flat(-0.015, 0.23)), (0.234, -0.17), (0.0, -0.15, flat(0.02, 0.23))]
    scene.trim(mirrored(outline(belt)), 0.5, 0.12)
    tailoring.neckline(scene, cut, scene.product.neckline)


def skirt(scene: Scene) -> None:
    """A flared skirt of three lengths with a waistband."""
    bottom, flare = {"short": (0.16, 0.60), "knee-length": (0.50, 0.64), "long": (0.90, 0.66)}[
        scene.product.length
    ]
    flare = scene.about(flare, 0.04)
    half = [(0.0, -0.66), (0.31, -0.66), (flare, bottom, 0.03), (0.0, bottom + 0.09, flat(0.09, flare))]
    scene.piece(mirrored(outline(half)))
    _fanned_folds(scene, (0.29, -0.58), (flare, bottom), 9)
    tailoring.hem_stitches(scene, flare, bottom - 0.05, 0.09)
    band = [(0.0, -0.75), (0.30, -0.76, flat(-0.01, 0.3)), (0.315, -0.63), (0.0, -0.61, flat(0.02, 0.3))]
    scene.trim(mirrored(outline(band)), 0.7, 0.16)
    scene.button(0.0, -0.68, 0.036)


def _fanned_folds(scene: Scene, waist: tuple[float, float], hem: tuple[float, float], count: int) -> None:
    """Soft folds that fan out from the waist to the hem, each given as (half width, height)."""
    for number in range(count):
        share = -0.86 + 1.72 * (number + scene.about(0.5, 0.25)) / count
        start = (share * waist[0], waist[1] + scene.about(0.09, 0.07) * (hem[1] - waist[1]))
        fold = outline([start, (share * hem[0], hem[1] + 0.02, -0.05 * share)])
        scene.canvas.fold(fold, -0.22, 0.04)
        scene.canvas.fold(fold + (-0.055, 0.0), 0.15, 0.045)


def trousers(scene: Scene) -> None:
    """Long trousers with waistband, pockets and creases."""
    _trousers(scene, top=-0.90, bottom=0.95, hem=scene.about(0.17, 0.03), spread=0.30)


def shorts(scene: Scene) -> None:
    """Short trousers with waistband and pockets."""
    _trousers(scene, top=-0.62, bottom=scene.about(0.42, 0.03), hem=0.27, spread=0.32)


def _trousers(scene: Scene, top: float, bottom: float, hem: float, spread: float) -> None:
    """Two legs from `top` to `bottom`, each `hem` wide to each side of `spread` at the bottom."""
    crotch, inner, outer = top + 0.62, spread - hem, spread + hem
    half = outline(
        [
            (0.0, top),
            (0.36, top),
            (0.45, crotch - 0.10, 0.05),
            (outer, bottom, -0.01),
            (inner, bottom + 0.02, 0.02),
            (0.02, crotch + 0.02, 0.02),
            (0.0, crotch),
        ]
    )
    scene.piece(mirrored(half), puff=1.1, soft=0.10)
    for side in SIDES:
        scene.stitches(outline([(inner, bottom - 0.05), (outer, bottom - 0.07, -0.02)]) * (side, 1.0))
        scene.canvas.fold(outline([(0.24, crotch), (spread, bottom - 0.1)]) * (side, 1.0), 0.14, 0.05)
        scene.crease(outline([(0.04, crotch + 0.02), (0.24, crotch - 0.10, 0.15)]) * (side, 1.0), 0.26)
        pocket = outline([(0.20, top + 0.10), (0.395, top + 0.30, -0.24)]) * (side, 1.0)
        scene.seam(pocket, 0.02)
        scene.stitches(pocket + (-side * 0.03, 0.02))
    scene.seam(np.array([[0.0, top], [0.0, crotch]]), 0.018)
    scene.stitches(outline([(0.09, top + 0.12), (0.085, crotch - 0.22), (0.01, crotch - 0.12, 0.2)]))
    _waist_with_loops(scene, top)


def _waist_with_loops(scene: Scene, top: float) -> None:
    band = [
        (0.0, top - 0.01),
        (0.358, top - 0.02, flat(-0.01, 0.36)),
        (0.372, top + 0.10),
        (0.0, top + 0.12, flat(0.02, 0.37)),
    ]
    scene.trim(mirrored(outline(band)), 0.7, 0.18)
    loop = np.array([[-0.022, -0.03], [0.022, -0.03], [0.022, 0.12], [-0.022, 0.12]]) + (0.0, top)
    for x in (-0.24, 0.24):
        scene.trim(loop + (x, 0.0), 0.8, 0.15, 0.02)
    scene.button(0.0, top + 0.05, 0.036)
