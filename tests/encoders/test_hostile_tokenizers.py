"""Files of tokenizers that would take any time or memory, or end the process: refused before a text is read."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from image2sentence.encoders.linear_regex import consumes, require_bounded
from image2sentence.encoders.model_folder import TOKENIZER, bundled
from image2sentence.encoders.tokenizer_file import MAX_BYTES, encode, read_tokenizer
from image2sentence.errors import ModelError

CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PUBLISHED = [CLIP, GPT_2, O200K, r"\s+", r"[!-/:-@\[-`{-~]", " {2,}", r" ?[^(\s|[.,!?…])]+", "▁+", "[]a]+"]
BACKTRACKING = [
    "(a+)+$",
    "(a|aa)+$",
    "(?:(?:a*))*",
    "(?:a|b){1,3}",
    "a*a*a*c",
    "a?" * 30,
    "(a|a)" * 20,
    "x{2,}{2,}",
    "x{2}+",
    "(?<n>a|b\\g<n>c)",
    "(a)\\1",
    "(?~abc)",
    "(?(1)a|b)",
    "|".join(["a*a*b"] * 30),
    "a" * 9_000,
]


def tokenizer(**parts: Any) -> bytes:
    words = {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}
    names = "truncation padding normalizer pre_tokenizer post_processor decoder"
    empty = {"version": "1.0", "added_tokens": [], "model": words, **dict.fromkeys(names.split())}
    return json.dumps(empty | parts).encode()


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(kind: str, *parts: Any) -> dict[str, Any]:
    return {"type": "Sequence", kind: list(parts)}


def template(*pieces: Any, ids: Any = ()) -> dict[str, Any]:
    pair = [{"Sequence": {"id": one, "type_id": 0}} for one in "AB"]
    special = {"x": {"id": "x", "ids": list(ids), "tokens": ["x"] * len(ids)}} if ids else {}
    return {"type": "TemplateProcessing", "single": list(pieces), "pair": pair, "special_tokens": special}


def charsmap(size: int, tree: bytes, pieces: bytes) -> dict[str, Any]:
    table = size.to_bytes(4, "little") + tree + pieces
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}


TEXT, SPECIAL = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "x", "type_id": 0}}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "backtracking normalizer": ({"normalizer": replace({"Regex": "(a+)+$"}, "x")}, "repeats"),
    "backtracking split": (
        {
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": "(a|aa)+$"},
                "behavior": "Removed",
                "invert": False,
            }
        },
        "repeats",
    ),
    "ten times ten times": (
        {"normalizer": sequence("normalizers", *[replace({"String": "a"}, "a" * 10)] * 7)},
        "times longer",
    ),
    "nested sequences": (
        {
            "normalizer": sequence(
                "normalizers", sequence("normalizers", *[replace({"String": "a"}, "a" * 10)] * 7)
            )
        },
        "times longer",
    ),
    "something for nothing": ({"normalizer": replace({"Regex": "b*"}, "z" * 99)}, "times longer"),
    "something for an empty text": ({"normalizer": replace({"String": ""}, "z")}, "replaces what is empty"),
    "bytes of bytes": ({"pre_tokenizer": sequence("pretokenizers", *[BYTES] * 24)}, "times longer"),
    "many parts": ({"normalizer": sequence("normalizers", *[{"type": "NFC"}] * 99)}, "99 parts"),
    "a long beginning": ({"normalizer": {"type": "Prepend", "prepend": "y" * 999}}, "999 letters"),
    "a long piece": ({"normalizer": charsmap(1024, bytes(1024), b"y" * 999)}, "999 bytes"),
    "a table outside itself": ({"normalizer": charsmap(400, b"\xff" * 400, b"abc\0")}, "tokenizer"),
    "a table cut short": (
        {"normalizer": charsmap(4_000_000, b"\xff" * 400, b"")},
        "cannot be read|can be read",
    ),
    "no length": ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "no length|can be read"),
    "a text ten times": ({"post_processor": template(*[TEXT] * 10)}, "template"),
    "unknown special token": ({"post_processor": template(SPECIAL, TEXT)}, "template"),
    "special tokens without end": ({"post_processor": template(SPECIAL, TEXT, ids=[1] * 999)}, "template"),
    "words of any length": (
        {
            "model": {
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 10**9,
                "vocab": {"[UNK]": 0},
            }
        },
        "words of 1,000,000,000 letters",
    ),
    "no unknown word": (
        {"model": {"type": "WordLevel", "unk_token": "[NONE]", "vocab": {"[UNK]": 0}}},
        "cannot read a text",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_tokenizer_is_refused(what: str) -> None:
    parts, reason = HOSTILE[what]
    with pytest.raises(ModelError, match=reason):
        read_tokenizer(tokenizer(**parts), "folder/tokenizer.json")


@pytest.mark.parametrize("lengths", [{"strategy": {"Fixed": 2**40}}, {"pad_to_multiple_of": 2**40}])
def test_padding_of_any_length_is_left_out(lengths: dict[str, Any]) -> None:
    padding = {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "a",
    }
    assert encode(read_tokenizer(tokenizer(padding=padding | lengths), "t"), "a").ids == [0]


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(ModelError, match="expected at most"):
        read_tokenizer(bytes(MAX_BYTES + 1), "t")


def test_what_cannot_be_caught_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def encode(self, text: str, add_special_tokens: bool) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(Interrupted(), "a")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["default", "everyday"])
def test_tokenizers_of_the_package_are_read(name: str) -> None:
    content = (bundled(name) / TOKENIZER).read_bytes()
    assert len(encode(read_tokenizer(content, "t"), "a red dress").ids) > 3


@pytest.mark.parametrize("pattern", PUBLISHED)
def test_patterns_of_published_tokenizers_pass(pattern: str) -> None:
    require_bounded(pattern)


@pytest.mark.parametrize("pattern", BACKTRACKING)
def test_patterns_that_backtrack_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="a regular expression"):
        require_bounded(pattern)


def test_which_patterns_take_a_letter() -> None:
    assert all(map(consumes, [r"\s+", " {2,}", "a?b", "[!-/]", CLIP]))
    assert not any(map(consumes, ["a*", "a|b*", r"(?=a)", r"\b", "x{0,3}", "x{0,}", "^$"]))
