"""Threads for what takes long, with a bounded queue before them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
    """

    def __init__(self, threads: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="image2sentence")
        self._room = threads + waiting
        self._inside = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result, computed in a thread. Raises Busy where the queue is full."""
        if self._inside >= self._room:
            raise Busy("too many requests are waiting: try again in a moment")
        self._inside += 1
        call = functools.partial(function, *args, **kwargs)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        finally:
            self._inside -= 1

    def drop(self) -> None:
        """Drop the calls that wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Let running calls finish and drop those that wait."""
        self._pool.shutdown(cancel_futures=True)
