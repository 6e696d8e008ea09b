"""Lists in the order of a column or fact, and the values of columns, as the page asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the server needs the [server] extra")

from fastapi.testclient import TestClient
from test_server import Reader

from image2sentence.errors import QueryError
from image2sentence.gallery import Gallery
from image2sentence.gallery.filters.language import Value
from image2sentence.gallery.records import Content, FileEntry
from image2sentence.server.app import create_app
from image2sentence.server.facets import MAX_VALUE_LENGTH
from image2sentence.server.schemas import MAX_RESULTS, MAX_TEXT_LENGTH
from image2sentence.server.service import SearchService
from image2sentence.server.sorting import sorted_ids

COUNT = 12
DAY = 86_400 * 10**9
TITLES = ["pear", "Apple", "apple", None, "Äpfel", "apple", None, "Zebra", "10", "9", "pear", "éclair"]
PRICES = [3, 2.5, None, 3, -1, 0, 2.5, 10**9, None, 3, 0.1, 2]
SOLD = [True, False, None, False, True, None, True, False, True, False, True, None]
TAKEN = ["2021-05-01T00:00:00", None, "1999-12-31T23:59:59"] + [None] * 9


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    """Pictures 1 to 12; the fourth's file could not be looked at, and their times run backwards."""
    encoder = Reader()
    vectors = np.random.default_rng(1).normal(size=(COUNT, encoder.width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with Gallery.create(tmp_path / "g", encoder.fingerprint, encoder.width) as opened:
        opened.add_columns({"title": "text", "price": "number", "sold": "boolean", "taken": "date"})
        contents = [Content(bytes([n]) * 32, 10 + n % 3, 9, one) for n, one in enumerate(vectors)]
        entries = [
            FileEntry(
                f"{n:02}.jpg",
                -1 if n == 3 else 100 - n,
                -1 if n == 3 else (COUNT - n) * DAY,
                one.sha256,
                metadata=values_of(n),
            )
            for n, one in enumerate(contents)
        ]
        opened.commit(opened.add_root(Path("/pictures")), contents, entries)
        yield opened


def values_of(row: int) -> dict[str, Value]:
    columns: dict[str, Sequence[Any]] = {"title": TITLES, "price": PRICES, "sold": SOLD, "taken": TAKEN}
    return {name: values[row] for name, values in columns.items() if values[row] is not None}


class WithoutColumns:
    """The same gallery as a backend that cannot read a column at once."""

    def __init__(self, gallery: Gallery) -> None:
        for name in ("columns", "metadata", "pictures_of", "roots"):
            setattr(self, name, getattr(gallery, name))


@pytest.fixture(params=["at once", "row by row"])
def store(request: pytest.FixtureRequest, gallery: Gallery) -> Any:
    return gallery if request.param == "at once" else WithoutColumns(gallery)


def key(value: Value) -> Any:
    return (value.casefold(), value) if isinstance(value, str) else value


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("column", ["title", "price", "sold", "taken"])
def test_columns_sort_stably_with_missing_values_last(store: Any, column: str, descending: bool) -> None:
    ids = [*range(7, COUNT + 1), *range(1, 7)]  # not ascending: equals keep this order
    values = {one: values_of(one - 1).get(column) for one in ids}
    known = [one for one in ids if values[one] is not None]
    expected = sorted(known, key=lambda one: key(values[one]), reverse=descending)
    expected += [one for one in ids if values[one] is None]
    assert sorted_ids(store, ids, column, descending=descending).tolist() == expected


def test_text_goes_without_regard_to_case_and_numbers_by_value(store: Any) -> None:
    ids = range(1, COUNT + 1)
    titles = [TITLES[one - 1] for one in sorted_ids(store, ids, "title")]
    assert titles[:5] == ["10", "9", "Apple", "apple", "apple"]
    assert titles[-2:] == [None, None]
    assert [PRICES[one - 1] for one in sorted_ids(store, ids, "price")[:4]] == [-1, 0, 0.1, 2]


def test_facts_sort_with_what_is_unknown_last(store: Any) -> None:
    ids = range(1, COUNT + 1)
    assert sorted_ids(store, ids, "@size").tolist() == [*range(COUNT, 4, -1), 3, 2, 1, 4]
    assert sorted_ids(store, ids, "@size", descending=True).tolist() == [1, 2, 3, *range(5, COUNT + 1), 4]
    assert sorted_ids(store, ids, "@width").tolist() == [1, 4, 7, 10, 2, 5, 8, 11, 3, 6, 9, 12]
    assert sorted_ids(store, ids, "@name", descending=True).tolist() == [*range(COUNT, 0, -1)]


def test_dates_are_those_on_which_pictures_were_taken_where_that_is_known(store: Any) -> None:
    assert sorted_ids(store, range(1, COUNT + 1), "@date").tolist() == [*range(COUNT, 4, -1), 2, 3, 1, 4]


def test_what_cannot_be_sorted_by_is_refused(store: Any) -> None:
    for name in ("nothing", "@path", "@folder", ""):
        with pytest.raises(QueryError, match="there is no column"):
            sorted_ids(store, [1], name)


@pytest.fixture
def client(gallery: Gallery) -> Iterator[TestClient]:
    with TestClient(create_app(SearchService(Reader(), gallery))) as client:
        yield client


def values(client: TestClient, **asked: Any) -> Any:
    answer = client.get("/v1/values", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_values_come_with_those_first_that_begin_with_the_text(client: TestClient) -> None:
    assert values(client, column="title") == {
        "values": [["apple", 2], ["pear", 2]]
        + [[one, 1] for one in ("10", "9", "Apple", "Zebra", "Äpfel", "éclair")],
        "distinct": 8,
    }
    assert values(client, column="title", text=" A ")["values"] == [
        ["apple", 2],
        ["Apple", 1],
        ["pear", 2],
        ["Zebra", 1],
        ["éclair", 1],
    ]
    assert values(client, column="title", text="ÄP")["values"] == [["Äpfel", 1]]
    assert values(client, column="title", text="none") == {"values": [], "distinct": 8}
    assert values(client, column="title", k=1) == {"values": [["apple", 2]], "distinct": 8}


def test_values_of_every_type_can_be_filtered_by(client: TestClient) -> None:
    for column, write in (("title", "'{}'"), ("price", "{}"), ("sold", "{}"), ("taken", "'{}'")):
        for value, count in values(client, column=column)["values"]:
            text = str(value).lower() if isinstance(value, bool) else value
            listed = client.get("/v1/items", params={"where": f"{column} = {write.format(text)}"}).json()
            assert listed.get("total") == count, (column, value, listed)


def test_values_follow_the_gallery_and_very_long_ones_are_left_out(
    client: TestClient, gallery: Gallery
) -> None:
    assert values(client, column="price", text="0")["distinct"] == 7
    gallery.set_metadata(
        [(1, {"title": "x" * (MAX_VALUE_LENGTH + 1)}), (2, {"title": "x" * MAX_VALUE_LENGTH})]
    )
    client.app.state.serving.service._looked -= 10  # type: ignore[attr-defined]  # as some seconds later
    assert values(client, column="title", text="xx")["values"] == [["x" * MAX_VALUE_LENGTH, 1]]


@pytest.mark.parametrize(
    "asked",
    [
        {"column": "nothing"},
        {"column": "@name"},
        {},
        {"column": "title", "k": 0},
        {"column": "title", "k": MAX_RESULTS + 1},
        {"column": "title", "text": "x" * (MAX_TEXT_LENGTH + 1)},
    ],
)
def test_values_that_cannot_be_told_are_refused(client: TestClient, asked: dict[str, Any]) -> None:
    answer = client.get("/v1/values", params=asked)
    assert (answer.status_code, list(answer.json())) == (422, ["error"])


def test_a_page_of_a_sorted_and_filtered_list_goes_on_where_the_last_one_ended(client: TestClient) -> None:
    asked = {"where": "price > 0", "sort": "price", "descending": True}
    whole = [one["id"] for one in client.get("/v1/items", params=asked).json()["items"]]
    pages = [
        one["id"]
        for offset in range(0, len(whole), 3)
        for one in client.get("/v1/items", params=asked | {"k": 3, "offset": offset}).json()["items"]
    ]
    assert pages == whole == [8, 1, 4, 10, 2, 7, 12, 11]
