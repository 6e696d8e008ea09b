"""Trains the query side on unlabeled pictures (docs/method.md, "Losses").

One step: augmented pictures -> sentences; GCD pulls the text vector of "prompt + sentence" to the picture's own gallery
vector; LAR asks the matching encoder whether the sentence fits the picture's patches and not a near miss's; and
modifier-aware distillation pulls "sentence + modifier" to where the frozen model says the changed picture would be.
"""

from __future__ import annotations

import json
import math
import platform
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import image2sentence
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.errors import ConfigError, ModelError
from image2sentence.images import load_image
from image2sentence.strict_json import to_dict
from image2sentence.training import checkpoint as state
from image2sentence.training import losses
from image2sentence.training import phrase_bank as phrases
from image2sentence.training.dataset import Augmentation, Batch, BatchLoader, Collection
from image2sentence.training.distributed import Processes
from image2sentence.training.lowered import lowered
from image2sentence.training.models.query_model import QueryModel
from image2sentence.training.objective import Draws, Objective
from image2sentence.training.settings import AUTO, TrainSettings
from image2sentence.training.vl.base import VisionLanguageModel

_PRECISIONS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_LATER = {"lar_side": 0, "modifier_batch": 0}  # what runs had before these settings were known


@dataclass
class Progress:
    """Where a run stands: the next step, and the best validation recall so far."""

    step: int = 0
    best: float = -1.0
    seconds: float = 0.0


class Trainer:
    """Runs the steps, validates, saves; `run()` goes on from `out/state.safetensors` if it is there.

    Of several processes, each has a Trainer of its own with the same arguments; only the main one validates and writes.
    """

    def __init__(
        self,
        vl: VisionLanguageModel,
        model: QueryModel,
        pictures: Collection,
        settings: TrainSettings,
        out: Path,
        bank: phrases.PhraseBank | None = None,
        processes: Processes | None = None,
        begun: Mapping[str, Any] | None = None,
    ) -> None:
        """`begun` says what `model` is and what its weights were; a run goes on only where it says the same."""
        if settings.modifier_weight and bank is None:
            raise ConfigError(
                "modifier-aware distillation needs a phrase bank: give one, or set modifier_weight to 0"
            )
        self.processes = processes or Processes()
        self.device = self.processes.device
        self.vl, self.settings, self.out = vl.to(self.device), settings, out
        self.model = self.processes.synchronised(model.to(self.device))
        self.processes.share(self.model)
        self.objective = Objective(vl, settings, bank, self.processes).to(self.device)
        self.pictures = pictures
        self._begun = {"words": bank.digest if bank else None, **(begun or {})}
        self.held = held_out(len(pictures.paths), settings)
        self.kept = np.setdiff1d(np.arange(len(pictures.paths)), self.held)
        self.vectors = pictures.vectors.to(self.device)
        self.pseudo = bank.nearest(self.vectors, bank.captions) if bank else None
        self.optimizer = torch.optim.AdamW(self._groups(), lr=settings.learning_rate, betas=(0.9, 0.98))
        self.precision = _PRECISIONS[precision_for(settings.precision, self.device)]
        self.frozen = lowered(self.vl, self.device, self.precision)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.average = state.Average(self.model, settings.average)
        self.progress = Progress()
        self.loader = self._loader()

    def run(self) -> dict[str, Any]:
        """Trains to the last step and returns the training record; the averaged weights are left in the model."""
        self._resume()
        log = (
            _Log(self.out, self.progress.step, self.settings, self.loader.batch)
            if self.processes.main
            else None
        )
        started, before = time.monotonic(), self.progress.seconds
        first, last = self.progress.step, self.settings.steps
        turns = self.settings.accumulate
        batches = self.loader.ahead(first * turns, last * turns, self.processes.part)
        for step in range(first, last):
            values = self._step(step, [next(batches) for _ in range(turns)])
            self.average.update(self.model, step)
            self.progress.seconds = before + time.monotonic() - started
            self.progress.step = step + 1
            if log is not None:
                log.step(step, values, self.progress.best)
                if (step + 1) % self.settings.save_every == 0 or step + 1 == last:
                    log.validation(step + 1, self._checkpoint())
        if log is not None:
            log.close()
        self.processes.wait()
        best, _ = state.load_tensors(self.out / "best.safetensors")
        self.model.load_state_dict(best)
        return self.record()

    def record(self) -> dict[str, Any]:
        """What the checkpoint says of its training."""
        return {
            "settings": to_dict(self.settings),
            "pictures": len(self.kept),
            "validation_pictures": len(self.held),
            "unreadable": len(self.pictures.unreadable),
            "data_fingerprint": self.pictures.fingerprint,
            "validation_recall@1": round(self.progress.best, 4),
            "steps": self.progress.step,
            "seconds": round(self.progress.seconds, 1),
            "device": str(self.device),
            "processes": self.processes.count,
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "image2sentence": image2sentence.__version__,
            },
        }

    # --- one step ---

    def _step(self, step: int, batches: Sequence[Batch]) -> dict[str, float]:
        """One step of the optimiser; the mean of each named loss over the batches."""
        draws = self._draws(step)
        for part in self.optimizer.param_groups:
            part["lr"] = self.settings.learning_rate * schedule(
                step, self.settings.steps, self.settings.warmup
            )
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for batch in batches:
            for name, value in self._backward(batch, draws, len(batches)).items():
                sums[name] = sums.get(name, 0.0) + value / len(batches)
        self._check_finite(step, sums)
        self._move()
        return sums

    def _draws(self, step: int) -> Draws:
        """The step's random choices. Each process drops out units of its own; all else is the same for all."""
        seed = self.settings.seed * 1_000_003 + step
        torch.manual_seed(seed + (self.processes.index << 40))
        generator = torch.Generator(self.device).manual_seed(seed)
        return Draws(random.Random(f"{self.settings.seed}/{step}"), generator)

    def _backward(self, batch: Batch, draws: Draws, turns: int) -> dict[str, float]:
        """Adds one of `turns` batches' gradients; its named losses."""
        enabled = self.precision != torch.float32
        with self.frozen.used():
            with torch.autocast(self.device.type, self.precision, enabled=enabled):
                named = self._losses(batch, draws)
            weights = self.objective.weights()
            total = torch.stack([weights[name] * value for name, value in named.items()]).sum()
            self.scaler.scale(total / turns).backward()
        return {name: float(value.detach()) for name, value in named.items()}

    def _check_finite(self, step: int, values: dict[str, float]) -> None:
        if not all(map(math.isfinite, values.values())):
            raise ModelError(
                f"training diverged: the losses of step {step} are {values}. {self.out} holds the last good save; "
                "try a smaller learning_rate, or precision no"
            )

    def _move(self) -> None:
        """Steps along the gradients' mean over all processes; batch norms' running statistics are averaged likewise."""
        trained = self._trained()
        self.processes.average(p.grad for p in trained if p.grad is not None)
        self.processes.average(self.model.buffers())
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(trained, 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _losses(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        rows = torch.from_numpy(self.kept)[batch.index].to(self.device)
        sentence = self.model(batch.light.to(self.device).contiguous(memory_format=torch.channels_last))
        patches = None
        if len(batch.clean):
            with torch.no_grad():
                resized = bool(self.settings.lar_side)
                patches = self.vl.encode_images(batch.clean.to(self.device), resized).patches
        pseudo = None if self.pseudo is None else self.pseudo[rows]
        queue = self._queue(rows, draws.rng)
        named: dict[str, Tensor] = self.objective(sentence, self.vectors[rows], pseudo, patches, draws, queue)
        return named

    def _queue(self, rows: Tensor, rng: random.Random) -> Tensor | None:
        """Gallery vectors of `settings.queue` training pictures that are not in the batch; None for an empty queue."""
        others = np.setdiff1d(self.kept, rows.cpu().numpy())
        wanted = min(self.settings.queue, len(others))
        if not wanted:
            return None
        chosen = np.random.default_rng(rng.getrandbits(32)).choice(others, wanted, replace=False)
        return self.vectors[torch.from_numpy(chosen).to(self.device)]

    # --- around the steps ---

    @torch.no_grad()
    def validate(self) -> float:
        """Recall@1 in percent from a held-out picture's sentence to its own gallery vector, among the held-out.

        A copy of the picture counts as the picture.
        """
        current = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average.tensors)
        self.model.eval()
        queries = [
            self._encode_held(block) for block in np.array_split(self.held, max(1, len(self.held) // 64))
        ]
        self.model.load_state_dict(current)
        own = self.vectors[torch.from_numpy(self.held)]
        nearest = (torch.cat(queries) @ own.T).argmax(-1)
        found = (own[nearest] * own).sum(-1) > losses.SAME  # itself, or a copy of it
        return 100 * float(found.float().mean())

    def _encode_held(self, block: np.ndarray) -> Tensor:
        size = self.model.preprocessing.size
        images = [load_image(self.pictures.paths[i], at_least=size) for i in block]
        sentence = self.model(torch.from_numpy(to_pixels(images, self.model.preprocessing)).to(self.device))
        template = self.objective.template
        return self.vl.encode_rows(
            self.vl.compose(sentence.tokens, sentence.gates, [""] * len(block), template)
        )

    def _checkpoint(self) -> float:
        """Validates and saves; the validation recall."""
        recall = self.validate()
        if recall >= self.progress.best or self.settings.keep == "last":
            self.progress.best = recall
            state.save_tensors(
                self.out / "best.safetensors", self.average.tensors, {"step": self.progress.step}
            )
        tensors = state.prefixed("model", self.model.state_dict()) | state.prefixed(
            "average", self.average.tensors
        )
        tensors |= state.prefixed("optimizer", state.optimizer_tensors(self.optimizer))
        tensors |= state.prefixed("objective", self.objective.state_dict())
        record = self._identity() | vars(self.progress) | {"scaler": self.scaler.state_dict()}
        state.save_tensors(self.out / "state.safetensors", tensors, record)
        return recall

    def _resume(self) -> None:
        path = self.out / "state.safetensors"
        if not path.is_file():
            return
        tensors, record = state.load_tensors(path)
        record["settings"] = {
            "lar_side": 0,
            "modifier_batch": 0,
            **record.get("settings", {}),
        }  # of runs before these were known
        for key, value in self._identity().items():
            if record.get(key) != value:
                raise ConfigError(
                    f"{path} belongs to another run (its {key} differs): choose another --out, or delete it"
                )
        try:
            self.model.load_state_dict(state.group("model", tensors))
            self.objective.load_state_dict(state.group("objective", tensors))
        except RuntimeError as error:
            raise ConfigError(
                f"{path} belongs to another run (its weights have other shapes): choose another --out, or delete it"
            ) from error
        self.average.tensors = {k: v.to(self.device) for k, v in state.group("average", tensors).items()}
        state.load_optimizer(self.optimizer, state.group("optimizer", tensors))
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(record["scaler"])
        self.progress = Progress(**{name: record[name] for name in vars(Progress())})

    def _identity(self) -> dict[str, Any]:
        settings = json.loads(json.dumps(to_dict(self.settings)))
        settings["precision"] = precision_for(self.settings.precision, self.device)
        record = {"settings": settings, "vl": self.vl.record.fingerprint, "data": self.pictures.fingerprint}
        return record | self._begun

    def _loader(self) -> BatchLoader:
        s, count = self.settings, self.processes.count
        lar = self.objective.lar_kind()
        batch = min(
            s.batch, len(self.kept) // count * count
        )  # no picture twice in a batch, where there are few
        clean = 0 if lar == "off" else min(s.lar_batch, batch)
        for name, rows in (("batch", batch), ("lar_batch", clean), ("modifier_batch", s.modifier_batch)):
            if rows % count:
                raise ConfigError(
                    f"training setting {name}: {rows} pictures cannot be shared by {count} processes"
                )
        return BatchLoader(
            [self.pictures.paths[i] for i in self.kept],
            self.model.preprocessing,
            self.vl.preprocessing.at_side(s.lar_side or self.vl.preprocessing.size),
            Augmentation(s.smallest_crop, s.flip, s.brightness),
            batch,
            clean,
            s.seed,
            same_crop=lar == "local",
        )

    def _trained(self) -> list[nn.Parameter]:
        return [p for m in (self.model, self.objective) for p in m.parameters() if p.requires_grad]

    def _groups(self) -> list[dict[str, Any]]:
        """Weight decay for matrices and kernels only."""
        trained = self._trained()
        matrices = [p for p in trained if p.ndim > 1]
        rest = [p for p in trained if p.ndim <= 1]
        return [
            {"params": matrices, "weight_decay": self.settings.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]


class _Log:
    """A run's progress as a person follows it: a bar on the terminal, curves for TensorBoard."""

    def __init__(self, out: Path, first: int, settings: TrainSettings, batch: int) -> None:
        self._writer = SummaryWriter(out / "tensorboard")
        self._bar = tqdm(total=settings.steps, initial=first, desc="training", unit=" steps")
        self._first, self._pictures, self._started = first, batch * settings.accumulate, time.monotonic()

    def step(self, step: int, values: dict[str, float], best: float) -> None:
        """One step's losses, and the rate since the run was started."""
        rate = (step + 1 - self._first) * self._pictures / (time.monotonic() - self._started)
        for name, value in values.items():
            self._writer.add_scalar(f"loss/{name}", value, step)
        self._writer.add_scalar("pictures_per_second", rate, step)
        shown = {name: f"{value:.3f}" for name, value in values.items()}
        rates = {"pictures/s": f"{rate:.0f}"}
        if best >= 0:  # validated already
            rates["recall@1"] = f"{best:.1f}"
        self._bar.set_postfix({**shown, **rates}, refresh=False)
        self._bar.update()

    def validation(self, step: int, recall: float) -> None:
        """The validation recall after `step` steps."""
        self._writer.add_scalar("validation/recall@1", recall, step)

    def close(self) -> None:
        """Writes what is left."""
        self._bar.close()
        self._writer.close()


def precision_for(asked: str, device: torch.device) -> str:
    """A setting's `precision` on this device: "auto" is "bf16" where its own instructions multiply such numbers."""
    if asked != AUTO:
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "no"


def held_out(pictures: int, settings: TrainSettings) -> NDArray[np.int64]:
    """Which of so many pictures are not trained on, but judged on: `validation` of them, and at most one in five."""
    count = min(settings.validation, pictures // 5)
    if count < 1:
        raise ConfigError(f"{pictures} pictures are too few to train on: five at least")
    return np.sort(np.random.default_rng((settings.seed, 1)).permutation(pictures)[:count])


def schedule(step: int, steps: int, warmup: int) -> float:
    """The learning rate's factor: linear warm-up, then a cosine down to one hundredth."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
