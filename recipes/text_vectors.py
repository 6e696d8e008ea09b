"""Text vectors of a recipe's encoder, each text read once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from image2sentence.encoders.onnx_encoder import OnnxEncoder
from image2sentence.encoders.protocols import Vectors

_BATCH = 64


class TextVectors:
    """Called with n texts, gives their (n, d) unit rows."""

    def __init__(self, encoder: OnnxEncoder) -> None:
        self._encoder = encoder
        self._seen: dict[str, Vectors] = {}

    def __call__(self, texts: Sequence[str]) -> Vectors:
        new = [text for text in dict.fromkeys(texts) if text not in self._seen]
        for at in range(0, len(new), _BATCH):
            block = new[at : at + _BATCH]
            self._seen |= dict(zip(block, self._encoder.encode_queries(None, block), strict=True))
        return np.stack([self._seen[text] for text in texts])
