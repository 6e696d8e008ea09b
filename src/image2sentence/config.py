"""The model folder's `config.json`: read strictly, written readably.

An unknown key, a missing key or a value of another type is an error that names it: a setting that is silently ignored
is a wrong result later.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from image2sentence.errors import ConfigError

FORMAT_VERSION = 1
LARGEST_SIDE = 4_096
"""Pixels a side that an encoder may want: 4 times what the largest in use do."""

T = TypeVar("T")


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes an encoder's input; it belongs to the weights.

    `size` is the square's side in pixels. `fit` is "squash" (both sides to `size`, as BLIP and SigLIP do) or "crop"
    (shorter side to `size`, then the middle, as CLIP does). Pixels are scaled to 0..1, then `(x - mean) / std`.
    """

    size: int
    fit: str = "squash"
    resample: str = "bicubic"
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self) -> None:
        _check(
            0 < self.size <= LARGEST_SIDE,
            f"preprocessing size must be 1 to {LARGEST_SIDE:,} pixels, got {self.size}",
        )
        _check(self.fit in ("squash", "crop"), f"preprocessing fit must be squash or crop, got {self.fit!r}")
        _check(
            self.resample in ("bilinear", "bicubic", "lanczos"),
            f"unknown resampling filter {self.resample!r}",
        )
        _check(len(self.mean) == len(self.std) == 3, "preprocessing mean and std need three values each")
        _check(min(self.std) > 0, f"preprocessing std must be positive, got {self.std}")


@dataclass(frozen=True)
class VLRecord:
    """The frozen vision-language model: its name or path as given, its revision, and what its weights hash to."""

    name: str
    revision: str
    kind: str
    fingerprint: str


@dataclass(frozen=True)
class LearnerConfig:
    """The adaptive token learner's options (METHOD: "Adaptive token learner").

    `tokens` is L. `softmax` is the axis of the selection's softmax: "places" (each token spreads over the places) or
    "tokens" (each place votes for the token that owns it). `blocks` is the number of relation blocks. `gates` lets a
    picture mask out tokens that it does not need. `kind` "mapper" is the single-word MLP of the Pic2Word / SEARLE
    kind: one token, mean pooling, no attention.
    """

    kind: str = "adaptive"
    tokens: int = 4
    softmax: str = "places"
    blocks: int = 2
    heads: int = 4
    width: int = 128
    gates: bool = False

    def __post_init__(self) -> None:
        _check(
            self.kind in ("adaptive", "mapper"), f"learner kind must be adaptive or mapper, got {self.kind!r}"
        )
        _check(self.tokens >= 1, f"a sentence needs at least one token, got {self.tokens}")
        _check(self.kind != "mapper" or self.tokens == 1, "the mapper gives one token: set tokens to 1")
        _check(
            self.softmax in ("places", "tokens"),
            f"softmax must be over places or tokens, got {self.softmax!r}",
        )
        for name, least in (("width", 1), ("heads", 1), ("blocks", 0)):
            value = getattr(self, name)
            _check(value >= least, f"{name} must be at least {least}, got {value}")
        _check(self.width % self.heads == 0, f"width {self.width} is not a multiple of heads {self.heads}")


@dataclass(frozen=True)
class GuideConfig:
    """How guiding phrases are used (`image2sentence.encoders.guide` has the formula).

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
        _check(self.temperature > 0, f"the guide's temperature must be positive, got {self.temperature}")
        _check(self.residual >= 0, f"the guide's residual must not be negative, got {self.residual}")
        _check(
            -1 <= self.low < self.high <= 1, f"expected -1 <= low < high <= 1, got {self.low} and {self.high}"
        )


@dataclass(frozen=True)
class ModelConfig:
    """Everything a model folder says about itself; `files` maps each file's relative path to its SHA-256.

    `fingerprint` is the identity of the vector space: the VL model's own, unless a gallery vector has something of the
    query side in it. `sentence_share`, 0 <= share < 1, is how much: `OnnxEncoder.encode_images` has the formula.
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
    sentence_share: float = 0.0
    files: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        check_sentence_share(self.sentence_share)

    @property
    def sentence_width(self) -> int:
        """Width of a sentence's rows: the word-embedding width, and one more (log gate) where there are gates."""
        return self.word_width + int(self.learner.gates)


def check_sentence_share(share: float) -> None:
    """Raises ConfigError unless 0 <= share < 1."""
    _check(
        0 <= share < 1, f"the sentence's share of a gallery vector must be 0 or more and below 1, got {share}"
    )


def read_json(path: Path, error: type[Exception] = ConfigError) -> Any:
    """A JSON file's content. Raises `error`, naming the file, if it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"expected a file at {path}, and there is none") from None
    except RecursionError:
        raise error(f"{path} is not readable JSON: it is nested too deeply") from None
    except (OSError, ValueError) as reason:  # besides what is no JSON: numbers of thousands of digits
        raise error(f"{path} is not readable JSON: {reason}") from reason


def from_dict(cls: type[T], values: Any, where: str) -> T:
    """A dataclass from plain JSON values, strictly. `where` names the place in error messages. Raises ConfigError."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected an object, got {type(values).__name__}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(fields)):
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known keys: {', '.join(sorted(fields))}")
    hints = typing.get_type_hints(cls)
    given = {name: _value(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    if missing := [name for name, f in fields.items() if name not in given and _required(f)]:
        raise ConfigError(f"{where}: missing key {missing[0]!r}")
    try:
        return cls(**given)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def to_dict(value: Any) -> dict[str, Any]:
    """The plain JSON values of a dataclass; `from_dict` reads them back."""
    result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(value)))
    return result


def _required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _value(next(a for a in arguments if a is not type(None)), value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_value(arguments[0], item, where) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return _as_float(value, where)
    expected = origin or hint
    if hint is Any:
        return value
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise ConfigError(f"{where}: expected {expected.__name__}, got {value!r}")
    return value


def _as_float(value: int, where: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(f"{where}: expected a number below 1.8e308, got a larger one") from None


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
