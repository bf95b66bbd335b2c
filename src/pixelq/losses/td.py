"""Temporal-difference errors of Q-learning, and the penalties put on them."""

import torch
from torch import Tensor

__all__ = ["huber", "q_learning", "squared"]


def _require(name: str, tensor: Tensor, rank: int, integer: bool = False) -> None:
    if tensor.dim() != rank:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: must have rank {rank}")
    if integer and tensor.dtype != torch.int64:
        raise TypeError(f"{name} is {tensor.dtype}: must be torch.int64")
    if not integer and not tensor.is_floating_point():
        raise TypeError(f"{name} is {tensor.dtype}: must be floating point")


def q_learning(q_tm1: Tensor, a_tm1: Tensor, r_t: Tensor, discount_t: Tensor, q_t: Tensor) -> Tensor:
    """Temporal-difference error of Q-learning, `r + discount · max_a q_t − q_tm1[a]`.

    Args:
        q_tm1: [B, A] values at the time of the action.
        a_tm1: [B] int64 actions taken.
        r_t: [B] rewards that followed.
        discount_t: [B] discounts, 0 where the episode terminated.
        q_t: [B, A] values at the next time, of the target network; no gradient flows into them.

    Returns:
        [B] errors, differentiable in `q_tm1`.

    Raises:
        ValueError: an argument of another rank.
        TypeError: an argument of another dtype.

    Source: Watkins & Dayan 1992, "Q-learning", eq. 1; with a target network Mnih et al. 2015, "Human-level control
    through deep reinforcement learning", eq. 2 (https://www.nature.com/articles/nature14236).
    """
    _require("q_tm1", q_tm1, 2)
    _require("a_tm1", a_tm1, 1, integer=True)
    _require("r_t", r_t, 1)
    _require("discount_t", discount_t, 1)
    _require("q_t", q_t, 2)
    target_tm1 = r_t + discount_t * q_t.amax(dim=1)
    qa_tm1 = q_tm1.gather(1, a_tm1[:, None]).squeeze(1)
    return target_tm1.detach() - qa_tm1


def huber(error: Tensor, threshold: float = 1.0) -> Tensor:
    """Huber's penalty: half the square within the threshold, linear beyond it.

    Args:
        error: any shape.
        threshold: where the square becomes a line; its slope there.

    Returns:
        The penalty of each error, same shape.

    Source: Huber 1964, "Robust estimation of a location parameter", eq. 2.2; its slope at threshold 1 is the error
    clipping of Mnih et al. 2015, Methods.
    """
    size = error.abs()
    inner = size.clamp(max=threshold)
    return 0.5 * inner.square() + threshold * (size - inner)


def squared(error: Tensor) -> Tensor:
    """The square of each error, same shape (no factor one half)."""
    return error.square()
