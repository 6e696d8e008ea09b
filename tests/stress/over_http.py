"""Attacks on a running server, each over connections of its own.

Attackers come from 127.0.0.2, the question of `/health` from 127.0.0.1.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress

from PIL import Image

from benchmarks.server.process import PATIENCE

TOKEN = "correct-horse"
ATTACKER = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
GRACE = 15.0
"""Longest that an attack goes on by itself, in seconds."""
HEAD = f"HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"


Attack = Callable[[int, int], list[int]]
"""From the port and the size to the status that each connection got."""


def connect(port: int, source: str = ATTACKER) -> socket.socket:
    """A connection from one address of the loopback."""
    return socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0))


def status_of(connection: socket.socket) -> int:
    """The status of the first answer; 0 where the connection ends or stays silent."""
    with connection:
        connection.settimeout(2 * GRACE)
        try:
            line = connection.recv(64)
        except OSError:
            return 0
        return int(line.split()[1]) if line.startswith(b"HTTP/") else 0


def each(port: int, requests: list[bytes]) -> list[int]:
    """All requests at once, a connection each."""
    statuses: list[int] = []

    def ask(request: bytes) -> None:
        connection = connect(port)
        with suppress(OSError):  # answered, or closed, before all of it was sent
            connection.sendall(request)
        statuses.append(status_of(connection))

    threads = [threading.Thread(target=ask, args=(one,)) for one in requests]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return statuses


def in_turn(port: int, clients: int, bodies: list[bytes]) -> list[int]:
    """Some clients at once, each of which sends all these searches one after the other on one connection."""
    statuses: list[int] = []

    def ask() -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE, source_address=(ATTACKER, 0))
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        for body in bodies:
            try:
                client.request("POST", "/v1/search", body, headers)
                answer = client.getresponse()
                answer.read()
                statuses.append(answer.status)
            except OSError:
                client.close()
                statuses.append(0)
        client.close()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return statuses


def trickle(port: int, count: int, beginning: bytes, piece: bytes, pause: float) -> list[int]:
    """Many connections that send a piece now and then until they are closed, or for GRACE seconds."""
    open_ones = [connect(port) for _ in range(count)]
    end = time.monotonic() + GRACE
    for one in open_ones:
        one.setblocking(False)
    statuses = []
    outgoing = dict.fromkeys(open_ones, beginning)
    while open_ones and time.monotonic() < end:
        for one in list(open_ones):
            try:
                sent = one.send(outgoing[one] or piece)
                outgoing[one] = (outgoing[one] or piece)[sent:]
            except BlockingIOError:
                continue
            except OSError:
                open_ones.remove(one)
                one.setblocking(True)
                statuses.append(status_of(one))
        time.sleep(pause)
    for one in open_ones:
        one.close()
    return statuses + [-1] * len(open_ones)


def endless_headers(port: int, size: int) -> list[int]:
    """Up to 30 MiB of one header for each unit of size, on one connection."""
    connection = connect(port)
    connection.sendall(f"GET /health {HEAD}x: ".encode())
    try:
        for _ in range(30 * size):
            connection.sendall(b"y" * (1 << 20))
    except OSError:
        return [status_of(connection)]
    connection.close()
    return [-1]


def idle_connections(port: int, size: int) -> list[int]:
    """Connections that say nothing, more than one client may have."""
    taken = [connect(port) for _ in range(40 * size)]
    time.sleep(1.0)
    statuses = []
    for one in taken:
        one.settimeout(0.01)
        try:
            line = one.recv(64)
            statuses.append(int(line.split()[1]) if line else 0)
        except TimeoutError:
            statuses.append(-1)
        except OSError:
            statuses.append(0)
        one.close()
    return statuses


def slow_heads(port: int, size: int) -> list[int]:
    """Heads that arrive a header a second."""
    return trickle(port, 10 * size, f"GET /health {HEAD}".encode(), b"x: y\r\n", 1.0)


def filtered(where: str) -> bytes:
    """A search for words among the pictures that a filter holds for."""
    return json.dumps({"text": "red", "where": where}).encode()


def like_patterns(port: int, size: int) -> list[int]:
    """One pattern, sent repeatedly, that a backtracking search of long texts would try for minutes.

    The first filter after a change of the gallery may be answered by SQLite; the others meet the columns in memory.
    """
    body = filtered("caption like '" + "%a" * 12 + "%z'")
    return in_turn(port, size, [body] * 3)


def many_likes(port: int, size: int) -> list[int]:
    """Conditions of as many patterns as a filter's length allows, and of as many as its cost allows."""
    tests = [f"caption like '%a%z{number:03}'" for number in range(350)]
    bodies = [filtered(" or ".join(tests[:count])) for count in (350, 350, 50, 24, 23, 22, 8)]
    return in_turn(port, size, bodies)


def listed_likes(port: int, size: int) -> list[int]:
    """The same conditions where the gallery is listed."""
    condition = " or ".join(f"caption like '%25a%25z{number:03}'" for number in range(300))
    line = f"GET /v1/items?where={condition.replace(' ', '%20')} {HEAD}Connection: close\r\n\r\n".encode()
    return each(port, [line] * size)


def slow_jpeg(scans: int, side: int) -> bytes:
    """A small file that keeps a decoder busy for seconds: empty scans over many pixels."""
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "JPEG", progressive=True)
    whole = buffer.getvalue()
    last = whole.rfind(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * scans + whole[-2:]


def slow_pictures(port: int, size: int) -> list[int]:
    """Progressive JPEGs of many empty scans."""
    return each(port, [_upload(slow_jpeg(90, 7_900))] * size)


def large_pictures(port: int, size: int) -> list[int]:
    """Small files of as many pixels as a picture that is sent may have, four bytes each."""
    buffer = io.BytesIO()
    Image.new("RGBA", (7_900, 7_900), (1, 2, 3, 4)).save(buffer, "PNG", compress_level=9)
    return each(port, [_upload(buffer.getvalue())] * size)


def small_bombs(port: int, size: int) -> list[int]:
    """PNGs of profiles and texts by the thousand, each of which unpacks to megabytes, and previews in raw files."""
    packed = zlib.compress(bytes(4 << 20), 9)
    kinds = ((b"iCCP", b"x\0\0"), (b"zTXt", b"date:create\0\0"), (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"))
    bombs = [_png_with(_chunk(name, head + packed) * 1_500) for name, head in kinds]
    segment = b"\xff\xd8\xff\xe2\xff\xff" + b"\xff\xd8\xff\xc4\0\2" * 10_922
    raw = b"FUJIFILMCCD-RAW " + segment * 250
    return each(port, [_upload(one) for one in (*bombs, raw)] * size)


def _png_with(chunks: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (600, 600)).save(buffer, "PNG")
    whole = buffer.getvalue()
    return whole[:33] + chunks + whole[33:]


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def pipelined_requests(port: int, size: int) -> list[int]:
    """Thousands of requests in one packet, on many connections, none of whose answers is read for a while."""
    many = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 6_000
    taken = [connect(port) for _ in range(10 * size)]
    for one in taken:
        one.setblocking(False)
        with suppress(OSError):
            one.send(many)
    time.sleep(5.0)
    for one in taken:
        one.setblocking(True)
    return [status_of(one) for one in taken]


def heads_of_parts(port: int, size: int) -> list[int]:
    """Forms whose parts have megabytes of headers: one long, very many, one of many parameters."""
    head = b'--x\r\nContent-Disposition: form-data; name="text"'
    more = (b'; a="' + b"y" * (8 << 20) + b'"', b"\r\na: b" * (1 << 20), b'; filename="' + b'\\"' * (4 << 20))
    return each(port, [_form(head + one + b"\r\n\r\nred\r\n--x--\r\n") for one in more] * size)


def parts_by_the_thousand(port: int, size: int) -> list[int]:
    """Forms of more parts than may be, with and without names, and of a boundary that nearly comes, over and over."""
    field = b'--x\r\nContent-Disposition: form-data; name="muted"\r\n\r\n1\r\n'
    file = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
    bodies = (field * 300_000, b"--x\r\nA: b\r\n\r\n1\r\n" * 900_000, file + b"\r\n--\r" * 4_000_000)
    return each(port, [_form(one + b"\r\n--x--\r\n") for one in bodies] * size)


def odd_json(port: int, size: int) -> list[int]:
    """JSON that is deep, endless, of huge numbers, of halves of characters."""
    bodies = (
        b"[" * 500_000,
        b'{"item": ' + b"9" * 500_000 + b"}",
        b'{"vector": [' + b"1e999," * 80_000 + b"1]}",
        b'{"exclude": [' + b"1," * 200_000 + b"1]}",
        b'{"text": "red", "where": "caption = \'\\ud800\'"}',
        b'{"text": "\\ud800"}',
        b'{"balance": NaN}',
        b"{" + b",".join(b'"x%d": 1' % one for one in range(40_000)) + b"}",
    )
    return in_turn(port, size, list(bodies))


def heavy_lists(port: int, size: int) -> list[int]:
    """Lists by filters that cost as much as they may, each another one."""
    lines = []
    for number in range(4 * size):
        tests = (f"caption like '%25a%25z{number:04}{one:03}'" for one in range(22))
        where = " or ".join(tests).replace(" ", "%20")
        lines.append(f"GET /v1/items?where={where} {HEAD}Connection: close\r\n\r\n".encode())
    return each(port, lines)


def odd_words(port: int, size: int) -> list[int]:
    """Words that an index of texts might take for its own language, or that are very many."""
    texts = (
        'NEAR("a" "b", 999999) OR text : * ^ -{a b} + "',
        " ".join(f"w{number}" for number in range(200))[:1_000],
        "\u0301" * 1_000,
        "a* " * 333,
        "'; DROP TABLE words; --",
    )
    return in_turn(port, size, [json.dumps({"text": one}).encode() for one in texts])


def _form(body: bytes) -> bytes:
    head = f"POST /v1/search {HEAD}Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _upload(picture: bytes) -> bytes:
    part = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
    return _form(part + picture + b"\r\n--x--\r\n")


def _search(header: str) -> bytes:
    body = b'{"text": "red"}'
    return (
        f"POST /v1/search {header}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


def other_sites(port: int, size: int) -> list[int]:
    """Forms that a browser sends for a page of another site."""
    return each(
        port, [_search(f"{HEAD}Sec-Fetch-Site: cross-site\r\nOrigin: https://evil.example\r\n")] * size
    )


def rebound_names(port: int, size: int) -> list[int]:
    """Requests under a name that was pointed at this computer."""
    return each(port, [_search(HEAD.replace("localhost", "evil.example"))] * size)


def guessed_tokens(port: int, size: int) -> list[int]:
    """Tokens tried one after the other; the last is the right one."""
    guesses = [*(f"guess-{number}" for number in range(10 * size)), TOKEN]
    return [status for guess in guesses for status in each(port, [_search(HEAD.replace(TOKEN, guess))])]


ATTACKS: tuple[Attack, ...] = (
    endless_headers,
    idle_connections,
    slow_heads,
    like_patterns,
    many_likes,
    listed_likes,
    slow_pictures,
    large_pictures,
    small_bombs,
    pipelined_requests,
    heads_of_parts,
    parts_by_the_thousand,
    odd_json,
    heavy_lists,
    odd_words,
    other_sites,
    rebound_names,
    guessed_tokens,
)
