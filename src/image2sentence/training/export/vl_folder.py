"""Export of a VL model into a model folder, for training on with it."""

from __future__ import annotations

import shutil
from pathlib import Path

from image2sentence.training.vl.compact import write_compact
from image2sentence.training.vl.load import load_vl

VL = "vl"
_SETTINGS = ("config.json", "preprocessor_config.json", "tokenizer.json")


def write_vl(source: Path, model: Path) -> Path:
    """Puts the VL model of the folder `source` into the model folder `model` that was made of it; returns its place.

    The weights are stored compactly (`image2sentence.training.vl.compact`). Raises ModelError where either folder is
    incomplete, FileExistsError where `model` has one already.
    """
    vl, folder = load_vl(str(source)), model / VL
    folder.mkdir()
    for name in _SETTINGS:
        shutil.copyfile(source / name, folder / name)
    write_compact(vl, folder)
    return folder
