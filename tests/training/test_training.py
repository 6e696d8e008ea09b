"""Training and export, end to end on a small VL model: what is learned, what stays frozen, what survives a kill."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="training needs the [train] extra")

from torch.nn.functional import normalize  # noqa: E402

from fakes import photo  # noqa: E402
from image2sentence.catalogue import write_catalogue  # noqa: E402
from image2sentence.encoders import load_encoder  # noqa: E402
from image2sentence.encoders.config import LearnerConfig  # noqa: E402
from image2sentence.encoders.model_folder import WEIGHTS, ModelFolder  # noqa: E402
from image2sentence.errors import ConfigError, DataError, ModelError  # noqa: E402
from image2sentence.images import load_image  # noqa: E402
from image2sentence.training import checkpoint as state  # noqa: E402
from image2sentence.training import train as run  # noqa: E402
from image2sentence.training import trained_model  # noqa: E402
from image2sentence.training import trainer as loop  # noqa: E402
from image2sentence.training.dataset import Augmentation, collect  # noqa: E402
from image2sentence.training.distributed import Processes  # noqa: E402
from image2sentence.training.export import model_folder as exporting  # noqa: E402
from image2sentence.training.export import quantize as quantise  # noqa: E402
from image2sentence.training.export.parity import measure_parity  # noqa: E402
from image2sentence.training.export.torch_encoder import TorchEncoder  # noqa: E402
from image2sentence.training.models.query_model import build_query_model  # noqa: E402
from image2sentence.training.models.token_learner import Sentence  # noqa: E402
from image2sentence.training.objective import Draws, Objective  # noqa: E402
from image2sentence.training.phrase_bank import WordLists, build_bank  # noqa: E402
from image2sentence.training.settings import Target, TrainSettings  # noqa: E402
from image2sentence.training.vl.load import load_vl  # noqa: E402
from tiny_vl import save_tiny_vl  # noqa: E402

SETTINGS = TrainSettings(
    learner=LearnerConfig(tokens=2, width=16, heads=2, blocks=1, gates=True),
    steps=4,
    batch=8,
    warmup=1,
    lar_batch=4,
    validation=6,
    save_every=1,
    precision="no",
)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VL model, 32 drawn pictures, phrases and modifiers."""
    folder = tmp_path_factory.mktemp("material")
    save_tiny_vl("conv_blip", folder / "vl")
    write_catalogue(folder / "catalogue", 32, seed=3, size=64)
    (folder / "phrases.txt").write_text("a red shirt\na blue mug\na green dress\n")
    (folder / "modifiers.txt").write_text("in blue\nbut striped\nwith long sleeves\n")
    return folder


def request(material: Path, out: Path, settings: TrainSettings = SETTINGS) -> run.TrainRequest:
    return run.TrainRequest(
        material / "catalogue",
        str(material / "vl"),
        "tiny",
        out,
        settings,
        phrases=(material / "phrases.txt",),
        modifiers=(material / "modifiers.txt",),
    )


@pytest.fixture(scope="module")
def trained(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    run.train(request(material, out))
    return out


def test_the_model_folder_answers_like_torch(material: Path, trained: Path) -> None:
    encoder = load_encoder(trained / "model")
    pictures = [load_image(path) for path in sorted((material / "catalogue" / "images").iterdir())[:5]]
    queries = encoder.encode_queries(
        encoder.encode_sentences(pictures), ["in red", "", "but blue", "a mug", "in"]
    )
    vl = load_vl(str(material / "vl"))
    model = trained_model.restore(ModelFolder.open(trained / "model"), vl).eval()
    reference = TorchEncoder(vl, model, encoder.config.template)
    parity = measure_parity(reference, encoder, pictures, ["in red", "but blue", "", "a mug"])
    assert queries.shape == (5, vl.width)
    assert np.allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    assert parity["gallery_image"]["min"] > 0.999
    assert parity["composed_query"]["min"] > 0.99


def test_the_record_says_how_it_was_trained(trained: Path) -> None:
    record = json.loads((trained / "model" / "config.json").read_text())["training"]
    assert record["steps"] == SETTINGS.steps
    assert record["pictures"] + record["validation_pictures"] == 32
    assert record["settings"]["modifier_weight"] == SETTINGS.modifier_weight
    assert len(record["data_fingerprint"]) == 64
    assert (record["processes"], record["unreadable"], record["settings"]["seed"]) == (1, 0, SETTINGS.seed)
    assert record["seconds"] > 0
    assert set(record["versions"]) == {"python", "torch", "transformers", "image2sentence"}
    assert record["vl"]["revision"] == "local"


def test_the_run_can_be_watched_in_tensorboard(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    named = {"loss/gcd", "loss/lar", "loss/modifier", "pictures_per_second", "validation/recall@1"}
    assert set(events.Tags()["scalars"]) == named
    assert [event.step for event in events.Scalars("loss/gcd")] == list(range(SETTINGS.steps))
    assert len(events.Scalars("validation/recall@1")) == SETTINGS.steps


def make_trainer(material: Path, out: Path, settings: TrainSettings = SETTINGS) -> loop.Trainer:
    vl = load_vl(str(material / "vl"))
    asked = request(material, out, settings)
    _, bank = run._with_bank(asked, vl)
    torch.manual_seed(0)
    model = build_query_model(vl, "tiny", settings.learner)
    return loop.Trainer(
        vl, model, collect(asked.pictures, vl, out / "targets.safetensors"), settings, out, bank
    )


def test_the_vl_model_stays_frozen_and_every_other_weight_learns(material: Path, tmp_path: Path) -> None:
    trainer = make_trainer(material, tmp_path)
    before_vl = {key: value.clone() for key, value in trainer.vl.state_dict().items()}
    before = {key: value.clone() for key, value in trainer.model.named_parameters()}
    for step, batch in enumerate(trainer.loader.ahead(0, 3)):
        trainer._step(step, [batch])
    assert all(torch.equal(before_vl[key], value) for key, value in trainer.vl.state_dict().items())
    assert all(parameter.grad is None for parameter in trainer.vl.parameters())
    still = [key for key, value in trainer.model.named_parameters() if torch.equal(before[key], value)]
    assert still == []


def test_a_killed_run_goes_on_bit_for_bit(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_trainer(material, tmp_path / "whole")
    whole.run()
    broken = make_trainer(material, tmp_path / "broken")
    step = loop.Trainer._step

    def dies(self: loop.Trainer, number: int, batches: object) -> dict[str, float]:
        if number == 2:
            raise KeyboardInterrupt
        return step(self, number, batches)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_step", dies)
        with pytest.raises(KeyboardInterrupt):
            broken.run()
    resumed = make_trainer(material, tmp_path / "broken")
    resumed.run()
    first, _ = state.load_tensors(tmp_path / "whole" / "state.safetensors")
    second, _ = state.load_tensors(tmp_path / "broken" / "state.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_gallery_vectors_are_computed_once(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vl = load_vl(str(material / "vl"))
    first = collect(material / "catalogue", vl, tmp_path / "targets.safetensors")
    monkeypatch.setattr(type(vl), "encode_images", lambda *_: pytest.fail("encoded again"))
    again = collect(material / "catalogue", vl, tmp_path / "targets.safetensors")
    assert torch.equal(first.vectors, again.vectors)
    assert first.paths == again.paths


def test_unreadable_pictures_are_counted_and_named(material: Path, tmp_path: Path) -> None:
    write_catalogue(tmp_path / "pictures", 8, seed=1, size=64)
    (tmp_path / "pictures" / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    found = collect(tmp_path / "pictures", load_vl(str(material / "vl")), tmp_path / "targets.safetensors")
    assert len(found.paths) == len(found.vectors) == 8
    assert [Path(name).name for name, _ in found.unreadable] == ["broken.jpg"]


def test_another_run_in_the_same_place_is_refused(material: Path, trained: Path) -> None:
    with pytest.raises(ConfigError, match="settings differs"):
        run.train(request(material, trained, replace(SETTINGS, seed=9)))


def test_export_refuses_drift_and_leaves_the_older_folder(
    material: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    pictures = [load_image(path) for path in sorted((material / "catalogue" / "images").iterdir())[:4]]
    options = exporting.ExportOptions(int8_text=False)
    trained_model.export_again(trained / "model", out, pictures, options)
    before = (out / "config.json").read_bytes()
    half = quantise.store_half

    def spoils(source: Path, target: Path) -> None:
        half(source, target)
        graph = quantise.onnx.load(target)
        arrays = {w.name: quantise.numpy_helper.to_array(w) for w in graph.graph.initializer}
        floats = [w for w in graph.graph.initializer if arrays[w.name].dtype.kind == "f"]
        weight = max(floats, key=lambda w: arrays[w.name].size)
        noise = np.random.default_rng(0).standard_normal(arrays[weight.name].shape)
        spoilt = noise.astype(arrays[weight.name].dtype)
        weight.CopyFrom(quantise.numpy_helper.from_array(spoilt, weight.name))
        quantise.onnx.save(graph, target)

    monkeypatch.setattr(quantise, "store_half", spoils)
    with pytest.raises(ModelError, match="drift from torch"):
        trained_model.export_again(trained / "model", out, pictures, options)
    assert (out / "config.json").read_bytes() == before


def test_the_exported_matching_encoder_answers_like_torch(
    material: Path, trained: Path, tmp_path: Path
) -> None:
    pictures = [load_image(path) for path in sorted((material / "catalogue" / "images").iterdir())[:6]]
    options = exporting.ExportOptions(matching=True)
    parity = trained_model.export_again(trained / "model", tmp_path / "model", pictures, options)
    assert parity["match"]["correlation"] > 0.99
    exported = load_encoder(tmp_path / "model")
    vl = load_vl(str(material / "vl"))
    torch_side = TorchEncoder(vl, trained_model.restore(exported.folder, vl).eval(), exported.config.template)
    ours, theirs = exported.encode_patches(pictures), torch_side.encode_patches(pictures)
    np.testing.assert_allclose(ours, theirs, atol=0.02)
    words = ["a red mug", "in blue", "shirt", "red", "a green shirt with long sleeves", "in red"]
    logits = exported.match(None, words, ours)
    assert logits.shape == (6,)
    assert np.corrcoef(logits, torch_side.match(None, words, theirs))[0, 1] > 0.99
    assert np.array_equal(
        exported.encode_images(pictures), load_encoder(trained / "model").encode_images(pictures)
    )


@pytest.mark.parametrize("light", ["tiny/32", "tiny/48"])
def test_both_sides_see_the_gallery(material: Path, tmp_path: Path, light: str) -> None:
    run.train(replace(request(material, tmp_path / "run"), light=light))
    pictures = [load_image(path) for path in sorted((material / "catalogue" / "images").iterdir())[:6]]
    plain, both, again, back = (tmp_path / name for name in ("plain", "both", "again", "back"))
    options = exporting.ExportOptions(int8_text=False, half=False)
    trained_model.export_again(tmp_path / "run" / "model", plain, pictures, options)
    parity = trained_model.export_again(plain, both, pictures, replace(options, sentence_share=0.4))
    assert parity["gallery_image"]["min"] > 0.9999  # torch sees them so, too
    one, other = load_encoder(plain), load_encoder(both)
    sentence_vectors = one.encode_queries(one.encode_sentences(pictures), [""] * 6)
    expected = 0.6 * one.encode_images(pictures) + 0.4 * sentence_vectors
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(other.encode_images(pictures), expected, atol=1e-5)
    prepared = [other.prepare(picture) for picture in pictures]
    np.testing.assert_allclose(other.encode_prepared(prepared), expected, atol=1e-5)
    assert {row.ndim for row in prepared} == {1 if light == "tiny/48" else 3}  # both inputs, or one for both
    assert other.encode_prepared([]).shape == other.encode_images([]).shape == (0, other.width)

    trained_model.export_again(both, again, pictures, exporting.ExportOptions())
    trained_model.export_again(both, back, pictures, exporting.ExportOptions(sentence_share=0.0))
    kept, without = load_encoder(again), load_encoder(back)
    alone = np.concatenate([kept.encode_images([picture]) for picture in pictures])
    np.testing.assert_allclose(
        kept.encode_images(pictures), alone, atol=1e-5
    )  # int8 ranges are each picture's own
    assert (kept.config.sentence_share, without.config.sentence_share) == (0.4, 0.0)
    assert kept.fingerprint == other.fingerprint != one.fingerprint == without.fingerprint
    assert other.config.vl.fingerprint == one.fingerprint


def test_a_gallery_vector_cannot_be_all_sentence(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 or more and below 1, got 1"):
        trained_model.export_again(
            trained / "model", tmp_path / "m", [], exporting.ExportOptions(sentence_share=1.0)
        )
    assert not (tmp_path / "m").exists()


def test_models_without_a_matching_encoder_say_so(trained: Path) -> None:
    plain = load_encoder(trained / "model")
    assert not plain.can_match
    with pytest.raises(ModelError, match="export the model with --matching"):
        plain.match(None, ["a red mug"], np.zeros((1, 2, 3), np.float32))


def test_a_checkpoint_of_another_vl_model_is_refused(trained: Path, tmp_path: Path) -> None:
    other = load_vl(str(save_tiny_vl("conv_blip", tmp_path / "other", seed=5)))
    with pytest.raises(ModelError, match="was trained for VL model"):
        trained_model.restore(ModelFolder.open(trained / "model"), other)


def test_damaged_weights_are_refused(material: Path, trained: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained / "model", tmp_path / "model")
    weights = tmp_path / "model" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ModelError, match="damaged"):
        trained_model.restore(ModelFolder.open(tmp_path / "model"), load_vl(str(material / "vl")))


def test_mistakes_are_named(material: Path, tmp_path: Path) -> None:
    asked = request(material, tmp_path)
    with pytest.raises(ModelError, match="no usable vision-language model"):
        run.train(replace(asked, vl=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match="unknown light encoder 'huge'"):
        run.train(replace(asked, light="huge"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        run.train(replace(asked, pictures=tmp_path / "empty"))
    with pytest.raises(ConfigError, match="needs words"):
        run.train(replace(asked, phrases=None))
    (asked.out / "model").mkdir(parents=True, exist_ok=True)
    (asked.out / "model" / "notes").write_text("precious")
    with pytest.raises(ModelError, match="not empty and no model folder"):
        run.train(asked)


def test_settings_are_read_strictly(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"steps": 7, "learner": {"tokens": 8}}')
    settings = run.read_settings(file, {"learner.gates": True, "seed": 3})
    assert (settings.steps, settings.learner.tokens, settings.learner.gates, settings.seed) == (7, 8, True, 3)
    with pytest.raises(ConfigError, match="unknown training setting 'stepz'"):
        run.read_settings(None, {"stepz": 1})
    file.write_text('{"stepz": 7}')
    with pytest.raises(ConfigError, match="unknown key 'stepz'"):
        run.read_settings(file, {})
    with pytest.raises(ConfigError, match="expected int"):
        run.read_settings(None, {"steps": "many"})


def test_the_automatic_temperature_is_that_of_the_vl_model(tmp_path: Path) -> None:
    for kind, own in (("clip", 0.02), ("siglip", 0.01), ("blip", None)):
        vl = load_vl(str(save_tiny_vl(kind, tmp_path / kind)))
        if own is not None:
            vl.model.logit_scale.data.fill_(-np.log(own))
            vl = type(vl)(
                vl.model,
                vl.tokenizer,
                vl.preprocessing,
                "again",
                "",
                *([int(vl.pad_token)] if kind == "siglip" else []),
            )
        for given, expected in (("auto", own or 0.05), (0.2, 0.2)):
            objective = Objective(vl, replace(SETTINGS, temperature=given), None, Processes())
            assert objective.temperature == pytest.approx(expected, rel=1e-5)
            assert float(objective.log_temperature.exp()) == pytest.approx(expected, rel=1e-5)


def test_each_picture_twice_is_trained_on_and_validated_as_itself(material: Path, tmp_path: Path) -> None:
    for number in range(16):
        for copy in "ab":
            (tmp_path / copy).mkdir(exist_ok=True)
            photo(number, (64, 64)).save(tmp_path / copy / f"{number}.png")
    settings = replace(
        SETTINGS, gcd="info_nce", gcd_weight=1.0, queue=64, modifier_weight=0.0, lar="matching"
    )
    vl = load_vl(str(material / "vl"))
    model = build_query_model(vl, "tiny", settings.learner)
    collection = collect(tmp_path, vl, tmp_path / "targets.safetensors")
    trainer = loop.Trainer(vl, model, collection, settings, tmp_path / "run")
    assert trainer.run()["steps"] == settings.steps
    first = [i for i in range(32) if Path(collection.paths[i]).parent.name == "a"]
    other = [i for i in range(32) if i not in first]
    queries = collection.vectors.clone()
    by_name = {Path(collection.paths[i]).name: i for i in first}
    for i in other:  # a perfect query side ranks the copies equally: the first of them stands first
        queries[i] = collection.vectors[by_name[Path(collection.paths[i]).name]]
    trainer.held = np.arange(32)  # every picture and its copy
    first = [i for i in range(32) if Path(collection.paths[i]).parent.name == "a"]
    other = [i for i in range(32) if i not in first]
    queries = collection.vectors.clone()
    by_name = {Path(collection.paths[i]).name: i for i in first}
    for i in other:  # a perfect query side ranks the copies equally: the first of them stands first
        queries[i] = collection.vectors[by_name[Path(collection.paths[i]).name]]
    trainer._encode_held = lambda block: queries[torch.from_numpy(np.asarray(block))]
    assert trainer.validate() == 100


def test_the_bar_shows_no_recall_before_there_is_one(
    material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = loop._Log(tmp_path, 0, SETTINGS, 8)
    log.step(0, {"gcd": 1.0}, -1.0)
    assert "recall@1" not in log._bar.postfix
    log.step(1, {"gcd": 1.0}, 12.5)
    assert "recall@1=12.5" in log._bar.postfix
    log.close()


def test_brightness_changes_half_of_the_pictures_by_a_factor_within_its_bounds() -> None:
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    augmentation = Augmentation(smallest_crop=1.0, flip=False, brightness=0.5)
    values = [int(np.asarray(augmentation.apply(grey, random.Random(seed)))[0, 0, 0]) for seed in range(200)]
    changed = [value for value in values if value != 100]
    assert 0.35 < len(changed) / len(values) < 0.65
    assert min(changed) >= 66
    assert max(changed) <= 150
    assert min(changed) < 80 < 120 < max(changed)  # both ways


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_modifier_distillation_by_squared_distance_is_its_formula(material: Path, share: float) -> None:
    vl = load_vl(str(material / "vl"))
    settings = replace(SETTINGS, modifier="mse", lar="off")
    bank = build_bank(vl, WordLists(["a red shirt"], ["in blue"], Target(residual=0.3, alone=share)))
    gallery = normalize(torch.randn(3, vl.width, generator=torch.Generator().manual_seed(0)), dim=-1)
    tokens = torch.randn(3, 2, vl.word_width, generator=torch.Generator().manual_seed(1))
    sentence = Sentence(tokens, torch.empty(0), torch.ones(3, 2))
    objective = Objective(vl, settings, bank, Processes())
    draws = Draws(random.Random(0), torch.Generator())
    found = objective(sentence, gallery, torch.zeros(3, 1, dtype=torch.long), None, draws)["modifier"]

    with torch.no_grad():
        texts = ["a red shirt", "a red shirt in blue", "in blue"]
        plain, changed, alone = vl.encode_words(vl.words(texts))
        target = normalize(changed + 0.3 * (gallery - plain) + share * alone, dim=-1)
        words = vl.compose(tokens, torch.ones(3, 2), ["in blue"] * 3, objective.template)
        expected = (2 - 2 * (vl.encode_words(words) * target).sum(-1)).mean()
    assert float(found) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"modifier": "cosine"},
        {"brightness": -0.1},
        {"keep": "all"},
        {"queue": 64},
        {"queue": -1, "gcd": "info_nce"},
        {"seed": -1},
        {"seed": 2**31},
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"weight_decay": -1.0},
        {"modifier_weight": -1.0},
        {"average": 1.0},
        {"warmup": -3},
        {"validation": 0},
        {"temperature": float("inf")},
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        replace(SETTINGS, **wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"captions": 0}, {"push": -1.0}, {"reach": -0.1}, {"alone": -0.1}, {"residual": float("nan")}],
)
def test_wrong_targets_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Target(**wrong)


def test_each_phrase_bank_has_its_own_modifiers_or_all_share_them(material: Path, tmp_path: Path) -> None:
    asked = replace(request(material, tmp_path / "run"), phrases=(material / "phrases.txt",) * 3)
    with pytest.raises(ConfigError, match="expected one or 3 modifier files for 3 phrase banks, got 2"):
        run.train(replace(asked, modifiers=(material / "modifiers.txt",) * 2))
    with pytest.raises(ConfigError, match="expected one or 3 targets"):
        run.train(replace(asked, settings=replace(SETTINGS, targets=(Target(0.2), Target(0.5)))))
