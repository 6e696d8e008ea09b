"""Tokenizers of published models, as one tokenizer.json each."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from image2sentence.encoders.tokenizer_file import encode
from image2sentence.errors import ModelError

_START, _END = "<|startoftext|>", "<|endoftext|>"
_CLIP_MERGES = 49_152 - 256 - 2
_CLIP_WORDS = (
    r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
)
_PUNCTUATION = r"[!-/:-@\[-`{-~]"
MAX_MERGES_BYTES = 32 * 2**20


def from_merges(content: bytes, where: str) -> Tokenizer:
    """CLIP's tokenizer from OpenAI's `bpe_simple_vocab_16e6.txt.gz`: a header line, then merges in their order.

    What open_clip does to words before, it does too, but for repairing wrongly decoded text (ftfy).
    """
    try:
        with gzip.open(io.BytesIO(content)) as opened:
            lines = opened.read(MAX_MERGES_BYTES).decode("utf-8").split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ModelError(f"{where} is no gzip file of merges: {error}; fetch it again") from error
    merges = [(a, b) for a, _, b in (line.partition(" ") for line in lines[1 : _CLIP_MERGES + 1]) if b]
    if not merges:
        raise ModelError(f"{where} holds no merges: fetch it again")
    units = _byte_units()
    words = [*units, *(unit + "</w>" for unit in units), *(a + b for a, b in merges), _START, _END]
    tokenizer = Tokenizer(
        models.BPE(
            {word: number for number, word in enumerate(words)},
            merges,
            unk_token=_END,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens([_START, _END])
    start, end = words.index(_START), words.index(_END)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}", special_tokens=[(_START, start), (_END, end)]
    )
    return tokenizer


def completed(
    tokenizer: Tokenizer, settings: Mapping[str, Any], *, lower: bool, clean: str = ""
) -> Tokenizer:
    """The tokenizer with what transformers or open_clip do outside of tokenizer.json.

    Args:
        tokenizer: Changed in place.
        settings: Of `tokenizer_config.json`: Gemma's says there whether it adds a beginning and an end.
        lower: The model was trained on lower-cased words, and its tokenizer does not lower them by itself.
        clean: open_clip's `clean`: "canonicalize" (lower-case, no punctuation), "lower", "whitespace", or "".
    """
    before: list[Any] = []
    if lower or clean in ("lower", "canonicalize"):
        before.append(normalizers.Lowercase())
    if clean == "canonicalize":
        before.append(normalizers.Replace(Regex("_"), " "))
        before.append(normalizers.Replace(Regex(_PUNCTUATION), ""))
    if clean:
        before += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    if before:
        own = tokenizer.normalizer
        tokenizer.normalizer = normalizers.Sequence([*before, own] if own is not None else before)
    if "add_eos_token" in settings or "add_bos_token" in settings:
        _add_ends(tokenizer, settings)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def complete_siglip(tokenizer: Tokenizer, settings: Mapping[str, Any], clean: str = "") -> Tokenizer:
    """`completed` for SigLIP and SigLIP 2: the latter has Gemma's tokenizer, and was trained on lower-cased words.

    `settings` are those of `tokenizer_config.json`, {} where there are none.
    """
    gemma = str(settings.get("tokenizer_class", "")).startswith(("Gemma", "Siglip2"))
    lowers = "Lowercase" in json.dumps(json.loads(tokenizer.to_str()).get("normalizer"))
    return completed(tokenizer, settings if gemma else {}, lower=gemma and not lowers, clean=clean)


def token(settings: Mapping[str, Any], name: str) -> str | None:
    """A special token of a `tokenizer_config.json`, written as text or as an object."""
    value = settings.get(name)
    text = value.get("content") if isinstance(value, Mapping) else value
    return text if isinstance(text, str) else None


def head_length(tokenizer: Tokenizer) -> int:
    """How many special tokens stand before the words."""
    whole, plain = encode(tokenizer, "a").ids, encode(tokenizer, "a", special=False).ids
    return next((at for at in range(len(whole)) if whole[at : at + len(plain)] == plain), 0)


def _add_ends(tokenizer: Tokenizer, settings: Mapping[str, Any]) -> None:
    ends = [
        token(settings, name) if settings.get(f"add_{name}") else None for name in ("bos_token", "eos_token")
    ]
    start, end = (one if one is not None and tokenizer.token_to_id(one) is not None else None for one in ends)
    template = " ".join(part for part in (start, "$A", end) if part)
    special = [(one, tokenizer.token_to_id(one)) for one in (start, end) if one is not None]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)


def _byte_units() -> list[str]:
    """The 256 characters that stand for bytes, in the order of OpenAI's vocabulary."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + place) for place in range(len(hidden))]
