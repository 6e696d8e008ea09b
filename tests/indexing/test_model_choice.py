"""The choice of a model for a new gallery, and of the one that a gallery was made with."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from image2sentence.catalogue import write_catalogue
from image2sentence.cli.main import cli
from image2sentence.encoders import load_encoder
from image2sentence.encoders.model_folder import ModelFolder, bundled
from image2sentence.encoders.scope import MIN_PICTURES
from image2sentence.gallery.opening import open_gallery
from image2sentence.hub.find import find_for_space
from image2sentence.hub.table import BUNDLED, EVERYDAY, STARTER
from image2sentence.indexing.model_choice import LOOKED_AT, choose_bundled

EVERYDAY_PHOTOGRAPHS = Path(__file__).parents[2].parent / "shared" / "data" / "everyday" / "images"


def name(folder: ModelFolder) -> str:
    return next(name for name, own in BUNDLED.items() if folder.path == bundled(own))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalogue(tmp_path_factory.mktemp("drawn"), 60, 3, 96) / "images"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not EVERYDAY_PHOTOGRAPHS.is_dir():
        pytest.skip("needs ../shared/data/everyday")
    folder = tmp_path_factory.mktemp("photographs")
    for path in random.Random(5).sample(sorted(EVERYDAY_PHOTOGRAPHS.iterdir()), 50):
        (folder / path.name).symlink_to(path)
    return folder


def test_drawn_products_get_the_starter_model(drawn: Path) -> None:
    assert name(choose_bundled([drawn])) == STARTER


def test_photographs_of_everyday_things_get_the_model_that_knows_them(photographs: Path) -> None:
    assert name(choose_bundled([photographs])) == EVERYDAY


def test_all_places_count_by_their_number_of_pictures(drawn: Path, photographs: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(drawn.iterdir())[:8]:
        (few / path.name).symlink_to(path)
    assert name(choose_bundled([few, photographs])) == EVERYDAY


def test_few_pictures_damaged_ones_and_places_that_are_away_get_the_starter_model(
    photographs: Path, tmp_path: Path
) -> None:
    for number, path in enumerate(sorted(photographs.iterdir())):
        target = tmp_path / path.name
        target.write_bytes(path.read_bytes() if number < MIN_PICTURES - 1 else b"no picture")
    assert name(choose_bundled([tmp_path, tmp_path / "away", "http://127.0.0.1:9/none"])) == STARTER


def test_damaged_files_do_not_keep_the_others_from_being_looked_at(photographs: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(photographs.iterdir())):
        (tmp_path / f"{number:03d}.jpg").write_bytes(b"no picture" if number % 2 else path.read_bytes())
    assert MIN_PICTURES <= 25 < LOOKED_AT
    assert name(choose_bundled([tmp_path])) == EVERYDAY


@pytest.mark.parametrize("model", BUNDLED)
def test_a_gallery_is_asked_with_the_model_that_made_it(
    drawn: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = str(tmp_path / "gallery")
    run = CliRunner(catch_exceptions=False)
    assert run.invoke(cli, ["index", str(drawn), "--gallery", gallery, "--model", model]).exit_code == 0
    found = run.invoke(cli, ["search", "a red shirt", "--gallery", gallery, "--json"])
    assert found.exit_code == 0, found.output
    again = run.invoke(cli, ["index", str(drawn), "--gallery", gallery])
    assert again.exit_code == 0, again.output
    with open_gallery(gallery) as opened:
        space = opened.fingerprint
    assert space == load_encoder(model).fingerprint
    assert load_encoder(space=space).folder.path == bundled(BUNDLED[model])
    other = next(one for one in BUNDLED if one != model)
    refused = CliRunner().invoke(cli, ["search", "a red shirt", "--gallery", gallery, "--model", other])
    assert refused.exit_code != 0


def test_no_model_is_found_for_an_unknown_space() -> None:
    assert find_for_space("0" * 64) is None


def test_pictures_of_nothing_do_not_stop_the_choice(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(MIN_PICTURES):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / f"{number}.png")
    assert name(choose_bundled([tmp_path])) in BUNDLED
