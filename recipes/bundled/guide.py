"""The bundled model's guiding phrases: every drawn product by what has to stay when something else is changed."""

from __future__ import annotations

import itertools

from image2sentence.catalogue import attributes as drawn
from image2sentence.config import GuideConfig
from recipes.bundled.words import PATTERN_ADJECTIVES, SYNONYMS

# Emoji and photographs of other kinds reach 0.66 rarely (docs/model.md), and are left to the sentence.
SETTINGS = GuideConfig(neighbours=5, temperature=0.05, low=0.66, high=0.8, residual=0.3)


def guiding_phrases() -> list[str]:
    """Type, colour, pattern and sleeve of every drawn product, each said in its usual words."""
    phrases: list[str] = []
    for kind, colour, pattern in itertools.product(drawn.TYPES, drawn.COLOURS, drawn.PATTERNS):
        phrases += [
            _phrase(kind, colour, pattern, sleeve) for sleeve in drawn.values("sleeve", kind) or ("",)
        ]
    return phrases


def _phrase(kind: str, colour: str, pattern: str, sleeve: str) -> str:
    words = [
        sleeve if sleeve in ("", "sleeveless") else f"{sleeve}-sleeved",
        colour,
        PATTERN_ADJECTIVES.get(pattern, pattern),
        SYNONYMS["type"].get(kind, (kind,))[0],
    ]
    return " ".join(["a", *(word for word in words if word)])
