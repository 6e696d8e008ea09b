"""The drawn catalogue: attributes, pictures, and the folder they are written to."""

from __future__ import annotations

import colorsys
import csv
import errno
import itertools
import json
import random
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from image2sentence.catalogue import Product, change, draw, sample, write_catalogue
from image2sentence.catalogue.attributes import (
    ATTRIBUTES,
    BACKGROUNDS,
    COLOURS,
    PATTERN_COLOURS,
    PATTERNS,
    TYPES,
    HslRange,
    choices,
    title,
    values,
)
from image2sentence.errors import ConfigError, DataError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
OWN = ("sleeve", "length", "neckline", "closure")


def product(**changes: str) -> Product:
    """A plain red T-shirt with the given attributes changed, the type first."""
    made = Product("t-shirt", "red", "plain", "", "short", "", "round", "", "white", variation=7)
    for attribute in sorted(changes, key=ATTRIBUTES.index):
        made = change(made, attribute, changes[attribute])
    return made


def pixels(made: Product, size: int = 112) -> NDArray[np.float64]:
    """The picture as (size, size, 3) in 0 to 255."""
    return np.asarray(draw(made, size), dtype=np.float64)


def middle(spread: HslRange) -> tuple[float, float, float]:
    """The RGB colour in the middle of a range, 0 to 255."""
    hue, saturation, lightness = (sum(ends) / 2 for ends in (spread.hue, spread.saturation, spread.lightness))
    red, green, blue = colorsys.hls_to_rgb(hue % 360 / 360, lightness, saturation)
    return 255 * red, 255 * green, 255 * blue


def nearest(colour: NDArray[np.float64], named: dict[str, HslRange]) -> str:
    return min(named, key=lambda name: float(np.linalg.norm(colour - middle(named[name]))))


def test_sample_draws_exactly_the_attributes_that_apply() -> None:
    rng = random.Random(0)
    for _ in range(500):
        made = sample(rng)
        for attribute in OWN:
            value = getattr(made, attribute)
            assert value in TYPES[made.type][attribute] if attribute in TYPES[made.type] else value == ""
        assert (made.pattern_colour == "") == (made.pattern == "plain")
        assert made.colour in COLOURS
        assert made.background in BACKGROUNDS


def test_sample_reaches_every_value() -> None:
    rng = random.Random(1)
    drawn = [sample(rng) for _ in range(3000)]
    for attribute in ATTRIBUTES:
        assert {getattr(made, attribute) for made in drawn} - {""} == set(values(attribute))


def test_pattern_colours_are_never_hidden_by_the_product_colour() -> None:
    rng = random.Random(2)
    for _ in range(500):
        made = sample(rng)
        assert not made.pattern_colour or made.colour not in PATTERN_COLOURS[made.pattern_colour]
    for colour in COLOURS:
        assert sum(colour not in hidden for hidden in PATTERN_COLOURS.values()) >= 2


@pytest.mark.parametrize("named", [COLOURS, BACKGROUNDS])
def test_the_ranges_of_two_names_never_meet(named: dict[str, HslRange]) -> None:
    def apart(first: tuple[float, float], second: tuple[float, float]) -> bool:
        return first[1] < second[0] or second[1] < first[0]

    for one, other in itertools.combinations(named.values(), 2):
        sides = zip(astuple(one), astuple(other), strict=True)
        assert any(apart(first, second) for first, second in sides), (one, other)


def test_change_changes_one_attribute_only() -> None:
    before = product()
    after = change(before, "colour", "blue")
    differing = {name for name in ATTRIBUTES if getattr(before, name) != getattr(after, name)}
    assert differing == {"colour"}
    assert after.variation == before.variation


def test_dependent_attributes_follow_a_change() -> None:
    striped = product(pattern="striped", pattern_colour="white")
    assert change(striped, "pattern", "plain").pattern_colour == ""
    on_white = change(striped, "colour", "white")
    assert on_white.pattern_colour in ("black", "red", "navy")
    mug = change(striped, "type", "mug")
    assert (mug.sleeve, mug.neckline, mug.pattern_colour) == ("", "", "white")
    assert change(mug, "type", "coat").length in TYPES["coat"]["length"]


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("colour", "turquoise", "navy"),
        ("length", "long", "does not apply"),
        ("neckline", "turtleneck", "v-neck"),
        ("pattern_colour", "white", "does not apply"),
        ("price", "low", "background"),
        ("type", "sofa", "cushion"),
    ],
)
def test_change_refuses_what_does_not_exist_or_apply(attribute: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        change(product(), attribute, value)


def test_values_of_one_type_and_of_all() -> None:
    assert values("sleeve", "shirt") == ("short", "long")
    assert values("sleeve", "mug") == ()
    assert values("neckline") == ("round", "v-neck", "collar", "turtleneck")
    with pytest.raises(ConfigError, match="unknown type"):
        values("sleeve", "sofa")


def test_every_choice_is_accepted_by_change() -> None:
    rng = random.Random(3)
    for _ in range(100):
        made = sample(rng)
        for attribute in ATTRIBUTES:
            for value in choices(made, attribute):
                assert getattr(change(made, attribute, value), attribute) == value


def test_titles() -> None:
    assert title(product()) == "red t-shirt with short sleeves and a round neck"
    boots = product(type="boot", length="long", pattern="hearts", pattern_colour="white")
    assert title(boots) == "red knee-high boot with white hearts"
    jacket = product(type="jacket", closure="open", pattern="striped", pattern_colour="navy", colour="yellow")
    assert title(jacket) == "yellow and navy striped jacket with an open front"
    assert title(product(sleeve="sleeveless", neckline="v-neck")) == "sleeveless red t-shirt with a v-neck"


def test_drawing_is_deterministic_and_of_the_asked_size() -> None:
    made = sample(random.Random(4))
    first = draw(made, 96)
    assert (first.size, first.mode) == ((96, 96), "RGB")
    assert first.tobytes() == draw(made, 96).tobytes()


def test_every_type_is_drawn_within_the_picture() -> None:
    """The rim of the picture shows only background, which is pastel; the product is black."""
    for kind in TYPES:
        for length in values("length", kind) or ("",):
            dark = product(type=kind, colour="black", **({"length": length} if length else {}))
            picture = pixels(dark)
            rim = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
            assert rim.min() > 150, f"{kind} {length} touches the rim"
            assert (picture.mean(axis=2) < 90).mean() > 0.06, f"{kind} {length} is hardly there"


@pytest.mark.parametrize("colour", COLOURS)
def test_a_plain_product_has_its_colour(colour: str) -> None:
    for variation in range(4):
        made = Product("cushion", colour, "plain", "", "", "", "", "", "mint", variation)
        centre = pixels(made)[40:72, 40:72].reshape(-1, 3)
        assert nearest(np.median(centre, axis=0), COLOURS) == colour


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_background_has_its_colour(background: str) -> None:
    picture = pixels(product(background=background))
    corners = np.concatenate([picture[:12, :12].reshape(-1, 3), picture[:12, -12:].reshape(-1, 3)])
    assert nearest(np.median(corners, axis=0), BACKGROUNDS) == background


def test_patterns_differ_from_plain_and_from_one_another() -> None:
    pictures = {"plain": pixels(product(type="dress", sleeve="long", length="long", neckline="round"))}
    for pattern in PATTERNS[1:]:
        patterned = product(
            type="dress",
            pattern=pattern,
            pattern_colour="white",
            sleeve="long",
            length="long",
            neckline="round",
        )
        pictures[pattern] = pixels(patterned)
    names = list(pictures)
    for number, first in enumerate(names):
        for second in names[:number]:
            changed = np.abs(pictures[first] - pictures[second]).max(axis=2) > 60
            assert changed.mean() > 0.04, f"{first} looks like {second}"


def test_the_pattern_colour_is_seen_but_does_not_outweigh_the_colour() -> None:
    for pattern in PATTERNS[1:]:
        made = product(type="cushion", colour="blue", pattern=pattern, pattern_colour="yellow")
        centre = pixels(made)[30:82, 30:82]
        blueness = centre[..., 2] - centre[..., 0]
        assert (blueness < -60).mean() > 0.08, f"the second colour of {pattern} is hardly seen"
        assert (blueness > 60).mean() > (blueness < -60).mean(), f"{pattern} has more yellow than blue"


def test_any_single_change_shows() -> None:
    rng = random.Random(5)
    for kind in TYPES:
        made = change(sample(rng), "type", kind)
        before = pixels(made, 64)
        for attribute in ATTRIBUTES:
            for value in choices(made, attribute)[:2]:
                moved = np.abs(pixels(change(made, attribute, value), 64) - before).max(axis=2) > 12
                assert moved.mean() > 0.004, f"{kind}: {attribute} {value} cannot be seen"


def test_sleeves_and_lengths_change_the_silhouette() -> None:
    def covered(**attributes: str) -> float:
        return float((pixels(product(colour="black", **attributes)).mean(axis=2) < 90).mean())

    assert covered(sleeve="sleeveless") < 0.95 * covered(sleeve="short") < 0.9 * covered(sleeve="long")
    shape = {}
    for length in values("length", "skirt"):
        skirt = pixels(product(type="skirt", colour="black", length=length))
        rows, columns = np.nonzero(skirt.mean(axis=2) < 90)
        shape[length] = np.ptp(rows) / np.ptp(columns)
    assert shape["short"] < 0.85 * shape["knee-length"] < 0.75 * shape["long"]


@pytest.mark.parametrize("size", [0, 31, 2049])
def test_impossible_sizes_are_refused(size: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="32 to 2048"):
        draw(product(), size)
    with pytest.raises(ConfigError, match="32 to 2048"):
        write_catalogue(tmp_path / "new", 1, 0, size)
    assert not (tmp_path / "new").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_catalogue_is_pictures_and_their_table(tmp_path: Path) -> None:
    seen: list[int] = []
    out = write_catalogue(tmp_path / "shop", 5, seed=3, size=48, progress=seen.append)
    assert seen == [1, 2, 3, 4, 5]
    with (out / "attributes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"images/{number:05d}.jpg" for number in range(1, 6)]
    assert list(rows[0]) == ["file", *ATTRIBUTES, "title"]
    for row in rows:
        assert all(row[name] in (*values(name, row["type"]), "") for name in ATTRIBUTES)
        with Image.open(out / row["file"]) as picture:
            assert (picture.format, picture.size) == ("JPEG", (48, 48))
    assert sorted(path.name for path in out.rglob("*") if path.is_file() and path.suffix != ".jpg") == [
        "attributes.csv",
        "catalogue.json",
    ]


def test_the_same_call_gives_the_same_bytes_and_a_larger_one_the_same_start(tmp_path: Path) -> None:
    small = contents(write_catalogue(tmp_path / "a", 3, seed=3, size=48))
    assert contents(write_catalogue(tmp_path / "b", 3, seed=3, size=48)) == small
    large = contents(write_catalogue(tmp_path / "c", 6, seed=3, size=48))
    assert all(large[name] == content for name, content in small.items() if name.startswith("images/"))
    assert contents(write_catalogue(tmp_path / "a", 6, seed=3, size=48)) == large


def test_an_interrupted_catalogue_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = contents(write_catalogue(tmp_path / "whole", 5, seed=1, size=48))
    out = tmp_path / "cut"

    def stop(number: int) -> None:
        if number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_catalogue(out, 5, seed=1, size=48, progress=stop)
    assert not (out / "attributes.csv").exists()
    damaged = out / "images" / "00002.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    drawn: list[Product] = []

    def counted(made: Product, size: int) -> Image.Image:
        drawn.append(made)
        return draw(made, size)

    monkeypatch.setattr("image2sentence.catalogue.folder.draw", counted)
    write_catalogue(out, 5, seed=1, size=48)
    assert contents(out) == whole
    assert len(drawn) == 3


@pytest.mark.parametrize(
    ("count", "seed", "size", "reason"),
    [(3, 2, 48, "another catalogue"), (3, 1, 64, "another catalogue"), (2, 1, 48, "cannot shrink")],
)
def test_another_catalogue_is_not_overwritten(
    tmp_path: Path, count: int, seed: int, size: int, reason: str
) -> None:
    out = write_catalogue(tmp_path / "shop", 3, seed=1, size=48)
    before = contents(out)
    with pytest.raises(DataError, match=reason):
        write_catalogue(out, count, seed, size)
    assert contents(out) == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(DataError, match="no drawn catalogue"):
        write_catalogue(tmp_path, 3, seed=1)
    assert contents(tmp_path) == {"letter.txt": b"mine"}
    with pytest.raises(DataError, match="no drawn catalogue"):
        write_catalogue(tmp_path / "letter.txt", 3, seed=1)


@pytest.mark.parametrize("record", ["{", "[]", json.dumps({"version": 1, "seed": 1, "size": 48})])
def test_a_damaged_record_is_refused(tmp_path: Path, record: str) -> None:
    (tmp_path / "catalogue.json").write_text(record)
    with pytest.raises(DataError, match="choose another"):
        write_catalogue(tmp_path, 3, seed=1, size=48)


def test_a_full_disk_is_reported_and_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "shop" / "images").mkdir(parents=True)
    write_catalogue(tmp_path / "other", 1, seed=1, size=48)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_catalogue(tmp_path / "other", 2, seed=1, size=48)
    assert not list((tmp_path / "other").rglob("*.partial"))


def test_a_count_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        write_catalogue(tmp_path / "shop", 0, seed=1)


def test_the_documentation_names_every_attribute_and_value() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for attribute in ATTRIBUTES:
        assert f"`{attribute}`" in text
        for value in values(attribute):
            assert value in text, f"{attribute} {value} is not in {DOCS.name}"
