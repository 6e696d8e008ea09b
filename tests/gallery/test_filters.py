"""The filter language: read rightly, refused with the place, and compiled to what it means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image2sentence.errors import DataError, QueryError
from image2sentence.gallery.filters.in_memory import ColumnCache, SortedColumn, positions
from image2sentence.gallery.filters.language import (
    And,
    ColumnType,
    Comparison,
    Condition,
    Membership,
    Missing,
    Or,
    Pattern,
    Value,
    canonical_date,
    parse_filter,
)
from image2sentence.gallery.records import Content, FileEntry
from image2sentence.gallery.sqlite.gallery import Gallery

COLUMNS: dict[str, ColumnType] = {"price": "number", "colour": "text", "sale": "boolean", "taken": "date"}
WORDS = ["price", "=", "(", ")", "'", "'red'", "and", "or", "not", "in", ",", "is", "null", "5"]
RED = Comparison("colour", "=", "red")
CHEAP = Comparison("price", "<", 50)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("price < 50 and colour = 'red'", And((CHEAP, RED))),
        ("price<50 AND(colour='red')", And((CHEAP, RED))),
        ("price < 50 or colour = 'red' and sale", Or((CHEAP, And((RED, Comparison("sale", "=", True)))))),
        (
            "(price < 50 or colour = 'red') and not sale",
            And((Or((CHEAP, RED)), Comparison("sale", "=", False))),
        ),
        ("not (price >= 50 and colour != 'red')", Or((CHEAP, RED))),
        ("not not price < 50", CHEAP),
        ("price in (1, -2.5, +3e2)", Membership("price", (1, -2.5, 300.0))),
        ("not colour in ('a')", Membership("colour", ("a",), True)),
        ("not colour not in ('a')", Membership("colour", ("a",))),
        ("colour like 'r%'", Pattern("colour", "r%")),
        ("colour not contains '100%_\\'", Pattern("colour", r"%100\%\_\\%", True)),
        ("colour is not null", Missing("colour", True)),
        ("not colour is not null", Missing("colour")),
        ("sale = FALSE", Comparison("sale", "=", False)),
        ("colour = 'it''s -- \"; drop'", Comparison("colour", "=", "it's -- \"; drop")),
        ("\"colour\" <> 'red'", Comparison("colour", "!=", "red")),
    ],
)
def test_filters_are_read(text: str, condition: Condition) -> None:
    found = parse_filter(text)
    assert found.condition == condition
    assert found.checked(COLUMNS).condition == condition
    assert found.text == text


@pytest.mark.parametrize(
    ("text", "at", "reason"),
    [
        ("", 1, "expected the name of a column, got the end"),
        ("price < ", 8, "expected a value"),
        ("price < 50 and", 15, "expected the name of a column"),
        ("price < 50 colour", 12, r"expected `and`, `or` or the end, got `colour`"),
        ("(price < 50", 12, r"expected `\)`"),
        ("price < 50)", 11, r"got `\)`"),
        ("colour = red", 10, "text is written in 'single quotes'"),
        ("colour = 'red", 10, "no second one"),
        ("price = 5; drop table", 10, "; means nothing here"),
        ("price = 12abc", 9, "1 means nothing"),
        ("price in ()", 11, "expected a value"),
        ("colour like 5", 13, "expected text"),
        ("price = null", 9, "say `is null`"),
        ("price is 5", 10, "expected `null`"),
        ("price not 5", 11, "expected a comparison"),
        ("price = 1e999", 9, "too large a number"),
        ("price = 99999999999999999999", 9, "too large a number"),
        (f"price = {'9' * 400}", 9, "too large a number"),  # more than a float holds
        (f"price = -{'9' * 5_000}", 9, "too large a number"),  # more than Python reads as an integer
        ("colr = 'red'", 1, "no column 'colr' .did you mean colour"),
        ("sale and price = 'x'", 10, "price holds numbers, and is compared with 'x'"),
        ("price", 1, "price holds numbers, and is asked to be true or false"),
        ("colour = 5", 1, "colour holds text, and is compared with 5"),
        ("price = true", 1, "price holds numbers"),
        ("price like '5%'", 1, "price holds numbers"),
        ("sale < true", 1, "by = and != only"),
        ("taken = 'yesterday'", 1, "expected one such as '2026'"),
        ("taken = '2026-13'", 1, "expected one such as '2026'"),
        ("taken like '2026%'", 1, "compare it by"),
        ("(" * 60 + "sale" + ")" * 60, 51, "more than 50 parentheses"),
        ("sale and " * 600 + "sale", 4501, "more than 500 tests"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(text: str, at: int, reason: str) -> None:
    with pytest.raises(QueryError, match=reason) as caught:
        parse_filter(text).checked(COLUMNS)
    _, shown, mark = str(caught.value).split("\n")
    assert mark.endswith(f"^ column {at}")
    if len(text) < 60:
        assert shown == f"  {text}"
        assert mark.index("^") == at + 1


@pytest.mark.parametrize(
    "text", ["title = '\ud800'", "title like '%\udcff%'", "title in ('a', '\udfff')", "\ud83d"]
)
def test_half_a_character_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(QueryError, match=r"half a character .*\n.*\n +\^ column \d+"):
        parse_filter(text)
    assert parse_filter("title = '\ud7ff\ue000\U0001f600'").condition == Comparison(
        "title", "=", "\ud7ff\ue000\U0001f600", 0
    )


def test_a_filter_of_endless_length_is_refused() -> None:
    with pytest.raises(QueryError, match="at most 10,000 characters"):
        parse_filter("sale or " * 5_000)


@given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS)).map(" ".join))
@settings(max_examples=150, deadline=None)
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    with suppress(QueryError):
        parse_filter(text).checked(COLUMNS)


def test_dates_are_periods() -> None:
    def bounds(text: str) -> Condition:
        return parse_filter(text).checked(COLUMNS).condition

    may, june = "2024-05-01T00:00:00", "2024-06-01T00:00:00"
    assert bounds("taken = '2024-05'") == And(
        (Comparison("taken", ">=", may), Comparison("taken", "<", june))
    )
    assert bounds("taken != '2024-05'") == Or(
        (Comparison("taken", "<", may), Comparison("taken", ">=", june))
    )
    assert bounds("taken <= '2024-05'") == Comparison("taken", "<", june)
    assert bounds("taken > '2024-05-31'") == Comparison("taken", ">=", june)
    assert bounds("not taken > '2024-05-31 23:59'") == Comparison("taken", "<", june)
    assert bounds("taken in ('2024-05')") == Or((bounds("taken = '2024-05'"),))
    assert canonical_date("2024-02-29") == "2024-02-29T00:00:00"
    assert canonical_date("2024-02-29 07:05:09") == "2024-02-29T07:05:09"
    assert [canonical_date(text) for text in ("2023-02-29", "2024", "12", "2024-02-29 25:00")] == [None] * 4


ROWS: list[dict[str, Value]] = [
    {},
    {"price": 49.99, "colour": "red", "sale": True, "taken": "2024-05-01T00:00:00"},
    {"price": 50, "colour": "Red", "sale": False, "taken": "2024-05-31T23:59:59"},
    {"price": -1, "colour": "dark red", "taken": "2024-06-01T00:00:00"},
    {"colour": "100% [re*d?]", "sale": False},
    {"price": 2**53 + 1, "colour": ""},
    {"price": 0.5, "sale": True, "taken": "1999-12-31T12:00:00"},
]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """Pictures 1 to 7 with the metadata of ROWS, and a failed one."""
    gallery = Gallery.create(tmp_path_factory.mktemp("filtered") / "g", "model-a", 2)
    gallery.add_columns(COLUMNS)
    contents = [Content(bytes([i]) * 32, 1, 1, np.array([1, 0], np.float32)) for i in range(len(ROWS))]
    entries = [
        FileEntry(f"{i}.jpg", 1, 1, c.sha256, metadata=row)
        for i, (c, row) in enumerate(zip(contents, ROWS, strict=True))
    ]
    failed = FileEntry("bad.jpg", 1, 1, reason="bad", metadata={"price": 1})
    gallery.commit(gallery.add_root(Path("/pictures")), contents, [*entries, failed])
    return gallery


def test_metadata_is_read_back(gallery: Gallery) -> None:
    assert gallery.columns() == COLUMNS
    found = gallery.metadata(list(range(len(ROWS), 0, -1)))
    assert found == ROWS[::-1]
    assert [type(value) for row in found for value in row.values()] == [
        type(value) for row in ROWS[::-1] for value in row.values()
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("price < 50", [2, 4, 7]),
        ("price <= 50 and colour = 'red'", [2]),
        ("not price < 50", [3, 6]),
        ("price is null", [1, 5]),
        ("price = 9007199254740993", [6]),
        ("price = 50.0", [3]),
        ("colour like '%red'", [2, 4]),
        ("colour like '_ed'", [2, 3]),
        ("colour contains '[re*d?]'", [5]),
        ("colour contains '%'", [5]),
        ("colour like '100\\% %'", [5]),
        ("colour not contains 'ed'", [5, 6]),
        ("not sale", [3, 5]),
        ("sale or price < 0", [2, 4, 7]),
        ("colour in ('red', 'Red')", [2, 3]),
        ("not colour in ('red', 'Red')", [4, 5, 6]),
        ("taken = '2024-05'", [2, 3]),
        ("taken < '2024'", [7]),
        ("taken >= '2024-05-31 23:59:59'", [3, 4]),
        ("taken not in ('1999', '2024-06')", [2, 3]),
    ],
)
def test_selected_is_what_the_filter_says(gallery: Gallery, text: str, expected: list[int]) -> None:
    assert gallery.select(text).tolist() == expected
    found = gallery.searcher().search(np.array([[1, 0]], np.float32), 10, where=text)[0]
    assert [hit.id for hit in found] == expected


def test_columns_in_memory_follow_the_gallery(tmp_path: Path) -> None:
    with Gallery.create(tmp_path, "model-a", 2) as gallery:
        gallery.add_columns(COLUMNS)
        content = Content(b"1" * 32, 1, 1, np.array([1, 0], np.float32))
        entries = [FileEntry(f"{i}.jpg", 1, 1, content.sha256, metadata={"price": i}) for i in range(50)]
        gallery.commit(gallery.add_root(Path("/p")), [content], entries)
        cache = ColumnCache(gallery, np.arange(1, 51, 2))
        for _ in range(3):
            assert {1, 3, 5} <= set(cache.select("price < 5").tolist()) <= {1, 2, 3, 4, 5}
        gallery.set_metadata([(3, {"price": 100})])
        for _ in range(3):
            assert 3 not in cache.select("price < 5")


def test_filters_of_a_gallery_are_held_to_its_columns(gallery: Gallery) -> None:
    with pytest.raises(QueryError, match="no column 'sizes'"):
        gallery.select("sizes > 5")


values = {
    "price": st.sampled_from([-1, 0.5, 49.99, 50, 51]),
    "colour": st.sampled_from(["red", "Red", "dark red", "", "zebra"]),
    "sale": st.booleans(),
    "taken": st.sampled_from(["1999", "2024-05", "2024-05-31", "2024-05-31 23:59:59"]),
}
patterns = st.sampled_from(["%red", "r%", "_ed", "%", "", "100\\%%", "%[%", "%?%", "%d red"])


def literal(value: Value) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value).lower()


def a_test() -> st.SearchStrategy[str]:
    def of(column: str) -> st.SearchStrategy[str]:
        operators = st.sampled_from(["=", "!="] if column == "sale" else ["=", "!=", "<", "<=", ">", ">="])
        compared = st.builds(lambda o, v: f"{column} {o} {literal(v)}", operators, values[column])
        listed = st.lists(values[column], min_size=1, max_size=3).map(
            lambda v: f"{column} in ({', '.join(map(literal, v))})"
        )
        missing = st.sampled_from([f"{column} is null", f"{column} is not null"])
        return compared | listed | missing

    alike = patterns.map(lambda p: f"colour like '{p}'")
    return st.sampled_from(list(COLUMNS)).flatmap(of) | alike


filters = st.recursive(
    a_test(),
    lambda inner: st.one_of(
        inner.map(lambda f: f"not ({f})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda p: f"({p[0]}) {p[1]} ({p[2]})"),
    ),
    max_leaves=8,
)


@given(filters)
@settings(max_examples=100, deadline=None)
def test_selecting_agrees_with_the_definition(gallery: Gallery, text: str) -> None:
    checked = parse_filter(text).checked(COLUMNS).condition
    expected = [number for number, row in enumerate(ROWS, 1) if holds(checked, row)]
    assert gallery.select(text).tolist() == expected
    cache = ColumnCache(gallery, np.arange(1, len(ROWS) + 1))
    assert [cache.select(text).tolist() for _ in range(2)] == [expected] * 2


@given(filters)
@settings(max_examples=100, deadline=None)
def test_negation_takes_all_others_whose_values_are_there(gallery: Gallery, text: str) -> None:
    selected, others = set(gallery.select(text).tolist()), set(gallery.select(f"not ({text})").tolist())
    assert not selected & others
    full = {number for number, row in enumerate(ROWS, 1) if len(row) == len(COLUMNS)}
    assert full <= selected | others


def holds(condition: Condition, row: Mapping[str, Value]) -> bool:
    """What a checked condition means, test by test."""
    if isinstance(condition, And | Or):
        return (all if isinstance(condition, And) else any)(holds(part, row) for part in condition.parts)
    value = row.get(condition.column)
    if isinstance(condition, Missing):
        return (value is None) != condition.negated
    if value is None:
        return False
    if isinstance(condition, Membership):
        return (value in condition.values) != condition.negated
    if isinstance(condition, Pattern):
        pieces = re.findall(r"\\.|.", condition.pattern)
        regex = "".join({"%": ".*", "_": "."}.get(piece, re.escape(piece[-1])) for piece in pieces)
        return (re.fullmatch(regex, str(value)) is not None) != condition.negated
    operators = {"=": "__eq__", "!=": "__ne__", "<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__"}
    left, right = (
        (value, condition.value) if isinstance(value, str) else (float(value), float(condition.value))
    )
    return bool(getattr(left, operators[condition.operator])(right))


@pytest.mark.parametrize("value", ["cheap", True, float("nan"), float("inf"), 2**70], ids=str)
def test_values_of_another_type_are_refused(gallery: Gallery, value: Value) -> None:
    with pytest.raises(DataError, match="the column 'price' holds the type number"):
        gallery.set_metadata([(1, {"price": value})])
    assert gallery.metadata([1]) == [{}]


@pytest.mark.parametrize("text", ["\0", "\ud800", "x" * 100_001])
def test_text_that_cannot_be_kept_is_refused(gallery: Gallery, text: str) -> None:
    with pytest.raises(DataError, match="the column 'colour' cannot hold it: expected a text"):
        gallery.set_metadata([(1, {"colour": text})])


def test_columns_are_checked(gallery: Gallery) -> None:
    with pytest.raises(DataError, match="holds the type number, the new values are of the type text"):
        gallery.add_columns({"price": "text"})
    for name in ("", " ", "a\nb", "x" * 101):
        with pytest.raises(DataError, match="cannot be the name of a column"):
            gallery.add_columns({name: "text"})
    with pytest.raises(DataError, match="at most 500 metadata columns"):
        gallery.add_columns({f"c{number}": "text" for number in range(600)})
    assert gallery.columns() == COLUMNS


def test_names_of_columns_can_be_anything_printable(tmp_path: Path) -> None:
    with Gallery.create(tmp_path, "model-a", 2) as gallery:
        name = '"; DROP TABLE pictures; -- größe'
        gallery.add_columns({name: "number", "Select": "number"})
        quoted = '"' + name.replace('"', '""') + '"'
        assert gallery.select(f"{quoted} > 3 or Select = 1").tolist() == []
        gallery.verify()


def test_setting_metadata_keeps_other_columns_and_counts_changes(tmp_path: Path) -> None:
    with Gallery.create(tmp_path, "model-a", 2) as gallery:
        gallery.add_columns(COLUMNS)
        root = gallery.add_root(Path("/p"))
        gallery.commit(root, [], [FileEntry(f"{i}.jpg", 1, 1, reason="bad") for i in range(3)])
        assert gallery.set_metadata([(1, {"price": 1}), (2, {"colour": "red", "price": None})]) == 2
        assert gallery.set_metadata([(1, {"price": 1}), (2, {"colour": "red"})]) == 0
        assert gallery.set_metadata([(1, {"sale": True}), (2, {"colour": None}), (3, {"price": None})]) == 2
        assert gallery.metadata([1, 2, 3]) == [{"price": 1, "sale": True}, {}, {}]
        gallery.delete([1])
        assert gallery.metadata([1]) == [{}]
        gallery.verify()


def test_a_test_that_stands_twice_in_a_filter_keeps_its_meaning(gallery: Gallery) -> None:
    low = parse_filter("price < 50").checked(COLUMNS).condition
    high = parse_filter("price >= 0").checked(COLUMNS).condition
    both = Or((And((low, high)), low))
    assert not isinstance(low, And | Or)
    column = SortedColumn.of(np.arange(4), [1, 60, -1, 20], 4)
    assert positions(both, lambda _: column, 4).tolist() == [0, 2, 3]
    assert positions(And((low, high)), lambda _: column, 4).tolist() == [0, 3]
