"""Trains the query side on unlabeled pictures (METHOD: "Losses", "Beyond the paper").

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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import image2sentence
from image2sentence.config import to_dict
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.encoders.template import Template
from image2sentence.errors import ConfigError
from image2sentence.images import load_image
from image2sentence.training import losses, phrases, state
from image2sentence.training.pictures import Augmentation, Batch, BatchLoader, Collection
from image2sentence.training.query_model import QueryModel
from image2sentence.training.settings import TrainSettings
from image2sentence.training.token_learner import Sentence
from image2sentence.training.vl.base import VisionLanguageModel, Words


class Objective(nn.Module):
    """The losses of one batch; holds the learned temperature, and the frozen model outside of its own parameters."""

    def __init__(
        self, vl: VisionLanguageModel, settings: TrainSettings, bank: phrases.PhraseBank | None
    ) -> None:
        super().__init__()
        self._vl, self.settings, self.bank = [vl], settings, bank
        self.template = Template.parse(settings.template)
        start = torch.tensor(math.log(settings.temperature))
        self.log_temperature = nn.Parameter(start, requires_grad=settings.learn_temperature)

    @property
    def vl(self) -> VisionLanguageModel:
        """The frozen model."""
        return self._vl[0]

    def forward(
        self,
        sentence: Sentence,
        gallery: Tensor,
        pseudo: Tensor | None,
        patches: Tensor | None,
        rng: random.Random,
        queue: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Named losses, unweighted.

        `gallery` (B, d); `pseudo` (B, k) bank indices; `patches` (b, N, C); `queue` (Q, d) others' gallery vectors.
        """
        settings = self.settings
        queries = self._query(sentence, [""] * len(gallery))
        result = {"gcd": self._gcd(queries, gallery, queue)}
        if patches is not None:
            result["lar"] = self._lar(sentence, gallery, queries, patches)
        if pseudo is not None and settings.caption_weight:
            result["caption"] = losses.mean_squared(queries, self._captions(pseudo, rng)[1])
        if pseudo is not None and settings.modifier_weight:
            result["modifier"] = self._modifier(sentence, gallery, pseudo, rng)
        return result

    def weights(self) -> dict[str, float]:
        """Each named loss's weight."""
        s = self.settings
        return {
            "gcd": s.gcd_weight,
            "lar": s.lar_weight,
            "caption": s.caption_weight,
            "modifier": s.modifier_weight,
        }

    def _query(self, sentence: Sentence, texts: list[str]) -> Tensor:
        return self.vl.encode_words(
            self.vl.compose(sentence.tokens, sentence.gates, texts, self.template)
        ).float()

    def lar_kind(self) -> str:
        """What `lar` comes to for this VL model: matching, local or off."""
        if self.settings.lar != "auto":
            return self.settings.lar if self.settings.lar_weight else "off"
        return ("matching" if self.vl.has_matching else "local") if self.settings.lar_weight else "off"

    def _gcd(self, queries: Tensor, gallery: Tensor, queue: Tensor | None) -> Tensor:
        temperature = self.log_temperature.exp()
        if self.settings.gcd == "mse":
            return losses.mean_squared(queries, gallery)
        if self.settings.gcd == "kl":
            return losses.similarity_kl(queries, gallery, temperature)
        return losses.info_nce(
            queries, gallery, temperature, symmetric=self.settings.gcd == "symmetric", queue=queue
        )

    def _lar(self, sentence: Sentence, gallery: Tensor, queries: Tensor, patches: Tensor) -> Tensor:
        if self.lar_kind() == "local":
            return self._local(sentence, patches)
        count = len(patches)
        words = self.vl.compose(sentence.tokens[:count], sentence.gates[:count], [""] * count, self.template)
        wrong = losses.hard_negatives(queries[:count], gallery[:count], self.settings.temperature)
        both = Words(torch.cat([words.embeddings] * 2), torch.cat([words.bias] * 2))
        logits = self.vl.match(both, torch.cat([patches, patches[wrong]])).float()
        return losses.matching(logits[:count], logits[count:])

    def _local(self, sentence: Sentence, patches: Tensor) -> Tensor:
        count, places = len(patches), self.vl.place_vectors(patches)
        attention = losses.resize_attention(sentence.attention[:count], math.isqrt(places.shape[1]))
        words = self.vl.word_vectors(sentence.tokens[:count])
        return losses.local_alignment(words, places, attention, self.settings.temperature)

    def _captions(self, pseudo: Tensor, rng: random.Random) -> tuple[list[str], Tensor]:
        """One of each picture's pseudo-captions, and their text vectors."""
        assert self.bank is not None
        chosen = [int(row[rng.randrange(len(row))]) for row in pseudo]
        return [self.bank.phrases[i] for i in chosen], self.bank.vectors[chosen]

    def _modifier(self, sentence: Sentence, gallery: Tensor, pseudo: Tensor, rng: random.Random) -> Tensor:
        assert self.bank is not None
        modifiers = phrases.draw(self.bank.modifiers, len(gallery), rng)
        captions, plain = self._captions(pseudo, rng)
        with torch.no_grad():
            changed = self.vl.encode_words(
                self.vl.words([f"{c} {m}" for c, m in zip(captions, modifiers, strict=True)])
            ).float()
            target = functional.normalize(changed + self.settings.residual * (gallery - plain), dim=-1)
        return losses.info_nce(self._query(sentence, modifiers), target, self.log_temperature.exp())


@dataclass
class Progress:
    """Where a run stands: the next step, and the best validation recall so far."""

    step: int = 0
    best: float = -1.0
    seconds: float = 0.0


class Trainer:
    """Runs the steps, validates, saves; `run()` goes on from `out/state.safetensors` if it is there."""

    def __init__(
        self,
        vl: VisionLanguageModel,
        model: QueryModel,
        pictures: Collection,
        settings: TrainSettings,
        out: Path,
        bank: phrases.PhraseBank | None = None,
        accelerator: Accelerator | None = None,
    ) -> None:
        if settings.modifier_weight and bank is None:
            raise ConfigError(
                "modifier-aware distillation needs a phrase bank: give one, or set modifier_weight to 0"
            )
        self.accelerator = accelerator or Accelerator(mixed_precision=settings.precision)
        self.vl, self.model, self.settings, self.out = vl, model, settings, out
        self.device = self.accelerator.device
        self.vl.to(self.device)
        self.objective = Objective(vl, settings, bank).to(self.device)
        self.pictures = pictures
        self.held = self._hold_out()
        self.kept = np.setdiff1d(np.arange(len(pictures.paths)), self.held)
        self.vectors = pictures.vectors.to(self.device)
        self.pseudo = bank.nearest(self.vectors, settings.pseudo_captions) if bank else None
        self.optimizer = torch.optim.AdamW(self._groups(), lr=settings.learning_rate, betas=(0.9, 0.98))
        self.average = state.Average(model.to(self.device), settings.average)
        self.progress = Progress()
        self.loader = self._loader()

    def run(self) -> dict[str, Any]:
        """Trains to the last step and returns the training record; the averaged weights are left in the model."""
        self._resume()
        writer = SummaryWriter(self.out / "tensorboard")
        started, before = time.monotonic(), self.progress.seconds
        first, last = self.progress.step, self.settings.steps
        bar = tqdm(total=last, initial=first, desc="training", unit=" steps")
        turns = self.settings.accumulate
        batches = self.loader.ahead(first * turns, last * turns)
        for step in range(first, last):
            values = self._step(step, [next(batches) for _ in range(turns)])
            self.average.update(self.model, step)
            self.progress.seconds = before + time.monotonic() - started
            self.progress.step = step + 1
            self._report(writer, bar, step, values, started, first)
            if (step + 1) % self.settings.save_every == 0 or step + 1 == last:
                self._checkpoint(writer)
        bar.close()
        writer.close()
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
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "image2sentence": image2sentence.__version__,
            },
        }

    # --- one step ---

    def _step(self, step: int, batches: Sequence[Batch]) -> dict[str, float]:
        torch.manual_seed(self.settings.seed * 1_000_003 + step)
        rng = random.Random(f"{self.settings.seed}/{step}")
        for part in self.optimizer.param_groups:
            part["lr"] = self.settings.learning_rate * schedule(
                step, self.settings.steps, self.settings.warmup
            )
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for batch in batches:
            with self.accelerator.autocast():
                named = self._losses(batch, rng)
                weights = self.objective.weights()
                total = sum((weights[name] * value for name, value in named.items()), torch.zeros(()))
            self.accelerator.backward(total / len(batches))
            for name, value in named.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / len(batches)
        nn.utils.clip_grad_norm_(self._trained(), 1.0)
        self.optimizer.step()
        return sums

    def _losses(self, batch: Batch, rng: random.Random) -> dict[str, Tensor]:
        rows = torch.from_numpy(self.kept)[batch.index].to(self.device)
        sentence = self.model(batch.light.to(self.device).contiguous(memory_format=torch.channels_last))
        patches = None
        if len(batch.clean):
            with torch.no_grad():
                patches = self.vl.encode_images(batch.clean.to(self.device)).patches
        pseudo = None if self.pseudo is None else self.pseudo[rows]
        named: dict[str, Tensor] = self.objective(
            sentence, self.vectors[rows], pseudo, patches, rng, self._queue(rows, rng)
        )
        return named

    def _queue(self, rows: Tensor, rng: random.Random) -> Tensor | None:
        """Gallery vectors of `settings.queue` training pictures that are not in the batch; None for an empty queue."""
        others = np.setdiff1d(self.kept, rows.cpu().numpy())
        wanted = min(self.settings.queue, len(others))
        if not wanted:
            return None
        chosen = np.random.default_rng(rng.getrandbits(32)).choice(others, wanted, replace=False)
        return self.vectors[torch.from_numpy(chosen)]

    # --- around the steps ---

    @torch.no_grad()
    def validate(self) -> float:
        """Recall@1 in percent from a held-out picture's sentence to its own gallery vector, among the held-out."""
        current = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average.tensors)
        self.model.eval()
        queries = [
            self._encode_held(block) for block in np.array_split(self.held, max(1, len(self.held) // 64))
        ]
        self.model.load_state_dict(current)
        nearest = (torch.cat(queries) @ self.vectors[torch.from_numpy(self.held)].T).argmax(-1).cpu().numpy()
        return 100 * float((nearest == np.arange(len(self.held))).mean())

    def _encode_held(self, block: np.ndarray) -> Tensor:
        images = [load_image(self.pictures.paths[i]) for i in block]
        sentence = self.model(torch.from_numpy(to_pixels(images, self.model.preprocessing)).to(self.device))
        template = self.objective.template
        return self.vl.encode_words(
            self.vl.compose(sentence.tokens, sentence.gates, [""] * len(block), template)
        )

    def _checkpoint(self, writer: SummaryWriter) -> None:
        recall = self.validate()
        writer.add_scalar("validation/recall@1", recall, self.progress.step)
        if recall >= self.progress.best:
            self.progress.best = recall
            state.save_tensors(
                self.out / "best.safetensors", self.average.tensors, {"step": self.progress.step}
            )
        tensors = state.prefixed("model", self.model.state_dict()) | state.prefixed(
            "average", self.average.tensors
        )
        tensors |= state.prefixed("optimizer", state.optimizer_tensors(self.optimizer))
        tensors |= state.prefixed("objective", self.objective.state_dict())
        state.save_tensors(self.out / "state.safetensors", tensors, self._identity() | vars(self.progress))

    def _resume(self) -> None:
        path = self.out / "state.safetensors"
        if not path.is_file():
            return
        tensors, record = state.load_tensors(path)
        for key, value in self._identity().items():
            if record.get(key) != value:
                raise ConfigError(
                    f"{path} belongs to another run (its {key} differs): choose another --out, or delete it"
                )
        self.model.load_state_dict(state.group("model", tensors))
        self.objective.load_state_dict(state.group("objective", tensors))
        self.average.tensors = state.group("average", tensors)
        state.load_optimizer(self.optimizer, state.group("optimizer", tensors))
        self.progress = Progress(**{name: record[name] for name in vars(Progress())})

    def _identity(self) -> dict[str, Any]:
        settings = json.loads(json.dumps(to_dict(self.settings)))
        return {"settings": settings, "vl": self.vl.record.fingerprint, "data": self.pictures.fingerprint}

    def _report(
        self, writer: SummaryWriter, bar: Any, step: int, values: dict[str, float], started: float, first: int
    ) -> None:
        for name, value in values.items():
            writer.add_scalar(f"loss/{name}", value, step)
        rate = (
            (step + 1 - first) * self.settings.batch * self.settings.accumulate / (time.monotonic() - started)
        )
        writer.add_scalar("pictures_per_second", rate, step)
        shown = {name: f"{value:.3f}" for name, value in values.items()}
        bar.set_postfix(
            {**shown, "pictures/s": f"{rate:.0f}", "recall@1": f"{self.progress.best:.1f}"}, refresh=False
        )
        bar.update()

    def _hold_out(self) -> np.ndarray:
        count = min(self.settings.validation, len(self.pictures.paths) // 5)
        if count < 1:
            raise ConfigError(f"{len(self.pictures.paths)} pictures are too few to train on: five at least")
        order = np.random.default_rng((self.settings.seed, 1)).permutation(len(self.pictures.paths))
        return np.sort(order[:count])

    def _loader(self) -> BatchLoader:
        s = self.settings
        lar = self.objective.lar_kind()
        return BatchLoader(
            [self.pictures.paths[i] for i in self.kept],
            self.model.preprocessing,
            self.vl.preprocessing,
            Augmentation(s.smallest_crop, s.flip),
            s.batch,
            0 if lar == "off" else s.lar_batch,
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


def schedule(step: int, steps: int, warmup: int) -> float:
    """The learning rate's factor: linear warm-up, then a cosine down to one hundredth."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
