"""Where things are, learned from pairs of drawings by the hundred: the tower's layout head, on maps that stand still.

    python -m recipes.bundled.train_layout --data ../shared/data --vl runs/fifth/towers-only --out runs/layout

In a batch of the towers' training thirty emoji have to be told apart, and the tower has to learn at the same time. Here
its convolutions and the text encoder stay as they are, so each picture's maps are computed once, of a crop or two, and
a step compares hundreds of pairs. Learned are the head, the norm behind it and the projection, with the losses of the
towers' rounds. About eight minutes on two CPU cores, half of it the maps.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from image2sentence.training import checkpoint as state
from image2sentence.training.trainer import schedule
from image2sentence.training.vl.blip import BlipVL
from image2sentence.training.vl.conv_blip import ConvVisionModel
from recipes.bundled import data, language, variants
from recipes.bundled.style_pairs import StylePairTable
from recipes.bundled.train_vl import FIFTH, Batches, Beside, Settings, pair_places, picture_vectors
from recipes.towers import contrastive, normalise, read_towers, save_model

DRAWINGS = 3
BLOCK = 120  # pictures read at a time; a multiple of DRAWINGS


@dataclass(frozen=True)
class LayoutSettings:
    """`readings` of each drawn product, photograph, emoji; a step has `invented_each` of `invented`, and `pairs`."""

    seed: int = 5
    steps: int = 1_200
    readings: tuple[int, int, int] = (1, 1, 2)
    invented: int = 2_400
    pairs: int = 150
    invented_each: int = 75
    rate: float = 1e-3
    weight_decay: float = 0.05
    average: float = 0.998
    temperature: float = 0.03


_CAPTIONED = Settings(
    batch=144,
    shares=(0.35, 0.35, 0.3),
    balance=FIFTH.balance,
    photo_crop=FIFTH.photo_crop,
    framed=True,
    side=FIFTH.side,
)


@dataclass(frozen=True)
class Maps:
    """Of each reading the places' mean (n, C) and the head's cells (n, size), float16."""

    means: Tensor
    cells: Tensor

    def rows(self, index: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Both of some readings, float32."""
        chosen = torch.from_numpy(index)
        return self.means[chosen].float(), self.cells[chosen].float()


@torch.no_grad()
def read_maps(tower: ConvVisionModel, blocks: Iterator[Tensor], count: int, desc: str) -> Maps:
    """Maps of `count` pictures, which come as `blocks` (B, 3, S, S) uint8."""
    tower.eval()
    means, cells = [], []
    with tqdm(total=count, desc=desc) as bar:
        for pixels in blocks:
            with torch.autocast("cpu", torch.bfloat16):
                before, places = tower.maps(normalise(pixels))
                cells.append(tower.cells(before).half())
            means.append(places.mean(1).half())
            bar.update(len(pixels))
    return Maps(torch.cat(means), torch.cat(cells))


class Readings:
    """The maps of all pictures and of invented subjects, and which of them are of what."""

    def __init__(
        self, tower: ConvVisionModel, batches: Batches, style_pairs: StylePairTable, settings: LayoutSettings
    ) -> None:
        self._counts = np.array(settings.readings)[batches.sources]
        self._starts = np.cumsum(self._counts) - self._counts
        owners = np.repeat(np.arange(len(self._counts)), self._counts)
        self._maps = read_maps(tower, _pictures(batches, owners, settings), len(owners), "pictures")
        invented = _invented(batches, style_pairs, settings)
        self._invented_maps = read_maps(tower, invented, settings.invented * DRAWINGS, "invented")

    def of(self, index: NDArray[np.int64], choose: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A reading of each of the pictures `index` (B,)."""
        return self._maps.rows(self._starts[index] + choose.integers(0, self._counts[index]))

    def of_invented(self, which: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """The drawings of the invented subjects `which` (n,): all in the first style, then all in the second, ..."""
        return self._invented_maps.rows((which * DRAWINGS + np.arange(DRAWINGS)[:, None]).reshape(-1))


def _pictures(batches: Batches, owners: NDArray[np.int64], settings: LayoutSettings) -> Iterator[Tensor]:
    choose = np.random.default_rng((settings.seed, 0))
    for start in range(0, len(owners), BLOCK):
        index = owners[start : start + BLOCK]
        yield batches.crop([Image.fromarray(batches.pictures.pixels[i]) for i in index], index, choose)


def _invented(batches: Batches, style_pairs: StylePairTable, settings: LayoutSettings) -> Iterator[Tensor]:
    """Each invented subject's drawings in a row, made of an emoji and the next one drawn, which often looks like it."""
    choose, rng = np.random.default_rng((settings.seed, 1)), random.Random(f"layout {settings.seed}")
    for _ in range(0, settings.invented * DRAWINGS, BLOCK):
        drawn = batches.in_order_of_styles(style_pairs.draw(BLOCK // DRAWINGS, choose)).T
        images: list[Image.Image] = []
        for emoji, other in zip(drawn, np.roll(drawn, -1, 0), strict=True):
            first, second = (
                [Image.fromarray(batches.pictures.pixels[i]) for i in rows] for rows in (emoji, other)
            )
            images += variants.invented_drawings(first, second, rng)
        yield batches.crop(images, drawn.reshape(-1), choose)


@dataclass(frozen=True)
class Step:
    """What a step learns from: maps of captioned pictures, pairs and invented subjects, and what is known of them.

    `verdicts` (pictures, captions) speak of the first pictures alone; `extras` are those of `Beside`.
    """

    means: Tensor
    cells: Tensor
    captions: list[language.Caption]
    verdicts: Tensor
    extras: tuple[Tensor, ...]


class Steps:
    """Draws steps; each depends on the seed and its number alone."""

    def __init__(
        self, batches: Batches, style_pairs: StylePairTable, readings: Readings, settings: LayoutSettings
    ) -> None:
        self.batches, self.style_pairs, self.readings, self.settings = (
            batches,
            style_pairs,
            readings,
            settings,
        )

    def draw(self, step: int) -> Step:
        """The step of this number."""
        choose, attributes = np.random.default_rng((self.settings.seed, 2, step)), self.batches.attributes
        index, captions, verdicts = self.batches.words_only(step)
        pairs = self.batches.in_order_of_styles(self.style_pairs.draw(self.settings.pairs, choose))
        invented = choose.choice(self.settings.invented, self.settings.invented_each, replace=False)
        known = np.concatenate([index, pairs.reshape(-1)])
        parts = (self.readings.of(known, choose), self.readings.of_invented(invented))
        means, cells = (torch.cat(part) for part in zip(*parts, strict=True))
        shown = attributes.of_pictures(known)
        styles = shown[len(index) :: self.settings.pairs, self.batches.style]
        unknown = torch.full((len(invented) * DRAWINGS, shown.shape[1]), -1)
        unknown[:, self.batches.style] = styles.repeat_interleave(len(invented))
        ends = (len(index), len(known), len(means))
        places = [np.arange(start, end).reshape(DRAWINGS, -1) for start, end in itertools.pairwise(ends)]
        style_pairs = pair_places(len(means), np.concatenate(places, 1))
        extras = (torch.cat([shown, unknown]), *attributes.of_captions(captions), style_pairs)
        return Step(means, cells, captions, verdicts, extras)


class LayoutLearner(nn.Module):
    """The towers' losses on maps: of the BLIP only what stands behind its convolutions learns."""

    def __init__(self, vl: BlipVL, beside: Beside, settings: LayoutSettings) -> None:
        super().__init__()
        self.tower, self.projection = cast(ConvVisionModel, vl.model.vision_model), vl.model.vision_proj
        self.beside = beside
        self.log_scale = nn.Parameter(torch.tensor(1 / settings.temperature).log())

    def learned(self) -> list[nn.Parameter]:
        """The parameters that are to change."""
        assert self.tower.layout is not None
        parts = (self.tower.layout, self.tower.norm, self.projection, self.beside)
        return [self.log_scale, *(parameter for part in parts for parameter in part.parameters())]

    def forward(self, step: Step, texts: Tensor) -> Tensor:
        """The loss; `texts` (captions, d) are unit vectors."""
        whole = self.tower.whole(step.means, step.cells)
        pictures = functional.normalize(self.projection(whole), dim=-1)
        scale = self.log_scale.clamp(max=float(np.log(50))).exp()
        loss = contrastive(scale * pictures[: len(step.verdicts)] @ texts.T, step.verdicts)
        return loss + cast(Tensor, self.beside(pictures, texts, *step.extras))


def train(vl: BlipVL, pictures: data.Pictures, settings: LayoutSettings) -> None:
    """Teaches the layout head of `vl`, in place."""
    batches = Batches(pictures, _CAPTIONED)
    emoji = [row for row, record in enumerate(pictures.records) if record["source"] == "emoji"]
    vectors = np.zeros((len(pictures), vl.width), np.float32)
    vectors[emoji] = picture_vectors(vl.model, pictures.pixels[emoji], FIFTH.side)
    style_pairs = StylePairTable(pictures.records, DRAWINGS, vectors)
    tower = cast(ConvVisionModel, vl.model.vision_model)
    steps = Steps(batches, style_pairs, Readings(tower, batches, style_pairs, settings), settings)
    torch.manual_seed(settings.seed)
    beside = Beside(batches.attributes, vl.width, Settings(attributes=1.0, style_pairs=1.0))
    learner = LayoutLearner(vl, beside, settings).requires_grad_(False)
    learned = [parameter.requires_grad_(True) for parameter in learner.learned()]
    optimizer = torch.optim.AdamW(learned, weight_decay=settings.weight_decay)
    average = state.Average(learner, settings.average)
    learner.train()
    tower.body.eval()
    losses: list[float] = []
    bar = tqdm(range(settings.steps), desc="training the head")
    for number in bar:
        torch.manual_seed(settings.seed * 1_000_003 + number)
        step = steps.draw(number)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            texts = vl.encode_words(vl.words([caption.text for caption in step.captions])).float()
        loss = learner(step, texts)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * schedule(number, settings.steps, 50)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        average.update(learner, number)
        losses.append(float(loss.detach()))
        if number % 20 == 19:
            bar.set_postfix(loss=f"{np.mean(losses[-20:]):.3f}")
    learner.load_state_dict(average.tensors)


@click.command()
@click.option("--data", "data_folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/bundled"))
@click.option("--vl", "run", type=click.Path(path_type=Path), default=Path("runs/fifth/towers-only"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/layout"))
@click.option("--steps", default=LayoutSettings.steps, show_default=True)
def main(data_folder: Path, cache: Path, run: Path, out: Path, steps: int) -> None:
    """Reads RUN/towers, writes OUT/towers."""
    vl = read_towers(run / "towers")
    pictures = data.training_pictures(data_folder, cache, Settings.drawn, framed=True)
    train(vl, pictures, LayoutSettings(steps=steps))
    save_model(vl.model, vl.tokenizer, out / "towers", vl.preprocessing.size)
    click.echo(f"wrote {out / 'towers'}")


if __name__ == "__main__":
    main()
