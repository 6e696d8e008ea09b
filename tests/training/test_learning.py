"""What training does to weights: who learns, who stays frozen, and that a small set can be learned by heart."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the [train] extra")

from torch import nn  # noqa: E402

import two_processes  # noqa: E402
from image2sentence.catalogue import write_catalogue  # noqa: E402
from image2sentence.encoders import load_encoder  # noqa: E402
from image2sentence.encoders.config import LearnerConfig  # noqa: E402
from image2sentence.errors import ConfigError, ModelError  # noqa: E402
from image2sentence.images import load_image  # noqa: E402
from image2sentence.training import checkpoint as state  # noqa: E402
from image2sentence.training import losses  # noqa: E402
from image2sentence.training import phrase_bank as phrases  # noqa: E402
from image2sentence.training import train as run  # noqa: E402
from image2sentence.training.dataset import collect  # noqa: E402
from image2sentence.training.distributed import Processes  # noqa: E402
from image2sentence.training.lowered import Lowered  # noqa: E402
from image2sentence.training.models.light_encoders import LIGHT  # noqa: E402
from image2sentence.training.models.query_model import build_query_model  # noqa: E402
from image2sentence.training.models.token_learner import Sentence  # noqa: E402
from image2sentence.training.objective import Draws  # noqa: E402
from image2sentence.training.settings import TrainSettings  # noqa: E402
from image2sentence.training.trainer import Trainer, held_out, precision_for  # noqa: E402
from image2sentence.training.vl.load import load_vl  # noqa: E402
from tiny_vl import KINDS, save_tiny_vl  # noqa: E402

SETTINGS = replace(two_processes.SETTINGS, batch=4, lar_batch=2)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    for kind in KINDS:
        save_tiny_vl(kind, folder / kind)
    write_catalogue(folder / "catalogue", 32, seed=3, size=64)
    return folder


def make_trainer(
    material: Path,
    out: Path,
    kind: str = "conv_blip",
    light: str = "tiny/32",
    settings: TrainSettings = SETTINGS,
) -> Trainer:
    vl = load_vl(str(material / kind))
    bank = phrases.build_bank(
        vl, phrases.WordLists(["a red shirt", "a blue mug", "a green"], ["in blue", "but long"])
    )
    torch.manual_seed(0)
    model = build_query_model(vl, light, settings.learner)
    return Trainer(
        vl, model, collect(material / "catalogue", vl, out / "targets.safetensors"), settings, out, bank
    )


DEAD = (
    ".attn.w_g"  # transformers' SwiftFormer takes a softmax over one value there, which is 1 whatever it is
)
CASES = [(kind, "tiny/32") for kind in KINDS] + [
    ("conv_blip", f"{name}/64") for name in LIGHT if name != "tiny"
]


@pytest.mark.parametrize(("kind", "light"), CASES)
def test_all_of_the_query_side_learns_and_nothing_else(
    material: Path, tmp_path: Path, kind: str, light: str
) -> None:
    trainer = make_trainer(material, tmp_path, kind, light)
    frozen = {key: value.clone() for key, value in trainer.vl.state_dict().items()}
    largest = dict.fromkeys((name for name, _ in trainer.model.named_parameters()), 0.0)
    for step, batch in enumerate(trainer.loader.ahead(0, 3)):
        trainer._step(step, [batch])
        for name, parameter in trainer.model.named_parameters():
            assert parameter.grad is not None, name
            largest[name] = max(largest[name], float(parameter.grad.abs().max()))
    still = [name for name, gradient in largest.items() if gradient == 0.0]
    assert [name for name in still if not (light.startswith("swiftformer") and name.endswith(DEAD))] == []
    assert all(parameter.grad is None for parameter in trainer.vl.parameters())
    assert all(torch.equal(frozen[key], value) for key, value in trainer.vl.state_dict().items())


def test_64_pictures_are_learned_by_heart(tmp_path: Path) -> None:
    """Through what a user calls: train on a folder, then search it with the exported model."""
    folder = write_catalogue(tmp_path / "catalogue", 80, seed=5, size=64) / "images"
    settings = TrainSettings(
        learner=LearnerConfig(tokens=4, width=64, heads=4, blocks=1),
        steps=150,
        batch=64,
        warmup=10,
        learning_rate=3e-3,
        validation=16,
        save_every=150,
        modifier_weight=0.0,
        lar="off",
        smallest_crop=1.0,
        flip=False,
        average=0.8,
        precision="no",
    )
    run.train(run.TrainRequest(folder, "bundled", "tiny/64", tmp_path / "run", settings))
    encoder = load_encoder(tmp_path / "run" / "model")
    pictures = [load_image(path) for path in sorted(folder.iterdir())]
    learned = np.setdiff1d(np.arange(80), held_out(80, settings))
    asked = encoder.encode_queries(encoder.encode_sentences([pictures[i] for i in learned]), [""] * 64)
    nearest = (asked @ encoder.encode_images(pictures).T).argmax(1)  # among the 16 that it never saw, too
    assert (nearest == learned).mean() == 1.0


# --- precision and accumulation ---


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_stays_near(material: Path, tmp_path: Path, precision: str) -> None:
    exact, mixed = (
        make_trainer(material, tmp_path / name, settings=replace(SETTINGS, precision=name))
        for name in ("no", precision)
    )
    batch = next(exact.loader.ahead(0, 1))
    first, second = exact._step(0, [batch]), mixed._step(0, [batch])
    for name, value in first.items():
        assert second[name] == pytest.approx(value, rel=0.1)
    assert all(p.dtype == torch.float32 for p in mixed.model.parameters())
    record = mixed.run()
    assert all(p.isfinite().all() for p in mixed.model.parameters())
    assert record["steps"] == SETTINGS.steps
    assert make_trainer(material, tmp_path / precision, settings=mixed.settings).run() == record


def test_losses_are_exact_in_mixed_precision() -> None:
    rows = nn.functional.normalize(torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = losses.info_nce(rows[0], rows[1], 0.02), losses.similarity_kl(rows[0], rows[1], 0.02)
    assert mixed == (losses.info_nce(rows[0], rows[1], 0.02), losses.similarity_kl(rows[0], rows[1], 0.02))


def plain_gradients(material: Path, out: Path, settings: TrainSettings) -> dict[str, torch.Tensor]:
    """The first step's gradients of a light encoder without batch norm."""
    trainer = two_processes.make_trainer(material, out, "conv_blip", settings, Processes())
    trainer._step(0, list(trainer.loader.ahead(0, settings.accumulate)))
    return two_processes.gradients(trainer)


@pytest.mark.parametrize(
    ("gcd", "queue", "same"), [("mse", 0, True), ("info_nce", 10_000, True), ("info_nce", 0, False)]
)
def test_accumulation_is_the_large_batch_where_the_negatives_are_the_same(
    material: Path, tmp_path: Path, gcd: str, queue: int, same: bool
) -> None:
    """With a queue of all other pictures each batch contrasts with all; without, with its own pictures only."""
    plain = replace(
        SETTINGS, gcd=gcd, queue=queue, lar="off", modifier_weight=0.0, smallest_crop=1.0, flip=False
    )
    large = plain_gradients(material, tmp_path / "large", replace(plain, batch=16))
    small = plain_gradients(material, tmp_path / "small", replace(plain, batch=4, accumulate=4))
    assert large.keys() == small.keys()
    near = [torch.allclose(large[name], small[name], rtol=1e-3, atol=1e-5) for name in large]
    assert all(near) == same


# --- what goes wrong on the way ---


def test_a_run_that_diverges_stops_and_keeps_its_last_save(material: Path, tmp_path: Path) -> None:
    trainer = make_trainer(material, tmp_path, settings=replace(SETTINGS, save_every=1))
    step = trainer._losses

    def diverges(batch: object, draws: object) -> dict[str, torch.Tensor]:
        named = step(batch, draws)  # type: ignore[arg-type]
        return (
            named
            if trainer.progress.step < 2
            else {name: value * float("nan") for name, value in named.items()}
        )

    trainer._losses = diverges  # type: ignore[method-assign,assignment]
    with pytest.raises(ModelError, match="training diverged: the losses of step 2"):
        trainer.run()
    tensors, record = state.load_tensors(tmp_path / "state.safetensors")
    assert record["step"] == 2
    assert all(value.isfinite().all() for value in tensors.values() if value.is_floating_point())


def test_the_same_seed_trains_the_same_model(material: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, modifier_weight=0.0)
    for name in ("first", "second"):
        request = run.TrainRequest(
            material / "catalogue", str(material / "conv_blip"), "tiny/32", tmp_path / name, settings
        )
        torch.rand(3)  # whatever else used torch's generator before
        run.train(request)
    first, second = (
        (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("first", "second")
    )
    assert first == second


# --- what takes less time ---


def test_modifiers_may_be_asked_of_a_part_of_each_batch(material: Path, tmp_path: Path) -> None:
    trainer = make_trainer(material, tmp_path, settings=replace(SETTINGS, modifier_batch=2, lar="off"))
    whole = make_trainer(material, tmp_path, settings=replace(SETTINGS, lar="off"))
    vl, count = trainer.vl, 4
    drawn = torch.randn(count, 2, vl.word_width, generator=torch.Generator().manual_seed(0))
    sentence = Sentence(drawn, torch.ones(count, 2, 1, 1), torch.ones(count, 2))
    gallery, pseudo = trainer.vectors[:count], torch.tensor([[0], [1], [2], [1]])

    def loss(owner: Trainer, rows: int) -> float:
        draws = Draws(random.Random(3), torch.Generator().manual_seed(3))
        named = owner.objective(sentence.first(rows), gallery[:rows], pseudo[:rows], None, draws)
        return float(named["modifier"])

    assert loss(trainer, count) == pytest.approx(loss(whole, 2), abs=1e-5)
    assert loss(trainer, count) != pytest.approx(loss(whole, count), abs=1e-3)


def test_a_run_from_before_a_setting_was_known_goes_on(material: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, precision="bf16")
    first = make_trainer(material, tmp_path, settings=settings).run()
    tensors, record = state.load_tensors(tmp_path / "state.safetensors")
    for name in ("lar_side", "modifier_batch"):
        del record["settings"][name]
    state.save_tensors(tmp_path / "state.safetensors", tensors, record)
    assert make_trainer(material, tmp_path, settings=settings).run() == first
    with pytest.raises(ConfigError, match="settings differs"):
        make_trainer(material, tmp_path, settings=replace(settings, lar_side=64)).run()


def test_the_automatic_precision_is_bfloat16_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for native, precision in ((True, "bf16"), (False, "no")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        assert precision_for("auto", device) == precision
        assert precision_for("fp16", device) == "fp16"


def test_alignment_reads_pictures_of_the_side_that_is_asked_for(material: Path, tmp_path: Path) -> None:
    trainer = make_trainer(material, tmp_path, "blip", settings=replace(SETTINGS, lar_side=16 * 2))
    halved = make_trainer(material, tmp_path, "blip", settings=replace(SETTINGS, lar_side=48))
    assert next(trainer.loader.ahead(0, 1)).clean.shape == (2, 3, 32, 32)
    batch = next(halved.loader.ahead(0, 1))
    assert batch.clean.shape == (2, 3, 48, 48)
    assert 0 < halved._step(0, [batch])["lar"] < 20


def test_frozen_layers_in_bfloat16_give_what_autocast_gives(material: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, precision="bf16")
    kept, cast = (make_trainer(material, tmp_path / n, "blip", settings=settings) for n in ("a", "b"))
    cast.frozen = Lowered(nn.Identity())
    layer = next(m for m in kept.vl.modules() if type(m) is nn.Linear)
    own = layer.weight
    with kept.frozen.used():
        assert layer.weight.dtype == torch.bfloat16
    batch = next(kept.loader.ahead(0, 1))
    assert kept._step(0, [batch]) == cast._step(0, [batch])
    assert layer.weight is own
    for first, second in zip(kept.model.parameters(), cast.model.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
