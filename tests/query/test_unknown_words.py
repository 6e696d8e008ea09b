"""Words that the model does not know: what is offered in their place, and when nothing was understood."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes import encoded, photo
from image2sentence.encoders import load_encoder
from image2sentence.encoders.onnx_encoder import OnnxEncoder
from image2sentence.gallery import Gallery
from image2sentence.indexing import index_pictures
from image2sentence.query import Query, QueryEngine
from image2sentence.query.unknown_words import is_understood, likely_spellings, words_not_understood

KNOWN = sorted(
    [
        "aids",
        "audio",
        "blue",
        "dress",
        "green",
        "idea",
        "jumper",
        "leg",
        "lis",
        "nine",
        "nines",
        "pump",
        "pumps",
    ]
    + ["purple", "red", "shirt", "shoes", "sneaker", "sneakers", "stripes", "turquoise", "white", "yellow"]
)


@pytest.fixture(scope="module")
def encoder() -> OnnxEncoder:
    return load_encoder(threads=1)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("purpel", "purple"),
        ("Jumpr", "jumper"),
        ("dres", "dress"),
        ("redd", "red"),
        ("bleu", "blue"),
        ("wihte", "white"),
        ("shooes", "shoes"),
        ("sneekers", "sneakers"),
        ("strypes", "stripes"),
        ("yelow", "yellow"),
        ("hsirt", "shirt"),
        ("turkoise", "turquoise"),
    ],
)
def test_a_misspelt_word_is_offered_as_it_is_spelt(word: str, meant: str) -> None:
    assert likely_spellings(word, KNOWN)[0] == meant


@pytest.mark.parametrize(
    "word",
    [
        "adidas",
        "nike",
        "nikes",
        "puma",
        "pumas",
        "ikea",
        "lego",
        "audi",
        "levis",
        "q",
        "",
        "r" * 1_000,
        "火山",
    ],
)
def test_a_word_that_only_shares_letters_is_not_offered(word: str) -> None:
    assert likely_spellings(word, KNOWN) == ()


@pytest.mark.parametrize(
    ("word", "known", "offered"),
    [
        ("snaeker", "sneaker", True),
        ("snaekr", "sneaker", False),  # two mistakes in fewer than 8 letters
        ("snaekesr", "sneakers", True),
        ("snaeksre", "sneakers", False),
        ("skaneesr", "sneakers", False),
        ("blu", "blue", False),  # of up to 4 letters only doubled and swapped ones
        ("bule", "blue", True),
        ("gren", "green", True),
        ("legg", "leg", True),
        ("lego", "leg", False),
        ("rad", "red", False),
        ("er", "re", True),
        ("bleck", "black", True),  # by its sound
        ("blsck", "black", True),  # beside it on the keyboard
        ("blqck", "black", False),
        ("blacj", "black", True),
        ("blavk", "black", True),
        ("blpck", "black", False),
        ("lback", "black", True),  # the first letter, swapped with the second
        ("xlack", "black", False),
        ("ablack", "black", False),
        ("urple", "purple", False),
        ("blackk", "black", True),
        ("blac", "black", False),
        ("blacx", "black", False),
        ("aa", "a", False),
        ("black", "black", False),
        ("ab" * 19 + "ba", "ab" * 20, True),
        ("ab" * 19 + "bac", "ab" * 20 + "c", False),  # longer than any word
    ],
)
def test_which_mistakes_count_as_misspelling(word: str, known: str, offered: bool) -> None:
    assert likely_spellings(word, [known]) == ((known,) if offered else ())


def test_three_words_are_offered_at_most_and_those_of_fewest_mistakes_first() -> None:
    near = ["snaekesr", "sneakres", "sneaker", "sneakerss", "sneaekrs", "sneakers"]
    assert likely_spellings("sneakers", near) == ("sneaekrs", "sneaker", "sneakerss")
    assert likely_spellings("sneakers", ["snaekesr", "sneakres"]) == ("sneakres", "snaekesr")


def test_brands_get_no_words_of_another_meaning(encoder: OnnxEncoder) -> None:
    brands = "adidas nike puma reebok gucci prada chanel casio ikea lego sony dior zara samsung asics tesla"
    assert [one for one in words_not_understood(encoder, brands) if one.near] == []


def test_something_is_understood_where_a_word_that_says_something_is_known(encoder: OnnxEncoder) -> None:
    for words in ("red", "a red zzxqy", "zzxqy shoes", "striped", ""):
        assert is_understood(encoder, words), words
    for words in ("zzxqy", "a zzxqy with the qqwvx", "ZZXQY, qqwvx!"):
        assert not is_understood(encoder, words), words


def test_words_that_nobody_knows_rank_nothing(encoder: OnnxEncoder, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for seed in range(3):
        (tmp_path / "pictures" / f"{seed}.png").write_bytes(encoded(photo(seed), "PNG"))
    with Gallery.create(tmp_path / "gallery", encoder.fingerprint, encoder.width) as gallery:
        index_pictures(tmp_path / "pictures", gallery, encoder)
        engine = QueryEngine(encoder, gallery)
        nonsense, sense, beside = engine.rank_many(
            [
                Query.of(words="zzxqy qqwvx"),
                Query.of(words="zzxqy red"),
                Query.of([tmp_path / "pictures" / "0.png"], "zzxqy"),
            ]
        )
    assert (nonsense.results, nonsense.understood, nonsense.more) == ((), False, False)
    assert [one.word for one in nonsense.not_understood] == ["zzxqy", "qqwvx"]
    assert (len(sense.results), sense.understood) == (3, True)
    assert (len(beside.results), beside.understood) == (2, True)
