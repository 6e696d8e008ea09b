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

from image2sentence.errors import ConfigError
from image2sentence.training.settings import GCD_KINDS

SAME = 1 - 1e-5
"""Dot product of unit rows from which on two pictures' gallery vectors count as one picture's."""

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
def same_rows(rows: Tensor, others: Tensor) -> Tensor:
    """(B, n) booleans: is row i of unit rows (B, d) the vector of a copy of row j of `others` (n, d)?

    False where i = j: a row is no copy of itself. Copies are neither right nor wrong answers, so losses leave them out.
    """
    same = rows.detach() @ others.detach().T > SAME
    return same & ~torch.eye(*same.shape, dtype=torch.bool, device=same.device)


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
    to be other pictures' targets, without the j whose target is a copy of i's (`same_rows`). `symmetric` averages with
    the loss from targets to queries.
    """
    pool = targets if queue is None else torch.cat([targets, queue])
    labels = torch.arange(len(queries), device=queries.device)
    copies = same_rows(targets, pool)
    logits = (queries @ pool.T / temperature).masked_fill(copies, float("-inf"))
    loss = functional.cross_entropy(logits, labels)
    if symmetric:
        logits = (targets @ queries.T / temperature).masked_fill(copies[:, : len(queries)], float("-inf"))
        loss = (loss + functional.cross_entropy(logits, labels)) / 2
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
    """Binary cross-entropy of match logits: `positive` (B,) should match, `negative` (n,), n <= B, should not."""
    wrong = functional.softplus(negative).sum() / max(1, len(negative))
    return (functional.softplus(-positive).mean() + wrong) / 2


@_in_float32
def hard_negatives(
    queries: Tensor, targets: Tensor, temperature: float, generator: torch.Generator | None = None
) -> Tensor:
    """For each row the index of another row's target, drawn with probability softmax(q.t / T) (BLIP's mining).

    Copies of the row's own target are never drawn; -1 for a row that has nothing else beside it.
    """
    similarity = queries.detach() @ targets.T / temperature
    own = torch.eye(len(targets), dtype=torch.bool, device=targets.device) | same_rows(targets, targets)
    alone = own.all(-1)
    chances = similarity.masked_fill(own & ~alone[:, None], float("-inf")).softmax(-1)
    drawn = torch.multinomial(chances, 1, generator=generator)[:, 0]
    return drawn.masked_fill(alone, -1)


@_in_float32
def local_alignment(
    tokens: Tensor, patches: Tensor, attention: Tensor, temperature: float, copies: Tensor | None = None
) -> Tensor:
    """LAR for VL models without a matching encoder: each pseudo-word against the patches it claims to describe.

    `tokens` (B, L, c) and `patches` (B, N, c) are unit rows in one space; `attention` (B, L, N) says where
    each token looks. The described patch of token l is its attention-weighted mean; token l of picture i must
    find it among the same tokens' patches of all pictures (InfoNCE over the batch, the mean over tokens) but those
    that `copies` (B, B) says to be copies of picture i.
    """
    described = functional.normalize(attention @ patches, dim=-1)
    logits = torch.einsum("ilc,jlc->lij", tokens, described) / temperature
    if copies is not None:
        logits = logits.masked_fill(copies, float("-inf"))
    labels = torch.arange(len(tokens), device=tokens.device).expand(tokens.shape[1], -1)
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


GlobalLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries (B, d), their pictures' gallery vectors (B, d), temperature () -> scalar."""

GCD: dict[str, GlobalLoss] = {}
"""Forms of global contrastive distillation of one's own, by name."""


def register_gcd(name: str, loss: GlobalLoss) -> None:
    """Make a loss of one's own known as the setting `gcd`. Raises ConfigError for a name that is taken."""
    if name in GCD_KINDS:
        raise ConfigError(f"there is a loss {name!r} already: give yours another name")
    GCD[name] = _in_float32(loss)
    GCD_KINDS.append(name)


def resize_attention(attention: Tensor, side: int) -> Tensor:
    """Maps (B, L, H, W) -> (B, L, side * side) on the VL model's grid, each summing to 1."""
    resized = functional.interpolate(attention, (side, side), mode="bilinear", align_corners=False).flatten(2)
    return resized / resized.sum(-1, keepdim=True).clamp(min=1e-6)
