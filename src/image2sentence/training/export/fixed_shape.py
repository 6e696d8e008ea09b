"""Query graphs of fixed shape, for the runtimes of phones.

They take a picture, and up to N token ids, padded.

Phones' accelerators compile a graph for its shapes; these have no free ones. A composed query is all they answer: words
without a picture have another length, which the ordinary graph takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from image2sentence.encoders.model_folder import FIXED
from image2sentence.encoders.onnx_encoder import OnnxEncoder
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.encoders.protocols import Encoder, Vectors
from image2sentence.errors import ConfigError, QueryError
from image2sentence.training.export.graphs import FixedTextGraph, QueryImageGraph, trace
from image2sentence.training.vl.base import ABSENT

FIXED_IMAGE, FIXED_TEXT = FIXED
IMAGE_OUTPUTS = ["sentence", "attention", "gates"]
TEXT_INPUTS = ["sentence", "ids", "bias"]


def write_fixed(
    image: QueryImageGraph,
    text: FixedTextGraph,
    tokens: int,
    words: int,
    most: int,
    draft: Path,
) -> None:
    """Both graphs, for `tokens` pseudo-words and texts of up to `words` token ids, `most` of both together.

    Raises ConfigError where the text encoder has no such room.
    """
    size, least, room = image.model.preprocessing.size, text.head + 1, most - tokens
    if not least <= words <= room:
        raise ConfigError(
            f"a fixed text graph of this model takes {least} to {room} token ids beside the sentence, got {words}"
        )
    (draft / FIXED_IMAGE).parent.mkdir(parents=True)
    pixels = torch.rand(1, 3, size, size)
    trace(image, (pixels,), draft / FIXED_IMAGE, ["pixels"], IMAGE_OUTPUTS, None)
    trace(text, text_inputs(text, tokens, words), draft / FIXED_TEXT, TEXT_INPUTS, ["vectors"], None)


def text_inputs(text: FixedTextGraph, tokens: int, words: int) -> tuple[torch.Tensor, ...]:
    """Inputs of the right shapes: a sentence, ids and their bias, the last id being absent."""
    bias = torch.zeros(1, words)
    bias[0, -1] = ABSENT
    sentence = torch.randn(1, tokens, text.word_width + int(text.gated))
    return sentence, torch.ones(1, words, dtype=torch.int32), bias


class FixedEncoder(OnnxEncoder):
    """A model folder that asks through its fixed graphs, one query at a time, as a program on a phone does."""

    def encode_sentences(self, images: Sequence[Image.Image]) -> Vectors:
        """See `Encoder.encode_sentences`."""
        pixels = [to_pixels([image], self.config.query_preprocessing) for image in images]
        return np.concatenate([self._fixed_image.run(["sentence"], {"pixels": one})[0] for one in pixels])

    def encode_queries(self, sentences: Vectors | None, texts: Sequence[str]) -> Vectors:
        """See `Encoder.encode_queries`. Raises QueryError for words without pictures, and for too many."""
        if sentences is None:
            raise QueryError("a fixed text graph answers composed queries only: give a picture too")
        rows = [
            self._fixed_text.run(None, {"sentence": sentence[None], **self.padded(text)})[0]
            for sentence, text in zip(np.asarray(sentences, np.float32), texts, strict=True)
        ]
        return np.concatenate(rows)

    @property
    def words(self) -> int:
        """N, the token ids that the graph takes."""
        count: int = self._fixed_text.get_inputs()[1].shape[1]
        return count

    def padded(self, text: str) -> dict[str, NDArray[Any]]:
        """A modifier as `ids` (1, N) int32 and `bias` (1, N) float32. Raises QueryError where it has more than N."""
        ids = self._composed_ids(text)
        missing = self.words - len(ids)
        if missing < 0:
            raise QueryError(
                f"the words are too long: {len(ids)} tokens, room for {self.words}: {text[:60]!r}"
            )
        bias = np.array([[0.0] * len(ids) + [ABSENT] * missing], np.float32)
        return {"ids": np.array([[*ids, *[0] * missing]], np.int32), "bias": bias}

    @cached_property
    def _fixed_image(self) -> Any:
        return self._session(FIXED_IMAGE, 1)

    @cached_property
    def _fixed_text(self) -> Any:
        return self._session(FIXED_TEXT, 1)


def fixed_queries(
    reference: Encoder, fixed: FixedEncoder, pictures: Sequence[Image.Image], texts: Sequence[str]
) -> tuple[Vectors, Vectors]:
    """The vectors of both for every picture with one of those `texts`, in turn, that have room."""
    short = [text for text in texts if len(fixed._composed_ids(text)) <= fixed.words]
    if not short:
        raise ConfigError(f"none of the texts that graphs are compared on fits in {fixed.words} token ids")
    words = [short[i % len(short)] for i in range(len(pictures))]
    asked, compared = (e.encode_queries(e.encode_sentences(pictures), words) for e in (reference, fixed))
    return asked, compared
