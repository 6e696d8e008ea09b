"""`train-text` as a function.

From a trained model folder to one whose queries a light text encoder reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from image2sentence.encoders.guide_files import read_lines
from image2sentence.encoders.model_folder import bundled
from image2sentence.errors import ConfigError, DataError, ImageError
from image2sentence.images import display_path, load_image
from image2sentence.training.dataset import find_pictures
from image2sentence.training.export.model_folder import ExportOptions
from image2sentence.training.models.query_model import QueryModel
from image2sentence.training.text_distillation import (
    Distiller,
    DistillSettings,
    Material,
    collect_sentences,
    require_room,
)
from image2sentence.training.trained_model import BUNDLED_VL, PARITY_PICTURES, Trained

_BLOCK = 256


@dataclass(frozen=True)
class TextRequest:
    """What `train_text` is asked for: a trained model folder, unlabeled pictures, and words, one a line."""

    model: Path
    pictures: Path
    out: Path
    settings: DistillSettings
    options: ExportOptions
    phrases: Path | None = None
    modifiers: Path | None = None


@dataclass(frozen=True)
class Sentences:
    """Sentences of the readable pictures, their paths, and (path, reason) of those left out."""

    tokens: Tensor
    gates: Tensor
    paths: list[Path]
    unreadable: list[tuple[str, str]]


def train_text(request: TextRequest) -> dict[str, Any]:
    """Distils a light text encoder and writes the model folder `out/model`; the gallery side stays what it was.

    Returns the training record with its export's parity. Raises DataError, ModelError or ConfigError.
    """
    trained = Trained.open(request.model)
    phrases, modifiers = _word_lists(request, trained.folder.config.vl.name)
    require_room(trained.vl, trained.settings.learner.tokens, phrases, modifiers)
    seen = read_sentences(request.pictures, trained.query)
    material = Material(seen.tokens, seen.gates, phrases, modifiers)
    identity = _identity(trained.folder.config.files, seen, phrases, modifiers)
    distiller = Distiller(
        trained.vl, trained.settings.template, material, request.settings, request.out, identity
    )
    record = distiller.run() | {"unreadable": len(seen.unreadable)}
    shown = [load_image(seen.paths[i]) for i in distiller.held[:PARITY_PICTURES]]
    parity = trained.export(
        request.out / "model", shown, request.options, distiller.student, {"text": record}
    )
    return record | {"parity": parity}


def read_sentences(folder: Path, model: QueryModel) -> Sentences:
    """The sentences of all readable pictures below `folder`. Raises DataError where there are none."""
    paths = [folder / file.path for file in find_pictures(folder)]
    tokens, gates, readable, unreadable = [], [], [], []
    for start in range(0, len(paths), _BLOCK):
        images = []
        for path in paths[start : start + _BLOCK]:
            try:
                images.append(load_image(path, at_least=model.preprocessing.size))
                readable.append(path)
            except ImageError as error:
                unreadable.append((display_path(path), str(error)))
        if images:
            block = collect_sentences(model, images)
            tokens.append(block[0].half())
            gates.append(block[1])
    if not readable:
        raise DataError(f"none of {len(paths)} pictures can be read; the first: {': '.join(unreadable[0])}")
    return Sentences(torch.cat(tokens), torch.cat(gates), readable, unreadable)


def _word_lists(request: TextRequest, vl_name: str) -> tuple[list[str], list[str]]:
    own = bundled() / "vl" if vl_name == BUNDLED_VL else Path()
    files = (request.phrases or own / "phrases.txt", request.modifiers or own / "modifiers.txt")
    if not all(file.is_file() for file in files):
        raise ConfigError(
            "a text encoder is distilled with words: give --phrases FILE (texts such as titles, one a line) and "
            "--modifiers FILE (such as 'in red')"
        )
    return read_lines(files[0]), read_lines(files[1])


def _identity(
    files: dict[str, str], seen: Sentences, phrases: Sequence[str], modifiers: Sequence[str]
) -> str:
    """Of the model, the pictures' sentences and the words."""
    digest = hashlib.sha256(str(sorted(files.items())).encode())
    digest.update(seen.tokens.numpy().tobytes())
    digest.update("\n".join([*phrases, "", *modifiers]).encode())
    return digest.hexdigest()
