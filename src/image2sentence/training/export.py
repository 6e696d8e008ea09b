"""A trained query side and its frozen VL model -> a model folder: ONNX graphs, tokenizer, weights, config, card.

Every graph is compared with the torch model on real pictures and words before anything is written to its place; a
graph that drifts further than its floor allows is an error, not a file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from PIL import Image
from torch import Tensor, nn

from image2sentence.config import ModelConfig, to_dict
from image2sentence.encoders import folder as names
from image2sentence.encoders.folder import ModelFolder
from image2sentence.encoders.onnx import OnnxEncoder
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.encoders.template import Template
from image2sentence.errors import ModelError
from image2sentence.training import state
from image2sentence.training.query_model import QueryModel
from image2sentence.training.settings import TrainSettings
from image2sentence.training.vl.base import VisionLanguageModel, Words, insert

FLOOR = 0.999
INT8_FLOOR = 0.99
_OPSET = 17


class DriftError(ModelError):
    """An exported graph that answers differently from the torch model."""


class GalleryImageGraph(nn.Module):
    """pixels (n, 3, S, S) -> vectors (n, d)."""

    def __init__(self, vl: VisionLanguageModel) -> None:
        super().__init__()
        self.vl = vl

    def forward(self, pixels: Tensor) -> Tensor:
        return self.vl.encode_images(pixels).vectors


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

    def __init__(self, vl: VisionLanguageModel, head: int, gated: bool) -> None:
        super().__init__()
        self.vl, self.head, self.gated = vl, head, gated

    def forward(self, sentence: Tensor, ids: Tensor) -> Tensor:
        words = Words(self.vl.embed(ids), torch.zeros_like(ids, dtype=torch.float32))
        width = self.vl.word_width
        gates = sentence[..., width].exp() if self.gated else torch.ones_like(sentence[..., 0])
        return self.vl.encode_words(insert(sentence[..., :width], gates, words, self.head))


@dataclass(frozen=True)
class ExportOptions:
    """`int8_text` quantises the text graph's matrices; `half` stores weights as float16, computing in float32."""

    int8_text: bool = True
    half: bool = True


def export(
    vl: VisionLanguageModel,
    model: QueryModel,
    light: str,
    settings: TrainSettings,
    record: dict[str, Any],
    out: Path,
    pictures: Sequence[Image.Image],
    texts: Sequence[str],
    options: ExportOptions | None = None,
    vl_name: str | None = None,
) -> dict[str, Any]:
    """Writes the model folder `out` whole or not at all, and returns its parity report.

    `pictures` and `texts` are what the graphs are compared on. Raises ModelError where a graph drifts from torch, or
    the folder cannot be written; an older folder at `out` then stays as it was.
    """
    options = options or ExportOptions()
    vl.eval().float()
    model.eval().half().float()  # rounded first, so that graphs, stored weights and parity speak of the same numbers
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
        draft = Path(name)
        _write_graphs(vl, model, settings, draft, options)
        vl.tokenizer.save(str(draft / names.TOKENIZER))
        weights = {key: v.half() if v.is_floating_point() else v for key, v in model.state_dict().items()}
        state.save_tensors(draft / names.WEIGHTS, weights, {"light": light})
        config = _config(vl, model, light, settings, record, vl_name)
        config = _with_files(config, draft)
        _write_config(draft, config)
        parity = measure_parity(vl, model, OnnxEncoder(ModelFolder.open(draft)), pictures, texts)
        check_parity(parity, options)
        _write_config(draft, replace(config, parity=parity))
        _replace_folder(draft, out)
    return parity


def measure_parity(
    vl: VisionLanguageModel,
    model: QueryModel,
    encoder: OnnxEncoder,
    pictures: Sequence[Image.Image],
    texts: Sequence[str],
) -> dict[str, Any]:
    """Cosines between torch's and the runtime's vectors for each graph, and how many of the ten nearest agree."""
    template = Template.parse(encoder.config.template)
    words = [texts[i % len(texts)] for i in range(len(pictures))]
    spoken = [text for text in texts if text]
    with torch.no_grad():
        gallery = vl.encode_images(torch.from_numpy(to_pixels(pictures, vl.preprocessing))).vectors.numpy()
        sentence = model(torch.from_numpy(to_pixels(pictures, model.preprocessing)))
        composed = vl.encode_words(vl.compose(sentence.tokens, sentence.gates, words, template)).numpy()
        plain = vl.encode_words(vl.words(spoken)).numpy()
    ours = encoder.encode_images(pictures)
    queries = encoder.encode_queries(encoder.encode_sentences(pictures), words)
    return {
        "pictures": len(pictures),
        "gallery_image": _cosines(gallery, ours),
        "composed_query": _cosines(composed, queries),
        "text_query": _cosines(plain, encoder.encode_queries(None, spoken)),
        "top10_overlap": round(_overlap(composed @ gallery.T, queries @ ours.T), 4),
    }


def check_parity(parity: dict[str, Any], options: ExportOptions) -> None:
    """Raises DriftError naming the first graph whose least cosine is below its floor."""
    text_floor = INT8_FLOOR if options.int8_text else FLOOR
    for name, floor in (("gallery_image", FLOOR), ("composed_query", text_floor), ("text_query", text_floor)):
        least = parity[name]["min"]
        if not least >= floor:
            raise DriftError(
                f"export refused: {name} drifts from torch (least cosine {least:.5f}, floor {floor}); nothing written. "
                "Try without int8 or half"
            )


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> dict[str, float]:
    cosines = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return {"min": round(float(cosines.min()), 6), "mean": round(float(cosines.mean()), 6)}


def _overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    k = min(10, a.shape[1])
    first, second = (np.argsort(-scores, axis=1)[:, :k] for scores in (a, b))
    return float(np.mean([len(set(x) & set(y)) / k for x, y in zip(first, second, strict=True)]))


# --- graphs ---------------------------------------------------------------------------------------------------------


def _write_graphs(
    vl: VisionLanguageModel, model: QueryModel, settings: TrainSettings, draft: Path, options: ExportOptions
) -> None:
    gated = settings.learner.gates
    head = vl.head_length(Template.parse(settings.template))
    width = vl.word_width + int(gated)
    sentence = torch.randn(2, settings.learner.tokens, width)
    ids = torch.tensor([vl.tokenizer.encode("a red one").ids] * 2)
    light, large = (torch.rand(2, 3, p.size, p.size) for p in (model.preprocessing, vl.preprocessing))
    (draft / "onnx").mkdir()
    rows = {0: "rows"}
    _trace(
        GalleryImageGraph(vl),
        (large,),
        draft / names.GALLERY_IMAGE,
        ["pixels"],
        ["vectors"],
        {"pixels": rows},
    )
    outputs = ["sentence", "attention", "gates"]
    _trace(
        QueryImageGraph(model, gated),
        (light,),
        draft / names.QUERY_IMAGE,
        ["pixels"],
        outputs,
        {"pixels": rows},
    )
    dynamic = {"sentence": {0: "rows", 1: "tokens"}, "ids": {0: "rows", 1: "words"}}
    text = QueryTextGraph(vl, head, gated)
    _trace(text, (sentence, ids), draft / names.QUERY_TEXT, ["sentence", "ids"], ["vectors"], dynamic)
    if options.int8_text:
        _in_place(draft / names.QUERY_TEXT, _quantise)
    if options.half:
        for name in (names.GALLERY_IMAGE, names.QUERY_IMAGE, names.QUERY_TEXT):
            _in_place(draft / name, store_half)


def _trace(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    input_names: list[str],
    output_names: list[str],
    dynamic: dict[str, dict[int, str]],
) -> None:
    """Through the TorchScript exporter: dynamic quantisation fails on the other one's text graph (MEASURED)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's remarks on constants, and its own deprecation
        torch.onnx.export(
            module.eval(),
            inputs,
            os.fspath(path),
            input_names=input_names,
            output_names=output_names,
            dynamic_axes=dynamic | {name: {0: "rows"} for name in output_names},
            opset_version=_OPSET,
            dynamo=False,
        )


def _in_place(path: Path, change: Callable[[Path, Path], None]) -> None:
    changed = path.with_suffix(".changed")
    change(path, changed)
    changed.replace(path)


def _not_preprocessing_advice(entry: logging.LogRecord) -> bool:
    """Drops the quantiser's advice to optimise the graph first, which is for static quantisation."""
    return "run pre-processing before quantization" not in entry.getMessage()


def _quantise(source: Path, target: Path) -> None:
    logging.getLogger().addFilter(_not_preprocessing_advice)
    quantize_dynamic(
        source, target, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"], per_channel=True
    )


def store_half(source: Path, target: Path) -> None:
    """Large float32 weights as float16, each with a cast back that ONNX Runtime folds away when it loads the graph."""
    model = onnx.load(source)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < 1024:
            continue
        values = numpy_helper.to_array(weight)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)


# --- the folder -----------------------------------------------------------------------------------------------------


def _config(
    vl: VisionLanguageModel,
    model: QueryModel,
    light: str,
    settings: TrainSettings,
    record: dict[str, Any],
    vl_name: str | None,
) -> ModelConfig:
    return ModelConfig(
        vl=replace(vl.record, name=vl_name or vl.record.name),
        light=light,
        learner=settings.learner,
        template=settings.template,
        gallery_preprocessing=vl.preprocessing,
        query_preprocessing=model.preprocessing,
        width=vl.width,
        word_width=vl.word_width,
        word_norm=vl.word_norm(),
        head_length=vl.head_length(Template.parse(settings.template)),
        max_length=vl.max_length,
        fingerprint=vl.record.fingerprint,
        training=record,
    )


def _with_files(config: ModelConfig, draft: Path) -> ModelConfig:
    files = {
        path.relative_to(draft).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(draft.rglob("*"))
        if path.is_file()
    }
    query = hashlib.sha256(
        "".join(files[name] for name in (names.QUERY_IMAGE, names.QUERY_TEXT)).encode()
    ).hexdigest()
    return replace(config, files=files, query_fingerprint=query)


def _write_config(draft: Path, config: ModelConfig) -> None:
    (draft / names.CONFIG).write_text(json.dumps(to_dict(config), indent=1) + "\n", encoding="utf-8")


def _replace_folder(draft: Path, out: Path) -> None:
    """Puts the finished draft in the place of an older folder; the older one goes only once the new one is there."""
    try:
        for path in (draft, *draft.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        older = out.with_name(f".{out.name}.older")
        shutil.rmtree(older, ignore_errors=True)
        if out.exists():
            out.rename(older)
        shutil.copytree(draft, out)
        shutil.rmtree(older, ignore_errors=True)
    except OSError as error:
        raise ModelError(f"could not write the model folder {out}: {error}") from error
