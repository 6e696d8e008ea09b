"""Checkpoints of training: safetensors and JSON, written whole.

torch.save would write a pickle; safetensors holds tensors only, so a state file from anywhere can be opened safely.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from image2sentence.errors import ModelError


def save_tensors(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any] | None = None) -> None:
    """Writes `tensors` and a JSON-able `record` to one safetensors file, replacing `path` only once all is on disk.

    Raises ModelError naming the path where the disk is full or the folder cannot be written; what was there stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        owned = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
        save_file(owned, temporary, metadata={"record": json.dumps(record or {})})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"could not write {path}: {error}; what was there before is untouched") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record of a file written by `save_tensors`. Raises ModelError if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {}).get("record", "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, record  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} is not a readable safetensors file ({error}); restore it, or delete it and run again"
        ) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An AdamW-like optimiser's state as named tensors (`index.name`)."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, slot in state.items()
        for name, value in slot.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts `optimizer_tensors` back."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


class Average:
    """An exponential moving average of a module's weights and buffers: what is evaluated and shipped."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {key: value.detach().clone() for key, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Moves towards the module's present weights; faster at the start, when the average is still the first draw."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                self.tensors[key].lerp_(value, 1 - decay)
            else:
                self.tensors[key].copy_(value)


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys with `prefix.` in front, so that several groups share one file."""
    return {f"{prefix}.{key}": value for key, value in tensors.items()}


def group(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The group that `prefixed` made."""
    return {key[len(prefix) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{prefix}.")}
