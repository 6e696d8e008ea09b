"""Contact sheets: everything asked for is drawn, where it belongs, whatever the words."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fakes import photo
from image2sentence.visualize import contact_sheet as module
from image2sentence.visualize.contact_sheet import TILE, Shown, contact_sheet, stack_sheets

COLOURS = ("red", "lime", "blue", "yellow", "magenta", "cyan", "black")


def results(count: int) -> list[Shown]:
    return [
        Shown(Image.new("RGB", (60, 60), COLOURS[i % len(COLOURS)]), f"picture {i}.jpg", 0.9 - i / 100)
        for i in range(count)
    ]


def places(sheet: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    """(n, 2) x, y of the pixels of exactly this colour."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(axis=2))
    return np.stack([columns, rows], axis=1)


def test_results_stand_in_rank_order_right_of_the_reference() -> None:
    reference = Image.new("RGB", (30, 60), (1, 2, 3))
    sheet = contact_sheet(reference, "but red", results(5))
    assert sheet.mode == "RGB"
    centres = [places(sheet, colour).mean(axis=0) for colour in [(255, 0, 0), (0, 255, 0), (0, 0, 255)]]
    xs = [places(sheet, (1, 2, 3)).mean(axis=0)[0], *(centre[0] for centre in centres)]
    assert xs == sorted(xs)
    assert np.ptp([centre[1] for centre in centres]) < 1


def test_a_picture_keeps_its_proportions() -> None:
    sheet = contact_sheet(Image.new("RGB", (30, 60), (1, 2, 3)), "", [])
    width, height = np.ptp(places(sheet, (1, 2, 3)), axis=0) + 1
    assert (width, height) == (TILE // 2, TILE)


def test_more_results_take_more_lines_of_the_same_width() -> None:
    one, two = contact_sheet(photo(1), "x", results(5)), contact_sheet(photo(1), "x", results(6))
    assert one.width == two.width
    assert two.height - one.height > TILE
    assert contact_sheet([], "x", results(6), columns=6).height == one.height


def test_words_scores_and_captions_leave_their_mark() -> None:
    def ink(words: str, result: Shown) -> int:
        return int((np.asarray(contact_sheet([], words, [result]).convert("L")) < 160).sum())

    plain = Shown(Image.new("RGB", (60, 60), "white"), "", 0.5)
    assert ink("but red, with much longer sleeves", plain) > ink("but red", plain) + 100
    assert ink("red", plain._replace(caption="shirt.jpg")) > ink("red", plain) + 50
    assert ink("red", plain._replace(score=88888.888)) > ink("red", plain._replace(score=1.111)) + 20


def test_only_right_results_get_a_tick() -> None:
    green = (22, 163, 74)
    for right, drawn in ((True, True), (False, False), (None, False)):
        sheet = contact_sheet([], "", [Shown(photo(1), "", 1.0, right)])
        assert (len(places(sheet, green)) > 100) is drawn


def test_several_references_share_a_tile() -> None:
    references = [Image.new("RGB", (50, 50), (i, 2, 3)) for i in range(1, 4)]
    sheet = contact_sheet(references, "both", results(1))
    spots = [places(sheet, (i, 2, 3)) for i in range(1, 4)]
    assert all(len(spot) > 1000 for spot in spots)
    assert max(spot[:, 0].max() for spot in spots) < 36 + TILE


def test_plain_tuples_and_no_results_are_fine() -> None:
    assert contact_sheet(photo(1), "x", [(photo(2), "a", 0.5)]).size == contact_sheet(photo(1), "x", []).size


@pytest.mark.parametrize(
    "words",
    [
        "été — “quoted” ×",
        "日本語 и русский",
        "👗 " * 50,
        "tab\t, \x07",
        "odd \udcff byte",
        "w" * 5000,
    ],
    ids=["accents", "scripts", "emoji", "control", "surrogate", "long"],
)
def test_any_words_can_be_drawn(words: str) -> None:
    sheet = contact_sheet(photo(1), words, [Shown(photo(2), words, 0.1)])
    assert sheet.size == contact_sheet(photo(1), "", results(1)).size


def test_characters_without_a_glyph_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_installed_fonts", lambda size: ())
    assert module._font_for("été — 日 ok", 20)[1] == "ete - ? ok"


def test_long_text_is_cut_with_an_ellipsis() -> None:
    font, text = module._font_for("a rather long caption", 15)
    cut = module._cut(text, font, 80)
    assert cut.endswith("…")
    assert font.getlength(cut) <= 80
    assert module._cut("short", font, 80) == "short"


@pytest.mark.parametrize("size", [(1, 3_000), (3_000, 1), (1, 1), (2, 150)])
def test_the_thinnest_pictures_are_drawn(size: tuple[int, int]) -> None:
    thin = Image.new("RGB", size, (1, 2, 3))
    sheet = contact_sheet(thin, "", [Shown(thin, "", 0.1)])
    assert len(places(sheet, (1, 2, 3))) >= 100


def test_sheets_stack_one_below_the_other() -> None:
    sheets = [contact_sheet([], "a", results(1)), contact_sheet(photo(1), "b", results(7))]
    stack = stack_sheets(sheets)
    assert stack.width == sheets[1].width
    assert stack.height == sheets[0].height + sheets[1].height + 1
    assert stack.crop((0, 0, *sheets[0].size)).tobytes() == sheets[0].tobytes()


def test_what_is_not_wanted_stands_struck_out_among_the_references() -> None:
    wanted, unwanted = (Image.new("RGB", (60, 60), colour) for colour in ((1, 2, 3), (4, 5, 6)))
    sheet = contact_sheet(wanted, "x", results(1), against=[unwanted])
    assert places(sheet, (4, 5, 6)).mean(axis=0)[0] > places(sheet, (1, 2, 3)).mean(axis=0)[0]
    struck = places(sheet, (220, 38, 38))
    assert len(struck) > 50
    assert struck[:, 0].min() > places(sheet, (1, 2, 3))[:, 0].max()
    alone = contact_sheet([], "x", results(1), against=[unwanted])
    assert alone.width == sheet.width


def test_the_rank_that_is_given_is_drawn() -> None:
    plain = Shown(Image.new("RGB", (60, 60), "white"), "", 0.5)
    assert contact_sheet([], "x", [plain]) == contact_sheet([], "x", [plain._replace(rank=1)])
    assert contact_sheet([], "x", [plain]) != contact_sheet([], "x", [plain._replace(rank=11)])
