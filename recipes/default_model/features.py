"""What the frozen network sees in every picture, read once and kept.

Each picture is read as the gallery side will read it, and photographs and emoji to train on a second time, cropped, and
mirrored where they may be.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn
from tqdm import tqdm

from image2sentence.encoders.config import Preprocessing
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.images import load_image
from image2sentence.training.export.graphs import trace
from image2sentence.training.vl.mobile_blip import pyramid, pyramid_width
from image2sentence.training.vl.mobilenet import MobileNetV2
from recipes.default_model.pictures import TRAIN, Picture

BATCH = 32
_SMALLEST_CROP = {"emoji": 0.85, "photo": 0.7, "everyday": 0.7}


@dataclass(frozen=True)
class Features:
    """`whole` (n, F) float16 of every picture, `rows` (m,) of them to train on.

    `cropped` (c, F): each of `rows` has one at its place in `crops` (m,), -1 where it has none.
    """

    whole: NDArray[np.float16]
    cropped: NDArray[np.float16]
    rows: NDArray[np.int64]
    crops: NDArray[np.int64]


def preprocessing(side: int) -> Preprocessing:
    """How MobileNetV2 wants its pictures."""
    return Preprocessing(side, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


class _Graph(nn.Module):
    def __init__(self, network: MobileNetV2) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        return (pyramid(self.network, pixels)[0],)


class Reader:
    """`pyramid` in ONNX Runtime, which reads pictures several times as fast as torch does."""

    def __init__(self, network: MobileNetV2, side: int, work: Path) -> None:
        import onnxruntime

        work.mkdir(parents=True, exist_ok=True)
        path = work / "pyramid.onnx"
        axes = {"pixels": {0: "rows"}}
        trace(_Graph(network), (torch.zeros(2, 3, side, side),), path, ["pixels"], ["numbers"], axes)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.preprocessing = preprocessing(side)

    def read(self, images: Sequence[Image.Image]) -> NDArray[np.float16]:
        """RGB pictures -> (n, F) float16."""
        (numbers,) = self.session.run(None, {"pixels": to_pixels(images, self.preprocessing)})
        return np.asarray(numbers, np.float16)


def read_all(reader: Reader, pictures: Sequence[Picture], out: Path) -> Features:
    """The features of all pictures, kept in `out`; what is there already is not read again."""
    rows = np.array([row for row, picture in enumerate(pictures) if picture.part == TRAIN], np.int64)
    whole = _kept(out / "whole.npy", reader, len(pictures), lambda row: pictures[row].open())
    again = np.array([pictures[row].record["source"] in _SMALLEST_CROP for row in rows])
    crop = _kept(
        out / "cropped.npy", reader, int(again.sum()), lambda row: cropped(pictures[rows[again][row]])
    )
    return Features(whole, crop, rows, np.where(again, again.cumsum() - 1, -1))


def read_files(reader: Reader, paths: Sequence[Path], kept: Path) -> NDArray[np.float16]:
    """The features (n, F) of files, kept in `kept`."""
    return _kept(kept, reader, len(paths), lambda row: load_image(paths[row], at_least=256))


def cropped(picture: Picture) -> Image.Image:
    """The picture in a random crop, mirrored half of the time where it may be; the same one every time."""
    rng = random.Random(picture.name)
    image = picture.open()
    share = rng.uniform(_SMALLEST_CROP[picture.record["source"]], 1)
    width, height = (max(1, round(edge * share)) for edge in image.size)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    shown = image.crop((left, top, left + width, top + height))
    return ImageOps.mirror(shown) if picture.record["source"] != "emoji" and rng.random() < 0.5 else shown


def _kept(path: Path, reader: Reader, count: int, opened) -> NDArray[np.float16]:  # type: ignore[no-untyped-def]
    """(count, F), written block by block: an interruption costs one block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = path.with_suffix(".done")
    if not path.is_file():
        np.lib.format.open_memmap(path, "w+", np.float16, (count, pyramid_width())).flush()
        done.write_text("0")
    kept = np.lib.format.open_memmap(path, "r+")
    first = int(done.read_text())
    for start, images in _blocks(range(first, count, BATCH), count, opened, path.stem):
        kept[start : start + len(images)] = reader.read(images)
        kept.flush()
        done.write_text(str(start + len(images)))
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _blocks(starts: range, count: int, opened, title: str) -> Iterator[tuple[int, list[Image.Image]]]:  # type: ignore[no-untyped-def]
    """Blocks of pictures, each decoded while the one before is read."""

    def load(start: int) -> list[Image.Image]:
        return [opened(row) for row in range(start, min(start + BATCH, count))]

    if not starts:
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(load, starts[0])
        for start in tqdm(starts, desc=title, mininterval=20):
            images = coming.result()
            coming = pool.submit(load, start + BATCH)
            yield start, images
