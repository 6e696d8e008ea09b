"""Settings of a training run, one frozen record."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from image2sentence.encoders.config import LearnerConfig
from image2sentence.encoders.template import DEFAULT_TEMPLATE
from image2sentence.errors import ConfigError

GCD_KINDS = ["info_nce", "symmetric", "kl", "mse"]
"""Known forms of GCD; `image2sentence.training.losses.register_gcd` adds to them."""
LAR_KINDS = ("auto", "matching", "local", "off")
MODIFIER_KINDS = ("info_nce", "mse")
KEPT = ("best", "last")
PRECISIONS = ("auto", "no", "bf16", "fp16")
AUTO = "auto"
UNKNOWN_TEMPERATURE = 0.05
"""What `temperature="auto"` comes to for a VL model whose weights do not say its own, such as BLIP."""

MIN_LAR_SIDE, MAX_LAR_SIDE = 32, 1024
# A contrastive loss needs at least two pictures a batch.
_MINIMA = {"steps": 1, "batch": 2, "accumulate": 1, "save_every": 1, "lar_batch": 2, "pseudo_captions": 1}
_MINIMA |= {"validation": 1, "warmup": 0, "queue": 0, "modifier_batch": 0, "seed": 0}
_NOT_NEGATIVE = (
    "gcd_weight",
    "lar_weight",
    "caption_weight",
    "modifier_weight",
    "weight_decay",
    "brightness",
)
_MAX_SEED = 2**31 - 1  # what every generator takes that it is mixed into


@dataclass(frozen=True)
class Target:
    """Where modifier-aware distillation expects the changed picture: v's own phrase, changed, and what it left unsaid.

        T(c) + push (T(c m) - T(c)) + residual (v - T(c)) + alone T(m), normalised

    c is one of the picture's `captions` nearest phrases, m a modifier, v the picture's gallery vector. `push=1,
    residual=0` is the changed phrase, T(c m). A larger residual keeps what c fails to say, and what it says wrongly
    too; a larger push weighs the words more against that. The pushed step is no longer than `reach` (0: as long as it
    is): some words move a vector far, others hardly, and the pictures that they ask for are about as far away. `alone`
    counts in what the modifier says without the phrase, which no wrong phrase can bend; `residual=1, push=0` leave it
    alone with the picture: the sum of both vectors.
    """

    residual: float = 0.5
    push: float = 1.0
    reach: float = 0.0
    captions: int = 1
    alone: float = 0.0

    def __post_init__(self) -> None:
        numbers = (self.residual, self.push, self.reach, self.alone)
        if not all(map(math.isfinite, numbers)):
            raise ConfigError(f"a target's residual, push, reach and alone must be finite, got {numbers}")
        if self.captions < 1:
            raise ConfigError(f"a target's captions must be at least 1, got {self.captions}")
        if min(self.push, self.reach, self.alone) < 0:
            raise ConfigError(
                "a target's push, reach and alone must not be negative, "
                f"got {self.push}, {self.reach} and {self.alone}"
            )


@dataclass(frozen=True)
class TrainSettings:
    """The method's choices and the optimiser's; docs/settings.md has ranges, docs/method.md formulas.

    `batch` is the contrastive batch, over all processes together; `accumulate` of them make one step of the optimiser.
    `temperature="auto"` is the one that the VL model was trained with (CLIP 0.01), 0.05 where its weights do not say.
    Weights of zero switch a loss off. `lar="auto"` is "matching" where the VL model has a matching encoder, else
    "local". `queue` is the number of other pictures' gallery vectors beside the batch's own in InfoNCE: constants, all
    known beforehand, so they are drawn from the whole set rather than from past batches.

    The defaults are what found most in docs/results.md. `gcd="info_nce", gcd_weight=1, modifier_weight=0` is the
    paper's method. Modifier-aware distillation pulls towards the targets that `Target` describes, by InfoNCE over the
    batch or by squared distance (`modifier="mse"`: goes on where the batch is separated already). `residual` and
    `pseudo_captions` make them; with several phrase banks `targets` can hold a `Target` for each, in their order: what
    one bank's phrases name fully another's leave unsaid.

    Validation asks with the picture alone; `keep` says whether the best weights by it are the result, or the last ones,
    for runs whose composed queries get better while that figure stands still.

    LAR reads pictures at `lar_side` pixels a side (0: the VL model's own): a ViT's cost goes with its square, or more.

    `modifier_batch` of each batch's pictures are asked with a modifier (0: all), which takes two texts out of three.

    `precision="auto"` is "bf16" where the processor or GPU multiplies such numbers itself, else "no".

    `brightness` b shows the query side half of its pictures with all values times a factor between 1 / (1 + b) and
    1 + b, the target unchanged: photographs come darker and brighter than the gallery's.
    """

    learner: LearnerConfig = field(default_factory=LearnerConfig)
    template: str = DEFAULT_TEMPLATE
    steps: int = 2_000
    batch: int = 128
    accumulate: int = 1
    seed: int = 0
    gcd: str = "mse"
    gcd_weight: float = 0.4
    temperature: float | str = AUTO
    learn_temperature: bool = False
    queue: int = 0
    lar: str = "auto"
    lar_weight: float = 0.25
    lar_batch: int = 32
    lar_side: int = 0
    caption_weight: float = 0.0
    modifier: str = "mse"
    modifier_weight: float = 1.0
    modifier_batch: int = 0
    residual: float = 0.5
    pseudo_captions: int = 2
    targets: tuple[Target, ...] = ()
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 100
    average: float = 0.998
    smallest_crop: float = 0.75
    flip: bool = True
    brightness: float = 0.0
    precision: str = AUTO
    validation: int = 512
    save_every: int = 200
    keep: str = "best"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("gcd", self.gcd, GCD_KINDS),
            ("lar", self.lar, LAR_KINDS),
            ("modifier", self.modifier, MODIFIER_KINDS),
            ("keep", self.keep, KEPT),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise ConfigError(
                    f"training setting {name}: expected one of {', '.join(known)}, got {value!r}"
                )
        if self.queue and self.gcd not in ("info_nce", "symmetric"):
            raise ConfigError(
                f"training setting queue: only info_nce and symmetric compare with other pictures, gcd is {self.gcd}"
            )
        for name, least in _MINIMA.items():
            if getattr(self, name) < least:
                raise ConfigError(
                    f"training setting {name} must be at least {least}, got {getattr(self, name)}"
                )
        for name in _NOT_NEGATIVE:
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"training setting {name} must not be negative, got {getattr(self, name)}")
        if self.lar_side and not MIN_LAR_SIDE <= self.lar_side <= MAX_LAR_SIDE:
            raise ConfigError(
                f"training setting lar_side must be 0 or {MIN_LAR_SIDE} to {MAX_LAR_SIDE}, got {self.lar_side}"
            )
        if self.seed > _MAX_SEED:
            raise ConfigError(f"training setting seed must be at most {_MAX_SEED}, got {self.seed}")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"training setting learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= self.average < 1:
            raise ConfigError(f"training setting average must be at least 0 and below 1, got {self.average}")
        if not 0 < self.smallest_crop <= 1:
            raise ConfigError(f"training setting smallest_crop must be in (0, 1], got {self.smallest_crop}")
        if self.temperature != AUTO and not (
            isinstance(self.temperature, (int, float)) and 0 < self.temperature < math.inf
        ):
            raise ConfigError(
                f"training setting temperature must be a positive number or {AUTO}, got {self.temperature!r}"
            )

    def temperature_for(self, own: float | None) -> float:
        """The temperature to train with, for a VL model whose own is `own` (None: its weights do not say)."""
        if isinstance(self.temperature, str):
            return UNKNOWN_TEMPERATURE if own is None else own
        return self.temperature
