"""Options of a query, and the query that they mean."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from image2sentence.cli.search_history import recall

if TYPE_CHECKING:
    from image2sentence.gallery.base import GalleryStore
    from image2sentence.query import Query, Reference

_picture_file = click.Path(dir_okay=False, path_type=Path)
_part = click.FloatRange(0, 1)

_OPTIONS = (
    click.option(
        "--image",
        "images",
        type=_picture_file,
        multiple=True,
        metavar="FILE",
        help="A picture to ask with; may be given several times.",
    ),
    click.option(
        "--text", metavar="WORDS", help="What should be different, or without a picture, what to look for."
    ),
    click.option(
        "--like",
        type=click.IntRange(min=1),
        multiple=True,
        metavar="RANK",
        help="Ask with the result of this rank in the last search of this gallery.",
    ),
    click.option(
        "--item",
        "items",
        type=click.IntRange(min=0),
        multiple=True,
        metavar="ID",
        help="Ask with a picture of the gallery; --json shows the ids.",
    ),
    click.option(
        "--weights",
        metavar="N,N,...",
        help="How much each picture counts: PHOTO, then --image, --item and --like, in their order.",
    ),
    click.option(
        "--balance",
        type=_part,
        default=0.5,
        show_default=True,
        metavar="B",
        help="0: only the picture counts; 0.5: picture and words as the model joins them; 1: only the words.",
    ),
    click.option(
        "--not",
        "not_words",
        multiple=True,
        metavar="WORDS",
        help="What results should not show; may be repeated.",
    ),
    click.option(
        "--not-image",
        "not_images",
        type=_picture_file,
        multiple=True,
        metavar="FILE",
        help="What results should not look like; may be repeated.",
    ),
    click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, help="Results wanted."),
    click.option(
        "--offset",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Results to pass over: with -k 10, --offset 10 is the second page.",
    ),
    click.option("--where", metavar="FILTER", help='Only pictures whose metadata fulfil this: "price < 50".'),
    click.option(
        "--min-fit",
        type=float,
        metavar="F",
        help="Show nothing that fits less. Begin with 1.6 with pictures, with 4 for words alone.",
    ),
    click.option(
        "--near-duplicates",
        type=_part,
        metavar="S",
        help="Hide pictures this similar to a better result: 1 exact copies, 0.98 other sizes and qualities too.",
    ),
    click.option(
        "--diversity",
        type=_part,
        default=0.0,
        metavar="D",
        help="How different results should be from each other: 0 (by score alone) to 1; 0.3 is a good start.",
    ),
    click.option(
        "--no-titles",
        is_flag=True,
        help="Go by what pictures show alone, not by words in their names, titles and other texts.",
    ),
    click.option(
        "--rerank",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Let the matching encoder put the N best results in order; for models that have one.",
    ),
)


def query_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a query; it takes what they say as keywords, for `QueryOptions`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return click.argument("asked", nargs=-1, metavar="[PHOTO] [WORDS]")(command)


@dataclass(frozen=True)
class QueryOptions:
    """What the options say, under their names."""

    asked: tuple[str, ...]
    images: tuple[Path, ...]
    text: str | None
    like: tuple[int, ...]
    items: tuple[int, ...]
    weights: str | None
    balance: float
    not_words: tuple[str, ...]
    not_images: tuple[Path, ...]
    k: int
    offset: int
    where: str | None
    min_fit: float | None
    near_duplicates: float | None
    diversity: float
    rerank: int
    no_titles: bool

    def pictures_and_words(self) -> tuple[list[Path], str]:
        """The picture files and the words. Raises UsageError where it is not clear which is which."""
        pictures, words = _read_arguments(self.asked)
        if words and self.text is not None:
            raise click.UsageError("words are given twice: as an argument and as --text")
        pictures += self.images
        said = words or self.text or ""
        if not (pictures or said.strip() or self.items or self.like):
            raise click.UsageError("expected a picture, words, or both")
        return pictures, said

    def query(self, gallery: GalleryStore) -> Query:
        """The query to a gallery. Raises UsageError, or ClickException where no last search is known."""
        from image2sentence.query import Query, Reference

        pictures, words = self.pictures_and_words()
        items = [*self.items, *recall(gallery, self.like)]
        references = [Reference(picture) for picture in pictures] + [Reference(item=item) for item in items]
        same = (
            "balance",
            "not_words",
            "k",
            "offset",
            "where",
            "min_fit",
            "near_duplicates",
            "diversity",
            "rerank",
        )
        return Query(
            references=self._weighted(references),
            words=words,
            not_references=tuple(Reference(picture) for picture in self.not_images),
            titles=not self.no_titles,
            **{name: getattr(self, name) for name in same},
        )

    def _weighted(self, references: list[Reference]) -> tuple[Reference, ...]:
        if self.weights is None:
            return tuple(references)
        try:
            weights = [float(weight) for weight in self.weights.split(",")]
        except ValueError:
            weights = []
        if len(weights) != len(references):
            raise click.UsageError(
                f"--weights needs one number for each of the {len(references)} pictures, such as 2,1; "
                f"got {self.weights!r}"
            )
        return tuple(replace(one, weight=weight) for one, weight in zip(references, weights, strict=True))


def _read_arguments(asked: tuple[str, ...]) -> tuple[list[Path], str]:
    if len(asked) > 2:
        raise click.UsageError(
            "expected a picture and words; put the words in quotes, more pictures in --image FILE"
        )
    photos = [Path(asked[0])] if asked and (len(asked) == 2 or _is_picture(asked[0])) else []
    if len(asked) == 2:
        _check_pair(*asked)
    return photos, "".join(asked[len(photos) :])


def _is_picture(argument: str) -> bool:
    """Whether a lone argument names a picture; words otherwise."""
    named_so = _has_picture_ending(argument)
    if named_so and not os.path.isfile(argument):
        raise click.UsageError(
            f"there is no picture {argument!r}; if these are words, say --text {argument!r}"
        )
    if os.path.isfile(argument) and not named_so:
        raise click.UsageError(
            f"{argument!r} is a file, but not named like a picture: say --image {argument!r},"
            " or --text if these are words"
        )
    return named_so


def _check_pair(photo: str, words: str) -> None:
    if not os.path.isfile(photo):
        raise click.UsageError(
            f"there is no picture {photo!r}; if all of it is words, put them in one pair of quotes"
        )
    if _has_picture_ending(words) and os.path.isfile(words):
        raise click.UsageError(
            f"{words!r} is a picture, not words: give further pictures as --image {words!r}"
        )


def _has_picture_ending(argument: str) -> bool:
    from image2sentence.images import EXTENSIONS, ending_of

    return ending_of(argument) in EXTENSIONS
