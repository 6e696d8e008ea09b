"""Unlabeled pictures as training material, decoded ahead of time."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor
from tqdm import tqdm

from image2sentence.encoders.config import Preprocessing
from image2sentence.encoders.preprocess import fit, normalise, to_pixels
from image2sentence.encoders.protocols import Encoder
from image2sentence.errors import DataError, ImageError
from image2sentence.images import MIN_DECODE_SIDE, display_path, load_image
from image2sentence.indexing.walk import FoundFile, walk
from image2sentence.training import checkpoint as state
from image2sentence.training.distributed import Processes
from image2sentence.training.vl.base import VisionLanguageModel

THREADS = max(2, (os.cpu_count() or 2))
PART = 512
"""Pictures whose gallery vectors are written at a time."""
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


def collect(
    folder: Path,
    vl: VisionLanguageModel,
    kept: Path,
    batch: int = 64,
    processes: Processes | None = None,
    encoder: Encoder | None = None,
) -> Collection:
    """The folder's pictures with their gallery vectors, computed once and kept in the file `kept` for the next run.

    They are `vl`'s, or those of an `encoder` of the same vector space.

    What is kept is used again only for the very same files (path, size, time) and the very same VL model. Several
    processes share the work, and an interruption costs each at most the last `PART` pictures. Raises DataError where
    no picture can be read.
    """
    processes = processes or Processes()
    files = find_pictures(folder)
    paths = [folder / file.path for file in files]
    fingerprint = _fingerprint(files, vl.record.fingerprint if encoder is None else encoder.fingerprint)
    found = _read(kept, fingerprint)
    if found is None:
        _encode_all(paths, vl if encoder is None else encoder, kept, fingerprint, batch, processes)
        found = _read(kept, fingerprint)
    assert found is not None
    tensors, unreadable = found
    if not len(tensors["readable"]):
        raise DataError(f"none of {len(paths)} pictures can be read; the first: {': '.join(unreadable[0])}")
    readable = [paths[i] for i in tensors["readable"].tolist()]
    return Collection(readable, tensors["vectors"], unreadable, fingerprint)


_Part = tuple[dict[str, Tensor], list[tuple[str, str]]]
"""`vectors` (r, d) and `readable` (r,), which pictures they are of; (path, reason) of the unreadable."""


def _read(file: Path, fingerprint: str) -> _Part | None:
    """What was kept, unless it is of other pictures or another VL model."""
    if not file.is_file():
        return None
    tensors, record = state.load_tensors(file)
    unreadable = [(path, reason) for path, reason in record.get("unreadable", ())]
    return (tensors, unreadable) if record.get("fingerprint") == fingerprint else None


def _write(file: Path, part: _Part, fingerprint: str) -> None:
    state.save_tensors(file, part[0], {"fingerprint": fingerprint, "unreadable": part[1]})


def _encode_all(
    paths: Sequence[Path],
    vl: VisionLanguageModel | Encoder,
    kept: Path,
    fingerprint: str,
    batch: int,
    processes: Processes,
) -> None:
    """Writes `kept`, by way of files of `PART` pictures each, which the processes take in turn."""
    folder = kept.with_suffix(".parts")
    starts = range(0, len(paths), PART)
    files = [folder / f"{start}.safetensors" for start in starts]
    own = list(zip(starts, files, strict=True))[processes.part]
    with tqdm(desc="gallery vectors", unit=" pictures", disable=not processes.main) as bar:
        bar.total = sum(min(PART, len(paths) - start) for start, _ in own)
        for start, file in own:
            block = range(start, min(start + PART, len(paths)))
            if _read(file, fingerprint) is None:
                _write(file, _encode(paths, block, vl, batch, bar), fingerprint)
    processes.wait()
    if processes.main:
        _write(kept, _merge([_read(file, fingerprint) for file in files]), fingerprint)
        shutil.rmtree(folder)
    processes.wait()


def _encode(
    paths: Sequence[Path], block: range, vl: VisionLanguageModel | Encoder, batch: int, bar: tqdm[Any]
) -> _Part:
    at_least = vl.preprocessing.size if isinstance(vl, VisionLanguageModel) else MIN_DECODE_SIDE
    vectors, readable, unreadable = [torch.empty(0, vl.width)], [], []
    for start in range(block.start, block.stop, batch):
        rows = range(start, min(start + batch, block.stop))
        outcomes = [_try_load(paths[i], at_least) for i in rows]
        unreadable += [
            (display_path(paths[i]), reason)
            for i, reason in zip(rows, outcomes, strict=True)
            if isinstance(reason, str)
        ]
        images = {i: image for i, image in zip(rows, outcomes, strict=True) if not isinstance(image, str)}
        if images:
            vectors.append(_gallery_vectors(vl, list(images.values())))
        readable += list(images)
        bar.update(len(rows))
    return {"vectors": torch.cat(vectors), "readable": torch.tensor(readable, dtype=torch.long)}, unreadable


def encode_some(paths: Sequence[Path], encoder: VisionLanguageModel | Encoder) -> list[Path]:
    """Encodes pictures as `collect` does, to see how long it takes; returns those that can be read."""
    with tqdm(disable=True) as bar:
        part, _ = _encode(paths, range(len(paths)), encoder, len(paths), bar)
    return [paths[i] for i in part["readable"].tolist()]


def is_kept(kept: Path, folder: Path, space: str) -> bool:
    """Whether `collect` would find all of the folder's vectors in `kept`; `space` is the encoder's fingerprint."""
    return _read(kept, _fingerprint(find_pictures(folder), space)) is not None


@torch.no_grad()
def _gallery_vectors(encoder: VisionLanguageModel | Encoder, images: Sequence[Image.Image]) -> Tensor:
    """(n, d) float32 unit rows on the processor."""
    if not isinstance(encoder, VisionLanguageModel):
        return torch.from_numpy(encoder.encode_images(images))
    pixels = torch.from_numpy(to_pixels(images, encoder.preprocessing))
    return encoder.encode_images(pixels.to(next(encoder.parameters()).device)).vectors.float().cpu()


def _merge(parts: Sequence[_Part | None]) -> _Part:
    whole = [part for part in parts if part is not None]
    tensors = {name: torch.cat([part[0][name] for part in whole]) for name in ("vectors", "readable")}
    return tensors, [pair for part in whole for pair in part[1]]


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
    """One batch's pictures: `index` (B,) into the collection, `light` (b, 3, s, s) and `clean` (c, 3, S, S) pixels.

    `index` is of the whole batch; pixels are of the part of it that was asked for. `light` is augmented, for the query
    side; `clean` is the first c pictures as the VL model sees them (may be empty): whole, or in the same crop where
    places are compared with places.
    """

    index: Tensor
    light: Tensor
    clean: Tensor


@dataclass(frozen=True)
class Augmentation:
    """A random crop of at least `smallest_crop` of each side, mirrored half of the time where `flip`.

    `brightness` b: half of the time all values times a factor, log-uniform between 1 / (1 + b) and 1 + b.
    """

    smallest_crop: float
    flip: bool
    brightness: float = 0.0

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
        shown = image.crop(box)
        if self.flip and rng.random() < 0.5:
            shown = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.brightness and rng.random() < 0.5:
            factor = (1 + self.brightness) ** rng.uniform(-1, 1)
            shown = ImageEnhance.Brightness(shown).enhance(factor)
        return shown


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
        """The step's pictures; of their pixels only the `part` that one of several processes works on."""
        index = self.indices(step)
        places = range(self.batch)[part]
        seeds = [f"{self.seed}/{step}/{index[place]}" for place in places]
        rows = list(pool.map(self._one, [index[place] for place in places], seeds, places))
        light = normalise(np.stack([row[0] for row in rows]), self.light)
        whole = [row[1] for row in rows if row[1] is not None]
        pixels = normalise(np.stack(whole), self.vl) if whole else np.empty((0, 3, 1, 1), np.float32)
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

    def _one(self, index: int, seed: str, place: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        image = load_image(self.paths[index], at_least=max(self.light.size, self.vl.size))
        augmented = self.augmentation.apply(image, random.Random(seed))
        shown = augmented if self.same_crop else image
        clean = np.asarray(fit(shown, self.vl)) if place < self.clean else None
        return np.asarray(fit(augmented, self.light)), clean
