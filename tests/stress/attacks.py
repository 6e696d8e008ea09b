"""Attacks, with what each costs: seconds, memory, answers, and of a server its health meanwhile.

    python -m tests.stress.attacks [--size 10] [--before DIR]

Makes a gallery with a column of long texts, starts `image2sentence serve` for each attack over HTTP, and runs commands
on files that others have made, and prints a table: attack, seconds, peak memory, /health, answers. With `--before`,
the `src` folder of another checkout, every attack meets that version, too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.server.process import resident, server, status
from image2sentence.encoders import load_encoder
from image2sentence.gallery import Gallery
from image2sentence.gallery.records import Content, FileEntry
from image2sentence.indexing import index_pictures
from tests.fakes import encoded, photo
from tests.stress import by_files
from tests.stress.over_http import (
    ATTACKS,
    TOKEN,
    Attack,
    endless_headers,
    guessed_tokens,
    heads_of_parts,
    heavy_lists,
    idle_connections,
    large_pictures,
    like_patterns,
    listed_likes,
    many_likes,
    odd_json,
    odd_words,
    other_sites,
    parts_by_the_thousand,
    pipelined_requests,
    rebound_names,
    slow_heads,
    slow_pictures,
    small_bombs,
)

__all__ = [
    "ATTACKS",
    "TOKEN",
    "Attack",
    "Cost",
    "cost_of",
    "health",
    "main",
    "make_gallery",
    "resident",
    "serving",
    "endless_headers",
    "idle_connections",
    "slow_heads",
    "like_patterns",
    "many_likes",
    "listed_likes",
    "slow_pictures",
    "large_pictures",
    "small_bombs",
    "pipelined_requests",
    "heads_of_parts",
    "parts_by_the_thousand",
    "odd_json",
    "heavy_lists",
    "odd_words",
    "other_sites",
    "rebound_names",
    "guessed_tokens",
]


class Cost(NamedTuple):
    """What one attack cost a server.

    Attributes:
        seconds: Until the attacker was done.
        memory: Peak resident memory of the server and its decoders above that before the attack, in MiB.
        health: The slowest answer of /health meanwhile in seconds; None where one did not come within a minute.
        answers: Statuses that the attacker got, with their number; 0 for connections without an answer.
    """

    seconds: float
    memory: float
    health: float | None
    answers: Counter[int]

    def cells(self) -> tuple[str, str, str, str]:
        """Seconds, peak memory, health and answers as text."""
        names = {0: "closed", -1: "left open"}
        answers = ", ".join(
            f"{count} × {names.get(status, status)}" for status, count in sorted(self.answers.items())
        )
        health = "no answer" if self.health is None else f"{self.health:.2f} s"
        return f"{self.seconds:.1f} s", f"+{self.memory:.0f} MiB", health, answers


def make_gallery(folder: Path, entries: int = 2_000, letters: int = 4_000) -> Path:
    """A gallery of four pictures, and of others whose files are gone; all have long captions of few letters."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    for seed in range(4):
        (pictures / f"{seed}.png").write_bytes(encoded(photo(seed), "PNG"))
    encoder = load_encoder(threads=1)
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((entries, encoder.width)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    contents = [Content(f"{number:032}".encode(), 1, 1, row) for number, row in enumerate(rows)]
    with Gallery.create(folder / "gallery", encoder.fingerprint, encoder.width) as made:
        index_pictures(pictures, made, encoder)
        made.commit(
            made.add_root(folder / "gone"),
            contents,
            [FileEntry(f"{number}.jpg", 1, 1, one.sha256) for number, one in enumerate(contents)],
        )
        made.add_columns({"caption": "text"})
        made.set_metadata((one.id, {"caption": caption(rng, letters)}) for one in made.pictures())
    return folder / "gallery"


def caption(rng: np.random.Generator, letters: int) -> str:
    """A text of so many letters, nearly all of them the same."""
    return "".join(rng.choice(["a", "b"], letters, p=[0.95, 0.05]))


@contextmanager
def serving(
    gallery: Path, source: Path | None = None, group: Path | None = None
) -> Iterator[tuple[int, int]]:
    """Port and process id of a server that wants TOKEN; `source`: the `src` folder to run, `group`: a control group."""
    token = {"IMAGE2SENTENCE_TOKEN": TOKEN}
    with server(gallery, source=source, environment=token, group=group) as one:
        yield one.port, one.process.pid


def health(port: int) -> float | None:
    """Seconds that /health takes; None where it does not answer."""
    start = time.monotonic()
    return time.monotonic() - start if status(port, "/health") == 200 else None


def cost_of(attack: Attack, gallery: Path, size: int, source: Path | None = None) -> Cost:
    """Run one attack against a server of its own."""
    with serving(gallery, source) as (port, process):
        before = resident(process)
        slowest: list[float | None] = []
        memory = [before]
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                slowest.append(health(port))
                done.wait(0.1)

        def weigh() -> None:
            while not done.is_set():
                memory.append(resident(process))
                done.wait(0.05)

        watchers = [threading.Thread(target=one) for one in (watch, weigh)]
        for one in watchers:
            one.start()
        start = time.monotonic()
        answers = Counter(attack(port, size))
        seconds = time.monotonic() - start
        done.set()
        for one in watchers:
            one.join()
        known = [one for one in slowest if one is not None]
        worst = max(known) if len(known) == len(slowest) else None
        return Cost(seconds, max(memory) - before, worst, answers)


def main() -> None:
    """Print the table; each row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=10, help="how large each attack is")
    parser.add_argument("--before", type=Path, help="the src folder of an earlier checkout")
    kinds = (*ATTACKS, *by_files.ATTACKS)
    parser.add_argument(
        "--only", nargs="+", choices=[one.__name__ for one in kinds], help="some attacks only"
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for each attack")
    options = parser.parse_args()
    versions = ({" (before)": options.before} if options.before else {}) | {"": None}
    with tempfile.TemporaryDirectory() as folder:
        gallery = make_gallery(Path(folder))
        if not options.json:
            print("| attack | seconds | peak memory | health | answers |\n" + "| --- " * 5 + "|", flush=True)
        for attack in kinds:
            if options.only and attack.__name__ not in options.only:
                continue
            for version, source in versions.items():
                cost = _either(attack, gallery, options.size, source)
                name = attack.__name__.replace("_", " ") + version
                row = json.dumps({"attack": name, **cost._asdict()})
                print(row if options.json else f"| {name} | {' | '.join(cost.cells())} |", flush=True)


def _either(
    attack: Attack | by_files.Attack, gallery: Path, size: int, source: Path | None
) -> Cost | by_files.Cost:
    for one in by_files.ATTACKS:
        if one is attack:
            return by_files.cost_of(one, gallery, source)
    return cost_of(attack, gallery, size, source)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
