"""The method's losses, as pure functions of vectors and logits (docs/method.md, "Losses").

All vectors are float32 unit rows, and stay float32 in mixed precision. Every loss is a scalar mean over the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec

import torch
from torch import Tensor
from torch.nn import functional

P = ParamSpec("P")
Loss = Callable[Concatenate[Tensor, P], Tensor]


def _in_float32(loss: Loss[P]) -> Loss[P]:
    """The same outside of autocast: bfloat16 rounds a similarity by up to 0.002, and 1 / T multiplies that."""

    @functools.wraps(loss)
    def exact(first: Tensor, /, *rest: P.args, **options: P.kwargs) -> Tensor:
        with torch.autocast(first.device.type, enabled=False):
            return loss(first, *rest, **options)

    return exact


@_in_float32
def info_nce(
    queries: Tensor,
    targets: Tensor,
    temperature: Tensor | float,
    *,
    symmetric: bool = False,
    queue: Tensor | None = None,
) -> Tensor:
    """Contrastive loss of row i of `queries` (B, d) with row i of `targets` (B, d) (van den Oord et al., 2018, eq. 4).

    L = -log exp(q_i.t_i / T) / sum_j exp(q_i.t_j / T), with j over the batch and `queue` (Q, d), rows known
    to be other pictures' targets. `symmetric` averages with the loss from targets to queries.
    """
    pool = targets if queue is None else torch.cat([targets, queue])
    labels = torch.arange(len(queries), device=queries.device)
    loss = functional.cross_entropy(queries @ pool.T / temperature, labels)
    if symmetric:
        loss = (loss + functional.cross_entropy(targets @ queries.T / temperature, labels)) / 2
    return loss


@_in_float32
def similarity_kl(queries: Tensor, targets: Tensor, temperature: Tensor | float) -> Tensor:
    """KL divergence from the targets' similarities among themselves to the queries' similarities to the targets.

    KL( softmax(t_i.t_j / T) || softmax(q_i.t_j / T) ), the mean over i.
    """
    teacher = (targets @ targets.T / temperature).softmax(-1)
    student = (queries @ targets.T / temperature).log_softmax(-1)
    return functional.kl_div(student, teacher, reduction="batchmean")


def mean_squared(queries: Tensor, targets: Tensor) -> Tensor:
    """Squared distance, the mean over rows: 2 - 2 q.t for unit rows."""
    return (queries - targets).pow(2).sum(-1).mean()


def matching(positive: Tensor, negative: Tensor) -> Tensor:
    """Binary cross-entropy of match logits: `positive` (B,) should match, `negative` (B,) should not."""
    return (functional.softplus(-positive).mean() + functional.softplus(negative).mean()) / 2


@_in_float32
def hard_negatives(
    queries: Tensor, targets: Tensor, temperature: float, generator: torch.Generator | None = None
) -> Tensor:
    """For each row the index of another row's target, drawn with probability softmax(q.t / T) (BLIP's mining)."""
    similarity = queries.detach() @ targets.T / temperature
    similarity.fill_diagonal_(float("-inf"))
    return torch.multinomial(similarity.softmax(-1), 1, generator=generator)[:, 0]


@_in_float32
def local_alignment(tokens: Tensor, patches: Tensor, attention: Tensor, temperature: float) -> Tensor:
    """LAR for VL models without a matching encoder: each pseudo-word against the patches it claims to describe.

    `tokens` (B, L, c) and `patches` (B, N, c) are unit rows in one space; `attention` (B, L, N) says where
    each token looks. The described patch of token l is its attention-weighted mean; token l of picture i must
    find it among the same tokens' patches of all pictures (InfoNCE over the batch, the mean over tokens).
    """
    described = functional.normalize(attention @ patches, dim=-1)
    logits = torch.einsum("ilc,jlc->lij", tokens, described) / temperature
    labels = torch.arange(len(tokens), device=tokens.device).expand(tokens.shape[1], -1)
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def resize_attention(attention: Tensor, side: int) -> Tensor:
    """Maps (B, L, H, W) -> (B, L, side * side) on the VL model's grid, each summing to 1."""
    resized = functional.interpolate(attention, (side, side), mode="bilinear", align_corners=False).flatten(2)
    return resized / resized.sum(-1, keepdim=True).clamp(min=1e-6)
