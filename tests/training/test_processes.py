"""Several processes train as one: the contrastive batch spans all of them, and only the main one writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs the [train] extra")

import two_processes  # noqa: E402
from benchmarks.server.process import free_port  # noqa: E402
from image2sentence.catalogue import write_catalogue  # noqa: E402
from image2sentence.errors import ConfigError  # noqa: E402
from image2sentence.training import checkpoint as state  # noqa: E402
from image2sentence.training.distributed import Processes  # noqa: E402
from tests.conftest import REPOSITORY  # noqa: E402
from tiny_vl import save_tiny_vl  # noqa: E402


def launch(launcher: list[str], arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Two processes on this machine's CPU."""
    paths = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", *launcher, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    save_tiny_vl("conv_blip", folder / "conv_blip")
    save_tiny_vl("clip", folder / "clip")
    write_catalogue(folder / "catalogue", 32, seed=3, size=64)
    return folder


@pytest.fixture(scope="module")
def alone(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    two_processes.main(material, out)
    return out


@pytest.fixture(scope="module")
def together(material: Path, alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("together")
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = launch(launcher, [str(Path(two_processes.__file__)), str(material), str(out)])
    assert done.returncode == 0, done.stderr
    assert [json.loads((out / f"processes.{i}.json").read_text()) for i in (0, 1)] == [2, 2]
    return out


@pytest.mark.parametrize("name", two_processes.CASES)
def test_two_processes_are_one_with_the_joint_batch(alone: Path, together: Path, name: str) -> None:
    expected, record = state.load_tensors(alone / f"{name}.0.safetensors")
    assert any(key.startswith("gradient.") for key in expected)
    for index in (0, 1):
        tensors, theirs = state.load_tensors(together / f"{name}.{index}.safetensors")
        assert tensors.keys() == expected.keys()
        for ours, others in zip(record["losses"], theirs["losses"], strict=True):
            assert others == pytest.approx(ours, rel=1e-4)
        for key, value in expected.items():
            torch.testing.assert_close(
                tensors[key], value, rtol=1e-3, atol=2e-5, msg=lambda m, k=key: f"{k}: {m}"
            )


def test_a_killed_run_of_two_processes_goes_on_bit_for_bit(together: Path) -> None:
    whole, record = state.load_tensors(together / "whole" / "state.safetensors")
    broken, _ = state.load_tensors(together / "broken" / "state.safetensors")
    assert record["step"] == two_processes.SETTINGS.steps
    assert whole.keys() == broken.keys()
    assert all(torch.equal(whole[key], broken[key]) for key in whole)


def test_gallery_vectors_are_computed_together(alone: Path, together: Path) -> None:
    expected, record = state.load_tensors(alone / "conv_blip.safetensors")
    tensors, theirs = state.load_tensors(together / "conv_blip.safetensors")
    assert theirs == record
    assert torch.equal(tensors["readable"], torch.arange(32))
    torch.testing.assert_close(tensors["vectors"], expected["vectors"])


def test_only_the_main_process_writes(together: Path) -> None:
    assert len(list((together / "whole" / "tensorboard").iterdir())) == 1
    files = {path.name for path in (together / "whole").iterdir()}
    assert files == {"clip.safetensors", "best.safetensors", "state.safetensors", "tensorboard"}


def test_a_batch_that_cannot_be_shared_is_refused(material: Path, tmp_path: Path) -> None:
    trainer = two_processes.make_trainer(material, tmp_path, *two_processes.CASES["mse"], Processes())
    trainer.processes.count = 3
    with pytest.raises(ConfigError, match="batch: 8 pictures cannot be shared by 3 processes"):
        trainer._loader()


def test_the_command_line_trains_with_two_processes(material: Path, tmp_path: Path) -> None:
    changes = [
        "steps=2",
        "batch=8",
        "lar_batch=4",
        "learner.tokens=2",
        "learner.width=16",
        "modifier_weight=0",
    ]
    sets = [word for change in changes for word in ("--set", change)]
    port = ["--main_process_port", str(free_port())]
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", *port]
    asked = [
        "-m",
        "image2sentence",
        "train",
        str(material / "catalogue"),
        "--vl",
        str(material / "conv_blip"),
    ]
    done = launch(launcher, [*asked, "--out", str(tmp_path / "run"), *sets])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote") == 1
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["training"]["processes"] == 2
    assert config["training"]["steps"] == 2
