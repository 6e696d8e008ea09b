"""Training a small BLIP's matching encoder, on top of towers that already agree.

Learned from the first step together with the contrastive loss, the match head never left its prior (recipes/LOG.md): it
had nothing to compare. Here the visual tower and the self-attending text encoder stay as they are, so no vector moves;
only the cross-attention layers and the head learn. Patches are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from image2sentence.training.trainer import schedule
from image2sentence.training.vl.base import Words
from image2sentence.training.vl.blip import BlipVL
from recipes.towers import Written, normalise


class WordBatches(Protocol):
    """Where batches come from: one caption a picture."""

    def words_only(self, step: int) -> tuple[NDArray[np.int64], Sequence[Written], Tensor]:
        """The pictures' numbers (B,), their captions, and verdicts (B, B)."""
        ...


@dataclass(frozen=True)
class MatchingSettings:
    """The stage's own settings; half of the false pairs are near misses once `easy` steps have passed."""

    steps: int = 700
    easy: int = 500
    batch: int = 96
    learning_rate: float = 1e-3
    seed: int = 0


def draw_false(similarity: Tensor, verdicts: Tensor, near: float) -> Tensor:
    """For each row a column whose verdict is 0: a near miss with probability `near`, else any."""
    chosen = (torch.rand(len(similarity), 1) < near).float()
    return torch.multinomial((similarity * chosen).masked_fill(verdicts != 0, -1e4).softmax(-1), 1)[:, 0]


@torch.no_grad()
def encode_once(vl: BlipVL, pixels: NDArray[np.uint8], batch: int = 128) -> tuple[Tensor, Tensor]:
    """Vectors (n, d) and patches (n, N, C) float16 of pictures (n, S, S, 3), the middle of the size the model takes."""
    side = vl.preprocessing.size
    edge = (pixels.shape[1] - side) // 2
    vectors, patches = [], []
    for start in tqdm(range(0, len(pixels), batch), desc="patches"):
        crop = pixels[start : start + batch, edge : edge + side, edge : edge + side]
        features = vl.encode_images(normalise(torch.from_numpy(crop).permute(0, 3, 1, 2)))
        vectors.append(features.vectors)
        patches.append(features.patches.half())
    return torch.cat(vectors), torch.cat(patches)


def cross_attention(vl: BlipVL) -> list[torch.nn.Parameter]:
    """The parameters that only matching uses."""
    layers = [layer.crossattention for layer in vl.model.text_encoder.encoder.layer]
    return [p for module in (*layers, vl.model.itm_head) for p in module.parameters()]


def match_loss(
    vl: BlipVL, words: Words, vectors: Tensor, texts: Tensor, patches: Tensor, verdicts: Tensor, near: float
) -> tuple[Tensor, Tensor]:
    """Loss and accuracy over own pairs, false texts and false pictures, a third each."""
    n = len(vectors)
    similarity = 50 * vectors @ texts.T
    false_text = draw_false(similarity, verdicts, near)
    false_picture = draw_false(similarity.T, verdicts.T, near)
    own = torch.arange(n)
    text, picture = torch.cat([own, false_text, own]), torch.cat([own, own, false_picture])
    logits = vl.match(Words(words.embeddings[text], words.bias[text]), patches[picture]).float()
    target = (torch.arange(3 * n) < n).float()
    weight = torch.where(target > 0, 1.0, 0.5)
    loss = functional.binary_cross_entropy_with_logits(logits, target, weight=weight)
    return loss, ((logits > 0) == (target > 0)).float().mean()


def train_matching(
    vl: BlipVL, pixels: NDArray[np.uint8], batches: WordBatches, settings: MatchingSettings
) -> None:
    """Trains the matching encoder in place, on pictures (n, S, S, 3)."""
    torch.manual_seed(settings.seed)
    vectors, patches = encode_once(vl, pixels)
    trained = cross_attention(vl)
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.02, betas=(0.9, 0.98))
    recent: list[tuple[float, float]] = []
    bar = tqdm(range(settings.steps), desc="matching")
    for step in bar:
        optimizer.param_groups[0]["lr"] = settings.learning_rate * schedule(step, settings.steps, 100)
        index, captions, verdicts = batches.words_only(step)
        words = vl.words([caption.text for caption in captions])
        with torch.no_grad():
            texts = vl.encode_words(words)
        near = 0.0 if step < settings.easy else 0.5
        with torch.autocast("cpu", torch.bfloat16):
            chosen = torch.from_numpy(index)
            loss, right = match_loss(
                vl, words, vectors[chosen], texts, patches[chosen].float(), verdicts, near
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        recent.append((float(loss.detach()), float(right)))
        if step % 50 == 49:
            bar.set_postfix(
                loss=f"{np.mean(recent[-50:], axis=0)[0]:.3f}",
                right=f"{np.mean(recent[-50:], axis=0)[1]:.3f}",
            )
    vl.freeze()
