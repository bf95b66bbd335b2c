"""Engines: the ways to compute an update and an action; `choose` decides which one, and says why."""

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
    """How values to act by are computed."""

    noise: torch.Generator
    """Source of the noise of noisy layers, drawn anew before every forward."""

    def q_values(self, obs: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Values of all actions, [N, 4, 84, 84] uint8 to [N, A] float32; waits for the device."""

    def current_values(self, obs: NDArray[np.uint8], remember: Callable[[], None]) -> NDArray[np.float32]:
        """The same of the games' newest observations.

        Args:
            obs: [N, 4, 84, 84].
            remember: stores them in the memory; for engines that act on what the memory holds.
        """


class Engine(Protocol):
    """How a learner's updates, and actions, are computed. A training loop needs nothing else of it."""

    @property
    def learner(self) -> Learner:
        """What learns."""

    @property
    def acting(self) -> Acting:
        """How actions are found."""

    @property
    def instructions(self) -> str | None:
        """Which of a processor's kernels of our own are made of, that make updates; None: there are none."""

    def describe(self) -> str:
        """How updates are computed, in words; empty: in no way of their own."""

    def update(self, batch: Batch | RolloutBatch) -> Tensor:
        """Move the online network by one batch; waits for nothing on the device.

        Args:
            batch: transitions; each one's loss counts by its weight before the mean is taken.

        Returns:
            The errors [B] of the batch before the move, on the device; on a GPU to be read before the next update.
        """

    def learn(self, batch: Batch | RolloutBatch, count: int) -> Tensor:
        """So many updates, each by its part of a batch, all parts being of one size; quicker than one by one.

        Args:
            batch: transitions [count · B].
            count: how many updates.

        Returns:
            The errors [count · B] of the parts, as `update`.
        """

    def learn_from(self, memory: ReplayBuffer, importance_exponent: float, updates: int) -> None:
        """So many updates by batches drawn from a memory, which is told their errors.

        Args:
            memory: what is drawn from.
            importance_exponent: β, for the weights of prioritised sampling.
            updates: how many; may be none.
        """

    def move(self, batch: Batch | RolloutBatch) -> Tensor:
        """The device's part of an update that the learner announced before; neither recorded nor replayed."""

    def first_half(self, batch: Batch | RolloutBatch) -> Callable[[], Tensor] | None:
        """The loss of a batch, a scalar to go backward from, to be timed; None: an update has no halves."""


def make_engine(learner: Learner, noise: torch.Generator, memory: ReplayBuffer | None = None) -> Engine:
    """The engine that `choose` decides on.

    Args:
        learner: what learns.
        noise: source of the noise of noisy layers that act.
        memory: what `learn_from` will be given; None: another one, or none.
    """
    way = choose(learner.config, learner.device, learner.online).way
    if way == "recorded":
        return RecordedEngine(learner, noise, None if memory is None else memory.sampler)
    return KernelEngine(learner, noise) if way == "kernels" else PlainEngine(learner, noise)
