"""Trains the text tower: towards vectors that are known, by squared distance with a weak contrast.

Word embeddings start from GloVe's vectors and from WordNet's glosses (glove.py, lsa.py), so a rare word is read as
those that it is used with and explained by. The picture side stands still.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from image2sentence.training import checkpoint as state
from image2sentence.training.trainer import schedule
from recipes.default_model.meanings import Meanings
from recipes.default_model.texts import GROUPS, Lessons
from recipes.vocabulary import word_tokenizer

ENDINGS = ("s", "es")
_EMBEDDED = 0.3  # length of a word's embedding at the start: as long as BLIP draws them


@dataclass(frozen=True)
class TextSettings:
    """`shares` are those of `texts.GROUPS` in a batch; `unknown` that of texts with an unknown word in them."""

    steps: int = 2_400
    batch: int = 384
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    shares: tuple[float, ...] = (0.26, 0.12, 0.42, 0.1, 0.05, 0.05)
    contrast: float = 0.1
    temperature: float = 0.05
    unknown: float = 0.06
    seed: int = 0


def build_tokenizer(lessons: Lessons, whole: frozenset[str]) -> Tokenizer:
    """A tokenizer that knows every word of the lessons, and nouns in the plural."""
    return word_tokenizer(lessons.texts, ENDINGS, whole)


@torch.no_grad()
def start_embeddings(model: Any, tokenizer: Tokenizer, parts: Sequence[Meanings]) -> int:
    """Sets words' embeddings to what `parts` say, side by side, as much as there is room; returns how many it knows."""
    embeddings = model.text_encoder.embeddings.word_embeddings.weight
    found = 0
    for word, row in tokenizer.get_vocab().items():
        start = 0
        for part in parts:
            vector, stop = part.word(word), min(start + part.words.shape[1], embeddings.shape[1])
            if vector is not None:
                embeddings[row, start:stop] = _EMBEDDED * torch.from_numpy(vector[: stop - start])
            start = stop
        found += any(part.word(word) is not None for part in parts)
    return found


def train_text(model: Any, tokenizer: Tokenizer, lessons: Lessons, settings: TextSettings) -> None:
    """Trains `model`'s text encoder and its projection in place."""
    torch.manual_seed(settings.seed)
    encoder, project = model.text_encoder, model.text_proj
    trained = [p for name, p in encoder.named_parameters() if "crossattention" not in name] + list(
        project.parameters()
    )
    tower = torch.nn.ModuleList([encoder, project]).train()
    optimizer = torch.optim.AdamW(
        trained, settings.learning_rate, (0.9, 0.98), weight_decay=settings.weight_decay
    )
    average = state.Average(tower, 0.998)
    ids = [e.ids for e in tokenizer.encode_batch(lessons.texts)]
    pads = tokenizer.token_to_id("[PAD]")
    lengths = np.array([sum(i != pads for i in row) for row in ids])
    targets = torch.from_numpy(lessons.targets)
    members = [np.flatnonzero(lessons.groups == number) for number in range(len(GROUPS))]
    bar = tqdm(range(settings.steps), desc="text tower", mininterval=20)
    for step in bar:
        optimizer.param_groups[0]["lr"] = settings.learning_rate * schedule(step, settings.steps, 200)
        chosen = _draw(members, settings, step)
        chosen = chosen[np.argsort(lengths[chosen], kind="stable")]
        rng = random.Random(f"{settings.seed}/{step}")
        rows = [_with_unknown(ids[i][: lengths[i]], tokenizer, settings.unknown, rng) for i in chosen]
        texts = torch.cat(
            [_read(encoder, project, part) for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :])]
        )
        loss = text_loss(functional.normalize(texts, dim=-1), targets[chosen], settings)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        average.update(tower, step)
        if step % 50 == 49:
            bar.set_postfix(loss=f"{loss.item():.3f}")
    tower.load_state_dict(average.tensors)
    tower.eval()


def text_loss(texts: Tensor, targets: Tensor, settings: TextSettings) -> Tensor:
    """Squared distance of unit rows (B, d), and how far texts tell targets apart as targets tell each other apart."""
    squared = (texts - targets).square().sum(1).mean()
    meant = (targets @ targets.T / settings.temperature).softmax(1)
    found = (texts @ targets.T / settings.temperature).log_softmax(1)
    return squared + settings.contrast * functional.kl_div(found, meant, reduction="batchmean")


def _draw(members: list[Any], settings: TextSettings, step: int) -> Any:
    rng = np.random.default_rng((settings.seed, step))
    shares = np.array(
        [share if len(own) else 0.0 for share, own in zip(settings.shares, members, strict=True)]
    )
    counts = rng.multinomial(settings.batch, shares / shares.sum())
    return np.concatenate(
        [rng.choice(own, count) for own, count in zip(members, counts, strict=True) if len(own)]
    )


def _with_unknown(row: list[int], tokenizer: Tokenizer, share: float, rng: random.Random) -> list[int]:
    if rng.random() >= share:
        return row
    place = rng.randrange(1, len(row))
    return [*row[:place], tokenizer.token_to_id("[UNK]"), *row[place:]]


def _read(encoder: Any, project: Any, rows: list[list[int]]) -> Tensor:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    states: Tensor = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    projected: Tensor = project(states[:, 0])
    return projected
