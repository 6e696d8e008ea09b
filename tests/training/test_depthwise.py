"""Strided depthwise convolutions stay in float32 on a CPU, and nothing else changes."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="torch is not installed: light encoders belong to training")

import torch
from torch import nn

from image2sentence.training.depthwise import Float32Conv2d, strided_in_float32


def test_only_strided_depthwise_convolutions_are_replaced() -> None:
    plain, strided, still = (
        nn.Conv2d(8, 8, 3, 2),
        nn.Conv2d(8, 8, 3, 2, groups=8),
        nn.Conv2d(8, 8, 3, groups=8),
    )
    body = nn.Sequential(plain, nn.Sequential(strided), still)
    names, drawn = list(body.state_dict()), torch.get_rng_state()
    strided_in_float32(body)
    torch.testing.assert_close(torch.get_rng_state(), drawn, rtol=0, atol=0)
    assert body[0] is plain
    assert body[2] is still
    found = body[1][0]
    assert isinstance(found, Float32Conv2d)
    assert found.weight is strided.weight
    assert found.bias is strided.bias
    assert list(body.state_dict()) == names
    strided_in_float32(body)
    assert body[1][0] is found


def test_products_are_float32_and_the_rest_of_the_network_sees_bfloat16() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 9, 9).bfloat16()
    conv = Float32Conv2d(8, 8, 3, 2, 1, groups=8)
    exact = nn.functional.conv2d(x.float(), conv.weight, conv.bias, 2, 1, 1, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = conv(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, exact.bfloat16(), rtol=0, atol=0)
    found.sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.dtype == torch.float32


def test_without_autocast_it_is_a_plain_convolution() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 9, 9)
    conv = Float32Conv2d(8, 8, 3, 2, groups=8)
    torch.testing.assert_close(conv(x), nn.functional.conv2d(x, conv.weight, conv.bias, 2, 0, 1, 8))
