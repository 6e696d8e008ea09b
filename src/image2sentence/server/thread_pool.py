"""Threads for what takes long, with a bounded queue before them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from image2sentence.server.admission import Busy

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """A few threads, and room for a few calls that wait for one.

    Used from one event loop, which is why its count needs no lock.

    Args:
        threads: Calls that run at once.
        waiting: Calls that may wait; one more is refused.
        patience: Seconds that a call may wait for a thread; None: for ever.
    """

    def __init__(self, threads: int, waiting: int, patience: float | None = None) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="image2sentence")
        self._room = threads + waiting
        self._patience = patience
        self._inside = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result, computed in a thread. Raises Busy where the queue is full or moves too slowly."""
        if self._inside >= self._room:
            raise Busy("too many requests are waiting: try again in a moment")
        self._inside += 1
        try:
            call = self._pool.submit(functools.partial(function, *args, **kwargs))
            return await self._in_time(call)
        finally:
            self._inside -= 1

    async def _in_time(self, call: Future[T]) -> T:
        given_up = False

        def give_up() -> None:
            nonlocal given_up
            given_up = call.cancel()  # not where it has begun

        if self._patience is None:
            return await asyncio.wrap_future(call)
        end = asyncio.get_running_loop().call_later(self._patience, give_up)
        try:
            return await asyncio.wrap_future(call)
        except asyncio.CancelledError:
            if not given_up:
                raise
            raise Busy("too many requests are waiting: try again in a moment") from None
        finally:
            end.cancel()

    def drop(self) -> None:
        """Drop the calls that wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Let running calls finish and drop those that wait."""
        self._pool.shutdown(cancel_futures=True)
