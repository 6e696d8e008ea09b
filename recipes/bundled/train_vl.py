"""Trains the bundled model's vision-language model: a small BLIP, from pictures and captions with exact meanings.

    python -m recipes.bundled.train_vl --data ../shared/data --out runs/vl

Interrupt it at any time; the same command goes on from the last saved step.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm
from transformers import BlipForImageTextRetrieval, BlipImageProcessorPil

from image2sentence.training import state
from image2sentence.training.loop import schedule
from image2sentence.training.vl.conv_blip import ConvBlipForImageTextRetrieval, conv_blip_config
from recipes.bundled import data, language
from recipes.bundled.vocabulary import build_tokenizer

CROP = 112
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

_PHOTO = language.VALUES["source"].index("photo")
_SIDED = frozenset(
    [
        "left",
        "right",
        "arrow",
        "button",
        "clock",
        "o’clock",
        "keycap",
        "clockwise",
        "counterclockwise",
        "leftwards",
        "rightwards",
    ]
)


@dataclass(frozen=True)
class Settings:
    """What, beside the pictures, decides the result."""

    architecture: str = "conv"
    seed: int = 0
    drawn: int = 16_000
    steps: int = 2_600
    batch: int = 128
    captions: int = 2
    edits: float = 0.45
    unknown: float = 0.08  # share of captions with an unknown word somewhere: it must not upset the rest
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup: int = 200
    average: float = 0.998
    shares: tuple[float, float, float] = (0.45, 0.2, 0.35)  # drawn, photo, emoji


class Batches:
    """Draws training batches; the batch of a step depends on the seed and the step alone, so a run can resume."""

    def __init__(self, pictures: data.Pictures, settings: Settings) -> None:
        self.pictures, self.settings = pictures, settings
        self.subjects = data.subjects(pictures.records)
        self.facts = language.facts(pictures.records, self.subjects)
        self.sources = np.array([language.VALUES["source"].index(r["source"]) for r in pictures.records])
        self.members = [np.flatnonzero(self.sources == source) for source in range(3)]
        self.flips = np.array([not _SIDED & set(r.get("thing", "").split()) for r in pictures.records])

    def ahead(self, first: int) -> Iterator[tuple[Tensor, list[language.Caption], Tensor]]:
        """The batches of steps `first`, `first + 1`, ...; each is made while the one before is being used."""
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self.draw, first)
            for step in range(first, self.settings.steps):
                batch, coming = coming.result(), pool.submit(self.draw, step + 1)
                yield batch

    def draw(self, step: int) -> tuple[Tensor, list[language.Caption], Tensor]:
        """Pixels (B, 3, CROP, CROP) uint8, captions (B * captions, picture by picture), verdicts (B, captions)."""
        choose = np.random.default_rng((self.settings.seed, step))
        index, captions, verdicts = self.words_only(step, choose)
        return self._pixels(index, choose), captions, verdicts

    def words_only(
        self, step: int, choose: np.random.Generator | None = None
    ) -> tuple[NDArray[np.int64], list[language.Caption], Tensor]:
        """As `draw`, with the pictures' numbers in place of their pixels."""
        rng = random.Random(f"{self.settings.seed}/{step}")
        choose = choose or np.random.default_rng((self.settings.seed, step))
        counts = choose.multinomial(self.settings.batch, self.settings.shares)
        index = np.concatenate([choose.choice(m, c) for m, c in zip(self.members, counts, strict=True)])
        captions = [self._caption(int(i), turn, rng) for i in index for turn in range(self.settings.captions)]
        verdicts = language.judge(self.facts[index], captions, self.subjects)
        return index, captions, torch.from_numpy(verdicts)

    def _caption(self, index: int, turn: int, rng: random.Random) -> language.Caption:
        record = self.pictures.records[index]
        edited = rng.random() < self.settings.edits * 2 and turn % 2 == 1
        caption = language.edit(record, rng) if edited else language.describe(record, rng)
        return _with_unknown_word(caption, rng) if rng.random() < self.settings.unknown else caption

    def _pixels(self, index: NDArray[np.int64], choose: np.random.Generator) -> Tensor:
        out = np.empty((len(index), CROP, CROP, 3), np.uint8)
        smallest = np.where(self.sources[index] == _PHOTO, 84, 102)
        sides = choose.uniform(smallest, data.SIDE)
        places = choose.random((len(index), 2)) * (data.SIDE - sides)[:, None]
        flips = (choose.random(len(index)) < 0.5) & self.flips[index]
        for row, (i, (x, y), side, flip) in enumerate(zip(index, places, sides, flips, strict=True)):
            whole = Image.fromarray(self.pictures.pixels[i])
            crop = whole.resize((CROP, CROP), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side))
            out[row] = np.asarray(crop)[:, ::-1] if flip else np.asarray(crop)
        return torch.from_numpy(out).permute(0, 3, 1, 2)


def _with_unknown_word(caption: language.Caption, rng: random.Random) -> language.Caption:
    parts = caption.text.split(" ")
    parts.insert(rng.randrange(len(parts) + 1), "[UNK]")
    return replace(caption, text=" ".join(parts))


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
    """The BLIP and its temperature, with BLIP's contrastive loss (Li et al., ICML 2022)."""

    def __init__(self, model: BlipForImageTextRetrieval, settings: Settings) -> None:
        super().__init__()
        self.model, self.settings = model, settings
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor, verdicts: Tensor) -> Tensor:
        patches = self.model.vision_model(pixel_values=pixels).last_hidden_state
        words = self._read(ids, mask)
        pictures = functional.normalize(self.model.vision_proj(patches[:, 0]).float(), dim=-1)
        texts = functional.normalize(self.model.text_proj(words).float(), dim=-1)
        similarity = self.log_scale.clamp(max=math.log(50)).exp() * pictures @ texts.T
        return contrastive(similarity, verdicts)

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


def build_model(settings: Settings, vocabulary: int) -> BlipForImageTextRetrieval:
    """The architecture under its name: `conv`, or `vit` of about the same cost for comparison."""
    torch.manual_seed(settings.seed)
    config = conv_blip_config(vocabulary)
    if settings.architecture == "conv":
        return ConvBlipForImageTextRetrieval(config).to(memory_format=torch.channels_last)
    vision = config.vision_config
    vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers = 256, 1024, 6
    vision.num_attention_heads, vision.patch_size = 4, 14
    config.text_config.encoder_hidden_size = 256
    return BlipForImageTextRetrieval(config)


def train(pictures: data.Pictures, settings: Settings, out: Path) -> None:
    """Trains to `settings.steps`, saving a resumable state every 250 steps and the averaged model at the end."""
    tokenizer = build_tokenizer(pictures.records)
    learner = Learner(build_model(settings, tokenizer.get_vocab_size()), settings)
    decayed = [p for p in learner.parameters() if p.ndim > 1]
    rest = [p for p in learner.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)
    average = state.Average(learner, settings.average)
    first = _resume(out, learner, optimizer, average, settings)
    batches = Batches(pictures, settings)
    losses: list[float] = []
    bar = tqdm(
        batches.ahead(first), initial=first, total=settings.steps, desc=f"training {settings.architecture}"
    )
    for step, batch in enumerate(bar, first):
        torch.manual_seed(settings.seed * 1_000_003 + step)
        for part in optimizer.param_groups:
            part["lr"] = settings.learning_rate * schedule(step, settings.steps, settings.warmup)
        losses.append(_step(learner, optimizer, tokenizer, batch))
        average.update(learner, step)
        if step % 50 == 49:
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
        if step % 250 == 249 or step + 1 == settings.steps:
            _save(out, learner, optimizer, average, step + 1, settings)
    learner.load_state_dict(average.tensors)
    save_model(learner.model, tokenizer, out / "towers")


def _step(learner, optimizer, tokenizer, batch) -> float:  # type: ignore[no-untyped-def]
    pixels, captions, verdicts = batch
    encoded = tokenizer.encode_batch([caption.text for caption in captions])
    ids = torch.tensor([e.ids for e in encoded])
    mask = torch.tensor([e.attention_mask for e in encoded])
    learner.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = learner(normalise(pixels), ids, mask, verdicts)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
    optimizer.step()
    return float(loss)


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


def save_model(model: BlipForImageTextRetrieval, tokenizer, folder: Path) -> None:  # type: ignore[no-untyped-def]
    """The standard transformers folder; float16 weights, so that what is frozen is exactly what ships."""
    model.half().save_pretrained(folder)
    processor = BlipImageProcessorPil(size={"height": CROP, "width": CROP}, image_mean=MEAN, image_std=STD)
    processor.save_pretrained(folder)
    tokenizer.no_padding()
    tokenizer.save(str(folder / "tokenizer.json"))


@click.command()
@click.option("--data", "data_folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/bundled"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/vl"))
@click.option("--steps", default=Settings.steps)
@click.option("--seed", default=Settings.seed)
@click.option("--architecture", type=click.Choice(["conv", "vit"]), default="conv")
def main(data_folder: Path, cache: Path, out: Path, steps: int, seed: int, architecture: str) -> None:
    """Trains the small BLIP and writes it to OUT/towers."""
    settings = Settings(architecture=architecture, seed=seed, steps=steps)
    pictures = data.training_pictures(data_folder, cache, settings.drawn)
    started = time.monotonic()
    train(pictures, settings, out)
    click.echo(
        f"{len(pictures)} pictures, {steps} steps, {(time.monotonic() - started) / 60:.1f} minutes -> {out}/towers"
    )


if __name__ == "__main__":
    main()
