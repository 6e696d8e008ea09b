"""Guiding phrases: what the model's own words for a picture are, said beside its sentence.

A light image encoder's sentence lies near the words that the VL model would choose for the picture, not on them. Where
a list of phrases is at hand (a shop's titles, every kind in every colour), the sentence is read on its own first, and
the phrases nearest to what was heard take part in the query. With s the sentence, m the user's words, T the text vector
and unit() normalisation:

    h = T(s);  c_1 .. c_k the phrases with the largest h . T(c);  w_j = softmax_j(h . T(c_j) / temperature)
    g = (h . T(c_1) - low) / (high - low), cut off at 0 and 1
    query = unit((1 - g) T(s m) + g unit(sum_j w_j (T(c_j m) + residual (h - T(c_j)))))

The residual keeps what a phrase leaves unsaid of the picture, as the target of modifier-aware distillation does. A
picture that no phrase describes (g = 0) is asked about by its sentence alone. All of it is text: the picture is seen
by the light encoder only, and the phrases' vectors are computed once.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from image2sentence.config import GuideConfig
from image2sentence.encoders.base import Vectors
from image2sentence.encoders.folder import (
    GUIDE,
    ModelFolder,
    check_replaceable,
    listed,
    replace_folder,
    write_config,
)
from image2sentence.errors import DataError, ModelError
from image2sentence.texts import read_lines

if TYPE_CHECKING:
    from image2sentence.encoders.onnx import OnnxEncoder

PHRASES, VECTORS = GUIDE
MOST_PHRASES = 200_000
"""More would be slow to go through at each query."""

_BLOCK = 64

Speak = Callable[[Sequence[str]], Vectors]
"""Texts -> (n, d) float32 unit rows."""


@dataclass(frozen=True)
class Near:
    """For n pictures: the nearest phrases (n, k) by number, their weights (n, k), and the trust in them (n,)."""

    phrases: NDArray[np.int64]
    weights: Vectors
    trust: Vectors


class Guide:
    """Phrases with their text vectors, `vectors` (n, d) float32 unit rows.

    Args:
        phrases: n texts.
        vectors: (n, d) numbers of any float or integer type; only their directions count.
        settings: How they are used.
    """

    def __init__(self, phrases: Sequence[str], vectors: NDArray[np.generic], settings: GuideConfig) -> None:
        self.phrases, self.settings = tuple(phrases), settings
        rows = vectors.astype(np.float32)
        self.vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    @classmethod
    def read(cls, folder: ModelFolder) -> Guide | None:
        """A model folder's; None where it has none. Raises ModelError on files that do not belong together."""
        settings = folder.config.guide
        if settings is None:
            return None
        where = folder.path / VECTORS
        try:
            phrases = folder.read(PHRASES).decode("utf-8").splitlines()
            vectors = np.load(io.BytesIO(folder.read(VECTORS)), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ModelError(f"{where} is not a table of vectors with phrases beside it: {error}") from error
        if vectors.dtype != np.int8 or vectors.shape != (len(phrases), folder.config.width):
            raise ModelError(
                f"expected int8 vectors ({len(phrases)}, {folder.config.width}) in {where}, "
                f"got {vectors.dtype} {vectors.shape}"
            )
        if not vectors.any(axis=1).all():
            raise ModelError(f"{where} holds a vector of zeros")
        return cls(phrases, vectors, settings)

    def near(self, heard: Vectors) -> Near:
        """The phrases nearest to (n, d) unit rows, of equal ones the first."""
        scores = heard @ self.vectors.T
        count = min(self.settings.neighbours, len(self.phrases))
        phrases = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        best = np.take_along_axis(scores, phrases, axis=1)
        weights = np.exp((best - best[:, :1]) / self.settings.temperature)
        low, high = self.settings.low, self.settings.high
        trust = np.clip((best[:, 0] - low) / (high - low), 0, 1)
        return Near(phrases, weights / weights.sum(axis=1, keepdims=True), trust.astype(np.float32))

    def take_part(self, plain: Vectors, heard: Vectors, texts: Sequence[str], speak: Speak) -> Vectors:
        """Query vectors with the phrases' part in them.

        Args:
            plain: (n, d) unit rows, T(s m).
            heard: (n, d) unit rows, T(s).
            texts: n modifiers m, none of them empty.
            speak: Gives T of texts; a phrase and a modifier are joined by a blank, as in training.

        Returns:
            (n, d) float32, of any length.
        """
        near = self.near(heard)
        rows = np.flatnonzero(near.trust > 0)
        result: Vectors = plain.copy()
        if len(rows):
            said = [
                f"{self.phrases[phrase]} {texts[row]}"
                for row in rows.tolist()
                for phrase in near.phrases[row]
            ]
            vectors = speak(said).reshape(len(rows), -1, plain.shape[1])
            unsaid = heard[rows, None] - self.vectors[near.phrases[rows]]
            words = np.einsum("nk,nkd->nd", near.weights[rows], vectors + self.settings.residual * unsaid)
            words /= np.linalg.norm(words, axis=1, keepdims=True)
            trust = near.trust[rows, None]
            result[rows] = (1 - trust) * plain[rows] + trust * words
        return result


def read_phrases(path: Path) -> list[str]:
    """A file's phrases, one a line. Raises DataError where there are none, or more than `MOST_PHRASES`."""
    phrases = read_lines(path)
    if len(phrases) > MOST_PHRASES:
        raise DataError(f"{path} holds {len(phrases)} phrases; expected at most {MOST_PHRASES}")
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
    content = ("\n".join(phrases) + "\n").encode()
    _write(encoder.folder, settings, content, _quantised(_spoken(encoder, phrases)), out.resolve())


def hand_on_guide(source: ModelFolder, target: ModelFolder) -> None:
    """Gives a folder of the same VL model the guide of another, if that has one. Raises ModelError as `add_guide`."""
    guide = Guide.read(source)
    if guide is not None:
        vectors = np.load(io.BytesIO(source.read(VECTORS)), allow_pickle=False)
        _write(target, guide.settings, source.read(PHRASES), vectors, target.path)


def _write(
    folder: ModelFolder, settings: GuideConfig, phrases: bytes, vectors: NDArray[np.int8], out: Path
) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=out.parent, prefix=f".{out.name}.", ignore_cleanup_errors=True
        ) as name:
            draft = Path(name, out.name)
            shutil.copytree(folder.path, draft)
            (draft / PHRASES).parent.mkdir(exist_ok=True)
            (draft / PHRASES).write_bytes(phrases)
            np.save(draft / VECTORS, vectors, allow_pickle=False)
            files = {*folder.config.files, PHRASES, VECTORS}
            write_config(draft, listed(replace(folder.config, guide=settings), draft, files))
            replace_folder(draft, out)
    except OSError as error:
        raise ModelError(
            f"could not write the model folder {out}: {error}; what was there before is untouched"
        ) from error


def _spoken(encoder: OnnxEncoder, phrases: Sequence[str]) -> Vectors:
    from tqdm import tqdm  # not needed to ask

    starts = tqdm(range(0, len(phrases), _BLOCK), desc="reading phrases", unit="block")
    return np.concatenate([encoder.encode_queries(None, phrases[start : start + _BLOCK]) for start in starts])


def _quantised(vectors: Vectors) -> NDArray[np.int8]:
    """Rows in int8, each scaled by its own largest value; their lengths mean nothing."""
    scaled = 127 * vectors / np.abs(vectors).max(axis=1, keepdims=True)
    whole: NDArray[np.int8] = np.rint(scaled).astype(np.int8)
    return whole
