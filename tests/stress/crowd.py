"""All attacks at once on a server of little memory, beside clients that only want to search.

    python -m tests.stress.crowd [--seconds 60] [--memory 1024]

Needs Linux and, for the limit, a control group that may be written (in a container, as root); without one it says so,
and the peak is compared with the limit. Prints what honest clients got, quiet and under attack, and ends with 1 where
the server ended or restarted, where one of them got a 5xx or no answer, or where the limit was passed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.stress import attacks
from tests.stress.attacks import TOKEN, make_gallery, resident, serving

HONEST = 8
WORST = (
    attacks.endless_headers,
    attacks.idle_connections,
    attacks.slow_heads,
    attacks.like_patterns,
    attacks.many_likes,
    attacks.slow_pictures,
    attacks.large_pictures,
    attacks.guessed_tokens,
)
"""One attack of each kind, all of which go on at once."""

_GROUPS = Path("/sys/fs/cgroup")


class Served(NamedTuple):
    """What honest clients got.

    Attributes:
        statuses: Statuses and their number; 0 for no answer.
        median: Seconds of an answer.
        p99: Seconds that 99 of 100 answers took at most.
    """

    statuses: Counter[int]
    median: float
    p99: float

    def __str__(self) -> str:
        statuses = ", ".join(f"{count:,} × {status}" for status, count in sorted(self.statuses.items()))
        return f"{statuses}; median {1000 * self.median:.0f} ms, p99 {1000 * self.p99:.0f} ms"


class Outcome(NamedTuple):
    """Quiet and under attack; `peak` in MiB, of the group where there is one; `alive`: it is the same process."""

    quiet: Served
    attacked: Served
    peak: float
    limited: bool
    alive: bool

    def problems(self, memory: int) -> list[str]:
        """What must not be."""
        failed = sum(count for status, count in self.attacked.statuses.items() if not 200 <= status < 500)
        return [
            *(["the server has ended"] if not self.alive else []),
            *([f"{failed} honest requests failed"] if failed else []),
            *([f"{self.peak:.0f} MiB were taken"] if self.peak > memory else []),
        ]


@contextmanager
def limited_group(memory: int) -> Iterator[Path | None]:
    """A control group of so many MiB, version 1 or 2; None where none can be made."""
    second = (_GROUPS / "cgroup.controllers").exists()
    group = (_GROUPS if second else _GROUPS / "memory") / f"image2sentence-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.max" if second else "memory.limit_in_bytes")).write_text(str(memory << 20))
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        for _ in range(50):
            try:
                group.rmdir()
                break
            except OSError:  # processes in it are just ending
                time.sleep(0.1)


def peak_of(group: Path) -> float:
    """The most memory that a group has had, in MiB, with its page cache."""
    for name in ("memory.peak", "memory.max_usage_in_bytes"):
        if (group / name).exists():
            return int((group / name).read_text()) / (1 << 20)
    return 0.0


def honest(port: int, seconds: float) -> Served:
    """Clients that search with words and with gallery pictures, and look at results, with pauses as people make."""
    end = time.monotonic() + seconds
    taken: list[tuple[int, float]] = []

    def ask(number: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        bodies = [{"text": f"red {number}"}, {"item": 1, "text": "but blue"}, {"item": 2, "k": 50}]
        turn = number
        while time.monotonic() < end:
            turn += 1
            start = time.monotonic()
            try:
                if turn % 4:
                    client.request("POST", "/v1/search", json.dumps(bodies[turn % 3]), headers)
                else:
                    client.request("GET", "/v1/items/1/thumbnail", headers=headers)
                answer = client.getresponse()
                answer.read()
                status = answer.status
            except (OSError, http.client.HTTPException):
                client.close()
                status = 0
            taken.append((status, time.monotonic() - start))
            time.sleep(0.25)
        client.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(HONEST)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    times = [one for _, one in taken]
    return Served(
        Counter(status for status, _ in taken), float(np.median(times)), float(np.quantile(times, 0.99))
    )


def attack(port: int, seconds: float) -> None:
    """All attacks at once, each begun anew until the time is over; these clients have cores of their own elsewhere."""
    if hasattr(os, "nice"):
        os.nice(19)
    end = time.monotonic() + seconds

    def go_on(kind: attacks.Attack) -> None:
        while time.monotonic() < end:
            try:
                kind(port, 1)
            except OSError:  # refused connections are what an attacker gets
                time.sleep(0.1)

    threads = [threading.Thread(target=go_on, args=(one,), daemon=True) for one in WORST]
    for one in threads:
        one.start()
    for one in threads:
        one.join(seconds + 5)


def run(gallery: Path, seconds: float, memory: int) -> Outcome:
    """The honest clients alone for a quarter of the time, and then beside the attackers."""
    with limited_group(memory) as group, serving(gallery, group=group) as (port, process):
        honest(port, 2.0)
        quiet = honest(port, max(3.0, seconds / 4))
        attackers = multiprocessing.get_context("spawn").Process(target=attack, args=(port, seconds))
        attackers.start()
        peaks = [0.0]
        done = threading.Event()

        def weigh() -> None:
            while not done.wait(0.1):
                peaks.append(resident(process))

        watcher = threading.Thread(target=weigh)
        watcher.start()
        attacked = honest(port, seconds)
        done.set()
        watcher.join()
        alive = resident(process) > 0 and attacks.health(port) is not None
        attackers.kill()
        attackers.join()
        peak = max(peaks) if group is None else peak_of(group)
    return Outcome(quiet, attacked, peak, group is not None, alive)


def main() -> int:
    """Print both phases; 1 where something happened that must not."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the attacks last")
    parser.add_argument(
        "--memory", type=int, default=1_024, help="MiB that server and decoders may have together"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(make_gallery(Path(folder)), options.seconds, options.memory)
    print(f"quiet:    {outcome.quiet}\nattacked: {outcome.attacked}")
    print(
        f"p99 × {outcome.attacked.p99 / outcome.quiet.p99:.1f}; peak {outcome.peak:.0f} MiB of {options.memory}"
    )
    if not outcome.limited:
        print("no control group may be written here: the memory was not limited, only measured")
    for problem in outcome.problems(options.memory):
        print(f"FAILED: {problem}")
    return 1 if outcome.problems(options.memory) else 0


if __name__ == "__main__":
    sys.exit(main())
