"""Export of a VL model's two towers alone: a model folder without a light side, which composes without training."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from image2sentence.encoders import model_folder as names
from image2sentence.encoders.composition import TrainingFreeEncoder
from image2sentence.encoders.config import CompositionConfig, LearnerConfig, ModelConfig, OriginRecord
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.encoders.template import Template
from image2sentence.errors import ModelError
from image2sentence.hub.adapt import LIGHT, TEMPLATE
from image2sentence.training.export import quantize as quantise
from image2sentence.training.export.graphs import GalleryImageGraph, QueryTextGraph, trace
from image2sentence.training.export.parity import INT8_FLOOR, DriftError, cosines
from image2sentence.training.vl.base import VisionLanguageModel


def export_towers(
    vl: VisionLanguageModel,
    name: str,
    out: Path,
    composition: CompositionConfig,
    origin: OriginRecord,
    pictures: Sequence[Image.Image],
    texts: Sequence[str],
) -> dict[str, Any]:
    """Writes the model folder `out` whole or not at all, and returns its parity report.

    The visual encoder's weights and the words' embeddings are stored in int8, the text encoder computes in int8, and
    what is left is stored in float16. `name` is what the model is called; `pictures` and `texts` (not empty) are what
    graphs and torch are compared on.
    Raises ModelError where a graph drifts from torch, or the folder cannot be written.
    """
    names.check_replaceable(out)
    vl.cpu().eval().float()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            draft = Path(folder, out.name)
            (draft / "onnx").mkdir(parents=True)
            _write_graphs(vl, draft)
            (draft / names.TOKENIZER).write_text(vl.tokenizer.to_str(), encoding="utf-8")
            written = [names.TOKENIZER, names.GALLERY_IMAGE, names.QUERY_TEXT]
            config = names.listed(_config(vl, name, composition, origin), draft, written)
            names.write_config(draft, config)
            parity = _parity(vl, TrainingFreeEncoder(names.ModelFolder.open(draft)), pictures, texts)
            names.write_config(draft, replace(config, parity=parity))
            names.replace_folder(draft, out)
    except OSError as error:
        raise ModelError(f"could not write the model folder {out}: {error}; it is as it was") from error
    return parity


def _write_graphs(vl: VisionLanguageModel, draft: Path) -> None:
    size, gallery, text = vl.preprocessing.size, draft / names.GALLERY_IMAGE, draft / names.QUERY_TEXT
    rows = {0: "rows"}
    pixels = (torch.rand(2, 3, size, size),)
    trace(GalleryImageGraph(vl, False), pixels, gallery, ["pixels"], ["vectors"], {"pixels": rows})
    graph = QueryTextGraph(vl.text_tower(), vl.word_width, vl.head_length(Template.parse(TEMPLATE)), False)
    asked = (torch.randn(2, 1, vl.word_width), torch.tensor([vl.tokenizer.encode("a red one").ids] * 2))
    axes = {"sentence": rows | {1: "tokens"}, "ids": rows | {1: "words"}}
    trace(graph, asked, text, ["sentence", "ids"], ["vectors"], axes)
    quantise.in_place(text, quantise.dynamic_int8)
    for path in (gallery, text):
        quantise.in_place(path, quantise.store_int8)
        quantise.in_place(path, quantise.store_half)


def _config(
    vl: VisionLanguageModel, name: str, composition: CompositionConfig, origin: OriginRecord
) -> ModelConfig:
    return ModelConfig(
        vl=replace(vl.record, name=name),
        light=LIGHT,
        learner=LearnerConfig(tokens=1),
        template=TEMPLATE,
        gallery_preprocessing=vl.preprocessing,
        query_preprocessing=vl.preprocessing,
        width=vl.width,
        word_width=vl.word_width,
        word_norm=vl.word_norm(),
        head_length=vl.head_length(Template.parse(TEMPLATE)),
        max_length=vl.max_length,
        fingerprint=vl.record.fingerprint,
        composition=composition,
        origin=origin,
    )


@torch.no_grad()
def _parity(
    vl: VisionLanguageModel,
    exported: TrainingFreeEncoder,
    pictures: Sequence[Image.Image],
    texts: Sequence[str],
) -> dict[str, Any]:
    seen = vl.encode_images(torch.from_numpy(to_pixels(pictures, vl.preprocessing))).vectors.numpy()
    read = vl.encode_words(vl.words(texts)).numpy()
    report = {
        "gallery_image": cosines(seen, exported.encode_images(pictures)),
        "text_query": cosines(read, exported.encode_queries(None, texts)),
    }
    for name, found in report.items():
        if found["min"] < INT8_FLOOR:
            raise DriftError(f"{name} drifts from torch: {found}")
    return report
