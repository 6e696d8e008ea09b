"""Shapes that photographs of everything have taught, learned from a teacher's maps place by place: the tower's branch.

    python -m recipes.bundled.train_shapes --data ../shared/data --vl runs/fifth/towers-only --out runs/shapes

The tower knows the shapes that our pictures have taught it. MobileNetV2 (general.py) knows more of them, and where they
are. A branch of two blocks learns to say what its maps say, on pictures without labels and their variants; train_layout
then has the head read it. A trial and no stage of the bundled model: recipes/LOG.md has what it gave. The tower itself
stands still, so both maps are computed once. Ten minutes on two CPU cores, 5 GB of memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from image2sentence.images import load_image
from image2sentence.training.trainer import schedule
from image2sentence.training.vl.blip import BlipVL
from image2sentence.training.vl.conv_blip import ConvVisionModel
from recipes.bundled import general
from recipes.bundled.train_vl import rebuilt
from recipes.towers import normalise, read_towers, save_model

BLOCK = 64  # pictures read at a time


@dataclass(frozen=True)
class ShapeSettings:
    """`channels` of the branch, `pictures` of the material, and the optimiser's choices."""

    seed: int = 6
    channels: int = 88
    pictures: int = 60_000
    steps: int = 5_000
    batch: int = 128
    rate: float = 2e-3
    weight_decay: float = 0.02


@dataclass(frozen=True)
class Pairs:
    """What the branch reads (n, C, 2 h, 2 w) and what the teacher says (n, 96, h, w), float16."""

    read: Tensor
    said: Tensor


def chosen(material: Path, settings: ShapeSettings) -> list[Path]:
    """The pictures to learn from: so many of all below `material`/pictures, in an order of their own.

    Raises:
        click.ClickException: there are none.
    """
    paths = sorted(path for path in (material / "pictures").glob("*/*") if path.suffix != ".draft")
    if not paths:
        raise click.ClickException(f"no pictures below {material / 'pictures'}: run recipes.bundled.material")
    return random.Random(settings.seed).sample(paths, min(settings.pictures, len(paths)))


def _pixels(paths: Sequence[Path], side: int) -> Iterator[Tensor]:
    """Blocks (B, 3, side, side) uint8."""

    def read(path: Path) -> NDArray[np.uint8]:
        return np.asarray(load_image(path).resize((side, side), Image.Resampling.BILINEAR))

    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(paths), BLOCK):
            block = np.stack(list(pool.map(read, paths[start : start + BLOCK])))
            yield torch.from_numpy(block).permute(0, 3, 1, 2)


@torch.no_grad()
def read_pairs(tower: ConvVisionModel, teacher: general.Shapes, paths: Sequence[Path], side: int) -> Pairs:
    """Both maps of the pictures `paths`, each seen whole at `side` pixels."""
    tower.eval()
    read, said = [], []
    with tqdm(total=len(paths), desc="reading pictures") as bar:
        for pixels in _pixels(paths, side):
            with torch.autocast("cpu", torch.bfloat16):
                read.append(tower.maps(normalise(pixels))[0].half())
                said.append(teacher(pixels).half())
            bar.update(len(pixels))
    return Pairs(torch.cat(read), torch.cat(said))


def with_shapes(vl: BlipVL, settings: ShapeSettings) -> None:
    """Gives the tower of `vl` a branch, of which its layout head makes nothing yet."""
    torch.manual_seed(settings.seed)
    vl.model.config.vision_config.shapes = settings.channels
    vl.model = rebuilt(vl.model)


def train(branch: nn.Module, pairs: Pairs, settings: ShapeSettings) -> float:
    """Teaches `branch`, in place; what is left of the teacher's variance in the last 200 steps.

    The layer that turns the branch's channels into the teacher's is thrown away.
    """
    torch.manual_seed(settings.seed)
    sample = pairs.said[:4096].float()
    mean, spread = (part[:, None, None] for part in (sample.mean((0, 2, 3)), sample.std((0, 2, 3))))
    says = nn.Conv2d(settings.channels, general.CHANNELS, 1)
    learned = [*branch.parameters(), *says.parameters()]
    optimizer = torch.optim.AdamW(learned, weight_decay=settings.weight_decay)
    choose = np.random.default_rng(settings.seed)
    branch.train()
    losses: list[float] = []
    bar = tqdm(range(settings.steps), desc="training the branch")
    for step in bar:
        rows = torch.from_numpy(np.sort(choose.integers(0, len(pairs.read), settings.batch)))
        with torch.autocast("cpu", torch.bfloat16):
            said = says(branch(pairs.read[rows].float().contiguous(memory_format=torch.channels_last)))
        loss = (said.float() - (pairs.said[rows].float() - mean) / spread).square().mean()
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * schedule(step, settings.steps, 100)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % 50 == 49:
            bar.set_postfix(left=f"{np.mean(losses[-200:]):.3f}")
    branch.eval()
    return float(np.mean(losses[-200:]))


@click.command()
@click.option("--data", "data_folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--material", type=click.Path(path_type=Path), default=Path("runs/bundled/material"))
@click.option("--vl", "run", type=click.Path(path_type=Path), default=Path("runs/fifth/towers-only"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/shapes"))
@click.option("--steps", default=ShapeSettings.steps, show_default=True)
def main(data_folder: Path, material: Path, run: Path, out: Path, steps: int) -> None:
    """Reads RUN/towers, writes OUT/towers."""
    settings = ShapeSettings(steps=steps)
    paths, teacher = chosen(material, settings), general.load_shapes(data_folder)
    vl = read_towers(run / "towers")
    with_shapes(vl, settings)
    tower = cast(ConvVisionModel, vl.model.vision_model)
    assert tower.shapes is not None
    branch = tower.shapes.requires_grad_(True)
    left = train(branch, read_pairs(tower, teacher, paths, vl.preprocessing.size), settings)
    save_model(vl.model, vl.tokenizer, out / "towers", vl.preprocessing.size)
    click.echo(f"{left:.0%} of the teacher's variance left -> {out / 'towers'}")


if __name__ == "__main__":
    main()
