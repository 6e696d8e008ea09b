"""Layouts in which programs publish a vision and a text graph.

Everything here works on names alone, relative to a repository or a folder and with `/` between, so that what has to be
fetched is known before a byte of it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from image2sentence.errors import ModelError

Precision = Literal["auto", "fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "fp16", "int8")

_SUFFIXES = {"fp32": ("",), "fp16": ("_fp16",), "int8": ("_int8", "_quantized", "_uint8")}
_VISION_ORDER = ("fp32", "fp16")  # int8 vision towers drift too far to be taken without being asked for
_TEXT_ORDER = ("int8", "fp32", "fp16")
_EXTERNAL = re.compile(r"\.onnx[._]data(_\d+)?$")
_OTHER_ENDINGS = ("armnn", "json", "md", "onnx", "rknn", "txt")
TORCH_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_CLIP_MERGES = "bpe_simple_vocab_16e6.txt.gz"
SETTINGS = (
    "config.json",
    "open_clip_config.json",
    "preprocess_cfg.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


@dataclass(frozen=True)
class Layout:
    """Where the parts of a pair lie.

    Attributes:
        name: "transformers.js", "immich", "fastembed" or "rclip".
        vision: The vision graph.
        text: The text graph.
        tokenizer: `tokenizer.json`, or OpenAI's file of merges.
        settings: JSON files beside them: of the model, its tokenizer and its preprocessing.
        external: Weights that lie outside the graphs.
        precision: What the vision and the text graph are stored in.
    """

    name: str
    vision: str
    text: str
    tokenizer: str
    settings: tuple[str, ...]
    external: tuple[str, ...] = ()
    precision: tuple[str, str] = ("fp32", "fp32")

    @property
    def files(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys((self.vision, self.text, self.tokenizer, *self.settings, *self.external)))

    def setting(self, file: str, *folders: str) -> str | None:
        """The settings file of this name in the first of the folders that has it; "" is the top."""
        names = (f"{folder}/{file}" if folder else file for folder in folders)
        return next((name for name in names if name in self.settings), None)


def recognise(files: Collection[str], precision: Precision = "auto", where: str = "the folder") -> Layout:
    """The layout of these files.

    Args:
        files: Names relative to the repository or folder.
        precision: What graphs to take where there are several: "auto" is float32 or float16 for vision and int8 or
            float32 for text.
        where: What is looked into, for messages.

    Raises:
        ModelError: no pair of graphs, a fused graph, or no tokenizer.
    """
    names = frozenset(files)
    for pair in _pairs(names, precision):
        return _completed(pair, names, where)
    raise ModelError(_no_pair(names, precision, where))


@dataclass(frozen=True)
class _Pair:
    layout: str
    vision: str
    text: str
    precision: tuple[str, str] = ("fp32", "fp32")


def _pairs(names: frozenset[str], precision: Precision) -> Iterator[_Pair]:
    for name in sorted(names, key=lambda one: (one.count("/"), one)):
        folder, _, file = name.rpartition("/")
        if file.startswith("vision_model") and file.endswith(".onnx"):
            yield from _transformers_js(names, f"{folder}/" if folder else "", precision)
    if precision not in ("auto", "fp32"):  # the others name none, and hold one
        return
    if {"visual/model.onnx", "textual/model.onnx"} <= names:
        yield _Pair("immich", "visual/model.onnx", "textual/model.onnx")
    folders = [name.removesuffix("visual.onnx") for name in names if re.search(r"(^|/)visual\.onnx$", name)]
    if len(folders) == 1 and f"{folders[0]}textual.onnx" in names:
        yield _Pair("rclip", f"{folders[0]}visual.onnx", f"{folders[0]}textual.onnx")
    for vision in sorted(names):
        text = vision.replace("vision/", "text/")
        if vision.endswith("vision/model.onnx") and text in names:
            yield _Pair("fastembed", vision, text)


def _transformers_js(names: frozenset[str], folder: str, precision: Precision) -> Iterator[_Pair]:
    vision = _first(names, f"{folder}vision_model", _VISION_ORDER if precision == "auto" else (precision,))
    text = _first(names, f"{folder}text_model", _TEXT_ORDER if precision == "auto" else (precision,))
    if vision and text:
        yield _Pair("transformers.js", vision[0], text[0], (vision[1], text[1]))


def _first(names: frozenset[str], stem: str, precisions: Collection[str]) -> tuple[str, str] | None:
    for precision in precisions:
        for suffix in _SUFFIXES[precision]:
            if f"{stem}{suffix}.onnx" in names:
                return f"{stem}{suffix}.onnx", precision
    return None


def _completed(pair: _Pair, names: frozenset[str], where: str) -> Layout:
    folders = _near(pair)
    tokenizers = [
        name
        for folder in folders
        for name in (
            f"{folder}tokenizer.json",
            f"{folder}tokenizer/{_CLIP_MERGES}",
            f"{folder}{_CLIP_MERGES}",
        )
        if name in names
    ]
    if not tokenizers:
        raise ModelError(
            f"{where} has the graphs {pair.vision} and {pair.text} and no tokenizer: expected tokenizer.json or "
            f"{_CLIP_MERGES} beside them. Add the file of the model that they were exported from"
        )
    settings = [f"{folder}{file}" for folder in folders for file in SETTINGS if f"{folder}{file}" in names]
    return Layout(
        pair.layout,
        pair.vision,
        pair.text,
        tokenizers[0],
        tuple(dict.fromkeys(settings)),
        tuple(sorted(_external(pair, names))),
        pair.precision,
    )


def _near(pair: _Pair) -> list[str]:
    """Folders that tokenizer and settings may lie in: those of the graphs, text first, then those above."""
    folders = []
    for graph in (pair.text, pair.vision):
        parts = graph.split("/")[:-1]
        folders += ["/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]
    return [f"{folder}/" if folder else "" for folder in dict.fromkeys(folders)]


def _external(pair: _Pair, names: frozenset[str]) -> Iterator[str]:
    for graph in (pair.vision, pair.text):
        folder, _, file = graph.rpartition("/")
        for name in names:
            place, _, other = name.rpartition("/")
            if place != folder:
                continue
            own = other.startswith(file) and _EXTERNAL.search(other)
            # torch's older exporter keeps each large tensor in a file of its own, which has the tensor's name
            if own or (pair.layout == "immich" and other.rpartition(".")[2] not in _OTHER_ENDINGS):
                yield name


def _no_pair(names: frozenset[str], precision: Precision, where: str) -> str:
    graphs = sorted(name for name in names if name.endswith(".onnx"))
    if not graphs and (weights := sorted(name for name in names if name.endswith(TORCH_WEIGHTS))):
        return (
            f"{where} holds torch weights ({weights[0]}) and no ONNX graphs, which searching without torch needs: take "
            "a repository with onnx/vision_model.onnx and onnx/text_model.onnx of the same model, or export them with "
            "Hugging Face's optimum"
        )
    found = (
        f"found {', '.join(graphs[:6])}{' ...' if len(graphs) > 6 else ''}"
        if graphs
        else "found no .onnx file"
    )
    if precision != "auto" and graphs:
        return (
            f"{where} has no vision and text graph in {precision}: {found}; name another precision, or none"
        )
    if any(re.search(r"(^|/)model[^/]*\.onnx$", name) for name in graphs):
        return (
            f"{where} has no vision graph with a text graph beside it: {found}. A graph in which both are fused cannot "
            "be cut: choose a repository with vision_model.onnx and text_model.onnx"
        )
    return (
        f"{where} is in no known layout: {found}. Expected onnx/vision_model.onnx with onnx/text_model.onnx, "
        "visual/model.onnx with textual/model.onnx, visual.onnx with textual.onnx, or vision/model.onnx with "
        "text/model.onnx"
    )
