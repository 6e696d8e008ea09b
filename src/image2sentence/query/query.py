"""Description of a query, checked when it is made."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image

from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import QueryError
from image2sentence.gallery.filters.language import Filter
from image2sentence.images import PathLike, printable

Asked: TypeAlias = "PathLike | bytes | Image.Image | Reference"
"""A picture to ask with: a file, a file's content, a decoded RGB picture, or a `Reference`."""

NEUTRAL = 0.5
"""The balance at which pictures and words are composed, and nothing else is done to them."""


@dataclass(frozen=True, eq=False)
class Reference:
    """One picture of a query. What is asked with is its sentence, else its picture, else the gallery's item.

    Attributes:
        picture: A file, a file's content, or a decoded RGB picture.
        sentence: (L', w) float32, read from a picture before; fewer rows than the model's L are allowed.
        item: Id of a picture of the gallery; left out of the results where references are.
        sha256: Of the file's content, 32 bytes, so that its copies in the gallery can be left out too. Computed where
            `picture` is a file or its content.
        weight: Its share among several pictures, greater than 0.
    """

    picture: PathLike | bytes | Image.Image | None = None
    sentence: Vectors | None = None
    item: int | None = None
    sha256: bytes | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.picture is None and self.sentence is None and self.item is None:
            raise QueryError("a reference needs a picture, a sentence, or the id of a picture of the gallery")
        if not 0 < self.weight <= sys.float_info.max:
            raise QueryError(f"a picture's weight is a number greater than 0, got {self.weight}")
        if self.sentence is not None and (self.sentence.ndim != 2 or not len(self.sentence)):
            raise QueryError(f"expected a sentence of shape (L, w), got {self.sentence.shape}")

    @classmethod
    def of(cls, asked: Asked) -> Reference:
        """A reference from anything that can be asked with; a reference stays what it is."""
        return asked if isinstance(asked, Reference) else cls(asked)


@dataclass(frozen=True, eq=False, kw_only=True)
class Query:
    """A question to a gallery.

    Attributes:
        references: What the result should look like.
        words: How it should differ (with references), or what it should show (without).
        not_references: What it should not look like.
        not_words: What it should not show; each text is a negative of its own.
        balance: 0 the references only, 0.5 the model's own composition of both, 1 the words only. Of no effect where
            only one of them is given.
        vector: (d,) or (1, d) float32, a ready query vector in place of references, words and balance.
        k: Results wanted, at least 1.
        offset: Results to pass over, for paging.
        where: A filter that every result fulfils; see `image2sentence.gallery.filters.language`.
        exclude: Ids of pictures that may not appear, nor their copies.
        keep_references: Whether the asked pictures themselves may be among the results. None: only without words; who
            asks for a change does not ask for the same one.
        min_fit: Results of a lower `Result.fit` are not shown. None shows all.
        near_duplicates: Hide a picture whose dot product with a better result is at least this, 0 to 1; at 1 only
            exact copies are hidden. None hides nothing.
        diversity: 0 (by score alone) to 1 (as different from each other as can be).
        rerank: How many of the best results the matching encoder puts in a new order; 0 leaves them.
        titles: Whether words also count where they stand in a picture's name or text metadata; see
            `image2sentence.query.text_matches`. Of no effect in galleries that keep no words.

    Raises:
        QueryError: a value that cannot be, or nothing asked.
    """

    references: tuple[Reference, ...] = ()
    words: str = ""
    not_references: tuple[Reference, ...] = ()
    not_words: tuple[str, ...] = ()
    balance: float = NEUTRAL
    vector: Vectors | None = None
    k: int = 10
    offset: int = 0
    where: str | Filter | None = None
    exclude: tuple[int, ...] = ()
    keep_references: bool | None = None
    min_fit: float | None = None
    near_duplicates: float | None = None
    diversity: float = 0.0
    rerank: int = 0
    titles: bool = True

    def __post_init__(self) -> None:
        self._check_asked()
        for name, least in (("k", 1), ("offset", 0), ("rerank", 0)):
            if getattr(self, name) < least:
                raise QueryError(f"{name} is at least {least}, got {getattr(self, name)}")
        for name in ("balance", "diversity", "near_duplicates"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise QueryError(f"{name} is a number from 0 to 1, got {value}")
        if self.rerank and self.vector is not None:
            raise QueryError(
                "rerank reads the query's pictures and words, which a ready vector does not have"
            )
        if self.min_fit is not None and not abs(self.min_fit) <= sys.float_info.max:  # so not for NaN
            raise QueryError(f"min_fit is a finite number, got {self.min_fit}")
        if not all(text.strip() for text in self.not_words):
            raise QueryError("not_words holds a text without words: leave it out")
        for text in (self.words, *self.not_words):
            check_words(text)

    def _check_asked(self) -> None:
        asked = bool(self.references or self.words.strip())
        if self.vector is None and not asked:
            against = " besides what is not wanted" if self.not_references or self.not_words else ""
            raise QueryError(f"expected a picture, words, or both{against}; got neither")
        if self.vector is not None and asked:
            raise QueryError(
                "a ready query vector stands in place of pictures and words: give one or the other"
            )
        if self.vector is not None and not (np.isfinite(self.vector).all() and np.any(self.vector)):
            raise QueryError(
                "the query vector has no direction: all of it is zero, or a value is not a finite number"
            )

    @classmethod
    def of(
        cls,
        pictures: Sequence[Asked] = (),
        words: str = "",
        *,
        not_references: Sequence[Asked] = (),
        not_words: Sequence[str] = (),
        balance: float = NEUTRAL,
        vector: Vectors | None = None,
        k: int = 10,
        offset: int = 0,
        where: str | Filter | None = None,
        exclude: Sequence[int] = (),
        keep_references: bool | None = None,
        min_fit: float | None = None,
        near_duplicates: float | None = None,
        diversity: float = 0.0,
        rerank: int = 0,
        titles: bool = True,
    ) -> Query:
        """A query with bare pictures as references and negatives; the rest are its attributes.

        Raises:
            QueryError: as `Query`, and where one picture or text is given in place of a list of them.
        """
        for name, value in (
            ("pictures", pictures),
            ("not_references", not_references),
            ("not_words", not_words),
        ):
            if isinstance(value, str | bytes | os.PathLike | Image.Image | Reference):
                raise QueryError(f"{name} is a list: put the one in brackets, [...]")
        return cls(
            references=tuple(map(Reference.of, pictures)),
            words=words,
            not_references=tuple(map(Reference.of, not_references)),
            not_words=tuple(not_words),
            balance=balance,
            vector=vector,
            k=k,
            offset=offset,
            where=where,
            exclude=tuple(exclude),
            keep_references=keep_references,
            min_fit=min_fit,
            near_duplicates=near_duplicates,
            diversity=diversity,
            rerank=rerank,
            titles=titles,
        )

    @property
    def leaves_references_out(self) -> bool:
        """Whether the asked pictures may not be among the results."""
        return bool(self.words.strip()) if self.keep_references is None else not self.keep_references


def check_words(words: str) -> None:
    """Raises QueryError for what no tokenizer reads: half of a surrogate pair, as bytes other than UTF-8 become."""
    try:
        words.encode()
    except UnicodeEncodeError as error:
        raise QueryError(
            f"expected words in UTF-8, got '{printable(words[:60])}': leave out what is something else"
        ) from error
