"""Process that decodes pictures for another one, within limits of its own.

Requests come on standard input, answers go to standard output, both as a fixed header and raw bytes: nothing is ever
unpickled. It ends with its input, or when a picture takes more processor time than it may.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from contextlib import suppress
from typing import IO, NamedTuple

from image2sentence.errors import ImageError
from image2sentence.images.decode import NO_MEMORY, Decoded, DecodeLimits, decode_image

REQUEST = struct.Struct("<4sQQQdI?")
"""Mark, length of the file, most pixels, most memory, seconds, smallest side (0: full size), whether to ask first."""

ANSWER = struct.Struct("<4sBIIIIIQ")
"""Mark, kind, width, height, full width, full height, length of the date, length of the pixels or reason."""

MARK, READY = b"I2Sd", b"i2s ready\n"
PICTURE, REFUSED, OUT_OF_MEMORY, WEIGHED = 0, 1, 2, 3
GO_ON, NOT_NOW = b"g", b"n"
"""What is said to an answer `WEIGHED`, whose length is the memory that decoding takes."""

_SPARE_BYTES = 192 << 20  # Pillow's blocks, the result, what libraries allocate on first use
_SPARE_SECONDS = 5
_NICE = 5
"""By how much strangers' pictures give way to the program that asks: it answers others meanwhile."""


class Request(NamedTuple):
    """A picture file to decode; `asks`: whether the worker first says what memory that takes, and waits for a word."""

    data: bytes
    at_least: int | None
    limits: DecodeLimits
    asks: bool = False


class _NotNow(Exception):
    """The one who asked does not want the picture decoded any more."""


def write_request(file: IO[bytes], request: Request) -> None:
    """Send a request."""
    limits = request.limits
    sizes = (len(request.data), limits.max_pixels, limits.memory)
    head = REQUEST.pack(MARK, *sizes, limits.seconds, request.at_least or 0, request.asks)
    file.write(head)
    file.write(request.data)
    file.flush()


def read_request(file: IO[bytes]) -> Request | None:
    """The next request; None at the end."""
    head = file.read(REQUEST.size)
    if len(head) < REQUEST.size:
        return None
    mark, length, max_pixels, max_memory, seconds, at_least, asks = REQUEST.unpack(head)
    data = file.read(length)
    if mark != MARK or len(data) < length:
        return None
    return Request(data, at_least or None, DecodeLimits(max_pixels, max_memory, seconds), asks)


def main() -> None:
    """Answer requests until the input ends."""
    source, target = _own_streams()
    with suppress(AttributeError, ValueError):  # Ctrl-C is for the one who asks
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    target.write(READY)
    target.flush()
    gives_way = False
    while (request := read_request(source)) is not None:
        if request.asks and not gives_way and hasattr(os, "nice"):  # a stranger's
            os.nice(_NICE)
            gives_way = True
        _limit(request)
        with suppress(_NotNow):
            _write_answer(source, target, request)


def _own_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Input and output that no library prints to."""
    source, target = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    return source, target


def _write_answer(source: IO[bytes], target: IO[bytes], request: Request) -> None:
    def ask(memory: int) -> None:
        target.write(ANSWER.pack(MARK, WEIGHED, 0, 0, 0, 0, 0, memory))
        target.flush()
        if source.read(1) != GO_ON:
            raise _NotNow

    try:
        weighed = ask if request.asks else None
        decoded = decode_image(
            request.data, at_least=request.at_least, limits=request.limits, weighed=weighed
        )
        pixels = decoded.picture.tobytes()
    except ImageError as error:
        kind = OUT_OF_MEMORY if str(error) == NO_MEMORY else REFUSED
        _write(target, kind, None, str(error).encode())
        return
    except MemoryError:
        _write(target, OUT_OF_MEMORY, None, b"")
        return
    _write(target, PICTURE, decoded, pixels)


def _write(target: IO[bytes], kind: int, decoded: Decoded | None, body: bytes) -> None:
    date = b"" if decoded is None or decoded.taken is None else decoded.taken.encode()
    sizes = (0, 0, 0, 0) if decoded is None else (*decoded.picture.size, decoded.width, decoded.height)
    target.write(ANSWER.pack(MARK, kind, *sizes, len(date), len(body)))
    target.write(date)
    target.write(body)
    target.flush()


def _limit(request: Request) -> None:
    """Bound this process's memory and processor time for one request, where the system can."""
    if sys.platform == "win32":
        return
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(usage.ru_utime + usage.ru_stime + request.limits.seconds) + _SPARE_SECONDS
    memory = _address_space() + 3 * len(request.data) + request.limits.memory + _SPARE_BYTES
    for kind, amount in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory)):
        most = resource.getrlimit(kind)[1]
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (amount if most < 0 else min(amount, most), most))


def _address_space() -> int:
    """Bytes of address space in use; 1 GiB where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 1 << 30


if __name__ == "__main__":
    main()
