"""Pictures fetched from addresses, on hosts that the server's owner names, and nothing else."""

from __future__ import annotations

import http.client
import re
import ssl
import time
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from image2sentence.errors import ImageError, QueryError
from image2sentence.server.admission import client_of
from image2sentence.server.openapi import BINARY, FILE
from image2sentence.server.schemas import Problem
from image2sentence.server.security import require_token
from image2sentence.server.thread_pool import Workers

MAX_ADDRESS = 2_000
SECONDS = 10.0
WAITING = 8
_BLOCK = 64 << 10
_PRINTABLE = re.compile(r"[\x21-\x7e]+")

Connect = Callable[[str], http.client.HTTPConnection]


def _secure(host: str) -> http.client.HTTPConnection:
    return http.client.HTTPSConnection(host, timeout=SECONDS, context=ssl.create_default_context())


class Fetcher:
    """Fetches by HTTPS from some hosts, at their usual port, without following redirects.

    Args:
        hosts: Their names, in lower case.
        most: Bytes of the largest content.
        connect: Makes the connection to a host.
    """

    def __init__(self, hosts: frozenset[str], most: int, connect: Connect = _secure) -> None:
        self.hosts = hosts
        self._most, self._connect = most, connect
        self._workers = Workers(2, WAITING)

    async def fetch(self, address: str) -> bytes:
        """The content of an address. Raises QueryError where it may not be fetched, or cannot be; and Busy."""
        return await self._workers.run(self.content, address)

    def content(self, address: str) -> bytes:
        """As `fetch`."""
        host, target = self._taken_apart(address)
        connection = self._connect(host)
        try:
            connection.request("GET", target, headers={"Accept": "image/*", "User-Agent": "image2sentence"})
            return self._read(connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            raise QueryError(f"the picture cannot be fetched: {type(error).__name__}") from error
        finally:
            connection.close()

    def close(self) -> None:
        """Drop what waits."""
        self._workers.drop()

    def _taken_apart(self, address: str) -> tuple[str, str]:
        """Host and what to ask it for."""
        try:
            parts = urlsplit(address)
            odd = parts.port is not None or "@" in parts.netloc
        except ValueError:
            odd = True
        if odd or parts.scheme != "https" or not parts.hostname or not _PRINTABLE.fullmatch(address):
            raise QueryError("expected the address of a picture: https://HOST/PATH")
        if parts.hostname not in self.hosts:
            raise QueryError(f"this server fetches pictures from {', '.join(sorted(self.hosts))} only")
        return parts.hostname, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        if answer.status != 200:
            raise QueryError(f"the picture cannot be fetched: its host answered {answer.status}")
        deadline, content = time.monotonic() + SECONDS, bytearray()
        while block := answer.read1(_BLOCK):
            content += block
            if len(content) > self._most:
                raise QueryError(f"the picture is larger than the limit of {self._most:,} bytes")
            if time.monotonic() > deadline:
                raise QueryError(f"the picture took longer than {SECONDS:g} seconds")
        return bytes(content)


class PictureAddress(BaseModel):
    """What to fetch."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, Field(min_length=1, max_length=MAX_ADDRESS)]


def fetches_from(request: Request) -> list[str]:
    """The hosts that pictures may be fetched from; none where the owner names none."""
    fetcher: Fetcher = request.app.state.fetcher
    return sorted(fetcher.hosts)


async def _spend(request: Request) -> None:
    request.app.state.serving.rates.spend(client_of(request))


fetching_routes = APIRouter(
    prefix="/v1",
    dependencies=[Depends(require_token), Depends(_spend)],
    responses={status: {"model": Problem} for status in (401, 403, 422, 429)},
    tags=["fetching"],
)


@fetching_routes.post("/fetch", response_class=Response, responses=FILE)
async def fetch(wanted: PictureAddress, request: Request) -> Response:
    """A picture's file from its address, to ask with; only from hosts that the server's owner names.

    What is no picture is not given out.
    """
    fetcher: Fetcher = request.app.state.fetcher
    if not fetcher.hosts:
        raise HTTPException(403, "this server fetches nothing; its owner may let it: --fetch-from")
    content = await fetcher.fetch(wanted.url)
    try:
        await request.app.state.serving.check_upload(content)
    except ImageError as error:
        raise QueryError(f"what is there is no picture that can be used: {error}") from error
    return Response(content, media_type=BINARY)
