"""What decides a training run's result, in one frozen record that is saved beside the weights."""

from __future__ import annotations

from dataclasses import dataclass, field

from image2sentence.config import LearnerConfig
from image2sentence.encoders.template import DEFAULT_TEMPLATE
from image2sentence.errors import ConfigError

GCD_KINDS = ("info_nce", "symmetric", "kl", "mse")
LAR_KINDS = ("matching", "local", "off")
TARGETS = ("shift", "caption")


@dataclass(frozen=True)
class TrainSettings:
    """The method's choices (METHOD marks them [choice]) and the optimiser's.

    Weights of zero switch a loss off. `modifier_weight=0` is the paper's method. `modifier_target` is what
    modifier-aware distillation pulls towards, c being the picture's pseudo-caption, m a modifier, v its gallery vector:
    "caption" is T(c m) as METHOD has it; "shift" is v + T(c m) - T(c), normalised, which keeps what c fails to say.
    """

    learner: LearnerConfig = field(default_factory=LearnerConfig)
    template: str = DEFAULT_TEMPLATE
    steps: int = 2_000
    batch: int = 128
    accumulate: int = 1
    seed: int = 0
    gcd: str = "info_nce"
    gcd_weight: float = 1.0
    temperature: float = 0.05
    learn_temperature: bool = False
    queue: int = 0
    lar: str = "matching"
    lar_weight: float = 0.25
    lar_batch: int = 32
    caption_weight: float = 0.0
    modifier_weight: float = 1.0
    modifier_target: str = "shift"
    pseudo_captions: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 100
    average: float = 0.998
    smallest_crop: float = 0.75
    flip: bool = True
    precision: str = "bf16"
    validation: int = 512
    save_every: int = 200

    def __post_init__(self) -> None:
        for name, value, known in (
            ("gcd", self.gcd, GCD_KINDS),
            ("lar", self.lar, LAR_KINDS),
            ("modifier_target", self.modifier_target, TARGETS),
            ("precision", self.precision, ("no", "bf16", "fp16")),
        ):
            if value not in known:
                raise ConfigError(
                    f"training setting {name}: expected one of {', '.join(known)}, got {value!r}"
                )
        for name in ("steps", "batch", "accumulate", "save_every", "lar_batch", "pseudo_captions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training setting {name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.smallest_crop <= 1 or not self.temperature > 0:
            raise ConfigError("smallest_crop must be in (0, 1] and temperature positive")
