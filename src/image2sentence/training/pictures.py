"""The user's unlabeled pictures as training material: listed once, decoded as they are needed, ahead of time."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from image2sentence.config import Preprocessing
from image2sentence.encoders.preprocess import fit, normalise, to_pixels
from image2sentence.errors import DataError, ImageError
from image2sentence.gallery.walk import FoundFile, walk
from image2sentence.images import display_path, load_image
from image2sentence.training import state
from image2sentence.training.vl.base import VisionLanguageModel

THREADS = max(2, (os.cpu_count() or 2))
GALLERY_NAME = ".image2sentence"  # a gallery kept beside its pictures is not material


@dataclass(frozen=True)
class Collection:
    """Readable pictures with their gallery vectors (n, d); `unreadable` lists (path, reason) of those left out."""

    paths: list[Path]
    vectors: Tensor
    unreadable: list[tuple[str, str]]
    fingerprint: str


def find_pictures(folder: Path) -> list[FoundFile]:
    """All picture files below `folder`. Raises DataError if there are none, or a folder below cannot be listed."""
    if not folder.is_dir():
        raise DataError(f"expected a folder of pictures at {display_path(folder)}")
    found = walk(folder, skip=folder / GALLERY_NAME)
    if found.unreadable:
        name, reason = found.unreadable[0]
        raise DataError(
            f"cannot list {display_path(folder / name)}: {reason}; training needs all of the folder"
        )
    if not found.files:
        raise DataError(f"no pictures in {display_path(folder)}: expected files such as .jpg or .png")
    return found.files


def collect(folder: Path, vl: VisionLanguageModel, kept: Path, batch: int = 64) -> Collection:
    """The folder's pictures with their gallery vectors, computed once and kept in `kept` for the next run.

    What is kept is used again only for the very same files (path, size, time) and the very same VL model.
    """
    files = find_pictures(folder)
    paths = [folder / file.path for file in files]
    print_of_data = _fingerprint(files, vl.record.fingerprint)
    if kept.is_file():
        tensors, record = state.load_tensors(kept)
        if record.get("fingerprint") == print_of_data:
            left_out = [tuple(pair) for pair in record["unreadable"]]
            readable = [paths[i] for i in tensors["readable"].tolist()]
            return Collection(readable, tensors["vectors"], left_out, print_of_data)
    vectors, readable_at, left_out = _encode_all(paths, vl, batch)
    tensors = {"vectors": vectors, "readable": torch.tensor(readable_at)}
    state.save_tensors(kept, tensors, {"fingerprint": print_of_data, "unreadable": left_out})
    return Collection([paths[i] for i in readable_at], vectors, left_out, print_of_data)


def _encode_all(
    paths: Sequence[Path], vl: VisionLanguageModel, batch: int
) -> tuple[Tensor, list[int], list[tuple[str, str]]]:
    device = next(vl.parameters()).device
    vectors, readable, unreadable = [], [], []
    bar = tqdm(total=len(paths), desc="gallery vectors", unit=" pictures")
    for start in range(0, len(paths), batch):
        block = range(start, min(start + batch, len(paths)))
        outcomes = [_try_load(paths[i], vl.preprocessing.size) for i in block]
        images = []
        for i, outcome in zip(block, outcomes, strict=True):
            if isinstance(outcome, str):
                unreadable.append((display_path(paths[i]), outcome))
            else:
                images.append(outcome)
                readable.append(i)
        if images:
            pixels = torch.from_numpy(to_pixels(images, vl.preprocessing)).to(device)
            with torch.no_grad():
                vectors.append(vl.encode_images(pixels).vectors.float().cpu())
        bar.update(len(block))
    bar.close()
    if not readable:
        raise DataError(f"none of {len(paths)} pictures can be read; the first: {': '.join(unreadable[0])}")
    return torch.cat(vectors), readable, unreadable


def _try_load(path: Path, at_least: int) -> Image.Image | str:
    try:
        return load_image(path, at_least=at_least)
    except ImageError as error:
        return str(error)


def _fingerprint(files: Sequence[FoundFile], vl: str) -> str:
    digest = hashlib.sha256(vl.encode())
    for file in files:
        digest.update(os.fsencode(file.path) + f"\0{file.size}\0{file.mtime_ns}\0".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Batch:
    """One step's pictures: `index` (B,) into the collection, `light` (B, 3, s, s) and `clean` (b, 3, S, S) pixels.

    `light` is augmented, for the query side; `clean` is the first b pictures as the VL model sees them (may be empty):
    whole, or in the same crop where places are compared with places.
    """

    index: Tensor
    light: Tensor
    clean: Tensor


@dataclass(frozen=True)
class Augmentation:
    """A random crop of at least `smallest_crop` of each side, mirrored half of the time where `flip`."""

    smallest_crop: float
    flip: bool

    def apply(self, image: Image.Image, rng: random.Random) -> Image.Image:
        """The same `rng` state gives the same crop."""
        share = rng.uniform(self.smallest_crop, 1.0)
        width, height = image.size[0] * share, image.size[1] * share
        left, top = rng.uniform(0, image.size[0] - width), rng.uniform(0, image.size[1] - height)
        box = (
            int(left),
            int(top),
            max(int(left) + 1, round(left + width)),
            max(int(top) + 1, round(top + height)),
        )
        cropped = image.crop(box)
        mirrored = self.flip and rng.random() < 0.5
        return cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else cropped


class BatchLoader:
    """Decodes the batch of any step; what a step gets depends on the seed and the step alone, so a run can resume."""

    def __init__(
        self,
        paths: Sequence[Path],
        light: Preprocessing,
        vl: Preprocessing,
        augmentation: Augmentation,
        batch: int,
        clean: int,
        seed: int,
        same_crop: bool = False,
    ) -> None:
        """`same_crop` gives the VL model the query side's crop: what compares places must look at the same ones."""
        self.paths, self.light, self.vl, self.augmentation = paths, light, vl, augmentation
        self.batch, self.clean, self.seed, self.same_crop = batch, clean, seed, same_crop
        self._epoch, self._shuffled = -1, np.empty(0, np.int64)

    def indices(self, step: int) -> list[int]:
        """The step's pictures: consecutive runs of one shuffled epoch after another."""
        start = step * self.batch
        return [self._at(position) for position in range(start, start + self.batch)]

    def load(self, step: int, pool: ThreadPoolExecutor, part: slice = slice(None)) -> Batch:
        """The step's pictures, or the `part` of them that one of several processes works on."""
        index = self.indices(step)[part]
        clean = min(self.clean, len(index))
        rows = list(pool.map(self._one, index, [f"{self.seed}/{step}/{i}" for i in index], range(len(index))))
        light = normalise(np.stack([row[0] for row in rows]), self.light)
        whole = [row[1] for row in rows if row[1] is not None]
        pixels = normalise(np.stack(whole), self.vl) if clean else np.empty((0, 3, 1, 1), np.float32)
        return Batch(torch.tensor(index), torch.from_numpy(light), torch.from_numpy(pixels))

    def ahead(self, first: int, last: int, part: slice = slice(None)) -> Iterator[Batch]:
        """The batches of steps `first` to `last`, each decoded while the one before is used."""
        with ThreadPoolExecutor(THREADS) as pool, ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self.load, first, pool, part)
            for step in range(first, last):
                batch = coming.result()
                if step + 1 < last:
                    coming = ahead.submit(self.load, step + 1, pool, part)
                yield batch

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, len(self.paths))
        return int(self._order(epoch)[place])

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            self._shuffled = np.random.default_rng((self.seed, epoch)).permutation(len(self.paths))
            self._epoch = epoch
        return self._shuffled

    def _one(self, index: int, seed: str, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        image = load_image(self.paths[index], at_least=max(self.light.size, self.vl.size))
        augmented = self.augmentation.apply(image, random.Random(seed))
        shown = augmented if self.same_crop else image
        clean = np.asarray(fit(shown, self.vl)) if row < self.clean else None
        return np.asarray(fit(augmented, self.light)), clean
