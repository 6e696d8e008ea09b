"""A trained query side and its frozen VL model -> a model folder: ONNX graphs, tokenizer, weights, config, card.

Every graph is compared with the torch model on real pictures and words before anything is written to its place; a
graph that drifts further than its floor allows is an error, not a file. What was measured lies in parity.json.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from image2sentence.config import ModelConfig, to_dict
from image2sentence.encoders import folder as names
from image2sentence.encoders.folder import ModelFolder
from image2sentence.encoders.onnx import OnnxEncoder
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.encoders.template import Template
from image2sentence.errors import ModelError
from image2sentence.training import quantise, state
from image2sentence.training.light_text import LightText
from image2sentence.training.parity import Floors, benchmark_change, check_parity, measure_parity
from image2sentence.training.query_model import QueryModel
from image2sentence.training.settings import TrainSettings
from image2sentence.training.torch_encoder import TorchEncoder
from image2sentence.training.vl.base import TextTower, VisionLanguageModel, Words, insert

PARITY = "parity.json"
TEXT_WEIGHTS = "text.safetensors"
_OPSET = 17
_LEARNER = "/model/learner/"  # its nodes in the graph of query_image


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
        words = Words(self.tower.embed(ids), torch.zeros_like(ids, dtype=torch.float32))
        gates = sentence[..., self.word_width].exp() if self.gated else torch.ones_like(sentence[..., 0])
        pseudo = self.tower.enter(sentence[..., : self.word_width])
        vectors: Tensor = self.tower(insert(pseudo, gates, words, self.head), masked=self.gated)
        return vectors


@dataclass(frozen=True)
class ExportOptions:
    """How the graphs are stored and computed, and how closely that is looked at.

    `int8_text` quantises the text graph's matrices; `half` stores other weights as float16, computing in float32.
    `calibration` are RGB pictures like those that will be asked with: the light encoder's convolutions are quantised
    by the ranges that they give; without any it stays float. `benchmark` is the number of drawn products on which
    torch and the graphs answer the same queries; 0 leaves that out. `matching` adds the matching encoder, for
    reranking.
    """

    int8_text: bool = True
    half: bool = True
    calibration: Sequence[Image.Image] = ()
    benchmark: int = 0
    matching: bool = False

    @property
    def precision(self) -> dict[str, str]:
        """What each graph computes in, or stores its weights in."""
        stored = "float16" if self.half else "float32"
        return {
            "query_image": "int8" if self.calibration else stored,
            "query_text": "int8" if self.int8_text else stored,
            "gallery_image": stored,
        }


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
    text: LightText | None = None,
) -> dict[str, Any]:
    """Writes the model folder `out` whole or not at all, and returns its parity report.

    `text` is a light text encoder that the query graph has in place of the VL model's own; the report then says how
    far it is from that one too.

    `pictures` and `texts` are what the graphs are compared on. Raises ModelError where a graph drifts from torch, or
    the folder cannot be written; an older folder at `out` then stays as it was.
    """
    options = options or ExportOptions()
    if options.matching and not vl.has_matching:
        raise ModelError(f"{vl.record.name} ({vl.record.kind}) has no matching encoder: export without it")
    vl.cpu().eval().float()
    model.cpu().eval().half().float()  # rounded first: graphs, stored weights and parity speak of the same numbers
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=out.parent, prefix=f".{out.name}.", ignore_cleanup_errors=True
        ) as name:
            draft = Path(name, out.name)
            tower = text.fold() if text is not None else vl.text_tower()
            _write_graphs(vl, model, tower, settings, draft, options)
            (draft / names.TOKENIZER).write_text(vl.tokenizer.to_str(), encoding="utf-8")
            weights = {key: v.half() if v.is_floating_point() else v for key, v in model.state_dict().items()}
            state.save_tensors(draft / names.WEIGHTS, weights, {"light": light})
            if text is not None:
                state.save_tensors(draft / TEXT_WEIGHTS, text.state_dict(), {"text": to_dict(text.config)})
            config = _with_files(_config(vl, model, light, settings, record, vl_name), draft)
            _write_config(draft, config)
            exported = OnnxEncoder(ModelFolder.open(draft))
            parity = _parity(
                TorchEncoder(vl, model, settings.template, text), exported, pictures, texts, options
            )
            if text is not None:
                full = TorchEncoder(vl, model, settings.template)
                parity["full_text"] = _measured(full, exported, pictures, texts, options)
            _write_config(draft, replace(config, parity=parity))
            (draft / PARITY).write_text(json.dumps(parity, indent=2) + "\n", encoding="utf-8")
            _replace_folder(draft, out)
    except OSError as error:
        raise ModelError(
            f"could not write the model folder {out}: {error}; what was there before is untouched"
        ) from error
    return parity


def _parity(
    reference: TorchEncoder,
    exported: OnnxEncoder,
    pictures: Sequence[Image.Image],
    texts: Sequence[str],
    options: ExportOptions,
) -> dict[str, Any]:
    """The parity report. Raises DriftError where it is below a floor."""
    folder = exported.folder.path
    floors = Floors.of(options.int8_text, bool(options.calibration))
    parity = _measured(reference, exported, pictures, texts, options)
    check_parity(parity, floors)
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in _graphs(folder)}
    return parity | {
        "precision": options.precision,
        "bytes": sizes,
        "floors": json.loads(json.dumps(dataclasses.asdict(floors))),
    }


def _measured(
    reference: TorchEncoder,
    exported: OnnxEncoder,
    pictures: Sequence[Image.Image],
    texts: Sequence[str],
    options: ExportOptions,
) -> dict[str, Any]:
    parity = measure_parity(reference, exported, pictures, texts)
    if options.benchmark:
        parity["benchmark"] = benchmark_change(reference, exported, options.benchmark)
    return parity


# --- graphs ---------------------------------------------------------------------------------------------------------


def _write_graphs(
    vl: VisionLanguageModel,
    model: QueryModel,
    tower: TextTower,
    settings: TrainSettings,
    draft: Path,
    options: ExportOptions,
) -> None:
    gated = settings.learner.gates
    head = vl.head_length(Template.parse(settings.template))
    width = vl.word_width + int(gated)
    sentence = torch.randn(2, settings.learner.tokens, width)
    ids = torch.tensor([vl.tokenizer.encode("a red one").ids] * 2)
    light, large = (torch.rand(2, 3, p.size, p.size) for p in (model.preprocessing, vl.preprocessing))
    (draft / "onnx").mkdir(parents=True)
    rows = {0: "rows"}
    trace(
        GalleryImageGraph(vl, options.matching),
        (large,),
        draft / names.GALLERY_IMAGE,
        ["pixels"],
        ["vectors", "patches"] if options.matching else ["vectors"],
        {"pixels": rows},
    )
    outputs = ["sentence", "attention", "gates"]
    trace(
        QueryImageGraph(model, gated),
        (light,),
        draft / names.QUERY_IMAGE,
        ["pixels"],
        outputs,
        {"pixels": rows},
    )
    dynamic = {"sentence": {0: "rows", 1: "tokens"}, "ids": {0: "rows", 1: "words"}}
    text = QueryTextGraph(tower, vl.word_width, head, gated)
    trace(text, (sentence, ids), draft / names.QUERY_TEXT, ["sentence", "ids"], ["vectors"], dynamic)
    if options.matching:
        patches = vl.encode_images(large).patches
        inputs = ["sentence", "ids", "patches"]
        match = MatchGraph(vl, head, gated)
        trace(
            match,
            (sentence, ids, patches),
            draft / names.MATCH,
            inputs,
            ["logits"],
            dynamic | {"patches": rows},
        )
    _compress(draft, model, options)


def _graphs(folder: Path) -> list[Path]:
    """The graphs that a folder has, of those that it may have."""
    return [folder / name for name in (*names.GRAPHS, names.MATCH) if (folder / name).is_file()]


def _compress(draft: Path, model: QueryModel, options: ExportOptions) -> None:
    """Quantises and halves the graphs in place, as the options say."""
    if options.int8_text:
        for path in {draft / names.QUERY_TEXT, draft / names.MATCH} & set(_graphs(draft)):
            quantise.in_place(path, quantise.dynamic_int8)
    if options.calibration:
        shown = [to_pixels([image], model.preprocessing) for image in options.calibration]
        quantise.in_place(
            draft / names.QUERY_IMAGE, lambda old, new: quantise.static_int8(old, new, shown, keep=_LEARNER)
        )
    if options.half:
        for path in _graphs(draft):
            quantise.in_place(path, quantise.store_half)


def trace(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    input_names: list[str],
    output_names: list[str],
    dynamic: dict[str, dict[int, str]],
) -> None:
    """One module's graph at `path`, its axes free where `dynamic` names them, and the first axis of every output.

    Through the TorchScript exporter: dynamic quantisation fails on the text graph that the other one writes.
    """
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
    """Puts the finished draft in the place of an older folder, which goes only once the new one is there."""
    older = out.with_name(f".{out.name}.older")
    for path in (draft, *draft.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.rmtree(older, ignore_errors=True)
    if out.exists():
        out.rename(older)
    try:
        draft.rename(out)
    except OSError:
        if older.exists():
            older.rename(out)
        raise
    shutil.rmtree(older, ignore_errors=True)
