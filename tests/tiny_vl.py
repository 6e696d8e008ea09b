"""Small vision-language models with random weights, saved to disk in the Hub's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BlipConfig,
    BlipForImageTextRetrieval,
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
)

from image2sentence.training.vl.conv_blip import ConvBlipForImageTextRetrieval, conv_blip_config

WORDS = [
    "a",
    "red",
    "blue",
    "green",
    "mug",
    "shirt",
    "with",
    "long",
    "sleeves",
    "but",
    "in",
    "and",
    "without",
    "stripes",
    "photo",
    "of",
    "$",
    "*",
    "{",
    "}",
    "2",
    "0",
    "5",
    ",",
    ".",
]
SIZE = 32
KINDS = ("blip", "conv_blip", "clip", "siglip")

_VISION = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 8,
}
_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def save_tiny_vl(kind: str, folder: Path, seed: int = 0, length: int = 20) -> Path:
    """A model of the kind that reads `length` tokens, its tokenizer and its image processor's settings in `folder`."""
    torch.manual_seed(seed)
    make = {"blip": _blip, "conv_blip": _conv_blip, "clip": _clip, "siglip": _siglip}
    model, tokenizer, tokenizer_config = make[kind](length)
    # transformers starts at a deviation of 0.02: too quiet to tell texts and pictures apart.
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    (folder / "preprocessor_config.json").write_text(json.dumps(_processor(kind)))
    return folder


def _blip(length: int) -> tuple[Any, Tokenizer, dict[str, Any]]:
    tokenizer = _bert_tokenizer()
    text = {
        **_TEXT,
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": length,
        "encoder_hidden_size": 24,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
    }
    config = BlipConfig(text_config=text, vision_config=_VISION, image_text_hidden_size=12, projection_dim=12)
    return BlipForImageTextRetrieval(config), tokenizer, {"tokenizer_class": "BertTokenizer"}


def _conv_blip(length: int) -> tuple[Any, Tokenizer, dict[str, Any]]:
    tokenizer = _bert_tokenizer()
    config = conv_blip_config(
        tokenizer.get_vocab_size(),
        image_size=SIZE,
        stem=8,
        widths=(8, 12, 24),
        depths=(1, 1, 1),
        layout=6,
        text_width=16,
        text_layers=2,
        text_heads=2,
        joint_width=12,
        max_length=length,
    )
    return ConvBlipForImageTextRetrieval(config), tokenizer, {"tokenizer_class": "BertTokenizer"}


def _clip(length: int) -> tuple[Any, Tokenizer, dict[str, Any]]:
    tokenizer = _clip_tokenizer()
    size = tokenizer.get_vocab_size()
    text = {
        **_TEXT,
        "vocab_size": size,
        "max_position_embeddings": length,
        "bos_token_id": size - 2,
        "eos_token_id": size - 1,
        "pad_token_id": size - 1,
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=12))
    return model, tokenizer, {"tokenizer_class": "CLIPTokenizer", "pad_token": "<|endoftext|>"}


def _siglip(length: int) -> tuple[Any, Tokenizer, dict[str, Any]]:
    tokenizer = _siglip_tokenizer(length)
    text = {
        **_TEXT,
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": length,
        "projection_size": 24,
        "bos_token_id": 1,
        "eos_token_id": 1,
    }
    config = {"tokenizer_class": "SiglipTokenizer", "pad_token": {"content": "<pad>"}}
    return SiglipModel(SiglipConfig(text_config=text, vision_config=_VISION)), tokenizer, config


def _bert_tokenizer() -> Tokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = _word_level(special, "[UNK]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def _clip_tokenizer() -> Tokenizer:
    """Byte pairs without merges: one token a letter, as CLIP's would read words it does not know."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    ids = {token: i for i, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(ids, [], end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("<|endoftext|>", len(vocabulary) - 1),
        ("<|startoftext|>", len(vocabulary) - 2),
        trim_offsets=False,
        add_prefix_space=False,
    )
    return tokenizer


def _siglip_tokenizer(length: int) -> Tokenizer:
    """No start token; truncation and padding are stored in the file, as many on the Hub have them."""
    tokenizer = _word_level(["<unk>", "</s>", "<pad>"], "<unk>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=2, pad_token="<pad>")
    return tokenizer


def _word_level(special: list[str], unknown: str) -> Tokenizer:
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    return tokenizer


def _processor(kind: str) -> dict[str, Any]:
    square = {"height": SIZE, "width": SIZE}
    if kind == "clip":
        size = {"size": {"shortest_edge": SIZE}, "crop_size": square, "do_center_crop": True}
        return {"image_processor_type": "CLIPImageProcessor", **size}
    if kind == "siglip":
        return {"image_processor_type": "SiglipImageProcessor", "size": square}
    return {"image_processor_type": "BlipImageProcessor", "size": square}
