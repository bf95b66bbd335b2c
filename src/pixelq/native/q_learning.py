"""The values of the network of 2015, and the first half of an update of deep Q-learning, as one kernel each."""

import ctypes
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pixelq.native.library import ask, call
from pixelq.types import Batch

__all__ = ["Differentiated", "QLearningKernel", "q_values"]

_PENALTIES = {"huber": 0, "mse": 1, "half_mse": 2}
_Sizes = ctypes.c_int * 5
_Pointers = ctypes.c_void_p * 10


class _Learner(ctypes.Structure):
    _fields_ = (
        ("sizes", _Sizes),
        ("double", ctypes.c_int),
        ("penalty", ctypes.c_int),
        ("terminal", ctypes.c_float),
        ("online", _Pointers),
        ("target", _Pointers),
        ("gradients", _Pointers),
    )


def q_values(obs: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Values of all actions.

    Args:
        obs: [B, 4, 84, 84] uint8.
        weights: as `QLearningKernel` has them.

    Returns:
        [B, A] float32, without gradients.
    """
    values = torch.empty(len(obs), len(weights[9]))
    call("pixelq_q_values", _sizes(weights), _pointers(weights), len(obs), obs.contiguous(), values)
    return values


def _sizes(weights: Sequence[Tensor]) -> ctypes.Array[ctypes.c_int]:
    return _Sizes(*(len(bias) for bias in weights[1::2]))


def _pointers(weights: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return _Pointers(*(weight.data_ptr() for weight in weights))


class Differentiated(NamedTuple):
    """A batch's loss, and what it is made of."""

    loss: Tensor  # [] mean of the penalties by their weights
    q_tm1: Tensor  # [B, A] the online network's values
    error: Tensor  # [B] temporal-difference errors
    gradients: list[Tensor]  # of the loss, like the weights; the same memory every time


class QLearningKernel:
    """Errors of Q-learning or double Q-learning, and the gradients of their penalties, for the network of 2015.

    Three convolutions and a dense layer as `torso` and `dense_relu` have them, then outputs in float32.

    Args:
        online: weights and biases of the five layers, [F₁, 4, 8, 8], [F₁], [F₂, F₁, 4, 4], [F₂], [F₃, F₂, 3, 3], [F₃],
            [H, F₃ · 49], [H], [A, H], [A], the last two float32, the others bfloat16, convolutions channels last.
        target: the same of the target network.
        double: the online network chooses the next action.
        penalty: what becomes of an error: Huber's penalty with threshold 1, the square, or half of it.
        terminal_target: the target where the discount is 0; None: the reward.

    The weights must stay where they are.

    Source: `pixelq.losses.td`, where the formulas are.
    """

    def __init__(
        self,
        online: Sequence[Tensor],
        target: Sequence[Tensor],
        double: bool,
        penalty: Literal["huber", "mse", "half_mse"],
        terminal_target: float | None,
    ) -> None:
        self._kept = (list(online), list(target))  # alive, as their addresses are
        self._actions = len(online[9])
        self.gradients = [torch.empty_like(weight, requires_grad=False) for weight in online]
        for weight in (*online[:6:2], *target[:6:2]):
            assert weight.is_contiguous(memory_format=torch.channels_last)
        self._learner = _Learner(
            _sizes(online),
            double,
            _PENALTIES[penalty],
            math.nan if terminal_target is None else terminal_target,
            *(_pointers(tensors) for tensors in (online, target, self.gradients)),
        )
        self._scratch_bytes = ask("pixelq_q_learning_scratch", ctypes.byref(self._learner))  # for a transition
        self._scratch = torch.empty(0, dtype=torch.uint8)

    def __call__(self, batch: Batch) -> Differentiated:
        """Differentiate the mean loss of a batch."""
        size = len(batch.a_tm1)
        q_tm1, error, loss = torch.empty(size, self._actions), torch.empty(size), torch.empty(())
        tensors = [tensor.contiguous() for tensor in batch]
        given = (ctypes.byref(self._learner), size, *tensors, int(batch.weight.dim() > 0))
        call("pixelq_q_learning", *given, q_tm1, error, loss, self._scratch_for(size))
        return Differentiated(loss, q_tm1, error, self.gradients)

    def _scratch_for(self, size: int) -> Tensor:
        """Memory for a batch, which is kept: it would be new pages of the system's every time."""
        if len(self._scratch) < size * self._scratch_bytes:
            self._scratch = torch.empty(size * self._scratch_bytes, dtype=torch.uint8)
        return self._scratch
