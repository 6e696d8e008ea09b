"""Contact sheets: a query and its ranked pictures on one image."""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from PIL import Image, ImageDraw, ImageFont

from image2sentence.images import printable

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour: TypeAlias = tuple[int, int, int]

TILE = 200
"""Side of a result's picture in pixels."""

_MARGIN = 36
_GAP = 18
_HEADING = 56
_CAPTION = 50
_RULE = 2 * _GAP + 1
_CORNER = 14
_FRAME = 4
_SMOOTH = 4

_PAPER = (255, 255, 255)
_PLATE = (244, 244, 245)
_LINE = (228, 228, 231)
_INK = (24, 24, 27)
_MUTED = (113, 113, 122)
_RED = (220, 38, 38)
_GREEN = (22, 163, 74)

# Fonts of common systems for what Pillow's own font lacks, the narrower first.
_OTHER_FONTS = (
    "DejaVuSans.ttf",
    "Arial.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-zenhei.ttc",
    "msyh.ttc",
    "PingFang.ttc",
)
_NO_CHARACTER = "\U0010fffe"


class Shown(NamedTuple):
    """One result on a sheet; `right` True frames and ticks it, for results that are known to be asked for.

    `rank` is the number below it where that is not its place on the sheet.
    """

    picture: Image.Image
    caption: str
    score: float
    right: bool | None = None
    rank: int | None = None


class Panel(NamedTuple):
    """One picture of a grid, with a few words below it."""

    picture: Image.Image
    caption: str


def contact_sheet(
    reference: Image.Image | Sequence[Image.Image],
    words: str,
    results: Sequence[Shown | tuple[Image.Image, str, float]],
    *,
    columns: int = 5,
    against: Sequence[Image.Image] = (),
) -> Image.Image:
    """Draw one query and its results on white.

    The words stand above as a heading, the reference pictures to the left, the results in rank order to their
    right in lines of `columns`. Characters that no installed font draws lose their accents or become "?".

    Args:
        reference: RGB picture or pictures of the query; empty for a query of words only.
        words: The modifier; may be empty.
        results: Best first: picture (RGB), caption, score, and optionally whether it is right.
        columns: Results on a line, at least 1.
        against: RGB pictures that results should not look like; they stand among the references, struck out.

    Returns:
        RGB picture. Its width depends on `columns` and on whether there is a reference, nothing else.
    """
    references = [reference] if isinstance(reference, Image.Image) else list(reference)
    shown = [Shown(*result) for result in results]
    left = _MARGIN + (TILE + _RULE if references or against else 0)
    lines = max(1, -(-len(shown) // columns))
    size = (left + columns * (TILE + _GAP) - _GAP + _MARGIN, _HEADING + lines * (TILE + _CAPTION) + 2 * _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    _heading(sheet, words)
    if references or against:
        _reference(sheet, references, against)
    for place, result in enumerate(shown):
        line, column = divmod(place, columns)
        corner = (left + column * (TILE + _GAP), _HEADING + _GAP + line * (TILE + _CAPTION))
        _result(sheet, corner, place + 1 if result.rank is None else result.rank, result)
    if not shown:
        _text(sheet, (left, _HEADING + _GAP + TILE // 2), "no results", 16, _MUTED)
    return sheet


def stack_sheets(sheets: Sequence[Image.Image]) -> Image.Image:
    """Sheets one below the other, divided by thin lines; at least one."""
    width = max(sheet.width for sheet in sheets)
    height = sum(sheet.height for sheet in sheets) + len(sheets) - 1
    stack = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(stack)
    top = 0
    for sheet in sheets:
        if top:
            draw.line((_MARGIN, top, width - _MARGIN, top), fill=_LINE)
            top += 1
        stack.paste(sheet, (0, top))
        top += sheet.height
    return stack


def panel_sheet(lines: Sequence[Sequence[Panel]]) -> Image.Image:
    """Pictures in a grid on white, a line each; at least one line."""
    across = max(len(line) for line in lines)
    size = (2 * _MARGIN + across * (TILE + _GAP) - _GAP, 2 * _MARGIN + len(lines) * (TILE + _CAPTION) - _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    for down, line in enumerate(lines):
        for place, panel in enumerate(line):
            corner = (_MARGIN + place * (TILE + _GAP), _MARGIN + down * (TILE + _CAPTION))
            _tile(sheet, panel.picture, corner, TILE)
            below = (corner[0], corner[1] + TILE + 22)
            _text(sheet, below, panel.caption, 15, _MUTED, room=TILE)
    return sheet


def _heading(sheet: Image.Image, words: str) -> None:
    text = " ".join(words.split())
    room = sheet.width - 2 * _MARGIN
    _text(sheet, (_MARGIN, _HEADING), text or "Pictures like this", 28, _INK if text else _MUTED, room=room)


def _reference(sheet: Image.Image, references: Sequence[Image.Image], against: Sequence[Image.Image]) -> None:
    """One picture on a full tile, several on a grid within it, then a thin line."""
    top = _HEADING + _GAP
    count = len(references) + len(against)
    across = math.ceil(math.sqrt(count))
    step = (TILE + _GAP // 2) // across
    side = step - _GAP // 2
    for place, picture in enumerate((*references, *against)):
        line, column = divmod(place, across)
        corner = (_MARGIN + column * step, top + line * step)
        _tile(sheet, picture, corner, side)
        if place >= len(references):
            _strike_out(sheet, corner, side)
    below = top + math.ceil(count / across) * step - _GAP // 2
    _text(sheet, (_MARGIN, below + 22), _reference_label(len(references), len(against)), 15, _MUTED)
    x = _MARGIN + TILE + _RULE // 2
    ImageDraw.Draw(sheet).line((x, top, x, sheet.height - 2 * _GAP), fill=_LINE)


def _reference_label(references: int, against: int) -> str:
    wanted = "reference" if references == 1 else f"{references} references" if references else ""
    return ", ".join(filter(None, (wanted, f"{against} not wanted" if against else "")))


def _strike_out(sheet: Image.Image, corner: tuple[int, int], side: int) -> None:
    large = Image.new("L", (side * _SMOOTH, side * _SMOOTH), 0)
    inset = 8 * _SMOOTH
    line = (inset, large.height - inset, large.width - inset, inset)
    ImageDraw.Draw(large).line(line, fill=255, width=4 * _SMOOTH)
    sheet.paste(_RED, (*corner, corner[0] + side, corner[1] + side), large.resize((side, side)))


def _result(sheet: Image.Image, corner: tuple[int, int], rank: int, result: Shown) -> None:
    x, y = corner
    _tile(sheet, result.picture, corner, TILE)
    if result.right:
        sheet.paste(_GREEN, (*corner, corner[0] + TILE, corner[1] + TILE), _outline())
        _tick(sheet, (x + TILE - 36, y + 8))
    baseline = y + TILE + 22
    used = 10 + _text(sheet, (x, baseline), str(rank), 17, _INK)
    score = _text(sheet, (x + TILE, baseline), f"{result.score:.3f}", 15, _MUTED, anchor="rs")
    _text(sheet, (x + used, baseline), result.caption, 15, _MUTED, room=TILE - used - 10 - score)


def _tile(sheet: Image.Image, picture: Image.Image, corner: tuple[int, int], side: int) -> None:
    """The whole picture with round corners, centred on a plate with round corners."""
    scale = side / max(picture.size)
    size = (max(1, round(scale * picture.width)), max(1, round(scale * picture.height)))  # thin as it may be
    fitted = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    place = corner[0] + (side - fitted.width) // 2, corner[1] + (side - fitted.height) // 2
    sheet.paste(_PLATE, (*corner, corner[0] + side, corner[1] + side), _rounded((side, side)))
    sheet.paste(fitted, place, _rounded(fitted.size))


@lru_cache(maxsize=64)
def _rounded(size: tuple[int, int]) -> Image.Image:
    """Mask of a rectangle with smooth round corners, mode L."""
    width, height = size[0] * _SMOOTH, size[1] * _SMOOTH
    large = Image.new("L", (width, height), 0)
    corner = min(_CORNER * _SMOOTH, (min(width, height) - 1) // 2)
    ImageDraw.Draw(large).rounded_rectangle((0, 0, width - 1, height - 1), corner, fill=255)
    return large.resize(size, Image.Resampling.LANCZOS)


@lru_cache(maxsize=1)
def _outline() -> Image.Image:
    """Mask of a tile's frame, mode L."""
    side = TILE * _SMOOTH
    large = Image.new("L", (side, side), 0)
    box = (0, 0, side - 1, side - 1)
    ImageDraw.Draw(large).rounded_rectangle(box, _CORNER * _SMOOTH, outline=255, width=_FRAME * _SMOOTH)
    return large.resize((TILE, TILE), Image.Resampling.LANCZOS)


def _tick(sheet: Image.Image, corner: tuple[int, int]) -> None:
    side = 28
    large = Image.new("RGBA", (side * _SMOOTH, side * _SMOOTH), (*_GREEN, 0))
    draw = ImageDraw.Draw(large)
    draw.ellipse((0, 0, large.width - 1, large.height - 1), fill=_GREEN, outline=_PAPER, width=2 * _SMOOTH)
    stroke = [(x * large.width, y * large.height) for x, y in ((0.29, 0.52), (0.44, 0.67), (0.72, 0.36))]
    draw.line(stroke, fill=_PAPER, width=3 * _SMOOTH, joint="curve")
    mark = large.resize((side, side), Image.Resampling.LANCZOS)
    sheet.paste(mark, corner, mark)


def _text(
    sheet: Image.Image,
    corner: tuple[int, int],
    text: str,
    size: int,
    colour: Colour,
    *,
    room: int | None = None,
    anchor: str = "ls",
) -> int:
    """Draw text on its baseline, cut with an ellipsis to `room` pixels; returns its width in pixels."""
    font, drawable = _font_for(printable(text), size)
    if room is not None:
        drawable = _cut(drawable, font, room)
    ImageDraw.Draw(sheet).text(corner, drawable, fill=colour, font=font, anchor=anchor)
    return math.ceil(font.getlength(drawable))


def _cut(text: str, font: Font, room: int) -> str:
    if font.getlength(text) <= room:
        return text
    lengths = range(len(text))
    kept = bisect_right(lengths, room, key=lambda length: math.ceil(font.getlength(text[:length] + "…"))) - 1
    return text[: max(kept, 0)].rstrip() + "…"


def _font_for(text: str, size: int) -> tuple[Font, str]:
    """A font that draws the text; failing that, Pillow's own and the text in characters that it draws."""
    own = _own_font(size)
    fonts = (own, *_installed_fonts(size)) if not _draws(own, text) else (own,)
    for font in fonts:
        if _draws(font, text):
            return font, text
    return own, "".join(_plain(character, own) for character in text)


@lru_cache(maxsize=16)
def _own_font(size: int) -> Font:
    return ImageFont.load_default(size)


@lru_cache(maxsize=16)
def _installed_fonts(size: int) -> tuple[Font, ...]:
    fonts: list[Font] = []
    for name in _OTHER_FONTS:
        try:
            fonts.append(ImageFont.truetype(name, size))
        except OSError:
            continue  # not installed here
    return tuple(fonts)


def _plain(character: str, font: Font) -> str:
    """The character, or a plain form of it (no accent, a hyphen for a dash), or "?"."""
    dash = "-" if unicodedata.category(character) == "Pd" else character
    for form in (character, unicodedata.normalize("NFKD", dash)[0]):
        if _draws(font, form):
            return form
    return "?"


def _draws(font: Font, text: str) -> bool:
    return all(_has_glyph(font, character) for character in set(text) if not character.isspace())


@lru_cache(maxsize=4096)
def _has_glyph(font: Font, character: str) -> bool:
    """Whether the font draws the character other than with its sign for a missing one."""
    if character.isascii():
        return True
    mask, missing = font.getmask(character), font.getmask(_NO_CHARACTER)
    return mask.size != missing.size or bytes(mask) != bytes(missing)
