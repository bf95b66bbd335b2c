"""The optimiser's part of an update as kernels, in two passes over the memory."""

import ctypes
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pixelq.native.library import call

__all__ = ["AdamKernel"]

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


class AdamKernel:
    """Adam's step, the scaling of gradients before it and the rounding of weights after it.

    Args:
        masters: float32 weights.
        working: the weights that the network works with: bfloat16, or the very master.
        first: the gradients' running means, of the masters' shapes.
        second: those of their squares.

    All of them must stay where they are, and have no holes; a weight, its moments and its gradients lie in memory in
    the same order.
    """

    def __init__(
        self, masters: Sequence[Tensor], working: Sequence[Tensor], first: Sequence[Tensor], second: Sequence[Tensor]
    ) -> None:
        self._strides = [weight.stride() for weight in working]
        self._dtypes = [weight.dtype for weight in working]
        self._kept = (list(masters), list(working), list(first), list(second))  # alive, as their addresses are
        self._taken: Sequence[Tensor] | None = None  # the gradients whose addresses are known, if none was copied
        self._parameters = (_Parameter * len(masters))()
        for entry, master, weight, mean, square in zip(self._parameters, *self._kept, strict=True):
            assert master.stride() == weight.stride() == mean.stride() == square.stride()
            assert master.dtype == mean.dtype == square.dtype == torch.float32
            entry.size = master.numel()
            entry.master, entry.first, entry.second = master.data_ptr(), mean.data_ptr(), square.data_ptr()
            entry.working = None if weight is master else weight.data_ptr()

    def take(self, gradients: Sequence[Tensor]) -> Tensor:
        """The gradients of the step to come, of the working weights' types; returns their norms, [P] float32.

        The tensors of the same list must be the same ones in the next step.
        """
        if gradients is not self._taken:  # else they lie where they lay
            self._taken, self._laid_out = gradients, list(gradients)
            for index, gradient in enumerate(gradients):
                assert gradient.dtype == self._dtypes[index]
                if gradient.stride() != self._strides[index]:
                    there = torch.empty_like(self._kept[1][index], requires_grad=False)
                    self._taken, self._laid_out[index] = None, there.copy_(gradient)
                self._parameters[index].gradient = self._laid_out[index].data_ptr()
        self._norms = torch.empty(len(gradients))
        call("pixelq_norms", len(gradients), self._parameters, self._norms)
        return self._norms

    def step(
        self,
        clip: Literal["none", "per_variable", "global"],
        clip_norm: float,
        betas: tuple[float, float],
        scaled: float,
        epsilon: float,
        plain: float,
    ) -> None:
        """Move all weights by the gradients that were taken.

        g ← clipped g;  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ − m · (scaled / (√v + epsilon) + plain)

        Args:
            clip: each gradient by its own norm, all by their joint norm, or none, as `optimisers.clipping_factors`.
            clip_norm: the largest norm that is left as it is.
            betas: β₁ and β₂.
            scaled: see the formula.
            epsilon: see the formula.
            plain: see the formula.
        """
        numbers = (clip_norm, *betas, scaled, epsilon, plain)
        call("pixelq_adam", len(self._norms), self._parameters, self._norms, _CLIPS[clip], *map(float, numbers))
