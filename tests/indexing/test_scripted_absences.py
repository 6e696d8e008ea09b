"""Scripted sequences of moving, renaming, unmounting and mounting again: nothing that was indexed is lost."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TypeAlias

import pytest

from fakes import FakeEncoder, encoded, photo
from image2sentence.gallery.locations import Place
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.indexing import IndexReport, index_pictures
from image2sentence.indexing import watch as watching
from image2sentence.indexing.several import Indexed, index_several

PATIENCE = 60
STEPS = 6

State: TypeAlias = dict[bytes, tuple[int, object]]
"""Id and price of each picture, by the SHA-256 of its content."""


class World:
    """Two indexed folders: one with a disk mounted below it, one with a link to another disk."""

    def __init__(self, place: Path, mount: Callable[..., None] | None) -> None:
        self.place = place
        self.roots = [place / "a", place / "b"]
        self.gallery = place / "gallery"
        self.away: dict[str, bool] = dict.fromkeys(("disk", "link", "root"), False)
        self._disk = self.roots[0] / "disk"
        self._mount = mount
        self._moves = 0
        for number, root in enumerate(self.roots):
            for part in ("x", "y"):
                self._write(root / part, 10 * number + 5 * (part == "y"), 3)
        self._write(place / "stick", 30, 3)
        (self.roots[1] / "link").symlink_to(place / "stick")
        if mount is not None:
            (place / "store").mkdir()
            mount(place / "store", "-t", "tmpfs", "tmpfs")
            self._write(place / "store", 40, 3)
            self._disk.mkdir()
            mount(self._disk, "--bind", os.fspath(place / "store"))
        else:
            self._write(self._disk, 40, 3)

    def _write(self, folder: Path, first: int, count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            (folder / f"{number}.jpg").write_bytes(encoded(photo(number), "JPEG"))

    def _plain(self) -> list[Path]:
        """Folders that are on no disk of their own, below the roots that are there."""
        roots = self.roots[: 1 if self.away["root"] else 2]
        return [one for root in roots for one in sorted(root.iterdir()) if one.name not in ("disk", "link")]

    def step(self, rng: random.Random) -> str:
        """Do something; gives what."""
        files = [file for folder in self._plain() for file in sorted(folder.iterdir())]
        kind = rng.choice(("file", "folder", "rename", "disk", "link", "root") if files else ("root",))
        self._moves += 1
        if kind in self.away:
            self.plug(kind, rng) if self.away[kind] else self._unplug(kind, rng)
        elif kind == "file":
            rng.choice(files).rename(rng.choice(self._plain()) / f"moved {self._moves}.jpg")
        else:
            folder = rng.choice(self._plain())
            root = folder.parent if kind == "rename" or self.away["root"] else rng.choice(self.roots)
            folder.rename(root / f"renamed {self._moves}")
        return f"{kind} {self.away.get(kind, '')}"

    def _unplug(self, kind: str, rng: random.Random) -> None:
        self.away[kind] = True
        if kind == "link":
            (self.place / "stick").rename(self.place / "stick away")
            return
        folder = self._disk if kind == "disk" else self.roots[1]
        if kind == "disk" and self._mount is not None:
            subprocess.run(["umount", "--lazy", os.fspath(folder)], check=True)
            if rng.random() < 0.5:
                folder.rmdir()
            return
        folder.rename(self.place / f"{kind} away")
        if kind == "disk" or rng.random() < 0.5:
            folder.mkdir()

    def plug(self, kind: str, rng: random.Random) -> None:
        """Have a disk again."""
        self.away[kind] = False
        if kind == "link":
            (self.place / "stick away").rename(self.place / "stick")
            return
        folder = self._disk if kind == "disk" else self.roots[1]
        if kind == "disk" and self._mount is not None:
            folder.mkdir(exist_ok=True)
            self._mount(folder, "--bind", os.fspath(self.place / "store"))
            return
        if folder.exists():
            folder.rmdir()
        (self.place / f"{kind} away").rename(folder)

    def plug_all(self, rng: random.Random) -> None:
        """Have everything again."""
        for kind in ("root", "disk", "link"):
            if self.away[kind]:
                self.plug(kind, rng)

    def on_disk(self) -> dict[bytes, str]:
        """Where each content is now, by its SHA-256."""
        found = {}
        for root in self.roots:
            for folder, _, names in os.walk(root, followlinks=True):
                for name in (name for name in names if name.endswith(".jpg")):
                    path = Path(folder, name)
                    found[hashlib.sha256(path.read_bytes()).digest()] = str(path)
        return found

    def state(self) -> tuple[State, dict[bytes, str]]:
        """What the gallery knows, and the path of each content there."""
        with Gallery.open(self.gallery) as gallery:
            pictures = gallery.pictures("ready")
            numbers = [one.id for one in pictures]
            hashes = [sha256 or b"" for sha256 in gallery.hashes_of(numbers)]
            prices = [values.get("price") for values in gallery.metadata(numbers)]
        known = dict(zip(hashes, zip(numbers, prices, strict=True), strict=True))
        return known, {sha256: str(one.path) for sha256, one in zip(hashes, pictures, strict=True)}

    def update(self, gallery: Gallery) -> Callable[[Sequence[Path]], list[Indexed]]:
        """Indexes some of the roots."""

        def index_one(place: Place, *, forget: Collection[int] | None) -> IndexReport:
            return index_pictures(place, gallery, FakeEncoder(), threads=2, forget=forget)

        def update(due: Sequence[Path]) -> list[Indexed]:
            beside = [root for root in self.roots if root not in due]
            return index_several(due, index_one, beside=beside, careful=True)

        return update

    def begin(self) -> State:
        """Index everything, and set a price of every picture by hand."""
        encoder = FakeEncoder()
        with Gallery.create(self.gallery, encoder.fingerprint, encoder.width) as gallery:
            self.update(gallery)(self.roots)
            gallery.add_columns({"price": "number"})
            gallery.set_metadata([(one.id, {"price": one.id}) for one in gallery.pictures()])
        return self.state()[0]


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_between_runs(tmp_path: Path, seed: int) -> None:
    between_runs(World(tmp_path, None), seed)


@pytest.mark.parametrize("seed", range(100, 105))
def test_nothing_is_lost_between_runs_with_mounts(
    tmp_path: Path, seed: int, mount: Callable[..., None]
) -> None:
    between_runs(World(tmp_path, mount), seed)


def between_runs(world: World, seed: int) -> None:
    """Steps with a run after each: every id and price is there all the time, and every path is right at the end."""
    rng = random.Random(seed)
    before = world.begin()
    assert len(before) == 18
    done: list[str] = []
    for step in range(STEPS + 1):
        if step == STEPS:
            world.plug_all(rng)
        else:
            done.append(world.step(rng))
        with Gallery.open(world.gallery, readonly=False) as gallery:
            world.update(gallery)(world.roots)
        assert world.state()[0] == before, done
    assert world.state()[1] == world.on_disk(), done


@contextmanager
def followed(world: World) -> Iterator[None]:
    """A thread follows the roots meanwhile."""
    stop = Event()

    def work() -> None:
        with Gallery.open(world.gallery, readonly=False) as gallery:
            for _ in watching.follow(world.roots, world.gallery, world.update(gallery), stop=stop):
                pass

    thread = Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def during_watch(world: World, seed: int) -> None:
    """Steps while the roots are followed: what is there is known under its path soon, and nothing is lost meanwhile."""
    rng = random.Random(seed)
    before = world.begin()
    done: list[str] = []
    with followed(world):
        for step in range(STEPS + 1):
            if step == STEPS:
                world.plug_all(rng)
            else:
                done.append(world.step(rng))
            ends = time.monotonic() + PATIENCE
            while True:
                known, paths = world.state()
                assert known == before, done
                if world.on_disk().items() <= paths.items():
                    break
                assert time.monotonic() < ends, done
                time.sleep(0.05)
    assert world.state() == (before, world.on_disk()), done


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes are noticed soon."""
    pytest.importorskip("watchfiles")
    monkeypatch.setattr(watching, "_SETTLES_MS", 100)
    monkeypatch.setattr(watching, "_WAKES_MS", 50)
    monkeypatch.setattr(watching, "_PAUSE_S", 0.1)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("seed", range(200, 210))
def test_nothing_is_lost_during_watch(tmp_path: Path, seed: int) -> None:
    during_watch(World(tmp_path, None), seed)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("seed", range(300, 303))
def test_nothing_is_lost_during_watch_with_mounts(
    tmp_path: Path, seed: int, mount: Callable[..., None]
) -> None:
    during_watch(World(tmp_path, mount), seed)
