"""Worker processes that decode pictures with a deadline and a memory limit."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import IO, NamedTuple

from PIL import Image

from image2sentence.errors import Image2SentenceError, ImageError
from image2sentence.images import worker
from image2sentence.images.decode import Decoded, DecodeLimits

IDLE_SECONDS = 30.0
"""After so long without work a worker process ends; the next picture starts another."""

_START_SECONDS = 60.0
_MAX_PROCESSES = 8
_PIPE_BYTES = 1 << 20
_MAX_REASON = 4_000
_MAX_DATE = 40
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ of Linux
# The search path comes from here, and not from the folder or environment that the process starts in.
_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from image2sentence.images.worker import main; main()"


class DecodersBusyError(ImageError):
    """No process became free in time."""


class DecodingStoppedError(Image2SentenceError):
    """The pool was interrupted: nothing is said of the picture."""


class DecodePool:
    """Decodes pictures in processes that are killed at a deadline and replaced; threads may share it.

    A process is started when it is needed, works on one picture at a time, and ends after `IDLE_SECONDS` without work.

    Args:
        processes: How many at once; None takes one per processor core, at most 8.
        memory: Bytes that pictures being decoded at once may take together, by what their files say; None: any.
        patience: Seconds that a picture may wait for a process and memory; None: for ever.
    """

    def __init__(
        self, processes: int | None = None, memory: int | None = None, patience: float | None = None
    ) -> None:
        self._processes = processes or min(os.cpu_count() or 1, _MAX_PROCESSES)
        self._memory = memory
        self._patience = patience
        self._process_id = os.getpid()
        self._changed = threading.Condition()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._held = 0
        self._interruptions = 0
        self._watching = False

    def decode(
        self, data: bytes, *, at_least: int | None = None, limits: DecodeLimits | None = None
    ) -> Decoded:
        """As `decode_image`, elsewhere. Blocks until a process is free.

        Raises:
            ImageError: as `decode_image`; or it took too long, too much memory, or brought the process down.
            DecodersBusyError: no process became free in time.
            DecodingStoppedError: the pool was interrupted.
        """
        if self._process_id != os.getpid():
            self.__init__(self._processes, self._memory, self._patience)  # type: ignore[misc]  # a fork: the workers are not its own
        began = self._interruptions
        latest = None if self._patience is None else time.monotonic() + self._patience
        held: list[int] = []

        def reserve(memory: int) -> None:
            self._reserve(min(memory + 2 * len(data), self._memory or 0), held, began, latest)

        one = self._take(began, latest)
        try:
            asks = self._memory is not None
            return one.decode(worker.Request(data, at_least, limits or DecodeLimits(), asks), reserve)
        finally:
            self._give_back(one, sum(held))

    def interrupt(self) -> None:
        """End what is being decoded, and what waits to be, with DecodingStoppedError. The pool stays usable."""
        with self._changed:
            self._interruptions += 1
            busy = [(one, one.job) for one in self._busy]
            self._changed.notify_all()
        for one, job in busy:
            one.kill(DecodingStoppedError("decoding was stopped"), job)

    def close(self) -> None:
        """As `interrupt`, and end all processes."""
        self.interrupt()
        with self._changed:
            idle, self._idle = self._idle, []
        for one in idle:
            one.end()

    def _take(self, began: int, latest: float | None) -> _Worker:
        """A process of one's own, as soon as there are few enough."""
        with self._changed:
            self._wait_while(lambda: len(self._busy) >= self._processes, began, latest)
            self._idle = [one for one in self._idle if one.is_alive]
            one = self._idle.pop() if self._idle else _Worker(self._changed)
            self._busy.add(one)
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="decode-watch", daemon=True).start()
            self._changed.notify_all()
        return one

    def _reserve(self, memory: int, held: list[int], began: int, latest: float | None) -> None:
        """Hold so many bytes, as soon as they are free; `held` tells of it."""
        with self._changed:
            most = self._memory or 0
            self._wait_while(lambda: self._held > 0 and self._held + memory > most, began, latest)
            self._held += memory
            held.append(memory)

    def _wait_while(self, is_full: Callable[[], bool], began: int, latest: float | None) -> None:
        """Wait, with `_changed`, until there is room. Raises DecodersBusyError, DecodingStoppedError."""
        while is_full():
            patience = None if latest is None else latest - time.monotonic()
            if patience is not None and patience <= 0:
                raise DecodersBusyError("too many pictures are waiting to be decoded: try again in a moment")
            self._changed.wait(patience)
            if self._interruptions != began:
                raise DecodingStoppedError("decoding was stopped")

    def _give_back(self, one: _Worker, cost: int) -> None:
        is_usable = one.is_alive
        with self._changed:
            self._busy.discard(one)
            self._held -= cost
            one.idle_since = time.monotonic()
            if is_usable:
                self._idle.append(one)
            self._changed.notify_all()
        if not is_usable:
            one.end()

    def _watch(self) -> None:
        """Kill what is past its deadline, and end what has long been idle, until there is no process left."""
        while True:
            now = time.monotonic()
            with self._changed:
                late = [(one, one.job) for one in self._busy if one.deadline <= now]
                unused = [one for one in self._idle if one.idle_since + IDLE_SECONDS <= now]
                self._idle = [one for one in self._idle if one not in unused]
                if not self._idle and not self._busy:
                    self._watching = False
            for one, job in late:
                one.kill(ImageError(f"it took longer than {one.seconds:g} s to decode"), job)
            for one in unused:
                one.end()
            with self._changed:
                if not self._watching:
                    return
                now = time.monotonic()
                nearest = [one.deadline - now for one in self._busy]
                nearest += [one.idle_since + IDLE_SECONDS - now for one in self._idle]
                self._changed.wait(min(max(min(nearest, default=IDLE_SECONDS), 0.01), IDLE_SECONDS))


class _Worker:
    """One process; it is started with its first picture.

    Args:
        changed: The pool's condition; its watcher is woken whenever a deadline is set.

    Attributes:
        job: Number of the picture that it works on, or will next: who kills it for one does not hit another.
        deadline: When that has to be done, by the monotonic clock.
        seconds: What it may take.
        idle_since: When the last one was done.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self.job = 0
        self.deadline = float("inf")
        self.seconds = 0.0
        self.idle_since = 0.0
        self._why: Image2SentenceError | None = None
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it can take another picture."""
        with self._lock:
            return self._why is None and self._process is not None and self._process.poll() is None

    def decode(self, request: worker.Request, reserve: Callable[[int], None]) -> Decoded:
        """The worker's answer; `reserve` gets the bytes that decoding takes, and may wait or raise, if it asks."""
        try:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            self._must_end_within(request.limits.seconds)
            worker.write_request(process.stdin, request)
            head = _head(process.stdout)
            if request.asks and head.kind == worker.WEIGHED:
                self._reserve(process.stdin, head.length, reserve)
                head = _head(process.stdout)
            return _answer(process.stdout, head, request.limits)
        except (OSError, EOFError, ValueError) as error:
            if self._process is not None:
                self._process.kill()
            raise self._why or self._broken() from error
        finally:
            with self._lock:
                self.job += 1
            self.deadline = float("inf")

    def kill(self, why: Image2SentenceError, job: int) -> None:
        """End the process if it still works on this picture; whoever waits for that gets the error."""
        with self._lock:
            if job != self.job:
                return
            self._why = self._why or why
            if self._process is not None:
                self._process.kill()

    def end(self) -> None:
        """End the process, which nobody uses any more."""
        process = self._process
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _reserve(self, stdin: IO[bytes], memory: int, reserve: Callable[[int], None]) -> None:
        """Let the worker go on when there is memory; waiting for that is not its time."""
        left, self.deadline = self.deadline - time.monotonic(), float("inf")
        word = worker.NOT_NOW
        try:
            reserve(memory)
            word = worker.GO_ON
        finally:
            self._must_end_within(self.seconds, left)
            stdin.write(word)
            stdin.flush()

    def _must_end_within(self, seconds: float, left: float | None = None) -> None:
        with self._changed:
            self.seconds = seconds
            self.deadline = time.monotonic() + (seconds if left is None else left)
            self._changed.notify_all()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        self._must_end_within(_START_SECONDS)
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
            start_new_session=os.name == "posix",
        )
        with self._lock:
            self._process = process
            if self._why is not None:  # while it was being started
                process.kill()
        assert process.stdin is not None
        assert process.stdout is not None
        _widen(process.stdin)
        _widen(process.stdout)
        if process.stdout.read(len(worker.READY)) != worker.READY:
            raise EOFError
        return process

    def _broken(self) -> ImageError:
        """Why a process ended by itself."""
        code = None if self._process is None else self._process.wait()
        return ImageError(f"the decoder broke down on it (exit status {code})")


class _Head(NamedTuple):
    """Of an answer: its kind, both sizes of the picture, and the lengths of what follows."""

    kind: int
    size: tuple[int, int]
    full_size: tuple[int, int]
    date_bytes: int
    length: int


def _head(file: IO[bytes]) -> _Head:
    """The beginning of a worker's answer. Raises EOFError where it is none."""
    mark, kind, width, height, *rest = worker.ANSWER.unpack(_read(file, worker.ANSWER.size))
    if mark != worker.MARK:
        raise EOFError
    return _Head(kind, (width, height), (rest[0], rest[1]), rest[2], rest[3])


def _answer(file: IO[bytes], head: _Head, limits: DecodeLimits) -> Decoded:
    """The rest of a worker's answer, believed within bounds. Raises ImageError; EOFError where it is none."""
    kind, (width, height), full_size, date_bytes, length = head
    is_picture = kind == worker.PICTURE
    expected = 3 * width * height if is_picture else min(length, _MAX_REASON)
    if length != expected or date_bytes > _MAX_DATE or width * height > limits.max_pixels:
        raise EOFError
    date, body = _read(file, date_bytes).decode("ascii", "replace"), _read(file, length)
    if kind == worker.OUT_OF_MEMORY:
        raise ImageError(f"it needs more memory than {limits.memory / 1e6:,.0f} MB to decode")
    if not is_picture:
        raise ImageError(body.decode("utf-8", "replace"))
    picture = Image.frombytes("RGB", (width, height), body)
    return Decoded(picture, *full_size, date or None)


def _read(file: IO[bytes], length: int) -> bytes:
    data = file.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _widen(pipe: IO[bytes]) -> None:
    """Let a pipe hold more, so that large pictures change hands less often."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(pipe.fileno(), _SET_PIPE_SIZE, _PIPE_BYTES)


@lru_cache(1)
def own_pool() -> DecodePool:
    """The processes that decode one's own pictures, one per core; shared by all indexing runs of this process."""
    return _closed_at_exit(DecodePool())


@lru_cache(1)
def untrusted_pool() -> DecodePool:
    """The two processes that decode uploads, within 400 MB together."""
    return _closed_at_exit(DecodePool(2, UNTRUSTED_MEMORY, patience=10.0))


UNTRUSTED_MEMORY = 400_000_000
"""Bytes that uploads being decoded at once may take together, by what their files say."""


def _closed_at_exit(pool: DecodePool) -> DecodePool:
    atexit.register(pool.close)
    return pool
