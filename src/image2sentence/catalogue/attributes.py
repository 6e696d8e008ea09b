"""Attributes of drawn products: names, values, and types they apply to.

Everything that a person could name about a picture is an attribute; everything else (pose, exact shade, small
details) follows from the one number `variation`, so two products that differ in one attribute differ in
nothing else.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from image2sentence.errors import ConfigError


@dataclass(frozen=True)
class Product:
    """One product and its picture's background.

    An attribute that does not apply to the type (the sleeve of a mug) is an empty string, as is
    `pattern_colour` of a plain product. `variation` is the seed of everything that has no name: pose, exact
    shade, details.
    """

    type: str
    colour: str
    pattern: str
    pattern_colour: str
    sleeve: str
    length: str
    neckline: str
    closure: str
    background: str
    variation: int


@dataclass(frozen=True)
class HslRange:
    """A named colour as ranges (low, high): hue in degrees (may pass 360), saturation and lightness in 0 to
    1."""

    hue: tuple[float, float]
    saturation: tuple[float, float]
    lightness: tuple[float, float]


ATTRIBUTES = (
    "type",
    "colour",
    "pattern",
    "pattern_colour",
    "sleeve",
    "length",
    "neckline",
    "closure",
    "background",
)

COLOURS: dict[str, HslRange] = {
    "red": HslRange((354, 362), (0.70, 0.82), (0.42, 0.49)),
    "orange": HslRange((21, 27), (0.86, 0.96), (0.51, 0.56)),
    "yellow": HslRange((46, 52), (0.86, 0.96), (0.56, 0.62)),
    "green": HslRange((128, 150), (0.42, 0.56), (0.32, 0.40)),
    "light blue": HslRange((199, 207), (0.58, 0.72), (0.70, 0.76)),
    "blue": HslRange((212, 221), (0.70, 0.82), (0.45, 0.51)),
    "navy": HslRange((221, 230), (0.46, 0.60), (0.17, 0.21)),
    "purple": HslRange((268, 280), (0.44, 0.56), (0.43, 0.50)),
    "pink": HslRange((334, 344), (0.70, 0.84), (0.74, 0.79)),
    "brown": HslRange((20, 27), (0.40, 0.50), (0.25, 0.31)),
    "beige": HslRange((33, 39), (0.36, 0.46), (0.71, 0.76)),
    "grey": HslRange((200, 230), (0.00, 0.04), (0.51, 0.59)),
    "black": HslRange((220, 240), (0.00, 0.08), (0.09, 0.12)),
    "white": HslRange((30, 50), (0.10, 0.40), (0.955, 0.985)),
}

BACKGROUNDS: dict[str, HslRange] = {
    "white": HslRange((40, 60), (0.00, 0.10), (0.945, 0.965)),
    "grey": HslRange((210, 230), (0.02, 0.05), (0.77, 0.80)),
    "beige": HslRange((36, 42), (0.42, 0.52), (0.86, 0.88)),
    "sky blue": HslRange((202, 210), (0.52, 0.64), (0.86, 0.88)),
    "mint": HslRange((142, 152), (0.34, 0.44), (0.84, 0.86)),
    "rose": HslRange((345, 353), (0.56, 0.68), (0.88, 0.90)),
}

PATTERNS = ("plain", "striped", "pinstriped", "checked", "dotted", "floral", "zigzag", "hearts")

# Each second colour with the product colours on which it would not be seen clearly.
PATTERN_COLOURS: dict[str, frozenset[str]] = {
    "white": frozenset({"white", "beige", "yellow", "light blue", "pink"}),
    "black": frozenset({"black", "navy", "brown"}),
    "yellow": frozenset({"yellow", "white", "beige", "orange"}),
    "red": frozenset({"red", "orange", "pink", "brown", "purple", "green", "grey"}),
    "navy": frozenset({"navy", "black", "blue", "brown", "purple", "green"}),
}

_SLEEVES = ("sleeveless", "short", "long")
_LENGTHS = ("short", "knee-length", "long")

# The attributes that only some types have; the others (colour, pattern, background) apply to all.
TYPES: dict[str, dict[str, tuple[str, ...]]] = {
    "t-shirt": {"sleeve": _SLEEVES, "neckline": ("round", "v-neck", "collar")},
    "shirt": {"sleeve": ("short", "long")},
    "jumper": {"neckline": ("round", "v-neck", "turtleneck")},
    "cardigan": {"closure": ("buttons", "open")},
    "hoodie": {"closure": ("zip", "none")},
    "jacket": {"closure": ("buttons", "zip", "open")},
    "coat": {"length": ("knee-length", "long"), "closure": ("buttons", "zip", "open")},
    "dress": {"sleeve": _SLEEVES, "length": _LENGTHS, "neckline": ("round", "v-neck", "collar")},
    "skirt": {"length": _LENGTHS},
    "trousers": {},
    "shorts": {},
    "beanie": {},
    "cap": {},
    "scarf": {},
    "socks": {"length": ("short", "long")},
    "sneaker": {},
    "boot": {"length": ("short", "long")},
    "bag": {},
    "mug": {},
    "cushion": {},
    "umbrella": {},
}

_NOT_ALWAYS = ("sleeve", "length", "neckline", "closure")


def values(attribute: str, type: str = "") -> tuple[str, ...]:
    """The values of `attribute`, for one `type` or (by default) for all types together.

    Empty where the attribute does not apply to the type. Raises ConfigError on an unknown attribute or type.
    """
    _check_known("attribute", attribute, ATTRIBUTES)
    if type:
        _check_known("type", type, tuple(TYPES))
    if attribute in _NOT_ALWAYS:
        kinds = [type] if type else list(TYPES)
        return tuple(dict.fromkeys(value for kind in kinds for value in TYPES[kind].get(attribute, ())))
    return {
        "type": tuple(TYPES),
        "colour": tuple(COLOURS),
        "pattern": PATTERNS,
        "pattern_colour": tuple(PATTERN_COLOURS),
        "background": tuple(BACKGROUNDS),
    }[attribute]


def choices(product: Product, attribute: str) -> tuple[str, ...]:
    """The values of `attribute` that `change` accepts for this product, its present value left out.

    A `pattern_colour` must be clearly seen on the product's colour, and a plain product has none.
    """
    present = getattr(product, attribute) if attribute in ATTRIBUTES else ""
    return tuple(value for value in _allowed(product, attribute) if value != present)


def sample(rng: random.Random) -> Product:
    """A product with a uniformly drawn type and every attribute that applies to it uniformly drawn.

    One in four is plain: a uniform pattern would leave too few plain products to show pure colours.
    """
    kind = rng.choice(tuple(TYPES))
    colour = rng.choice(tuple(COLOURS))
    pattern = "plain" if rng.random() < 0.25 else rng.choice(PATTERNS[1:])
    own = {name: rng.choice(options) for name, options in TYPES[kind].items()}
    return Product(
        type=kind,
        colour=colour,
        pattern=pattern,
        pattern_colour="" if pattern == "plain" else rng.choice(_seen_on(colour)),
        sleeve=own.get("sleeve", ""),
        length=own.get("length", ""),
        neckline=own.get("neckline", ""),
        closure=own.get("closure", ""),
        background=rng.choice(tuple(BACKGROUNDS)),
        variation=rng.getrandbits(32),
    )


def change(product: Product, attribute: str, value: str) -> Product:
    """A copy with one attribute changed and the same variation.

    Attributes that depend on the changed one follow: a new type drops what it does not have and draws what it
    newly has; a plain pattern drops the pattern colour; a new pattern, or a colour on which the pattern
    colour would not be seen, draws one. Such draws come from the variation. Raises ConfigError on an unknown
    attribute or value, or on one that does not apply to this product.
    """
    allowed = _allowed(product, attribute)
    if value not in allowed:
        raise ConfigError(
            f"a {product.colour} {product.pattern} {product.type} cannot have {attribute} {value!r}; "
            f"expected one of: {', '.join(allowed) or '(does not apply)'}"
        )
    fields: dict[str, str] = {name: getattr(product, name) for name in ATTRIBUTES}
    fields[attribute] = value
    return Product(**_settle(fields, product.variation), variation=product.variation)


def title(product: Product) -> str:
    """A short description in plain English, such as "red and white striped t-shirt with short sleeves"."""
    details = [_pattern_detail(product), _sleeve_detail(product)]
    details += [_NECKLINES[product.neckline], _CLOSURES[product.closure]]
    bare = "sleeveless" if product.sleeve == "sleeveless" else ""
    words = [bare, product.length, _colour_words(product), product.type]
    if product.type in _HEIGHTS:
        words = [_colour_words(product), _HEIGHTS[product.type][product.length], product.type]
    text = " ".join(word for word in words if word)
    named = [detail for detail in details if detail]
    return f"{text} with {_join(named)}" if named else text


_NECKLINES = {
    "": "",
    "round": "a round neck",
    "v-neck": "a v-neck",
    "turtleneck": "a turtleneck",
    "collar": "a collar",
}
_CLOSURES = {"": "", "none": "", "buttons": "buttons", "zip": "a zip", "open": "an open front"}
_HEIGHTS = {
    "boot": {"short": "ankle", "long": "knee-high"},
    "socks": {"short": "ankle", "long": "knee-high"},
}


def _colour_words(product: Product) -> str:
    if product.pattern in ("plain", "hearts"):
        return product.colour
    return f"{product.colour} and {product.pattern_colour} {product.pattern}"


def _pattern_detail(product: Product) -> str:
    return f"{product.pattern_colour} hearts" if product.pattern == "hearts" else ""


def _sleeve_detail(product: Product) -> str:
    return f"{product.sleeve} sleeves" if product.sleeve in ("short", "long") else ""


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _seen_on(colour: str) -> tuple[str, ...]:
    return tuple(name for name, hidden in PATTERN_COLOURS.items() if colour not in hidden)


def _allowed(product: Product, attribute: str) -> tuple[str, ...]:
    if attribute == "pattern_colour":
        return () if product.pattern == "plain" else _seen_on(product.colour)
    return values(attribute, product.type)


def _settle(fields: dict[str, str], variation: int) -> dict[str, str]:
    """The fields with every dependent attribute made to fit the type, the colour and the pattern."""
    settled = dict(fields)
    for name in _NOT_ALWAYS:
        settled[name] = _fit(fields[name], TYPES[fields["type"]].get(name, ()), f"{variation}/{name}")
    seen = () if fields["pattern"] == "plain" else _seen_on(fields["colour"])
    settled["pattern_colour"] = _fit(fields["pattern_colour"], seen, f"{variation}/pattern_colour")
    return settled


def _fit(value: str, options: tuple[str, ...], seed: str) -> str:
    if not options:
        return ""
    return value if value in options else random.Random(seed).choice(options)


def _check_known(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ConfigError(f"unknown {what} {name!r} of a drawn product; expected one of: {', '.join(known)}")
