"""What flows between the parts: named tuples with their shapes beside each field."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Batch", "LossOutput", "Rollout", "RolloutBatch"]


class Batch(NamedTuple):
    """Transitions sampled from a replay buffer, `tm1` before and `t` after the step(s)."""

    obs_tm1: Tensor  # [B, 4, 84, 84] uint8
    a_tm1: Tensor  # [B] int64, the action that was executed
    r_t: Tensor  # [B] float32, sum of n discounted learning rewards
    discount_t: Tensor  # [B] float32, gamma**m, 0 where terminated
    obs_t: Tensor  # [B, 4, 84, 84] uint8
    weight: Tensor = torch.ones(())  # [B] float32, importance weights; or a single 1 for all


class Rollout(NamedTuple):
    """T steps of N games, in order, as the parts of one learner's round; `t` is after the step."""

    obs_tm1: Tensor  # [T, N, 4, 84, 84] uint8
    a_tm1: Tensor  # [T, N] int64, the action that was executed
    r_t: Tensor  # [T, N] float32, learning rewards
    terminated_t: Tensor  # [T, N] bool, the episode ended there, for learning
    truncated_t: Tensor  # [T, N] bool, the game was cut off there
    ignored_t: Tensor  # [T, N] bool, the action was ignored for a reset: no transition
    v_t: Tensor  # [T, N] float32, max_a q of the observation after the step


class RolloutBatch(NamedTuple):
    """Part of a rollout, with the returns it is to learn."""

    obs_tm1: Tensor  # [B, 4, 84, 84] uint8
    a_tm1: Tensor  # [B] int64
    return_t: Tensor  # [B] float32, from the step on
    weight: Tensor = torch.ones(())  # [B] float32; or a single 1 for all


class LossOutput(NamedTuple):
    """The result of an algorithm's loss; the learner reduces it."""

    loss: Tensor  # [B] float32, per sample, differentiable
    q_tm1: Tensor  # [B, A] float32, detached: the online network's values, for the metrics
    error: Tensor  # [B] float32, detached: its size becomes the transition's priority
