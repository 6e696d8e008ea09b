"""A model folder's tokenizer.json, held to what reads any text in bounded time and memory.

The tokenizers library runs whatever the file says: regular expressions that backtrack, replacements that make a text
longer and longer, padding to any length. Memory that it cannot have ends the process, and so may what it calls a panic.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping
from os import PathLike, fspath
from typing import Any

from tokenizers import Encoding, Tokenizer

from image2sentence.encoders.linear_regex import consumes, require_bounded
from image2sentence.errors import ModelError

MAX_BYTES = 64 * 2**20
"""Of the file; the largest in use, of 256,000 words, have 34 MB."""
MAX_GROWTH = 16
"""How many times longer the parts before the vocabulary may make a text together."""
MAX_PARTS = 32
MAX_WORD = 1_000
"""Letters of a word that WordPiece looks for pieces of: it takes the square of them in steps."""
_MAX_PIECE = 64
_MAX_ADDED = 16
_TRIED = ("a", "", "A red dress, 2 dogs & naïve 图 \U0001f642 !?", "x" * 64)
_NORMALIZERS = (
    "BertNormalizer Strip StripAccents NFC NFD NFKC NFKD Lowercase Nmt Precompiled Replace Prepend ByteLevel"
)
_PRE_TOKENIZERS = (
    "BertPreTokenizer ByteLevel CharDelimiterSplit Metaspace Whitespace WhitespaceSplit Split Punctuation Digits "
    "UnicodeScripts FixedLength"
)
_PROCESSORS = "TemplateProcessing BertProcessing RobertaProcessing ByteLevel"
_KNOWN = {
    "normalizer": (_NORMALIZERS.split(), "normalizers"),
    "pre_tokenizer": (_PRE_TOKENIZERS.split(), "pretokenizers"),
    "post_processor": (_PROCESSORS.split(), "processors"),
}


def read_tokenizer(content: bytes, where: str | PathLike[str]) -> Tokenizer:
    """The tokenizer of a tokenizer.json, without its padding and truncation.

    Raises ModelError, naming `where`, for a damaged one, and for one whose parts could take any time or memory.
    """
    if len(content) > MAX_BYTES:
        raise ModelError(f"{fspath(where)} has {len(content):,} bytes: expected at most {MAX_BYTES:,}")
    try:
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except BaseException as error:
        raise _not_read(error, f"{fspath(where)} is not a tokenizer that can be read") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    try:
        _require_bounded(tokenizer)
    except ValueError as error:
        raise ModelError(f"{fspath(where)}: {error}; use a model folder that you trust") from error
    for text in _TRIED:
        encode(tokenizer, text)
    return tokenizer


def encode(tokenizer: Tokenizer, text: str, *, special: bool = True) -> Encoding:
    """A text's tokens, with the special ones around them or without. Raises ModelError where it cannot be read."""
    try:
        return tokenizer.encode(text, add_special_tokens=special)
    except BaseException as error:
        raise _not_read(error, "the model's tokenizer.json cannot read a text") from error


def _not_read(error: BaseException, what: str) -> BaseException:
    """What to raise: PyO3's PanicException, which cannot be imported, is no Exception."""
    if isinstance(error, Exception) or type(error).__name__ == "PanicException":
        return ModelError(f"{what}: {error}")
    return error


def _require_bounded(tokenizer: Tokenizer) -> None:
    """Raises ValueError."""
    longest = getattr(tokenizer.model, "max_input_chars_per_word", 0)
    if longest > MAX_WORD:
        raise ValueError(f"words of {longest:,} letters are split: expected at most {MAX_WORD:,}")
    growth = 1.0
    for kind in _KNOWN:
        for part in _parts(kind, getattr(tokenizer, kind)):
            growth *= _growth(part)
            if part["type"] == "TemplateProcessing":
                _require_plain_template(part)
    if growth > MAX_GROWTH:
        raise ValueError(f"its parts make a text {growth:.3g} times longer: expected at most {MAX_GROWTH}")


def _parts(kind: str, given: Any) -> list[Mapping[str, Any]]:
    """The parts of a sequence, of one in another, too, of known types."""
    types, inner = _KNOWN[kind]

    def flat(one: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        if one["type"] != "Sequence":
            yield one
        else:
            for each in one[inner]:
                yield from flat(each)

    found = [] if given is None else list(flat(json.loads(given.__getstate__())))
    if len(found) > MAX_PARTS:
        raise ValueError(f"its {kind} has {len(found):,} parts: expected at most {MAX_PARTS}")
    for one in found:
        if one["type"] not in types:
            raise ValueError(f"its {kind} is of an unknown type, {one['type']!r:.80}")
    return found


def _growth(part: Mapping[str, Any]) -> float:
    """How many times longer a part makes a text at most; 1 for what adds once, whatever is done before."""
    match part["type"]:
        case "Replace" | "Split":
            return _growth_of_pattern(part["pattern"], part.get("content", ""))
        case "Prepend" if len(part["prepend"]) > _MAX_ADDED:
            raise ValueError(f"it puts {len(part['prepend']):,} letters before a text")
        case "Precompiled":
            _require_short_pieces(base64.b64decode(part["precompiled_charsmap"]))
        case "FixedLength" if not part["length"]:
            raise ValueError("it cuts texts into pieces of no length")
        case "ByteLevel":
            return 1.0 if "trim_offsets" in part and "use_regex" not in part else 4.0
        case "Metaspace":
            return 2.0
    return 1.0


def _growth_of_pattern(pattern: Mapping[str, str], content: str) -> float:
    text = pattern.get("String")
    if text == "":
        raise ValueError("it replaces what is empty")
    if text is not None:
        return max(1.0, math.ceil(len(content) / len(text)))
    require_bounded(pattern["Regex"])
    return max(1.0, len(content)) if consumes(pattern["Regex"]) else 1.0 + len(content)


def _require_short_pieces(table: bytes) -> None:
    """`table`: SentencePiece's: the size of a tree, the tree, and what is put in, pieces apart by zeros."""
    pieces = table[4 + int.from_bytes(table[:4], "little") :]
    longest = max(map(len, pieces.split(b"\0")))
    if longest > _MAX_PIECE:
        raise ValueError(f"it puts {longest:,} bytes in place of a letter: expected at most {_MAX_PIECE}")


def _require_plain_template(part: Mapping[str, Any]) -> None:
    single, known = part["single"], part["special_tokens"]
    texts = [one for one in single if "Sequence" in one]
    special = [one["SpecialToken"]["id"] for one in single if "SpecialToken" in one]
    ids = [known[one]["ids"] for one in special if one in known]
    if len(texts) != 1 or len(ids) != len(special) or sum(map(len, ids)) > _MAX_ADDED:
        raise ValueError(f"its template is not one text with up to {_MAX_ADDED} known tokens around it")
