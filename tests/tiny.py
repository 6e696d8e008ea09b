"""A VL model so small that tests can train with it: the bundled architecture, narrow, with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BlipImageProcessorPil

from image2sentence.training.vl.conv_blip import ConvBlipForImageTextRetrieval, conv_blip_config

WORDS = tuple(
    "a red blue green plain striped shirt mug dress but in with long sleeves without stripes instead".split()  # noqa: SIM905
)


def tokenizer() -> Tokenizer:
    """Whole words, [UNK] for every other."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    made = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = BertNormalizer(lowercase=True), BertPreTokenizer()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def save_vl(folder: Path, seed: int = 0) -> Path:
    """Writes a randomly initialised small VL model in the standard folder format."""
    torch.manual_seed(seed)
    words = tokenizer()
    config = conv_blip_config(
        words.get_vocab_size(),
        image_size=32,
        stem=8,
        widths=(12, 16, 24),
        depths=(1, 1, 1),
        text_width=32,
        text_layers=2,
        text_heads=2,
        joint_width=24,
        max_length=24,
    )
    config.text_config.initializer_range = 0.1
    model = ConvBlipForImageTextRetrieval(config).eval()
    for (
        parameter
    ) in model.text_encoder.parameters():  # transformers starts at 0.02: too quiet to tell texts apart
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.15)
    model.half().save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    words.save(str(folder / "tokenizer.json"))
    return folder
