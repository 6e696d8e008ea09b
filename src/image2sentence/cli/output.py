"""Output for programs: exact names in JSON, streams of any encoding."""

from __future__ import annotations

import base64
import codecs
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

import click

from image2sentence.strict_json import valid_text

_PLAIN = "ascii-escaped"


def paths_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--paths-only` and `-0`."""
    only = click.option(
        "--paths-only", is_flag=True, help="Print absolute paths and nothing else, one a line."
    )
    null = click.option(
        "-0", "--null", is_flag=True, help="As --paths-only, each path ended by a NUL byte, for xargs -0."
    )
    return only(null(command))


def asks_for_paths(paths_only: bool, null: bool, as_json: bool) -> bool:
    """Whether paths are to be printed and nothing else. Raises UsageError where JSON is asked for too."""
    if as_json and (paths_only or null):
        raise click.UsageError("--json and --paths-only (-0) do not go together")
    return paths_only or null


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
    if valid_text(text) == text:
        return None
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError:  # no file's name
        data = text.encode(errors="surrogatepass")
    return base64.b64encode(data).decode("ascii")


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
    return valid_text(os.fspath(value)) if isinstance(value, str | PurePath) else value


def write_paths(paths: Sequence[str | os.PathLike[str]], *, null: bool) -> None:
    """Write the bytes of paths to standard output, each followed by a NUL or a line break.

    Line breaks inside a name make two lines of it; a note on standard error then points to `-0`. A terminal gets
    escapes for what it cannot show.
    """
    from image2sentence.images import display_path

    if not null and sys.stdout.isatty():
        for path in paths:
            click.echo(display_path(path))
        return
    ends = b"\0" if null else b"\n"
    click.echo(b"".join(os.fsencode(path) + ends for path in paths), nl=False)
    if not null and any("\n" in os.fspath(path) for path in paths):
        click.echo("a name holds a line break: -0 ends each path with a NUL instead", err=True)


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
