"""Asking from a device: what the smallest installation needs, and what `bench` says of a query's cost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from image2sentence.cli.main import cli
from image2sentence.encoders.model_folder import GRAPHS, bundled
from image2sentence.errors import ConfigError, ImageError, ModelError
from image2sentence.evaluation import latency as timing

SMALLEST = """
import importlib.abc, sys

ALLOWED = {"image2sentence", "numpy", "PIL", "onnxruntime", "tokenizers"}

class OnlyThese(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"not in the smallest installation: {name}", name=name)
        return None

sys.meta_path.insert(0, OnlyThese())

from image2sentence.encoders import load_encoder
from image2sentence.images import load_image

encoder = load_encoder()
sentence = encoder.encode_sentences([load_image(sys.argv[1])])
print(encoder.encode_queries(sentence, ["but red"]).shape)
"""


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "photo.jpg"
    file.write_bytes(timing.drawn_picture(96))
    return file


def test_a_query_needs_four_packages_only(picture: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SMALLEST, str(picture)], capture_output=True, text=True, check=False
    )
    assert ran.stdout == "(1, 256)\n", ran.stderr


def test_bench_tells_every_stage(picture: Path) -> None:
    asked = [
        "bench",
        "--picture",
        str(picture),
        "--words",
        "but red",
        "--gallery-size",
        "50",
        "--rounds",
        "2",
    ]
    printed = CliRunner().invoke(cli, [*asked, "--json"], catch_exceptions=False)
    (found,) = json.loads(printed.stdout).values()
    assert set(found["stages"]) == set(timing._STAGE_NAMES)
    assert all(value >= 0 for value in found["stages"].values())
    assert found["composed"] == pytest.approx(sum(found["stages"][name] for name in timing.COMPOSED))
    assert found["another_modifier"] == found["stages"]["text"]
    assert found["bytes"] == {name: (bundled() / name).stat().st_size for name in GRAPHS}
    assert found["cold_seconds"] > 0
    assert found["peak_bytes"] is None or found["peak_bytes"] > 10_000_000


def test_the_table_has_a_column_for_each_model(picture: Path) -> None:
    results = timing.measure({"one": None, "another": None}, picture.read_bytes(), gallery=10, rounds=1)
    results["another"]["precision"] = {"query_text": "int8"}
    lines = timing.table(results).splitlines()
    assert lines[0].split() == ["one", "another"]
    assert len({len(line) for line in lines}) == 1
    assert any(line.startswith("  symmetric / composed") and line.endswith(" x") for line in lines)
    assert any(line.startswith("  query_text") and line.endswith("MB int8") for line in lines)


def test_the_learner_has_a_share_of_its_graph(picture: Path) -> None:
    from image2sentence.encoders import load_encoder

    assert 0 < timing.learner_share(load_encoder(), picture.read_bytes(), runs=3) < 1


def test_a_process_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a model folder"):
        timing.cold_query(tmp_path / "none", timing.drawn_picture(32), "red", runs=1)


def test_mistakes_are_named(tmp_path: Path, picture: Path) -> None:
    with pytest.raises(ImageError, match="not a JPEG"):
        timing.measure({"": None}, b"no picture at all", rounds=1)
    with pytest.raises(ConfigError, match="at least one round"):
        timing.measure({"": None}, picture.read_bytes(), rounds=0)
    missing = CliRunner().invoke(cli, ["bench", "--picture", str(tmp_path / "none.jpg")])
    assert missing.exit_code == 1
    assert "none.jpg: no such file" in missing.stderr
