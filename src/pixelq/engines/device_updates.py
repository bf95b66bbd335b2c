"""Updates that never leave the device: sample, learn, update priorities, recorded as one graph."""

from typing import Protocol

import torch
from torch import Tensor

from pixelq.engines.compiling import compiled
from pixelq.engines.plain import Losses
from pixelq.graphs import Graph, own_stream
from pixelq.learner import Learner
from pixelq.replay.device_sampler import DeviceDraw, DeviceSampler
from pixelq.types import Batch

__all__ = ["DeviceUpdates", "Halves"]

_MOST_IN_A_ROW = 8


class Halves(Protocol):
    """An update in two halves; each may be compiled."""

    learner: Learner
    compiles: bool
    compiles_losses: bool

    def losses(self, batch: Batch) -> Losses:
        """The first half."""

    def follow(self, losses: Losses) -> Tensor:
        """The second half."""

    def move(self, batch: Batch) -> Tensor:
        """Both."""


class DeviceUpdates:
    """Like `learn_from_draws`, with a replay buffer that is sampled on the device.

    On a GPU updates are recorded, several in a row; these then cost the host one launch.

    Args:
        halves: the update.
        sampler: the replay buffer's sampler.
        batch_size: transitions an update.
        device: where both live.
        in_a_row: usual number of updates at once.
    """

    def __init__(
        self, halves: Halves, sampler: DeviceSampler, batch_size: int, device: torch.device, in_a_row: int = 1
    ) -> None:
        self._halves, self._learner = halves, halves.learner
        self._sampler = sampler
        self._batch_size = batch_size
        self._importance_exponent = torch.zeros((), dtype=torch.float64, device=device)
        self._in_a_row = max(1, min(in_a_row, _MOST_IN_A_ROW, halves.learner.optimiser.most_at_once))
        recorded = (device, [sampler.generator, halves.learner.generator], own_stream(device))
        self._one = Graph(self._once, *recorded)
        self._row = Graph(self._in_a_row_once, *recorded)
        self._transitions = compiled(self._transitions_at, halves.compiles)
        self._losses = compiled(self._losses_at, halves.compiles_losses, side_by_side=True)
        self._learned = compiled(sampler.learned, halves.compiles)

    def update(self, importance_exponent: float, count: int = 1) -> Tensor:
        """Update the online network with batches of the replay buffer, one after the other; waits for nothing.

        Args:
            importance_exponent: β, for the weights of prioritised sampling.
            count: number of batches, at least one.

        Returns:
            The errors [B] of the last batch before its update, on the device; read them before the next update.
        """
        self._importance_exponent.fill_(importance_exponent)
        for _ in range(count // self._in_a_row):
            self._learner.announce_updates(self._in_a_row)
            errors = self._row()
        for _ in range(count % self._in_a_row):
            self._learner.announce_updates()
            errors = self._one()
        return errors

    def _in_a_row_once(self) -> Tensor:
        for _ in range(self._in_a_row):
            errors = self._once()
        return errors

    def _once(self) -> Tensor:
        shares = self._sampler.shares(self._batch_size)
        if self._halves.compiles_losses:
            draw, losses = self._losses(shares)
            errors = self._halves.follow(losses)
        else:
            draw, batch = self._transitions(shares)
            errors = self._halves.move(batch)
        self._learned(draw, errors)
        return errors

    def _transitions_at(self, shares: Tensor) -> tuple[DeviceDraw, Batch]:
        draw = self._sampler.draw_at(shares, self._importance_exponent)
        return draw, self._sampler.batch(draw)

    def _losses_at(self, shares: Tensor) -> tuple[DeviceDraw, Losses]:
        """From the replay buffer to losses in one function, so that stacks of planes are never written."""
        draw, batch = self._transitions_at(shares)
        return draw, self._halves.losses(batch)
