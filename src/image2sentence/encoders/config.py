"""The model folder's `config.json`: read strictly, written readably.

An unknown key, a missing key or a value of another type is an error that names it: a setting that is silently ignored
is a wrong result later.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from image2sentence.errors import ConfigError

FORMAT_VERSION = 1
MAX_SIDE = 4_096
"""Pixels a side that an encoder may want: 4 times what the largest in use do."""
MAX_WIDTH = 65_536
"""Numbers in a vector: 16 times what the largest models in use give."""
MAX_TOKENS = 1_000
"""Pseudo-words of a sentence."""
MAX_READ = 65_536
"""Tokens that a text encoder reads at most."""
MAX_NEIGHBOURS = 100
"""Guiding phrases that a query is composed with: each is a text to encode."""


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes an encoder's input; it belongs to the weights.

    `size` is the square's side in pixels. `fit` is "squash" (both sides to `size`, as BLIP and SigLIP do) or "crop"
    (shorter side to `size`, then the middle, as CLIP does). `resize`, where not 0, is what sides are resized to in
    place of `size`; the middle is cut out of it then. Pixels are scaled to 0..1, then `(x - mean) / std`.
    """

    size: int
    fit: str = "squash"
    resample: str = "bicubic"
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    resize: int = 0

    def __post_init__(self) -> None:
        _check(
            0 < self.size <= MAX_SIDE,
            f"preprocessing size must be 1 to {MAX_SIDE:,} pixels, got {self.size}",
        )
        _check(
            self.resize == 0 or self.size <= self.resize <= MAX_SIDE,
            f"preprocessing resize must be 0, or {self.size} (size) to {MAX_SIDE:,} pixels, got {self.resize}",
        )
        _check(self.fit in ("squash", "crop"), f"preprocessing fit must be squash or crop, got {self.fit!r}")
        _check(
            self.resample in ("bilinear", "bicubic", "lanczos"),
            f"unknown resampling filter {self.resample!r}",
        )
        _check(len(self.mean) == len(self.std) == 3, "preprocessing mean and std need three values each")
        _check_finite("preprocessing mean and std", *self.mean, *self.std)
        _check(min(self.std) > 0, f"preprocessing std must be positive, got {self.std}")

    def at_side(self, side: int) -> Preprocessing:
        """The same view of a picture at another `size`, in pixels."""
        return replace(self, size=side, resize=round(self.resize * side / self.size))


@dataclass(frozen=True)
class VLRecord:
    """The frozen vision-language model: its name or path as given, its revision, and what its weights hash to."""

    name: str
    revision: str
    kind: str
    fingerprint: str


@dataclass(frozen=True)
class LearnerConfig:
    """The adaptive token learner's options (docs/method.md, "Token learner").

    `tokens` is L. `softmax` is the axis of the selection's softmax: "tokens" (each place votes for the token that owns
    it) or "places" (each token spreads over the places). `blocks` is the number of relation blocks. `gates` lets a
    picture mask out tokens that it does not need. `kind` "mapper" is the single-word MLP of the Pic2Word / SEARLE
    kind: one token, mean pooling, no attention. Further kinds can be registered for training; the exported graph needs
    none of them.
    """

    kind: str = "adaptive"
    tokens: int = 4
    softmax: str = "tokens"
    blocks: int = 2
    heads: int = 4
    width: int = 128
    gates: bool = False

    def __post_init__(self) -> None:
        _check(
            self.kind.isascii() and self.kind.replace("-", "_").isidentifier(),
            f"learner kind must be a name such as adaptive or mapper, got {self.kind!r}",
        )
        _check(
            1 <= self.tokens <= MAX_TOKENS, f"a sentence has 1 to {MAX_TOKENS:,} tokens, got {self.tokens}"
        )
        _check(self.kind != "mapper" or self.tokens == 1, "the mapper gives one token: set tokens to 1")
        _check(
            self.softmax in ("places", "tokens"),
            f"softmax must be over places or tokens, got {self.softmax!r}",
        )
        for name, least, most in (("width", 1, MAX_WIDTH), ("heads", 1, MAX_WIDTH), ("blocks", 0, 1_000)):
            value = getattr(self, name)
            _check(value >= least, f"{name} must be at least {least}, got {value}")
            _check(value <= most, f"{name} must be at most {most:,}, got {value}")
        _check(self.width % self.heads == 0, f"width {self.width} is not a multiple of heads {self.heads}")


@dataclass(frozen=True)
class GuideConfig:
    """How guiding phrases are used (`image2sentence.encoders.phrase_guide` has the formula).

    `neighbours` is k, `temperature` that of the softmax over them. `low` and `high` are the dot products at which the
    phrases begin to count and count alone. `residual` is how much of what a phrase leaves unsaid of the picture is
    kept.
    """

    neighbours: int = 8
    temperature: float = 0.05
    low: float = 0.6
    high: float = 0.8
    residual: float = 0.3

    def __post_init__(self) -> None:
        _check(self.neighbours >= 1, f"a guide needs at least one neighbour, got {self.neighbours}")
        _check(
            self.neighbours <= MAX_NEIGHBOURS,
            f"a guide takes at most {MAX_NEIGHBOURS} neighbours, got {self.neighbours}",
        )
        _check_finite("the guide's temperature and residual", self.temperature, self.residual)
        _check(self.temperature > 0, f"the guide's temperature must be positive, got {self.temperature}")
        _check(self.residual >= 0, f"the guide's residual must not be negative, got {self.residual}")
        _check(
            -1 <= self.low < self.high <= 1, f"expected -1 <= low < high <= 1, got {self.low} and {self.high}"
        )


COMPOSITION_KINDS = ["sum", "slerp"]
"""Known compositions; `image2sentence.encoders.composition.register_composition` adds to them."""


@dataclass(frozen=True)
class CompositionConfig:
    """How a model without a light side composes pictures and words (`image2sentence.encoders.composition`).

    `kind` is "sum", "slerp" or a registered one, `weight` the share of the words, 0 to 1.
    """

    kind: str = "sum"
    weight: float = 0.5

    def __post_init__(self) -> None:
        _check(
            self.kind in COMPOSITION_KINDS,
            f"composition must be one of {', '.join(COMPOSITION_KINDS)}, got {self.kind!r}",
        )
        _check(0 <= self.weight <= 1, f"the words' weight must be 0 to 1, got {self.weight}")


@dataclass(frozen=True)
class FallbackConfig:
    """When the weighted sum takes the composed query's place (`image2sentence.encoders.sum_fallback` has the formula).

    `low` and `high` are the cosines of the words and the nearest modifier of training at which the composed query
    begins to count and counts alone. `weight`, 0 to 1, is the words' share of the sum.
    """

    low: float = 0.5
    high: float = 0.8
    weight: float = 0.4

    def __post_init__(self) -> None:
        _check(
            -1 <= self.low < self.high <= 1, f"expected -1 <= low < high <= 1, got {self.low} and {self.high}"
        )
        _check(0 <= self.weight <= 1, f"the words' weight must be 0 to 1, got {self.weight}")


@dataclass(frozen=True)
class OriginRecord:
    """The published files that a folder was adapted from: their layout, licence, what the model knows, and SHA-256."""

    layout: str
    license: str = ""
    knows: str = ""
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """Everything a model folder says about itself; `files` maps each file's relative path to its SHA-256.

    `fingerprint` is the identity of the vector space: the VL model's own, unless a gallery vector has something of the
    query side in it. `sentence_share`, 0 <= share < 1, is how much: `OnnxEncoder.encode_images` has the formula.
    `composition` is that of a model without a light side, whose folder has no `query_image`; `origin` is set where the
    folder was made of another program's graphs. `space_settings` is the digest of the settings that `fingerprint` was
    recorded for (`settings_digest`), and `checksum` that of config.json itself; folders of earlier versions have
    neither.
    """

    vl: VLRecord
    light: str
    learner: LearnerConfig
    template: str
    gallery_preprocessing: Preprocessing
    query_preprocessing: Preprocessing
    width: int
    word_width: int
    word_norm: float
    head_length: int
    max_length: int
    fingerprint: str
    query_fingerprint: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    guide: GuideConfig | None = None
    fallback: FallbackConfig | None = None
    sentence_share: float = 0.0
    composition: CompositionConfig | None = None
    origin: OriginRecord | None = None
    files: dict[str, str] = field(default_factory=dict)
    space_settings: str = ""
    format: int = FORMAT_VERSION
    checksum: str = ""

    def __post_init__(self) -> None:
        check_sentence_share(self.sentence_share)
        _check_finite("word_norm", self.word_norm)
        for name, least, most in (
            ("width", 1, MAX_WIDTH),
            ("word_width", 1, MAX_WIDTH),
            ("max_length", 1, MAX_READ),
            ("head_length", 0, self.max_length),
        ):
            value = getattr(self, name)
            _check(least <= value <= most, f"{name} must be {least} to {most:,}, got {value}")

    @property
    def sentence_width(self) -> int:
        """Width of a sentence's rows: the word-embedding width, and one more (log gate) where there are gates."""
        return self.word_width + int(self.learner.gates)


def settings_digest(config: ModelConfig) -> str:
    """SHA-256, hexadecimal, of the settings that gallery vectors depend on besides the weights."""
    settings: list[Any] = [asdict(config.gallery_preprocessing), config.sentence_share]
    if config.sentence_share:
        settings += [asdict(config.query_preprocessing), config.template]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def bind_fingerprint(config: ModelConfig) -> ModelConfig:
    """The config with another fingerprint where its settings are not those that the recorded one stands for."""
    digest = settings_digest(config)
    if config.space_settings in ("", digest):
        return config
    changed = hashlib.sha256(f"{config.fingerprint}\n{digest}".encode()).hexdigest()
    return replace(config, fingerprint=changed, space_settings=digest)


def check_sentence_share(share: float) -> None:
    """Raises ConfigError unless 0 <= share < 1."""
    _check(
        0 <= share < 1, f"the sentence's share of a gallery vector must be 0 or more and below 1, got {share}"
    )


def _check_finite(what: str, *values: float) -> None:
    _check(all(map(math.isfinite, values)), f"{what} must be finite, got {values}")


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
