"""Thumbnails on disk: bounded, of what is there now, shared, and gone when they are wiped."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs the [server] extra")

from test_server import Shop, plate

from image2sentence.server.service import THUMBNAIL_SIDE, NotThere, SearchService
from image2sentence.server.thumbnails import NAME, Thumbnails, wipe


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    with shop.gallery:
        yield shop


def size_of(kept: Thumbnails, names: list[bytes]) -> int:
    return sum(len(kept.get(name) or b"") for name in names)


def test_those_not_used_for_longest_go_first_and_the_bound_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("image2sentence.server.thumbnails.time.time", lambda: now[0])
    kept, names = Thumbnails(tmp_path, 1_000), [bytes([number]) * 32 for number in range(12)]
    for name in names[:10]:
        now[0] += 10_000
        kept.put(name, b"x" * 100)
    now[0] += 10_000
    assert kept.get(names[0]) == b"x" * 100  # used last now
    assert not kept.has_room
    kept.put(names[10], b"y" * 100)
    assert kept.get(names[0]) is not None
    assert kept.get(names[1]) is None
    assert kept.get(names[10]) == b"y" * 100
    assert size_of(kept, names) == 900
    kept.put(names[11], b"z" * 1_001)
    assert kept.get(names[11]) is None
    kept.close()
    again = Thumbnails(tmp_path, 1_000)
    assert again.get(names[10]) == b"y" * 100
    again.close()
    wipe(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_written_keeps_nothing_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / NAME).write_bytes(b"no database" * 1_000)
    with caplog.at_level(logging.WARNING):
        kept = Thumbnails(tmp_path, 1_000)
    assert "in memory only" in caplog.text
    kept.put(b"1" * 32, b"x")
    assert (kept.get(b"1" * 32), kept.has_room) == (None, False)


def test_what_is_kept_is_shown_again_but_not_for_another_or_missing_file(shop: Shop, tmp_path: Path) -> None:
    kept, red, green = Thumbnails(tmp_path / "cache", 1 << 20), shop.ids["red"], shop.ids["green"]
    first = SearchService(shop.encoder, shop.gallery, thumbnails=kept)
    shown = first.jpeg(red, THUMBNAIL_SIDE)
    sha256 = shop.gallery.hashes_of([red])[0]
    assert sha256 is not None
    assert kept.get(sha256) == shown
    kept.put(shop.gallery.hashes_of([green])[0] or b"", b"from the disk")
    second = SearchService(shop.encoder, shop.gallery, thumbnails=kept)
    assert second.jpeg(green, THUMBNAIL_SIDE) == b"from the disk"
    assert second.jpeg(green, 1_280) != b"from the disk"
    (shop.pictures / "red.png").write_bytes(plate("black"))
    third = SearchService(shop.encoder, shop.gallery, thumbnails=kept)
    assert third.jpeg(red, THUMBNAIL_SIDE) != shown
    (shop.pictures / "green.png").unlink()
    with pytest.raises(NotThere):
        third.jpeg(green, THUMBNAIL_SIDE)
    kept.close()


def test_all_are_made_ahead_while_nobody_asks(shop: Shop, tmp_path: Path) -> None:
    kept, busy = Thumbnails(tmp_path / "cache", 1 << 20), [True, True, False]
    service = SearchService(shop.encoder, shop.gallery, thumbnails=kept)
    (shop.pictures / "blue.png").unlink()
    service.make_thumbnails(threading.Event(), lambda: busy.pop(0) if busy else False)
    assert not busy
    there = [name for name in shop.names.values() if name != "blue"]
    hashes = {name: shop.gallery.hashes_of([shop.ids[name]])[0] or b"" for name in shop.names.values()}
    assert [name for name in hashes if kept.get(hashes[name]) is not None] == there
    kept.close()
