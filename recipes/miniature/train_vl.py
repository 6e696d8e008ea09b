"""Trains a world's vision-language model, a small BLIP, on its training pictures and captions out of their labels.

    python -m recipes.miniature.train_vl fashion --data ../shared/data --out runs/miniature

Interrupt it at any time; the same command goes on from the last saved step. The weights are for measuring: they are
not shipped, and the fashion photographs' licence would not allow it (docs/model-card.md).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from image2sentence.training.vl.conv_blip import ConvBlipForImageTextRetrieval, conv_blip_config
from recipes.matching import MatchingSettings, train_matching
from recipes.miniature.language import Claim, Judge, Speaker
from recipes.miniature.worlds import WORLDS, Record, World, read_pixels
from recipes.towers import TowerBatch, TowerSettings, read_towers, save_model, train_towers
from recipes.vocabulary import word_tokenizer


@dataclass(frozen=True)
class Settings(TowerSettings):
    """What, beside the pictures, decides the result."""

    steps: int = 1_300
    warmup: int = 100
    captions: int = 2
    edits: float = 0.4


MATCHING = MatchingSettings(steps=400, easy=250)


class Batches:
    """Draws training batches; the batch of a step depends on the seed and the step alone."""

    def __init__(
        self, world: World, rows: list[Record], pixels: NDArray[np.uint8], settings: Settings
    ) -> None:
        self.world, self.rows, self.pixels, self.settings = world, rows, pixels, settings
        self.speaker, self.judge = Speaker(world, rows, settings.edits), Judge(rows)
        self.mirrors = np.array([world.mirrors(row) for row in rows])

    def ahead(self, first: int) -> Iterator[TowerBatch]:
        """The batches of steps `first`, `first + 1`, ...; each is made while the one before is being used."""
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self.draw, first)
            for step in range(first, self.settings.steps):
                batch, coming = coming.result(), pool.submit(self.draw, step + 1)
                yield batch

    def draw(self, step: int) -> TowerBatch:
        """The batch of a step; its claims come picture by picture."""
        index, claims, verdicts = self.words_only(step)
        crops = self._crops(index, np.random.default_rng((self.settings.seed, step, 1)))
        return TowerBatch(crops, claims, verdicts)

    def words_only(self, step: int) -> tuple[NDArray[np.int64], list[Claim], Tensor]:
        """As `draw`, with the pictures' numbers in place of their pixels."""
        rng = random.Random(f"{self.settings.seed}/{step}")
        choose = np.random.default_rng((self.settings.seed, step))
        index = choose.choice(len(self.rows), self.settings.batch, replace=False)
        claims = [
            self.speaker.caption(self.rows[i], rng) for i in index for _ in range(self.settings.captions)
        ]
        return index, claims, torch.from_numpy(self.judge.verdicts(index, claims))

    def _crops(self, index: NDArray[np.int64], choose: np.random.Generator) -> Tensor:
        whole, side = self.pixels.shape[1], self.world.side
        out = np.empty((len(index), side, side, 3), np.uint8)
        for row, i in enumerate(index):
            seen = choose.uniform(0.85, 1.0) * whole
            x, y = choose.random(2) * (whole - seen)
            box = (x, y, x + seen, y + seen)
            crop = np.asarray(
                Image.fromarray(self.pixels[i]).resize((side, side), Image.Resampling.BILINEAR, box=box)
            )
            out[row] = crop[:, ::-1] if self.mirrors[i] and choose.random() < 0.5 else crop
        return torch.from_numpy(out).permute(0, 3, 1, 2)


def build_model(world: World, vocabulary: int, seed: int) -> ConvBlipForImageTextRetrieval:
    """A tower of 2.8 million parameters and three layers of text."""
    torch.manual_seed(seed)
    config = conv_blip_config(
        vocabulary,
        image_size=world.side,
        widths=(64, 128, 256),
        text_width=192,
        text_layers=3,
        text_heads=3,
        joint_width=192,
    )
    return ConvBlipForImageTextRetrieval(config).to(memory_format=torch.channels_last)


def train(world: World, data: Path, out: Path, settings: Settings, matching: MatchingSettings) -> None:
    """Writes `out/model`: towers first, then the matching encoder on top of them."""
    rows = world.training_rows(data)
    pixels = read_pixels(world, data, rows, out.parent)
    batches = Batches(world, rows, pixels, settings)
    rng = random.Random(3)
    texts = (batches.speaker.caption(row, rng).text for row in rows for _ in range(8))
    tokenizer = word_tokenizer(texts)
    if not (out / "towers").is_dir():
        model = build_model(world, tokenizer.get_vocab_size(), settings.seed)
        train_towers(model, tokenizer, batches, settings, out, world.side)
    vl = read_towers(out / "towers")
    pairs = Settings(batch=matching.batch, captions=1, edits=0.2, steps=matching.steps, seed=1)
    train_matching(vl, pixels, Batches(world, rows, pixels, pairs), matching)
    save_model(vl.model, vl.tokenizer, out / "model", world.side)


@click.command()
@click.argument("name", type=click.Choice(sorted(WORLDS)))
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/miniature"))
@click.option("--steps", default=Settings.steps, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(name: str, data: Path, out: Path, steps: int, seed: int) -> None:
    """Writes OUT/NAME/vl/model."""
    train(WORLDS[name], data, out / name / "vl", Settings(steps=steps, seed=seed), MATCHING)


if __name__ == "__main__":
    main()
