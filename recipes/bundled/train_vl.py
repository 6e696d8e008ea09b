"""Trains the bundled model's vision-language model: a small BLIP, from pictures and captions with exact attributes.

    python -m recipes.bundled.train_vl --data ../shared/data --out runs/vl
    python -m recipes.bundled.train_vl --data ../shared/data --out runs/second --round 2 --start runs/vl/model
    python -m recipes.bundled.train_vl --data ../shared/data --out runs/third --round 3 --start runs/second/model
    python -m recipes.bundled.train_vl --data ../shared/data --out runs/fourth --round 4 --start runs/third/model
    python -m recipes.bundled.train_vl --data ../shared/data --out runs/fifth --round 5 --start runs/fourth/model

The second round has the loss of attribute_loss.py beside the contrastive one, the third that of style_pairs.py, too;
the fourth draws what is easily confused into one batch, and things that nobody has drawn; the fifth has larger pictures
and a head that says where in them things are. Interrupt any of them at any time; the same command goes on from the
last saved step.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
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
from transformers import BlipForImageTextRetrieval

from image2sentence.training.vl.conv_blip import ConvBlipForImageTextRetrieval, conv_blip_config
from recipes.bundled import data, language, variants
from recipes.bundled.attribute_loss import AttributeLoss, AttributeTable
from recipes.bundled.style_pairs import StylePairLoss, StylePairTable
from recipes.bundled.vocabulary import build_tokenizer
from recipes.towers import TowerBatch, TowerSettings, normalise, read_towers, train_towers

_REACH = 4  # an emoji's look-alikes lie next to it in a batch: so many places either way
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
class Settings(TowerSettings):
    """What, beside the pictures, decides the result."""

    drawn: int = 16_000
    captions: int = 2
    edits: float = 0.45
    unknown: float = 0.08  # share of captions with an unknown word somewhere: it must not upset the rest
    shares: tuple[float, float, float] = (0.45, 0.2, 0.35)  # drawn, photo, emoji
    attributes: float = 0.0  # weight of the loss of attribute_loss.py
    style_pairs: float = 0.0  # weight of the loss of style_pairs.py
    balance: float = 0.0  # a photograph's chance is its type's count to the power of minus this
    photo_crop: float = 0.7  # the smallest crop of a photograph, as a share of its side
    side: int = 112  # of what the tower sees, in pixels
    layout: int = 0  # channels of the head for where things are; 0: none
    drawings: int = 2  # of one emoji in a batch, each in a style of its own
    alike: bool = False  # whether emoji that look alike to the model to begin with come together
    framed: bool = False  # whether photographs come small on white, too
    invented: int = 0  # things in a batch, beside it, that nobody has drawn: variants.invented_drawings


SECOND = Settings(
    seed=1,
    steps=4_800,
    learning_rate=2e-3,
    warmup=100,
    temperature=0.03,
    attributes=1.0,
    shares=(0.38, 0.2, 0.42),
    photo_crop=0.55,
    early=1_000,  # subjects never seen are best known there, seen products in the end (recipes/LOG.md)
    early_share=0.35,
)

THIRD = Settings(
    seed=2,
    batch=160,
    steps=2_000,
    learning_rate=1e-3,
    warmup=100,
    temperature=0.03,
    attributes=1.0,
    style_pairs=1.0,
    shares=(0.28, 0.2, 0.52),
    balance=0.6,
    photo_crop=0.55,
)

FOURTH = replace(
    THIRD,
    seed=3,
    steps=1_400,
    batch=168,
    shares=(0.26, 0.2, 0.54),
    drawings=3,
    alike=True,
    framed=True,
    invented=14,
)

FIFTH = replace(FOURTH, seed=4, steps=500, side=128, layout=256)


class Batches:
    """Draws training batches; the batch of a step depends on the seed and the step alone, so a run can resume.

    `vectors` (pictures, d) are those of the model to begin with, of emoji at least, for `settings.alike`.
    """

    def __init__(
        self, pictures: data.Pictures, settings: Settings, vectors: NDArray[np.float32] | None = None
    ) -> None:
        self.pictures, self.settings = pictures, settings
        self.subjects = data.subjects(pictures.records)
        self.facts = language.facts(pictures.records, self.subjects)
        self.attributes = AttributeTable(pictures.records, self.subjects)
        self.style = self.attributes.names.index("style")
        self.style_pairs = StylePairTable(pictures.records, settings.drawings, vectors)
        self.sources = np.array([language.VALUES["source"].index(r["source"]) for r in pictures.records])
        self.members = [np.flatnonzero(self.sources == source) for source in range(3)]
        self.chances: list[NDArray[np.float64] | None] = [None, None, None]
        if settings.balance:
            types = [pictures.records[i]["type"] for i in self.members[_PHOTO]]
            self.chances[_PHOTO] = _balanced(types, settings.balance)
        crops = (self._smallest_crop(record) for record in pictures.records)
        self.crops = np.fromiter(crops, np.float64, len(pictures))
        self.flips = np.array([not _SIDED & set(r.get("thing", "").split()) for r in pictures.records])

    def ahead(self, first: int) -> Iterator[TowerBatch]:
        """The batches of steps `first`, `first + 1`, ...; each is made while the one before is being used."""
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self.draw, first)
            for step in range(first, self.settings.steps):
                batch, coming = coming.result(), pool.submit(self.draw, step + 1)
                yield batch

    def draw(self, step: int) -> TowerBatch:
        """The batch of a step: `settings.side` pixels a side, captions picture by picture, extras for `Beside`.

        The last pictures are those of invented subjects; no caption can be judged of them.
        """
        choose = np.random.default_rng((self.settings.seed, step))
        index, places = self._choose(choose)
        captions, verdicts = self._say(step, index)
        shown, said = self.attributes.of_pictures(index), self.attributes.of_captions(captions)
        wholes = [Image.fromarray(self.pictures.pixels[i]) for i in index]
        origin, images = self._invented(step, wholes, shown[:, self.style].numpy()[places], places, choose)
        new = np.arange(len(index), len(index) + len(origin)).reshape(-1, self.settings.drawings).T
        places = np.concatenate([places, new], 1)
        unknown = torch.full((len(origin), shown.shape[1]), -1)
        unknown[:, self.style] = shown[origin, self.style]
        index, shown = np.concatenate([index, index[origin]]), torch.cat([shown, unknown])
        verdicts = functional.pad(verdicts, (0, 0, 0, len(origin)), value=-1)
        style_pairs = pair_places(len(index), places)
        pixels = self.crop([*wholes, *images], index, choose)
        return TowerBatch(pixels, captions, verdicts, (shown, *said, style_pairs))

    def words_only(self, step: int) -> tuple[NDArray[np.int64], list[language.Caption], Tensor]:
        """As `draw`, with the pictures' numbers in place of their pixels."""
        index, _ = self._choose(np.random.default_rng((self.settings.seed, step)))
        return index, *self._say(step, index)

    def _choose(self, choose: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The batch's pictures, and (drawings, emoji) where in it each emoji's drawings are, styles in one order."""
        counts = choose.multinomial(self.settings.batch, self.settings.shares)
        parts = zip(self.members, counts, self.chances, strict=True)
        index = np.concatenate([choose.choice(m, c, p=p) for m, c, p in parts])
        if not self.settings.style_pairs:
            return index, np.empty((self.settings.drawings, 0), np.int64)
        emoji = counts[2] // self.settings.drawings
        drawn = self.style_pairs.draw(emoji, choose)
        first = len(index) - drawn.size
        index[first:] = drawn.reshape(-1)
        places = np.arange(first, len(index)).reshape(drawn.shape)
        return index, np.take_along_axis(places, self._by_style(drawn), 0)

    def in_order_of_styles(self, drawn: NDArray[np.int64]) -> NDArray[np.int64]:
        """Pictures (drawings, emoji) with each emoji's drawings in one order of styles."""
        return np.take_along_axis(drawn, self._by_style(drawn), 0)

    def _by_style(self, drawn: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.attributes.shown[drawn, self.style].argsort(0)

    def _invented(
        self,
        step: int,
        wholes: Sequence[Image.Image],
        styles: NDArray[np.int64],
        places: NDArray[np.int64],
        choose: np.random.Generator,
    ) -> tuple[NDArray[np.int64], list[Image.Image]]:
        """Drawings of invented subjects, each one's in a row, and which of `wholes` each was made of.

        `places` (drawings, emoji) says where in `wholes` the emoji are, `styles` of the same shape in which style. A
        subject is made of an emoji and of another one near it in the batch, where look-alikes are.
        """
        if not self.settings.invented:
            return np.empty(0, np.int64), []
        order = np.arange(places.shape[1])
        near = (np.abs(order[:, None] - order) <= _REACH) & (order[:, None] != order)
        fit = near & (styles[:, :, None] == styles[:, None]).all(0)
        chosen = choose.permutation(np.flatnonzero(fit.any(1)))[: self.settings.invented]
        rng = random.Random(f"invented {self.settings.seed}/{step}")
        images = []
        for emoji in chosen:
            other = choose.choice(np.flatnonzero(fit[emoji]))
            first, second = ([wholes[place] for place in places[:, column]] for column in (emoji, other))
            images += variants.invented_drawings(first, second, rng)
        return places.T[chosen].reshape(-1), images

    def _say(self, step: int, index: NDArray[np.int64]) -> tuple[list[language.Caption], Tensor]:
        rng = random.Random(f"{self.settings.seed}/{step}")
        captions = [self._caption(int(i), turn, rng) for i in index for turn in range(self.settings.captions)]
        return captions, torch.from_numpy(language.judge(self.facts[index], captions, self.subjects))

    def _caption(self, index: int, turn: int, rng: random.Random) -> language.Caption:
        record = self.pictures.records[index]
        edited = rng.random() < self.settings.edits * 2 and turn % 2 == 1
        caption = language.edit(record, rng) if edited else language.describe(record, rng)
        return _with_unknown_word(caption, rng) if rng.random() < self.settings.unknown else caption

    def _smallest_crop(self, record: language.Record) -> float:
        """As a share of the side: of a product on white nothing may be lost, of a photograph its surroundings."""
        return self.settings.photo_crop if record["source"] == "photo" and "framed" not in record else 0.85

    def crop(
        self, wholes: Sequence[Image.Image], index: NDArray[np.int64], choose: np.random.Generator
    ) -> Tensor:
        """(B, 3, S, S) uint8: `wholes`, cropped and mirrored as the pictures `index` (B,) may be."""
        size = (self.settings.side, self.settings.side)
        out = np.empty((len(index), *size, 3), np.uint8)
        sides = data.SIDE * choose.uniform(self.crops[index], 1)
        places = choose.random((len(index), 2)) * (data.SIDE - sides)[:, None]
        flips = (choose.random(len(index)) < 0.5) & self.flips[index]
        for row, (whole, (x, y), side, flip) in enumerate(zip(wholes, places, sides, flips, strict=True)):
            crop = whole.resize(size, Image.Resampling.BILINEAR, box=(x, y, x + side, y + side))
            out[row] = np.asarray(crop)[:, ::-1] if flip else np.asarray(crop)
        return torch.from_numpy(out).permute(0, 3, 1, 2)


def pair_places(pictures: int, places: NDArray[np.int64]) -> Tensor:
    """(pictures, drawings - 1) int64: the others in a picture's column of `places` (drawings, emoji); else -1."""
    style_pairs = torch.full((pictures, len(places) - 1), -1)
    for turn, here in enumerate(places):
        style_pairs[here] = torch.from_numpy(np.delete(places, turn, 0).T)
    return style_pairs


def _balanced(types: Sequence[str], power: float) -> NDArray[np.float64]:
    """Chances (len(types),) that sum to 1; each type's share is its count to the power of 1 - `power`."""
    counts = Counter(types)
    chances = np.array([counts[kind] ** -power for kind in types])
    return chances / chances.sum()


def _with_unknown_word(caption: language.Caption, rng: random.Random) -> language.Caption:
    parts = caption.text.split(" ")
    parts.insert(rng.randrange(len(parts) + 1), "[UNK]")
    return replace(caption, text=" ".join(parts))


class Beside(nn.Module):
    """The losses beside the contrastive one; every part's weight is its own."""

    def __init__(self, table: AttributeTable, width: int, settings: Settings) -> None:
        super().__init__()
        self.style = table.names.index("style")
        self.attributes = AttributeLoss(table, width, settings.attributes)
        self.style_pairs = StylePairLoss(table.sizes[self.style], width, settings.style_pairs)

    def forward(
        self,
        pictures: Tensor,
        texts: Tensor,
        shown: Tensor,
        allowed: Tensor,
        stated: Tensor,
        style_pairs: Tensor,
    ) -> Tensor:
        """Pictures (B, d), texts (captions, d); the rest as `Batches.draw` has it."""
        loss = self.attributes(pictures, texts, shown, allowed, stated)
        return cast(Tensor, loss + self.style_pairs(pictures, shown[:, self.style], style_pairs))


def build_model(settings: Settings, vocabulary: int) -> BlipForImageTextRetrieval:
    """New towers, drawn by the seed."""
    torch.manual_seed(settings.seed)
    return ConvBlipForImageTextRetrieval(conv_blip_config(vocabulary)).to(memory_format=torch.channels_last)


def read_model(folder: Path, vocabulary: int) -> BlipForImageTextRetrieval:
    """Towers that an earlier stage has left, in float32."""
    vl = read_towers(folder)
    if vl.tokenizer.get_vocab_size() != vocabulary:
        raise click.ClickException(f"{folder} knows other words than these pictures' captions use")
    return vl.model.requires_grad_(True).to(memory_format=torch.channels_last)


def with_layout(model: BlipForImageTextRetrieval, settings: Settings) -> BlipForImageTextRetrieval:
    """The same towers, for pictures of `settings.side`, with a layout head that adds nothing yet if they have none."""
    torch.manual_seed(settings.seed)
    vision = model.config.vision_config
    vision.image_size, vision.layout = settings.side, settings.layout
    return rebuilt(model)


def rebuilt(model: BlipForImageTextRetrieval) -> BlipForImageTextRetrieval:
    """The same weights in a model of `model.config`, which has grown: what is new in it counts for nothing yet."""
    larger = ConvBlipForImageTextRetrieval(model.config)
    after = larger.state_dict()
    for name, tensor in model.state_dict().items():
        if tensor.ndim > 1:
            after[name].zero_()
        after[name][tuple(map(slice, tensor.shape))] = tensor
    return larger.to(memory_format=torch.channels_last)


@torch.no_grad()
def picture_vectors(
    model: BlipForImageTextRetrieval, pixels: NDArray[np.uint8], side: int
) -> NDArray[np.float32]:
    """(n, d) float32: unit vectors of `pixels` (n, S, S, 3), each picture read whole at `side` pixels a side."""
    model.eval()
    found = []
    for start in tqdm(range(0, len(pixels), 64), desc="reading pictures"):
        block = torch.from_numpy(pixels[start : start + 64]).permute(0, 3, 1, 2)
        small = functional.interpolate(block, size=side, mode="bilinear", antialias=True)
        with torch.autocast("cpu", torch.bfloat16):
            patches = model.vision_model(pixel_values=normalise(small)).last_hidden_state
            projected = model.vision_proj(patches[:, 0])
        found.append(functional.normalize(projected.float(), dim=-1).numpy())
    return np.concatenate(found)


def train(pictures: data.Pictures, settings: Settings, out: Path, start: Path | None = None) -> None:
    """Trains the towers on `pictures` and writes them to `out/towers`; goes on from what `out` holds."""
    tokenizer = build_tokenizer(pictures.records)
    words = tokenizer.get_vocab_size()
    model = read_model(start, words) if start else build_model(settings, words)
    if settings.layout:
        model = with_layout(model, settings)
    vectors = None
    if settings.alike:
        emoji = [row for row, record in enumerate(pictures.records) if record["source"] == "emoji"]
        vectors = np.zeros((len(pictures), model.config.projection_dim), np.float32)
        vectors[emoji] = picture_vectors(model, pictures.pixels[emoji], settings.side)
    batches = Batches(pictures, settings, vectors)
    width = model.config.projection_dim
    torch.manual_seed(settings.seed)  # a model that was read has drawn nothing
    beside = Beside(batches.attributes, width, settings) if settings.attributes else None
    train_towers(model, tokenizer, batches, settings, out, settings.side, beside)


@click.command()
@click.option("--data", "data_folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/bundled"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/vl"))
@click.option(
    "--start",
    type=click.Path(path_type=Path),
    help="The towers to begin with: those of the round before.",
)
@click.option(
    "--round",
    "turn",
    type=click.IntRange(1, 5),
    default=1,
    show_default=True,
    help="Whose settings and losses.",
)
@click.option("--steps", type=int, help="Instead of the round's own number.")
@click.option("--attributes", type=float, help="Instead of the round's own weight.")
@click.option("--seed", type=int, help="Instead of the round's own.")
def main(
    data_folder: Path,
    cache: Path,
    out: Path,
    start: Path | None,
    turn: int,
    steps: int | None,
    attributes: float | None,
    seed: int | None,
) -> None:
    """Trains the small BLIP and writes it to OUT/towers."""
    if (turn > 1) != (start is not None):
        raise click.UsageError("--start and --round 2 and later go together")
    given = {"steps": steps, "attributes": attributes, "seed": seed}
    settings = replace(
        (Settings(), SECOND, THIRD, FOURTH, FIFTH)[turn - 1],
        **{name: value for name, value in given.items() if value is not None},
    )
    pictures = data.training_pictures(data_folder, cache, settings.drawn, settings.framed)
    started = time.monotonic()
    train(pictures, settings, out, start)
    minutes = (time.monotonic() - started) / 60
    click.echo(f"{len(pictures)} pictures, {settings.steps} steps, {minutes:.1f} minutes -> {out}/towers")


if __name__ == "__main__":
    main()
