"""Words in titles: what they add, where they do not count, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from fakes import FakeEncoder
from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery.records import Content, FileEntry
from image2sentence.gallery.search.searcher import Searcher
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.query import Answer, Query, QueryEngine, Reference, text_matches
from image2sentence.query.negatives import NegativeQuery
from image2sentence.query.score_statistics import ScoreStatistics
from image2sentence.query.text_matches import MatchedRanking, TextIndex, TextMatches, wanted_words

COUNT, WIDTH = 60, 8


class Axes(FakeEncoder):
    """Words "a0" to "a7" are axes of the space, as far as they are in a text; all others mean nothing."""

    fingerprint, width = "axes", WIDTH

    def encode_queries(self, sentences: Vectors | None, texts: Sequence[str]) -> Vectors:
        rows = np.full((len(texts), WIDTH), 0.01, np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                if word[0] == "a" and word[1:].isdecimal():
                    row[int(word[1:])] += 1
        if sentences is not None:
            rows = rows + sentences.mean(axis=1)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


class Knowing(Axes):
    """Knows the axes only."""

    def unknown_words(self, text: str) -> list[str]:
        return [word for word in text.split() if word[0] != "a"]

    def known_words(self) -> tuple[str, ...]:
        return tuple(f"a{number}" for number in range(WIDTH))

    folder = None


def title(number: int) -> str:
    """Every tenth is a Puma, and every other one is a shoe."""
    return " ".join(filter(None, ("Puma" if number % 10 == 3 else "", "shoe" if number % 2 else "bag")))


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    vectors = np.random.default_rng(5).normal(size=(COUNT, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with Gallery.create(tmp_path / "g", Axes.fingerprint, WIDTH) as opened:
        opened.add_columns({"title": "text", "price": "number"})
        contents = [Content(bytes([n]) * 32, 3, 2, vector) for n, vector in enumerate(vectors)]
        entries = [
            FileEntry(f"{n:03d}.jpg", 9, 9, one.sha256, metadata={"title": title(n), "price": n})
            for n, one in enumerate(contents)
        ]
        opened.commit(opened.add_root(Path("/pictures")), contents, entries)
        yield opened


def ids(answer: Answer) -> list[int]:
    return [result.id for result in answer.results]


def pumas(answer: Answer) -> list[bool]:
    return ["Puma" in str(result.metadata["title"]) for result in answer.results]


def match(gallery: Gallery, words: str, unwanted: Sequence[str] = ()) -> TextMatches | None:
    return TextIndex(gallery, np.arange(1, COUNT + 1)).match(words, unwanted)


def facts(answer: Answer) -> list[tuple[int, float, float | None]]:
    return [(result.id, result.score, result.fit) for result in answer.results]


@pytest.mark.parametrize(
    "query",
    [
        Query(words="a1 zebra", k=20),
        Query(
            references=(Reference(item=4, sentence=np.ones((1, WIDTH), np.float32)),),
            words="a2",
            k=20,
            offset=7,
        ),
        Query(words="a1", not_words=("a3",), k=20),
        Query(vector=np.ones(WIDTH, np.float32), k=20),
    ],
)
def test_without_a_matching_word_every_bit_is_as_without_titles(gallery: Gallery, query: Query) -> None:
    engine = QueryEngine(Axes(), gallery)
    assert match(gallery, query.words, query.not_words) is None
    off = Query(**{**{name: getattr(query, name) for name in query.__dataclass_fields__}, "titles": False})
    assert facts(engine.rank(query)) == facts(engine.rank(off))


def test_a_matching_word_lifts_by_the_documented_amount_and_nothing_else_moves(gallery: Gallery) -> None:
    engine = QueryEngine(Axes(), gallery)
    asked = {"words": "a1 puma", "k": COUNT}
    plain = {one.id: one for one in engine.rank(Query(**asked, titles=False)).results}
    lifted = engine.rank(Query(**asked))
    # of two words one stands in some text, which a whole share is scaled by
    for one in lifted.results:
        expected = text_matches.WORDS_WEIGHT / 2 if "Puma" in str(one.metadata["title"]) else 0.0
        assert one.fit is not None
        before = plain[one.id].fit
        assert before is not None
        assert one.fit - before == pytest.approx(expected, abs=1e-6)
    assert [one.score for one in lifted.results] == sorted(
        (one.score for one in lifted.results), reverse=True
    )
    assert sum(pumas(lifted)) == 6


def test_rare_words_count_more(gallery: Gallery) -> None:
    matches = match(gallery, "puma shoes")
    assert matches is not None
    shares = dict(zip(matches.ids.tolist(), matches.shares.tolist(), strict=True))
    puma, shoe = np.log1p(60 / 6), np.log1p(60 / 30)
    assert shares[4] == pytest.approx(1)  # 003.jpg: both
    assert shares[2] == pytest.approx(shoe / (puma + shoe))
    assert len(matches) == 30
    assert matches.words == {"puma", "shoes"}


def test_pages_fit_together_and_repeat_nothing(gallery: Gallery) -> None:
    engine = QueryEngine(Axes(), gallery)
    for more in ({}, {"not_words": ("a3",)}, {"not_words": ("shoe",)}, {"where": "price < 41"}):
        whole = ids(engine.rank(Query(words="a1 puma bag", k=COUNT, **more)))
        pages = [
            one
            for offset in range(0, COUNT, 7)
            for one in ids(engine.rank(Query(words="a1 puma bag", k=7, offset=offset, **more)))
        ]
        assert pages == whole
        assert len(set(whole)) == len(whole) == (41 if "where" in more else COUNT)


def test_what_is_excluded_or_filtered_out_stays_out(gallery: Gallery) -> None:
    engine = QueryEngine(Axes(), gallery)
    answer = engine.rank(Query(words="puma", k=COUNT, where="price < 30", exclude=(4,)))
    assert 4 not in ids(answer)
    assert all(result.metadata["price"] < 30 for result in answer.results)
    reference = Reference(item=14, sentence=np.ones((1, WIDTH), np.float32))
    assert 14 not in ids(engine.rank(Query(references=(reference,), words="puma", k=COUNT)))


def test_unwanted_words_in_a_title_push_it_back(gallery: Gallery) -> None:
    engine = QueryEngine(Axes(), gallery)
    before = engine.rank(Query(words="a1", k=COUNT))
    after = engine.rank(Query(words="a1", not_words=("puma",), k=COUNT))
    places = {one: place for place, one in enumerate(ids(before))}
    worse = [place > places[one] for place, one in enumerate(ids(after)) if "Puma" in title(one - 1)]
    assert sum(worse) >= 4
    assert not any(pumas(after)[:10])


def test_negated_and_empty_words_are_not_wanted() -> None:
    assert wanted_words("a red Shirt without Puma stripes, and not blue") == ("red", "shirt")
    assert wanted_words("shirt -red") == ("shirt",)
    assert wanted_words("a photo of the T-shirt in size 7") == ("shirt", "size", "7")
    assert wanted_words('"; DROP TABLE words; --') == ("drop", "table", "words")
    assert len(wanted_words(" ".join(f"w{n}" for n in range(100)))) == text_matches.MAX_WORDS


def test_a_word_that_only_titles_know_ranks_those_that_have_it(gallery: Gallery) -> None:
    engine = QueryEngine(Knowing(), gallery)
    if not hasattr(engine.encoder, "unknown_words"):
        pytest.skip("the protocol changed")
    answer = engine.rank(Query(words="Pumas", k=COUNT))
    assert (answer.understood, answer.total, answer.more) == (True, 6, False)
    assert pumas(answer) == [True] * 6
    assert answer.not_understood == ()
    nothing = engine.rank(Query(words="Zebra", k=COUNT))
    assert (nothing.understood, nothing.results) == (False, ())
    assert [one.word for one in nothing.not_understood] == ["Zebra"]
    off = engine.rank(Query(words="Pumas", k=COUNT, titles=False))
    assert (off.understood, off.results) == (False, ())


def test_a_ranking_takes_in_matches_where_their_scores_belong() -> None:
    """One axis: the vectors are the scores; pictures 2, 7 and 8 gain 0.05, 0.65 and 0.1 by their texts."""
    scores = np.array([0.9, 0.7, 0.7, 0.1, 0.0, 0.0, 0.2, 0.0], np.float32)
    matches = TextMatches(np.array([2, 7, 8]), np.array([0.05, 0.65, 0.1]))
    searcher = Searcher(np.arange(1, 9), scores[:, None])
    query = np.ones((1, 1), np.float32)
    ranking = MatchedRanking(matches, searcher, query, 1.0, None)
    first, every = searcher.search(query, 3)[0], searcher.search(query, 8)[0]
    assert [hit.id for hit in first] == [1, 2, 3]
    assert [hit.id for hit in ranking.merge(every, 3, complete=True)] == [1, 7, 2, 3, 4, 8, 5, 6]
    assert [hit.id for hit in ranking.merge(first, 3, complete=False)] == [1, 7, 2, 3]
    assert [hit.id for hit in ranking.merge((), 3, complete=True)] == [7, 2, 8]


def test_more_matches_than_are_looked_at_keep_the_best(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_matches, "MOST", 30)
    matches = match(gallery, "puma bag shoe")
    assert matches is not None
    kept = matches.among(None, ())
    assert kept is not None
    assert len(kept) == 30
    assert set(range(4, COUNT, 10)) <= set(kept.ids.tolist())  # the Pumas
    assert kept.ids.tolist() == sorted(kept.ids.tolist())


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("negative", [False, True])
def test_the_best_matches_are_those_of_an_exact_sum_over_all_of_them(negative: bool, known: bool) -> None:
    """Vectors that float32 hardly tells apart, in three levels of shares; with a search's own scores and without."""
    rng = np.random.default_rng(3)
    vectors = np.tile(rng.normal(size=64), (500, 1)) + rng.normal(size=(500, 64)) * 1e-7
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    searcher, numbers = Searcher(np.arange(500), vectors), np.arange(0, 500, 2)
    shares = rng.choice([0.2, 0.2 + 1e-9, -0.4], len(numbers))
    query = vectors[:1]
    against = NegativeQuery(query, [vectors[1:2]], ScoreStatistics(searcher)) if negative else None
    exact = (vectors[numbers] * query[0].astype(np.float64)).sum(axis=1)
    if against is not None:
        exact = against.scores(vectors[numbers])
    order = np.lexsort((numbers, -(exact + 0.5 * shares)))
    scores = searcher.search_scored(query, 3)[1][0] if known else None
    assert (scores is None) is not known
    ranking = MatchedRanking(
        TextMatches(numbers, shares, rows=numbers), searcher, query, 0.5, against, scores
    )
    for count in (1, 7, 100, 250, 400):
        found = ranking.best(count)
        assert [hit.id for hit in found] == numbers[order[:count]].tolist()
        expected = (exact + 0.5 * shares)[order[:count]]
        assert [hit.score for hit in found] == pytest.approx(expected, abs=1e-12 if negative else 0, rel=0)


def test_ids_that_the_gallery_has_but_the_searcher_has_not_are_passed_over(gallery: Gallery) -> None:
    index = TextIndex(gallery, np.array([4, 5, 24, 41]))
    assert index.rows(["puma"])["puma"].tolist() == [0, 2]
    assert index.rows(["nobody"]) == {}
    assert TextIndex(gallery, np.empty(0, np.int64)).match("puma", ()) is None


def test_the_answer_is_the_same_whether_a_search_gives_its_scores_or_not(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [
        Query(words="a1 puma", k=12, **more)
        for more in ({}, {"exclude": (4, 9)}, {"where": "price < 50"}, {"where": "price < 6"}, {"offset": 20})
    ]
    known = [facts(QueryEngine(Axes(), gallery).rank(query)) for query in queries]
    search = Searcher.search_scored
    monkeypatch.setattr(
        Searcher,
        "search_scored",
        lambda *args, **more: (found := search(*args, **more)[0], [None] * len(found)),
    )
    assert [facts(QueryEngine(Axes(), gallery).rank(query)) for query in queries] == known


def test_matches_are_remembered_with_what_is_unwanted(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = TextIndex(gallery, np.arange(1, COUNT + 1))
    asked: list[tuple[str, tuple[str, ...]]] = [
        ("puma shoe", ()),
        ("puma shoe", ("bag",)),
        ("puma", ("shoe", "bag")),
    ]
    first = [index.match(*one) for one in asked]
    monkeypatch.setattr(index, "rows", lambda words: pytest.fail(f"{words} are known"))
    assert [index.match(*one) for one in asked] == first
    assert len({one.shares.tobytes() for one in first if one is not None}) == len(asked)
