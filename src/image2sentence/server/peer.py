"""Whose program is at the other end of a connection from this computer."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ROOT = 0


def is_of_another_user(client_port: int, server_port: int) -> bool:
    """Whether a connection on the loopback comes from another account's program, such as a web server's.

    Root's programs count as one's own: they may read everything anyway. False where the system does not tell, which
    only Linux does.

    Args:
        client_port: The port that the connection comes from.
        server_port: The port that it was made to.
    """
    if not hasattr(os, "getuid"):
        return False
    rows = (line.split() for table in _TABLES for line in _lines(table))
    users = {int(row[7]) for row in rows if _ports(row) == (client_port, server_port)}
    return bool(users - {os.getuid(), _ROOT})


def _lines(table: Path) -> Iterable[str]:
    try:
        return table.read_text().splitlines()[1:]
    except OSError:
        return ()


def _ports(row: list[str]) -> tuple[int, int]:
    """The ports of a row: its own, and the other end's; both are written in hexadecimal behind an address."""
    own, other = (int(place.rpartition(":")[2], 16) for place in row[1:3])
    return own, other
