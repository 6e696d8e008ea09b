"""Devices that graphs run on, and how many pictures are encoded at once."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from PIL import Image

from image2sentence.cli.index import index
from image2sentence.cli.main import cli
from image2sentence.encoders import load_encoder, memory, onnx_encoder
from image2sentence.encoders.devices import DEVICES, chosen_device, providers
from image2sentence.encoders.memory import MAX_ROWS, Plan, plan
from image2sentence.encoders.onnx_session import Session
from image2sentence.errors import ConfigError, ModelError

PROVIDERS = {
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    "rocm": ("MIGraphXExecutionProvider", "onnxruntime-migraphx"),
}
MEBIBYTE = 2**20


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """An ONNX Runtime that has these providers, it says."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*names, "CPUExecutionProvider"])


@pytest.mark.parametrize("device", PROVIDERS)
def test_a_device_that_is_missing_is_named_with_its_package(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, package = PROVIDERS[device]
    installed(monkeypatch)
    with pytest.raises(ConfigError, match=f"--device {device} needs {provider}.*install .*{package}"):
        load_encoder(device=device)
    installed(monkeypatch, provider)
    assert providers(device) == [provider, "CPUExecutionProvider"]


def test_auto_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    assert providers("auto") == providers("cpu") == ["CPUExecutionProvider"]
    installed(monkeypatch, "ROCMExecutionProvider")
    assert providers("auto")[0] == "ROCMExecutionProvider"
    installed(monkeypatch, "DmlExecutionProvider", "CUDAExecutionProvider")
    assert providers("auto")[0] == "CUDAExecutionProvider"
    installed(monkeypatch, "CoreMLExecutionProvider")
    assert providers("auto") == ["CPUExecutionProvider"]


def test_directml_is_asked_by_one_thread_at_a_time() -> None:
    class Runs:
        """Runs that tell whether they overlap."""

        inside = most = 0

        def run(self, *asked: object) -> object:
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.01)
            self.inside -= 1
            return asked

        def get_providers(self) -> list[str]:
            return ["DmlExecutionProvider"]

    runs = Runs()
    session = Session(runs, Path("query_text.onnx"), None)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda n: session.run([], {str(n): n}), range(8))) == [
            ([], {str(n): n}) for n in range(8)
        ]
    assert runs.most == 1


def test_the_variable_names_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGE2SENTENCE_DEVICE", "cpu")
    assert chosen_device(None) == "cpu"
    assert chosen_device("auto") == "auto"
    monkeypatch.setenv("IMAGE2SENTENCE_DEVICE", "gpu")
    with pytest.raises(ConfigError, match="expected a device of auto, cpu"):
        load_encoder()
    with pytest.raises(ConfigError, match="got 'tpu'"):
        load_encoder(device="tpu")


def test_a_device_that_does_not_start_is_an_error_only_if_it_was_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("CUDA is here and starts")
    picture = Image.new("RGB", (64, 64), "red")
    expected = load_encoder(device="cpu").encode_images([picture])
    installed(monkeypatch, "CUDAExecutionProvider")  # and it has no such thing in truth
    with pytest.raises(ModelError, match="could not start CUDAExecutionProvider: it needs an NVIDIA GPU"):
        load_encoder(device="cuda").encode_images([picture])
    with caplog.at_level(logging.WARNING):
        found = load_encoder(device="auto").encode_images([picture])
    assert np.array_equal(found, expected)
    assert "encoding on the processor" in caplog.text


def test_the_command_line_offers_all_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (option,) = (one for one in index.params if one.name == "device")
    assert tuple(option.type.choices) == DEVICES  # type: ignore[attr-defined]
    monkeypatch.chdir(tmp_path)
    installed(monkeypatch)
    (tmp_path / "photos").mkdir()
    result = CliRunner().invoke(cli, ["index", "photos", "--device", "openvino"])
    assert result.exit_code == 1
    assert "onnxruntime-openvino" in result.output
    assert not (tmp_path / ".image2sentence").exists()


# --- memory ---------------------------------------------------------------------------------------------------------


def test_calls_and_pictures_fit_into_memory() -> None:
    large = 1200 * MEBIBYTE
    assert plan(large, 224, 8, None) == Plan(MAX_ROWS, 8)
    assert plan(large, 224, 8, 64_000 * MEBIBYTE) == Plan(MAX_ROWS, 8)
    laptop = plan(large, 224, 8, 5_000 * MEBIBYTE)
    assert laptop.rows * laptop.calls * large / 16 + large <= 2_500 * MEBIBYTE
    assert plan(large, 224, 8, 100 * MEBIBYTE) == Plan(1, 1)
    assert plan(20 * MEBIBYTE, 224, 8, 8_000 * MEBIBYTE) == Plan(MAX_ROWS, 8)


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    assert memory._free_of_group(tmp_path) is None
    (tmp_path / "memory.max").write_text(f"{1000 * MEBIBYTE}\n")
    (tmp_path / "memory.current").write_text(f"{700 * MEBIBYTE}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {200 * MEBIBYTE}\n")
    assert memory._free_of_group(tmp_path) == 500 * MEBIBYTE
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._free_of_group(tmp_path) is None
    assert (memory.free_memory() or 1) > 0


def test_vectors_are_the_same_with_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)) for _ in range(5)]
    expected = load_encoder().encode_images(pictures)
    monkeypatch.setattr(onnx_encoder, "free_memory", lambda: 0)
    encoder = load_encoder()
    assert encoder.parallel == 1
    rows = [encoder.prepare(picture) for picture in pictures]
    assert np.abs(encoder.encode_prepared(rows) - expected).max() < 1e-5
