"""Updates that never leave the device: draw, learn, and tell the memory, recorded as one graph."""

import torch
from torch import Tensor

from pixelq.compiling import compiled
from pixelq.graphs import Graph
from pixelq.learner import Learner, Losses
from pixelq.replay.device_sampler import DeviceDraw, DeviceSampler
from pixelq.types import Batch

__all__ = ["DeviceUpdates"]


class DeviceUpdates:
    """What `replay_loop.learn` does for an update, by a memory that is sampled on the device.

    On a GPU it is recorded once; an update then costs the host one launch.

    Args:
        learner: what learns.
        sampler: what it learns from.
        batch_size: transitions an update.
        device: where both live.
    """

    def __init__(self, learner: Learner, sampler: DeviceSampler, batch_size: int, device: torch.device) -> None:
        self._learner = learner
        self._sampler = sampler
        self._batch_size = batch_size
        self._importance_exponent = torch.zeros((), dtype=torch.float64, device=device)
        self._graph = Graph(self._once, device, [sampler.generator, learner.generator])
        self._transitions = compiled(self._transitions_at, learner.compiles)
        self._losses = compiled(self._losses_at, learner.compiles_losses)
        self._learned = compiled(sampler.learned, learner.compiles)

    def update(self, importance_exponent: float) -> Tensor:
        """Move the online network by a batch of the memory; waits for nothing.

        Args:
            importance_exponent: β, for the weights of prioritised sampling.

        Returns:
            The errors [B] of the batch before the move, on the device; to be read before the next update.
        """
        self._importance_exponent.fill_(importance_exponent)
        self._learner.announce_update()
        return self._graph()

    def _once(self) -> Tensor:
        shares = self._sampler.shares(self._batch_size)
        if self._learner.compiles_losses:
            draw, losses = self._losses(shares)
            errors = self._learner.follow(losses)
        else:
            draw, batch = self._transitions(shares)
            errors = self._learner.move(batch)
        self._learned(draw, errors)
        return errors

    def _transitions_at(self, shares: Tensor) -> tuple[DeviceDraw, Batch]:
        draw = self._sampler.draw_at(shares, self._importance_exponent)
        return draw, self._sampler.batch(draw)

    def _losses_at(self, shares: Tensor) -> tuple[DeviceDraw, Losses]:
        """From memory to losses in one function, so that stacks of planes need not be written in between."""
        draw, batch = self._transitions_at(shares)
        return draw, self._learner.losses(batch)
