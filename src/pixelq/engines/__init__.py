"""Engines compute updates and actions; `choose` selects one, and says why."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelq.engines.choice import Choice, choose, quick_precision, samples_on_device
from pixelq.engines.kernels import KernelEngine
from pixelq.engines.notes import machine_notes
from pixelq.engines.plain import PlainEngine
from pixelq.engines.recorded import RecordedEngine
from pixelq.learner import Learner
from pixelq.replay import ReplayBuffer
from pixelq.types import Batch, RolloutBatch

__all__ = [
    "Acting",
    "Choice",
    "Engine",
    "choose",
    "machine_notes",
    "make_engine",
    "quick_precision",
    "samples_on_device",
]


class Acting(Protocol):
    """Computes values for acting."""

    noise: torch.Generator
    """Random generator for noisy layers, drawn anew before every forward pass."""

    def q_values(self, obs: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Values of all actions, [N, 4, 84, 84] uint8 to [N, A] float32; waits for the device."""

    def current_values(self, obs: NDArray[np.uint8], remember: Callable[[], None]) -> NDArray[np.float32]:
        """The same of the games' newest observations.

        Args:
            obs: [N, 4, 84, 84].
            remember: stores them in the replay buffer; for engines that act on observations from the buffer.
        """


class Engine(Protocol):
    """Computes a learner's updates and actions. A training loop needs nothing else."""

    @property
    def learner(self) -> Learner:
        """The learner."""

    @property
    def acting(self) -> Acting:
        """Computes values for acting."""

    @property
    def instructions(self) -> str | None:
        """The instructions of the kernels that compute updates; None: no kernels."""

    def describe(self) -> str:
        """How updates are computed, in words; empty: nothing special."""

    def update(self, batch: Batch | RolloutBatch) -> Tensor:
        """Update the online network with one batch; waits for nothing on the device.

        Args:
            batch: transitions; each one's loss counts by its weight before the mean is taken.

        Returns:
            The errors [B] of the batch before the update, on the device; on a GPU read them before the next update.
        """

    def learn(self, batch: Batch | RolloutBatch, count: int) -> Tensor:
        """Run `count` updates, each with an equal part of a batch; quicker than one by one.

        Args:
            batch: transitions [count · B].
            count: number of updates.

        Returns:
            The errors [count · B] of the parts, as in `update`.
        """

    def learn_from(self, memory: ReplayBuffer, importance_exponent: float, updates: int) -> None:
        """Run updates with batches drawn from a replay buffer, and give it their errors.

        Args:
            memory: the replay buffer to draw from.
            importance_exponent: β, for the weights of prioritised sampling.
            updates: number of updates; may be 0.
        """

    def move(self, batch: Batch | RolloutBatch) -> Tensor:
        """The device's part of an update that the learner announced before; neither recorded nor replayed."""

    def first_half(self, batch: Batch | RolloutBatch) -> Callable[[], Tensor] | None:
        """The loss of a batch, a scalar for the backward pass, for timing; None: one kernel does both passes."""


def make_engine(learner: Learner, noise: torch.Generator, memory: ReplayBuffer | None = None) -> Engine:
    """The engine that `choose` selects.

    Args:
        learner: the learner.
        noise: random generator for noisy layers in acting.
        memory: the replay buffer for `learn_from`; None: another one, or none.
    """
    way = choose(learner.config, learner.device, learner.online).way
    if way == "recorded":
        return RecordedEngine(learner, noise, None if memory is None else memory.sampler)
    return KernelEngine(learner, noise) if way == "kernels" else PlainEngine(learner, noise)
