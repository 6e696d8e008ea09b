"""Training state on disk: whole or not at all, exact, and never a pickle."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed: training state belongs to training")

import torch
from torch import Tensor, nn

from image2sentence.errors import ModelError
from image2sentence.training import checkpoint as state

TENSORS = {
    "half": torch.randn(3, 2).half(),
    "bf16": torch.randn(4).bfloat16(),
    "count": torch.tensor(7),
    "flags": torch.tensor([True, False]),
    "view": torch.arange(12.0).reshape(3, 4).T,
    "empty": torch.empty(0, 5),
}


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "state.safetensors"
    record = {"step": 3, "best": 0.1, "name": "blå", "nested": {"a": [1, 2]}}
    state.save_tensors(path, TENSORS, record)
    tensors, read = state.load_tensors(path)
    assert read == record
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert [p.name for p in path.parent.iterdir()] == ["state.safetensors"]


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    shared = torch.ones(3)
    state.save_tensors(tmp_path / "s", {"a": shared, "b": shared})
    assert torch.equal(state.load_tensors(tmp_path / "s")[0]["b"], shared)


def test_saving_replaces_the_file_and_never_writes_into_it(tmp_path: Path) -> None:
    state.save_tensors(tmp_path / "s", {"a": torch.tensor(1.0)})
    before = (tmp_path / "s").read_bytes()
    (tmp_path / "kept").hardlink_to(tmp_path / "s")
    state.save_tensors(tmp_path / "s", {"a": torch.tensor(2.0)})
    assert state.load_tensors(tmp_path / "s")[0]["a"] == 2.0
    assert (tmp_path / "kept").read_bytes() == before


@pytest.mark.parametrize("damage", [b"", b"not safetensors", None])
def test_a_damaged_file_is_named(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "state.safetensors"
    state.save_tensors(path, TENSORS)
    path.write_bytes(path.read_bytes()[:-9] if damage is None else damage)
    with pytest.raises(ModelError, match=r"state\.safetensors is not a readable safetensors file"):
        state.load_tensors(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing"):
        state.load_tensors(tmp_path / "nothing")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.safetensors"
    state.save_tensors(path, {"a": torch.tensor(1.0)})

    def fill(_: Any, filename: Path, **__: Any) -> None:
        Path(filename).write_bytes(b"the first half of ")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state, "save_file", fill)
    with pytest.raises(ModelError, match="No space left on device; what was there before is untouched"):
        state.save_tensors(path, {"a": torch.tensor(2.0)})
    monkeypatch.undo()
    assert state.load_tensors(path)[0]["a"] == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_device_that_is_full(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system to write to")
    with pytest.raises(ModelError, match="could not write"):
        state.save_tensors(Path("/dev/full") / "state", TENSORS)


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="could not write"):
        state.save_tensors(tmp_path / "file" / "state", TENSORS)


# --- the optimiser ---


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def adam(model: nn.Module) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": rest}], lr=0.01)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, index: int) -> None:
    inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(index))
    optimizer.zero_grad()
    model(inputs).pow(2).mean().backward()
    optimizer.step()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_resuming_equals_going_on_bit_for_bit(tmp_path: Path) -> None:
    whole = network()
    optimizer, average = adam(whole), state.Average(whole, 0.9)
    for index in range(5):
        step(whole, optimizer, index)
        average.update(whole, index)
    parts = {
        **state.prefixed("model", whole.state_dict()),
        **state.prefixed("optimizer", state.optimizer_tensors(optimizer)),
        **state.prefixed("average", average.tensors),
    }
    state.save_tensors(tmp_path / "s", parts, {"step": 5})
    tensors, record = state.load_tensors(tmp_path / "s")
    resumed = network()
    resumed.load_state_dict(state.group("model", tensors))
    second, other = adam(resumed), state.Average(resumed, 0.9)
    state.load_optimizer(second, state.group("optimizer", tensors))
    other.tensors = state.group("average", tensors)
    for index in range(record["step"], 10):
        step(whole, optimizer, index)
        average.update(whole, index)
        step(resumed, second, index)
        other.update(resumed, index)
    assert same(whole.state_dict(), resumed.state_dict())
    assert same(average.tensors, other.tensors)
    assert same(state.optimizer_tensors(optimizer), state.optimizer_tensors(second))


def test_the_average_follows_at_its_pace() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = state.Average(model, 0.9)
    nn.init.ones_(model.weight)
    average.update(model, 0)
    assert average.tensors["weight"].item() == pytest.approx(1 - 1 / 10)  # early: (1 + 0) / (10 + 0) stays
    average.update(model, 10_000)
    assert average.tensors["weight"].item() == pytest.approx(1 - 0.1 * 0.9)


def test_groups_do_not_run_into_each_other() -> None:
    parts = state.prefixed("model", {"a": torch.ones(1)}) | state.prefixed("model2", {"a": torch.zeros(1)})
    assert same(state.group("model", parts), {"a": torch.ones(1)})
