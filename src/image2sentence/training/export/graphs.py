"""Modules that are exported as ONNX graphs, and their export."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from image2sentence.training.models.query_model import QueryModel
from image2sentence.training.vl.base import TextTower, VisionLanguageModel, Words, insert

_OPSET = 17


class GalleryImageGraph(nn.Module):
    """pixels (n, 3, S, S) -> vectors (n, d), and with `patches` also patches (n, N, C)."""

    def __init__(self, vl: VisionLanguageModel, patches: bool) -> None:
        super().__init__()
        self.vl, self.patches = vl, patches

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        seen = self.vl.encode_images(pixels)
        return (seen.vectors, seen.patches) if self.patches else (seen.vectors,)


class MatchGraph(nn.Module):
    """sentence (n, L, w or w + 1), token ids (n, T) and patches (n, N, C) -> match logits (n,). L may be 0."""

    def __init__(self, vl: VisionLanguageModel, head: int, gated: bool) -> None:
        super().__init__()
        self.vl, self.head, self.gated = vl, head, gated

    def forward(self, sentence: Tensor, ids: Tensor, patches: Tensor) -> Tensor:
        words = Words(self.vl.embed(ids), torch.zeros_like(ids, dtype=torch.float32))
        width = self.vl.word_width
        gates = sentence[..., width].exp() if self.gated else torch.ones_like(sentence[..., 0])
        return self.vl.match(insert(sentence[..., :width], gates, words, self.head), patches)


class QueryImageGraph(nn.Module):
    """pixels (n, 3, s, s) -> sentence (n, L, w or w + 1), attention (n, L, H, W), gates (n, L)."""

    def __init__(self, model: QueryModel, gated: bool) -> None:
        super().__init__()
        self.model, self.gated = model, gated

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sentence = self.model(pixels)
        tokens = sentence.tokens
        if self.gated:
            tokens = torch.cat([tokens, sentence.gates.clamp(min=1e-4).log()[..., None]], -1)
        return tokens, sentence.attention, sentence.gates


class QueryTextGraph(nn.Module):
    """sentence (n, L, w or w + 1) and token ids (n, T), all rows of one length -> vectors (n, d). L may be 0."""

    def __init__(self, tower: TextTower, word_width: int, head: int, gated: bool) -> None:
        super().__init__()
        self.tower, self.word_width, self.head, self.gated = tower, word_width, head, gated

    def forward(self, sentence: Tensor, ids: Tensor) -> Tensor:
        return self._read(sentence, ids, torch.zeros_like(ids, dtype=torch.float32), self.gated)

    def _read(self, sentence: Tensor, ids: Tensor, bias: Tensor, masked: bool) -> Tensor:
        words = Words(self.tower.embed(ids), bias)
        gates = sentence[..., self.word_width].exp() if self.gated else torch.ones_like(sentence[..., 0])
        pseudo = self.tower.enter(sentence[..., : self.word_width])
        vectors: Tensor = self.tower(insert(pseudo, gates, words, self.head), masked=masked)
        return vectors


class FixedTextGraph(QueryTextGraph):
    """sentence (1, L, w or w + 1), token ids (1, N) int32 and bias (1, N) -> vectors (1, d), for one length N.

    Texts that are shorter are padded with any ids; `bias` is 0 where a word is and `ABSENT` where none is.
    """

    def forward(self, sentence: Tensor, ids: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
        return self._read(sentence, ids.long(), bias, masked=True)


def trace(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    input_names: list[str],
    output_names: list[str],
    dynamic: Mapping[str, Mapping[int, str]] | None,
) -> None:
    """One module's graph at `path`, its axes free where `dynamic` names them, and the first axis of every output.

    `dynamic=None` leaves no axis free.

    Through the TorchScript exporter: dynamic quantisation fails on the text graph that the other one writes.
    """
    axes = None if dynamic is None else {**dynamic, **{name: {0: "rows"} for name in output_names}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's remarks on constants, and its own deprecation
        torch.onnx.export(
            module.eval(),
            inputs,
            os.fspath(path),
            input_names=input_names,
            output_names=output_names,
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
