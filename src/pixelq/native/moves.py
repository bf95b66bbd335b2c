"""The optimiser's part of an update as a kernel, in two passes over the memory."""

import ctypes
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pixelq.native.library import call

__all__ = ["OptimiserKernel", "OptimiserStep"]

_KINDS = {"adam": 0, "centred_rmsprop": 1}
_CLIPS = {"none": 0, "per_variable": 1, "global": 2}


class _Parameter(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_long),
        ("gradient", ctypes.c_void_p),
        ("master", ctypes.c_void_p),
        ("first", ctypes.c_void_p),
        ("second", ctypes.c_void_p),
        ("working", ctypes.c_void_p),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        ("parameters", ctypes.c_void_p),
        ("count", ctypes.c_int),
        ("kind", ctypes.c_int),
        ("clip", ctypes.c_int),
        *((name, ctypes.c_double) for name in ("clip_norm", "beta1", "beta2", "scaled", "epsilon", "plain", "kept")),
    )


class OptimiserStep(NamedTuple):
    """What a step is to do.

    g ← clipped g;  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²; then

    - `adam`: θ ← kept · θ − m · (scaled / (√v + epsilon) + plain)
    - `centred_rmsprop`: θ ← kept · θ − g · scaled / √(v − m² + epsilon)
    """

    kind: Literal["adam", "centred_rmsprop"]

    clip: Literal["none", "per_variable", "global"]
    """Each gradient by its own norm, all by their joint norm, or none, as `clipping.clipping_factors`."""
    clip_norm: float
    """The largest norm that is left as it is."""
    beta1: float
    beta2: float
    scaled: float
    epsilon: float
    plain: float
    kept: float


class OptimiserKernel:
    """An optimiser's step, the scaling of gradients before it and the rounding of weights after it.

    Args:
        masters: float32 weights.
        working: the weights that the network works with: bfloat16, or the very master.
        first: the gradients' running means, of the masters' shapes.
        second: running means of their squares.

    All of them must keep their addresses, and be contiguous; a weight, its moments and its gradients are in memory in
    the same order.
    """

    def __init__(
        self, masters: Sequence[Tensor], working: Sequence[Tensor], first: Sequence[Tensor], second: Sequence[Tensor]
    ) -> None:
        self._kept = (list(masters), list(working), list(first), list(second))  # alive, as their addresses are
        self._gradients: list[Tensor] = []  # alive until a step has read them
        self._parameters = (_Parameter * len(masters))()
        for entry, master, weight, mean, square in zip(self._parameters, *self._kept, strict=True):
            assert master.stride() == weight.stride() == mean.stride() == square.stride()
            assert master.dtype == mean.dtype == square.dtype == torch.float32
            entry.size = master.numel()
            entry.master, entry.first, entry.second = master.data_ptr(), mean.data_ptr(), square.data_ptr()
            entry.working = None if weight is master else weight.data_ptr()

    def take(self, gradients: Sequence[Tensor]) -> None:
        """The gradients of the next step, in the working weights' types.

        They are kept until `step`. A kernel that makes steps by `described` reads them too; its caller keeps them.
        """
        self._gradients = []
        for entry, gradient, weight in zip(self._parameters, gradients, self._kept[1], strict=True):
            assert gradient.dtype == weight.dtype
            laid_out = gradient
            if gradient.stride() != weight.stride():
                laid_out = torch.empty_like(weight, requires_grad=False).copy_(gradient)
            self._gradients.append(laid_out)
            entry.gradient = laid_out.data_ptr()

    def described(self, steps: Sequence[OptimiserStep]) -> "ctypes.Array[_Step]":
        """Steps by the gradients that were taken, for a kernel that makes them."""
        parameters = ctypes.addressof(self._parameters), len(self._parameters)
        return (_Step * len(steps))(
            *(_Step(*parameters, _KINDS[step.kind], _CLIPS[step.clip], *step[2:]) for step in steps)
        )

    def step(self, step: OptimiserStep) -> Tensor:
        """Move all weights by the gradients that were taken; returns their norms before clipping, [P] float32."""
        norms = torch.empty(len(self._parameters))
        call("pixelq_move", self.described([step]), norms)
        self._gradients = []
        return norms
