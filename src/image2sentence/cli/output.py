"""Output for programs: exact names in JSON, streams of any encoding."""

from __future__ import annotations

import base64
import codecs
import io
import os
import sys
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

_PLAIN = "ascii-escaped"


def configure_streams() -> None:
    """Have standard output and error take every text: what their encoding lacks becomes an escape.

    click takes ASCII for a mistake and writes UTF-8 instead; under another name it is left as it was asked for.
    """
    codecs.register(_plain_codec)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            plain = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=_PLAIN if plain else None, errors="backslashreplace")


def exact_bytes(path: str | os.PathLike[str]) -> str | None:
    """Base64 of the bytes of a name that is not valid text; None where the text says it exactly."""
    text = os.fspath(path)
    return base64.b64encode(os.fsencode(text)).decode("ascii") if _as_text(text) != text else None


def json_ready(value: Any) -> Any:
    """A value for JSON: paths and texts exactly, dictionaries and lists inside it too.

    A text that no UTF-8 can hold, such as a file's name in another encoding, has its odd bytes as `\\xNN`. In a
    dictionary the key NAME is then followed by NAME_bytes: the bytes in base64. Beside a list of such names, or of
    pairs that begin with one, NAME_bytes is a list as long, null where the text is exact.
    """
    if isinstance(value, dict):
        return _dictionary(value)
    if isinstance(value, list | tuple):
        return [json_ready(one) for one in value]
    return _as_text(os.fspath(value)) if isinstance(value, str | PurePath) else value


def _dictionary(value: dict[Any, Any]) -> dict[Any, Any]:
    ready: dict[Any, Any] = {}
    for key, one in value.items():
        name = json_ready(key)
        ready[name] = json_ready(one)
        if (odd := _odd(one)) is not None:
            ready[f"{name}_bytes"] = odd
    return ready


def _odd(value: Any) -> str | list[str | None] | None:
    """What NAME_bytes holds; None where all is exact."""
    if isinstance(value, str | PurePath):
        return exact_bytes(value)
    if isinstance(value, list | tuple):
        each = [_first(one) for one in value]
        return each if any(each) else None
    return None


def _first(value: Any) -> str | None:
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    return exact_bytes(value) if isinstance(value, str | PurePath) else None


def _as_text(text: str) -> str:
    """The text with bytes that were no UTF-8 as `\\xNN`, other lone surrogates as `\\uNNNN`."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return "".join(_escaped(c) if "\ud800" <= c <= "\udfff" else c for c in text)


def _escaped(surrogate: str) -> str:
    code = ord(surrogate)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _plain_codec(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != _PLAIN:
        return None
    ascii_codec = codecs.lookup("ascii")
    return codecs.CodecInfo(
        encode=ascii_codec.encode,
        decode=ascii_codec.decode,
        streamreader=ascii_codec.streamreader,
        streamwriter=ascii_codec.streamwriter,
        incrementalencoder=ascii_codec.incrementalencoder,
        incrementaldecoder=ascii_codec.incrementaldecoder,
        name=_PLAIN,
    )
