"""The bundled model's guiding phrases: every drawn product by what has to stay when something else is changed."""

from __future__ import annotations

import itertools

from image2sentence.catalogue import attributes as drawn
from image2sentence.encoders.config import GuideConfig
from recipes.bundled.words import PATTERN_ADJECTIVES, SYNONYMS

# How well the nearest phrase fits (dot product): nineteen of twenty drawn products from 0.52 up, half of the
# photographs below 0.49, nine in ten of fashion's below 0.54, nineteen of twenty emoji below 0.50. Those are left to
# the sentence (recipes/LOG.md).
SETTINGS = GuideConfig(neighbours=1, temperature=0.05, low=0.52, high=0.62, residual=0.1)


def guiding_phrases() -> list[str]:
    """Type, colour, pattern and sleeve of every drawn product, each in its most frequent words."""
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
