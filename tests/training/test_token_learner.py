"""The token learner and its baselines: shapes, starting point, options, and gradients through a whole model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: the token learner belongs to training")
pytest.importorskip("transformers", reason="transformers is not installed: VL models belong to training")

import torch
from torch import Tensor, nn
from torch.nn import functional

from image2sentence.encoders.config import LearnerConfig
from image2sentence.encoders.template import Template
from image2sentence.errors import ConfigError
from image2sentence.training import losses
from image2sentence.training.models.query_model import SYMMETRIC, QueryModel, build_query_model
from image2sentence.training.models.token_learner import AdaptiveTokenLearner, Attention, build_learner
from image2sentence.training.vl.base import VisionLanguageModel
from image2sentence.training.vl.load import load_vl
from tiny_vl import KINDS, SIZE, save_tiny_vl

CONFIG = LearnerConfig(tokens=3, blocks=2, heads=2, width=16, gates=True)
MAPPER = LearnerConfig(kind="mapper", tokens=1, width=16)
NORM = 1.7


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("vl")
    return {kind: save_tiny_vl(kind, root / kind) for kind in KINDS}


def features(rows: int = 2, width: int = 10, height: int = 5, length: int = 4) -> Tensor:
    return torch.randn(rows, width, height, length, generator=torch.Generator().manual_seed(3))


def learner(config: LearnerConfig = CONFIG) -> nn.Module:
    torch.manual_seed(0)
    return build_learner(config, 10, 12, NORM)


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, softmax="places"), MAPPER])
def test_shapes_and_attention_sums(config: LearnerConfig) -> None:
    sentence = learner(config)(features())
    assert sentence.tokens.shape == (2, config.tokens, 12)
    assert sentence.attention.shape == (2, config.tokens, 5, 4)
    assert sentence.gates.shape == (2, config.tokens)
    torch.testing.assert_close(sentence.attention.sum((2, 3)), torch.ones(2, config.tokens))
    assert (sentence.attention >= 0).all()
    assert ((sentence.gates > 0) & (sentence.gates <= 1)).all()


def test_the_axis_of_the_softmax() -> None:
    places, tokens = learner(replace(CONFIG, softmax="places")), learner(replace(CONFIG, softmax="tokens"))
    logits = places.select(features())
    expected = logits.flatten(2).softmax(-1).unflatten(2, (5, 4))
    torch.testing.assert_close(places(features()).attention, expected)
    votes = tokens.select(features()).softmax(1)
    torch.testing.assert_close(votes.sum(1), torch.ones(2, 5, 4))
    expected = votes / votes.sum((2, 3), keepdim=True)
    torch.testing.assert_close(tokens(features()).attention, expected)


def test_relation_starts_from_the_plain_pooled_tokens() -> None:
    related = learner()
    assert isinstance(related, AdaptiveTokenLearner)
    plain = build_learner(replace(CONFIG, blocks=0), 10, 12, NORM)
    plain.load_state_dict({k: v for k, v in related.state_dict().items() if not k.startswith("blocks.")})
    torch.testing.assert_close(related(features()).tokens, plain(features()).tokens)
    attention = plain(features()).attention.flatten(2)
    pooled = attention @ features().flatten(2).transpose(1, 2)  # a weighted mean commutes with a linear map
    normed = plain.norm(plain.enter(pooled) + plain.identity)
    torch.testing.assert_close(plain(features()).tokens, plain.leave(normed))


@pytest.mark.parametrize("config", [CONFIG, MAPPER])
def test_pseudo_words_start_as_long_as_words(config: LearnerConfig) -> None:
    tokens = learner(config)(features()).tokens
    torch.testing.assert_close(tokens.norm(dim=-1), torch.full((2, config.tokens), NORM))


def test_gates_are_open_to_begin_with_and_can_be_turned_off() -> None:
    assert (learner()(features()).gates > 0.85).all()
    without = learner(replace(CONFIG, gates=False))
    assert torch.equal(without(features()).gates, torch.ones(2, 3))
    assert not any("gate" in name for name, _ in without.named_parameters())


def test_the_mapper_sees_the_mean_alone() -> None:
    mapper = learner(MAPPER)
    shuffled = features().flatten(2)[..., torch.randperm(20)].unflatten(2, (5, 4))
    torch.testing.assert_close(mapper(features()).tokens, mapper(shuffled).tokens)
    sentence = mapper(features())
    assert torch.equal(sentence.gates, torch.ones(2, 1))
    torch.testing.assert_close(sentence.attention, torch.full((2, 1, 5, 4), 1 / 20))


def test_attention_is_torchs_own() -> None:
    ours, native = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        native.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        native.in_proj_bias.copy_(torch.cat([ours.query.bias, torch.zeros(16), ours.value.bias]))
        native.out_proj.load_state_dict(ours.out.state_dict())
    queries, context = torch.randn(2, 3, 16), torch.randn(2, 7, 16)
    torch.testing.assert_close(ours(queries, context), native(queries, context, context)[0])


def test_impossible_options_are_refused() -> None:
    for wrong in (
        {"kind": "mapper", "tokens": 2},
        {"softmax": "both"},
        {"width": 10, "heads": 4},
        {"tokens": 0},
    ):
        with pytest.raises(ConfigError):
            LearnerConfig(**wrong)


# --- with a light encoder and a VL model ---


def composed_loss(vl: VisionLanguageModel, model: QueryModel, side: int) -> Tensor:
    """All losses of the method on one batch."""
    template = Template.parse("{sentence} {modifier}")
    generator = torch.Generator().manual_seed(5)
    pictures = torch.randn(6, 3, SIZE, SIZE, generator=generator)
    sentence = model(torch.randn(6, 3, side, side, generator=generator))
    gallery = vl.encode_images(pictures)
    queries = vl.encode_words(vl.compose(sentence.tokens, sentence.gates, [""] * 6, template))
    modified = vl.encode_words(vl.compose(sentence.tokens, sentence.gates, ["in red"] * 6, template))
    total = losses.info_nce(queries, gallery.vectors, 0.1, symmetric=True)
    total = total + losses.similarity_kl(queries, gallery.vectors, 0.1)
    total = total + losses.mean_squared(modified, vl.encode_words(vl.words(["a red mug"] * 6)))
    if vl.has_matching:
        wrong = losses.hard_negatives(queries, gallery.vectors, 0.1, generator)
        words = vl.compose(sentence.tokens, sentence.gates, [""] * 6, template)
        return total + losses.matching(
            vl.match(words, gallery.patches), vl.match(words, gallery.patches[wrong])
        )
    places = vl.place_vectors(gallery.patches)
    attention = losses.resize_attention(sentence.attention, round(places.shape[1] ** 0.5))
    return total + losses.local_alignment(vl.word_vectors(sentence.tokens), places, attention, 0.1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, softmax="places", gates=False), MAPPER])
def test_every_trained_weight_gets_a_gradient(
    folders: dict[str, Path], kind: str, config: LearnerConfig
) -> None:
    torch.manual_seed(0)
    vl = load_vl(str(folders[kind]))
    model = build_query_model(vl, "tiny", config)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    # Relation blocks begin with zero output projections: what is behind these gets its gradient from step two on.
    for _ in range(2):
        optimizer.zero_grad()
        composed_loss(vl, model, 112).backward()
        optimizer.step()
    without = [n for n, p in model.named_parameters() if p.grad is None or not (p.grad != 0).any()]
    assert not without
    assert all(p.grad is None for p in vl.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_the_symmetric_encoder_is_the_vl_models_tower(folders: dict[str, Path], kind: str) -> None:
    vl = load_vl(str(folders[kind]))
    model = build_query_model(vl, SYMMETRIC, CONFIG)
    side = 2 if kind == "conv_blip" else SIZE // 8
    pixels = torch.randn(2, 3, SIZE, SIZE)
    maps = model.light(pixels)
    assert maps.shape == (2, vl.patch_width, side, side)
    patches = vl.encode_images(pixels).patches
    whole = patches[:, 0] if kind == "conv_blip" else torch.zeros(())  # its tower has a layout head
    torch.testing.assert_close(maps[:, :, 0, 1], patches[:, -side * side :][:, 1] + whole)
    assert model(pixels).tokens.shape == (2, 3, vl.word_width)
    assert model.preprocessing == vl.preprocessing
    assert all(name.startswith("learner.") for name in model.state_dict())


def test_sentences_start_at_the_length_of_real_words(folders: dict[str, Path]) -> None:
    vl = load_vl(str(folders["clip"]))
    model = build_query_model(vl, "tiny", CONFIG)
    lengths = model(torch.randn(2, 3, 112, 112)).tokens.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.full((2, 3), vl.word_norm()))
    real = functional.embedding(torch.arange(10), vl.model.text_model.embeddings.token_embedding.weight)
    assert real.norm(dim=-1).median() == pytest.approx(vl.word_norm(), rel=0.3)
