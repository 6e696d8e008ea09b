"""What requests and answers hold; the OpenAPI description is made from this."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from image2sentence.gallery.filters.language import MAX_FILTER_LENGTH, ColumnType, Value
from image2sentence.query.results import FITS_FROM

MAX_RESULTS = 100
MAX_SIMILAR = 24
MAX_OFFSET = 10_000
MAX_LIST_OFFSET = 100_000_000
MAX_TEXT_LENGTH = 1_000
MAX_NEGATIVES = 8
MAX_REFERENCES = 8
MAX_VECTOR_WIDTH = 8_192


def _decoded(value: object) -> object:
    """Text -> the bytes that it writes in base64; all else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("expected base64, or a list of numbers") from None


Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_LENGTH)]
NegativeText = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT_LENGTH)
]
ItemId = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Weight = Annotated[float, Field(ge=0.01, le=100)]
Part = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Numbers = Annotated[list[Finite], Field(min_length=1, max_length=MAX_VECTOR_WIDTH)]
Vector = Annotated[
    Annotated[bytes, Field(max_length=4 * MAX_VECTOR_WIDTH)] | Numbers,
    BeforeValidator(_decoded, str | list[float]),
]


class ReferenceFields(BaseModel):
    """How a form names its reference, if it does not bring the picture itself."""

    model_config = ConfigDict(extra="forbid")

    item: ItemId | None = Field(None, description="Id of a picture of the gallery.", examples=[12])
    sentence: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="Name of a sentence from an earlier answer, which saves sending the picture again.",
    )


class SearchFields(ReferenceFields):
    """The fields of a search."""

    text: Text = Field(
        "",
        description="What should be different; without a reference, what to look for.",
        examples=["but red"],
    )
    vector: Vector | None = Field(
        None,
        description="A ready query vector in place of reference and text: base64 of its little-endian float32 numbers, "
        "or in JSON also a list.",
        examples=[None],
    )
    also_item: list[ItemId] = Field(
        [],
        max_length=MAX_REFERENCES,
        description="Ids of gallery pictures that are references too.",
        examples=[[]],
    )
    also_sentence: list[Sha256] = Field(
        [],
        max_length=MAX_REFERENCES,
        description="Names of sentences, from earlier answers, that are references too.",
        examples=[[]],
    )
    weight: list[Weight] = Field(
        [],
        max_length=MAX_REFERENCES,
        description="Shares of the references, one each: of the reference itself, of each `also_item`, of each "
        "`also_sentence`. Without them all count the same.",
        examples=[[]],
    )
    balance: Part = Field(
        0.5, description="0 the picture alone, 0.5 as the model composes both, 1 the words alone."
    )
    not_text: list[NegativeText] = Field(
        [],
        max_length=MAX_NEGATIVES,
        description="What should not be shown; each a wish of its own.",
        examples=[["dots"]],
    )
    not_item: list[ItemId] = Field(
        [],
        max_length=MAX_NEGATIVES,
        description="Ids of pictures that results should not look like.",
        examples=[[]],
    )
    muted: list[Annotated[int, Field(ge=1)]] = Field(
        [],
        max_length=64,
        description="Numbers, from 1, of pseudo-words that are left out of the reference's own sentence.",
        examples=[[]],
    )
    where: str | None = Field(
        None,
        max_length=MAX_FILTER_LENGTH,
        description="Condition on the gallery's metadata, such as `colour = 'red' and price < 50`.",
        examples=[None],
    )
    exclude: list[ItemId] = Field(
        [],
        max_length=MAX_NEGATIVES,
        description="Ids of pictures to leave out, with their copies.",
        examples=[[]],
    )
    exclude_content: list[Sha256] = Field(
        [],
        max_length=MAX_REFERENCES,
        description="SHA-256 of picture files whose copies in the gallery are to be left out.",
        examples=[[]],
    )
    diversity: Part = Field(0.0, description="0 by score alone, 1 as different from each other as can be.")
    near_duplicates: Part | None = Field(
        None, description="Hide pictures whose dot product with a better result is at least this."
    )
    min_fit: Finite | None = Field(None, description="Show no results of a lower fit.")
    titles: bool = Field(
        True, description="Words also count where they stand in a picture's name or text metadata."
    )
    k: int = Field(24, ge=1, le=MAX_RESULTS, description="Results wanted.")
    offset: int = Field(0, ge=0, le=MAX_OFFSET, description="Results to pass over, for paging.")


class AnswerModel(BaseModel):
    """What is answered has all of its fields, and is described so."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


class Problem(BaseModel):
    """Why a request was not answered, and what to do."""

    error: str


class Item(AnswerModel):
    """A picture of the gallery.

    `name` is the file's; `path` its place, None where the server does not show it; `size` in bytes, None where it is
    not known. Width and height in pixels are of the upright picture; `metadata` are the values that its columns have.
    `missing` says whether the file is not there now; None in results of a search, which do not look.
    """

    id: int
    name: str
    path: str | None = None
    size: int | None = None
    width: int | None
    height: int | None
    metadata: dict[str, Value] = {}
    missing: bool | None = None


class Values(AnswerModel):
    """Values of a column with how often each comes, and how many different ones the column has."""

    values: list[tuple[Value, int]]
    distinct: int


class Items(AnswerModel):
    """A page of the gallery; `total` counts all of it, or all that meets the condition."""

    total: int
    items: list[Item]


class Result(Item):
    """A result: `rank` from 1, `score` the dot product (-1 to 1) and what words in titles add to it, so beyond 1 too.

    `fit` is the score in terms of what the query scores in this gallery, None in small ones; `alike` are ids of
    near-duplicates hidden behind the result.
    """

    rank: int
    score: float
    fit: float | None
    alike: list[int]


class SimilarItem(Item):
    """A picture beside another one: `score` is the dot product of their gallery vectors, -1 to 1."""

    score: float


class Similar(AnswerModel):
    """What a picture is like: near-duplicates of it (score 0.98 and more), and others; best first."""

    near_duplicates: list[SimilarItem]
    similar: list[SimilarItem]


class NotUnderstood(AnswerModel):
    """A word that the model does not know, and the known words that it may be a misspelling of."""

    word: str
    near: list[str]


class Negation(AnswerModel):
    """A phrase of the words that a model does not understand, and what to send as `not_text` in its place."""

    phrase: str
    not_text: str


class SearchAnswer(AnswerModel):
    """A page of results; `sentence` names what the reference became, None without one.

    `total` counts all pictures that were ranked, and `more` says whether some come after this page. `fits` is False
    where nothing reaches `min_fit`, None where that was not asked; `fits_from` is the fit from which a result usually
    does: half of it is near. `best_fit` is the best one's. `understood` is False, and there are no results,
    where words alone were asked with, the model knows none of them, and no picture's text has one. `milliseconds` has
    `read_ms` (the reference to a sentence, almost nothing when remembered), `encode_ms` (sentence and words to a query
    vector) and `search_ms`.
    """

    sentence: str | None
    total: int
    offset: int
    more: bool
    fits: bool | None
    fits_from: float = FITS_FROM
    best_fit: float | None = None
    understood: bool = True
    results: list[Result]
    not_understood: list[NotUnderstood]
    hints: list[Negation] = []
    milliseconds: dict[str, float]


class Near(AnswerModel):
    """A word or phrase, and the cosine of its meaning and a sentence's, -1 to 1; in `adds` a difference of two."""

    word: str
    nearness: float


class PseudoWord(AnswerModel):
    """One pseudo-word: rows of an attention map that sums to 1, its gate (0: silent, 1: fully used), near words.

    `near` are words near to it alone, `adds` those that the sentence is less near to without it.
    """

    attention: list[list[float]]
    gate: float
    near: list[Near]
    adds: list[Near] = []


class SentenceAnswer(AnswerModel):
    """A picture's sentence: its name, its pseudo-words, and which part of the picture their maps cover.

    `reads_as` are the phrases nearest to the whole sentence, best first; empty where none stands out. `region` is left,
    top, width and height in parts (0 to 1) of the upright picture.
    """

    sentence: str
    reads_as: list[Near] = []
    pseudo_words: list[PseudoWord]
    region: tuple[float, float, float, float]


class Health(AnswerModel):
    """That the server answers, and how many pictures it has."""

    status: str
    pictures: int


class Column(AnswerModel):
    """A metadata column: of numbers and dates the least and the greatest value, of others what there is and how often.

    `values` is empty where there are too `many` different ones to choose among: `GET /v1/values` searches them.
    """

    name: str
    type: ColumnType
    least: Value | None
    greatest: Value | None
    values: list[tuple[Value, int]]
    many: bool = False


class Answering(AnswerModel):
    """Which model answers, and what it knows in a few words."""

    name: str
    knows: str


class About(AnswerModel):
    """The gallery and what the server can do.

    `model` is None for a model of one's own. `device` says whether a browser may encode queries itself, `originals`
    whether paths are shown and original files given out, `local` whether this client may index folders and open files
    of the server's computer (`/v1/local`). `fetches_from` are hosts that `/v1/fetch` has pictures from.
    """

    pictures: int
    columns: list[Column]
    device: bool
    originals: bool = False
    local: bool = False
    model: Answering | None = None
    fetches_from: list[str] = []
