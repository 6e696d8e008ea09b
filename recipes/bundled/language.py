"""Captions with an exact meaning: every text comes with the attribute values it allows.

A *record* is what is known of a picture: attribute -> value ("" = the attribute does not apply; absent = unknown). A
`Caption` is a text and, for each attribute that it speaks about, the set of values under which it is true. From the
two, `judge` tells which captions of a batch are true of which pictures, so that a contrastive loss never takes a true
caption for a negative.

A caption either describes (a subset of the attributes, negations included) or *edits another description*: "a red
shirt with short sleeves but blue" is true of blue shirts with short sleeves. The edits teach the text encoder that
the words that come last have the last word (edits of another description).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from image2sentence.catalogue import attributes as drawn
from recipes.bundled import words

Record = Mapping[str, str]

GARMENT_ATTRIBUTES = drawn.ATTRIBUTES
PHOTO_TYPES = tuple(name for name in words.SYNONYMS["type"] if name[0].isupper())
SKIN_TONES = words.SCALES["skin_tone"][0]
STYLES = tuple(words.SYNONYMS["style"])

VALUES: dict[str, tuple[str, ...]] = {
    "source": ("drawn", "photo", "emoji"),
    **{name: drawn.values(name) for name in drawn.ATTRIBUTES},
    "kids": ("False", "True"),
    "style": STYLES,
    "skin_tone": ("yellow skin", *SKIN_TONES),
    "gender_word": ("person", "man", "woman"),
}
VALUES["type"] = (*VALUES["type"], *PHOTO_TYPES)
COLUMNS = tuple(VALUES)
_SOURCE, _TYPE = COLUMNS.index("source"), COLUMNS.index("type")
_EMOJI = VALUES["source"].index("emoji")
_UNKNOWN, _NOT_APPLICABLE = 63, 62  # as bit positions; no attribute has that many values


@dataclass(frozen=True)
class Caption:
    """A text and the values it allows; `thing` is the emoji's subject, or "" when the text is not about an emoji."""

    text: str
    source: str
    allowed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    thing: str = ""


def describe(record: Record, rng: random.Random, full: bool = False) -> Caption:
    """A true caption that names some (or all) of a record's attributes, now and then by saying what they are not."""
    if record["source"] == "emoji":
        return _describe_emoji(record, rng, full)
    named = _choose_named(record, rng, full)
    text = _garment_phrase(record, named, rng)
    allowed = {name: frozenset({record[name]}) for name in named}
    deniable = [name for name in ("colour", "pattern") if record.get(name) and name not in named]
    if deniable and rng.random() < 0.25:
        name = rng.choice(deniable)
        other = _other_value(record, name, rng)
        text += ", " + _negation(name, other, rng)
        allowed[name] = frozenset(VALUES[name]) - {other}
    return Caption(text, record["source"], allowed)


def edit(record: Record, rng: random.Random) -> Caption:
    """A true caption that describes another picture and then says what to change, once, twice or three times."""
    start: dict[str, str] = dict(record)
    changes: list[tuple[str, str]] = []
    for _ in range(rng.choices((1, 2, 3), (0.68, 0.25, 0.07))[0]):
        options = [name for name in _editable(start) if name not in {done for done, _ in changes}]
        if not options:
            break
        name = rng.choice(options)
        start[name] = _other_value(start, name, rng)
        changes.append((name, start[name]))
    base = _describe_start(start, record, {name for name, _ in changes}, rng)
    allowed = dict(base.allowed)
    asked = []
    for name, old in changes:
        text, values = modifier(name, old, record, rng)
        asked.append(text)
        allowed[name] = values
    joined = rng.choice((" and ", ", ", " ")).join(asked)
    return Caption(base.text + rng.choice(words.JOINTS) + joined, record["source"], allowed, base.thing)


def modifier(name: str, old: str, record: Record, rng: random.Random) -> tuple[str, frozenset[str]]:
    """Words that ask for the record's value of `name` where it was `old`, and the values that would satisfy them."""
    new = record[name]
    steps = _comparison(name, old, new)
    if steps and rng.random() < 0.15:
        further, phrases = steps
        return rng.choice(phrases), further
    templates = words.MODIFIERS.get(f"{name}={new}", words.MODIFIERS[name])
    generic = name not in words.NEVER_GENERIC and rng.random() < 0.2
    template = rng.choice(words.GENERIC if generic else templates)
    return _fill(template, name, old, record, rng), frozenset({new})


def random_modifier(rng: random.Random, source: str) -> str:
    """Words that ask for a change, drawn without looking at any picture: for modifier-aware distillation."""
    record = random_record(rng, source)
    count = rng.choices((1, 2, 3), (0.7, 0.25, 0.05))[0]
    names = rng.sample(_editable(record), min(count, len(_editable(record))))
    return rng.choice((" and ", ", ", " ")).join(
        modifier(name, _other_value(record, name, rng), record, rng)[0] for name in names
    )


def random_record(rng: random.Random, source: str) -> dict[str, str]:
    """A made-up picture's record; an emoji's `thing` is left to the caller's list of names."""
    if source == "emoji":
        return {
            "source": "emoji",
            "style": rng.choice(STYLES),
            "skin_tone": rng.choice(VALUES["skin_tone"]),
            "gender_word": rng.choice(VALUES["gender_word"]),
            "thing": "{g}",
        }
    product = drawn.sample(rng)
    record = {"source": source} | {name: getattr(product, name) for name in drawn.ATTRIBUTES}
    if source == "photo":
        record = {"source": source, "type": rng.choice(PHOTO_TYPES), "colour": record["colour"]}
    return record


# --- garments -------------------------------------------------------------------------------------------------------

_NAMED_SHARE = {
    "type": 0.92,
    "colour": 0.75,
    "pattern": 0.6,
    "pattern_colour": 0.5,
    "sleeve": 0.45,
    "length": 0.45,
    "neckline": 0.3,
    "closure": 0.3,
    "background": 0.3,
    "kids": 0.3,
}


def _choose_named(record: Record, rng: random.Random, full: bool = False) -> list[str]:
    full = full or rng.random() < 0.2
    named = [
        name for name, share in _NAMED_SHARE.items() if record.get(name) and (full or rng.random() < share)
    ]
    if "pattern_colour" in named and "pattern" not in named:
        named.remove("pattern_colour")
    if "type" not in named and "colour" not in named:
        named.append("type")
    return named


def _garment_phrase(record: Record, named: Sequence[str], rng: random.Random) -> str:
    before, after = _around_noun(record, named, rng)
    noun = (
        _say("type", record["type"], rng)
        if "type" in named
        else rng.choice(("product", "garment", "thing", "one"))
    )
    phrase = " ".join([*before, noun])
    rng.shuffle(after)
    if after:
        phrase += " with " + (", ".join(after[:-1]) + " and " + after[-1] if len(after) > 1 else after[0])
    if "kids" in named and record["kids"] == "True":
        phrase += rng.choice((" for kids", " for children", " for a child"))
    if "background" in named:
        phrase += (
            f" on a {record['background']} background"
            if rng.random() < 0.7
            else f" on {record['background']}"
        )
    return rng.choice(words.FRAMES).format(x=phrase)


def _around_noun(record: Record, named: Sequence[str], rng: random.Random) -> tuple[list[str], list[str]]:
    """Words before the noun, and parts to list after "with"."""
    before: list[str] = []
    after: list[str] = []
    if "length" in named:
        before.append(record["length"])
    if "sleeve" in named:
        sleeveless = record["sleeve"] == "sleeveless"
        if sleeveless or rng.random() < 0.3:
            before.append("sleeveless" if sleeveless else f"{record['sleeve']}-sleeved")
        else:
            after.append(f"{record['sleeve']} sleeves")
    _add_colours(record, named, rng, before, after)
    if "neckline" in named:
        after.append(f"a {words.NECKLINES[record['neckline']]}")
    if "closure" in named and record["closure"] != "none":
        after.append(words.CLOSURES[record["closure"]])
    return before, after


def _add_colours(
    record: Record, named: Sequence[str], rng: random.Random, before: list[str], after: list[str]
) -> None:
    colour = _say("colour", record["colour"], rng) if "colour" in named else ""
    pattern = record["pattern"] if "pattern" in named else ""
    second = record["pattern_colour"] if "pattern_colour" in named else ""
    if pattern and pattern != "plain" and rng.random() < 0.5:
        after.append(f"{second} {words.PATTERN_NOUNS[pattern]}".strip())
        pattern = second = ""
    if colour:
        before.append(f"{colour} and {second}" if second else colour)
    elif second:
        after.append(f"{second} {words.PATTERN_NOUNS.get(pattern, 'pattern')}")
        pattern = ""
    if pattern:
        place = len(before) if rng.random() < 0.7 else 0
        before.insert(place, "plain" if pattern == "plain" else words.PATTERN_ADJECTIVES[pattern])


def _negation(name: str, other: str, rng: random.Random) -> str:
    if name == "pattern":
        return (
            "not plain"
            if other == "plain"
            else rng.choice(("without {}", "no {}")).format(words.PATTERN_NOUNS[other])
        )
    return f"not {_say(name, other, rng)}"


# --- emoji ----------------------------------------------------------------------------------------------------------


def _describe_emoji(record: Record, rng: random.Random, full: bool = False) -> Caption:
    optional = [name for name in ("style", "skin_tone") if record.get(name)]
    named = {"thing"} | {name for name in optional if full or rng.random() < 0.55}
    if record.get("gender_word"):
        named.add("gender_word")
    if not record["thing"]:
        named.discard("thing")
    text = _emoji_phrase(record, named, rng)
    allowed = {name: frozenset({record[name]}) for name in named - {"thing"}}
    return Caption(text, "emoji", allowed, record["thing"] if "thing" in named else "")


def _emoji_phrase(record: Record, named: set[str], rng: random.Random) -> str:
    phrase = record["thing"].replace("{g}", record.get("gender_word", ""))
    if "skin_tone" in named:
        tone = record["skin_tone"]
        phrase = rng.choice(
            (f"{phrase} {tone}", f"{phrase} with {tone}", f"{tone} {phrase}", f"{phrase}: {tone}")
        )
    phrase = rng.choice(words.EMOJI_FRAMES).format(x=phrase)
    if "style" in named:
        style = _say("style", record["style"], rng)
        phrase = rng.choice(
            (f"{phrase} in {style} style", f"{style} {phrase}", f"{phrase}, {style}", f"{phrase} {style}")
        )
    return phrase


# --- edits ----------------------------------------------------------------------------------------------------------


def _editable(record: Record) -> list[str]:
    if record["source"] == "emoji":
        return [name for name in ("style", "skin_tone", "gender_word") if record.get(name)]
    return [name for name in GARMENT_ATTRIBUTES if record.get(name)]


def _describe_start(start: Record, target: Record, changed: set[str], rng: random.Random) -> Caption:
    """A caption of the picture before the change; what it allows is what must still hold after it."""
    if start["source"] == "emoji":
        return _describe_emoji(start, rng)
    shown = dict(start)
    if "pattern" in changed and start["pattern"] == "plain":
        shown["pattern_colour"] = ""
    elif "pattern" in changed and target["pattern"] == "plain":
        shown["pattern_colour"] = rng.choice(drawn.values("pattern_colour"))
    for name in ("sleeve", "length", "neckline", "closure"):
        if "type" in changed and name not in changed and shown.get(name) not in _values_of(start, name):
            shown[name] = ""
    named = _choose_named(shown, rng)
    named += [name for name in changed if name not in named and shown.get(name) and rng.random() < 0.6]
    kept = {
        name: frozenset({shown[name]})
        for name in named
        if name not in changed and shown[name] == target.get(name)
    }
    return Caption(_garment_phrase(shown, named, rng), start["source"], kept)


def _values_of(record: Record, name: str) -> tuple[str, ...]:
    return drawn.values(name, record["type"]) if record["source"] == "drawn" else VALUES[name]


def _other_value(record: Record, name: str, rng: random.Random) -> str:
    options: Sequence[str] = VALUES[name]
    if name == "type":
        options = PHOTO_TYPES if record["source"] == "photo" else tuple(drawn.TYPES)
    elif name in ("sleeve", "length", "neckline", "closure"):
        options = _values_of(record, name) or options
    elif name == "pattern_colour":
        options = drawn.values(name)
    return rng.choice([value for value in options if value != record[name]])


def _comparison(name: str, old: str, new: str) -> tuple[frozenset[str], tuple[str, ...]] | None:
    for scale in words.SCALES.get(name, ()):
        if old in scale and new in scale:
            up = scale.index(new) > scale.index(old)
            place = scale.index(old)
            further = scale[place + 1 :] if up else scale[:place]
            return frozenset(further), words.COMPARATIVES[name][0 if up else 1]
    return None


def _fill(template: str, name: str, old: str, record: Record, rng: random.Random) -> str:
    new = record[name]
    pattern = new if name == "pattern" else record.get("pattern", "")
    return template.format(
        v=_say(name, new, rng),
        o=_say(name, old, rng),
        n=words.PATTERN_NOUNS.get(pattern, "pattern"),
        m=words.PATTERN_NOUNS.get(old, "pattern"),
    )


def _say(name: str, value: str, rng: random.Random) -> str:
    if name == "pattern":
        return words.PATTERN_ADJECTIVES.get(value, value) if rng.random() < 0.8 else value
    if name == "neckline":
        return words.NECKLINES[value]
    if name == "closure":
        return words.CLOSURES[value]
    options = words.SYNONYMS.get(name, {}).get(value, (value,))
    return options[0] if len(options) == 1 or rng.random() < 0.7 else rng.choice(options[1:])


# --- which caption is true of which picture -------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """Records as arrays: `codes` (n, columns) bit positions, `things` (n,) subject numbers (-1: not an emoji)."""

    codes: NDArray[np.uint64]
    things: NDArray[np.int64]

    def __getitem__(self, index: NDArray[np.int64]) -> Facts:
        return Facts(self.codes[index], self.things[index])


def facts(records: Sequence[Record], subjects: Mapping[str, int]) -> Facts:
    """Encodes records; `subjects` numbers the emoji's things."""
    codes = np.full((len(records), len(COLUMNS)), _UNKNOWN, np.uint64)
    for row, record in enumerate(records):
        for column, name in enumerate(COLUMNS):
            if name in record:
                value = record[name]
                codes[row, column] = VALUES[name].index(value) if value else _NOT_APPLICABLE
    things = np.array([subjects.get(record.get("thing", ""), -1) for record in records], np.int64)
    return Facts(codes, things)


def judge(pictures: Facts, captions: Sequence[Caption], subjects: Mapping[str, int]) -> NDArray[np.int8]:
    """(pictures, captions) int8: 1 the caption is true of the picture, 0 it is not, -1 unknown.

    Drawn products and photographs name their types differently, so across the two only the other attributes decide,
    and only against.
    """
    masks = np.stack([_mask(caption) for caption in captions])
    bit = (masks[None] >> pictures.codes[:, None]) & np.uint64(1)
    stated = masks != _ALL
    unknown = (pictures.codes == _UNKNOWN)[:, None] & stated[None]
    fails = (bit == 0) & ~unknown
    things = np.array([subjects.get(caption.thing, -1) if caption.thing else -2 for caption in captions])
    fails[..., _SOURCE] = (things[None] != -2) & (things[None] != pictures.things[:, None])
    own = pictures.codes[:, _SOURCE][:, None]
    other = np.array([VALUES["source"].index(caption.source) for caption in captions], np.uint64)[None]
    across = own != other
    fails[..., _TYPE] &= ~across
    verdict = np.where(fails.any(-1), 0, np.where(unknown.any(-1) | across, -1, 1))
    return np.where(across & ((own == _EMOJI) | (other == _EMOJI)), 0, verdict).astype(np.int8)


_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


def _mask(caption: Caption) -> NDArray[np.uint64]:
    mask = np.full(len(COLUMNS), _ALL, np.uint64)
    for name, values in caption.allowed.items():
        mask[COLUMNS.index(name)] = np.uint64(sum(1 << VALUES[name].index(value) for value in values))
    return mask
