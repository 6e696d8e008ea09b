"""The browser's module against the Python runtime: js/test, run by node, with what Python makes of the same input.

What needs no browser (tokenizer, resizing, settings) runs wherever there is node. The rest needs Chromium and the
packages of js/package.json, which `make test-js` installs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from image2sentence import __version__
from tests.conftest import REPOSITORY

JS = REPOSITORY / "js"
ORIGINAL = JS / "src"
COPY = REPOSITORY / "src" / "image2sentence" / "server" / "static" / "device"
OLDEST_NODE = 20


def scripts(folder: Path) -> dict[str, str]:
    """The folder's modules by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.js")}


def node() -> str:
    """The node to run with; the test is skipped where there is none."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed: the browser's module is not tested")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        pytest.skip(f"node {version} is older than {OLDEST_NODE}: the browser's module is not tested")
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what Python makes of pictures and words."""
    node()
    folder = tmp_path_factory.mktemp("expected")
    subprocess.run([sys.executable, str(JS / "test" / "expected.py"), str(folder)], check=True)
    return folder


def run_tests(names: list[str], expected: Path) -> None:
    """Run test files with node; its report is the failure's message."""
    files = [str(JS / "test" / name) for name in names]
    environment = os.environ | {"EXPECTED": str(expected)}
    ran = subprocess.run([node(), "--test", *files], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    assert "\n# fail 0\n" in ran.stdout
    assert "\n# pass 0\n" not in ran.stdout


def test_the_server_has_a_true_copy() -> None:
    assert scripts(COPY) == scripts(ORIGINAL), "run `make js-copy`"


def test_the_package_has_the_same_version() -> None:
    assert json.loads((JS / "package.json").read_text(encoding="utf-8"))["version"] == __version__


def test_words_and_pixels_are_pythons(expected: Path) -> None:
    run_tests(["words.test.js", "pictures.test.js", "guide.test.js"], expected)


def test_vectors_in_a_browser_are_pythons(expected: Path) -> None:
    if not (JS / "node_modules" / "playwright-core").is_dir() or not shutil.which("chromium"):
        pytest.skip("chromium, or what `npm ci` installs in js/, is missing: see `make test-js`")
    run_tests(["browser.test.js"], expected)
