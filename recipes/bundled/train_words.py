"""What a garment's words mean among photographs, learned again once the pictures' vectors stand still.

    python -m recipes.bundled.train_words --data ../shared/data --vl runs/fourth/vl --out runs/words

A contrastive loss asks of a caption's vector that it be near its own pictures, in batches that hold a rare garment
once or not at all; which directions tell a blazer from an overcoat is better read off all photographs at once. That is
what Fisher's linear discriminant does: C^-1 (mean of the pictures of which the caption is true - mean of all), with C
the pictures' covariance. The text encoder moves a share of the way there for captions about photographs and is held
where it was for all others; the visual tower and the words' embeddings stay as they are. Ten minutes on two CPU cores.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from image2sentence.training.loop import schedule
from image2sentence.training.vl.blip import BlipVL
from recipes.bundled import data, language
from recipes.bundled.train_vl import Batches, Settings, picture_vectors
from recipes.towers import read_towers, save_model


@dataclass(frozen=True)
class WordSettings:
    """A caption goes `share` of the way to its discriminant; half of that if it is true of only `few` photographs."""

    steps: int = 900
    batch: int = 128
    learning_rate: float = 5e-4
    share: float = 0.9
    few: float = 10.0
    ridge: float = 0.3  # added to the covariance's diagonal, in units of its mean
    seed: int = 0


class Discriminants:
    """Fisher's discriminant of any caption among photographs with `vectors` (n, d) and `facts`."""

    def __init__(self, vectors: Tensor, facts: language.Facts, ridge: float) -> None:
        self.vectors, self.facts = vectors, facts
        covariance = torch.cov(vectors.T, correction=0)
        covariance += ridge * covariance.diagonal().mean() * torch.eye(len(covariance))
        self.inverse = torch.linalg.inv(covariance)

    def __call__(self, captions: Sequence[language.Caption]) -> tuple[Tensor, Tensor]:
        """Unit vectors (captions, d), and (captions,) of how many photographs each caption is true.

        Photographs of which it cannot be told are left out; a caption true of none or of all has a vector of zeros.
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
    photos = [row for row, record in enumerate(pictures.records) if record["source"] == "photo"]
    vectors = torch.from_numpy(picture_vectors(vl.model, pictures.pixels[photos], vl.preprocessing.size))
    facts = language.facts([pictures.records[row] for row in photos], {})
    discriminants = Discriminants(vectors, facts, settings.ridge)
    drawn = Settings(seed=settings.seed, batch=settings.batch, shares=(0.25, 0.5, 0.25), balance=0.6)
    batches = Batches(pictures, drawn)
    before = copy.deepcopy(vl)
    learned = [*vl.model.text_encoder.encoder.parameters(), *vl.model.text_proj.parameters()]
    learned = [parameter.requires_grad_(True) for parameter in learned]
    optimizer = torch.optim.AdamW(learned, lr=settings.learning_rate, weight_decay=0.0)
    bar = tqdm(range(settings.steps), desc="training words")
    for step in bar:
        captions = batches.words_only(step)[1]
        texts = [caption.text for caption in captions]
        about = torch.tensor([caption.source == "photo" for caption in captions])
        found, counts = discriminants([caption for caption in captions if caption.source == "photo"])
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                wanted = before.encode_words(before.words(texts)).float()
            said = vl.encode_words(vl.words(texts))
        wanted[about] = aims(settings, wanted[about], found, counts)
        away = 1 - (said.float() * wanted).sum(-1)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * schedule(step, settings.steps, 50)
        optimizer.zero_grad()
        away.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 20 == 19:
            bar.set_postfix(photos=f"{away[about].mean():.3f}", others=f"{away[~about].mean():.3f}")


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
