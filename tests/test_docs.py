"""The documentation holds: blocks run, commands and options are described, links lead somewhere."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from conftest import REPOSITORY
from image2sentence.catalogue import write_catalogue
from image2sentence.cli.app import cli
from image2sentence.cli.common import GALLERY_VARIABLE
from image2sentence.encoders import load_encoder
from image2sentence.encoders.onnx import MODEL_VARIABLE
from image2sentence.images import load_image

DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
COMMANDS = ("image2sentence", "i2s")


def blocks(document: Path) -> list[tuple[str, str]]:
    """Language and content of every fenced block."""
    return BLOCK.findall(document.read_text(encoding="utf-8"))


def command_lines(document: Path) -> list[list[str]]:
    """The words of every line of a console block."""
    lines = [line for kind, text in blocks(document) if kind == "console" for line in text.splitlines()]
    assert all(line.startswith("$ ") for line in lines), f"{document.name}: a console line begins with '$ '"
    return [shlex.split(line[2:], comments=True) for line in lines]


def leaf_commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its full name."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from leaf_commands(inner, f"{path} {name}")


def section(command: str) -> str:
    """What docs/cli.md says about one command."""
    text = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    return text.partition(f"\n## `{command}`\n")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn catalogue."""
    return write_catalogue(tmp_path_factory.mktemp("drawn") / "catalogue", 24, 7, 128)


@pytest.fixture
def reader(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of someone who follows a document: pictures in `photos`, another one in `photo.jpg`."""
    shutil.copytree(drawn / "images", tmp_path / "photos")
    (tmp_path / "photos" / "00001.jpg").rename(tmp_path / "photo.jpg")
    for variable in (GALLERY_VARIABLE, MODEL_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _with(kind: str) -> list[Path]:
    return [document for document in DOCUMENTS if any(language == kind for language, _ in blocks(document))]


@pytest.mark.parametrize("document", _with("python"), ids=lambda path: path.name)
def test_python_blocks_run(document: Path, reader: Path) -> None:
    encoder = load_encoder()
    given = {"encoder": encoder, "sentences": encoder.encode_sentences([load_image("photo.jpg")])}
    for kind, text in blocks(document):
        if kind == "python":
            (reader / "block.py").write_text(text, encoding="utf-8")
            runpy.run_path("block.py", init_globals=given)


@pytest.mark.parametrize("document", _with("console"), ids=lambda path: path.name)
def test_console_blocks_run(document: Path, reader: Path) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for program, *arguments in command_lines(document):
        if program in COMMANDS:
            result = CliRunner().invoke(cli, arguments)
            assert result.exit_code == 0, f"{arguments}: {result.output}"
        else:
            assert program == "make", f"{program}: only these commands and make belong into console blocks"
            assert re.search(rf"^{arguments[0]}:", makefile, re.MULTILINE), arguments


@pytest.mark.parametrize(("name", "command"), list(leaf_commands(cli, "image2sentence")))
def test_every_command_and_option_is_described(name: str, command: click.Command) -> None:
    text = section(name)
    options = [param for param in command.params if isinstance(param, click.Option)]
    expected = {spelling for p in options for spelling in (max(p.opts, key=len), *p.secondary_opts)}
    assert text, f"docs/cli.md has no section for {name}"
    assert set(re.findall(r"(?<![\w-])(--?[a-z][\w-]*)", text)) == expected


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    links = LINK.findall(document.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []
