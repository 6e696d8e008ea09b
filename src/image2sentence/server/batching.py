"""Micro-batching of queries that wait at the same time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Batcher(Generic[Q, A]):
    """One thread that answers queries, all that are waiting when it gets free in one call.

    Nothing waits for others to come: a query that finds the thread free is answered alone and at once, and batches
    form only from what arrives meanwhile. A query whose asker has given up is dropped before it costs anything.
    Used from one event loop, which is why nothing here needs a lock.

    Args:
        answer: Queries -> an answer or an exception for each, in order. What it raises itself is raised to all.
        largest: Most queries in one call; 1 answers each alone.
        watch: Called with the size of each batch.
    """

    def __init__(
        self,
        answer: Callable[[list[Q]], Sequence[A | Exception]],
        largest: int,
        watch: Callable[[int], object] = lambda size: None,
    ) -> None:
        self._answer = answer
        self._largest = largest
        self._watch = watch
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._busy = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="image2sentence-queries")

    async def ask(self, query: Q) -> A:
        """The answer to one query; raises the exception that came in its place."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((query, future))
        if not self._busy:
            self._next()
        return await future

    def close(self) -> None:
        """Let the running call finish and drop what waits."""
        for _, future in self._waiting:
            future.cancel()
        self._waiting.clear()
        self._thread.shutdown()

    def _next(self) -> None:
        batch = self._take()
        self._busy = bool(batch)
        if not batch:
            return
        self._watch(len(batch))
        queries = [query for query, _ in batch]
        call = asyncio.get_running_loop().run_in_executor(self._thread, self._answer, queries)
        call.add_done_callback(partial(self._answered, [future for _, future in batch]))

    def _take(self) -> list[tuple[Q, asyncio.Future[A]]]:
        batch: list[tuple[Q, asyncio.Future[A]]] = []
        while self._waiting and len(batch) < self._largest:
            query, future = self._waiting.popleft()
            if not future.done():
                batch.append((query, future))
        return batch

    def _answered(
        self, futures: list[asyncio.Future[A]], call: asyncio.Future[Sequence[A | Exception]]
    ) -> None:
        error = call.exception()
        answers = [error] * len(futures) if error is not None else call.result()
        for future, answer in zip(futures, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._next()
