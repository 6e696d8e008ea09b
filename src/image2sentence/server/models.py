"""What requests and answers hold; the OpenAPI description is made from this."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

MOST_RESULTS = 100
DEEPEST_OFFSET = 10_000
LONGEST_TEXT = 1_000


class ReferenceFields(BaseModel):
    """How a form names its reference, if it does not bring the picture itself."""

    model_config = ConfigDict(extra="forbid")

    item: int | None = Field(None, ge=0, description="Id of a picture of the gallery.", examples=[12])
    sentence: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="Name of a sentence from an earlier answer, which saves sending the picture again.",
    )


class SearchFields(ReferenceFields):
    """The fields of a search."""

    text: str = Field(
        "",
        max_length=LONGEST_TEXT,
        description="What should be different; without a reference, what to look for.",
        examples=["but red"],
    )
    k: int = Field(24, ge=1, le=MOST_RESULTS, description="Results wanted.")
    offset: int = Field(0, ge=0, le=DEEPEST_OFFSET, description="Results to pass over, for paging.")


class Problem(BaseModel):
    """Why a request was not answered, and what to do."""

    error: str


class Item(BaseModel):
    """A picture of the gallery; width and height in pixels, upright."""

    id: int
    width: int | None
    height: int | None


class Items(BaseModel):
    """A page of the gallery; `total` counts all of it."""

    total: int
    items: list[Item]


class Result(Item):
    """A result: `rank` from 1, `score` the dot product (-1 to 1)."""

    rank: int
    score: float


class NotUnderstood(BaseModel):
    """A word that the model does not know, and known words that are spelt alike."""

    word: str
    near: list[str]


class SearchAnswer(BaseModel):
    """A page of results; `sentence` names what the reference became, None without one.

    `total` counts all pictures that were ranked. `milliseconds` has `read_ms` (the reference to a sentence,
    almost nothing when remembered), `encode_ms` (sentence and words to a query vector) and `search_ms`.
    """

    sentence: str | None
    total: int
    offset: int
    results: list[Result]
    not_understood: list[NotUnderstood]
    milliseconds: dict[str, float]


class PseudoWord(BaseModel):
    """One pseudo-word: rows of an attention map that sums to 1, and its gate (0: silent, 1: fully heard)."""

    attention: list[list[float]]
    gate: float


class SentenceAnswer(BaseModel):
    """A picture's sentence: its name, its pseudo-words, and which part of the picture their maps cover.

    `region` is left, top, width and height in parts (0 to 1) of the upright picture.
    """

    sentence: str
    pseudo_words: list[PseudoWord]
    region: tuple[float, float, float, float]


class Health(BaseModel):
    """That the server answers, and how many pictures it has."""

    status: str
    pictures: int
