"""Distillation of a light text encoder from the frozen one.

It takes pictures and words that need no labels and no pairs.

A batch is half composed queries (the sentence of a picture, and words) and half texts alone. The teacher is the frozen
text encoder on the same input; the student is pulled to its vectors one by one (cosine) and among the batch's others
(InfoNCE), which keeps apart what the teacher keeps apart.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from image2sentence.encoders.model_folder import TEXT_WEIGHTS, ModelFolder
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.encoders.template import Template
from image2sentence.errors import ConfigError, ModelError
from image2sentence.strict_json import from_dict, to_dict
from image2sentence.training import checkpoint as state
from image2sentence.training import losses
from image2sentence.training.models.query_model import QueryModel
from image2sentence.training.models.text_student import LightText, LightTextConfig
from image2sentence.training.trainer import schedule
from image2sentence.training.vl.base import VisionLanguageModel

VALIDATION = 256
_BATCH = 64


@dataclass(frozen=True)
class DistillSettings:
    """`share` of a batch are composed queries; `temperature` and `contrast` are InfoNCE's and its weight."""

    text: LightTextConfig = field(default_factory=LightTextConfig)
    steps: int = 3_000
    batch: int = 128
    share: float = 0.5
    contrast: float = 0.5
    temperature: float = 0.05
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 100
    average: float = 0.995
    precision: str = "bf16"
    seed: int = 0
    save_every: int = 200

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.save_every) < 1 or not 0 <= self.share <= 1:
            raise ConfigError("steps, batch and save_every must be at least 1, and share between 0 and 1")
        if self.precision not in ("no", "bf16"):
            raise ConfigError(f"precision: expected no or bf16, got {self.precision!r}")
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be positive, got {self.temperature}")


@dataclass(frozen=True)
class Material:
    """`tokens` (n, L, w) and `gates` (n, L) of n pictures' sentences; phrases and modifiers, unpaired."""

    tokens: Tensor
    gates: Tensor
    phrases: Sequence[str]
    modifiers: Sequence[str]


@dataclass(frozen=True)
class Asked:
    """A batch of queries: a picture's number for each, -1 for words alone, and the words."""

    pictures: list[int]
    texts: list[str]


@torch.no_grad()
def collect_sentences(model: QueryModel, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
    """Tokens (n, L, w) and gates (n, L) of RGB pictures."""
    model.eval()
    sentences = [
        model(torch.from_numpy(to_pixels(images[start : start + _BATCH], model.preprocessing)))
        for start in range(0, len(images), _BATCH)
    ]
    return torch.cat([s.tokens for s in sentences]), torch.cat([s.gates for s in sentences])


class Distiller:
    """Trains a `LightText`; `run()` goes on from `out/text_state.safetensors` if it is there."""

    def __init__(
        self,
        vl: VisionLanguageModel,
        template: str,
        material: Material,
        settings: DistillSettings,
        out: Path,
        identity: str,
    ) -> None:
        """`identity` tells one run's material from another's, so that no run goes on with what is not its own."""
        torch.manual_seed(settings.seed)
        self.vl, self.template, self.material = vl, Template.parse(template), material
        self.settings, self.identity = settings, identity
        self.kept = out / "text_state.safetensors"
        self.student = LightText(settings.text, vl)
        self.average = state.Average(self.student, settings.average)
        self.optimizer = torch.optim.AdamW(self._groups(), lr=settings.learning_rate, betas=(0.9, 0.98))
        held = min(VALIDATION, len(material.tokens) // 5)
        order = random.Random(settings.seed).sample(range(len(material.tokens)), len(material.tokens))
        self.held, self.trained_on = order[:held], order[held:]
        if not held:
            raise ConfigError(f"{len(material.tokens)} pictures are too few to distil with: five at least")

    def run(self) -> dict[str, Any]:
        """Trains to the last step, leaves the averaged weights in `student`, and returns the record."""
        (first, before), started = self._resume(), time.monotonic()
        bar = tqdm(range(first, self.settings.steps), desc="distilling text", unit=" steps", disable=None)
        for step in bar:
            loss = self._step(step)
            self.average.update(self.student, step)
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            if (step + 1) % self.settings.save_every == 0 or step + 1 == self.settings.steps:
                self._save(step + 1, before + time.monotonic() - started)
        self.student.load_state_dict(self.average.tensors)
        self.student.eval().requires_grad_(False)
        seconds = round(before + time.monotonic() - started, 1)
        return {
            "settings": to_dict(self.settings),
            "pictures": len(self.trained_on),
            "phrases": len(self.material.phrases),
            "modifiers": len(self.material.modifiers),
            "seconds": seconds,
            "validation": self.validate(),
        }

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Cosine to the teacher on pictures kept out of training, and recall@1 from student to teacher among them."""
        rng = random.Random(self.settings.seed + 1)
        modifiers = [rng.choice(self.material.modifiers) for _ in self.held]
        taught, learned = self._vectors(Asked(self.held, modifiers))
        nearest = (learned @ taught.T).argmax(1) == torch.arange(len(taught))
        return {
            "cosine": round(float((taught * learned).sum(-1).mean()), 5),
            "recall@1": round(100 * float(nearest.float().mean()), 2),
        }

    def _step(self, step: int) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * schedule(
                step, self.settings.steps, self.settings.warmup
            )
        taught, learned = self._vectors(self._draw(random.Random(f"{self.settings.seed}/{step}")))
        cosine = 1 - (taught * learned).sum(-1).mean()
        contrast = losses.info_nce(learned, taught, torch.tensor(self.settings.temperature))
        loss = cosine + self.settings.contrast * contrast
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        return float(loss.detach())

    def _draw(self, rng: random.Random) -> Asked:
        """Queries as people ask them: mostly one change, sometimes none, two, or a whole description."""
        composed = round(self.settings.share * self.settings.batch)
        pictures = [rng.choice(self.trained_on) for _ in range(composed)]
        texts = [self._words(rng, alone=False) for _ in range(composed)]
        alone = [self._words(rng, alone=True) for _ in range(self.settings.batch - composed)]
        return Asked(pictures + [-1] * len(alone), texts + alone)

    def _words(self, rng: random.Random, alone: bool) -> str:
        phrase, first, second = (
            rng.choice(self.material.phrases),
            *rng.choices(self.material.modifiers, k=2),
        )
        kinds = (
            (phrase, f"{phrase} {first}", first) if alone else ("", first, first, f"{first} {second}", phrase)
        )
        return rng.choice(kinds)

    def _vectors(self, asked: Asked) -> tuple[Tensor, Tensor]:
        """The teacher's and the student's vectors: rows of composed queries, then of texts alone."""
        composed = [picture for picture in asked.pictures if picture >= 0]
        texts, alone = asked.texts[: len(composed)], asked.texts[len(composed) :]
        inputs = []
        if composed:
            tokens, gates = self.material.tokens[composed].float(), self.material.gates[composed].float()
            inputs.append(self.vl.compose(tokens, gates, texts, self.template))
        if alone:
            inputs.append(self.vl.words(alone))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.precision == "bf16"):
            with torch.no_grad():
                taught = torch.cat([self.vl.encode_words(words) for words in inputs])
            learned = torch.cat([self.student.read(words) for words in inputs])
        return taught.float(), learned.float()

    def _save(self, step: int, seconds: float) -> None:
        tensors = state.prefixed("student", self.student.state_dict())
        tensors |= state.prefixed("average", self.average.tensors)
        tensors |= state.prefixed("optimizer", state.optimizer_tensors(self.optimizer))
        record = {"settings": to_dict(self.settings), "identity": self.identity}
        state.save_tensors(self.kept, tensors, record | {"step": step, "seconds": seconds})

    def _resume(self) -> tuple[int, float]:
        """The next step and the seconds spent so far. Raises ConfigError where the state is another run's."""
        if not self.kept.is_file():
            return 0, 0.0
        tensors, record = state.load_tensors(self.kept)
        if (record.get("settings"), record.get("identity")) != (to_dict(self.settings), self.identity):
            raise ConfigError(
                f"{self.kept} belongs to another run (other settings, pictures, words or model): choose another "
                "--out, or delete it"
            )
        self.student.load_state_dict(state.group("student", tensors))
        self.average.tensors = state.group("average", tensors)
        state.load_optimizer(self.optimizer, state.group("optimizer", tensors))
        return int(record["step"]), float(record["seconds"])

    def _groups(self) -> list[dict[str, Any]]:
        """Weight decay for matrices only."""
        parameters = list(self.student.parameters())
        return [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.settings.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]


def require_room(
    vl: VisionLanguageModel, tokens: int, phrases: Sequence[str], modifiers: Sequence[str]
) -> None:
    """Raises DataError where the longest texts that a batch may draw do not fit the text encoder beside a sentence."""
    longest, modifier = (
        max(texts, key=lambda t: len(vl.tokenizer.encode(t).ids)) for texts in (phrases, modifiers)
    )
    vl.tokenize([f"{longest} {modifier}", f"{modifier} {modifier}"], tokens)


def restore_text(folder: ModelFolder, vl: VisionLanguageModel) -> LightText | None:
    """The light text encoder of a model folder, None where it has none. Raises ModelError if it is damaged."""
    if TEXT_WEIGHTS not in folder.config.files:
        return None
    folder.read(TEXT_WEIGHTS)
    tensors, record = state.load_tensors(folder.path / TEXT_WEIGHTS)
    student = LightText(from_dict(LightTextConfig, record.get("text"), TEXT_WEIGHTS), vl)
    try:
        student.load_state_dict({key: value.float() for key, value in tensors.items()})
    except RuntimeError as error:
        raise ModelError(f"{folder.path / TEXT_WEIGHTS} does not fit its record: {error}") from error
    return student.requires_grad_(False).eval()
