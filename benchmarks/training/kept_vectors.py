"""An epoch with kept gallery vectors against one that computes them anew, with a VL model of full size.

    python -m benchmarks.training.kept_vectors [--vl blip] [--light mobilenet-v2]

The VL model has random weights and the size of Salesforce/blip-itm-base-coco (see full_size.py). Both epochs take the
same batches through the same steps of training, GCD and modifier-aware distillation; the second also runs each batch's
pictures through the large visual tower. A third one shows what LAR takes, which needs patch features of a quarter of
each batch and so cannot do without that tower.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import torch

from benchmarks.training.full_size import KINDS, save_vl
from image2sentence.catalogue import write_catalogue
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.images import load_image
from image2sentence.training import phrase_bank as phrases
from image2sentence.training.dataset import Collection, collect
from image2sentence.training.models.query_model import build_query_model
from image2sentence.training.settings import TrainSettings
from image2sentence.training.trainer import Trainer
from image2sentence.training.vl.base import VisionLanguageModel
from image2sentence.training.vl.load import load_vl

BATCH = 32
SETTINGS = TrainSettings(batch=BATCH, lar="off", validation=8, precision="no")


def make_trainer(
    vl: VisionLanguageModel, light: str, collection: Collection, settings: TrainSettings, out: Path
) -> Trainer:
    """A trainer with a few words."""
    bank = phrases.build_bank(
        vl, phrases.WordLists(["a red shirt", "a blue mug", "a green dress"], ["in blue", "but striped"])
    )
    return Trainer(vl, build_query_model(vl, light, settings.learner), collection, settings, out, bank)


@torch.no_grad()
def encode(trainer: Trainer, index: torch.Tensor) -> None:
    """What keeping the vectors saves: the batch's pictures, decoded and encoded by the large tower."""
    paths = [trainer.loader.paths[i] for i in index.tolist()]
    images = [load_image(path, at_least=trainer.vl.preprocessing.size) for path in paths]
    trainer.vl.encode_images(torch.from_numpy(to_pixels(images, trainer.vl.preprocessing)))


def epoch(trainer: Trainer, steps: int, *, anew: bool = False) -> float:
    """Pictures per second over `steps` steps, after one that is not counted."""
    batches = trainer.loader.ahead(0, steps + 1)
    for step, batch in enumerate(batches):
        if step == 1:
            start = time.perf_counter()
        if anew:
            encode(trainer, batch.index)
        trainer._step(step, [batch])
    return steps * BATCH / (time.perf_counter() - start)


@click.command()
@click.option("--vl", "name", type=click.Choice(sorted(KINDS)), default="blip", show_default=True)
@click.option("--light", default="mobilenet-v2", show_default=True)
@click.option("--steps", default=2, show_default=True, help=f"Batches of {BATCH} to an epoch.")
@click.option("--layers", default=0, help="Of each tower, for a quick look; 0: as many as the real one has.")
def main(name: str, light: str, steps: int, layers: int) -> None:
    """Measure both kinds of epoch."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_vl(KINDS[name], folder / "vl", layers)
        drawn = write_catalogue(folder / "drawn", steps * BATCH + 8, 0, 384) / "images"
        vl = load_vl(str(folder / "vl"))
        start = time.perf_counter()
        collection = collect(drawn, vl, folder / "targets.safetensors")
        once = time.perf_counter() - start
        plain = make_trainer(vl, light, collection, SETTINGS, folder / "run")
        kept, anew = epoch(plain, steps), epoch(plain, steps, anew=True)
        settings = replace(SETTINGS, lar="auto", lar_batch=BATCH // 4)
        aligned = epoch(make_trainer(vl, light, collection, settings, folder / "lar"), steps)
    print(f"{name} of full size, {light}, batches of {BATCH}, float32, {torch.get_num_threads()} threads")
    print(f"gallery vectors, once           {len(collection.paths) / once:8.2f} pictures/s")
    print(f"epoch with kept vectors         {kept:8.2f} pictures/s")
    print(f"epoch that computes them anew   {anew:8.2f} pictures/s")
    print(f"ratio                           {kept / anew:8.2f}")
    print(f"epoch with kept vectors and LAR {aligned:8.2f} pictures/s")


if __name__ == "__main__":
    main()
