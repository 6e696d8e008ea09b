"""Parts of one's own are trained, exported, reloaded and searched with; names that are taken are refused."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the [train] extra")

from click.testing import CliRunner  # noqa: E402

from fakes import photo  # noqa: E402
from image2sentence.encoders import composition, config, load_encoder  # noqa: E402
from image2sentence.encoders.config import CompositionConfig, LearnerConfig  # noqa: E402
from image2sentence.encoders.interpolation import slerp  # noqa: E402
from image2sentence.errors import ConfigError  # noqa: E402
from image2sentence.training import losses, settings  # noqa: E402
from image2sentence.training.models import light_encoders, token_learner  # noqa: E402
from image2sentence.training.settings import TrainSettings  # noqa: E402
from tiny_vl import save_tiny_vl  # noqa: E402

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "extending.py"
TABLES: tuple[Any, ...] = (
    composition.COMPOSITIONS,
    token_learner.LEARNERS,
    losses.GCD,
    light_encoders.LIGHT,
)
LISTS = (config.COMPOSITION_KINDS, settings.GCD_KINDS)


@pytest.fixture
def example() -> Iterator[dict[str, Any]]:
    """What the example defines; the tables that it adds to are as before afterwards."""
    tables, lists = [dict(table) for table in TABLES], [list(names) for names in LISTS]
    yield runpy.run_path(str(EXAMPLE))
    for table, before in zip(TABLES, tables, strict=True):
        table.clear()
        table.update(before)
    for names, known in zip(LISTS, lists, strict=True):
        names[:] = known


def test_a_mapper_a_loss_and_a_light_encoder_of_ones_own_make_a_model(
    example: dict[str, Any], tmp_path: Path
) -> None:
    save_tiny_vl("conv_blip", tmp_path / "vl")
    (tmp_path / "photos").mkdir()
    for number in range(12):
        photo(number, (96, 96)).save(tmp_path / "photos" / f"{number}.png")
    own = {"gcd": "margin", "steps": 2, "batch": 4, "lar": "off", "modifier_weight": 0.0, "validation": 2}
    own |= {"learner": {"kind": "grid", "tokens": 3}, "precision": "no", "warmup": 1}
    (tmp_path / "own.json").write_text(json.dumps(own))
    out = tmp_path / "run"
    arguments = ["train", str(tmp_path / "photos"), "--vl", str(tmp_path / "vl"), "--light", "patches"]
    arguments += ["--out", str(out), "--config", str(tmp_path / "own.json")]
    done = CliRunner().invoke(example["cli"], arguments)
    assert done.exit_code == 0, done.output + str(done.exception)
    encoder = load_encoder(out / "model")
    assert (encoder.config.learner.kind, encoder.config.light) == ("grid", "patches")
    sentences = encoder.encode_sentences([photo(1, (96, 96))])
    assert sentences.shape[:2] == (1, 3)
    assert np.linalg.norm(encoder.encode_queries(sentences, ["red"])) == pytest.approx(1, abs=1e-4)


def test_the_mapper_of_the_example_attends_to_strips(example: dict[str, Any]) -> None:
    mapper = example["GridMapper"](LearnerConfig(kind="grid", tokens=2), 8, 5, 1.0)
    sentence = mapper(torch.randn(3, 8, 4, 6))
    assert sentence.tokens.shape == (3, 2, 5)
    torch.testing.assert_close(sentence.attention.sum((2, 3)), torch.ones(3, 2))
    assert (sentence.attention[:, 0, :, 3:] == 0).all()


def test_the_loss_of_the_example_asks_for_a_margin_and_leaves_copies_out(example: dict[str, Any]) -> None:
    own = torch.eye(3)
    temperature = torch.tensor(0.05)
    assert losses.GCD["margin"](own, own, temperature) == 0
    assert losses.GCD["margin"](own.roll(1, 0), own, temperature) > 0
    copies = torch.cat([own, own])
    assert losses.GCD["margin"](copies, copies, temperature) == 0
    TrainSettings(gcd="margin")


def test_the_composition_of_the_example_composes(example: dict[str, Any]) -> None:
    pictures, words = np.eye(4, dtype=np.float32)[:2], np.full((2, 4), 0.5, np.float32)
    composed = composition.compose_vectors(CompositionConfig("added", 0.5), pictures, words)
    np.testing.assert_allclose(np.linalg.norm(composed, axis=1), 1, atol=1e-6)
    assert composed[0, 0] > composed[0, 1] > 0


def test_names_that_are_taken_or_unknown_are_refused() -> None:
    with pytest.raises(ConfigError, match="composition 'slerp' already"):
        composition.register_composition("slerp", slerp)
    with pytest.raises(ConfigError, match="learner 'mapper' already"):
        token_learner.register_learner("mapper", token_learner.SingleWordMapper)
    with pytest.raises(ConfigError, match="loss 'kl' already"):
        losses.register_gcd("kl", losses.similarity_kl)
    for name in ("tiny", "a/b", "a@b", ""):
        with pytest.raises(ConfigError, match="cannot be called"):
            light_encoders.register_light(name, light_encoders.tiny, 112)
    with pytest.raises(ConfigError, match="unknown learner kind 'grid'; known: adaptive, mapper"):
        token_learner.build_learner(LearnerConfig(kind="grid"), 8, 4, 1.0)
    with pytest.raises(ConfigError, match="composition must be one of sum, slerp, got 'added'"):
        CompositionConfig("added")
    with pytest.raises(ConfigError, match="learner kind must be a name"):
        LearnerConfig(kind="my learner")
