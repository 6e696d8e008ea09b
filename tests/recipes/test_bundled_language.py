"""The captions that the bundled model learns from mean exactly what they say."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the recipes need the [train] extra")

from image2sentence.catalogue import draw, sample
from image2sentence.catalogue.attributes import COLOURS, change
from recipes.bundled import data, language, words
from recipes.bundled.measured_colour import measured_colour
from recipes.bundled.vocabulary import build_tokenizer

EMOJI = {
    "source": "emoji",
    "thing": "{g} running",
    "style": "noto",
    "skin_tone": "dark skin tone",
    "gender_word": "woman",
}
PHOTO = {"source": "photo", "type": "T-Shirt", "kids": "True", "colour": "red"}


def records(count: int = 200) -> list[dict[str, str]]:
    rng = random.Random(1)
    return [data.product_record(sample(rng)) for _ in range(count)] + [EMOJI, PHOTO] * 20


def test_every_caption_is_true_of_its_own_picture() -> None:
    rng, rows = random.Random(2), records()
    subjects = data.subjects(rows)
    facts = language.facts(rows, subjects)
    for make in (language.describe, language.edit):
        captions = [make(record, rng) for record in rows]
        verdicts = language.judge(facts, captions, subjects)
        assert np.diag(verdicts).min() == 1


def test_a_caption_is_false_where_one_named_value_differs() -> None:
    rows = [
        {"source": "drawn", "type": "shirt", "colour": "red", "pattern": "plain", "sleeve": "short"},
        {"source": "drawn", "type": "shirt", "colour": "blue", "pattern": "plain", "sleeve": "short"},
        {"source": "drawn", "type": "mug", "colour": "red", "pattern": "plain", "sleeve": ""},
        EMOJI,
    ]
    caption = language.Caption(
        "a red shirt", "drawn", {"type": frozenset({"shirt"}), "colour": frozenset({"red"})}
    )
    denied = language.Caption(
        "a shirt, not red", "drawn", {"colour": frozenset(set(language.VALUES["colour"]) - {"red"})}
    )
    verdicts = language.judge(language.facts(rows, {"{g} running": 0}), [caption, denied], {"{g} running": 0})
    assert verdicts.tolist() == [[1, 0], [0, 1], [0, 0], [0, 0]]


def test_what_is_not_known_cannot_be_told() -> None:
    striped = language.Caption("a striped one", "photo", {"pattern": frozenset({"striped"})})
    assert language.judge(language.facts([PHOTO], {}), [striped], {}).tolist() == [[-1]]


def test_photographs_and_drawings_are_only_told_apart_by_shared_attributes() -> None:
    drawing = {"source": "drawn", "type": "t-shirt", "colour": "red", "pattern": "plain"}
    red = language.Caption(
        "a red t-shirt", "photo", {"type": frozenset({"T-Shirt"}), "colour": frozenset({"red"})}
    )
    blue = language.Caption("a blue t-shirt", "photo", {"colour": frozenset({"blue"})})
    assert language.judge(language.facts([drawing], {}), [red, blue], {}).tolist() == [[-1, 0]]


def test_an_edit_asks_for_the_pictures_value_and_no_longer_for_the_old_one() -> None:
    rng = random.Random(3)
    record = data.product_record(change(sample(random.Random(5)), "colour", "purple"))
    for _ in range(300):
        caption = language.edit(record, rng)
        if "colour" in caption.allowed:
            assert "purple" in caption.allowed["colour"]


def test_longer_allows_every_longer_value() -> None:
    further, phrases = language._comparison("length", "short", "long") or (frozenset(), ())
    assert further == {"knee-length", "long"}
    assert "longer" in phrases
    assert language._comparison("colour", "red", "green") is None


def test_every_attribute_value_can_be_said_and_asked_for() -> None:
    rng = random.Random(4)
    for _ in range(500):
        record = data.product_record(sample(rng))
        for name in language._editable(record):
            other = language._other_value(record, name, rng)
            text, allowed = language.modifier(name, other, record, rng)
            assert text.strip()
            assert "{" not in text
            assert record[name] in allowed
            assert other not in allowed


def test_the_tokenizer_knows_its_captions_and_no_other_word() -> None:
    rows = records()
    tokenizer = build_tokenizer(rows)
    assert (
        tokenizer.encode("a red and white striped t-shirt with short sleeves, but blue").tokens.count("[UNK]")
        == 0
    )
    assert tokenizer.encode("a periwinkle shirt").tokens == ["[CLS]", "a", "[UNK]", "shirt", "[SEP]"]


def test_one_name_in_five_is_held_out_for_ever() -> None:
    names = [f"images/{i}.jpg" for i in range(2000)]
    held = [name for name in names if data.held_out(name)]
    assert 330 < len(held) < 470
    assert held[:3] == ["images/6.jpg", "images/7.jpg", "images/15.jpg"]


def test_gender_words_stand_aside() -> None:
    assert data.subject("woman running", "woman") == "{g} running"
    assert data.subject("woman’s hat", "woman") == "woman’s hat"


@pytest.mark.parametrize("colour", [c for c in COLOURS if c not in ("white", "grey", "beige", "light blue")])
def test_the_measured_colour_of_a_drawn_cushion_is_its_colour(colour: str) -> None:
    product = sample(random.Random(8))
    for name, value in (
        ("type", "cushion"),
        ("pattern", "plain"),
        ("colour", colour),
        ("background", "white"),
    ):
        product = change(product, name, value)
    assert measured_colour(draw(product, 160)) == colour


def test_no_colour_is_claimed_for_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert measured_colour(Image.fromarray(noise).resize((192, 192), Image.Resampling.NEAREST)) == ""


def test_words_tables_cover_the_catalogue() -> None:
    assert set(words.PATTERN_NOUNS) | {"plain"} == set(language.VALUES["pattern"])
    assert set(words.NECKLINES) == set(language.VALUES["neckline"])
    assert set(words.CLOSURES) == set(language.VALUES["closure"])
    assert set(words.MODIFIERS) >= set(language.drawn.ATTRIBUTES)
