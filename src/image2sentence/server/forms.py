"""Bounded reading of request forms, in memory only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, get_origin

from fastapi import HTTPException, Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from image2sentence.server.admission import Gone, Place

PICTURE = "picture"
MAX_BODY_BYTES = 25 << 20
MAX_JSON_BYTES = 512 << 10
"""JSON brings no picture, and is read as a whole, at once: nobody waits for the numbers of a stranger."""

MAX_FIELD_BYTES = 64 << 10
MAX_FIELDS = 64
MAX_PART_HEAD = 4 << 10
"""Bytes of the headers of a form's part, each counted as `_HEADER_BYTES` at least; with a file's name."""
FORM, JSON = "multipart/form-data", "application/json"

_DIGITS = 18
_HEADER_BYTES = 64

Fields = TypeVar("Fields", bound=BaseModel)


@dataclass(frozen=True)
class UploadLimits:
    """Largest body in bytes, and how long it may take to arrive in seconds."""

    body_bytes: int = MAX_BODY_BYTES
    seconds: float = 30.0


async def read_form(
    request: Request, kind: type[Fields], limits: UploadLimits, place: Place
) -> tuple[Fields, bytes | None]:
    """The fields of a form, or of JSON, checked, and the content of the form's picture where it brings one.

    The place holds the body's size from when it is announced, or as it arrives.

    Raises:
        HTTPException: 400 not a whole form, 408 too slow, 413 too large, 415 not a form, 422 fields that are
            unknown or out of range.
    """
    kind_of_body = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind_of_body not in (FORM, JSON):
        raise HTTPException(415, f"expected a form ({FORM}) or {JSON}")
    if kind_of_body == JSON:
        limits = replace(limits, body_bytes=min(limits.body_bytes, MAX_JSON_BYTES))
    _hold_announced(request, limits, place)
    stream = _bounded(request, limits, place)
    try:
        if kind_of_body == JSON:
            return _validated(kind, await asyncio.wait_for(_whole(stream), limits.seconds)), None
        form = await asyncio.wait_for(_parsed(request, stream, limits), limits.seconds)
    except asyncio.TimeoutError as error:
        raise HTTPException(
            408, f"the request took longer than {limits.seconds:g} seconds to arrive"
        ) from error
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from error
    except FormParserError as error:
        raise HTTPException(400, f"the form cannot be read: {error}") from error
    except (UnicodeError, LookupError) as error:
        raise HTTPException(400, "the form cannot be read: send its text in UTF-8") from error
    except ClientDisconnect as error:
        raise Gone("the client left while sending") from error
    try:
        return await _checked(form, kind)
    finally:
        await form.close()


class _Parser(MultiPartParser):
    """Starlette's parser with a bound on the headers of a part, which python-multipart had not in earlier versions.

    Starlette leaves out the part in which a form breaks off, and says nothing of it.
    """

    is_whole = False
    _head_bytes = 0

    def on_part_begin(self) -> None:
        """A part begins."""
        self._head_bytes = 0
        super().on_part_begin()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's name. Raises MultiPartException."""
        self._count(end - start)
        super().on_header_field(data, start, end)

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's value. Raises MultiPartException."""
        self._count(end - start)
        super().on_header_value(data, start, end)

    def on_header_end(self) -> None:
        """A header is there. Raises MultiPartException."""
        self._count(_HEADER_BYTES)
        super().on_header_end()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_PART_HEAD:
            raise MultiPartException(f"a part has more than {MAX_PART_HEAD:,} bytes of headers")

    def on_end(self) -> None:
        """Called at the closing boundary."""
        self.is_whole = True


async def _whole(stream: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def _parsed(request: Request, stream: AsyncGenerator[bytes, None], limits: UploadLimits) -> FormData:
    parser = _Parser(
        request.headers, stream, max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
    )
    # The parser moves a larger file to disk; no body is larger than this.
    parser.spool_max_size = limits.body_bytes
    form = await parser.parse()
    if not parser.is_whole:
        await form.close()
        raise MultiPartException("it is cut short, or does not end with its boundary and two hyphens")
    return form


def _hold_announced(request: Request, limits: UploadLimits, place: Place) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdecimal():
        if len(announced) > _DIGITS or int(announced) > limits.body_bytes:
            raise _too_large(limits)
        place.hold(int(announced))


async def _bounded(request: Request, limits: UploadLimits, place: Place) -> AsyncGenerator[bytes, None]:
    """The body as it arrives; stops reading where it is larger than allowed, whatever was announced."""
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limits.body_bytes:
            raise _too_large(limits)
        place.hold(received)
        yield chunk


def _too_large(limits: UploadLimits) -> HTTPException:
    return HTTPException(413, f"the request is larger than the limit of {limits.body_bytes:,} bytes")


async def _checked(form: FormData, kind: type[Fields]) -> tuple[Fields, bytes | None]:
    picture = form.get(PICTURE)
    if picture is not None and not isinstance(picture, UploadFile):
        raise HTTPException(422, f"{PICTURE}: expected a file")
    fields = _validated(kind, {name: _value(form, kind, name) for name in form if name != PICTURE})
    return fields, None if picture is None else await picture.read()


def _value(form: FormData, kind: type[BaseModel], name: str) -> object:
    """A field's text; all of its texts where it is a list, which a form writes by repeating the field."""
    field = kind.model_fields.get(name)
    many = field is not None and get_origin(field.annotation) is list
    return form.getlist(name) if many else form[name]


def _validated(kind: type[Fields], values: bytes | dict[str, object]) -> Fields:
    try:
        return kind.model_validate_json(values) if isinstance(values, bytes) else kind.model_validate(values)
    except ValidationError as error:
        raise HTTPException(422, first_problem(error.errors())) from error


def first_problem(problems: Sequence[Any]) -> str:
    """The first of pydantic's problems in words, without the value that caused it."""
    first = problems[0]
    where = ".".join(str(part) for part in first["loc"]) or "the request"
    return f"{where}: {first['msg']}"
