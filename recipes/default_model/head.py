"""Trains what the gallery tower adds to MobileNetV2: how things look, read from maps of all depths.

The part that says what things are stays a fixed projection of the pooled feature, so a picture of a kind that nobody
trained on keeps its place. The head learns by cross-entropy over each attribute's values, whose vectors are learned
with it and thrown away, and of emoji to find the same one in another style (recipes/bundled/style_pairs.py), from
features that were read once (features.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from image2sentence.training import checkpoint as state
from image2sentence.training.trainer import schedule
from image2sentence.training.vl.mobile_blip import MobileVisionModel
from recipes.bundled.style_pairs import StylePairLoss, StylePairTable
from recipes.default_model.features import Features
from recipes.default_model.pictures import TRAIN, Picture

_SOURCES = ("drawn", "photo", "emoji", "everyday")
_OF_A_SOURCE = ("type", "kids", "broader")  # each source names its own
_NOT_LEARNED = frozenset({"source", *_OF_A_SOURCE})
_EMOJI = _SOURCES.index("emoji")


@dataclass(frozen=True)
class HeadSettings:
    """`shares` are those of drawn products, garments, emoji and everyday things in a batch."""

    steps: int = 1_200
    batch: int = 512
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    shares: tuple[float, float, float, float] = (0.25, 0.2, 0.4, 0.15)
    style_pairs: float = 1.0
    noise: float = 0.05
    seed: int = 0


class Shown:
    """The attributes, where each one's values lie among all values, and what pictures show of them (n, attributes).

    What two sources name in different ways, such as types of garments, is an attribute of each.
    """

    def __init__(self, pictures: Sequence[Picture]) -> None:
        rows = [_named(picture.record) for picture in pictures]
        trained = [row for row, p in zip(rows, pictures, strict=True) if p.part == TRAIN]
        self.names = tuple(sorted({name for row in trained for name in row}))
        values = [sorted({row[name] for row in trained if name in row}) for name in self.names]
        self.sizes = tuple(len(options) for options in values)
        places = [{value: place for place, value in enumerate(options)} for options in values]
        self.table = np.array(
            [
                [place.get(row.get(name, ""), -1) for name, place in zip(self.names, places, strict=True)]
                for row in rows
            ],
            np.int64,
        )


def _named(record: dict[str, str]) -> dict[str, str]:  # type: ignore[type-arg]
    found = {name: value for name, value in record.items() if value and name not in _NOT_LEARNED}
    for name in _OF_A_SOURCE:
        if record.get(name):
            found[f"{name} of {record['source']}"] = record[name]
    return found


def fixed_part(classifier: Tensor, pooled: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Weight (width, 1280) and bias of the projection of pooled features onto what tells ImageNet's classes apart.

    The main directions of the centred classifier; the mean of `pooled` (n, 1280) photographs is taken off.
    """
    centred = functional.normalize(classifier - classifier.mean(0), dim=-1)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    weight = directions[:width]
    return weight, -weight @ pooled.mean(0)


class _Values(nn.Module):
    """Cross-entropy over each attribute's values: logits are scaled dot products of unit vectors."""

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.vectors = nn.Parameter(torch.randn(sum(sizes), width) / math.sqrt(width))
        self.log_scale = nn.Parameter(torch.tensor(math.log(15.0)))

    def forward(self, pictures: Tensor, shown: Tensor) -> Tensor:
        scale = self.log_scale.clamp(max=math.log(40)).exp()
        logits = scale * pictures @ functional.normalize(self.vectors, dim=-1).T
        losses = [
            functional.cross_entropy(part, shown[:, column], ignore_index=-1, reduction="sum")
            for column, part in enumerate(logits.split(self.sizes, dim=1))
        ]
        return torch.stack(losses).sum() / len(pictures)


def train_head(
    tower: MobileVisionModel, pictures: Sequence[Picture], features: Features, settings: HeadSettings
) -> None:
    """Trains `tower.looks` in place; `tower.kinds` is set already."""
    torch.manual_seed(settings.seed)
    head = tower.looks
    sample = np.asarray(features.cropped[:: max(1, len(features.cropped) // 8_000)], np.float32)
    head.centre.copy_(torch.from_numpy(sample.mean(0)))
    head.scale.copy_(torch.from_numpy(sample.std(0) + 0.05 * sample.std() + 1e-3))
    batches = _Batches(pictures, features, settings)
    shown, width = batches.shown, tower.kinds.out_features + head.layers[-1].out_features
    values = _Values(shown.sizes, width)
    style_pairs = StylePairLoss(shown.sizes[shown.names.index("style")], width, settings.style_pairs)
    trained = [*head.parameters(), *values.parameters(), *style_pairs.parameters()]
    optimizer = torch.optim.AdamW(
        trained, settings.learning_rate, (0.9, 0.98), weight_decay=settings.weight_decay
    )
    average = state.Average(head, 0.998)
    head.train()
    bar = tqdm(range(settings.steps), desc="head", mininterval=20)
    for step in bar:
        optimizer.param_groups[0]["lr"] = settings.learning_rate * schedule(step, settings.steps, 100)
        numbers, seen, pairs = batches.draw(step)
        numbers = numbers * (1 + settings.noise * torch.randn_like(numbers))
        found = functional.normalize(tower.whole(numbers), dim=-1)
        named, paired = values(found, seen), style_pairs(found, seen[:, shown.names.index("style")], pairs)
        optimizer.zero_grad(set_to_none=True)
        (named + paired).backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        average.update(head, step)
        if step % 50 == 49:
            bar.set_postfix(values=f"{named.item():.3f}", style_pairs=f"{paired.item():.3f}")
    head.load_state_dict(average.tensors)
    head.eval()


class _Batches:
    """Batches of features that were read; one depends on the seed and its step alone."""

    def __init__(self, pictures: Sequence[Picture], features: Features, settings: HeadSettings) -> None:
        self.features, self.settings, self.shown = features, settings, Shown(pictures)
        records = [pictures[row].record for row in features.rows]
        sources = np.array([_SOURCES.index(record["source"]) for record in records])
        self.members = [np.flatnonzero(sources == source) for source in range(len(_SOURCES))]
        self.style_pairs = StylePairTable(records)

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers (B, F), what is shown (B, attributes), and where each emoji's other drawing is (B, 1), else -1.

        Each emoji comes in two styles; every other picture is whole or cropped by chance.
        """
        rng = np.random.default_rng((self.settings.seed, step))
        counts = rng.multinomial(self.settings.batch, self.settings.shares)
        parts = [
            self.style_pairs.draw(count // 2, rng).reshape(-1)
            if source == _EMOJI
            else rng.choice(members, count)
            for source, (members, count) in enumerate(zip(self.members, counts, strict=True))
        ]
        first, half = sum(map(len, parts[:_EMOJI])), len(parts[_EMOJI]) // 2
        pairs = torch.full((sum(map(len, parts)), 1), -1)
        pairs[first : first + half, 0] = torch.arange(first + half, first + 2 * half)
        pairs[first + half : first + 2 * half, 0] = torch.arange(first, first + half)
        places = np.concatenate(parts)
        features, rows = self.features, self.features.rows[places]
        numbers, crops = np.asarray(features.whole[rows], np.float32), features.crops[places]
        cropped = (crops >= 0) & (rng.random(len(places)) < 0.5)
        numbers[cropped] = features.cropped[crops[cropped]]
        return torch.from_numpy(numbers), torch.from_numpy(self.shown.table[rows]), pairs


@torch.no_grad()
def vectors(tower: MobileVisionModel, numbers: NDArray[np.float16]) -> NDArray[np.float32]:
    """Features (n, F) -> unit rows (n, d)."""
    blocks = [
        functional.normalize(
            tower.whole(torch.from_numpy(np.asarray(numbers[i : i + 512], np.float32))), dim=-1
        )
        for i in range(0, len(numbers), 512)
    ]
    return torch.cat(blocks).numpy()
