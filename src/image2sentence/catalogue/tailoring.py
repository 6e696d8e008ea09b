"""Parts of upper garments: body, sleeves, necklines, collars, fronts, hems."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from image2sentence.catalogue.canvas import Points, Rgb, flat, mirrored, outline, turned
from image2sentence.catalogue.fabric import darker, lighter, luminance, seam_of
from image2sentence.catalogue.scene import Scene

FLIP = (-1.0, 1.0)
SIDES = (-1.0, 1.0)


@dataclass(frozen=True)
class Cut:
    """The measures of an upper garment in the product frame; the widths are half widths."""

    neck: float = 0.20
    top: float = -0.74
    shoulder: float = 0.52
    chest: float = 0.46
    waist: float = 0.45
    hem: float = 0.47
    bottom: float = 0.72
    sag: float = 0.04

    @property
    def shoulder_y(self) -> float:
        """The height of the shoulder's tip."""
        return self.top + 0.13

    @property
    def armpit_y(self) -> float:
        """The height of the armpit."""
        return self.top + 0.50

    @property
    def armhole_bend(self) -> float:
        """How far the armhole cuts in; deeper below a narrow shoulder, which goes without a sleeve."""
        return -0.12 if self.shoulder > self.chest else -0.17


@dataclass(frozen=True)
class Sleeve:
    """How sleeves are made: the kind of `cuff` ("", "rib" or "band") of long ones, their width and length."""

    cuff: str = ""
    wide: float = 1.0
    reach: float = 1.0


def body(scene: Scene, cut: Cut) -> None:
    """Front of the garment from the shoulders to the hem, with the seams of the armholes and some creases."""
    half = outline(
        [
            (0.0, cut.top + 0.04),
            (cut.neck, cut.top),
            (cut.shoulder, cut.shoulder_y, 0.02),
            (cut.chest, cut.armpit_y, cut.armhole_bend),
            (cut.waist, 0.5 * (cut.armpit_y + cut.bottom), -0.02),
            (cut.hem, cut.bottom),
            (0.0, cut.bottom + cut.sag, flat(cut.sag, cut.hem)),
        ]
    )
    scene.piece(mirrored(half), lift=0.14)
    armhole = outline([(cut.shoulder, cut.shoulder_y), (cut.chest, cut.armpit_y, cut.armhole_bend)])
    for side in SIDES:
        scene.seam(armhole * (side, 1.0), 0.012)
        _creases(scene, cut, side)


def _creases(scene: Scene, cut: Cut, side: float) -> None:
    """Two creases from the armpit and one that falls to the hem."""
    for _ in range(2):
        start = (side * (cut.chest - 0.02), scene.about(cut.armpit_y + 0.06, 0.04))
        end_x = side * cut.chest * scene.about(0.45, 0.15)
        scene.crease(outline([start, (end_x, start[1] + scene.about(0.18, 0.10), side * 0.10)]))
    x = side * cut.waist * scene.about(0.62, 0.2)
    fall = outline([(x, cut.bottom - scene.about(0.42, 0.1)), (x * 1.06, cut.bottom - 0.04, side * 0.04)])
    scene.canvas.fold(fall, -0.15, 0.04)
    scene.canvas.fold(fall + (-0.05, 0.0), 0.10, 0.04)


def sleeves(scene: Scene, cut: Cut, length: str, make: Sleeve) -> None:
    """Both sleeves, hanging; `length` is a value of the attribute `sleeve`. Draw them before the body."""
    if length == "sleeveless":
        return
    swing = scene.details.uniform(-0.05, 0.05)
    for side in SIDES:
        if length == "short":
            _short_sleeve(scene, cut, side, make.wide, 0.62 + swing)
        else:
            _long_sleeve(scene, cut, side, make, 0.30 + swing)


class _Arm:
    """Places points, given straight below the shoulder's tip, on a sleeve swung outwards by `swing`."""

    def __init__(self, cut: Cut, side: float, swing: float) -> None:
        self._tip = np.array([cut.shoulder, cut.shoulder_y])
        self._side, self._swing = side, swing
        self.angle = -side * swing

    def place(self, points: Points) -> Points:
        swung: Points = (turned(points, -self._swing) + self._tip) * (self._side, 1.0)
        return swung


def _short_sleeve(scene: Scene, cut: Cut, side: float, wide: float, swing: float) -> None:
    arm, length, end = _Arm(cut, side, swing), 0.42, 0.27 * wide
    shape = [
        (-0.08, 0.04),
        (0.0, 0.0),
        (0.035, 0.16, 0.10),
        (0.015, length, 0.015),
        (-end, length + 0.02, 0.03),
        (-0.30 * wide, 0.40, -0.02),
        (-0.30 * wide + 0.04, 0.16),
    ]
    scene.piece(arm.place(outline(shape)), angle=arm.angle, soft=0.08)
    scene.stitches(arm.place(outline([(0.02, length - 0.06), (-end - 0.005, length - 0.04)])))


def _long_sleeve(scene: Scene, cut: Cut, side: float, make: Sleeve, swing: float) -> None:
    arm, length, end = _Arm(cut, side, swing), 1.18 * make.reach, 0.19 * make.wide
    outer = 0.02 - 0.016 * make.wide
    shape = [
        (-0.08, 0.04),
        (0.0, 0.0),
        (0.035, 0.16, 0.10),
        (outer, length, 0.015),
        (-end, length + 0.02, 0.03),
        (-0.30 * make.wide, 0.46, -0.02),
        (-0.30 * make.wide + 0.04, 0.16),
    ]
    scene.piece(arm.place(outline(shape)), angle=arm.angle, soft=0.08)
    for at in (0.5, 0.62):
        scene.crease(arm.place(outline([(0.0, length * at), (-0.6 * end, length * at + 0.09, 0.1)])))
    if make.cuff:
        _cuff(scene, arm, make.cuff, outer, -end, length)
    else:
        scene.stitches(arm.place(outline([(outer, length - 0.06), (-end - 0.005, length - 0.04)])))


def _cuff(scene: Scene, arm: _Arm, kind: str, outer: float, inner: float, length: float) -> None:
    """The end of a long sleeve between its `outer` and `inner` edge: ribbed, or a sewn-on band."""
    start, end = length - 0.12, length + 0.02
    band = arm.place(
        outline(
            [
                (outer + 0.008, start),
                (outer + 0.005, end),
                (inner - 0.01, end + 0.02, 0.03),
                (inner - 0.012, start + 0.02),
                (outer + 0.008, start, -0.03),
            ]
        )
    )
    if kind == "rib":
        scene.trim(band, 0.9, 0.12)
        scene.ribs(band[[0, 12]], band[[1, 11]])
    else:
        scene.piece(band, angle=arm.angle, puff=0.6, lift=0.14, soft=0.04)
        scene.seam(band, 0.012)


def inside(scene: Scene) -> Rgb:
    """The colour of the cloth's inner side, in its own shade."""
    base = scene.fabric.base
    return lighter(base, 0.16) if luminance(base) < 58 else darker(base, 0.34)


def neck_opening(scene: Scene, cut: Cut, drop: float, deep_v: bool = False) -> Points:
    """The neck's opening, round or pointed, `drop` deep, with the back's inside; returns its front edge."""
    if deep_v:
        front = outline([(cut.neck, cut.top), (0.0, cut.top + drop, 0.04), (-cut.neck, cut.top, 0.04)])
    else:
        angles = np.linspace(0.0, math.pi, 25)
        front = np.stack([cut.neck * np.cos(angles), cut.top + drop * np.sin(angles)], axis=1)
    back = outline([(-cut.neck, cut.top), (cut.neck, cut.top, 0.10)])
    scene.canvas.panel(np.concatenate([front, back]), inside(scene), 0.5, 0.06)
    scene.canvas.line(back, seam_of(scene.fabric.base, 0.6), 0.04)
    return front


def neckline(scene: Scene, cut: Cut, kind: str, rib: float = 0.045) -> None:
    """The neck, as the attribute `neckline` says; round and V-necks have a rim `rib` wide."""
    if kind == "turtleneck":
        _turtleneck(scene, cut)
    elif kind == "collar":
        neck_opening(scene, cut, 0.15)
        placket(scene, cut.top + 0.14, cut.top + 0.44, 2, 0.026)
        collar(scene, cut, 0.15)
    else:
        deep_v = kind == "v-neck"
        front = neck_opening(scene, cut, 0.40 if deep_v else 0.20, deep_v)
        scene.canvas.line(front, seam_of(scene.fabric.base, 0.6), rib)
        scene.seam(front * (1.09, 1.0) + (0.0, 0.012), 0.010)


def _turtleneck(scene: Scene, cut: Cut) -> None:
    top, foot = cut.top - 0.17, cut.top + 0.03
    half = outline(
        [
            (0.0, top - 0.02),
            (0.165, top, flat(0.02, 0.165)),
            (0.185, foot),
            (0.0, foot + 0.07, flat(0.07, 0.185)),
        ]
    )
    scene.piece(mirrored(half), lift=0.2, soft=0.06)
    fold = outline([(0.18, cut.top - 0.04), (0.0, cut.top + 0.02, flat(0.06, 0.18))])
    for line in (fold, fold * FLIP):
        scene.canvas.fold(line, -0.3, 0.03)
    scene.ribs(outline([(-0.16, top), (0.16, top)]), outline([(-0.185, foot + 0.01), (0.185, foot + 0.01)]))


def collar(scene: Scene, cut: Cut, drop: float) -> None:
    """Two collar leaves that meet in front, `drop` below the neck."""
    leaf = outline(
        [
            (0.0, cut.top + drop),
            (cut.neck - 0.02, cut.top - 0.06, -0.10),
            (cut.neck + 0.05, cut.top + 0.03),
            (cut.neck + 0.02, cut.top + drop + 0.09, 0.03),
            (0.0, cut.top + drop),
        ]
    )
    for side in SIDES:
        scene.piece(leaf * (side, 1.0), angle=side * 0.5, puff=0.8, lift=0.22, soft=0.04)
        scene.seam(leaf * (side, 1.0))


def lapels(scene: Scene, cut: Cut, drop: float, apart: float) -> None:
    """Turned-down lapels with a notch; they end `drop` below the neck and `apart` from the middle."""
    lapel = outline(
        [
            (cut.neck - 0.01, cut.top - 0.05),
            (apart, cut.top + drop, -0.06),
            (cut.neck + 0.12, cut.top + 0.24),
            (cut.neck + 0.06, cut.top + 0.19),
            (cut.neck + 0.12, cut.top + 0.15),
            (cut.neck + 0.05, cut.top + 0.02),
            (cut.neck - 0.01, cut.top - 0.05),
        ]
    )
    for side in SIDES:
        scene.piece(lapel * (side, 1.0), angle=side * 0.35, puff=0.8, lift=0.22, soft=0.04)
        scene.seam(lapel * (side, 1.0))


def placket(scene: Scene, top: float, bottom: float, buttons: int, radius: float = 0.028) -> None:
    """A strip with buttons down the middle."""
    half = 0.052
    strip = np.array([[-half, top], [half, top], [half, bottom], [-half, bottom]])
    scene.piece(strip, puff=0.35, lift=0.08, soft=0.03)
    scene.seam(strip[1:3], 0.012)
    scene.seam(strip[[0, 3]], 0.012)
    for y in np.linspace(top + 0.10, bottom - 0.10, buttons):
        scene.button(0.0, float(y), radius)


def front(scene: Scene, cut: Cut, buttons: int, drop: float, foot: float) -> None:
    """The front of a jacket or coat down to `foot`, as its closure says; open lapels are `drop` long."""
    closure = scene.product.closure
    if closure == "open":
        open_front(scene, cut, drop, foot)
        lapels(scene, cut, drop, 0.13)
    elif closure == "buttons":
        neck_opening(scene, cut, 0.36, deep_v=True)
        scene.seam(np.array([[0.09, cut.top + 0.40], [0.09, foot - 0.01]]), 0.016)
        for y in np.linspace(cut.top + 0.50, cut.bottom - 0.20, buttons):
            scene.button(0.0, float(y), 0.046)
        lapels(scene, cut, 0.40, 0.0)
    else:
        neck_opening(scene, cut, 0.10)
        scene.zip(0.0, cut.top + 0.10, foot)
        collar(scene, cut, 0.12)


def open_front(scene: Scene, cut: Cut, drop: float, foot: float) -> None:
    """An open front that shows the back's inside, from the neck down to `foot`; `drop` is its V's depth."""
    half = outline(
        [
            (0.0, cut.top - 0.03),
            (cut.neck, cut.top),
            (0.12, cut.top + drop, -0.06),
            (0.17, foot, 0.02),
            (0.0, foot + 0.01),
        ]
    )
    scene.canvas.panel(mirrored(half), inside(scene), 0.9, 0.08)
    edge = half[1:-1]
    for line in (edge, edge * FLIP):
        scene.canvas.line(line, seam_of(scene.fabric.base, 0.6), 0.05)
    scene.canvas.fold(outline([(-0.02, cut.top + 0.3), (0.03, foot - 0.1, 0.05)]), -0.18, 0.06)


def rib_hem(scene: Scene, cut: Cut) -> None:
    """A ribbed hem."""
    top, bottom = cut.bottom - 0.03, cut.bottom + 0.10
    scene.trim(mirrored(_hem_band(cut.hem, top, bottom)), 0.9, 0.12, 0.05)
    upper = np.array([[-cut.hem, top + 0.01], [cut.hem, top + 0.01]])
    lower = np.array([[-cut.hem + 0.03, bottom], [cut.hem - 0.03, bottom]])
    scene.ribs(upper, lower)


def waistband(scene: Scene, cut: Cut) -> None:
    """A sewn-on band at the hem."""
    top, bottom = cut.bottom - 0.08, cut.bottom + 0.06
    scene.piece(mirrored(_hem_band(cut.hem, top, bottom)), puff=0.7, lift=0.12, soft=0.05)
    scene.seam(outline([(-cut.hem, top), (cut.hem, top, -0.015)]), 0.016)


def _hem_band(half: float, top: float, bottom: float) -> Points:
    """The right half of a band that narrows a little and sags in the middle."""
    return outline(
        [
            (0.0, top + 0.02),
            (half + 0.005, top, flat(-0.02, half)),
            (half - 0.025, bottom),
            (0.0, bottom + 0.03, flat(0.03, half)),
        ]
    )


def hem_stitches(scene: Scene, half: float, y: float, sag: float) -> None:
    """A row of stitches along a hem that sags in the middle."""
    line = outline([(half - 0.02, y), (0.0, y + sag, flat(sag, half))])
    scene.stitches(np.concatenate([line, (line * FLIP)[::-1]]))
