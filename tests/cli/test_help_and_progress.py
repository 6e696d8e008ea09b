"""Help in the order of use, and progress where standard error is no terminal."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from image2sentence.cli import options
from image2sentence.cli.main import cli
from image2sentence.cli.options import progress_bar, progress_line


@pytest.mark.parametrize("group", [[], ["gallery"], ["evaluate"], ["data"]])
def test_summaries_are_whole(group: list[str]) -> None:
    shown = CliRunner().invoke(cli, [*group, "--help"]).stdout
    commands = shown.partition("Commands:")[2]
    assert "..." not in commands.replace("s3://...", "")
    listed = re.findall(r"^  ([a-z-]+)  ", commands, re.MULTILINE)
    command = cli if not group else cli.commands[group[0]]
    assert listed == list(command.commands)  # type: ignore[attr-defined]


def test_commands_are_listed_in_the_order_of_use() -> None:
    assert list(cli.commands)[:3] == ["index", "search", "serve"]


def test_progress_is_told_now_and_then_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(options.time, "monotonic", lambda: now)
    with progress_bar("indexing") as progress:
        for done in range(1, 101):
            now += 1.0
            progress(done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"indexing: {done} of 100 pictures, 1.0/s, {100 - done} s left" for done in (30, 60, 90)]


def test_a_quick_run_tells_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("indexing") as progress:
        progress(1, 2)
        progress(2, 2)
    assert capsys.readouterr().err == ""


def test_progress_is_in_words() -> None:
    assert (
        progress_line("indexing", 1_200, 5_000, 30.0) == "indexing: 1,200 of 5,000 pictures, 40/s, 95 s left"
    )
    assert progress_line("indexing", 0, 0, 0.0) == "indexing: 0 of 0 pictures, 0.0/s"
