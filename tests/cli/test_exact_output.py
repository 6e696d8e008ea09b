"""What programs get: exact names in JSON, and output in any encoding."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from fakes import FakeEncoder
from image2sentence import encoders
from image2sentence.cli.main import cli
from image2sentence.cli.options import GALLERY_VARIABLE
from image2sentence.cli.output import json_ready

Run = Callable[..., Result]

NAMES = (
    "Screenshot at 9.41\u202fAM.png",
    "a\u00a0b.png",
    "\u3000wide.png",
    "family \U0001f468\u200d\U0001f469\u200d\U0001f467.png",
    "tab\there.png",
    "line\nbreak.png",
    "\u00e9 composed, e\u0301 decomposed.png",
    "back\\slash \\u202f.png",
    "right\u202eto left.png",
)
NOT_TEXT = os.fsdecode(b"caf\xe9 \xff.png")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with the fake encoder, in a folder of pictures with odd names, and copies of each."""
    monkeypatch.setattr(encoders, "load_encoder", lambda *_, **options: FakeEncoder())
    monkeypatch.delenv(GALLERY_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for number, name in enumerate((*NAMES, NOT_TEXT)):
        Image.new("RGB", (8, 8), (number * 20, 40, 90)).save(tmp_path / "in" / "plain.png")
        (tmp_path / "in" / "plain.png").rename(tmp_path / "in" / name)
    Image.new("RGB", (8, 8), (20 * len(NAMES), 40, 90)).save(tmp_path / "in" / "copy.png")

    def command(*arguments: str) -> Result:
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
        return result

    return command


def _files(shown: list[dict[str, str]]) -> list[Path]:
    """The files that a list in JSON names."""
    return [
        Path(os.fsdecode(base64.b64decode(one["path_bytes"]))) if "path_bytes" in one else Path(one["path"])
        for one in shown
    ]


def test_every_path_in_json_of_a_search_is_there(run: Run, tmp_path: Path) -> None:
    run("index", "in")
    shown = json.loads(run("search", "words", "-k", "20", "--json").stdout)["results"]
    assert {file.name for file in _files(shown)} == {*NAMES, NOT_TEXT, "copy.png"}
    assert all(file.is_file() for file in _files(shown))
    odd = [one for one in shown if "path_bytes" in one]
    assert [one["path"].rpartition("/")[2] for one in odd] == [r"caf\xe9 \xff.png"]


def test_duplicates_name_their_files_exactly(run: Run) -> None:
    run("index", "in")
    (group,) = json.loads(run("gallery", "duplicates", "--json").stdout)
    assert {file.name for file in _files(group["pictures"])} == {NOT_TEXT, "copy.png"}


def test_failures_of_an_index_run_name_their_files_exactly(run: Run, tmp_path: Path) -> None:
    for name in (NAMES[0], NOT_TEXT):
        (tmp_path / "in" / f"bad {name}").write_bytes(b"no picture")
    about = json.loads(run("index", "in", "--json").stdout)
    exact = [
        path if odd is None else os.fsdecode(base64.b64decode(odd))
        for (path, _), odd in zip(about["failed"], about["failed_bytes"], strict=True)
    ]
    assert {Path(path).name for path in exact} == {f"bad {NAMES[0]}", f"bad {NOT_TEXT}"}
    assert about["gallery"] == str(tmp_path / ".image2sentence")


def test_the_terminal_gets_escapes(run: Run) -> None:
    run("index", "in")
    shown = run("search", "words", "-k", "20").stdout
    assert len(shown.splitlines()) == len(NAMES) + 2
    assert r"9.41\u202fAM" in shown
    assert "\u202e" not in shown


def test_a_gallery_in_a_folder_with_an_odd_name_is_named_exactly(run: Run, tmp_path: Path) -> None:
    run("index", "in", "--gallery", NAMES[0])
    assert json.loads(run("gallery", "verify", "--gallery", NAMES[0], "--json").stdout)["gallery"] == str(
        tmp_path / NAMES[0]
    )


@pytest.mark.parametrize("command", [("search", "words", "-k", "20"), ("gallery", "list")])
def test_paths_for_other_programs(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    run("index", "in")
    files = {os.fsencode(tmp_path / "in" / name) for name in (*NAMES, NOT_TEXT, "copy.png")}
    exact = run(*command, "-0").stdout_bytes
    assert exact.endswith(b"\0")
    assert set(exact[:-1].split(b"\0")) == files
    lines = run(*command, "--paths-only")
    assert lines.stdout_bytes == exact.replace(b"\0", b"\n")
    assert "-0" in lines.stderr
    assert CliRunner().invoke(cli, [*command, "-0", "--json"]).exit_code == 2


def test_one_folder_is_searched_and_listed_alone(run: Run, tmp_path: Path) -> None:
    for folder in ("below", "below/deeper", "below it"):
        (tmp_path / "in" / folder).mkdir()
        Image.new("RGB", (9, 7), "red").save(tmp_path / "in" / folder / "red.png")
    run("index", "in")
    where = ("--where", "folder = 'below' or folder like 'below/%'")
    shown = json.loads(run("search", "words", *where, "--json").stdout)["results"]
    assert {Path(one["path"]).parent.name for one in shown} == {"below", "deeper"}
    listed = json.loads(run("gallery", "list", *where, "--json").stdout)
    assert [(one["folder"], one["name"], one["width"], one["height"]) for one in listed] == [
        ("below", "red.png", 9, 7),
        ("below/deeper", "red.png", 9, 7),
    ]
    size = (tmp_path / "in" / "below" / "red.png").stat().st_size
    assert f"{size:,}" in run("gallery", "list", "--where", "folder = 'below'").stdout
    assert "fulfils --where" in run("gallery", "list", "--where", "folder = 'none'").stderr
    assert len(run("gallery", "list", "-k", "2", "--offset", "1").stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("value", "ready"),
    [
        ({"path": Path("a\udcff")}, {"path": r"a\xff", "path_bytes": "Yf8="}),
        ({"x": [Path("a"), Path("\udce9")]}, {"x": ["a", r"\xe9"], "x_bytes": [None, "6Q=="]}),
        ({"x": [("\udce9", "why")]}, {"x": [[r"\xe9", "why"]], "x_bytes": ["6Q=="]}),
        ({"x": {"y": 1, "z": None}}, {"x": {"y": 1, "z": None}}),
        ({".\udce9": 2}, {r".\xe9": 2}),
    ],
)
def test_json_ready(value: object, ready: object) -> None:
    assert json_ready(value) == ready


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "shift-jis", "utf-16", "utf-8"])
def test_output_in_any_encoding(encoding: str, tmp_path: Path) -> None:
    program = (
        "import click\nfrom image2sentence.cli.main import Commands\n"
        "@click.command(cls=Commands, invoke_without_command=True)\n"
        "def cli(): click.echo('caf\\u00e9 \\u202f \\u6f22 \\udcff \\U0001f468 plain')\n"
        "cli()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert "plain" in text
    assert r"\udcff" in text
    assert (r"\u202f" in text) == (encoding not in ("utf-8", "utf-16"))
