"""How many pictures are encoded at once, so that memory suffices."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

MAX_ROWS = 32
"""Pictures in one call of a graph: more are no faster on a processor."""
_FEW = 4
"""Pictures in one call below which fewer calls at once are better than smaller ones."""
_SHARE = 0.5
"""Of the memory that is free; the rest is for the gallery, decoding and other programs."""
_WEIGHTS_SHARE = 16
"""A transformer's activations for one picture are at most this part of its weights (measured: 1/16 to 1/175)."""
_PIXEL_BYTES = 96
"""Activations of a convolutional encoder, in bytes for each pixel of its input."""


@dataclass(frozen=True)
class Plan:
    """`rows` pictures in each call of a graph, `calls` of them at once."""

    rows: int
    calls: int


def plan(graph_bytes: int, side: int, calls: int, free: int | None) -> Plan:
    """What fits into `free` bytes; None where that is not known: then nothing is held back.

    Args:
        graph_bytes: Size of the graph, which is loaded besides.
        side: Of its input, in pixels.
        calls: At once at most, by cores.
        free: Memory that is free before the graph is loaded.
    """
    if free is None:
        return Plan(MAX_ROWS, calls)
    room = max(0, _SHARE * free - graph_bytes)
    pictures = int(room / max(graph_bytes / _WEIGHTS_SHARE, _PIXEL_BYTES * side**2))
    at_once = max(1, min(calls, pictures // _FEW))
    return Plan(max(1, min(MAX_ROWS, pictures // at_once)), at_once)


def free_memory() -> int | None:
    """Bytes that this process may still take, control groups (containers) included; None where not known."""
    system = _free_of_system()
    group = _free_of_group(Path("/sys/fs/cgroup"))
    known = [one for one in (system, group) if one is not None]
    return min(known) if known else None


def _free_of_system() -> int | None:
    if sys.platform == "win32":
        return _free_of_windows()
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass  # no Linux
    try:
        return (
            os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        )  # macOS does not say what is free
    except (OSError, ValueError):
        return None


def _free_of_group(folder: Path) -> int | None:
    """What a container's limit leaves; file pages, which are given up when asked for, count as free."""
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        stat = dict(
            line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        )
        return None if limit == "max" else max(0, int(limit) - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None


def _free_of_windows() -> int | None:
    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
            (name, ctypes.c_ulonglong)
            for name in (
                "total",
                "free",
                "total_page",
                "free_page",
                "total_virtual",
                "free_virtual",
                "extended",
            )
        ]

    status = Status(length=ctypes.sizeof(Status))
    done = getattr(ctypes, "windll").kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # noqa: B009
    return int(status.free) if done else None
