"""Every kind of VL model gives what transformers' own class gives, and takes pseudo-words by position."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed: VL models belong to training")
pytest.importorskip("transformers", reason="transformers is not installed: VL models belong to training")

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoImageProcessor

from image2sentence.encoders.preprocess import to_pixels
from image2sentence.encoders.template import Template
from image2sentence.errors import DataError, ModelError
from image2sentence.training.vl.base import VisionLanguageModel, Words, insert
from image2sentence.training.vl.load import load_vl
from tiny_vl import KINDS, SIZE, save_tiny_vl

TEXTS = ["a red mug", "blue", "a shirt in green"]
PLAIN = Template.parse("{sentence} {modifier}")


@pytest.fixture(scope="module", autouse=True)
def offline() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("vl")
    return {kind: save_tiny_vl(kind, root / kind) for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def vl(request: pytest.FixtureRequest, folders: dict[str, Path]) -> VisionLanguageModel:
    return load_vl(str(folders[request.param]))


def pixels(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def sentence(vl: VisionLanguageModel, count: int, length: int = 2) -> torch.Tensor:
    drawn = torch.randn(count, length, vl.word_width, generator=torch.Generator().manual_seed(2))
    return vl.word_norm() * functional.normalize(drawn, dim=-1)


def native_text_vectors(vl: VisionLanguageModel, texts: list[str]) -> torch.Tensor:
    """What transformers' own class gives for ids padded as its processor pads them."""
    ids = [vl.tokenizer.encode(text).ids for text in texts]
    if vl.kind == "siglip":
        pad = vl.tokenizer.token_to_id("<pad>")
        padded = torch.tensor([row + [pad] * (vl.max_length - len(row)) for row in ids])
        return functional.normalize(vl.model.get_text_features(input_ids=padded).pooler_output, dim=-1)
    length = max(map(len, ids))
    end = vl.tokenizer.token_to_id("<|endoftext|>" if vl.kind == "clip" else "[PAD]")
    padded = torch.tensor([row + [end] * (length - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
    if vl.kind == "clip":
        output = vl.model.get_text_features(input_ids=padded, attention_mask=mask)
        return functional.normalize(output.pooler_output, dim=-1)
    state = vl.model.text_encoder(input_ids=padded, attention_mask=mask).last_hidden_state
    return functional.normalize(vl.model.text_proj(state[:, 0]), dim=-1)


@torch.no_grad()
def test_text_vectors_are_transformers_own(vl: VisionLanguageModel) -> None:
    ours = vl.encode_words(vl.words(TEXTS))
    assert ours.shape == (3, vl.width)
    torch.testing.assert_close(ours, native_text_vectors(vl, TEXTS), atol=1e-5, rtol=0)
    assert (ours[0] - ours[1]).abs().max() > 0.05, "the texts must differ for this to mean anything"


def test_rows_in_groups_of_like_length_have_the_same_vectors_and_gradients(vl: VisionLanguageModel) -> None:
    texts = [*TEXTS, "", "in blue", "a", "but red"]
    pseudo = sentence(vl, len(texts)).requires_grad_()
    words = vl.compose(pseudo, torch.full((len(texts), 2), 0.5), texts, PLAIN)
    found = []
    for vectors in (vl.encode_words(words), vl.encode_rows(words, group=2)):
        (gradient,) = torch.autograd.grad(vectors[:, 0].sum(), pseudo, retain_graph=True)
        found.append((vectors.detach(), gradient))
    torch.testing.assert_close(found[1][0], found[0][0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1][1], found[0][1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "template",
    ["{sentence} {modifier}", "a {sentence} in {modifier}", "{sentence}, {modifier}."],
)
@pytest.mark.parametrize("count", [3, 40])
def test_sentences_read_once_have_the_vectors_and_gradients_of_two_readings(
    vl: VisionLanguageModel, template: str, count: int
) -> None:
    made, texts = Template.parse(template), ["blue", "a red mug", ""][:count] * (1 if count == 3 else 11)
    drawn = torch.Generator().manual_seed(3)
    gates = torch.rand(count, 2, generator=drawn).clamp(min=0.05)
    weights = torch.randn(count + len(texts), vl.width, generator=drawn)

    def read(once: bool) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = sentence(vl, count).requires_grad_()
        alone, changed = vl.compose_both(tokens, gates, texts, made)
        two = vl.encode_words(alone), vl.encode_words(changed)
        vectors = torch.cat(vl.encode_both(tokens, gates, texts, made) if once else two)
        (vectors * weights).sum().backward()
        assert tokens.grad is not None
        return vectors.detach(), tokens.grad

    once, twice = read(True), read(False)
    torch.testing.assert_close(once[0], twice[0], atol=2e-5, rtol=0)
    torch.testing.assert_close(once[1], twice[1], atol=2e-5, rtol=1e-4)


def test_no_modifiers_have_no_vectors(vl: VisionLanguageModel) -> None:
    alone, changed = vl.encode_both(sentence(vl, 3), torch.ones(3, 2), [], PLAIN)
    assert (alone.shape, changed.shape) == ((3, vl.width), (0, vl.width))


def test_a_causal_reader_sees_each_token_once(folders: dict[str, Path]) -> None:
    """Of 3 sentences of 2 tokens, 2 of them also with words: no padding, and no sentence twice."""
    vl = load_vl(str(folders["clip"]))
    seen: list[int] = []
    vl.model.text_model.encoder.layers[0].register_forward_hook(
        lambda module, given, output: seen.append(output.shape[0] * output.shape[1])
    )
    texts = ["blue", "a red mug"]
    vl.encode_both(sentence(vl, 3), torch.ones(3, 2), texts, PLAIN)
    words = sum(len(vl.tokenizer.encode(text, add_special_tokens=False).ids) + 1 for text in texts)
    assert seen == [3 * 4 + words]


@torch.no_grad()
def test_pictures_of_another_side_have_fewer_patches(vl: VisionLanguageModel) -> None:
    small = functional.interpolate(pixels(), SIZE // 2)
    whole, seen = vl.encode_images(pixels()).patches, vl.encode_images(small, resized=True).patches
    grid = math.isqrt(whole.shape[1])
    class_token = whole.shape[1] - grid**2
    assert seen.shape == (3, class_token + (grid // 2) ** 2, whole.shape[2])
    assert len(vl.place_vectors(seen)[0]) == (grid // 2) ** 2


@torch.no_grad()
def test_image_vectors_are_transformers_own(vl: VisionLanguageModel) -> None:
    ours = vl.encode_images(pixels())
    if vl.kind == "blip":
        tokens = vl.model.vision_model(pixel_values=pixels()).last_hidden_state
        native = vl.model.vision_proj(tokens[:, 0])
    else:
        native = vl.model.get_image_features(pixel_values=pixels()).pooler_output
    torch.testing.assert_close(ours.vectors, functional.normalize(native, dim=-1), atol=1e-5, rtol=0)
    assert ours.patches.shape[0] == 3
    assert ours.patches.shape[2] == vl.patch_width


@torch.no_grad()
def test_match_scores_are_transformers_own(folders: dict[str, Path]) -> None:
    for kind in ("blip", "conv_blip"):
        vl = load_vl(str(folders[kind]))
        ids, bias = vl.tokenize(TEXTS)
        native = vl.model(input_ids=ids, pixel_values=pixels(), attention_mask=(bias == 0).long())
        ours = vl.match(vl.words(TEXTS), vl.encode_images(pixels()).patches)
        expected = native.itm_score[:, 1] - native.itm_score[:, 0]
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_models_without_a_matching_encoder_say_so(folders: dict[str, Path]) -> None:
    for kind in ("clip", "siglip"):
        vl = load_vl(str(folders[kind]))
        assert not vl.has_matching
        with pytest.raises(ModelError, match="no matching encoder; use the local form"):
            vl.match(vl.words(TEXTS), torch.zeros(3, 1, vl.patch_width))


@torch.no_grad()
def test_place_vectors_are_one_for_each_place(vl: VisionLanguageModel) -> None:
    features = vl.encode_images(pixels())
    places = vl.place_vectors(features.patches)
    side = 2 if "Conv" in type(vl.model).__name__ else SIZE // 8
    assert places.shape == (3, side * side, vl.width)
    torch.testing.assert_close(places.norm(dim=-1), torch.ones(places.shape[:2]))


@torch.no_grad()
def test_a_picture_of_one_place_has_its_place_vector(folders: dict[str, Path]) -> None:
    vl = load_vl(str(folders["siglip"]))
    head, patches = vl.model.vision_model.head, vl.encode_images(pixels()).patches
    alone = functional.normalize(head(patches[:, 5:6]), dim=-1)
    torch.testing.assert_close(vl.place_vectors(patches)[:, 5], alone)


@torch.no_grad()
def test_words_inserted_as_pseudo_words_are_the_words(vl: VisionLanguageModel) -> None:
    whole = vl.encode_words(vl.words(["red blue mug"]))
    first = vl.tokenizer.encode("red blue", add_special_tokens=False).ids
    pseudo = vl.embed(torch.tensor([first]))
    composed = vl.encode_words(vl.compose(pseudo, torch.ones(pseudo.shape[:2]), ["mug"], PLAIN))
    torch.testing.assert_close(composed, whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_prefix_stands_before_the_sentence(vl: VisionLanguageModel) -> None:
    template = Template.parse("a photo of {sentence} but {modifier}")
    pseudo = vl.embed(torch.tensor([vl.tokenizer.encode("red", add_special_tokens=False).ids]))
    composed = vl.encode_words(vl.compose(pseudo, torch.ones(pseudo.shape[:2]), ["blue"], template))
    torch.testing.assert_close(
        composed, vl.encode_words(vl.words(["a photo of red but blue"])), atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_a_text_does_not_depend_on_its_neighbours(vl: VisionLanguageModel) -> None:
    together = vl.encode_words(vl.words(TEXTS))
    alone = torch.cat([vl.encode_words(vl.words([text])) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_query_does_not_depend_on_its_neighbours(vl: VisionLanguageModel) -> None:
    pseudo, gates = sentence(vl, 3), torch.tensor([[1.0, 0.5], [1.0, 1.0], [0.2, 0.9]])
    texts = ["a red mug", "", "blue"]
    together = vl.encode_words(vl.compose(pseudo, gates, texts, PLAIN))
    alone = [
        vl.encode_words(vl.compose(pseudo[i : i + 1], gates[i : i + 1], texts[i : i + 1], PLAIN))
        for i in range(3)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


@torch.no_grad()
def test_open_gates_change_nothing_and_shut_gates_silence(vl: VisionLanguageModel) -> None:
    pseudo, texts = sentence(vl, 1), ["a red mug"]

    def query(words: torch.Tensor, gate: float) -> torch.Tensor:
        return vl.encode_words(vl.compose(words, torch.tensor([[gate, 1.0]]), texts, PLAIN))

    other = torch.cat([-pseudo[:, :1], pseudo[:, 1:]], 1)
    with_sentence = (query(pseudo, 1.0) - query(other, 1.0)).norm()
    without_sentence = (query(pseudo, 1e-4) - query(other, 1e-4)).norm()
    half = (query(pseudo, 0.5) - query(pseudo, 1.0)).norm()
    assert with_sentence > 0.05
    assert without_sentence < 0.01 * with_sentence
    assert half > without_sentence


def test_gradients_reach_pseudo_words_and_nothing_else(vl: VisionLanguageModel) -> None:
    pseudo = sentence(vl, 2).requires_grad_()
    gates = torch.full((2, 2), 0.7, requires_grad=True)
    vl.encode_words(vl.compose(pseudo, gates, ["red", "a blue mug"], PLAIN))[:, 0].sum().backward()
    assert pseudo.grad is not None
    assert gates.grad is not None
    assert (pseudo.grad.abs().sum(-1) > 0).all()
    assert (gates.grad != 0).all()
    assert all(p.grad is None and not p.requires_grad for p in vl.parameters())


def test_it_never_leaves_evaluation_mode(vl: VisionLanguageModel) -> None:
    torch.nn.ModuleList([vl]).train()
    assert not any(module.training for module in vl.modules())


def test_the_sentence_goes_in_by_position(vl: VisionLanguageModel) -> None:
    words, pseudo = vl.words(["red mug", "blue"]), sentence(vl, 2)
    head = vl.head_length(PLAIN)
    assert head == (0 if vl.kind == "siglip" else 1)
    joined = insert(pseudo, torch.ones(2, 2), words, head)
    assert torch.equal(joined.embeddings[:, head : head + 2], pseudo)
    assert torch.equal(joined.embeddings[:, :head], words.embeddings[:, :head])
    assert torch.equal(joined.embeddings[:, head + 2 :], words.embeddings[:, head:])
    assert torch.equal(joined.bias[:, head + 2 :], words.bias[:, head:])
    assert (joined.bias[:, head : head + 2] == 0).all()


@pytest.mark.parametrize("text", ["costs $ 2 0", "$", "*", "{ sentence }", "{sentence}", "5 * {modifier}"])
@torch.no_grad()
def test_user_text_is_only_text(vl: VisionLanguageModel, text: str) -> None:
    pseudo = sentence(vl, 1, length=1)
    ids = vl.tokenizer.encode(text).ids
    composed = vl.compose(pseudo, torch.ones(1, 1), [text], PLAIN)
    head = vl.head_length(PLAIN)
    assert composed.embeddings.shape[1] == len(ids) + 1
    assert torch.equal(composed.embeddings[0, head], pseudo[0, 0])
    rest = torch.cat([composed.embeddings[0, :head], composed.embeddings[0, head + 1 :]])
    assert torch.equal(rest, vl.embed(torch.tensor([ids]))[0])


def test_names_of_special_tokens_are_only_text(vl: VisionLanguageModel) -> None:
    ends = set(vl.tokenizer.encode("").ids)
    for name in ("[SEP]", "</s>", "<|endoftext|>"):
        ids = vl.tokenizer.encode(f"red {name} mug").ids
        inner = ids[vl.start_tokens : len(ids) - 1]
        assert not ends & set(inner), name


def test_what_does_not_fit_is_an_error(vl: VisionLanguageModel) -> None:
    room = vl.max_length - len(vl.tokenizer.encode("").ids)
    fits = " ".join(["a"] * room)
    assert vl.words([fits]).embeddings.shape[1] == vl.max_length
    with pytest.raises(DataError, match="1 of 2 texts are longer than the 20 tokens"):
        vl.words(["red", fits + " a"])
    with pytest.raises(DataError, match="longer than the 18 tokens"):
        vl.compose(sentence(vl, 1), torch.ones(1, 2), [fits], PLAIN)


@torch.no_grad()
def test_word_norm_and_single_words(vl: VisionLanguageModel) -> None:
    table = vl.embed(torch.arange(vl.tokenizer.get_vocab_size())[None])[0]
    assert vl.word_norm() == pytest.approx(table.norm(dim=-1).median().item())
    pseudo = sentence(vl, 2, length=3)
    vectors = vl.word_vectors(pseudo)
    assert vectors.shape == (2, 3, vl.width)
    second = vl.encode_words(vl.compose(pseudo[1:, 2:], torch.ones(1, 1), [""], PLAIN))
    torch.testing.assert_close(vectors[1, 2], second[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_half_precision_stays_near(vl: VisionLanguageModel) -> None:
    words = vl.words(TEXTS)
    with torch.autocast("cpu", torch.bfloat16):
        half = vl.encode_words(words)
    assert (functional.normalize(half.float(), dim=-1) * vl.encode_words(words)).sum(-1).min() > 0.98


def test_preprocessing_is_the_processors(vl: VisionLanguageModel, folders: dict[str, Path]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    picture = Image.fromarray(noise).resize((SIZE * 2, SIZE * 2))
    processor = AutoImageProcessor.from_pretrained(vl.record.name, backend="pil")
    native = processor(images=picture, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(to_pixels([picture], vl.preprocessing), native, atol=0.02)
    assert vl.preprocessing.fit == ("crop" if vl.kind == "clip" else "squash")


def test_fingerprints_are_of_the_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    prints = {kind: load_vl(str(folder)).record.fingerprint for kind, folder in folders.items()}
    assert len(set(prints.values())) == len(KINDS)
    again = load_vl(str(save_tiny_vl("clip", tmp_path / "same")))
    other = load_vl(str(save_tiny_vl("clip", tmp_path / "other", seed=1)))
    assert again.record.fingerprint == prints["clip"] != other.record.fingerprint
    assert (again.record.kind, again.record.revision) == ("clip", "local")


# --- what cannot be loaded ---


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such folder"):
        load_vl(str(tmp_path / "nothing"))


def test_a_hub_id_without_a_connection() -> None:
    with pytest.raises(ModelError, match=r"at 'nobody/nothing'.*HF_HUB_OFFLINE is set: download the model"):
        load_vl("nobody/nothing")


def test_a_hub_id_is_pinned_to_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the Hub's own cache, as it lies there after a download."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--somebody--clip"
    save_tiny_vl("clip", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for revision in (None, "main", commit):
        assert load_vl("somebody/clip", revision).record.revision == commit


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected config\.json"):
        load_vl(str(tmp_path))


def test_a_kind_that_is_not_supported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="'bert' model; expected a VL model of one of: blip, clip, siglip"):
        load_vl(str(tmp_path))


def test_a_config_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="no usable vision-language model"):
        load_vl(str(tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_weights(kind: str, tmp_path: Path) -> None:
    weights = save_tiny_vl(kind, tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged"):
        load_vl(str(tmp_path))


@pytest.mark.parametrize("kind", ["blip", "clip", "siglip"])
def test_missing_weights(kind: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = save_tiny_vl(kind, tmp_path) / "model.safetensors"
    tensors = load_file(path)
    gone = next(
        name for name in sorted(tensors) if name.endswith("k_proj.weight") or "text_proj.weight" in name
    )
    del tensors[gone]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 weights"):
        load_vl(str(tmp_path))


def test_no_weights_at_all(tmp_path: Path) -> None:
    (save_tiny_vl("clip", tmp_path) / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_vl(str(tmp_path))


def test_a_damaged_tokenizer(tmp_path: Path) -> None:
    (save_tiny_vl("siglip", tmp_path) / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json is not a tokenizer that can be read"):
        load_vl(str(tmp_path))


@pytest.mark.parametrize("kind", ["blip", "clip"])
def test_a_tokenizer_that_reads_otherwise_than_the_models_own(kind: str, tmp_path: Path) -> None:
    folder = save_tiny_vl(kind, tmp_path / "vl")
    kept = json.loads((folder / "tokenizer.json").read_text())
    kept["normalizer"] = {"type": "Replace", "pattern": {"String": "MUG"}, "content": "mug"}
    (folder / "tokenizer.json").write_text(json.dumps(kept))
    with pytest.raises(ModelError, match=r"reads .* as \[.*own .*Tokenizer as \[.*fetch tokenizer.json"):
        load_vl(str(folder))


def test_a_tokenizer_that_cannot_be_compared_is_told(
    folders: dict[str, Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("needs sentencepiece")

    monkeypatch.setattr("image2sentence.training.vl.load.AutoTokenizer.from_pretrained", missing)
    load_vl(str(folders["siglip"]))
    assert "cannot be compared with transformers' own: needs sentencepiece" in caplog.text


def test_a_missing_tokenizer(tmp_path: Path) -> None:
    folder = save_tiny_vl("conv_blip", tmp_path / "vl")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer: neither"):
        load_vl(str(folder))


def test_a_pad_token_that_does_not_exist(tmp_path: Path) -> None:
    (save_tiny_vl("siglip", tmp_path) / "tokenizer_config.json").write_text('{"pad_token": "[nothing]"}')
    with pytest.raises(ModelError, match="pad token"):
        load_vl(str(tmp_path))


def test_bias_alone_marks_absence(vl: VisionLanguageModel) -> None:
    """What stands at an absent position must not matter."""
    words = vl.words(["red", "a blue mug"])
    noisy = torch.where(words.bias[..., None] < -1, torch.randn_like(words.embeddings), words.embeddings)
    with torch.no_grad():
        torch.testing.assert_close(
            vl.encode_words(Words(noisy, words.bias)), vl.encode_words(words), atol=1e-5, rtol=0
        )
