"""What the miniature experiments compare: one table of query sides per world, each a change to one common setting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ISA = "ISA"
MAPPER = "single-word mapper"
SYMMETRIC = "symmetric ISA"
PAPER = "ISA, GCD + LAR alone"
LONGER = "ISA at 112 px, 1,000 steps"
LONGER_MSE = "ISA at 112 px, 1,000 steps, GCD by MSE"
LONGEST_MSE = "ISA at 112 px, 1,000 + 1,000 steps, GCD by MSE"
ALL_MSE = "ISA, 1,000 steps, GCD and modifiers by MSE"
OURS = (ISA, LONGER, LONGER_MSE, LONGEST_MSE, ALL_MSE)  # these get guiding phrases, too
# Suffix of a row's name -> the residual of its guiding phrases.
GUIDED = {" + guiding phrases": 0.0, " + guiding phrases, residual 0.3": 0.3}


@dataclass(frozen=True)
class Variant:
    """A query side: `changes` are `image2sentence train --set` values beside COMMON; `light` None is the world's.

    `start` is the folder of a variant whose weights it starts from. With a `preset`, changes are beside that.
    """

    name: str
    study: str
    changes: dict[str, Any] = field(default_factory=dict)
    light: str | None = None
    seed: int = 0
    start: str = ""
    preset: str = ""

    @property
    def folder(self) -> str:
        """Its run's folder: the name in lower case, other characters than letters and digits as hyphens."""
        plain = "".join(c if c.isalnum() else "-" for c in f"{self.study} {self.name} {self.seed}".lower())
        return "-".join(part for part in plain.split("-") if part)


COMMON: dict[str, Any] = {
    "steps": 400,
    "batch": 128,
    "gcd": "info_nce",
    "gcd_weight": 1.0,
    "temperature": 0.05,
    "lar": "matching",
    "lar_weight": 0.2,
    "lar_batch": 24,
    "modifier": "info_nce",
    "modifier_weight": 1.0,
    "residual": 0.35,
    "pseudo_captions": 2,
    "learning_rate": 2e-3,
    "warmup": 40,
    "average": 0.99,
    "smallest_crop": 0.8,
    "flip": True,
    "validation": 256,
    "learner.tokens": 4,
    "learner.softmax": "places",
    "learner.blocks": 2,
    "learner.gates": False,
}
_LONG_MSE = {"steps": 1_000, "warmup": 100, "gcd": "mse"}
_ALL_MSE = _LONG_MSE | {"gcd_weight": 0.4, "modifier": "mse"}
MAPPER_CHANGES = {"learner.kind": "mapper", "learner.tokens": 1}
WITHOUT_MODIFIERS = {"modifier_weight": 0.0}


def _tokens(*counts: int) -> list[Variant]:
    return [Variant(f"L = {count}", "sentence length", {"learner.tokens": count}) for count in counts]


def _seeds(*seeds: int) -> list[Variant]:
    return [
        variant
        for seed in seeds
        for variant in (
            Variant(ISA, "main", seed=seed),
            Variant(MAPPER, "main", MAPPER_CHANGES, seed=seed),
            Variant(SYMMETRIC, "main", light="symmetric", seed=seed),
            Variant(PAPER, "main", WITHOUT_MODIFIERS, seed=seed),
        )
    ]


FASHION = [
    *_seeds(0),
    Variant(LONGER, "main", {"steps": 1_000, "warmup": 100}, light="tiny@bundled"),
    (_long := Variant(LONGER_MSE, "main", _LONG_MSE, light="tiny@bundled")),
    Variant(
        LONGEST_MSE, "main", _LONG_MSE | {"learning_rate": 1e-3}, light="tiny@bundled", start=_long.folder
    ),
    *(Variant(ALL_MSE, "main", _ALL_MSE, seed=seed) for seed in range(3)),
    *_tokens(1),
    Variant("by MSE", "modifier-aware distillation", {"modifier": "mse"}),
    Variant("residual 0", "modifier-aware distillation", {"residual": 0.0}),
    *_tokens(8),
    Variant("off", "LAR", {"lar": "off"}),
    Variant(ISA, "main", seed=1),
    Variant(MAPPER, "main", MAPPER_CHANGES, seed=1),
    Variant("MSE", "GCD", {"gcd": "mse"}),
    Variant("softmax over tokens", "token learner", {"learner.softmax": "tokens"}),
    Variant(ISA, "main", seed=2),
    Variant(MAPPER, "main", MAPPER_CHANGES, seed=2),
    Variant("tiny/80, from scratch", "light encoder", light="tiny/80"),
    Variant("tiny/48@bundled", "light encoder", light="tiny/48@bundled"),
    Variant("tiny/112@bundled", "light encoder", light="tiny@bundled"),
    Variant("local", "LAR", {"lar": "local"}),
    Variant("pseudo-captions in place of LAR", "LAR", {"lar": "off", "caption_weight": 1.0}),
    Variant("gates", "token learner", {"learner.gates": True}),
    *_tokens(2, 16),
    Variant("KL of similarities", "GCD", {"gcd": "kl"}),
    Variant("InfoNCE both ways", "GCD", {"gcd": "symmetric"}),
    Variant("residual 0.7", "modifier-aware distillation", {"residual": 0.7}),
    Variant("tiny/64@bundled", "light encoder", light="tiny/64@bundled"),
    *(v for v in _seeds(1, 2) if v.name in (SYMMETRIC, PAPER)),
    Variant("mobilenet-v2/112", "light encoder", light="mobilenet-v2/112"),
    Variant("no relation blocks", "token learner", {"learner.blocks": 0}),
]
EMOJI = [
    Variant(ISA, "main"),
    Variant(MAPPER, "main", MAPPER_CHANGES),
    *_tokens(1, 8),
    Variant(PAPER, "main", WITHOUT_MODIFIERS),
    *_tokens(2),
    Variant(SYMMETRIC, "main", light="symmetric"),
    Variant(ISA, "main", seed=1),
    Variant(MAPPER, "main", MAPPER_CHANGES, seed=1),
]
DRAWN = [
    Variant(ISA, "main"),
    Variant(MAPPER, "main", MAPPER_CHANGES),
    *_tokens(1, 8, 2),
    Variant(PAPER, "main", WITHOUT_MODIFIERS),
]
VARIANTS = {"fashion": FASHION, "emoji": EMOJI, "drawn": DRAWN}
# Published light encoders come with ImageNet weights; this one comes with those of the bundled query side.
LIGHT = {"fashion": "tiny/80@bundled", "emoji": "tiny/64@bundled", "drawn": "tiny@bundled"}
OVERRIDES: dict[str, dict[str, Any]] = {
    # What has to be kept of an emoji is which of 1,300 it is, and every part of it may tell.
    "emoji": {"residual": 0.5, "steps": 400, "smallest_crop": 0.9, "flip": False},
    # The bundled matching encoder is weak (recipes/LOG.md), and its tower the dearest of the three worlds; of its plain
    # phrases the second nearest is always wrong in something.
    "drawn": {"lar": "off", "pseudo_captions": 1},
}
