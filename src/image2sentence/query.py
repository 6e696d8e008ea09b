"""Asking a gallery: pictures and words become one query vector, and the gallery is ranked by it.

The command line asks through this, and whatever else serves people can: one engine holds a model and a
gallery, and answers any number of queries.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from image2sentence.encoders.base import Encoder, Vectors
from image2sentence.encoders.folder import TOKENIZER, ModelFolder
from image2sentence.errors import ImageError, QueryError
from image2sentence.gallery.indexing import AT_LEAST
from image2sentence.gallery.searcher import Hit
from image2sentence.gallery.store import Gallery, Picture
from image2sentence.images import PathLike, decode_image, display_path, load_image, read_regular

Asked: TypeAlias = "PathLike | bytes | Image.Image | Reference"
"""A picture to ask with: a file, a file's content, a decoded RGB picture, or a `Reference`."""

_SHORTEST_MEAN = 1e-4
_NEAR_SPELLINGS = 3
_PLATE = (228, 228, 231)


class Reference(NamedTuple):
    """A decoded RGB picture of a query, and the SHA-256 of its file's content where there is a file."""

    picture: Image.Image
    sha256: bytes | None = None


class Result(NamedTuple):
    """One ranked picture: `rank` from 1, `score` the dot product (-1 to 1), size in pixels."""

    rank: int
    score: float
    id: int
    path: Path
    width: int | None
    height: int | None


class UnknownWord(NamedTuple):
    """A word of the query that the model does not know, and known words that are spelt alike."""

    word: str
    near: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """A query's ranked pictures, the words that were not understood, and milliseconds by stage.

    `milliseconds` has `read_ms` (decoding the references), `encode_ms` (references and words to a query
    vector) and `search_ms` (ranking, and looking up the results).
    """

    references: tuple[Image.Image, ...]
    words: str
    results: tuple[Result, ...]
    not_understood: tuple[UnknownWord, ...]
    milliseconds: dict[str, float]

    def draw(self, right: Collection[Path] | None = None) -> Image.Image:
        """A contact sheet: RGB; `right` are the pictures to tick, for queries whose answers are known."""
        from image2sentence.sheet import Shown, contact_sheet

        shown = []
        for result in self.results:
            picture, caption = _shown(result.path)
            shown.append(
                Shown(picture, caption, result.score, None if right is None else result.path in right)
            )
        return contact_sheet(self.references, self.words, shown)


@runtime_checkable
class KnowsWords(Protocol):
    """An encoder that can tell which words it does not know."""

    folder: ModelFolder

    def unknown_words(self, text: str) -> list[str]:
        """The words that are not in the vocabulary, in order, once each."""
        ...


def compose(encoder: Encoder, pictures: Sequence[Image.Image], words: str) -> Vectors:
    """Pictures and words -> (1, d) float32 query vector of length 1.

    Without pictures this is text-to-image search, without words image search. Each of several pictures is
    composed with the words, and the query is the mean of these vectors, scaled to length 1.

    Raises QueryError where neither is given, where the words are too long, or where the pictures cancel out.
    """
    if not pictures and not words.strip():
        raise QueryError("expected a picture, words, or both; got neither")
    if not pictures:
        return encoder.encode_queries(None, [words])
    vectors = encoder.encode_queries(encoder.encode_sentences(pictures), [words] * len(pictures))
    mean = vectors.mean(axis=0, keepdims=True)
    length = float(np.linalg.norm(mean))
    if length < _SHORTEST_MEAN:
        raise QueryError("the pictures have nothing in common (their mean is zero): ask with fewer of them")
    return np.asarray(mean / length, np.float32)


class QueryEngine:
    """A model and a gallery, held ready: the gallery's vectors are read once, when the engine is made.

    Args:
        encoder: The model.
        gallery: Stays open as long as the engine is used; its owner closes it.

    Raises:
        GalleryError: the gallery is of another model, or damaged.
    """

    def __init__(self, encoder: Encoder, gallery: Gallery) -> None:
        gallery.require(encoder.fingerprint, encoder.width)
        self.encoder = encoder
        self.gallery = gallery
        self._searcher = gallery.searcher()

    def prepare(self, *, pictures: bool = True) -> None:
        """Load what a query needs of the model, by asking something small; `pictures` False: words only."""
        blank = [Image.new("RGB", (8, 8))] if pictures else []
        compose(self.encoder, blank, "a")

    def search(
        self,
        pictures: Sequence[Asked] = (),
        words: str = "",
        k: int = 10,
        *,
        keep_references: bool | None = None,
    ) -> Answer:
        """The k best pictures for some pictures, some words, or both; see `compose`.

        Args:
            pictures: What the result should look like, as files, their content, or decoded RGB pictures.
            words: How the result should differ (with pictures), or what it should show (without).
            k: Results wanted, at least 1.
            keep_references: Whether the asked pictures themselves (files of the same content) may be among
                the results. None: only without words; who asks for a change does not ask for the same one.

        Raises:
            ImageError: a picture cannot be read.
            QueryError: neither pictures nor words, or words too long.
        """
        spent: dict[str, float] = {}
        with _timed(spent, "read_ms"):
            references = [_reference(picture) for picture in pictures]
        decoded = tuple(reference.picture for reference in references)
        with _timed(spent, "encode_ms"):
            vector = compose(self.encoder, decoded, words)
        with _timed(spent, "search_ms"):
            keep = not words.strip() if keep_references is None else keep_references
            results = self._ranked(vector, k, set() if keep else self._contents(references))
        return Answer(decoded, words, results, words_not_understood(self.encoder, words), spent)

    def _contents(self, references: Sequence[Reference]) -> set[int]:
        """Numbers of the gallery's contents that are the references' own."""
        found = (self.gallery.find_content(r.sha256) for r in references if r.sha256 is not None)
        return {content for content in found if content is not None}

    def _ranked(self, vector: Vectors, k: int, unwanted: Collection[int]) -> tuple[Result, ...]:
        """The best k; asks for more until enough remain without the unwanted contents."""
        depth = k + len(unwanted)
        while True:
            hits = self._searcher.search(vector, depth)[0]
            kept = [
                (hit, picture) for hit, picture in self._looked_up(hits) if picture.content_id not in unwanted
            ]
            if len(kept) >= k or len(hits) < depth:
                return tuple(_result(place, *pair) for place, pair in enumerate(kept[:k], 1))
            depth *= 2

    def _looked_up(self, hits: Sequence[Hit]) -> Iterator[tuple[Hit, Picture]]:
        for hit in hits:
            try:
                yield hit, self.gallery.picture(int(str(hit.id)))
            except QueryError:
                continue  # forgotten by an indexing run since the engine read the vectors


def words_not_understood(encoder: Encoder, words: str) -> tuple[UnknownWord, ...]:
    """The words that the encoder does not know, with near spellings; empty for encoders that cannot tell."""
    if not words or not isinstance(encoder, KnowsWords):
        return ()
    unknown = encoder.unknown_words(words)
    known = _vocabulary(encoder.folder) if unknown else []
    return tuple(UnknownWord(word, _near(word, known)) for word in unknown)


def _vocabulary(folder: ModelFolder) -> list[str]:
    tokens = Tokenizer.from_str(folder.read(TOKENIZER).decode("utf-8")).get_vocab()
    return sorted(token for token in tokens if token.isalpha())


def _near(word: str, known: Sequence[str]) -> tuple[str, ...]:
    return tuple(difflib.get_close_matches(word.lower(), known, n=_NEAR_SPELLINGS, cutoff=0.7))


def _reference(picture: Asked) -> Reference:
    if isinstance(picture, Reference):
        return picture
    if isinstance(picture, Image.Image):
        return Reference(picture.convert("RGB"))
    try:
        data = picture if isinstance(picture, bytes) else read_regular(picture)[0]
        return Reference(decode_image(data, at_least=AT_LEAST).picture, hashlib.sha256(data).digest())
    except ImageError as error:
        name = "the picture" if isinstance(picture, bytes) else display_path(picture)
        raise ImageError(f"{name}: {error}") from error


def _result(rank: int, hit: Hit, picture: Picture) -> Result:
    return Result(rank, hit.score, picture.id, picture.path, picture.width, picture.height)


def _shown(path: Path) -> tuple[Image.Image, str]:
    """A result's picture and caption; a grey plate where the file is gone or changed since it was indexed."""
    name = os.path.basename(path)
    try:
        return load_image(path, at_least=AT_LEAST), name
    except ImageError:
        return Image.new("RGB", (AT_LEAST, AT_LEAST), _PLATE), f"{name} (cannot be read now)"


@contextmanager
def _timed(spent: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    spent[stage] = 1000 * (time.perf_counter() - start)
