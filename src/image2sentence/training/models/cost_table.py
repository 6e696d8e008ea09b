"""What each light encoder costs: parameters, multiply-adds, input size and measured latency."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from image2sentence.training.models.light_encoders import LIGHT, LightEncoder, build_light


@dataclass(frozen=True)
class LightCost:
    """`parameters` and `multiply_adds` (of one picture) are counts, `size` is in pixels, `latency` in ms."""

    name: str
    parameters: int
    multiply_adds: int
    size: int
    latency: float


def light_table(names: Sequence[str] | None = None, *, runs: int = 20, threads: int = 1) -> list[LightCost]:
    """The cost of each named light encoder, by default of all in LIGHT, cheapest first.

    Latency is that of one picture through ONNX Runtime (float32, `threads` threads), the median of `runs`.
    """
    return sorted((_cost(name, runs, threads) for name in names or LIGHT), key=lambda row: row.multiply_adds)


def format_light_table(rows: Sequence[LightCost]) -> str:
    """The rows as aligned text with a heading."""
    lines = [f"{'light encoder':<24}{'parameters':>12}{'GMACs':>8}{'input':>8}{'latency':>11}"]
    for row in rows:
        lines.append(
            f"{row.name:<24}{row.parameters / 1e6:>10.2f} M{row.multiply_adds / 1e9:>8.3f}{row.size:>5} px"
            f"{row.latency:>8.1f} ms"
        )
    return "\n".join(lines)


@torch.no_grad()
def multiply_adds(module: nn.Module, size: int) -> int:
    """Multiply-accumulate operations of one picture of `size` by `size` pixels.

    Counted as they run: convolutions (grouped ones by their own channels only), linear layers and every
    matrix product, attention's two included. Elementwise operations, norms and pooling are not counted.
    """
    was_training = module.training
    module.eval()
    # The plain implementation of attention is made of matrix products, which the counter knows.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        module(torch.zeros(1, 3, size, size))
    module.train(was_training)
    return int(counter.get_total_flops()) // 2


def onnx_latency(encoder: LightEncoder, runs: int, threads: int) -> float:
    """Median milliseconds of one picture through ONNX Runtime, after three that are not counted."""
    size = encoder.preprocessing.size
    pixels = np.random.default_rng(0).random((1, 3, size, size), np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    graph = onnxruntime.InferenceSession(_graph(encoder), options, providers=["CPUExecutionProvider"])
    seconds = []
    for _ in range(runs + 3):
        start = time.perf_counter()
        graph.run(None, {"pixels": pixels})
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[3:])


def _cost(name: str, runs: int, threads: int) -> LightCost:
    encoder = build_light(name)
    size = encoder.preprocessing.size
    parameters = sum(p.numel() for p in encoder.parameters())
    return LightCost(
        name, parameters, multiply_adds(encoder, size), size, onnx_latency(encoder, runs, threads)
    )


def _graph(encoder: LightEncoder) -> bytes:
    size = encoder.preprocessing.size
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's remarks on constants, and its own deprecation
        path = Path(folder, "light.onnx")
        pixels = torch.zeros(1, 3, size, size)
        torch.onnx.export(encoder.eval(), (pixels,), os.fspath(path), input_names=["pixels"], dynamo=False)
        return path.read_bytes()
