"""The threads of an indexing run: reading ahead, encoding, and writing."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeAlias, TypeVar

_MAX_THREADS = 8

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Waiting: TypeAlias = deque[tuple[Future[_Result], int]]


class ReadAhead(Generic[_Item, _Result]):
    """Results in the order of the items, computed in threads before they are asked for.

    Args:
        work: Computes one result.
        threads: How many work at once; None takes one per processor core, at most 8.
        ahead: Items begun early, at most.
        size: Bytes that a result takes.
        room: Bytes of results that may wait, one that is not there yet counting as much as the largest so far;
            beyond it no more is begun than there are threads.
        held: Bytes that an item itself takes until its result is there; they count as well.
    """

    def __init__(
        self,
        work: Callable[[_Item], _Result],
        threads: int | None,
        ahead: int,
        size: Callable[[_Result], int],
        room: int,
        held: Callable[[_Item], int] = lambda _: 0,
    ) -> None:
        self._work = work
        self._threads = threads or min(os.cpu_count() or 1, _MAX_THREADS)
        self._ahead = ahead
        self._size = size
        self._room = room
        self._held = held
        self._largest: int | None = None

    def over(self, items: Iterable[_Item]) -> Generator[_Result, None, None]:
        """The results; closing it stops what has not begun. An error of the work comes out in its place."""
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
        waiting: _Waiting[_Result] = deque()
        try:
            for item in items:
                waiting.append((pool.submit(self._work, item), self._held(item)))
                while self._enough(waiting):
                    yield self._next(waiting)
            while waiting:
                yield self._next(waiting)
        finally:
            pool.shutdown(cancel_futures=True)

    def _enough(self, waiting: _Waiting[_Result]) -> bool:
        if len(waiting) <= self._threads:
            return False
        if len(waiting) > self._ahead or self._largest is None:
            return True
        there = [self._size(one.result()) for one, _ in waiting if one.done() and one.exception() is None]
        coming = (len(waiting) - len(there)) * max(self._largest, *there, 0)
        return sum(there) + coming + sum(held for one, held in waiting if not one.done()) > self._room

    def _next(self, waiting: _Waiting[_Result]) -> _Result:
        result = waiting.popleft()[0].result()
        self._largest = max(self._largest or 0, self._size(result))
        return result


class EncodeAndWrite:
    """Encodes batches in threads, and writes each in another, in the order in which they came.

    Args:
        workers: Batches encoded at once. One more waits to be written while its caller goes on.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._encoders = ThreadPoolExecutor(workers, thread_name_prefix="encode")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._waiting: deque[Future[None]] = deque()

    def submit(self, encode: Callable[[], _Result], write: Callable[[_Result], None]) -> None:
        """Start a batch, when few enough are under way. Raises what one before it raised."""
        while len(self._waiting) > self._workers:
            self._waiting.popleft().result()
        encoded = self._encoders.submit(encode)
        self._waiting.append(self._writer.submit(lambda: write(encoded.result())))

    def wait(self) -> None:
        """Wait until every batch is written. Raises what one of them raised."""
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        """Let what is under way end, and drop what has not begun."""
        self._encoders.shutdown(cancel_futures=True)
        self._writer.shutdown(cancel_futures=True)
