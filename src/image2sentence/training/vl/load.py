"""Loading of a frozen VL model from the Hub or a folder."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    BlipForImageTextRetrieval,
    CLIPModel,
    SiglipModel,
)

from image2sentence.encoders.config import Preprocessing
from image2sentence.encoders.tokenizer_file import read_tokenizer
from image2sentence.errors import ModelError
from image2sentence.hub.preprocessing import of_processor
from image2sentence.hub.tokenizers import complete_siglip
from image2sentence.training.hub import commit_of, find_file, load_pretrained, read_json, reading
from image2sentence.training.vl import conv_blip, mobile_blip
from image2sentence.training.vl.base import VisionLanguageModel
from image2sentence.training.vl.blip import BlipVL
from image2sentence.training.vl.clip import ClipVL
from image2sentence.training.vl.compact import is_compact, load_compact, with_identity
from image2sentence.training.vl.conv_blip import ConvBlipForImageTextRetrieval
from image2sentence.training.vl.mobile_blip import MobileBlipForImageTextRetrieval
from image2sentence.training.vl.siglip import SiglipVL

_COMPARED = ("a red dress", "A Red MUG, with long sleeves.", "two dogs' café; 3 of 4!")
"""Texts in which tokenizers differ: capitals, accents, punctuation, numbers."""
_log = logging.getLogger(__name__)
_OWN_BLIPS: dict[str, Any] = {
    conv_blip.ARCHITECTURE: ConvBlipForImageTextRetrieval,
    mobile_blip.ARCHITECTURE: MobileBlipForImageTextRetrieval,
}


@dataclass(frozen=True)
class _Source:
    """Where a model comes from, and its config as read from there."""

    name: str
    revision: str | None
    config: Any

    def load(self, cls: Any) -> tuple[Any, Tokenizer, Preprocessing, str, str]:
        """What every kind's constructor begins with."""
        folder = Path(self.name)
        if is_compact(folder):
            model = load_compact(cls, self.config, folder)
        else:
            model = load_pretrained(cls, self.name, **_pinned(self.revision))
        tokenizer = load_tokenizer(self.name, self.revision)
        preprocessing = load_preprocessing(self.name, self.revision)
        return model, tokenizer, preprocessing, self.name, self.revision or "local"


def load_vl(name: str, revision: str | None = None) -> VisionLanguageModel:
    """A frozen VL model by Hub id or by path; `revision` is a branch, tag or commit of the Hub.

    Raises ModelError where nothing is found under the name, the kind is unknown, or files are missing or
    damaged.
    """
    with reading("vision-language model", name):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, **_pinned(revision))
        if config.model_type not in _KINDS:
            known = ", ".join(sorted(_KINDS))
            raise ModelError(
                f"{name} is a {config.model_type!r} model; expected a VL model of one of: {known}"
            )
        # What a branch stands for may change between two files: all come from the commit that the first was of.
        source = _Source(name, commit_of(name, revision), config)
        vl = _KINDS[config.model_type](source)
        _require_own_ids(source, vl.tokenizer)
        if is_compact(Path(name)):
            vl.record = with_identity(vl.record, Path(name))
        return vl


def load_tokenizer(name: str, revision: str | None) -> Tokenizer:
    """The fast tokenizer's core, which the runtime uses as it is.

    The names of special tokens, such as "[SEP]", are plain text where a user writes them.
    """
    path = find_file(name, "tokenizer.json", revision)
    if path is not None:
        tokenizer = read_tokenizer(path.read_bytes(), path)
    else:
        slow_or_fast = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **_pinned(revision))
        if not hasattr(slow_or_fast, "backend_tokenizer"):
            raise ModelError(
                f"{name} has no tokenizer.json: convert its tokenizer to the fast format and save it there"
            )
        tokenizer = slow_or_fast.backend_tokenizer
        if tokenizer.get_vocab_size() <= len(slow_or_fast.all_special_tokens):  # made of nothing
            raise ModelError(f"{name} has no tokenizer: neither tokenizer.json nor a vocabulary is there")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _require_own_ids(source: _Source, tokenizer: Tokenizer) -> None:
    """Raises ModelError where transformers' own tokenizer of the model reads texts otherwise than `tokenizer`.

    The ids stand for rows of the model's embedding table: other ids are other words. SigLIP's fixed length and the
    lower case of SigLIP 2 are no part of a tokenizer's files, so that words alone are compared there.
    """
    siglip = source.config.model_type == "siglip"
    try:
        own = AutoTokenizer.from_pretrained(source.name, trust_remote_code=False, **_pinned(source.revision))
    except (ImportError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        _log.warning("the tokenizer of %s cannot be compared with transformers' own: %s", source.name, reason)
        return
    for text in _COMPARED:
        found = tokenizer.encode(text, add_special_tokens=not siglip).ids
        read = [
            list(own(one, add_special_tokens=not siglip)["input_ids"])
            for one in ((text, text.lower()) if siglip else (text,))
        ]
        if found not in read:
            raise ModelError(
                f"{source.name}: tokenizer.json reads {text!r} as {found}, the model's own {type(own).__name__} as "
                f"{read[0]}: the file belongs to another model, or was converted otherwise; fetch tokenizer.json of "
                "the model, or remove it to have it made of the vocabulary"
            )


def load_preprocessing(name: str, revision: str | None) -> Preprocessing:
    """What the model's image processor says, in this package's terms."""
    processor: Any = AutoImageProcessor.from_pretrained(
        name, backend="pil", trust_remote_code=False, **_pinned(revision)
    )
    settings = {key: value for key, value in processor.to_dict().items() if value is not None}
    for key in ("size", "crop_size"):
        if key in settings:
            settings[key] = {side: value for side, value in dict(settings[key]).items() if value is not None}
    settings["resample"] = int(settings["resample"])
    return of_processor(settings, f"{name}: preprocessor_config.json")


def _blip(source: _Source) -> BlipVL:
    own = [_OWN_BLIPS[name] for name in source.config.architectures or () if name in _OWN_BLIPS]
    return BlipVL(*source.load(own[0] if own else BlipForImageTextRetrieval))


def _clip(source: _Source) -> ClipVL:
    return ClipVL(*source.load(CLIPModel))


def _siglip(source: _Source) -> SiglipVL:
    parts = source.load(SiglipModel)
    path = find_file(source.name, "tokenizer_config.json", source.revision)
    complete_siglip(parts[1], read_json(path) if path else {})
    return SiglipVL(*parts, pad_token=_pad_token(source, parts[1]))


_KINDS: dict[str, Callable[[_Source], VisionLanguageModel]] = {
    "blip": _blip,
    "clip": _clip,
    "siglip": _siglip,
}


def _pad_token(source: _Source, tokenizer: Tokenizer) -> int:
    """The id that `padding="max_length"` pads with: the text tower reads it, so it must be the right one."""
    path = find_file(source.name, "tokenizer_config.json", source.revision)
    named = read_json(path).get("pad_token") if path else None
    token = named.get("content") if isinstance(named, dict) else named
    found = tokenizer.token_to_id(token) if isinstance(token, str) else source.config.text_config.pad_token_id
    if found is None:
        raise ModelError(
            f"{source.name}: its pad token {token!r} is not in tokenizer.json; expected a pad token"
        )
    return int(found)


def _pinned(revision: str | None) -> dict[str, str]:
    return {} if revision is None else {"revision": revision}
