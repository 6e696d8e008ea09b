"""One walk through a folder of odd but valid pictures with odd names: every way out has all of them, as they are.

Colours are held to a reference decoder: Pillow and littleCMS as their manuals use them, which shares nothing with
the package.
"""

from __future__ import annotations

import base64
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageCms, ImageFile, ImageOps, PngImagePlugin

from fakes import FakeEncoder
from image2sentence import encoders
from image2sentence.cli.main import cli
from image2sentence.cli.options import GALLERY_VARIABLE
from image2sentence.gallery import Gallery
from image2sentence.images import date_taken, display_path
from image2sentence.visualize import contact_sheet as sheets
from tests import odd_pictures
from tests.odd_pictures import SIZE, OddPicture

TOLERANCE = 3
EMOJI = "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}"
STEMS: tuple[str | bytes, ...] = (
    "two\nlines",
    "tab\there",
    "carriage\rreturn",
    "\x01 control \x7f",
    b"latin caf\xe9",
    b"\xff\xfe not text",
    "e\u0301 decomposed",
    "\u00e9 composed",
    f"family {EMOJI}",
    "flag \U0001f1e9\U0001f1ea",
    "-k 3",
    "--json",
    "'single' \"double\" `back`",
    "100 % #1 ?&=+",
    "%2e%2e%2f %00",
    "trailing space ",
    " leading space",
    "dots...",
    "back\\slash",
    "\\u202f as text",
    "at 9.41\u202fPM",
    "no\u00a0break \u3000wide",
    "\u200bzero\ufeff width",
    "right \u05d0\u202e to left",
    "line\u2028separator\u0085next",
    "$(rm -rf) ; | > <",
    "* ? [a-z] {a,b} ~",
    "<img src=x onerror=alert(1)> &amp;",
    "con",
    "\u65e5\u672c\u8a9e",
)


def names(endings: list[str]) -> Iterator[bytes]:
    """A name for each ending: the odd ones, each a second time with a number, and one of 250 bytes."""
    for number, ending in enumerate(endings):
        stem = STEMS[number % len(STEMS)]
        text = stem if isinstance(stem, bytes) else stem.encode()
        again = number // len(STEMS)
        if number == len(endings) - 1:
            yield b"l" * (250 - len(ending)) + ending.encode()
        elif number == len(endings) - 2:
            yield text + ending.upper().encode() + b" "  # white space behind the ending
        else:
            yield text + (b" %d" % again if again else b"") + ending.encode()


def odd_files() -> list[OddPicture]:
    """The odd pictures under odd names, no content twice."""
    kinds = (odd_pictures.of_jpeg, odd_pictures.of_png, odd_pictures.of_others)
    different = {one.content: one for kind in kinds for one in kind()}
    called = names([Path(one.name).suffix for one in different.values()])
    return [
        one._replace(name=os.fsdecode(name)) for one, name in zip(different.values(), called, strict=True)
    ]


ODD = odd_files()
PICTURES = len(ODD)
Run = Callable[..., Result]


def reference_colours(content: bytes) -> np.ndarray:
    """(4, 3) colours in the middle of each quarter of what a file shows, by Pillow and littleCMS alone."""
    if content.startswith(b"II*\0\x08\0\0\0") and b"\xff\xd8\xff" in content:
        content = content[content.rindex(b"\xff\xd8\xff") :]  # a raw file's last and largest preview
    picture = Image.open(io.BytesIO(content))
    picture.load()
    profile = picture.info.get("icc_profile")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray(np.round(np.asarray(picture) / 257).astype(np.uint8))
    elif picture.mode == "F":
        values = np.asarray(picture)
        stretched = 255 * (values - values.min()) / (values.max() - values.min())
        picture = Image.fromarray(np.round(stretched).astype(np.uint8))
    elif picture.has_transparency_data:
        picture = on_ground(picture.convert("RGBA"))
    elif picture.mode in ("P", "1"):
        picture = picture.convert("RGB")
    if picture.mode == "LAB":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        srgb = ImageCms.createProfile("sRGB")
        picture = ImageCms.profileToProfile(picture, source, srgb, outputMode="RGB")
    except (OSError, ImageCms.PyCMSError):
        picture = picture.convert("RGB")  # no profile, a broken one, or one for other channels
    return quarters_of(picture)


def on_ground(picture: Image.Image) -> Image.Image:
    """On white, or on black where more than a quarter of what is visible would be lost on white."""
    pixels = np.asarray(picture).astype(int)
    visible = pixels[..., 3] / 255
    lost = (visible * (pixels[..., :3] > 255 - 48).all(axis=2)).sum() > visible.sum() / 4
    ground = Image.new("RGBA", picture.size, "black" if lost else "white")
    return Image.alpha_composite(ground, picture).convert("RGB")


def quarters_of(picture: Image.Image) -> np.ndarray:
    """(4, 3): the colour in the middle of each quarter."""
    width, height = picture.size
    places = [(x * width // 4, y * height // 4) for y in (1, 3) for x in (1, 3)]
    return np.array([picture.convert("RGB").getpixel(place) for place in places])


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """The colours of each file by the reference decoder, by the file's name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        patch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 1 << 30)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of broken EXIF
            return {one.name: reference_colours(one.content) for one in ODD}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `in` of odd pictures, beside which the gallery is made."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "in").mkdir()
    for one in ODD:
        try:
            (folder / "in" / one.name).write_bytes(one.content)
        except (OSError, ValueError) as error:
            pytest.skip(f"this file system has no such names: {error}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv(GALLERY_VARIABLE, raising=False)
        patch.setattr(encoders, "load_encoder", lambda *_, **options: FakeEncoder())
        done = CliRunner().invoke(cli, ["index", "in", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["found"], report["encoded"], report["failed"]) == (PICTURES, PICTURES, [])
    assert report["passed_over"] == {}
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command beside the gallery."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv(GALLERY_VARIABLE, raising=False)
    monkeypatch.setattr(encoders, "load_encoder", lambda *_, **options: FakeEncoder())

    def command(*arguments: str) -> Result:
        done = CliRunner().invoke(cli, arguments)
        assert done.exit_code == 0, done.output
        return done

    return command


def assert_all_shown(shown: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert shown.keys() == expected.keys()
    off = {name: np.abs(shown[name] - colours).max() for name, colours in expected.items()}
    assert max(off.values()) <= TOLERANCE, {name: far for name, far in off.items() if far > TOLERANCE}


def exact_name(one: dict[str, str], key: str = "path") -> str:
    """The name of a file in a document: its bytes, where it is no text."""
    odd = one.get(f"{key}_bytes")
    return os.path.basename(one[key] if odd is None else os.fsdecode(base64.b64decode(odd)))


def test_the_reference_decoder_sees_what_the_files_were_made_of(expected: dict[str, np.ndarray]) -> None:
    for one in ODD:
        assert np.abs(expected[one.name] - np.array(one.colours)).max() <= max(one.tolerance, TOLERANCE), (
            one.name
        )
    assert len(expected) == PICTURES == len({one.content for one in ODD}) >= 60
    assert max(len(os.fsencode(name)) for name in expected) == 250


def test_json_of_a_search_names_every_file(run: Run, folder: Path) -> None:
    shown = json.loads(run("search", "red", "-k", "100", "--json").stdout)["results"]
    assert sorted(exact_name(one) for one in shown) == sorted(one.name for one in ODD)
    for one in shown:
        content = (folder / "in" / exact_name(one)).read_bytes()
        assert (one["size"], one["width"], one["height"]) == (len(content), *SIZE)
        assert one["metadata"].get("taken") == date_taken(content)
    paths = run("search", "red", "-k", "100", "-0").stdout_bytes[:-1].split(b"\0")
    assert sorted(paths) == sorted(os.fsencode(folder / "in" / one.name) for one in ODD)


@pytest.mark.parametrize("one", ODD, ids=[ascii(one.name)[:60] for one in ODD])
def test_every_file_can_be_asked_with(one: OddPicture, run: Run) -> None:
    found = json.loads(run("search", f"--image=in/{one.name}", "-k", "100", "--json").stdout)
    assert exact_name({"path": found["query"]["images"][0], **odd_bytes(found["query"])}) == one.name
    scores = {exact_name(result): result["score"] for result in found["results"]}
    assert scores[one.name] > max(scores.values()) - 1e-2  # others show the same colours


def odd_bytes(query: dict[str, list[str | None]]) -> dict[str, str]:
    """The bytes of the asked picture's name, where they are no text."""
    (odd,) = query.get("images_bytes", [None])
    return {} if odd is None else {"path_bytes": odd}


def test_the_terminal_has_a_line_for_each(run: Run) -> None:
    lines = run("search", "red", "-k", "100").stdout.splitlines()
    assert len(lines) == PICTURES
    assert all(line.isprintable() for line in lines)


def test_the_sheet_shows_each_by_its_name(
    run: Run, folder: Path, expected: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[sheets.Shown] = []
    draw = sheets._result
    places: list[tuple[int, int]] = []

    def noting(sheet: Image.Image, corner: tuple[int, int], rank: int, result: sheets.Shown) -> None:
        drawn.append(result)
        places.append(corner)
        draw(sheet, corner, rank, result)

    monkeypatch.setattr(sheets, "_result", noting)
    shown = json.loads(run("search", "red", "-k", "100", "--sheet", "sheet.png", "--json").stdout)["results"]
    order = [exact_name(one) for one in shown]
    assert [one.caption for one in drawn] == [display_path(name) for name in order]
    with Image.open(folder / "sheet.png") as sheet:
        height = sheets.TILE * SIZE[1] // SIZE[0]
        tops = [(x, y + (sheets.TILE - height) // 2) for x, y in places]
        tiles = [sheet.crop((x, y, x + sheets.TILE, y + height)) for x, y in tops]
    assert_all_shown(dict(zip(order, map(quarters_of, tiles), strict=True)), expected)


def test_the_page_gets_each_by_its_name(folder: Path, expected: dict[str, np.ndarray]) -> None:
    pytest.importorskip("fastapi", reason="the server needs the [server] extra")
    from fastapi.testclient import TestClient

    from image2sentence.server.app import Deployment, create_app
    from image2sentence.server.service import SearchService
    from image2sentence.strict_json import valid_text

    files = {valid_text(one.name): one for one in ODD}
    with Gallery.open(folder / ".image2sentence") as gallery:
        app = create_app(SearchService(FakeEncoder(), gallery), deployment=Deployment(show_paths=True))
        client = TestClient(app, base_url="http://127.0.0.1")
        answer = client.post("/v1/search", json={"text": "red", "k": 100})
        assert answer.status_code == 200, answer.text
        results = answer.json()["results"]
        assert sorted(one["name"] for one in results) == sorted(files)
        thumbnails, originals = {}, {}
        for one in results:
            assert one["path"] == valid_text(os.fspath(folder / "in" / files[one["name"]].name))
            picture = client.get(f"/v1/items/{one['id']}/thumbnail")
            with Image.open(io.BytesIO(picture.content)) as thumbnail:
                assert (thumbnail.size, thumbnail.mode, thumbnail.info.get("icc_profile")) == (
                    SIZE,
                    "RGB",
                    None,
                )
                thumbnails[files[one["name"]].name] = quarters_of(thumbnail)
            originals[files[one["name"]].name] = client.get(f"/v1/items/{one['id']}/original").content
    assert_all_shown(thumbnails, expected)
    assert originals == {one.name: one.content for one in ODD}


def test_a_second_run_finds_nothing_new(run: Run) -> None:
    report = json.loads(run("index", "in", "--json").stdout)
    assert (report["unchanged"], report["encoded"], report["moved"], report["deleted"]) == (PICTURES, 0, 0, 0)
