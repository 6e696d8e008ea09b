"""The browser's module: the copy that the server's page uses. What the module does is tested in js/test."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import REPOSITORY

ORIGINAL = REPOSITORY / "js" / "src"
COPY = REPOSITORY / "src" / "image2sentence" / "server" / "static" / "device"


def scripts(folder: Path) -> dict[str, str]:
    """The folder's modules by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.js")}


def test_the_package_has_a_true_copy() -> None:
    assert scripts(COPY) == scripts(ORIGINAL), "run `make js-copy`"
