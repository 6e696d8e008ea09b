"""What words mean among photographs and emoji, learned again once the pictures' vectors stand still.

    python -m recipes.bundled.train_words --data ../shared/data --vl runs/fourth/vl --out runs/words

A contrastive loss asks of a caption's vector that it be near its own pictures, in batches that hold a rare garment
once or not at all; which directions tell a blazer from an overcoat is better read off all photographs at once. That is
what Fisher's linear discriminant does: C^-1 (mean of the pictures of which the caption is true - mean of all), with C
the pictures' covariance. Captions about photographs move a share of the way there.

Captions about emoji go to their pictures' mean, so that a change of words is as long as the change of pictures and
points the same way: with a text encoder that stood still while the tower learned, it covered half of the way
(recipes/LOG.md has figures). Captions about drawn products are held where they were; the visual tower and the words'
embeddings stay as they are. Ten minutes on two CPU cores.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from image2sentence.training.trainer import schedule
from image2sentence.training.vl.blip import BlipVL
from recipes.bundled import data, language
from recipes.bundled.train_vl import Batches, Settings, picture_vectors
from recipes.towers import read_towers, save_model

_ADDED = ("thing", "style", "skin_tone", "gender_word")


@dataclass(frozen=True)
class WordSettings:
    """A caption about photographs goes `share` of the way to its discriminant; half of that if true of only `few`.

    `shrinkage` is that of `DrawingMeans`.
    """

    steps: int = 900
    batch: int = 128
    learning_rate: float = 5e-4
    share: float = 1.0
    few: float = 10.0
    shrinkage: float = 0.3
    shares: tuple[float, float, float] = (0.25, 0.35, 0.4)  # drawn, photo, emoji
    ridge: float = 0.3  # added to the covariance's diagonal, in units of its mean
    seed: int = 0


class DrawingMeans:
    """Where captions about emoji belong: the mean of the pictures of which each is true, as their attributes say it.

    A picture's vector is taken to be a sum of what its subject, style, skin tone and gender word add, fitted to all
    emoji with `vectors` (n, d) by ridge regression. So two captions that differ in a style are as far apart as the
    styles' pictures are, whatever the subject. `shrinkage` counts as that many pictures which add nothing to any value.
    """

    def __init__(self, vectors: Tensor, records: Sequence[dict[str, str]], shrinkage: float) -> None:
        subjects = data.subjects(records)
        self._subjects, self._facts = subjects, language.facts(records, subjects)
        values = [sorted({record[name] for record in records}) for name in _ADDED]
        columns = [
            functional.one_hot(
                torch.tensor([options.index(record[name]) for record in records]), len(options)
            )
            for name, options in zip(_ADDED, values, strict=True)
        ]
        shown = torch.cat(columns, 1).float()
        moment = shown.T @ shown + shrinkage * torch.eye(shown.shape[1])
        mean = vectors.mean(0)
        self.vectors = mean + shown @ torch.linalg.solve(moment, shown.T @ (vectors - mean))

    def __call__(self, captions: Sequence[language.Caption]) -> Tensor:
        """(captions, d) unit vectors; zeros for a caption that is true of none."""
        true = torch.from_numpy(language.judge(self._facts, captions, self._subjects) == 1).float().T
        return functional.normalize(true @ self.vectors, dim=-1)


class Discriminants:
    """Fisher's discriminant of any caption among photographs with `vectors` (n, d) and `facts`."""

    def __init__(self, vectors: Tensor, facts: language.Facts, ridge: float) -> None:
        self.vectors, self.facts = vectors, facts
        covariance = torch.cov(vectors.T, correction=0)
        covariance += ridge * covariance.diagonal().mean() * torch.eye(len(covariance))
        self.inverse = torch.linalg.inv(covariance)

    def __call__(self, captions: Sequence[language.Caption]) -> tuple[Tensor, Tensor]:
        """Unit vectors (captions, d), and (captions,) of how many photographs each caption is true.

        Photographs of which it is not known are left out; a caption true of none or of all has a vector of zeros.
        """
        verdicts = torch.from_numpy(language.judge(self.facts, captions, {})).T
        true, judged = (verdicts == 1).float(), (verdicts >= 0).float()
        counts, of = true.sum(1), judged.sum(1)
        means = [part @ self.vectors / part.sum(1, keepdim=True).clamp(min=1) for part in (true, judged)]
        telling = ((counts > 0) & (counts < of)).float()[:, None]
        directions = (means[0] - means[1]) @ self.inverse
        return telling * functional.normalize(directions, dim=-1), counts * telling[:, 0]


def aims(settings: WordSettings, before: Tensor, found: Tensor, counts: Tensor) -> Tensor:
    """Where captions with vectors `before` (n, d) shall go, given discriminants `found` (n, d): unit vectors."""
    shares = (settings.share * counts / (counts + settings.few))[:, None]
    return functional.normalize((1 - shares) * before + shares * found, dim=-1)


def train(vl: BlipVL, pictures: data.Pictures, settings: WordSettings) -> None:
    """Moves the text encoder of `vl`, in place."""
    photographs, emoji = (_of_source(vl, pictures, source) for source in ("photo", "emoji"))
    discriminants = Discriminants(photographs[0], language.facts(photographs[1], {}), settings.ridge)
    means = DrawingMeans(*emoji, settings.shrinkage)
    drawn = Settings(seed=settings.seed, batch=settings.batch, shares=settings.shares, balance=0.6)
    batches = Batches(pictures, drawn)
    before = copy.deepcopy(vl)
    learned = [*vl.model.text_encoder.encoder.parameters(), *vl.model.text_proj.parameters()]
    learned = [parameter.requires_grad_(True) for parameter in learned]
    optimizer = torch.optim.AdamW(learned, lr=settings.learning_rate, weight_decay=0.0)
    bar = tqdm(range(settings.steps), desc="training words")
    for step in bar:
        captions = batches.words_only(step)[1]
        texts = [caption.text for caption in captions]
        sources = np.array([caption.source for caption in captions])
        about = {source: torch.from_numpy(sources == source) for source in ("drawn", "photo", "emoji")}
        found, counts = discriminants([caption for caption in captions if caption.source == "photo"])
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                wanted = before.encode_words(before.words(texts)).float()
            said = vl.encode_words(vl.words(texts))
        wanted[about["photo"]] = aims(settings, wanted[about["photo"]], found, counts)
        wanted[about["emoji"]] = means([caption for caption in captions if caption.source == "emoji"])
        away = 1 - (said.float() * wanted).sum(-1)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * schedule(step, settings.steps, 50)
        optimizer.zero_grad()
        away.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 20 == 19:
            bar.set_postfix({source: f"{away[those].mean():.3f}" for source, those in about.items()})


def _of_source(vl: BlipVL, pictures: data.Pictures, source: str) -> tuple[Tensor, list[dict[str, str]]]:
    """The vectors (n, d) of all pictures of a source, and their records."""
    rows = [row for row, record in enumerate(pictures.records) if record["source"] == source]
    vectors = picture_vectors(vl.model, pictures.pixels[rows], vl.preprocessing.size)
    return torch.from_numpy(vectors), [pictures.records[row] for row in rows]


@click.command()
@click.option("--data", "data_folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/bundled"))
@click.option("--vl", "run", type=click.Path(path_type=Path), default=Path("runs/fourth/vl"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/words"))
@click.option(
    "--share", default=WordSettings.share, show_default=True, help="Of the way to the discriminant."
)
@click.option("--steps", default=WordSettings.steps, show_default=True)
def main(data_folder: Path, cache: Path, run: Path, out: Path, share: float, steps: int) -> None:
    """Reads RUN/towers, writes OUT/towers."""
    vl = read_towers(run / "towers")
    pictures = data.training_pictures(data_folder, cache, Settings.drawn)
    train(vl, pictures, WordSettings(share=share, steps=steps))
    save_model(vl.model, vl.tokenizer, out / "towers", vl.preprocessing.size)
    click.echo(f"wrote {out / 'towers'}")


if __name__ == "__main__":
    main()
