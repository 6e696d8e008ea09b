"""Pictures of things that do not exist, which the query side imitates the VL model on."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the recipes need the [train] extra")

from recipes.bundled.material import write_variants
from recipes.bundled.variants import joined, recoloured, turned_hue


def picture(colour: str, side: int = 96) -> Image.Image:
    """A square of `colour` in the middle of white."""
    image = Image.new("RGB", (side, side), "white")
    image.paste(colour, (side // 4, side // 4, 3 * side // 4, 3 * side // 4))
    return image


def middle(image: Image.Image) -> tuple[int, ...]:
    found = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(found, tuple)
    return found


def test_a_third_of_a_turn_makes_red_green_and_leaves_greys() -> None:
    turned = turned_hue(picture("red"), 2 * math.pi / 3)
    assert middle(turned) == (0, 255, 0)
    assert turned.getpixel((0, 0)) == (255, 255, 255)
    assert middle(turned_hue(picture("grey"), 1.0)) == (128, 128, 128)


def test_a_whole_turn_changes_nothing() -> None:
    image = picture("orange")
    assert np.array_equal(np.asarray(turned_hue(image, 2 * math.pi)), np.asarray(image))


def test_recoloured_pictures_are_never_nearly_the_same() -> None:
    for seed in range(20):
        changed = np.array(middle(recoloured(picture("red"), random.Random(seed))), float)
        assert np.linalg.norm(changed - [255, 0, 0]) > 30


def test_both_pictures_are_in_a_joined_one() -> None:
    plain = [seed for seed in range(40) if _colours(seed) >= {(255, 0, 0), (0, 0, 255)}]
    assert 20 <= len(plain) < 40  # the others' hues are turned
    assert joined(picture("red"), picture("blue", 40), random.Random(0)).size == (96, 96)


def _colours(seed: int) -> set[tuple[int, ...]]:
    pixels = np.asarray(joined(picture("red"), picture("blue"), random.Random(seed))).reshape(-1, 3)
    return {(int(r), int(g), int(b)) for r, g, b in np.unique(pixels, axis=0)}


def test_variants_are_the_same_every_time_and_made_once(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        for part in ("photos", "emoji"):
            (tmp_path / name / part).mkdir(parents=True)
            for index, colour in enumerate(("red", "blue", "orange")):
                picture(colour).save(tmp_path / name / part / f"{index}.png")
        write_variants(tmp_path / name)
        files = sorted((tmp_path / name).glob("*-varied/*"))
        made.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert made[0] == made[1]
    assert len(made[0]) == 3 + 6
    stamps = [path.stat().st_mtime_ns for path in files]
    write_variants(tmp_path / "two")
    assert [path.stat().st_mtime_ns for path in files] == stamps


def test_a_variant_that_is_missing_comes_out_the_same(tmp_path: Path) -> None:
    for part in ("photos", "emoji"):
        (tmp_path / part).mkdir()
        for index, colour in enumerate(("red", "blue", "orange")):
            picture(colour).save(tmp_path / part / f"{index}.png")
    write_variants(tmp_path)
    lost = {path: path.read_bytes() for path in (tmp_path / "emoji-varied").glob("*-pair.png")}
    assert len(lost) == 3
    for path in lost:
        path.unlink()
    write_variants(tmp_path)
    assert {path: path.read_bytes() for path in lost} == lost
