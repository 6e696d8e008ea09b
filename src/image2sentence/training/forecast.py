"""How long a training run will take, measured on a few pictures and steps before the work begins."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn import functional

from image2sentence.encoders.protocols import Encoder
from image2sentence.training.dataset import Collection, encode_some
from image2sentence.training.models.query_model import QueryModel
from image2sentence.training.phrase_bank import PhraseBank
from image2sentence.training.settings import TrainSettings
from image2sentence.training.trainer import Trainer, held_out
from image2sentence.training.vl.base import VisionLanguageModel

SHORT = 50
"""Steps below which a run is not worth a forecast."""
_PICTURES, _STEPS, _HELD = 8, 2, 8


@dataclass(frozen=True)
class Forecast:
    """Seconds that a run's parts will take on this machine, as busy as it is: `encoding` the gallery vectors of
    `pictures` pictures, `training` of `steps` steps, and `validation`, all times that there is one together.
    """

    pictures: int
    steps: int
    encoding: float
    training: float
    validation: float

    @property
    def left(self) -> str:
        """What there is to do once the gallery vectors are there."""
        return f"about {spoken(self.training + self.validation)}"

    def __str__(self) -> str:
        parts = f"{self.steps:,} steps about {spoken(self.training)}, validation {spoken(self.validation)}"
        whole = self.encoding + self.training + self.validation
        if self.encoding:
            parts = f"gallery vectors of {self.pictures:,} pictures about {spoken(self.encoding)}, {parts}"
        return f"{parts}: about {spoken(whole)} in all (measured on {_STEPS} steps)"


def spoken(seconds: float) -> str:
    """A duration as people say it: "40 s", "12 min", "2 h 05 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def forecast(
    vl: VisionLanguageModel,
    encoder: Encoder | None,
    model: QueryModel,
    settings: TrainSettings,
    bank: PhraseBank | None,
    paths: Sequence[Path],
    out: Path,
    *,
    known: bool,
) -> Forecast | None:
    """Encodes a few of the pictures and trains a copy of `model` for a few steps; writes nothing.

    `known`: the gallery vectors are there already. None where too few of the pictures that it tries can be read.
    """
    some = list(paths[:: max(1, len(paths) // _PICTURES)])[:_PICTURES]
    started = time.monotonic()
    readable = encode_some(some, vl if encoder is None else encoder)
    each = (time.monotonic() - started) / len(some)
    if not readable:
        return None
    trial = _trial(vl, model, settings, bank, readable, out)
    step, look = _seconds_a_step(trial), _seconds_a_look(trial)
    held = len(held_out(len(paths), settings))
    looks = -(-settings.steps // settings.save_every)
    encoding = 0.0 if known else each * len(paths)
    return Forecast(len(paths), settings.steps, encoding, step * settings.steps, look * held * looks)


def _trial(
    vl: VisionLanguageModel,
    model: QueryModel,
    settings: TrainSettings,
    bank: PhraseBank | None,
    readable: Sequence[Path],
    out: Path,
) -> Trainer:
    """A trainer of a copy on enough pictures for a batch; what their vectors are makes no difference to the time."""
    count = settings.batch + 5 * _HELD
    paths = list(itertools.islice(itertools.cycle(readable), count))
    rows = torch.randn(count, vl.width, generator=torch.Generator().manual_seed(0))
    collection = Collection(paths, functional.normalize(rows, dim=-1), [], "trial")
    return Trainer(
        vl, copy.deepcopy(model), collection, replace(settings, validation=_HELD, queue=0), out, bank
    )


def _seconds_a_step(trial: Trainer) -> float:
    """With its pictures; the first step is not counted."""
    turns = trial.settings.accumulate
    batches = trial.loader.ahead(0, (_STEPS + 1) * turns)
    for step in range(_STEPS + 1):
        trial._step(step, [next(batches) for _ in range(turns)])
        if step == 0:
            started = time.monotonic()
    return (time.monotonic() - started) / _STEPS


def _seconds_a_look(trial: Trainer) -> float:
    started = time.monotonic()
    trial.validate()
    return (time.monotonic() - started) / _HELD
