"""Small random models, published as programs of the Hub publish theirs."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

SIZE = 32
_SENTENCE = (
    "a red blue green dress dog dogs on beach two photo of the same but in with long sleeves and not café"
)
WORDS = _SENTENCE.split()
_VISION = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 8,
}
_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@dataclass(frozen=True)
class Tiny:
    """A model of transformers, its tokenizer, and the settings that are published with it."""

    kind: str
    model: Any
    tokenizer: Tokenizer
    processor: dict[str, Any]
    tokenizer_config: dict[str, Any]
    length: int
    size: int = SIZE


class VisionGraph(nn.Module):
    """pixel_values -> last_hidden_state, vectors."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.model.vision_model(pixel_values=pixel_values)
        projection = getattr(self.model, "visual_projection", None)
        pooled = seen.pooler_output
        return seen.last_hidden_state, pooled if projection is None else projection(pooled)


class TextGraph(nn.Module):
    """input_ids -> last_hidden_state, vectors."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        read = self.model.text_model(input_ids=input_ids)
        projection = getattr(self.model, "text_projection", None)
        pooled = read.pooler_output
        return read.last_hidden_state, pooled if projection is None else projection(pooled)


def tiny(kind: str, seed: int = 0, text_length: int | None = None) -> Tiny:
    """ "clip", "clip-l14" (its patches), "mobileclip" (its preprocessing), "siglip" or "siglip2" (Gemma's words)."""
    torch.manual_seed(seed)
    make: dict[str, Callable[[int | None], Tiny]] = {
        "clip": _clip,
        "clip-l14": _clip_l14,
        "mobileclip": _mobileclip,
        "siglip": _siglip,
        "siglip2": _siglip2,
    }
    made = make[kind](text_length)
    for parameter in made.model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    made.model.eval()
    return made


def _clip(length: int | None) -> Tiny:
    tokenizer = clip_tokenizer(clip_merges())
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIZE},
        "crop_size": {"height": SIZE, "width": SIZE},
        "do_center_crop": True,
        "resample": 3,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    return Tiny("clip", _clip_model(tokenizer, length or 24), tokenizer, processor, {}, length or 24)


def _clip_l14(length: int | None) -> Tiny:
    made, size = _clip(length), 3 * 14
    vision = {**_VISION, "patch_size": 14, "image_size": size, "num_hidden_layers": 3}
    processor = made.processor | {
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
    }
    model = _clip_model(made.tokenizer, made.length, vision)
    return replace(made, model=model, processor=processor, size=size)


def _mobileclip(length: int | None) -> Tiny:
    tokenizer = clip_tokenizer(clip_merges())
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIZE + 5},
        "crop_size": {"height": SIZE, "width": SIZE},
        "do_center_crop": True,
        "resample": 2,
        "do_normalize": False,
        "image_mean": [0.0, 0.0, 0.0],
        "image_std": [1.0, 1.0, 1.0],
    }
    return Tiny("clip", _clip_model(tokenizer, length or 24), tokenizer, processor, {}, length or 24)


def _clip_model(tokenizer: Tokenizer, length: int, vision: dict[str, Any] = _VISION) -> CLIPModel:
    size = tokenizer.get_vocab_size()
    ends = {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    text = {**_TEXT, "vocab_size": size, "max_position_embeddings": length, **ends}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))


def _siglip(length: int | None) -> Tiny:
    pieces = [("</s>", 0.0), ("<pad>", 0.0), ("<unk>", -20.0), ("▁", -3.0)]
    pieces += [("▁" + word, -2.0) for word in WORDS] + [
        (letter, -9.0) for letter in "abcdefghijklmnopqrstuvwxyzé.,"
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, 2))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["</s>", "<pad>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    settings = {"tokenizer_class": "SiglipTokenizer", "pad_token": "<pad>"}
    return _siglip_kind("siglip", tokenizer, settings, length or 24, 1, 3)


def _siglip2(length: int | None) -> Tiny:
    vocab = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = sorted({letter for word in WORDS for letter in word} | set("▁ABCDR.,$"))
    merges: list[tuple[str, str]] = []
    vocab += letters
    for word in [word for own in WORDS for word in (own, "▁" + own)]:
        joined = word[0]
        for letter in word[1:]:
            if (joined, letter) not in merges:
                merges.append((joined, letter))
                vocab.append(joined + letter)
            joined += letter
    vocab = list(dict.fromkeys(vocab))
    tokenizer = Tokenizer(
        models.BPE(
            {word: n for n, word in enumerate(vocab)},
            merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.add_special_tokens(vocab[:5])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )  # what the class does otherwise is in tokenizer_config.json
    settings = {
        "tokenizer_class": "GemmaTokenizer",
        "pad_token": "<pad>",
        "eos_token": {"content": "<eos>"},
        "bos_token": "<bos>",
        "add_bos_token": False,
        "add_eos_token": True,
    }
    return _siglip_kind("siglip2", tokenizer, settings, length or 24, 0, 2)


def _siglip_kind(
    kind: str, tokenizer: Tokenizer, settings: dict[str, Any], length: int, pad: int, resample: int
) -> Tiny:
    text = {**_TEXT, "vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": length}
    text |= {"pad_token_id": pad, "projection_size": 24}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=_VISION))
    processor = {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": SIZE, "width": SIZE},
        "resample": resample,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    return Tiny(kind, model, tokenizer, processor, settings, length)


def clip_merges() -> list[tuple[str, str]]:
    """Merges of the test's words, as CLIP's are made: with the end of a word marked."""
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        units = [chr(byte) if byte < 128 else _unit(byte) for byte in word.encode()]
        units[-1] += "</w>"
        joined = units[0]
        for unit in units[1:]:
            if (joined, unit) not in merges:
                merges.append((joined, unit))
            joined += unit
    return merges


def _unit(byte: int) -> str:
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [one for one in range(256) if one not in shown]
    return chr(byte) if byte in shown else chr(256 + hidden.index(byte))


def clip_tokenizer(merges: list[tuple[str, str]]) -> Tokenizer:
    """transformers' own CLIPTokenizer of these merges."""
    from transformers import CLIPTokenizer

    units = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [_unit(byte) for byte in [*units, *(byte for byte in range(256) if byte not in units)]]
    vocab = [*letters, *(one + "</w>" for one in letters), *(a + b for a, b in merges)]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    made = CLIPTokenizer(vocab={word: n for n, word in enumerate(vocab)}, merges=merges)
    tokenizer: Tokenizer = made.backend_tokenizer
    return tokenizer


def merges_file(merges: list[tuple[str, str]]) -> bytes:
    """OpenAI's `bpe_simple_vocab_16e6.txt.gz` of these merges."""
    return gzip.compress(("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n").encode())


# --- graphs ---------------------------------------------------------------------------------------------------------


def export(
    module: nn.Module,
    path: Path,
    given: Tensor,
    names: tuple[str, list[str]],
    *,
    dynamo: bool = False,
    fixed: bool = False,
    external: bool = False,
) -> None:
    """One graph with one input; the first axis is free, and of words the second, unless `fixed`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name, outputs = names
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if dynamo:
            axes = {0: torch.export.Dim("rows", min=1, max=64)}
            if given.ndim == 2:
                axes[1] = torch.export.Dim("words", min=2, max=given.shape[1])
            torch.onnx.export(
                module,
                (given,),
                str(path),
                dynamo=True,
                input_names=[name],
                output_names=outputs,
                dynamic_shapes=None if fixed else (axes,),
                external_data=external,
                verbose=False,
            )
            return
        free = {0: "batch"} | ({1: "sequence"} if given.ndim == 2 else {})
        torch.onnx.export(
            module,
            (given,),
            str(path),
            dynamo=False,
            input_names=[name],
            output_names=outputs,
            dynamic_axes=None if fixed else {name: free, **{one: {0: "batch"} for one in outputs}},
            opset_version=17,
        )


def publish(
    made: Tiny, folder: Path, layout: str = "transformers.js", precision: str = "fp32", dynamo: bool = False
) -> Path:
    """The model in `folder`, in one of the layouts of `image2sentence.hub`."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = torch.randint(3, 20, (2, made.length))
    pixels = torch.rand(2, 3, made.size, made.size)
    vision, text = VisionGraph(made.model), TextGraph(made.model)
    clip = made.kind == "clip"
    if layout == "transformers.js":
        seen = ("pixel_values", ["last_hidden_state", "image_embeds" if clip else "pooler_output"])
        read = ("input_ids", ["last_hidden_state", "text_embeds" if clip else "pooler_output"])
        suffix = {"fp32": "", "fp16": "_fp16", "int8": "_quantized"}[precision]
        files = [folder / "onnx" / f"{side}_model{suffix}.onnx" for side in ("vision", "text")]
        export(vision, files[0], pixels, seen, dynamo=dynamo)
        export(text, files[1], ids, read, dynamo=dynamo)
        for file in files:
            store(file, precision)
        _settings(made, folder)
    elif layout == "immich":
        export(
            _Second(vision), folder / "visual/model.onnx", pixels[:1], ("image", ["embedding"]), fixed=True
        )
        export(
            _Second(text, torch.int64),
            folder / "textual/model.onnx",
            ids[:1].int(),
            ("text", ["embedding"]),
            fixed=True,
        )
        made.tokenizer.save(str(folder / "textual" / "tokenizer.json"))
        (folder / "textual/tokenizer_config.json").write_text(json.dumps(made.tokenizer_config))
        name = "timm/ViT-B-16-SigLIP" if not clip else None
        kept = {"embed_dim": 12, "text_cfg": {"context_length": made.length, "hf_tokenizer_name": name}}
        (folder / "config.json").write_text(json.dumps(kept))
        (folder / "visual/preprocess_cfg.json").write_text(json.dumps(_open_clip(made)))
    elif layout == "fastembed":
        for side, module, given, names in (
            ("vision", vision, pixels, ("pixel_values", ["image_embeds"])),
            ("text", text, ids, ("input_ids", ["text_embeds"])),
        ):
            export(_Second(module), folder / f"clip-{side}" / "model.onnx", given, names)
            _settings(made, folder / f"clip-{side}")
    elif layout == "rclip":
        export(_Second(vision), folder / "visual.onnx", pixels, ("input", ["output"]))
        export(_Second(text), folder / "textual.onnx", ids, ("input", ["output"]))
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer/bpe_simple_vocab_16e6.txt.gz").write_bytes(merges_file(clip_merges()))
    return folder


class _Second(nn.Module):
    """The vectors alone; ids in another type where `kind` is given."""

    def __init__(self, inner: nn.Module, kind: torch.dtype | None = None) -> None:
        super().__init__()
        self.inner, self.kind = inner, kind

    def forward(self, given: Tensor) -> Tensor:
        found: Tensor = self.inner(given if self.kind is None else given.to(self.kind))[1]
        return found


def _settings(made: Tiny, folder: Path) -> None:
    made.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(made.tokenizer_config))
    (folder / "preprocessor_config.json").write_text(json.dumps(made.processor))
    (folder / "config.json").write_text(json.dumps(made.model.config.to_dict()))


def _open_clip(made: Tiny) -> dict[str, Any]:
    clip = made.kind == "clip"
    return {
        "size": [SIZE, SIZE],
        "mean": made.processor["image_mean"],
        "std": made.processor["image_std"],
        "interpolation": {1: "lanczos", 2: "bilinear", 3: "bicubic"}[made.processor["resample"]],
        "resize_mode": "shortest" if clip else "squash",
    }


def store(path: Path, precision: str) -> None:
    """A graph in float16 or int8, in place."""
    if precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            path,
            path.with_suffix(".new"),
            weight_type=QuantType.QUInt8,
            extra_options={"EnableSubgraph": False},
        )
        shutil.move(path.with_suffix(".new"), path)
    elif precision == "fp16":
        import onnx

        half = to_half(onnx.load(str(path)))
        onnx.save(half, str(path))


def to_half(model: Any) -> Any:
    """Weights and computation in float16, inputs and outputs too."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=False)


def vectors(
    made: Tiny, pixels: np.ndarray[Any, Any] | None, ids: list[list[int]] | None
) -> np.ndarray[Any, Any]:
    """transformers' own vectors, of length 1: of pixels, or of ids that are filled up already."""
    with torch.no_grad():
        if pixels is not None:
            found = VisionGraph(made.model)(torch.from_numpy(pixels))[1]
        else:
            found = TextGraph(made.model)(torch.tensor(ids))[1]
    rows = found.numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
