"""Configuration that all small BLIP models with other visual towers share."""

from __future__ import annotations

from collections.abc import Sequence

UNUSED_TRANSFORMER = {"num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 1}
"""Sizes of the vision transformer that BLIP builds first: its place is taken by another tower, so it is kept small."""


def text_config(
    vocab_size: int,
    width: int,
    layers: int,
    heads: int,
    max_length: int,
    specials: Sequence[int] = (0, 2, 3),
) -> dict[str, int | float]:
    """BLIP's text encoder without dropout; `specials` are the token ids of [PAD], [CLS] and [SEP]."""
    pad, start, end = specials
    return {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": max_length,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": start,
        "eos_token_id": end,
        "sep_token_id": end,
        "pad_token_id": pad,
    }
