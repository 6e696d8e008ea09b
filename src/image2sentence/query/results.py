"""Results and answers of a query."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from image2sentence.errors import ImageError
from image2sentence.gallery.filters.language import Value
from image2sentence.gallery.locations import Place, file_may_exist, place_name, read_picture
from image2sentence.images import MIN_DECODE_SIDE, DecodeLimits, decode_image, display_path
from image2sentence.query.query import Query
from image2sentence.query.unknown_words import UnknownWord

FITS_FROM = 1.6
"""Fit from which a result of pictures fits, where nothing else is known of a gallery; see docs/search.md."""
WORDS_FIT_FROM = 4.0
"""The same for words alone, whose fit is on another scale."""
_NEAR = 0.5  # of these

_PLATE = (228, 228, 231)


class Result(NamedTuple):
    """One ranked picture.

    Attributes:
        rank: From 1, across pages.
        score: Dot product of query and picture, -1 to 1, less what was taken off for what is not wanted, and with what
            words in the picture's name and metadata added (see `image2sentence.query.text_matches`): it may exceed 1.
        id: The picture's id in the gallery.
        path: Its file, or URL.
        width: Pixels across; None where the gallery does not know.
        height: Pixels down.
        metadata: The values of its metadata columns, by column; empty where there are none.
        fit: The score on the gallery's own scale: 0 is what two of its pictures have in common at random, and 1 is a
            spread more (see `ScoreStatistics.pair_scale`). For words alone, which score lower, 0 is what a picture of
            the gallery scores with them, and 1 a spread more. None in galleries too small to tell.
        alike: Ids of near-duplicates hidden behind it.
        match: Probability that picture and query belong together, by the matching encoder; None where it was not
            asked.
        size: Bytes of its file.
        offset: Where its bytes begin in a shard; None for a file of its own.
    """

    rank: int
    score: float
    id: int
    path: Place
    width: int | None
    height: int | None
    metadata: dict[str, Value]
    fit: float | None = None
    alike: tuple[int, ...] = ()
    match: float | None = None
    size: int = -1
    offset: int | None = None

    @property
    def missing(self) -> bool:
        """Whether its file is not there now; looked up at each call, and False for what is behind a URL."""
        return not file_may_exist(self.path)


@dataclass(frozen=True, eq=False)
class Answer:
    """A query's ranked pictures.

    Attributes:
        query: What was asked.
        references: The asked pictures, decoded, where pictures were given.
        against: Those that results should not look like.
        results: The page that was asked for.
        total: Pictures that were ranked: without what was excluded, or does not meet the condition.
        more: Whether there are results after this page.
        best_fit: The `Result.fit` of the best picture, whether or not it is good enough to be shown.
        not_understood: Words that the model does not know, and no picture's text has.
        understood: False where words alone were asked with, the model knows none of them, and no picture's text has
            one: there are no results then. Where some have, they are all that is ranked.
        milliseconds: `read_ms` (pictures to sentences), `encode_ms` (sentences and words to a query vector),
            `search_ms` (ranking, and looking up the results) and, where asked for, `rerank_ms`.
    """

    query: Query
    references: tuple[Image.Image, ...]
    against: tuple[Image.Image, ...]
    results: tuple[Result, ...]
    total: int
    more: bool
    best_fit: float | None
    not_understood: tuple[UnknownWord, ...]
    milliseconds: dict[str, float]
    understood: bool = True

    @property
    def words(self) -> str:
        """The words asked with."""
        return self.query.words

    @property
    def fits_from(self) -> float:
        """The fit from which a result "fits"; see `fit_word`."""
        on_pairs = bool(self.query.references) or self.query.vector is not None
        return FITS_FROM if on_pairs else WORDS_FIT_FROM

    @property
    def fits(self) -> bool | None:
        """False where nothing in the gallery reaches the cut-off; None where none was asked for."""
        least = self.query.min_fit
        return None if least is None else self.best_fit is not None and self.best_fit >= least

    def draw(self, right: Collection[Place] | None = None) -> Image.Image:
        """A contact sheet: RGB; `right` are the pictures to tick, for queries whose answers are known."""
        from image2sentence.visualize.contact_sheet import Shown, contact_sheet

        shown = []
        for result in self.results:
            picture, caption = _shown(result)
            ticked = None if right is None else result.path in right
            caption = f"(+{len(result.alike)}) {caption}" if result.alike else caption
            shown.append(Shown(picture, caption, result.score, ticked, result.rank))
        return contact_sheet(self.references, self._heading(), shown, against=self.against)

    def _heading(self) -> str:
        unwanted = ", ".join(self.query.not_words)
        return " \N{MIDDLE DOT} ".join(filter(None, (self.words, unwanted and f"not: {unwanted}")))


def fit_word(fit: float, fits_from: float) -> str:
    """A fit in a word: "fits" from the usual cut-off on, "near" from half of it, "far" below."""
    return "fits" if fit >= fits_from else "near" if fit >= _NEAR * fits_from else "far"


def _shown(result: Result) -> tuple[Image.Image, str]:
    """A result's picture and caption; a grey plate where the file is gone or changed since it was indexed."""
    name = display_path(place_name(result.path))
    try:
        limits = DecodeLimits().for_picture(result.width, result.height)
        return decode_image(read_picture(result), at_least=MIN_DECODE_SIDE, limits=limits).picture, name
    except ImageError:
        return Image.new("RGB", (MIN_DECODE_SIDE, MIN_DECODE_SIDE), _PLATE), f"{name} (cannot be read now)"
