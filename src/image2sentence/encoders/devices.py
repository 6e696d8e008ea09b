"""Devices that graphs run on: execution providers of ONNX Runtime.

The large graphs go to the device; light query graphs stay on the processor, where one query is fastest.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

from image2sentence.errors import ConfigError, ModelError

DEVICE_VARIABLE = "IMAGE2SENTENCE_DEVICE"
AUTO, CPU = "auto", "cpu"
_CPU_PROVIDER = "CPUExecutionProvider"
DIRECTML = "DmlExecutionProvider"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Device:
    """Its providers, the better first; the package that has them; what else the machine needs."""

    providers: tuple[str, ...]
    package: str
    needs: str


_DEVICES = {
    "cuda": _Device(
        ("CUDAExecutionProvider",), "onnxruntime-gpu", "an NVIDIA GPU with its driver, CUDA and cuDNN"
    ),
    "rocm": _Device(
        ("MIGraphXExecutionProvider", "ROCMExecutionProvider"),
        "onnxruntime-migraphx",
        "an AMD GPU with ROCm (the package is on AMD's own index, repo.radeon.com)",
    ),
    "directml": _Device((DIRECTML,), "onnxruntime-directml", "Windows and a GPU with DirectX 12"),
    "openvino": _Device(
        ("OpenVINOExecutionProvider",), "onnxruntime-openvino", "a processor, GPU or NPU of Intel's"
    ),
    "coreml": _Device(("CoreMLExecutionProvider",), "onnxruntime", "macOS"),
}
_BY_ITSELF = ("cuda", "rocm", "directml")
"""What "auto" takes: GPUs. OpenVINO and Core ML compile a graph for minutes, and are taken when named."""
DEVICES = (AUTO, CPU, "cuda", "directml", "coreml", "openvino", "rocm")


def chosen_device(device: str | None) -> str:
    """The device: as given, else $IMAGE2SENTENCE_DEVICE, else "auto".

    Raises ConfigError for an unknown one, or one that is named and cannot be used here.
    """
    name = device or os.environ.get(DEVICE_VARIABLE) or AUTO
    if name not in DEVICES:
        raise ConfigError(f"expected a device of {', '.join(DEVICES)}; got {name!r}")
    if name not in (AUTO, CPU):
        providers(name)
    return name


def providers(device: str) -> list[str]:
    """ONNX Runtime's providers for a device, the processor's last.

    "auto" is the first GPU that the installed ONNX Runtime can use, else the processor. Raises ConfigError where it
    cannot use the device that is named.
    """
    if device == CPU:
        return [_CPU_PROVIDER]
    import onnxruntime

    there = onnxruntime.get_available_providers()
    names = _BY_ITSELF if device == AUTO else (device,)
    found = [one for name in names for one in _DEVICES[name].providers if one in there]
    if not found and device != AUTO:
        wanted = _DEVICES[device]
        raise ConfigError(
            f"--device {device} needs {wanted.providers[0]}, which the ONNX Runtime here does not "
            f"have (it has {', '.join(there)}): {_how_to_install(wanted)}; it needs {wanted.needs}. Or use --device cpu"
        )
    return [*found[:1], _CPU_PROVIDER]


def _how_to_install(wanted: _Device) -> str:
    if wanted.package == "onnxruntime":
        return "pip install --upgrade onnxruntime"
    return f"pip uninstall onnxruntime, then pip install {wanted.package}"


def configure(options: Any, names: list[str]) -> None:
    """Sets what a provider demands of a session's options."""
    if DIRECTML in names:  # refuses memory patterns and parallel execution
        options.enable_mem_pattern = False


def require_started(session: Any, device: str, names: list[str]) -> None:
    """Looks whether a session runs where it should: ONNX Runtime falls back to the processor by itself.

    Raises ModelError where the device was named; says so in a warning where it was chosen by "auto".
    """
    if names[0] in session.get_providers():
        return
    needs = next(one.needs for one in _DEVICES.values() if names[0] in one.providers)
    problem = f"ONNX Runtime could not start {names[0]}: it needs {needs}"
    if device != AUTO:
        raise ModelError(f"{problem}. Install what is missing, or use --device cpu")
    _log.warning("%s; encoding on the processor", problem)
