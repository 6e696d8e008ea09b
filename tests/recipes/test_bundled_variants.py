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
from recipes.bundled.variants import (
    alike,
    bent,
    framed,
    invented_drawings,
    joined,
    partly_recoloured,
    recoloured,
    spliced,
    turned_hue,
)


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


def test_all_drawings_of_an_invented_subject_are_changed_alike() -> None:
    drawings, others = [picture("red")] * 3, [picture("blue")] * 3
    made = [invented_drawings(drawings, others, random.Random(seed)) for seed in range(20)]
    for first, *rest in made:
        assert all(np.array_equal(np.asarray(first), np.asarray(image)) for image in rest)
        assert not np.array_equal(np.asarray(first), np.asarray(picture("red")))
    assert len({first.tobytes() for first, *_ in made}) == 20


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


def test_one_colour_of_a_picture_is_turned_and_the_others_stay() -> None:
    image = picture("red")
    image.paste("blue", (0, 0, 20, 20))
    changed = [partly_recoloured(image, random.Random(seed)) for seed in range(20)]
    turned = [(middle(new) != (255, 0, 0), new.getpixel((5, 5)) != (0, 0, 255)) for new in changed]
    assert set(turned) == {(True, False), (False, True)}
    assert all(new.getpixel((90, 90)) == (255, 255, 255) for new in changed)


def test_a_grey_picture_has_no_colour_to_turn() -> None:
    assert middle(partly_recoloured(picture("grey"), random.Random(0))) == (128, 128, 128)


def test_a_spliced_picture_has_a_half_of_each() -> None:
    for seed in range(20):
        one, two = Image.new("RGB", (96, 96), "red"), Image.new("RGB", (64, 64), "blue")
        pixels = np.asarray(spliced(one, two, random.Random(seed))).astype(int)
        share = (pixels[..., 0] > pixels[..., 2]).mean()
        assert 0.2 < share < 0.8


def test_a_bent_picture_is_whole_on_white() -> None:
    for seed in range(20):
        image = bent(picture("red"), random.Random(seed))
        assert image.size == (96, 96)
        assert middle(image) == (255, 0, 0)
        red = (np.asarray(image)[..., 1] < 128).mean()
        assert 0.25 * 0.5 < red < 0.25 * 1.6  # a quarter before
        assert image.getpixel((0, 0)) == (255, 255, 255)


def test_a_framed_picture_has_white_around_it() -> None:
    for seed in range(20):
        pixels = np.asarray(framed(Image.new("RGB", (60, 90), "black"), random.Random(seed)))
        assert pixels.shape == (90, 60, 3)
        assert 0.15 < (pixels == 0).all(-1).mean() < 0.85


def test_pictures_alike_are_the_nearest_in_colour_and_place() -> None:
    images = [picture(colour) for colour in ("red", "blue", "#ee0808", "#1010f0")]
    assert alike(images, 1)[:, 0].tolist() == [2, 3, 0, 1]
    assert alike(images, 9).shape == (4, 3)
    assert all(number not in row for number, row in enumerate(alike(images, 9).tolist()))


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
    assert len(made[0]) == 3 * 7 + 3 * 9
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
