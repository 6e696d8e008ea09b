"""What was found out about a file is taken again only while the file is the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from image2sentence.encoders import known_files
from image2sentence.encoders.known_files import known
from image2sentence.encoders.model_folder import file_checksum

LONG_AGO = 1_000_000_000


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as a large one, and was not changed for a while."""
    monkeypatch.setenv("IMAGE2SENTENCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(known_files, "LARGE", 10)
    monkeypatch.setattr(known_files, "_SETTLED_SECONDS", -1.0)
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"0123456789")
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


class Reads:
    """Checksums, counted."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, path: Path) -> str:
        self.count += 1
        return file_checksum(path)


def test_a_file_that_is_as_it_was_is_not_read_again(file: Path) -> None:
    reads = Reads()
    assert {known(file, "sha256", reads) for _ in range(3)} == {file_checksum(file)}
    assert reads.count == 1
    assert known(file, "another", lambda _: "other") == "other"


@pytest.mark.parametrize("how", ["content", "size", "place", "time"])
def test_a_changed_file_is_read_again(file: Path, how: str) -> None:
    known(file, "sha256", file_checksum)
    if how == "content":  # with the old time, as a copy that keeps times has it
        file.write_bytes(b"9876543210")
        os.utime(file, (LONG_AGO, LONG_AGO))
    elif how == "size":
        file.write_bytes(b"01234567890")
    elif how == "place":
        other = file.with_name("other")
        other.write_bytes(b"9876543210")
        os.utime(other, (LONG_AGO, LONG_AGO))
        other.replace(file)
    else:
        file.touch()
    reads = Reads()
    assert known(file, "sha256", reads) == file_checksum(file)
    assert reads.count == 1


def test_small_files_are_always_read(file: Path) -> None:
    file.write_bytes(b"small")
    reads = Reads()
    for _ in range(2):
        known(file, "sha256", reads)
    assert reads.count == 2


def test_what_changed_a_moment_ago_may_change_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_files, "_SETTLED_SECONDS", 60.0)
    reads = Reads()
    for _ in range(2):
        known(file, "sha256", reads)
    assert reads.count == 2


@pytest.mark.parametrize("record", ["", "[]", '{"seen": 1}', "{"])
def test_a_damaged_record_is_made_anew(file: Path, record: str, tmp_path: Path) -> None:
    known(file, "sha256", file_checksum)
    (kept,) = (tmp_path / "cache" / "checked").iterdir()
    kept.write_text(record)
    assert known(file, "sha256", file_checksum) == file_checksum(file)


def test_where_nothing_can_be_kept_the_file_is_read(file: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    reads = Reads()
    for _ in range(2):
        known(file, "sha256", reads)
    assert reads.count == 2
