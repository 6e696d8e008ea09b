"""Documentation: blocks run, commands and settings are described, links lead somewhere, limits hold."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import image2sentence
from image2sentence.catalogue import write_catalogue
from image2sentence.cli.main import cli
from image2sentence.cli.options import GALLERY_VARIABLE
from image2sentence.encoders import load_encoder
from image2sentence.encoders.config import GuideConfig, LearnerConfig, ModelConfig, Preprocessing
from image2sentence.encoders.onnx_encoder import MODEL_VARIABLE
from image2sentence.images import load_image
from tests.conftest import REPOSITORY

PAGES = sorted(REPOSITORY.glob("docs/*.md"))
DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *PAGES]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
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


def headings(document: Path) -> set[str]:
    """The anchors of a page's headings, as Python-Markdown and code hosts make them."""
    text = BLOCK.sub("", document.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def links(document: Path) -> list[tuple[Path, str]]:
    """File and anchor of every relative link."""
    found = LINK.findall(document.read_text(encoding="utf-8"))
    parts = [link.partition("#") for link in found if "://" not in link]
    return [((document.parent / path).resolve() if path else document, anchor) for path, _, anchor in parts]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(document: Path) -> None:
    lost = [f"{path}#{anchor}" for path, anchor in links(document) if not path.exists()]
    lost += [
        f"{path}#{anchor}"
        for path, anchor in links(document)
        if anchor and path.suffix == ".md" and path.exists() and anchor not in headings(path)
    ]
    assert lost == []


@pytest.mark.parametrize("document", PAGES, ids=lambda path: path.name)
def test_pages_link_to_nothing_outside_of_the_site(document: Path) -> None:
    assert [path for path, _ in links(document) if REPOSITORY / "docs" not in path.parents] == []


def test_every_image_of_the_pages_is_shown() -> None:
    shown = {path for document in DOCUMENTS for path, _ in links(document)}
    assert [path for path in (REPOSITORY / "docs" / "images").iterdir() if path not in shown] == []


def test_pages_have_limits() -> None:
    def lines(*documents: Path) -> int:
        return sum(len(document.read_text(encoding="utf-8").splitlines()) for document in documents)

    assert lines(*PAGES) <= 2_300
    assert lines(REPOSITORY / "docs" / "model-card.md") <= 100
    assert lines(REPOSITORY / "CHANGELOG.md") <= 60


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """The rows of the tables below a heading of docs/, by the name in the first column, code marks removed."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    part = text.partition(f"\n{heading}\n")[2]
    part = re.split(rf"\n#{{1,{heading.count('#')}}} ", part)[0]
    cells = [re.split(r" \| ", line.strip("| ")) for line in part.splitlines() if line.startswith("| `")]
    return {row[0].replace("`", ""): [cell.strip("`") for cell in row[1:]] for row in cells}


def written(value: object) -> str:
    """A default as `--set` takes it: text bare, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def defaults(settings: object) -> dict[str, str]:
    """Name and written default of every field of a dataclass."""
    assert dataclasses.is_dataclass(settings)
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return {name: written(value) for name, value in values.items() if not dataclasses.is_dataclass(value)}


def test_every_training_setting_is_described_with_its_default() -> None:
    settings = pytest.importorskip("image2sentence.training.settings")
    text = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    train, learner, targets = re.split(r"\n\| `(?:learner|targets\[\])\.` .*\n", text)[:3]
    for part, expected in (
        (train, {"learner": "see below"} | defaults(settings.TrainSettings())),
        (learner, defaults(LearnerConfig())),
        (targets.partition("\n## ")[0], defaults(settings.Target())),
    ):
        described = dict(re.findall(r"^\| `([\w]+)` \| `?(.*?)`? \|", part, re.MULTILINE))
        assert described == expected


def test_settings_of_models_are_described_with_their_defaults() -> None:
    guide = rows("settings.md", "### Guiding phrases")
    assert {name: row[0] for name, row in guide.items() if name != "guide."} == defaults(GuideConfig())
    preprocessing = rows("settings.md", "### Preprocessing")
    described = {name: row[0] for name, row in preprocessing.items() if "preprocessing" not in name}
    assert described == defaults(Preprocessing(64)) | {"size": "none"}
    keys = {key for name in rows("formats.md", "### config.json") for key in name.split(", ")}
    assert keys == {field.name for field in dataclasses.fields(ModelConfig)}


def test_server_options_are_described_with_their_defaults() -> None:
    options = [param for param in cli.commands["serve"].params if isinstance(param, click.Option)]
    described = rows("settings.md", "## Server")
    expected = {max(p.opts, key=len): p for p in options if p.name not in ("gallery", "model")}
    assert set(described) == set(expected)
    for name, option in expected.items():
        if isinstance(option.default, bool):  # None for a flag in later releases of click
            assert described[name][0] == ("on" if option.default else "off"), name
        elif isinstance(option.default, (int, str)):
            assert described[name][0] == str(option.default), name


def test_every_environment_variable_is_described() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "src").rglob("*.py"))
    variables = set(re.findall(r'"(IMAGE2SENTENCE_[A-Z_]+)"', code))
    assert variables
    assert variables <= set(rows("settings.md", "## Environment variables"))


def test_public_names_are_on_the_page_of_the_python_interface() -> None:
    text = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^::: image2sentence\.(\w+)$", text, re.MULTILINE))
    errors = {
        name for name in image2sentence.__all__ if name.endswith("Error")
    }  # described with their module
    assert set(image2sentence.__all__) - errors == described - {"errors"}


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra [docs]")
    pytest.importorskip("mkdocstrings", reason="needs the extra [docs]")
    pytest.importorskip("material", reason="needs the extra [docs]")
    build = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--quiet",
        "--strict",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "site" / "search.html").exists()


def test_the_readme_of_a_package_index_has_no_relative_links() -> None:
    pytest.importorskip("hatchling", reason="builds the package")
    for_package_index = runpy.run_path(str(REPOSITORY / "hatch_build.py"))["for_package_index"]
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    bare = for_package_index(text, None)
    assert [link for link in LINK.findall(bare) if "://" not in link] == []
    assert "![" not in bare
    assert "`docs/search.md`" in bare
    hosted = for_package_index(text, "https://example.org/owner/name/")
    assert [link for link in LINK.findall(hosted) if "://" not in link] == []
    assert "](https://example.org/owner/name/blob/main/docs/search.md)" in hosted
    assert "](https://example.org/owner/name/raw/main/docs/images/page-desktop.jpg)" in hosted
