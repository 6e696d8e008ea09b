"""What the package weighs: its data and its wheel, and what indexing and asking need of each model."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

import image2sentence
from image2sentence.encoders.model_folder import (
    CARD,
    CONFIG,
    GALLERY_IMAGE,
    TEXT_WEIGHTS,
    WEIGHTS,
    ModelFolder,
    bundled,
)
from image2sentence.hub.table import BUNDLED

MB = 1_000_000
PACKAGE = 30 * MB
INDEX_AND_SEARCH = 14 * MB
QUERY_SIDE = 6 * MB
REPOSITORY = Path(__file__).parents[1]


def searching(folder: ModelFolder) -> int:
    """Bytes that index and search read: everything but what training and people do."""
    names = {CONFIG, *folder.config.files} - {WEIGHTS, TEXT_WEIGHTS, CARD}
    return sum((folder.path / name).stat().st_size for name in names)


def test_the_packages_data_are_small() -> None:
    root = Path(image2sentence.__file__).parent
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    total = sum(path.stat().st_size for path in files)
    assert total <= PACKAGE, f"{total / MB:.1f} MB"


@pytest.mark.parametrize("name", sorted(BUNDLED.values()))
def test_what_index_and_search_need_is_small(name: str) -> None:
    folder = ModelFolder.open(bundled(name))
    total = searching(folder)
    assert total <= INDEX_AND_SEARCH, f"{total / MB:.1f} MB"
    asking = total - (folder.path / GALLERY_IMAGE).stat().st_size
    assert asking <= QUERY_SIDE, f"{asking / MB:.1f} MB"


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    builders = pytest.importorskip("hatchling.builders.wheel", reason="builds the package")
    path = next(builders.WheelBuilder(str(REPOSITORY)).build(directory=str(tmp_path), versions=["standard"]))
    assert Path(path).stat().st_size <= PACKAGE
    with zipfile.ZipFile(path) as wheel:
        parts = [entry.filename.split("/") for entry in wheel.infolist()]
    assert {part[0] for part in parts if not part[0].endswith(".dist-info")} == {"image2sentence"}
    unwanted = {"tests", "recipes", "benchmarks", "docs", "node_modules", "__pycache__", ".DS_Store"}
    assert not [part for part in parts if unwanted & set(part) or part[-1].endswith((".pyc", ".draft"))]
