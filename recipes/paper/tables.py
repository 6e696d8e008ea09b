"""What each table compares: rows of `train --preset paper`, each with changes of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PRESET = "paper"
PRESET_LIGHT = "efficientnet-b0@google/efficientnet-b0"
PRESET_LENGTH = 4
BASE = "paper preset"
SYMMETRIC = "symmetric"


@dataclass(frozen=True)
class Row:
    """A query side: `changes` are `train --set` values over the preset, `light` None is the preset's encoder.

    `words` rows learn from phrases and modifiers, too; without them they are left out, and the table says so.
    """

    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    light: str | None = None
    preset: str = PRESET
    words: bool = False

    @property
    def name(self) -> str:
        """Its title as the name of a folder and of a report's row: letters, digits and hyphens."""
        plain = "".join(c if c.isalnum() else "-" for c in self.title.lower())
        return "-".join(part for part in plain.split("-") if part)


@dataclass(frozen=True)
class Table:
    """Rows that are measured on the same benchmarks; the first is what the others change."""

    title: str
    rows: tuple[Row, ...]
    submits: bool = False
    """Whether the first row's answers to hidden splits are written for the evaluation servers."""


_BASE = Row(BASE)
_SYMMETRIC = Row("the VL model's own tower in front", light=SYMMETRIC)
_MAPPER = Row("single-word mapper", {"learner.kind": "mapper", "learner.tokens": 1})
LENGTHS = (1, 2, 4, 6, 8, 16)
"""L, the numbers of pseudo-words; the preset's own is among them."""

TABLES: dict[str, Table] = {
    "benchmarks": Table(
        "The benchmarks",
        (_BASE, _MAPPER, _SYMMETRIC, Row("default preset", preset="default", light=PRESET_LIGHT, words=True)),
        submits=True,
    ),
    "lengths": Table(
        "Sentence length L",
        (
            _BASE,
            *(Row(f"L {count}", {"learner.tokens": count}) for count in LENGTHS if count != PRESET_LENGTH),
        ),
    ),
    "mappers": Table(
        "The mapper",
        (
            _BASE,
            _MAPPER,
            Row("softmax over places", {"learner.softmax": "places"}),
            Row("no relation blocks", {"learner.blocks": 0}),
            Row("gates", {"learner.gates": True}),
        ),
    ),
    "losses": Table(
        "The losses",
        (
            _BASE,
            Row("without LAR", {"lar": "off"}),
            Row("without GCD", {"gcd_weight": 0.0}),
            Row("LAR local", {"lar": "local"}),
            Row("GCD both ways", {"gcd": "symmetric"}),
            Row("GCD by KL of similarities", {"gcd": "kl"}),
            Row("GCD by squared distance", {"gcd": "mse"}),
            Row("pseudo-captions in place of LAR", {"lar": "off", "caption_weight": 1.0}, words=True),
        ),
    ),
    "light": Table(
        "Light encoders",
        (
            _BASE,
            Row("EfficientNet-B2", light="efficientnet-b2@google/efficientnet-b2"),
            Row("MobileNetV2", light="mobilenet-v2@google/mobilenet_v2_1.0_224"),
            Row("MobileViTV2", light="mobilevit-v2@apple/mobilevitv2-1.0-imagenet1k-256"),
            Row("SwiftFormer-XS", light="swiftformer-xs@MBZUAI/swiftformer-xs"),
            _SYMMETRIC,
        ),
    ),
}
