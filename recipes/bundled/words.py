"""The words of the bundled model: how each attribute value is said, and how a change of it is asked for.

Plain tables. `language.py` turns them into captions; nothing here knows about pictures. In a template `{v}` stands for
the new value's words and `{o}` for the old one's.
"""

from __future__ import annotations

# The first word is the most frequent; the others are drawn now and then.
SYNONYMS: dict[str, dict[str, tuple[str, ...]]] = {
    "type": {
        "t-shirt": ("t-shirt", "tshirt", "tee", "t shirt", "top"),
        "shirt": ("shirt", "button-up shirt"),
        "jumper": ("jumper", "sweater", "pullover"),
        "cardigan": ("cardigan", "knit jacket"),
        "hoodie": ("hoodie", "sweatshirt", "hooded sweatshirt"),
        "trousers": ("trousers", "pants"),
        "beanie": ("beanie", "woolly hat"),
        "cap": ("cap", "baseball cap"),
        "socks": ("socks", "pair of socks"),
        "sneaker": ("sneaker", "trainer", "sports shoe", "shoe"),
        "boot": ("boot", "winter boot"),
        "bag": ("bag", "handbag", "tote bag"),
        "mug": ("mug", "cup"),
        "cushion": ("cushion", "pillow"),
        "T-Shirt": ("t-shirt", "tshirt", "tee", "t shirt"),
        "Longsleeve": ("longsleeve", "long-sleeved top", "long sleeve shirt"),
        "Pants": ("pants", "trousers", "jeans"),
        "Shoes": ("shoes", "pair of shoes", "sneakers", "shoe"),
        "Shirt": ("shirt", "button-up shirt"),
        "Dress": ("dress",),
        "Outwear": ("jacket", "outwear", "coat", "outerwear"),
        "Shorts": ("shorts", "short pants"),
        "Hat": ("hat", "cap"),
        "Skirt": ("skirt",),
        "Polo": ("polo", "polo shirt"),
        "Undershirt": ("undershirt", "tank top", "vest"),
        "Blazer": ("blazer", "suit jacket"),
        "Hoodie": ("hoodie", "sweatshirt", "hooded sweatshirt"),
        "Body": ("body", "bodysuit"),
        "Top": ("top",),
        "Blouse": ("blouse",),
    },
    "colour": {
        "red": ("red", "bright red", "scarlet"),
        "yellow": ("yellow", "golden yellow"),
        "green": ("green", "dark green"),
        "light blue": ("light blue", "pale blue", "sky blue"),
        "navy": ("navy", "navy blue", "dark blue"),
        "purple": ("purple", "violet"),
        "beige": ("beige", "tan", "cream"),
        "grey": ("grey", "gray"),
    },
    "style": {
        "noto": ("noto", "noto style", "google"),
        "fluent_3d": ("3d", "fluent 3d", "glossy 3d", "fluent_3d"),
        "fluent_flat": ("flat", "fluent flat", "fluent_flat"),
    },
}

PATTERN_NOUNS = {
    "striped": "stripes",
    "pinstriped": "pinstripes",
    "checked": "checks",
    "dotted": "dots",
    "floral": "flowers",
    "zigzag": "zigzags",
    "hearts": "hearts",
}
PATTERN_ADJECTIVES = {
    "striped": "striped",
    "pinstriped": "pinstriped",
    "checked": "checked",
    "dotted": "dotted",
    "floral": "floral",
    "zigzag": "zigzag",
    "hearts": "heart-patterned",
}

# Said of any attribute; `evaluate attributes` asks so when no better wording is known.
GENERIC = (
    "in {v}",
    "but {v}",
    "{v}",
    "with {v}",
    "{v} instead",
    "make it {v}",
    "{v} instead of {o}",
    "not {o} but {v}",
)
# "In beige" speaks of the product: a background, a second colour or a detail must be named to be changed.
NEVER_GENERIC = frozenset({"background", "pattern_colour", "closure", "neckline"})

MODIFIERS: dict[str, tuple[str, ...]] = {
    "colour": (
        "in {v}",
        "but {v}",
        "but in {v}",
        "the same in {v}",
        "the same but {v}",
        "this one, but {v}",
        "change the colour to {v}",
        "in {v} colour",
        "is {v}",
        "is {v} and not {o}",
        "in {v} instead of {o}",
    ),
    "type": (
        "a {v}",
        "but a {v}",
        "as a {v}",
        "a {v} instead",
        "a {v} instead of a {o}",
        "make it a {v}",
        "change it to a {v}",
        "not a {o} but a {v}",
        "is a {v}",
        "the same as a {v}",
        "turn it into a {v}",
    ),
    "pattern": (
        "with {n}",
        "but with {n}",
        "but {v}",
        "{v}",
        "with a {v} pattern",
        "{v} pattern",
        "make it {v}",
        "with {n} instead",
        "the same with {n}",
        "has {n}",
        "with {n} instead of {m}",
        "add {n}",
    ),
    "pattern=plain": (
        "plain",
        "but plain",
        "without {m}",
        "without a pattern",
        "with no pattern",
        "no {m}",
        "but without {m}",
        "remove the {m}",
        "in plain",
        "make it plain",
        "plain instead of {o}",
        "without pattern",
    ),
    "pattern_colour": (
        "with {v} {n}",
        "but with {v} {n}",
        "make the {n} {v}",
        "{v} {n}",
        "with {v} {n} instead of {o}",
    ),
    "sleeve": (
        "with {v} sleeves",
        "but with {v} sleeves",
        "{v} sleeves",
        "{v} sleeved",
        "has {v} sleeves",
        "with {v} sleeves instead of {o}",
        "make the sleeves {v}",
        "in {v} sleeves",
    ),
    "sleeve=sleeveless": (
        "sleeveless",
        "but sleeveless",
        "without sleeves",
        "with no sleeves",
        "no sleeves",
        "make it sleeveless",
        "in sleeveless",
        "with sleeveless sleeves",
    ),
    "length": (
        "but {v}",
        "{v}",
        "in a {v} cut",
        "make it {v}",
        "{v} length",
        "in {v}",
        "{v} instead of {o}",
        "with a {v} length",
    ),
    "neckline": (
        "with a {v}",
        "but with a {v}",
        "{v}",
        "has a {v}",
        "with a {v} instead",
        "with a {v} instead of a {o}",
        "with a {v} neckline",
        "{v} neck",
    ),
    "closure": (
        "with {v}",
        "but with {v}",
        "with {v} instead of {o}",
        "has {v}",
        "closed with {v}",
        "with {v} closure",
    ),
    "background": (
        "on a {v} background",
        "on {v}",
        "but on a {v} background",
        "with a {v} background",
        "against {v}",
        "{v} background",
        "change the background to {v}",
        "on {v} instead of {o}",
    ),
    "style": (
        "in {v} style",
        "in {v}",
        "but {v}",
        "drawn in {v} style",
        "as {v}",
        "{v} style",
        "in the {v} drawing style",
        "make it {v}",
    ),
    "skin_tone": (
        "with {v}",
        "in {v}",
        "but with {v}",
        "{v}",
        "with {v} instead of {o}",
        "change to {v}",
        "make it {v}",
        "has {v}",
    ),
    "gender_word": (
        "as a {v}",
        "but a {v}",
        "a {v} instead",
        "a {v}",
        "in {v}",
        "with a {v}",
        "a {v} instead of a {o}",
    ),
}

# Ordered values: "longer", "darker" and their opposites allow every value further along.
SCALES: dict[str, tuple[tuple[str, ...], ...]] = {
    "sleeve": (("sleeveless", "short", "long"),),
    "length": (("short", "knee-length", "long"),),
    "colour": (
        ("white", "grey", "black"),
        ("light blue", "blue", "navy"),
        ("beige", "brown"),
        ("pink", "red"),
    ),
    "skin_tone": (
        (
            "light skin tone",
            "medium-light skin tone",
            "medium skin tone",
            "medium-dark skin tone",
            "dark skin tone",
        ),
    ),
}
COMPARATIVES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sleeve": (
        ("with longer sleeves", "longer sleeves", "but with longer sleeves"),
        ("with shorter sleeves", "shorter sleeves", "but with shorter sleeves"),
    ),
    "length": (("longer", "but longer", "make it longer"), ("shorter", "but shorter", "make it shorter")),
    "colour": (
        ("darker", "but darker", "in a darker colour"),
        ("lighter", "but lighter", "in a lighter colour"),
    ),
    "skin_tone": (
        ("with darker skin", "darker", "but darker"),
        ("with lighter skin", "lighter", "but lighter"),
    ),
}

NECKLINES = {"round": "round neck", "v-neck": "v-neck", "turtleneck": "turtleneck", "collar": "collar"}
CLOSURES = {"buttons": "buttons", "zip": "a zip", "open": "an open front", "none": "no zip"}
FRAMES = (
    "{x}",
    "{x}",
    "{x}",
    "a {x}",
    "a {x}",
    "a photo of a {x}",
    "a picture of a {x}",
    "photo of {x}",
    "this is a {x}",
    "an image of a {x}",
    "one {x}",
    "the {x}",
)
JOINTS = (" ", " ", " ", ", ", ". ")
EMOJI_FRAMES = (
    "{x}",
    "{x}",
    "{x} emoji",
    "an emoji of {x}",
    "a drawing of {x}",
    "an image of {x}",
    "{x} icon",
)
