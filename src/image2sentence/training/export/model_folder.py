"""Export of a trained query side and its VL model.

A model folder holds ONNX graphs, tokenizer, weights, config and card.

Every graph is compared with the torch model on real pictures and words before anything is written to its place; a
graph that drifts further than its floor allows is an error, not a file. What was measured lies in parity.json.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from image2sentence.encoders import model_folder as names
from image2sentence.encoders.config import ModelConfig, check_sentence_share
from image2sentence.encoders.model_folder import ModelFolder
from image2sentence.encoders.onnx_encoder import OnnxEncoder
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.encoders.template import Template
from image2sentence.errors import ModelError
from image2sentence.strict_json import to_dict
from image2sentence.training import checkpoint as state
from image2sentence.training.adapted import MIN_COSINE
from image2sentence.training.export import quantize as quantise
from image2sentence.training.export.fixed_shape import (
    FIXED_IMAGE,
    FIXED_TEXT,
    IMAGE_OUTPUTS,
    FixedEncoder,
    fixed_queries,
    write_fixed,
)
from image2sentence.training.export.graphs import (
    FixedTextGraph,
    GalleryImageGraph,
    MatchGraph,
    QueryImageGraph,
    QueryTextGraph,
    trace,
)
from image2sentence.training.export.parity import (
    Floors,
    benchmark_change,
    check_parity,
    cosines,
    measure_parity,
)
from image2sentence.training.export.torch_encoder import TorchEncoder
from image2sentence.training.models.query_model import QueryModel
from image2sentence.training.models.text_student import LightText
from image2sentence.training.settings import TrainSettings
from image2sentence.training.vl.base import TextTower, VisionLanguageModel, weights_fingerprint

PARITY = "parity.json"
_LEARNER = "/model/learner/"  # its nodes in the graph of query_image


@dataclass(frozen=True)
class ExportOptions:
    """How the graphs are stored and computed, and how closely that is looked at.

    `int8_text` quantises the text graph's matrices; `half` stores other weights as float16, computing in float32, and
    `int8_storage` those of the visual encoders, the token learner and the words' embeddings as int8, computing in
    float32 too.
    `calibration` are RGB pictures like those that will be asked with: the light encoder's convolutions are quantised
    by the ranges that they give; without any it stays float. `benchmark` is the number of drawn products on which
    torch and the graphs answer the same queries; 0 leaves that out. `matching` adds the matching encoder, for
    reranking. `fixed` adds query graphs of fixed shape, for texts of up to so many token ids; 0 leaves them out.
    `sentence_share` is how much of a picture's own sentence is in its gallery vector (`OnnxEncoder.encode_images`);
    None: as much as in the model folder that is exported again, none in a new one.
    """

    int8_text: bool = True
    half: bool = True
    int8_storage: bool = False
    calibration: Sequence[Image.Image] = ()
    benchmark: int = 0
    matching: bool = False
    fixed: int = 0
    sentence_share: float | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for an impossible share."""
        check_sentence_share(self.sentence_share or 0.0)

    @property
    def precision(self) -> dict[str, str]:
        """What each graph computes in, or stores its weights in."""
        stored = "float16" if self.half else "float32"
        return {
            "query_image": "int8" if self.calibration else "int8 storage" if self.int8_storage else stored,
            "query_text": "int8" if self.int8_text else stored,
            "gallery_image": "int8 storage" if self.int8_storage else stored,
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
    gallery: ModelFolder | None = None,
) -> dict[str, Any]:
    """Writes the model folder `out` whole or not at all, and returns its parity report.

    `text` is a light text encoder that the query graph has in place of the VL model's own; the report then says how
    far it is from that one too. `gallery` is a folder whose gallery side the new one keeps, to the byte, and with it
    the identity of the vector space, so that its galleries can be asked: that of an adapted model.

    `pictures` and `texts` are what the graphs are compared on. Raises ModelError where a graph drifts from torch, or
    the folder cannot be written; an older folder at `out` then stays as it was.
    """
    options = options or ExportOptions()
    share = options.sentence_share or 0.0
    if options.matching and not vl.has_matching:
        raise ModelError(f"{vl.record.name} ({vl.record.kind}) has no matching encoder: export without it")
    if gallery is not None and (share or options.matching):
        raise ModelError(
            "an adapted model keeps its own gallery side: export without sentence share and matching"
        )
    names.check_replaceable(out)
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
            if gallery is not None:
                shutil.copyfile(gallery.checked_path(names.GALLERY_IMAGE), draft / names.GALLERY_IMAGE)
            (draft / names.TOKENIZER).write_text(vl.tokenizer.to_str(), encoding="utf-8")
            weights = {key: v.half() if v.is_floating_point() else v for key, v in model.state_dict().items()}
            state.save_tensors(draft / names.WEIGHTS, weights, {"light": light})
            if text is not None:
                state.save_tensors(
                    draft / names.TEXT_WEIGHTS, text.state_dict(), {"text": to_dict(text.config)}
                )
            files = [path.relative_to(draft).as_posix() for path in draft.rglob("*") if path.is_file()]
            config = _config(vl, model, light, settings, record, vl_name, share)
            if gallery is not None:
                config = replace(config, fingerprint=gallery.config.fingerprint, origin=gallery.config.origin)
            config = names.listed(config, draft, files)
            names.write_config(draft, config)
            exported = OnnxEncoder(ModelFolder.open(draft))
            reference = TorchEncoder(vl, model, settings.template, text, share, config.fingerprint)
            parity = _parity(reference, exported, pictures, texts, options, gallery is not None)
            if text is not None:
                full = TorchEncoder(vl, model, settings.template, None, share, config.fingerprint)
                parity["full_text"] = _measured(full, exported, pictures, texts, options)
            names.write_config(draft, replace(config, parity=parity))
            (draft / PARITY).write_text(json.dumps(parity, indent=2) + "\n", encoding="utf-8")
            names.replace_folder(draft, out)
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
    adapted: bool,
) -> dict[str, Any]:
    """The parity report. Raises DriftError where it is below a floor; a gallery side that is kept has a low one."""
    folder = exported.folder.path
    floors = Floors.of(options.int8_text, bool(options.calibration), bool(options.sentence_share))
    if adapted:
        floors = replace(floors, gallery_image=(MIN_COSINE, MIN_COSINE))
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
    if options.fixed:
        asked = fixed_queries(reference, FixedEncoder(exported.folder), pictures, texts)
        parity["fixed_query"] = {"words": options.fixed, **cosines(*asked)}
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
    gated, head = settings.learner.gates, vl.head_length(Template.parse(settings.template))
    image = QueryImageGraph(model, gated)
    text = QueryTextGraph(tower, vl.word_width, head, gated)
    (draft / "onnx").mkdir(parents=True)
    _write_gallery(vl, draft, options.matching)
    _write_query(vl, image, text, settings.learner.tokens, draft)
    if options.matching:
        _write_match(vl, text, settings.learner.tokens, draft)
    if options.fixed:
        fixed = FixedTextGraph(tower, vl.word_width, head, gated)
        write_fixed(image, fixed, settings.learner.tokens, options.fixed, vl.max_length, draft)
    _compress(draft, model, options)


_ROWS = {0: "rows"}
_TEXT_AXES = {"sentence": {0: "rows", 1: "tokens"}, "ids": {0: "rows", 1: "words"}}


def _write_gallery(vl: VisionLanguageModel, draft: Path, patches: bool) -> None:
    outputs = ["vectors", "patches"] if patches else ["vectors"]
    graph = GalleryImageGraph(vl, patches)
    trace(graph, (_pixels(vl),), draft / names.GALLERY_IMAGE, ["pixels"], outputs, {"pixels": _ROWS})


def _write_query(
    vl: VisionLanguageModel, image: QueryImageGraph, text: QueryTextGraph, tokens: int, draft: Path
) -> None:
    pixels, asked = _pixels(image.model), _asked(vl, text, tokens)
    trace(image, (pixels,), draft / names.QUERY_IMAGE, ["pixels"], IMAGE_OUTPUTS, {"pixels": _ROWS})
    trace(text, asked, draft / names.QUERY_TEXT, ["sentence", "ids"], ["vectors"], _TEXT_AXES)


def _write_match(vl: VisionLanguageModel, text: QueryTextGraph, tokens: int, draft: Path) -> None:
    graph = MatchGraph(vl, text.head, text.gated)
    inputs = (*_asked(vl, text, tokens), vl.encode_images(_pixels(vl)).patches)
    axes = _TEXT_AXES | {"patches": _ROWS}
    trace(graph, inputs, draft / names.MATCH, ["sentence", "ids", "patches"], ["logits"], axes)


def _pixels(seeing: VisionLanguageModel | QueryModel) -> Tensor:
    return torch.rand(2, 3, seeing.preprocessing.size, seeing.preprocessing.size)


def _asked(vl: VisionLanguageModel, text: QueryTextGraph, tokens: int) -> tuple[Tensor, Tensor]:
    """Two sentences and the ids of some words."""
    sentences = torch.randn(2, tokens, vl.word_width + int(text.gated))
    return sentences, torch.tensor([vl.tokenizer.encode("a red one").ids] * 2)


def _graphs(folder: Path) -> list[Path]:
    """The graphs that a folder has, of those that it may have."""
    possible = (*names.GRAPHS, names.MATCH, FIXED_IMAGE, FIXED_TEXT)
    return [folder / name for name in possible if (folder / name).is_file()]


def _compress(draft: Path, model: QueryModel, options: ExportOptions) -> None:
    """Quantises and halves the graphs in place, as the options say."""
    written = _graphs(draft)
    # The match graph reranks where the gallery is, and in int8 it drifts: its logits correlate by 0.95 only.
    texts = [draft / name for name in (names.QUERY_TEXT, FIXED_TEXT)]
    images = [draft / name for name in (names.QUERY_IMAGE, FIXED_IMAGE)]
    stored = [*images, *texts, draft / names.GALLERY_IMAGE]  # of texts, what is left: the words' embeddings
    shown = [to_pixels([image], model.preprocessing) for image in options.calibration]
    for path in written:
        if options.int8_text and path in texts:
            quantise.in_place(path, quantise.dynamic_int8)
        if shown and path in images:
            quantise.in_place(path, lambda old, new: quantise.static_int8(old, new, shown, keep=_LEARNER))
        if options.int8_storage and path in stored:
            quantise.in_place(path, quantise.store_int8)
        if options.half:
            quantise.in_place(path, quantise.store_half)


# --- the folder -----------------------------------------------------------------------------------------------------


def _config(
    vl: VisionLanguageModel,
    model: QueryModel,
    light: str,
    settings: TrainSettings,
    record: dict[str, Any],
    vl_name: str | None,
    sentence_share: float,
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
        fingerprint=_space(vl, model, settings.template, sentence_share),
        training=record,
        sentence_share=sentence_share,
    )


def _space(vl: VisionLanguageModel, model: QueryModel, template: str, share: float) -> str:
    """The identity of the vector space: of weights, not of files, so that other quantisations search one gallery."""
    if not share:
        return vl.record.fingerprint
    parts = (vl.record.fingerprint, weights_fingerprint(model, model.preprocessing), template, repr(share))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
