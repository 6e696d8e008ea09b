"""Reading a form that anyone may have sent: bounded in size and time, in memory only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

PICTURE = "picture"
LARGEST_BODY = 25 << 20
LONGEST_FIELD = 16 << 10
MOST_FIELDS = 8

Fields = TypeVar("Fields", bound=BaseModel)


@dataclass(frozen=True)
class UploadLimits:
    """Largest body in bytes, and how long it may take to arrive in seconds."""

    body_bytes: int = LARGEST_BODY
    seconds: float = 30.0


async def read_form(
    request: Request, kind: type[Fields], limits: UploadLimits
) -> tuple[Fields, bytes | None]:
    """The fields of a multipart form, checked, and the content of its picture where it brings one.

    Raises:
        HTTPException: 400 not a whole form, 408 too slow, 413 too large, 415 not a form, 422 fields that are
            unknown or out of range.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise HTTPException(415, "expected a form: multipart/form-data")
    _check_announced_size(request, limits)
    try:
        form = await asyncio.wait_for(_parsed(request, limits), limits.seconds)
    except asyncio.TimeoutError as error:
        raise HTTPException(408, f"the form took longer than {limits.seconds:g} seconds to arrive") from error
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from error
    try:
        return await _checked(form, kind)
    finally:
        await form.close()


async def _parsed(request: Request, limits: UploadLimits) -> FormData:
    stream = _bounded(request, limits)
    parser = MultiPartParser(
        request.headers, stream, max_files=1, max_fields=MOST_FIELDS, max_part_size=LONGEST_FIELD
    )
    # The parser moves a larger file to disk; no body is larger than this.
    parser.spool_max_size = limits.body_bytes
    return await parser.parse()


def _check_announced_size(request: Request, limits: UploadLimits) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limits.body_bytes:
        raise _too_large(limits)


async def _bounded(request: Request, limits: UploadLimits) -> AsyncGenerator[bytes, None]:
    """The body as it arrives; stops reading where it is larger than allowed, whatever was announced."""
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limits.body_bytes:
            raise _too_large(limits)
        yield chunk


def _too_large(limits: UploadLimits) -> HTTPException:
    return HTTPException(413, f"the request is larger than the limit of {limits.body_bytes:,} bytes")


async def _checked(form: FormData, kind: type[Fields]) -> tuple[Fields, bytes | None]:
    picture = form.get(PICTURE)
    if picture is not None and not isinstance(picture, UploadFile):
        raise HTTPException(422, f"{PICTURE}: expected a file")
    texts = {name: value for name, value in form.items() if name != PICTURE}
    try:
        fields = kind.model_validate(texts)
    except ValidationError as error:
        raise HTTPException(422, first_problem(error.errors())) from error
    return fields, None if picture is None else await picture.read()


def first_problem(problems: Sequence[Any]) -> str:
    """The first of pydantic's problems in words, without the value that caused it."""
    first = problems[0]
    return f"{first['loc'][-1]}: {first['msg']}"
