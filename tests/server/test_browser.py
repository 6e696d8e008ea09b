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
import zipfile
from pathlib import Path

import PIL
import pytest

from fakes import FakeEncoder
from image2sentence import __version__
from image2sentence.gallery import Gallery
from tests.conftest import REPOSITORY

JS = REPOSITORY / "js"
ORIGINAL = JS / "src"
SCRIPTS = 20
OLDEST_NODE = 20


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


def scripts() -> dict[str, bytes]:
    """The module's scripts by name."""
    found = {path.name: path.read_bytes() for path in ORIGINAL.glob("*.js")}
    assert len(found) == SCRIPTS
    return found


def test_the_server_of_a_clone_serves_the_module(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="the server needs the [server] extra")
    from fastapi.testclient import TestClient

    from image2sentence.server.app import create_app
    from image2sentence.server.service import SearchService

    encoder = FakeEncoder()
    with Gallery.create(tmp_path / "gallery", encoder.fingerprint, encoder.width) as gallery:
        client = TestClient(create_app(SearchService(encoder, gallery)))
        served = {name: client.get(f"/static/device/{name}") for name in scripts()}
    assert {name: answer.content for name, answer in served.items()} == scripts()
    assert {answer.headers["content-type"].partition(";")[0] for answer in served.values()} == {
        "text/javascript"
    }


def test_the_wheel_has_the_module_once(tmp_path: Path) -> None:
    builders = pytest.importorskip("hatchling.builders.wheel", reason="builds the package")
    (wheel,) = builders.WheelBuilder(str(REPOSITORY)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as built:
        packed = {name: built.read(name) for name in built.namelist() if "/device/" in name}
    assert packed == {f"image2sentence/server/static/device/{name}": one for name, one in scripts().items()}


def test_the_package_has_the_same_version() -> None:
    assert json.loads((JS / "package.json").read_text(encoding="utf-8"))["version"] == __version__


def test_words_are_pythons(expected: Path) -> None:
    run_tests(["words.test.js", "guide.test.js"], expected)


def test_the_pages_addresses_carry_its_steps(tmp_path: Path) -> None:
    run_tests(["steps.test.js"], tmp_path)


def test_pixels_are_pythons(expected: Path) -> None:
    if int(PIL.__version__.partition(".")[0]) < 13:
        pytest.skip(
            f"Pillow {PIL.__version__} resizes tall pictures in another order than Pillow 13, whose it is"
        )
    run_tests(["pictures.test.js"], expected)


def require_chromium() -> None:
    """Skip the test where there is no browser to run it in."""
    if not (JS / "node_modules" / "playwright-core").is_dir() or not shutil.which("chromium"):
        pytest.skip("chromium, or what `npm ci` installs in js/, is missing: see `make test-js`")


def test_vectors_in_a_browser_are_pythons(expected: Path) -> None:
    require_chromium()
    run_tests(["browser.test.js"], expected)


def test_the_page_sends_large_photographs_smaller(tmp_path: Path) -> None:
    require_chromium()
    run_tests(["shrink.test.js"], tmp_path)
