"""Writes a model folder's guiding phrases and fallback."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image2sentence.encoders.config import FallbackConfig, GuideConfig, ModelConfig
from image2sentence.encoders.model_folder import (
    FALLBACK,
    ModelFolder,
    check_replaceable,
    listed,
    replace_folder,
    write_config,
)
from image2sentence.encoders.phrase_guide import _BLOCK, MAX_PHRASES, PHRASES, VECTORS, Guide
from image2sentence.encoders.protocols import Vectors
from image2sentence.encoders.sum_fallback import MAX_MODIFIERS, SumFallback
from image2sentence.errors import DataError, ModelError

if TYPE_CHECKING:
    from image2sentence.encoders.onnx_encoder import OnnxEncoder


LOW_QUANTILE, HIGH_QUANTILE = 0.1, 0.5
MIN_CALIBRATION = 20
_CALIBRATION_BATCH = 32


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a UTF-8 text file, once each, in order; runs of blanks as one.

    Raises DataError if there are none, or the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as UTF-8 text, one phrase a line: {error}") from error
    kept = list(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))
    if not kept:
        raise DataError(f"{path} holds no phrases; expected one a line")
    return kept


def read_phrases(path: Path) -> list[str]:
    """A file's phrases, one a line. Raises DataError where there are none, or more than `MAX_PHRASES`."""
    phrases = read_lines(path)
    if len(phrases) > MAX_PHRASES:
        raise DataError(f"{path} holds {len(phrases)} phrases; expected at most {MAX_PHRASES}")
    return phrases


def add_guide(encoder: OnnxEncoder, phrases: Sequence[str], settings: GuideConfig, out: Path) -> None:
    """Writes a copy of the encoder's model folder with guiding phrases, in the place of any it had.

    `out` may be the folder itself. Raises QueryError for a phrase that is too long for the text encoder, and
    ModelError where the folder cannot be written, or holds something else than a model; what was at `out` then stays
    as it was.
    """
    check_replaceable(out.resolve())
    for phrase in phrases:
        encoder.check_phrase(phrase)
    files = {
        PHRASES: ("\n".join(phrases) + "\n").encode(),
        VECTORS: _table(_quantised(_encode_phrases(encoder, phrases))),
    }
    _write(encoder.folder, replace(encoder.folder.config, guide=settings), files, out.resolve())


def add_fallback(encoder: OnnxEncoder, modifiers: Sequence[str], settings: FallbackConfig, out: Path) -> None:
    """Writes a copy of the encoder's model folder that knows training's modifiers, for `SumFallback`.

    `out` may be the folder itself. Raises DataError for none or too many modifiers, and otherwise as `add_guide`.
    """
    encoder.folder.require_light_side("a fallback")
    if not 0 < len(modifiers) <= MAX_MODIFIERS:
        raise DataError(f"expected 1 to {MAX_MODIFIERS:,} modifiers of training, got {len(modifiers):,}")
    check_replaceable(out.resolve())
    files = {FALLBACK: _table(_quantised(_encode_phrases(encoder, modifiers)))}
    _write(encoder.folder, replace(encoder.folder.config, fallback=settings), files, out.resolve())


def calibrate_trust(
    encoder: OnnxEncoder, phrases: Sequence[str], images: Iterable[Image.Image], settings: GuideConfig
) -> GuideConfig:
    """The settings with `low` and `high` from one's own pictures in place of absolute dot products.

    `low` is the `LOW_QUANTILE` and `high` the `HIGH_QUANTILE` of the dot products of the pictures' sentences with
    their nearest phrases: the tenth that phrases describe worst goes without them, the better half goes by them alone.
    Raises DataError for fewer than 20 pictures, or where all are equally near.
    """
    vectors = _encode_phrases(encoder, phrases)
    nearest: list[float] = []
    waiting = iter(images)
    while batch := list(islice(waiting, _CALIBRATION_BATCH)):
        sentences = encoder.encode_queries(encoder.encode_sentences(batch), [""] * len(batch))
        nearest += (sentences @ vectors.T).max(axis=1).tolist()
    if len(nearest) < MIN_CALIBRATION:
        raise DataError(f"expected at least {MIN_CALIBRATION} pictures to calibrate with, got {len(nearest)}")
    low, high = (round(float(v), 4) for v in np.quantile(nearest, [LOW_QUANTILE, HIGH_QUANTILE]))
    if low == high:
        raise DataError(
            f"the nearest phrases of all pictures are equally near ({low}): nothing to calibrate by"
        )
    return replace(settings, low=low, high=high)


def hand_on_guide(source: ModelFolder, target: ModelFolder) -> None:
    """Gives a folder of the same VL model the guide and the fallback of another, as far as that has them.

    Raises ModelError as `add_guide`.
    """
    guide, fallback = source.config.guide, source.config.fallback
    names = [
        *((PHRASES, VECTORS) if Guide.read(source) else ()),
        *((FALLBACK,) if SumFallback.read(source) else ()),
    ]
    if names:
        config = replace(target.config, guide=guide, fallback=fallback)
        _write(target, config, {name: source.read(name) for name in names}, target.path)


def _table(vectors: NDArray[np.int8]) -> bytes:
    """A .npy file's content."""
    buffer = io.BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    return buffer.getvalue()


def _write(folder: ModelFolder, config: ModelConfig, files: Mapping[str, bytes], out: Path) -> None:
    """Copies the folder with these files in it and this config."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=out.parent, prefix=f".{out.name}.", ignore_cleanup_errors=True
        ) as name:
            draft = Path(name, out.name)
            shutil.copytree(folder.path, draft)
            for name, content in files.items():
                (draft / name).parent.mkdir(exist_ok=True)
                (draft / name).write_bytes(content)
            write_config(draft, listed(config, draft, {*folder.config.files, *files}))
            replace_folder(draft, out)
    except OSError as error:
        raise ModelError(
            f"could not write the model folder {out}: {error}; what was there before is untouched"
        ) from error


def _encode_phrases(encoder: OnnxEncoder, phrases: Sequence[str]) -> Vectors:
    from tqdm import tqdm  # not needed to ask

    starts = tqdm(range(0, len(phrases), _BLOCK), desc="reading phrases", unit="block")
    return np.concatenate([encoder.encode_queries(None, phrases[start : start + _BLOCK]) for start in starts])


def _quantised(vectors: Vectors) -> NDArray[np.int8]:
    """Rows in int8, each scaled by its own largest value; their lengths mean nothing."""
    scaled = 127 * vectors / np.abs(vectors).max(axis=1, keepdims=True)
    whole: NDArray[np.int8] = np.rint(scaled).astype(np.int8)
    return whole
