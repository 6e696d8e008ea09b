"""`image2sentence serve` as a process of its own: for benchmarks, stress and tests."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

PATIENCE = 60.0
"""Seconds until a server is ready."""
ENDING = 20.0
"""Seconds that a server has to end; it is killed then. It ends within ten by itself."""


class ServerProcess(NamedTuple):
    """A server that is ready: its port, the process, and the seconds until it was."""

    port: int
    process: subprocess.Popen[bytes]
    seconds: float


@contextmanager
def server(
    gallery: Path | None,
    *options: str,
    port: int | None = None,
    folder: Path | None = None,
    source: Path | None = None,
    environment: Mapping[str, str] | None = None,
    group: Path | None = None,
    stderr: int | None = None,
) -> Iterator[ServerProcess]:
    """A server process, told to end afterwards.

    Args:
        gallery: What it serves; None for what it finds in `folder`.
        options: Further options of `serve`.
        port: Where it listens; None for a free port.
        folder: Where it is started; None for here.
        source: The `src` folder of the package to run; None for this one.
        environment: Variables beside those of this process.
        group: Folder of the control group that it runs in.
        stderr: Where its messages go, as for `subprocess.Popen`.
    """
    port, start = port or free_port(), time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "image2sentence",
        "serve",
        *([] if gallery is None else ["--gallery", str(gallery)]),
        "--port",
        str(port),
    ]
    path = {} if source is None else {"PYTHONPATH": str(source)}
    variables = {**os.environ, **path, **(environment or {})}
    process = subprocess.Popen(
        [*command, *options], env=variables, cwd=folder, stdout=subprocess.DEVNULL, stderr=stderr
    )
    try:
        if group is not None:
            (group / "cgroup.procs").write_text(str(process.pid))
        wait_until_ready(port, process)
        yield ServerProcess(port, process, time.perf_counter() - start)
    finally:
        process.terminate()
        try:
            process.wait(ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stderr is not None:
            process.stderr.close()


def free_port() -> int:
    """A port nobody listens on now, below those that the system hands out.

    Whoever else asks for any port could be given one of those before the server takes it (on Linux they are
    net.ipv4.ip_local_port_range, from 32,768).
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when /ready answers 200. Raises RuntimeError where the process ends, or takes more than PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if status(port, "/ready") == 200:
            return
        time.sleep(0.01)
    raise RuntimeError(
        f"the server did not get ready: it {'has ended' if process.poll() is not None else 'is slow'}"
    )


def status(port: int, path: str, source: str = "127.0.0.1") -> int | None:
    """The status that a GET is answered with; None where none comes.

    Args:
        port: The server's.
        path: What to get.
        source: The address of the loopback to ask from.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0)) as connection:
            connection.sendall(request)
            head = connection.recv(64)
    except OSError:
        return None
    return int(head[9:12]) if head.startswith(b"HTTP/1.1 ") else None


def resident(process: int) -> float:
    """Resident memory of a process and its children in MiB; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        tasks = Path(f"/proc/{process}/task").glob("*/children")
        children = [child for task in tasks for child in task.read_text().split()]
    except OSError:
        return 0.0
    own = sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
    return own + sum(resident(int(child)) for child in children)


def processor_seconds(process: int) -> float:
    """Seconds of processor time that a process has taken; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
