"""Admission of requests: places, memory and rates.

It is decided before a byte of a request's body is read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

from fastapi import Request

from image2sentence.errors import Image2SentenceError
from image2sentence.lru_cache import LruCache

CLIENTS_KNOWN = 10_000
BURST_SECONDS = 2.0

T = TypeVar("T")


class Busy(Image2SentenceError):
    """Too much at once: come back in `seconds`."""

    def __init__(self, message: str, seconds: float = 1.0) -> None:
        super().__init__(message)
        self.seconds = max(1, math.ceil(seconds))


class Gone(Image2SentenceError):
    """The client has closed the connection: nobody is there to answer."""


class Place:
    """One request's place: it holds some of the memory that bodies share."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.held = 0

    def hold(self, size: int) -> None:
        """Hold at least `size` bytes from now on. Raises Busy where there is no room for them."""
        self._admission.grow(size - self.held)
        self.held = max(self.held, size)


class Admission:
    """Room for so many requests, and for so many bytes of bodies among them.

    Args:
        places: Requests inside at once, from before the body is read until the answer is made.
        body_bytes: What their bodies may hold together.
    """

    def __init__(self, places: int, body_bytes: int) -> None:
        self._places = places
        self._bytes = body_bytes
        self.inside = 0
        self.held = 0

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place inside. Raises Busy where all are taken."""
        if self.inside >= self._places:
            raise Busy("too many requests are waiting: try again in a moment")
        self.inside += 1
        place = Place(self)
        try:
            yield place
        finally:
            self.inside -= 1
            self.held -= place.held

    def grow(self, size: int) -> None:
        """Take `size` more bytes; nothing where it is not positive. Raises Busy where they are not there."""
        if size > 0 and self.held + size > self._bytes:
            raise Busy("too many pictures are being sent at once: try again in a moment")
        self.held += max(0, size)


class Rates:
    """A token bucket for each client: so many requests a second, and as many as `BURST_SECONDS` give at once.

    Remembers the clients seen last; one that was forgotten starts with a full bucket.

    Args:
        rate: Requests a second for each client; 0 counts nobody.
        clock: Seconds, ever growing.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets: LruCache[tuple[float, float]] = LruCache(CLIENTS_KNOWN)

    def spend(self, client: str, cost: float = 1.0) -> None:
        """Take a request of this cost out of the client's bucket. Raises Busy where it does not hold as much.

        A negative cost gives back what was taken.
        """
        if self._rate <= 0:
            return
        full = max(1.0, self._rate * BURST_SECONDS)
        now = self._clock()
        level, since = self._buckets.get(client) or (full, now)
        level = min(full, level + (now - since) * self._rate)
        if level < cost:
            raise Busy("too many requests from you: ask more slowly", (cost - level) / self._rate)
        self._buckets.put(client, (level - cost, now))


def client_of(request: Request) -> str:
    """Whom to count a request for: see `client_name`."""
    return client_name(request.client.host if request.client is not None else "")


@lru_cache(maxsize=1_024)
def client_name(host: str) -> str:
    """The client behind an address: itself, of IPv6 the network, which is what one subscriber is given.

    IPv4 comes as itself where a proxy or a socket for both kinds writes it as IPv6 ("::ffff:192.0.2.1"); as a network
    all such clients would be one.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; the work is cancelled and Gone raised where the client leaves before it is done.

    To be called once the body is read: the next message of the connection can then only be that it has closed.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone("the client has gone")
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()
