"""Processes that train together, as `accelerate launch` starts them.

Row i of the joint batch belongs to process i mod n. What goes into a loss is joined first, so every process computes
the loss of the joint batch, and the mean of their gradients is the gradient of one process with that batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, cast

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor, distributed, nn

M = TypeVar("M", bound=nn.Module)


class Processes:
    """This process among those that train together: `index` of `count`, on `device`; `main` is the one that writes."""

    def __init__(self) -> None:
        cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
        self._state = PartialState(cpu=cpu)
        self.device: torch.device = self._state.device
        self.index: int = self._state.process_index
        self.count: int = self._state.num_processes
        self.main: bool = self._state.is_main_process

    @property
    def part(self) -> slice:
        """The rows of the joint batch that are this process's own."""
        return slice(self.index, None, self.count)

    def join(self, rows: Tensor) -> Tensor:
        """Own rows (b, ...) -> the joint batch's (b * count, ...), in order; gradients flow back to their owners."""
        if self.count == 1:
            return rows
        joined: Tensor = _Join.apply(rows, self.index, self.count)
        return joined

    @torch.no_grad()
    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each floating-point tensor by its mean over the processes."""
        if self.count == 1:
            return
        own = [tensor for tensor in tensors if tensor.is_floating_point()]
        if own:
            flat = torch.cat([tensor.flatten() for tensor in own])
            distributed.all_reduce(flat)
            _unflatten(flat / self.count, own)

    @torch.no_grad()
    def share(self, module: nn.Module) -> None:
        """Gives every process the main one's weights."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                distributed.broadcast(tensor, 0)

    def synchronised(self, module: M) -> M:
        """Batch norms over the joint batch where torch has them: on GPUs. On a CPU each process has its own."""
        if self.count == 1 or self.device.type != "cuda":
            return module
        return cast(M, nn.SyncBatchNorm.convert_sync_batchnorm(module))

    def wait(self) -> None:
        """Until all processes are here."""
        self._state.wait_for_everyone()


class _Join(torch.autograd.Function):
    """All processes' rows, interleaved. Backwards, the sum of what all processes' losses say of the own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: int, count: int) -> Tensor:
        ctx.part = slice(index, None, count)
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(count)]
        distributed.all_gather(parts, rows.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[ctx.part], None, None


def _unflatten(flat: Tensor, into: list[Tensor]) -> None:
    start = 0
    for tensor in into:
        tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()
