"""The replay memory: planes in, batches out."""

import numpy as np
import torch
from numpy.typing import NDArray

from pixelq.replay.frames import RamFrames
from pixelq.replay.ring import STACK, Ring
from pixelq.replay.samplers import sample_uniform
from pixelq.types import Batch

__all__ = ["ReplayBuffer"]


class ReplayBuffer:
    """A memory of the newest transitions of N games, sampled uniformly.

    Args:
        capacity: transitions held, over all games.
        num_envs: games N.
        gamma: discount a step.
        n_step: rewards summed before bootstrapping.
        generator: the source of chance of all sampling.

    Raises:
        PixelqError: the machine has not enough memory.

    Source: Lin 1992, "Self-improving reactive agents based on reinforcement learning, planning and teaching"; each
    plane once, stacks rebuilt, as Mnih et al. 2015.
    """

    def __init__(self, capacity: int, num_envs: int, gamma: float, n_step: int, generator: np.random.Generator) -> None:
        # beside the transitions: the head, n − 1 rows that wait for their n steps, 3 whose stacks are cut by the seam
        rows = -(-capacity // num_envs) + STACK - 1 + n_step
        self.ring = Ring(rows, num_envs, RamFrames(rows * num_envs))
        self._gamma = gamma
        self._n_step = n_step
        self.generator = generator

    def __len__(self) -> int:
        """Rows held times games: the transitions, the ignored steps counted in."""
        return (self.ring.head - self.ring.oldest) * self.ring.num_envs

    def sample(self, batch_size: int, device: torch.device) -> Batch:
        """Draw a batch uniformly, with replacement.

        Args:
            batch_size: B.
            device: where the tensors go.

        Returns:
            A batch whose shapes are in `pixelq.types.Batch`.
        """
        rows, envs = sample_uniform(self.ring, batch_size, self._n_step, self.generator)
        return self.batch(rows, envs, device)

    def batch(self, rows: NDArray[np.int64], envs: NDArray[np.int64], device: torch.device) -> Batch:
        """The transitions that begin at the given global rows and games, [B] each."""
        returns, discounts, ends = self._n_step_returns(rows, envs)
        stacks = self.ring.stacks(np.concatenate([rows, ends]), np.concatenate([envs, envs]))
        actions = self.ring.actions[rows % self.ring.rows, envs].astype(np.int64)
        arrays = (stacks[: len(rows)], actions, returns, discounts, stacks[len(rows) :])
        return Batch(*(torch.from_numpy(array).to(device, non_blocking=True) for array in arrays))

    def _n_step_returns(
        self, rows: NDArray[np.int64], envs: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Sum up to n rewards, stopping where the episode terminated (discount 0) or was truncated (bootstraps there).

        Source: Sutton & Barto 2018, "Reinforcement Learning", eq. 7.1.
        """
        ring = self.ring
        returns, discounts, ends = np.zeros(len(rows)), np.ones(len(rows)), rows.copy()
        going = np.ones(len(rows), np.bool_)
        for step in range(self._n_step):
            at = (rows + step) % ring.rows
            ended = ring.terminated[at, envs]
            returns += going * discounts * ring.rewards[at, envs]
            discounts = np.where(going, discounts * self._gamma * ~ended, discounts)
            ends += going
            going &= ~(ended | ring.truncated[at, envs])
        return returns.astype(np.float32), discounts.astype(np.float32), ends
