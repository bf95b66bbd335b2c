"""Layers of a network as kernels with gradients, bfloat16 in and out."""

import itertools
from typing import Any

import torch
from torch import Tensor

from pixelq.native.library import call

__all__ = ["dense_relu", "takes_dense", "takes_torso", "torso"]

_OBS = (4, 84, 84)
_DEPTH = 32  # bfloat16 numbers that a product of tiles sums over


def takes_torso(filters: tuple[int, int, int], obs: tuple[int, int, int] = _OBS) -> bool:
    """Whether `torso` supports these numbers of filters in its three convolutions, and these planes."""
    first, second, third = filters
    return obs == _OBS and first % 16 == 0 and second % _DEPTH == 0 and third % _DEPTH == 0


def takes_dense(inputs: int, units: int) -> bool:
    """Whether `dense_relu` supports such a layer."""
    return inputs % _DEPTH == 0 and units % _DEPTH == 0


def torso(obs: Tensor, *layers: tuple[Tensor, Tensor], background: Tensor | None = None) -> Tensor:
    """Three convolutions, 8×8 by 4, 4×4 by 2, 3×3 by 1, each with a ReLU, of (pixels − background) / 255.

    Sums are float32; planes between convolutions are rounded to bfloat16.

    Args:
        obs: [B, 4, 84, 84] uint8.
        layers: weights and biases of the three: [F₁, 4, 8, 8], [F₂, F₁, 4, 4], [F₃, F₂, 3, 3], channels last in memory,
            and [F₁], [F₂], [F₃], all bfloat16.
        background: [1] float32, a whole number; None: 0.

    Returns:
        [B, F₃ · 49] bfloat16, differentiable in weights and biases.

    Source: Mnih et al. 2015, Methods, Model architecture.
    """
    for weight, _ in layers:
        assert weight.is_contiguous(memory_format=torch.channels_last)
    features: Tensor = _Torso.apply(obs.contiguous(), background, *itertools.chain(*layers))  # type: ignore[no-untyped-call]
    return features


def dense_relu(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A dense layer with a ReLU.

    Args:
        features: [B, K] bfloat16.
        weight: [H, K] bfloat16.
        bias: [H] bfloat16.

    Returns:
        [B, H] float32, differentiable in all three.
    """
    hidden: Tensor = _DenseReLU.apply(features.contiguous(), weight, bias)  # type: ignore[no-untyped-call]
    return hidden


class _Torso(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, obs: Tensor, background: Tensor | None, *parameters: Tensor) -> Tensor:
        size, sizes = len(obs), [len(bias) for bias in parameters[1::2]]
        kept: tuple[Tensor | None, ...] = (None, None, None)
        if any(ctx.needs_input_grad):
            kept = tuple(
                obs.new_empty(size, side, side, channels, dtype=torch.bfloat16)
                for side, channels in ((84, 4), (20, sizes[0]), (9, sizes[1]))
            )
        features = obs.new_empty(size, sizes[2] * 49, dtype=torch.bfloat16)
        call("pixelq_torso_forward", size, *sizes, obs, background, *parameters, *kept, features)
        ctx.save_for_backward(*parameters, *kept, features)
        return features

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *parameters, woven, first, second, features = ctx.saved_tensors
        size, sizes = len(features), [len(bias) for bias in parameters[1::2]]
        gradients = [torch.empty_like(parameter) for parameter in parameters]
        call(
            *("pixelq_torso_backward", size, *sizes, parameters[2], parameters[4]),
            *(woven, first, second, features, gradient.contiguous(), *gradients),
        )
        return None, None, *gradients


class _DenseReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        hidden = features.new_empty(len(features), len(bias), dtype=torch.float32)
        call("pixelq_dense_forward", *features.shape, len(bias), features, weight, bias, hidden)
        ctx.save_for_backward(features, weight, bias, hidden)
        return hidden

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, weight, bias, hidden = ctx.saved_tensors
        gradients = torch.empty_like(features), torch.empty_like(weight), torch.empty_like(bias)
        call(
            *("pixelq_dense_backward", *features.shape, len(bias), features, weight, hidden),
            *(gradient.contiguous(), *gradients),
        )
        return gradients
