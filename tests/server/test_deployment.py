"""Dockerfile and compose files against the package that they install and the commands that they run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from image2sentence.cli.main import cli
from tests.conftest import REPOSITORY

OURS = ("index", "page")
COMPOSE = [REPOSITORY / "compose.yaml", REPOSITORY / "compose.milvus.yaml"]
EXTRA = re.compile(r"^(\w+) = \[", re.MULTILINE)


def services(file: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text())["services"]
    return found


def require_accepted(command: list[str]) -> None:
    """Raise click's error unless the command line understands these words; runs nothing."""
    name, *arguments = command
    with click.Context(cli) as parent:
        chosen = cli.get_command(parent, name)
        assert chosen is not None, name
        chosen.make_parser(parent).parse_args(arguments)


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_commands_of_the_containers_are_understood(file: Path) -> None:
    for name in OURS:
        require_accepted(services(file)[name]["command"])
    with pytest.raises(click.UsageError):
        require_accepted(["serve", "--hots", "0.0.0.0"])


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_containers_have_no_more_rights_than_they_need(file: Path) -> None:
    described = services(file)
    ports = [port for one in described.values() for port in one.get("ports", [])]
    assert ports == ["127.0.0.1:8000:8000"]
    for name in OURS:
        service = described[name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert all(
            mount.endswith(":ro") for mount in service["volumes"] if mount.split(":")[1].startswith("/photos")
        )


def test_the_dockerfile_installs_extras_that_exist_and_runs_without_root() -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    known = set(EXTRA.findall((REPOSITORY / "pyproject.toml").read_text()))
    asked = re.findall(r"^ARG EXTRAS=(\S+)", dockerfile, re.MULTILINE)
    asked.append(yaml.safe_load(COMPOSE[1].read_text())["x-confined"]["build"]["args"]["EXTRAS"])
    assert {name for names in asked for name in names.split(",")} <= known
    assert re.search(r"^USER [1-9]\d*$", dockerfile, re.MULTILINE)
    (command,) = re.findall(r'^CMD \["(.*)"\]', dockerfile, re.MULTILINE)
    require_accepted(command.split('", "'))
