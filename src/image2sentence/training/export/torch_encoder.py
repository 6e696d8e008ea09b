"""Torch models as an `Encoder`, the reference for exported graphs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from image2sentence.encoders.preprocess import to_pixels
from image2sentence.encoders.protocols import Vectors, with_sentences
from image2sentence.encoders.template import Template
from image2sentence.training.models.query_model import QueryModel
from image2sentence.training.models.text_student import LightText
from image2sentence.training.vl.base import VisionLanguageModel, Words

BATCH = 16


class TorchEncoder:
    """A frozen VL model and a trained query side; sentences are (n, L, w + 1), the gates' logarithms last.

    `text` reads the queries in place of the VL model's own text encoder. `sentence_share` and `fingerprint` are those
    of the model folder (`ModelConfig`); without them gallery vectors are the VL model's.
    """

    def __init__(
        self,
        vl: VisionLanguageModel,
        model: QueryModel,
        template: str,
        text: LightText | None = None,
        sentence_share: float = 0.0,
        fingerprint: str | None = None,
    ) -> None:
        self.vl, self.model, self.template = vl, model.eval(), Template.parse(template)
        self._read = vl.encode_words if text is None else text.read
        self.fingerprint, self.width = fingerprint or vl.record.fingerprint, vl.width
        self._share = sentence_share

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """See `Encoder.encode_images`."""
        pixels = torch.from_numpy(to_pixels(images, self.vl.preprocessing))
        vectors = _rows([self.vl.encode_images(block).vectors for block in pixels.split(BATCH)])
        if not self._share:
            return vectors
        sentence_vectors = self.encode_queries(self.encode_sentences(images), [""] * len(images))
        return with_sentences(vectors, sentence_vectors, self._share)

    @torch.no_grad()
    def encode_sentences(self, images: Sequence[Image.Image]) -> Vectors:
        """See `Encoder.encode_sentences`."""
        pixels = torch.from_numpy(to_pixels(images, self.model.preprocessing))
        sentences = [self.model(block) for block in pixels.split(BATCH)]
        return _rows([torch.cat([s.tokens, s.gates.log()[..., None]], -1) for s in sentences])

    @torch.no_grad()
    def encode_queries(self, sentences: Vectors | None, texts: Sequence[str]) -> Vectors:
        """See `Encoder.encode_queries`."""
        return _rows([self._read(self._words(sentences, texts))])

    @property
    def can_match(self) -> bool:
        """See `SupportsMatching.can_match`."""
        return self.vl.has_matching

    @torch.no_grad()
    def encode_patches(self, images: Sequence[Image.Image]) -> Vectors:
        """See `SupportsMatching.encode_patches`."""
        pixels = torch.from_numpy(to_pixels(images, self.vl.preprocessing))
        return _rows([self.vl.encode_images(block).patches for block in pixels.split(BATCH)])

    @torch.no_grad()
    def match(self, sentences: Vectors | None, texts: Sequence[str], patches: Vectors) -> Vectors:
        """See `SupportsMatching.match`."""
        return _rows([self.vl.match(self._words(sentences, texts), torch.from_numpy(patches))])

    def _words(self, sentences: Vectors | None, texts: Sequence[str]) -> Words:
        if sentences is None:
            return self.vl.words(list(texts))
        both = torch.from_numpy(np.asarray(sentences, np.float32))
        tokens, gates = both[..., :-1], both[..., -1].exp()
        return self.vl.compose(tokens, gates, list(texts), self.template)


def _rows(blocks: Sequence[Tensor]) -> Vectors:
    rows: Vectors = torch.cat(list(blocks)).float().numpy()
    return rows
