"""Strict reading of JSON into dataclasses, and text that JSON can hold."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from image2sentence.errors import ConfigError

T = TypeVar("T")


def read_json(path: Path, error: type[Exception] = ConfigError) -> Any:
    """A JSON file's content. Raises `error`, naming the file, if it is missing, no regular file, or not JSON."""
    if path.exists() and not path.is_file():  # a device or pipe, perhaps behind a link, need not have an end
        raise error(f"{path} is not readable JSON: it is no regular file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"expected a file at {path}, and there is none") from None
    except RecursionError:
        raise error(f"{path} is not readable JSON: it is nested too deeply") from None
    except (OSError, ValueError) as reason:  # besides what is no JSON: numbers of thousands of digits
        raise error(f"{path} is not readable JSON: {reason}") from reason


def valid_text(text: str) -> str:
    """The text with bytes that were no UTF-8 (surrogateescape) as `\\xNN`, other lone surrogates as `\\uNNNN`."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return "".join(_escaped(c) if "\ud800" <= c <= "\udfff" else c for c in text)


def _escaped(surrogate: str) -> str:
    code = ord(surrogate)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def from_dict(cls: type[T], values: Any, where: str) -> T:
    """A dataclass from plain JSON values, strictly. `where` names the place in error messages. Raises ConfigError."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected an object, got {type(values).__name__}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(fields)):
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known keys: {', '.join(sorted(fields))}")
    hints = typing.get_type_hints(cls)
    given = {name: _value(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    if missing := [name for name, f in fields.items() if name not in given and _required(f)]:
        raise ConfigError(f"{where}: missing key {missing[0]!r}")
    try:
        return cls(**given)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def to_dict(value: Any) -> dict[str, Any]:
    """The plain JSON values of a dataclass; `from_dict` reads them back."""
    result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(value)))
    return result


def _required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        options = [a for a in arguments if a is not type(None)]
        exact = (a for a in options if isinstance(a, type) and type(value) is a)
        return _value(next(exact, options[0]), value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_value(arguments[0], item, where) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return _as_float(value, where)
    expected = origin or hint
    if hint is Any:
        return value
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise ConfigError(f"{where}: expected {expected.__name__}, got {value!r}")
    return value


def _as_float(value: int, where: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(f"{where}: expected a number below 1.8e308, got a larger one") from None
