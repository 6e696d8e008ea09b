"""Draws one product as a picture."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from image2sentence.catalogue import accessories, footwear, garments
from image2sentence.catalogue.attributes import BACKGROUNDS, TYPES, Product
from image2sentence.catalogue.canvas import Canvas, FloatMap, Placement
from image2sentence.catalogue.fabric import Fabric, shade_of
from image2sentence.catalogue.scene import Scene
from image2sentence.errors import ConfigError

MIN_SIZE, MAX_SIZE = 32, 2048

_PAINTERS: dict[str, Callable[[Scene], None]] = {
    "t-shirt": garments.t_shirt,
    "shirt": garments.shirt,
    "jumper": garments.jumper,
    "cardigan": garments.cardigan,
    "hoodie": garments.hoodie,
    "jacket": garments.jacket,
    "coat": garments.coat,
    "dress": garments.dress,
    "skirt": garments.skirt,
    "trousers": garments.trousers,
    "shorts": garments.shorts,
    "beanie": accessories.beanie,
    "cap": accessories.cap,
    "scarf": accessories.scarf,
    "socks": footwear.socks,
    "sneaker": footwear.sneaker,
    "boot": footwear.boot,
    "bag": accessories.bag,
    "mug": accessories.mug,
    "cushion": accessories.cushion,
    "umbrella": accessories.umbrella,
}
_STANDING = frozenset({"sneaker", "boot", "bag", "mug"})
_STIFF = frozenset({"mug", "umbrella", "sneaker", "boot"})


def draw(product: Product, size: int = 256) -> Image.Image:
    """The product's picture, (size, size) RGB; the same product and size give the same picture.

    Raises ConfigError where `size` is not in 32 to 2048.
    """
    check_size(size)
    canvas = Canvas(size, _placement(product))
    fabric = Fabric(canvas, product.colour, product.pattern, product.pattern_colour, product.variation)
    _PAINTERS[product.type](Scene(product, canvas, fabric))
    if product.type not in _STIFF:
        canvas.undulate(random.Random(f"{product.variation}/waves"))
    return canvas.finished(_background(product, size), 1.0 if product.type in _STANDING else 0.0)


def check_size(size: int) -> None:
    """Raises ConfigError where pictures cannot be drawn with `size` pixels a side."""
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ConfigError(f"a drawn picture has {MIN_SIZE} to {MAX_SIZE} px a side, not {size}")


def _placement(product: Product) -> Placement:
    rng = random.Random(f"{product.variation}/pose")
    turn = 0.025 if product.type in _STANDING else 0.08
    left, top, right, bottom = _extent(product.type, product.length)
    fitting = min(0.81 / max(right - left, bottom - top), 0.56)
    return Placement(
        scale=fitting * rng.uniform(0.92, 1.04),
        angle=rng.uniform(-turn, turn),
        centre=((left + right) / 2, (top + bottom) / 2),
        shift=(rng.uniform(-0.025, 0.025), rng.uniform(-0.02, 0.02)),
    )


@cache
def _extent(kind: str, length: str) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a typical product of this type and length, with the longest sleeves it
    can have.

    Only these two decide the scale, so that another sleeve or collar leaves the rest of the picture as it is.
    """
    own = {name: options[-1] for name, options in TYPES[kind].items()}
    typical = Product(
        type=kind,
        colour="grey",
        pattern="plain",
        pattern_colour="",
        sleeve=own.get("sleeve", ""),
        length=length,
        neckline=own.get("neckline", ""),
        closure=own.get("closure", ""),
        background="white",
        variation=0,
    )
    canvas = Canvas(MIN_SIZE, Placement(scale=0.4))
    _PAINTERS[kind](Scene(typical, canvas, Fabric(canvas, "grey", "plain", "", 0)))
    return canvas.extent


def _background(product: Product, size: int) -> FloatMap:
    """A pastel sheet (size, size, 3) in 0 to 255, lit from the upper left."""
    rng = random.Random(f"{product.variation}/background")
    colour = np.array(shade_of(BACKGROUNDS[product.background], rng), dtype=np.float32)
    across = np.linspace(0.0, 1.0, size, dtype=np.float32)
    x, y = across[None, :] - rng.uniform(0.25, 0.45), across[:, None] - rng.uniform(0.2, 0.4)
    light = 1.02 - 0.085 * (x * x + y * y)
    return (colour * light[..., None]).astype(np.float32)
