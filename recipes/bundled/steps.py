"""Do words point where pictures go? What a change of style or skin tone does to a text and to a picture.

    python -m recipes.bundled.steps --data ../shared/data --vl runs/words/towers

The pictures' step of a change, from value a to value b of an attribute, is the difference of the mean vectors of the
training emoji that show b and of those that show a, of subjects that have both. The text's is T(c m) - T(c), with c a
phrase of the bank that says a and m the words for b, averaged over phrases. A composed query can only move as the text
encoder does, so where the two disagree distillation has nothing good to teach (recipes/LOG.md). A minute on two CPU
cores.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from image2sentence.training.vl.blip import BlipVL
from recipes.bundled import data, words
from recipes.bundled.material import emoji_phrase
from recipes.bundled.targets import read
from recipes.bundled.train_vl import Settings, picture_vectors
from recipes.towers import read_towers

ASKED = {"style": "in {} style", "skin_tone": "with {}"}
PHRASES = 100  # a change


@dataclass(frozen=True)
class Step:
    """A change's steps, averaged over the changes of an attribute."""

    pictures: float  # length
    text: float  # length
    cosine: float  # of both
    along: float  # the text's, along the pictures'

    @classmethod
    def of(cls, pictures: Tensor, texts: Tensor) -> Step:
        """Of both steps of n changes, (n, d)."""
        directions = functional.normalize(pictures, dim=-1)
        along = (texts * directions).sum(-1)
        lengths = texts.norm(dim=-1)
        means = (pictures.norm(dim=-1), lengths, along / lengths.clamp(min=1e-6), along)
        return cls(*(float(values.mean()) for values in means))


def steps(
    vl: BlipVL, records: Sequence[dict[str, str]], vectors: Tensor, attribute: str, rng: random.Random
) -> Step:
    """What changes of `attribute` do to emoji with `vectors` (n, d) and to phrases about them."""
    shown = np.array([record[attribute] for record in records])
    things = np.array([record["thing"] for record in records])
    moved, said = [], []
    for old, new in itertools.permutations(sorted({value for value in shown if value}), 2):
        both = np.isin(things, np.intersect1d(things[shown == old], things[shown == new]))
        before, after = (np.flatnonzero(both & (shown == value)) for value in (old, new))
        moved.append(vectors[after].mean(0) - vectors[before].mean(0))
        phrases = [emoji_phrase(records[row]) for row in rng.sample(before.tolist(), PHRASES)]
        name = words.SYNONYMS.get(attribute, {}).get(new, (new,))[0]
        change = f" {ASKED[attribute].format(name)}"
        said.append((read(vl, [phrase + change for phrase in phrases]) - read(vl, phrases)).mean(0))
    return Step.of(torch.stack(moved), torch.stack(said))


@click.command()
@click.option("--data", "folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/bundled"))
@click.option("--vl", "towers", type=click.Path(path_type=Path), default=Path("runs/words/towers"))
def main(folder: Path, cache: Path, towers: Path) -> None:
    """Prints a Markdown table."""
    vl = read_towers(towers)
    pictures = data.training_pictures(folder, cache, Settings.drawn)
    rows = [row for row, record in enumerate(pictures.records) if record["source"] == "emoji"]
    vectors = torch.from_numpy(picture_vectors(vl.model, pictures.pixels[rows], vl.preprocessing.size))
    records = [pictures.records[row] for row in rows]
    click.echo(
        "| attribute | pictures' step | a text's | cosine of both | of the text's, along the pictures' |"
    )
    click.echo("| --- " * 5 + "|")
    for attribute in ASKED:
        step = steps(vl, records, vectors, attribute, random.Random(0))
        numbers = (step.pictures, step.text, step.cosine, step.along)
        click.echo(f"| {attribute} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |")


if __name__ == "__main__":
    main()
