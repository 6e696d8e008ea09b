"""Where captions go once pictures stand still: discriminants of photographs, means of emoji."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the recipes need the [train] extra")

import torch
from torch.nn import functional

from recipes.bundled import language
from recipes.bundled.language import Caption
from recipes.bundled.train_words import Discriminants, DrawingMeans, WordSettings, aims


def photo(kind: str, **known: str) -> dict[str, str]:
    return {"source": "photo", "type": kind, "kids": "False", **known}


def about(**allowed: str) -> Caption:
    return Caption("", "photo", {name: frozenset({value}) for name, value in allowed.items()})


def test_a_discriminant_ignores_what_varies_within_a_kind() -> None:
    chance = np.random.default_rng(0)
    kinds = ["Blazer"] * 200 + ["Outwear"] * 200
    # Kinds differ by 1 along the first axis and by 0.5 along the second, where chance spreads both by 3.
    vectors = chance.normal(0, [0.1, 3.0, 0.1], (400, 3))
    vectors[:200] += [1.0, 0.5, 0.0]
    found, counts = Discriminants(
        torch.from_numpy(vectors).float(), language.facts([photo(kind) for kind in kinds], {}), ridge=1e-6
    )([about(type="Blazer"), about(type="Outwear")])
    assert counts.tolist() == [200, 200]
    assert found[0, 0] > 0.99
    assert torch.allclose(found[0], -found[1], atol=1e-5)


def test_photographs_of_which_it_cannot_be_told_are_left_out() -> None:
    records = [photo("Blazer", colour="red"), photo("Blazer"), photo("Blazer", colour="blue")]
    vectors = functional.normalize(torch.tensor([[1.0, 0.2], [-9.0, 0.0], [0.0, 1.0]]), dim=-1)
    found, counts = Discriminants(vectors, language.facts(records, {}), ridge=1e6)([about(colour="red")])
    assert counts.tolist() == [1]
    # With so large a ridge the covariance plays no part: the mean of the red one less that of the red and the blue one.
    expected = functional.normalize((vectors[0] - vectors[2]) / 2, dim=-1)
    assert torch.allclose(found[0], expected, atol=1e-4)


def test_a_caption_that_is_true_of_none_or_of_all_stays_where_it_is() -> None:
    records = [photo("Blazer"), photo("Blazer")]
    discriminants = Discriminants(torch.eye(2), language.facts(records, {}), ridge=1.0)
    found, counts = discriminants([about(type="Blazer"), about(type="Shirt")])
    assert not found.any()
    assert counts.tolist() == [0, 0]
    before = functional.normalize(torch.tensor([[1.0, 2.0], [3.0, 1.0]]), dim=-1)
    assert torch.allclose(aims(WordSettings(), before, found, counts), before)


def test_the_more_photographs_the_further_a_caption_goes() -> None:
    before, found = torch.tensor([[1.0, 0.0]]).expand(3, 2), torch.tensor([[0.0, 1.0]]).expand(3, 2)
    settings = WordSettings(share=0.6, few=10)
    went = aims(settings, before, found, torch.tensor([0.0, 10.0, 1e6]))
    assert torch.allclose(went[0], before[0])
    assert torch.allclose(went[1], functional.normalize(torch.tensor([0.7, 0.3]), dim=0))
    assert torch.allclose(went[2], functional.normalize(torch.tensor([0.4, 0.6]), dim=0), atol=1e-4)


def emoji(thing: str, style: str) -> dict[str, str]:
    return {"source": "emoji", "thing": thing, "style": style, "skin_tone": "", "gender_word": ""}


def of_emoji(thing: str = "", **allowed: str) -> Caption:
    return Caption("", "emoji", {name: frozenset({value}) for name, value in allowed.items()}, thing)


def test_a_style_adds_the_same_whatever_the_subject() -> None:
    things, styles = [f"thing {number}" for number in range(40)], ("noto", "fluent_flat")
    records = [emoji(thing, style) for style in styles for thing in things]
    chance = torch.Generator().manual_seed(0)
    subjects = torch.randn(len(things), 16, generator=chance)
    noise = 0.2 * torch.randn(2 * len(things), 16, generator=chance)
    vectors = torch.cat([subjects, subjects + torch.eye(16)[0]]) + noise
    means = DrawingMeans(vectors, records, shrinkage=1e-4)
    fitted = means.vectors[len(things) :] - means.vectors[: len(things)]
    assert torch.allclose(fitted, fitted[:1].expand_as(fitted), atol=1e-3)
    assert torch.allclose(fitted[0], torch.eye(16)[0], atol=0.2)


def test_a_caption_about_emoji_goes_to_the_mean_of_those_that_it_allows() -> None:
    records = [emoji(thing, style) for thing in ("cat", "dog") for style in ("noto", "fluent_flat")]
    vectors = torch.tensor([[1.0, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1]])
    means = DrawingMeans(vectors, records, shrinkage=1e-6)
    asked = [of_emoji("cat", style="fluent_flat"), of_emoji("dog"), of_emoji(style="noto"), of_emoji("cow")]
    wanted = torch.tensor([[1.0, 0, 1], [0, 1, 0.5], [0.5, 0.5, 0], [0, 0, 0]])
    assert torch.allclose(means(asked), functional.normalize(wanted, dim=-1), atol=1e-3)
