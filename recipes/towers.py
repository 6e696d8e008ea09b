"""Training a small BLIP's two towers from pictures and captions whose truth is known.

The loop that the recipes share: what a batch holds is theirs. A batch comes with verdicts, which captions are true of
which pictures, so that a true caption is never taken for a negative.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import click
import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm
from transformers import BlipForImageTextRetrieval, BlipImageProcessorPil

from image2sentence.training import checkpoint as state
from image2sentence.training.trainer import schedule
from image2sentence.training.vl.blip import BlipVL
from image2sentence.training.vl.load import load_vl

EARLY = "early.safetensors"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Written(Protocol):
    """A caption, as far as the loop needs it."""

    text: str


@dataclass(frozen=True)
class TowerBatch:
    """Pixels (B, 3, S, S) uint8, captions, and verdicts (B, captions): 1 true, 0 false, -1 cannot be judged.

    `extras` are tensors for a loss beside the contrastive one.
    """

    pixels: Tensor
    captions: Sequence[Written]
    verdicts: Tensor
    extras: tuple[Tensor, ...] = ()


class LossBeside(Protocol):
    """A module whose loss of pictures (B, d) and texts (captions, d), unit vectors, is added to the contrastive one."""

    def __call__(self, pictures: Tensor, texts: Tensor, *extras: Tensor) -> Tensor:
        """The loss, a scalar."""
        ...


class TowerBatches(Protocol):
    """Where batches come from; those of a step depend on the seed and the step alone, so that a run can resume."""

    def ahead(self, first: int) -> Iterator[TowerBatch]:
        """The batches of steps `first`, `first + 1`, ... to the last."""
        ...


@dataclass(frozen=True)
class TowerSettings:
    """The optimiser's choices, beside the pictures and the captions.

    `early_share` of the result are the averaged weights of step `early`, the rest those of the last step: a mean of
    two points of one run keeps of each what it is better at (Wortsman et al., 2022, on means of fine-tuned models).
    """

    seed: int = 0
    steps: int = 2_600
    batch: int = 128
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup: int = 200
    average: float = 0.998
    temperature: float = 0.07  # where the learned temperature starts
    early: int = 0
    early_share: float = 0.0


def normalise(pixels: Tensor) -> Tensor:
    """uint8 (B, 3, S, S) -> float32, channels last in memory."""
    scaled = (pixels.float() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    return scaled.contiguous(memory_format=torch.channels_last)


def contrastive(similarity: Tensor, verdicts: Tensor) -> Tensor:
    """Cross-entropy with all true captions as targets (equal shares); pairs that cannot be judged are left out."""
    logits = similarity.masked_fill(verdicts < 0, -1e4)
    target = (verdicts == 1).float()
    by_picture = target / target.sum(1, keepdim=True).clamp(min=1)
    by_caption = (target / target.sum(0, keepdim=True).clamp(min=1)).T
    return (functional.cross_entropy(logits, by_picture) + functional.cross_entropy(logits.T, by_caption)) / 2


class Learner(torch.nn.Module):
    """The BLIP and its temperature, with BLIP's contrastive loss (Li et al., ICML 2022) and one `beside` it."""

    def __init__(
        self, model: BlipForImageTextRetrieval, temperature: float, beside: LossBeside | None = None
    ) -> None:
        super().__init__()
        self.model, self.beside = model, beside
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(1 / temperature)))

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor, verdicts: Tensor, *extras: Tensor) -> Tensor:
        """The loss, a scalar, of pixels (B, 3, S, S), ids and mask (captions, T), verdicts (B, captions)."""
        patches = self.model.vision_model(pixel_values=pixels).last_hidden_state
        words = self._read(ids, mask)
        pictures = functional.normalize(self.model.vision_proj(patches[:, 0]).float(), dim=-1)
        texts = functional.normalize(self.model.text_proj(words).float(), dim=-1)
        with torch.autocast(pixels.device.type, enabled=False):  # bfloat16 would blur logits by a fifth
            similarity = self.log_scale.clamp(max=math.log(50)).exp() * pictures @ texts.T
            loss = contrastive(similarity, verdicts)
        return loss if self.beside is None else loss + self.beside(pictures, texts, *extras)

    def _read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The texts' [CLS] states (captions, w); short ones and long ones apart, so that few pads are read."""
        lengths = mask.sum(1)
        order = lengths.argsort()
        halves = [half for half in order.chunk(2) if len(half)]
        states = [
            self.model.text_encoder(
                input_ids=ids[half, : int(lengths[half].max())],
                attention_mask=mask[half, : int(lengths[half].max())],
            ).last_hidden_state[:, 0]
            for half in halves
        ]
        return torch.cat(states)[order.argsort()]


def train_towers(
    model: BlipForImageTextRetrieval,
    tokenizer: Tokenizer,
    batches: TowerBatches,
    settings: TowerSettings,
    out: Path,
    side: int,
    beside: LossBeside | None = None,
) -> None:
    """Trains to `settings.steps`, saving a resumable state every 250 steps and the averaged model at the end.

    `side` is what the pixels' side is in training, and will be for whoever uses `out/towers`.
    """
    learner = Learner(model, settings.temperature, beside)
    decayed = [p for p in learner.parameters() if p.ndim > 1]
    rest = [p for p in learner.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)
    average = state.Average(learner, settings.average)
    first = _resume(out, learner, optimizer, average, settings)
    losses: list[float] = []
    bar = tqdm(batches.ahead(first), initial=first, total=settings.steps, desc="training towers")
    for step, batch in enumerate(bar, first):
        torch.manual_seed(settings.seed * 1_000_003 + step)
        for part in optimizer.param_groups:
            part["lr"] = settings.learning_rate * schedule(step, settings.steps, settings.warmup)
        losses.append(_step(learner, optimizer, tokenizer, batch))
        average.update(learner, step)
        if step % 50 == 49:
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
        if settings.early_share and step + 1 == settings.early:
            state.save_tensors(out / EARLY, average.tensors, {"step": step + 1})
        if step % 250 == 249 or step + 1 == settings.steps:
            _save(out, learner, optimizer, average, step + 1, settings)
    tensors = average.tensors
    if settings.early_share:
        tensors = mean_weights(tensors, state.load_tensors(out / EARLY)[0], settings.early_share)
    learner.load_state_dict(tensors)
    save_model(learner.model, tokenizer, out / "towers", side)


def mean_weights(last: dict[str, Tensor], early: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """(1 - `share`) of `last` and `share` of `early`, name by name; counters are the last's."""
    return {
        name: tensor.lerp(early[name], share) if tensor.is_floating_point() else tensor
        for name, tensor in last.items()
    }


def _step(
    learner: Learner, optimizer: torch.optim.Optimizer, tokenizer: Tokenizer, batch: TowerBatch
) -> float:
    encoded = tokenizer.encode_batch([caption.text for caption in batch.captions])
    ids = torch.tensor([e.ids for e in encoded])
    mask = torch.tensor([e.attention_mask for e in encoded])
    learner.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = learner(normalise(batch.pixels), ids, mask, batch.verdicts, *batch.extras)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def _save(out, learner, optimizer, average, step, settings) -> None:  # type: ignore[no-untyped-def]
    tensors = state.prefixed("model", learner.state_dict()) | state.prefixed("average", average.tensors)
    tensors |= state.prefixed("optimizer", state.optimizer_tensors(optimizer))
    state.save_tensors(out / "state.safetensors", tensors, {"step": step, "settings": asdict(settings)})


def _resume(out, learner, optimizer, average, settings) -> int:  # type: ignore[no-untyped-def]
    path = out / "state.safetensors"
    if not path.is_file():
        return 0
    tensors, record = state.load_tensors(path)
    if record["settings"] != json.loads(json.dumps(asdict(settings))):
        raise click.ClickException(
            f"{path} was made with other settings: {record['settings']}; choose another --out"
        )
    learner.load_state_dict(state.group("model", tensors))
    average.tensors = state.group("average", tensors)
    state.load_optimizer(optimizer, state.group("optimizer", tensors))
    return int(record["step"])


def read_towers(folder: Path) -> BlipVL:
    """What `save_model` has left in `folder`, in float32 and frozen.

    Raises:
        click.ClickException: it is not a BLIP.
    """
    vl = load_vl(str(folder))
    if not isinstance(vl, BlipVL):
        raise click.ClickException(f"{folder} holds no BLIP, and only those are trained here")
    return vl


def save_model(
    model: BlipForImageTextRetrieval,
    tokenizer: Tokenizer,
    folder: Path,
    side: int,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
) -> None:
    """The standard transformers folder; float16 weights, so that what is frozen is exactly what ships."""
    model.half().save_pretrained(folder)
    processor = BlipImageProcessorPil(size={"height": side, "width": side}, image_mean=mean, image_std=std)
    processor.save_pretrained(folder)
    tokenizer.no_padding()
    tokenizer.save(str(folder / "tokenizer.json"))
