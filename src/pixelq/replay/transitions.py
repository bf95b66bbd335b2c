"""The parts of a transition: action, returns, discount, and the planes of its two observations."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelq.native.replay import STACK_OF_KERNELS, TransitionsKernel, has_replay_kernels
from pixelq.replay.ring import Ring

__all__ = ["TransitionReader", "Transitions"]


class Transitions(NamedTuple):
    """B transitions without their planes."""

    actions: NDArray[np.int64]  # [B]
    returns: NDArray[np.float32]  # [B] sums of up to n discounted rewards
    discounts: NDArray[np.float32]  # [B] factor of the bootstrapped value: gamma^n, 0 where the episode ended
    slots: NDArray[np.int64]  # [2B, 4] of the planes: first of all observations before, then of all after


class TransitionReader:
    """Reads n-step transitions from a ring.

    Args:
        ring: the ring that holds them.
        n_step: rewards summed before bootstrapping.
        gamma: discount a step.
        kernels: let a kernel do it if there is one; the result does not depend on it.

    Source: Sutton & Barto 2018, "Reinforcement Learning", eq. 7.1.
    """

    def __init__(self, ring: Ring, n_step: int, gamma: float, kernels: bool = True) -> None:
        self._ring = ring
        self._n_step = n_step
        self._gamma = gamma
        self._kernel: TransitionsKernel | None = None
        if kernels and has_replay_kernels() and ring.shape.stack == STACK_OF_KERNELS:
            fields = (ring.actions, ring.rewards, ring.terminated, ring.truncated, ring.ignored, ring.ages)
            self._kernel = TransitionsKernel(*fields, n_step, gamma)

    def __call__(self, rows: NDArray[np.int64], envs: NDArray[np.int64]) -> Transitions:
        """The transitions that begin in the given rows and games, [B] each."""
        if self._kernel is not None:
            return Transitions(*self._kernel(rows, envs))
        ring = self._ring
        returns, discounts, ends = self._n_step_returns(rows, envs)
        slots = np.concatenate([ring.slots_of_stacks(rows, envs), ring.slots_of_stacks(ends, envs)])
        return Transitions(ring.actions[rows % ring.rows, envs].astype(np.int64), returns, discounts, slots)

    def _n_step_returns(
        self, rows: NDArray[np.int64], envs: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Sum up to n rewards, stopping where the episode terminated (discount 0) or was cut off (bootstraps there)."""
        ring = self._ring
        returns, discounts, ends = np.zeros(len(rows)), np.ones(len(rows)), rows.copy()
        going = np.ones(len(rows), np.bool_)
        for step in range(self._n_step):
            at = (rows + step) % ring.rows
            going &= ~ring.ignored[at, envs]  # the game was cut off without a flag in the row before
            ended = ring.terminated[at, envs]
            returns += going * discounts * ring.rewards[at, envs]
            discounts = np.where(going, discounts * self._gamma * ~ended, discounts)
            ends += going
            going &= ~(ended | ring.truncated[at, envs])
        return returns.astype(np.float32), discounts.astype(np.float32), ends
