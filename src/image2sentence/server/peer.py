"""Whose program is at the other end of a connection from this computer."""

from __future__ import annotations

import os
import socket
import struct

_ROOT = 0
_DIAG, _BY_FAMILY, _REQUEST = 4, 20, 1  # of linux/netlink.h and linux/sock_diag.h
_HEADER = struct.Struct("=IHHII")
_ASKED = struct.Struct("=BBBxI2s2s16s16sIII")
_USER = struct.Struct("=I")
_USER_PLACE = _HEADER.size + 64
"""After the header: four bytes, 48 of the connection's ends, and three numbers."""
_ANY = 0xFFFFFFFF


def is_of_another_user(client: tuple[str, int], server: tuple[str, int]) -> bool:
    """Whether a connection on the loopback comes from another account's program, such as a web server's.

    Root's programs count as one's own: they may read everything anyway. False where the system does not tell, which
    only Linux does.

    Args:
        client: Address and port that the connection comes from.
        server: Address and port that it was made to.
    """
    try:
        user = _user_of(client, server)
    except (AttributeError, OSError):  # no Linux, or a container that may not ask
        return False
    return user is not None and user not in (os.getuid(), _ROOT)


def _user_of(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Who has opened the client's end, asked of the kernel (sock_diag(7)); None where it does not know the end."""
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    ports = (struct.pack("!H", port) for _, port in (client, server))
    ends = (socket.inet_pton(family, host).ljust(16, b"\0") for host, _ in (client, server))
    asked = _ASKED.pack(family, socket.IPPROTO_TCP, 0, _ANY, *ports, *ends, 0, _ANY, _ANY)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _DIAG) as kernel:
        kernel.settimeout(1)
        kernel.send(_HEADER.pack(_HEADER.size + len(asked), _BY_FAMILY, _REQUEST, 1, 0) + asked)
        told = kernel.recv(4096)
    _, kind, *_ = _HEADER.unpack_from(told)
    return int(_USER.unpack_from(told, _USER_PLACE)[0]) if kind == _BY_FAMILY else None
