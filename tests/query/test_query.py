"""One query vector from pictures and words, and an engine that answers."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fakes import FakeEncoder, photo
from image2sentence.errors import GalleryError, ImageError, QueryError
from image2sentence.gallery import Gallery
from image2sentence.gallery.search.searcher import Searcher
from image2sentence.indexing import index_pictures
from image2sentence.query import Answer, Query, QueryEngine, Reference, compose, fit_word

COLOURS = ("red", "blue", "lime", "white")


def plain(colour: str) -> Image.Image:
    """A picture of one colour."""
    return Image.new("RGB", (40, 30), colour)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[QueryEngine]:
    """An engine over one picture of each colour, and a copy of the red one."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for colour in COLOURS:
        plain(colour).save(photos / f"{colour}.png")
    (photos / "red again.png").write_bytes((photos / "red.png").read_bytes())
    encoder = FakeEncoder()
    with Gallery.create(tmp_path / "gallery", encoder.fingerprint, encoder.width) as gallery:
        index_pictures(photos, gallery, encoder)
        yield QueryEngine(encoder, gallery)


def names(answer: Answer) -> list[str]:
    """The results' names without ending, best first."""
    return [result.path.stem for result in answer.results]


def test_words_alone_are_text_search() -> None:
    encoder = FakeEncoder()
    assert np.array_equal(compose(encoder, [], "red"), encoder.encode_queries(None, ["red"]))


def test_several_pictures_are_the_mean_of_their_composed_vectors() -> None:
    encoder = FakeEncoder()
    both = compose(encoder, [plain("red"), plain("blue")], "bright")
    each = [compose(encoder, [plain(colour)], "bright") for colour in ("red", "blue")]
    mean = (each[0] + each[1]) / 2
    assert both.shape == (1, encoder.width)
    assert both.dtype == np.float32
    np.testing.assert_allclose(both, mean / np.linalg.norm(mean), atol=1e-6)


def test_pictures_that_cancel_out_are_refused() -> None:
    class Opposite(FakeEncoder):
        width = 2

        def encode_queries(self, sentences: object, texts: object) -> np.ndarray:
            return np.array([[1, 0], [-1, 0]], np.float32)

    with pytest.raises(QueryError, match="nothing in common"):
        compose(Opposite(), [plain("red"), plain("blue")], "")


@pytest.mark.parametrize("words", ["", "  \n"])
def test_nothing_asked_is_refused(words: str) -> None:
    with pytest.raises(QueryError, match="got neither"):
        compose(FakeEncoder(), [], words)


def test_with_words_the_reference_and_its_copies_are_left_out(engine: QueryEngine, tmp_path: Path) -> None:
    red = tmp_path / "photos" / "red.png"
    assert set(names(engine.search([red], "blue"))) == {"blue", "lime", "white"}
    assert set(names(engine.search([red.read_bytes()], "blue"))) == {"blue", "lime", "white"}
    assert len(names(engine.search([red], "blue", k=2))) == 2
    assert set(names(engine.search([red], "blue", keep_references=True))) == {*COLOURS, "red again"}


def test_a_picture_alone_finds_itself_and_its_copies(engine: QueryEngine, tmp_path: Path) -> None:
    red = tmp_path / "photos" / "red.png"
    assert set(names(engine.search([red]))[:2]) == {"red", "red again"}
    assert "red" not in names(engine.search([red], keep_references=False))


def test_a_picture_in_memory_is_no_file_of_the_gallery(engine: QueryEngine) -> None:
    assert "red" in names(engine.search([plain("red")], "blue"))


def test_results_are_ranked_and_described(engine: QueryEngine, tmp_path: Path) -> None:
    first, second = engine.search([], "lime", k=2).results
    assert (first.rank, second.rank) == (1, 2)
    assert first.score >= second.score
    assert (first.path, first.width, first.height) == (tmp_path / "photos" / "lime.png", 40, 30)


def test_results_carry_the_metadata_of_their_pictures(
    engine: QueryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [result.metadata for result in engine.search(words="red").results] == [{}] * 5
    ids = {Path(picture.path).stem: picture.id for picture in engine.gallery.pictures()}
    engine.gallery.add_columns({"price": "number", "sold": "text"})
    engine.gallery.set_metadata([(ids["red"], {"price": 3, "sold": "no"}), (ids["blue"], {"price": 4.5})])
    looked_up: list[int] = []
    metadata = engine.gallery.metadata
    monkeypatch.setattr(
        engine.gallery, "metadata", lambda numbers: looked_up.append(len(numbers)) or metadata(numbers)
    )
    expected = {"red": {"price": 3, "sold": "no"}, "blue": {"price": 4.5}}
    for answer in engine.rank_many([Query(words="red"), Query(words="blue", k=2, offset=1)]):
        assert isinstance(answer, Answer)
        found = {name: result.metadata for name, result in zip(names(answer), answer.results, strict=True)}
        assert found == {name: expected.get(name, {}) for name in names(answer)}
    assert looked_up == [5], "the metadata of all queries of a batch is looked up at once"


def test_pictures_that_have_been_forgotten_since_are_left_out(engine: QueryEngine, tmp_path: Path) -> None:
    (tmp_path / "photos" / "lime.png").unlink()
    index_pictures(tmp_path / "photos", engine.gallery, engine.encoder)
    assert set(names(engine.search([], "lime"))) == {"red", "blue", "white", "red again"}


def test_an_unreadable_reference_is_named(engine: QueryEngine, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"missing\.jpg: no such file"):
        engine.search([tmp_path / "missing.jpg"], "red")
    with pytest.raises(ImageError, match="the picture: the file is empty"):
        engine.search([b""], "red")


def test_the_sheet_shows_results_whose_files_are_gone(engine: QueryEngine, tmp_path: Path) -> None:
    answer = engine.search([tmp_path / "photos" / "red.png"], "blue")
    whole = answer.draw()
    (tmp_path / "photos" / "blue.png").unlink()
    assert answer.draw().size == whole.size
    assert answer.draw(right={answer.results[1].path}).tobytes() != answer.draw().tobytes()


def test_a_gallery_of_another_model_is_refused(engine: QueryEngine) -> None:
    other = FakeEncoder()
    other.fingerprint = "another"
    with pytest.raises(GalleryError, match="was made with the encoder"):
        QueryEngine(other, engine.gallery)


def test_preparing_loads_the_query_side_and_no_more(engine: QueryEngine) -> None:
    before = engine.encoder.encoded
    engine.prepare()
    engine.prepare(pictures=False)
    assert engine.encoder.encoded == before


def shades(engine: QueryEngine, folder: Path, count: int) -> None:
    """Index that many pictures of smooth random colours, and let the engine see them."""
    for seed in range(count):
        photo(seed).save(folder / "photos" / f"shade{seed}.png")
    index_pictures(folder / "photos", engine.gallery, engine.encoder)
    assert engine.refresh()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "got neither"),
        ({"not_words": ("red",)}, "besides what is not wanted"),
        ({"words": "red", "k": 0}, "k is at least 1"),
        ({"words": "red", "offset": -1}, "offset is at least 0"),
        ({"words": "red", "balance": 1.01}, "balance is a number from 0 to 1"),
        ({"words": "red", "diversity": float("nan")}, "diversity is a number from 0 to 1"),
        ({"words": "red", "near_duplicates": -0.1}, "near_duplicates is a number"),
        ({"words": "red", "min_fit": float("inf")}, "min_fit is a finite number"),
        ({"words": "red", "min_fit": float("nan")}, "min_fit is a finite number"),
        ({"words": "red", "min_fit": -(10**400)}, "min_fit is a finite number"),
        ({"words": "red", "not_words": (" ",)}, "without words"),
        ({"words": "red", "vector": np.ones(3, np.float32)}, "one or the other"),
        ({"vector": np.zeros(3, np.float32)}, "no direction"),
        ({"vector": np.array([1, np.inf, 0], np.float32)}, "no direction"),
        ({"words": "\udcff\udcfe red"}, r"expected words in UTF-8, got '\\udcff\\udcfe red'"),
        ({"words": "red", "not_words": ("blue", "\udcff")}, "expected words in UTF-8"),
    ],
)
def test_impossible_queries_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        Query(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"k": 1},
        {"offset": 0, "rerank": 0},
        *({name: bound} for name in ("balance", "diversity", "near_duplicates") for bound in (0, 1)),
        {"min_fit": -1e9},
    ],
)
def test_the_bounds_themselves_may_be_asked_for(values: dict[str, Any]) -> None:
    query = Query(words="red", **values)
    assert {name: getattr(query, name) for name in values} == values


@pytest.mark.parametrize(
    ("words", "kept", "left_out"),
    [("red", None, True), (" ", None, False), ("red", True, False), ("", False, True)],
)
def test_references_are_left_out_where_a_change_is_asked_for(
    words: str, kept: bool | None, left_out: bool
) -> None:
    query = Query.of([plain("red")], words, keep_references=kept)
    assert query.leaves_references_out == left_out


def test_a_query_can_be_made_with_every_attribute_from_bare_pictures() -> None:
    made = inspect.signature(Query.of).parameters
    attributes = {field.name: field.default for field in fields(Query)}
    assert {name: one.default for name, one in made.items() if name != "pictures"} == {
        name: default for name, default in attributes.items() if name != "references"
    }
    query = Query.of(["a.jpg"], "red", not_references=[b"..."], not_words=["striped"], exclude=[3], k=2)
    assert [one.picture for one in (*query.references, *query.not_references)] == ["a.jpg", b"..."]
    assert (query.not_words, query.exclude, query.k) == (("striped",), (3,), 2)
    same = {name: getattr(query, name) for name in attributes if name not in ("references", "not_references")}
    again = Query.of(query.references, not_references=query.not_references, **same)
    assert all(getattr(again, name) == getattr(query, name) for name in attributes)


@pytest.mark.parametrize(
    "asked", [{"pictures": "a.jpg"}, {"pictures": plain("red")}, {"words": "red", "not_words": "striped"}]
)
def test_one_picture_or_text_in_place_of_a_list_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(QueryError, match="is a list: put the one in brackets"):
        Query.of(**asked)


def test_impossible_references_are_refused() -> None:
    with pytest.raises(QueryError, match="a reference needs"):
        Reference()
    for weight in (0, -1, float("inf"), float("nan"), 10**400):
        with pytest.raises(QueryError, match="weight is a number greater than 0"):
            Reference(plain("red"), weight=weight)
    with pytest.raises(QueryError, match=r"shape \(L, w\)"):
        Reference(sentence=np.ones(3, np.float32))


def test_weights_lean_towards_a_picture() -> None:
    encoder = FakeEncoder()
    pictures = [plain("red"), plain("blue")]
    red = compose(encoder, pictures[:1], "")
    scores = [
        float((compose(encoder, pictures, "", weights=weights) @ red.T).item())
        for weights in ((1, 9), (1, 1), (9, 1))
    ]
    assert scores == sorted(scores)
    assert scores[2] > scores[0] + 0.2


def test_the_balance_goes_from_picture_over_composition_to_words() -> None:
    encoder, pictures = FakeEncoder(), [plain("red")]
    ends = {0.0: compose(encoder, pictures, ""), 1.0: compose(encoder, [], "blue")}
    assert np.array_equal(compose(encoder, pictures, "blue", balance=0.5), compose(encoder, pictures, "blue"))
    for balance, end in ends.items():
        np.testing.assert_allclose(compose(encoder, pictures, "blue", balance=balance), end, atol=1e-6)
    towards_words = [
        float((compose(encoder, pictures, "blue", balance=b) @ ends[1.0].T).item())
        for b in (0, 0.25, 0.5, 0.75, 1)
    ]
    assert towards_words == sorted(towards_words)


def test_what_is_not_wanted_goes_down(engine: QueryEngine, tmp_path: Path) -> None:
    shades(engine, tmp_path, 40)
    before = names(engine.rank(Query(words="lime", k=45)))
    assert set(before[:3]) >= {"lime"}
    after = names(engine.rank(Query(words="lime", not_words=("lime white",), k=45)))
    assert after.index("white") > before.index("white")
    reference = Reference(tmp_path / "photos" / "white.png")
    shown = names(engine.rank(Query(words="lime", not_references=(reference,), k=45)))
    assert shown.index("white") > before.index("white")


def test_sentences_items_and_vectors_ask_like_the_picture(engine: QueryEngine, tmp_path: Path) -> None:
    file = tmp_path / "photos" / "red.png"
    expected = names(engine.search([file], "blue"))
    red = next(picture for picture in engine.gallery.pictures() if picture.path == file)
    sentence = engine.encoder.encode_sentences([plain("red")])[0]
    content = hashlib.sha256(file.read_bytes()).digest()
    ways = [
        Query(references=(Reference(item=red.id),), words="blue"),
        Query(references=(Reference(sentence=sentence, sha256=content),), words="blue"),
        Query(references=(Reference(sentence=sentence, item=red.id),), words="blue"),
        Query(vector=3 * compose(engine.encoder, [plain("red")], "blue"), exclude=(red.id,)),
    ]
    assert [names(engine.rank(query)) for query in ways] == [expected] * 4


@pytest.mark.parametrize("scale", [1e-30, 2.0**-100, 2.0**100, 1e30])
def test_only_the_direction_of_a_vector_counts(engine: QueryEngine, scale: float) -> None:
    vector = compose(engine.encoder, [plain("red")], "blue")
    plainly, scaled = (engine.rank(Query(vector=one)) for one in (vector, np.float32(scale) * vector))
    assert names(scaled) == names(plainly)
    assert [one.score for one in scaled.results] == pytest.approx([one.score for one in plainly.results])


def test_words_that_are_not_utf_8_are_refused_in_compose_too() -> None:
    with pytest.raises(QueryError, match="expected words in UTF-8"):
        compose(FakeEncoder(), [plain("red")], "\udcff")


def test_a_vector_of_another_width_is_refused(engine: QueryEngine) -> None:
    with pytest.raises(QueryError, match="width 49, got one of shape"):
        engine.rank(Query(vector=np.ones(3, np.float32)))


def test_many_queries_are_answered_like_each_alone(engine: QueryEngine, tmp_path: Path) -> None:
    queries = [
        Query(words="red", k=2),
        Query.of([plain("blue")], "white", k=3, balance=0.7),
        Query(words="lime", not_words=("blue",), near_duplicates=1.0),
        Query.of([tmp_path / "photos" / "red.png"], offset=1, k=1),
    ]
    together = engine.rank_many(queries)
    for query, answer in zip(queries, together, strict=True):
        assert isinstance(answer, Answer)
        assert answer.results == engine.rank(query).results


def test_the_error_of_one_query_is_no_other_query_s(engine: QueryEngine, tmp_path: Path) -> None:
    first, broken, unknown, last = engine.rank_many(
        [
            Query(words="red"),
            Query.of([tmp_path / "missing.jpg"]),
            Query(words="red", exclude=(999,)),
            Query(words="blue"),
        ]
    )
    assert isinstance(first, Answer)
    assert isinstance(last, Answer)
    assert isinstance(broken, ImageError)
    assert isinstance(unknown, QueryError)


def test_pages_fit_together_whatever_the_order(engine: QueryEngine, tmp_path: Path) -> None:
    shades(engine, tmp_path, 40)
    for options in (
        {},
        {"not_words": ("white",)},
        {"near_duplicates": 0.98},
        {"diversity": 0.4},
        {"near_duplicates": 1.0, "diversity": 0.3},
    ):
        whole = engine.rank(Query(words="red", k=200, **options))
        paged = []
        for offset in range(0, 60, 7):
            answer = engine.rank(Query(words="red", k=7, offset=offset, **options))
            paged += answer.results
            assert answer.more == (offset + 7 < len(whole.results))
        assert [(one.rank, one.id) for one in paged] == [(one.rank, one.id) for one in whole.results]
        assert whole.total == len(engine)


def test_copies_and_near_duplicates_are_hidden_behind_the_better_one(
    engine: QueryEngine, tmp_path: Path
) -> None:
    close = plain("red")
    close.paste((240, 10, 10), (0, 0, 12, 12))
    close.save(tmp_path / "photos" / "nearly red.png")
    index_pictures(tmp_path / "photos", engine.gallery, engine.encoder)
    engine.refresh()
    ids = {picture.path.stem: picture.id for picture in engine.gallery.pictures()}
    exact = engine.rank(Query(words="red", near_duplicates=1.0))
    assert sorted(names(exact)) == ["blue", "lime", "nearly red", "red again", "white"]
    (red,) = (result for result in exact.results if result.path.stem == "red again")
    assert red.alike == (ids["red"],)
    assert len(names(engine.rank(Query(words="red", near_duplicates=0.99)))) == 4
    assert exact.total == 6


def test_diversity_brings_the_unlike_forward(engine: QueryEngine, tmp_path: Path) -> None:
    shades(engine, tmp_path, 40)

    def likeness(diversity: float) -> float:
        answer = engine.rank(Query(words="red", k=8, diversity=diversity))
        vectors = engine.searcher.vectors_of([result.id for result in answer.results])
        return float((vectors @ vectors.T).mean())

    assert likeness(0.2) > likeness(0.6) > likeness(1.0)
    by_score, spread = (engine.rank(Query(words="red", diversity=value)) for value in (0.0, 0.5))
    assert by_score.results[0].id == spread.results[0].id


def test_fit_is_the_score_in_spreads_above_what_two_pictures_share(
    engine: QueryEngine, tmp_path: Path
) -> None:
    assert engine.rank(Query(words="red")).results[0].fit is None
    shades(engine, tmp_path, 40)
    vectors = engine.gallery.vectors()[1]
    pairs = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    spread = 1.4826 * np.median(np.abs(pairs - np.median(pairs)))
    (reference,) = engine.gallery.vectors()[0][:1].tolist()
    for result in engine.rank(Query(references=(Reference(item=reference),), k=100)).results:
        assert result.fit == pytest.approx((result.score - np.median(pairs)) / spread, abs=1e-4)


def test_fit_with_words_alone_is_on_the_scale_of_what_pictures_score_with_them(
    engine: QueryEngine, tmp_path: Path
) -> None:
    shades(engine, tmp_path, 40)
    results = engine.rank(Query(words="red", k=100)).results
    scores = np.array([result.score for result in results])
    spread = 1.4826 * np.median(np.abs(scores - np.median(scores)))
    for result in results:
        assert result.fit == pytest.approx((result.score - np.median(scores)) / spread, abs=1e-3)


def test_a_fit_is_told_in_a_word_on_the_scale_of_the_query(engine: QueryEngine, tmp_path: Path) -> None:
    shades(engine, tmp_path, 40)
    words, both = engine.rank(Query(words="red")), engine.rank(Query.of([plain("red")], "blue"))
    assert (words.fits_from, both.fits_from) == (4.0, 1.6)
    told = [fit_word(fit, words.fits_from) for fit in (9.0, 4.0, 3.9, 2.0, 1.9, -3.0)]
    assert told == ["fits", "fits", "near", "near", "far", "far"]


def test_a_cut_off_says_that_nothing_fits(engine: QueryEngine, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="at least 10"):
        engine.rank(Query(words="red", min_fit=1.0))
    shades(engine, tmp_path, 40)
    fits = [result.fit for result in engine.rank(Query(words="red", k=100)).results]
    some = engine.rank(Query(words="red", k=100, min_fit=fits[4]))
    assert (len(some.results), some.fits, some.more) == (5, True, False)
    none = engine.rank(Query(words="red", min_fit=fits[0] + 0.1))
    assert (none.results, none.fits) == ((), False)
    assert engine.rank(Query(words="red")).fits is None


def test_below_the_cut_off_nothing_more_is_fetched(
    engine: QueryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shades(engine, tmp_path, 40)
    best = engine.rank(Query(words="red", k=1)).best_fit
    assert best is not None
    searched: list[int] = []
    assert isinstance(engine.searcher, Searcher)
    search = engine.searcher.search_scored
    monkeypatch.setattr(
        engine.searcher,
        "search_scored",
        lambda queries, k, **how: (searched.append(k), search(queries, k, **how))[1],
    )
    assert not engine.rank(Query(words="red", k=1, min_fit=best + 1)).results
    assert searched == [2], "the page and one more"


def test_a_filter_holds_for_every_result(engine: QueryEngine) -> None:
    engine.gallery.add_columns({"price": "number"})
    ids = {picture.path.stem: picture.id for picture in engine.gallery.pictures()}
    engine.gallery.set_metadata([(ids["red"], {"price": 5}), (ids["blue"], {"price": 50})])
    answer = engine.rank(Query(words="red", where="price < 10"))
    assert (names(answer), answer.total) == (["red"], 1)
    mixed = engine.rank_many([Query(words="red", where="price > 10"), Query(words="red", k=1)])
    assert [names(answer) for answer in mixed if isinstance(answer, Answer)] == [["blue"], ["red again"]]
    with pytest.raises(QueryError, match="weight"):
        engine.rank(Query(words="red", where="weight < 10"))
