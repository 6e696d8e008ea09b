"""Decoding elsewhere: the same pictures, a deadline, a memory limit, and processes that are replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes import FakeEncoder
from image2sentence.errors import ImageError
from image2sentence.gallery import Gallery
from image2sentence.images import (
    DecodeLimits,
    DecodePool,
    DecodersBusyError,
    DecodingStoppedError,
    containers,
    decode_image,
    pool,
)
from image2sentence.indexing import index_pictures
from tests import odd_pictures
from tests.odd_pictures import jpeg, quarters, saved


@pytest.fixture
def decoders() -> Iterator[DecodePool]:
    """One process, that is ended with the test."""
    made = DecodePool(1)
    yield made
    made.close()


def slow_jpeg(scans: int = 90, side: int = 4_000) -> bytes:
    """A small file that keeps a decoder busy for seconds: empty scans over many pixels."""
    whole = jpeg(Image.new("L", (side, side)), progressive=True)
    last = whole.rfind(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * scans + whole[-2:]


SLOW = slow_jpeg(90, 7_900)


def pid_of(decoders: DecodePool) -> int:
    """The process that is free or busy."""
    (one,) = [*decoders._idle, *decoders._busy]
    assert one._process is not None
    return one._process.pid


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="needs priorities of processes")
@pytest.mark.parametrize(("memory", "below"), [(None, 0), (10_000_000, 5)])
def test_pictures_of_strangers_give_way_to_the_program(memory: int | None, below: int) -> None:
    decoders = DecodePool(1, memory=memory)
    for _ in range(2):
        decoders.decode(jpeg(quarters()))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, pid_of(decoders)) == own + below
    decoders.close()


def test_pictures_come_out_as_from_decode_image(decoders: DecodePool) -> None:
    for one in odd_pictures.all_pictures():
        for at_least in (None, 16):
            here, there = (
                decode(one.content, at_least=at_least) for decode in (decode_image, decoders.decode)
            )
            assert here[1:] == there[1:]
            assert np.array_equal(np.asarray(here.picture), np.asarray(there.picture))


def test_dates_and_refusals_come_through(decoders: DecodePool) -> None:
    content = jpeg(exif=odd_pictures.exif(original="2026:11:21 09:30:00"))
    assert decoders.decode(content).taken == "2026-11-21T09:30:00"
    for bad in (b"", b"hello", content[:500]):
        with pytest.raises(ImageError) as here:
            decode_image(bad)
        with pytest.raises(ImageError) as there:
            decoders.decode(bad)
        assert str(here.value) == str(there.value)


def test_one_process_decodes_many_and_ends_when_idle(
    decoders: DecodePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders.decode(jpeg())
    first = pid_of(decoders)
    decoders.decode(jpeg())
    assert pid_of(decoders) == first
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.05)
    decoders.decode(jpeg())
    ended = time.monotonic() + 10
    while decoders._idle and time.monotonic() < ended:
        time.sleep(0.02)
    assert not decoders._idle
    assert decoders.decode(jpeg()).width == 48


def test_what_takes_too_long_is_ended_and_named(decoders: DecodePool) -> None:
    decoders.decode(jpeg())
    first, start = pid_of(decoders), time.monotonic()
    with pytest.raises(ImageError, match=r"it took longer than 0\.3 s to decode"):
        decoders.decode(SLOW, limits=DecodeLimits(seconds=0.3))
    assert time.monotonic() - start < 5
    assert decoders.decode(jpeg()).width == 48
    assert pid_of(decoders) != first


@pytest.mark.parametrize("seconds", [0.3, 0.5, 0.7])
def test_the_deadline_holds_for_the_first_picture_of_a_process(decoders: DecodePool, seconds: float) -> None:
    for _ in range(2):  # the second finds a process that has to be started, and a watcher that waits already
        start = time.monotonic()
        with pytest.raises(ImageError, match=f"it took longer than {seconds} s to decode"):
            decoders.decode(SLOW, limits=DecodeLimits(seconds=seconds))
        assert time.monotonic() - start < seconds + 5


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the address space")
def test_what_takes_too_much_memory_is_refused_and_named(decoders: DecodePool) -> None:
    content = saved(Image.new("L", (8_000, 5_000)), "PNG")
    with pytest.raises(ImageError, match="it needs more memory than 40 MB to decode"):
        decoders.decode(content, limits=DecodeLimits(40_000_000, 40_000_000))
    assert decoders.decode(content, at_least=500, limits=DecodeLimits(40_000_000, 40_000_000)).width == 8_000


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_process_that_dies_is_replaced_and_the_picture_named(decoders: DecodePool) -> None:
    decoders.decode(jpeg())
    timer = threading.Timer(0.2, lambda: os.kill(pid_of(decoders), signal.SIGSEGV))
    timer.start()
    with pytest.raises(ImageError, match=r"the decoder broke down on it \(exit status -11\)"):
        decoders.decode(SLOW)
    assert decoders.decode(jpeg()).width == 48


def test_an_interruption_ends_what_runs_and_what_waits(decoders: DecodePool) -> None:
    decoders.decode(jpeg())
    reasons: list[str] = []

    def decode() -> None:
        try:
            decoders.decode(SLOW)
        except DecodingStoppedError as error:
            reasons.append(str(error))

    threads = [threading.Thread(target=decode) for _ in range(3)]
    for one in threads:
        one.start()
    time.sleep(0.2)
    decoders.interrupt()
    for one in threads:
        one.join(5)
    assert reasons == ["decoding was stopped"] * 3
    assert decoders.decode(jpeg()).width == 48


def test_a_deadline_that_passes_at_the_end_hits_no_other_picture(decoders: DecodePool) -> None:
    content = jpeg()
    for _ in range(300):
        decoders.decode(content)
        (one,) = decoders._idle
        one.kill(ImageError("late"), one.job - 1)
        decoders.interrupt()
    assert decoders.decode(content).width == 48


def test_pictures_wait_for_memory_that_others_hold() -> None:
    big = saved(Image.new("RGB", (2_000, 1_000)), "PNG")
    decoders = DecodePool(2, memory=10_000_000)
    held = decoders._held
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(decoders.decode(big, at_least=500).width))
        for _ in range(4)
    ]
    for one in threads:
        one.start()
    while any(one.is_alive() for one in threads):
        held = max(held, decoders._held)
    decoders.close()
    assert results == [2_000] * 4
    assert 5_000_000 < held <= 10_000_000, "of one picture at a time"
    assert decoders._held == 0


def test_who_waits_too_long_for_memory_is_told_so_and_the_process_stays() -> None:
    decoders = DecodePool(1, memory=10_000_000, patience=0.2)
    content = jpeg()
    assert decoders.decode(content).width == 48
    (one,) = decoders._idle
    decoders._held = 10_000_000
    with pytest.raises(DecodersBusyError):
        decoders.decode(content)
    decoders._held = 0
    assert decoders.decode(content).width == 48
    assert decoders._idle == [one]
    decoders.close()


def test_files_of_strangers_are_taken_apart_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(data: bytes) -> None:
        raise AssertionError("in the server's own process")

    monkeypatch.setattr(containers, "read_jpeg", never)
    decoders = DecodePool(1, memory=10_000_000)
    assert decoders.decode(jpeg()).width == 48
    with pytest.raises(ImageError, match="more than the limit of 100"):
        decoders.decode(jpeg(), limits=DecodeLimits(100))
    decoders.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_uses_processes_of_its_own(decoders: DecodePool) -> None:
    decoders.decode(jpeg())
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if decoders.decode(jpeg()).width == 48 else 2
            decoders.close()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert decoders.decode(jpeg()).width == 48


# ---- indexing ----


def test_a_bomb_is_named_and_remembered_while_the_rest_is_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "bomb.jpg").write_bytes(SLOW)
    for number in range(5):
        (folder / f"{number}.png").write_bytes(saved(Image.new("RGB", (20, 20), (number, 0, 0)), "PNG"))
    monkeypatch.setattr(DecodeLimits, "__init__", _with_seconds(0.3))
    encoder = FakeEncoder()
    with Gallery.create(tmp_path / "g", encoder.fingerprint, encoder.width) as gallery:
        report = index_pictures(folder, gallery, encoder)
        assert (report.encoded, report.failed) == (
            5,
            [(folder / "bomb.jpg", "it took longer than 0.3 s to decode")],
        )
        start = time.monotonic()
        again = index_pictures(folder, gallery, encoder)
        assert (again.unchanged, again.failed) == (5, report.failed)
        assert time.monotonic() - start < 5


def _with_seconds(seconds: float) -> object:
    made = DecodeLimits.__init__

    def init(self: DecodeLimits, *args: object, **how: object) -> None:
        made(self, *args, **{**how, "seconds": seconds})  # type: ignore[arg-type]

    return init


INDEX = """
import signal, sys
from pathlib import Path
from fakes import FakeEncoder
from image2sentence.gallery import Gallery
from image2sentence.indexing import index_pictures
encoder = FakeEncoder()
with Gallery.create(sys.argv[2], encoder.fingerprint, encoder.width) as gallery:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
    print("ready", flush=True)
    index_pictures(sys.argv[1], gallery, encoder)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_indexing_while_a_bomb_is_decoded(kind: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for number in range(3):
        (tmp_path / "p" / f"{number}.jpg").write_bytes(slow_jpeg(90 + number, 9_000))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", INDEX, str(tmp_path / "p"), str(tmp_path / "g")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(kind)
        assert process.wait(60) != 0  # 0 is what a run ends with that nothing stopped


def test_the_number_of_pictures_without_a_date_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "dated.jpg").write_bytes(jpeg(exif=odd_pictures.exif(original="2026:11:21 09:30")))
    (folder / "IMG-20260101-WA0001.jpg").write_bytes(jpeg(quarters().rotate(90, expand=True)))
    (folder / "plain.jpg").write_bytes(jpeg(quarters().rotate(180)))
    (folder / "film.mov").write_bytes(b"film")
    encoder = FakeEncoder()
    with Gallery.create(tmp_path / "g", encoder.fingerprint, encoder.width) as gallery:
        report = index_pictures(folder, gallery, encoder)
        assert (report.encoded, report.undated, report.passed_over) == (3, 1, {".mov": 1})
        ids = gallery.vectors()[0].tolist()
        names = [picture.path.name for picture in gallery.pictures_of(ids) if picture]  # type: ignore[union-attr]
        dates = dict(zip(names, (values.get("taken") for values in gallery.metadata(ids)), strict=True))
    assert dates["dated.jpg"] == "2026-11-21T09:30:00"
    assert dates["IMG-20260101-WA0001.jpg"] == "2026-01-01T00:00:00"
    assert dates["plain.jpg"] is None


def test_max_pixels_lets_larger_pictures_in(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "scan.png").write_bytes(saved(Image.new("L", (12_500, 10_000), 90), "PNG"))
    encoder = FakeEncoder()
    with Gallery.create(tmp_path / "g", encoder.fingerprint, encoder.width) as gallery:
        (refused,) = index_pictures(folder, gallery, encoder).failed
        assert "125,000,000 pixels, more than the limit of 120,000,000" in refused[1]
        report = index_pictures(folder, gallery, encoder, max_pixels=130_000_000, retry_failed=True)
        assert (report.encoded, report.failed) == (1, [])
