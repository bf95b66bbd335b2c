"""The values of the network of 2015, and an update of deep Q-learning, as one kernel each."""

import ctypes
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from pixelq.native.library import ask, call
from pixelq.native.replay import Images, UnreadBatch, UnreadPlanes, images_of
from pixelq.types import Batch

__all__ = ["Learned", "QLearningKernel", "q_values"]

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


def q_values(
    weights: Sequence[Tensor], obs: Tensor, others: Tensor | None = None, background: Tensor | None = None
) -> Tensor:
    """Values of all actions.

    Args:
        weights: as `QLearningKernel` has them.
        obs: [B, 4, 84, 84] uint8.
        others: [C, 4, 84, 84] uint8, more of them.
        background: as `QLearningKernel` has it.

    Returns:
        [B + C, A] float32, without gradients.
    """
    obs, others = obs.contiguous(), None if others is None else others.contiguous()
    size = len(obs) + (0 if others is None else len(others))
    values = torch.empty(size, len(weights[9]))
    images = ctypes.byref(images_of(obs, others, background))
    call("pixelq_q_values", _sizes(weights), _pointers(weights), size, images, values)
    return values


def _sizes(weights: Sequence[Tensor]) -> ctypes.Array[ctypes.c_int]:
    return _Sizes(*(len(bias) for bias in weights[1::2]))


def _pointers(weights: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return _Pointers(*(weight.data_ptr() for weight in weights))


class _Transitions(ctypes.Structure):
    # first the fields of a `Batch` in their order
    _fields_ = (
        *((name, Images if name.startswith("obs") else ctypes.c_void_p) for name in Batch._fields),
        ("size", ctypes.c_int),
        ("weight_step", ctypes.c_int),
    )


def _place(field: Tensor | UnreadPlanes, background: Tensor | None) -> Any:
    """Where a kernel finds a field of a batch, observations as `Images`."""
    if isinstance(field, UnreadPlanes) or field.dtype == torch.uint8:
        return images_of(field, background=background)
    return field.data_ptr()


class Learned(NamedTuple):
    """The losses of U batches of B transitions, with inputs and results."""

    loss: Tensor  # [U] means of the penalties by their weights
    q_mean: Tensor  # [U] means of the online network's values
    q_tm1: Tensor  # [U · B, A] the online network's values
    error: Tensor  # [U · B] temporal-difference errors
    norms: Tensor | None  # [U, P] of the gradients, if steps were made


class QLearningKernel:
    """Errors of Q-learning or double Q-learning, the gradients of their penalties and a step, for the network of 2015.

    Three convolutions and a dense layer as `torso` and `dense_relu` have them, then outputs in float32.

    Args:
        online: weights and biases of the five layers, [F₁, 4, 8, 8], [F₁], [F₂, F₁, 4, 4], [F₂], [F₃, F₂, 3, 3], [F₃],
            [H, F₃ · 49], [H], [A, H], [A], the last two float32, the rest bfloat16, convolutions channels last.
        target: the same for the target network.
        double: the online network chooses the next action.
        penalty: penalty on an error: Huber with threshold 1, the square, or half the square.
        terminal_target: the target where the discount is 0; None: the reward.
        background: [1] float32, a whole number that is subtracted from each pixel; None: nothing.

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
        background: Tensor | None = None,
    ) -> None:
        self._background = background
        self._kept = (list(online), list(target))  # alive, as their addresses are
        self._actions = len(online[9])
        self.gradients = [torch.empty_like(weight, requires_grad=False) for weight in online]
        """Of the last batch's loss, like `online`."""
        for weight in (*online[:6:2], *target[:6:2]):
            assert weight.is_contiguous(memory_format=torch.channels_last)
        self._learner = _Learner(
            _sizes(online),
            double,
            _PENALTIES[penalty],
            math.nan if terminal_target is None else terminal_target,
            *(_pointers(tensors) for tensors in (online, target, self.gradients)),
        )
        self._scratch = torch.empty(0, dtype=torch.uint8)

    def __call__(self, batch: Batch | UnreadBatch, steps: "ctypes.Array[Any] | None" = None) -> Learned:
        """Differentiate the mean loss of a batch, so that `gradients` are its own.

        Args:
            batch: transitions.
            steps: as `OptimiserKernel.described` has them: the first U-th of the batch is differentiated, the first
                step made, then the next part is learned from by what the weights are now, and so on.
        """
        count, size = 1 if steps is None else len(steps), len(batch.a_tm1)
        assert size % count == 0
        fields = [field if isinstance(field, UnreadPlanes) else field.contiguous() for field in batch]
        places = [_place(field, self._background) for field in fields]
        transitions = _Transitions(*places, size // count, batch.weight.dim() > 0)
        means, q_tm1, error = torch.empty(2, count), torch.empty(size, self._actions), torch.empty(size)
        norms = None if steps is None else torch.empty(count, len(self.gradients))
        learner, batches = ctypes.byref(self._learner), ctypes.byref(transitions)
        # the kernel's scratch is kept: it would be new pages of the system's every time
        scratch_bytes = ask("pixelq_q_learning_scratch", learner, transitions.size, steps)
        if len(self._scratch) < scratch_bytes:
            self._scratch = torch.empty(scratch_bytes, dtype=torch.uint8)
        call("pixelq_q_learning", learner, batches, count, steps, q_tm1, error, means, norms, self._scratch)
        return Learned(means[0], means[1], q_tm1, error, norms)
