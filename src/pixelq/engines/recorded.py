"""The engine for GPUs: work is compiled if possible, recorded once and replayed; the GPU also samples."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelq.clipping import clipping_factors, scale
from pixelq.config import TrainConfig
from pixelq.engines.compiling import can_compile, compiled
from pixelq.engines.device_updates import DeviceUpdates
from pixelq.engines.draws import learn_from_draws
from pixelq.engines.plain import Losses, PlainEngine, parts_of
from pixelq.graphs import Graph, GraphsByShape
from pixelq.learner import Learner
from pixelq.networks import Network
from pixelq.optimisers import make_optimiser
from pixelq.replay import ReplayBuffer
from pixelq.replay.device_sampler import DeviceSampler
from pixelq.types import Batch, RolloutBatch

__all__ = ["RecordedActing", "RecordedEngine", "compiles"]


def compiles(config: TrainConfig, device: torch.device) -> bool:
    """Whether updates are compiled."""
    return config.compile and can_compile(device)


class RecordedEngine:
    """The updates of `PlainEngine`, compiled or not, recorded or not.

    Args:
        learner: the learner.
        noise: random generator for noisy layers in acting.
        sampler: samples on the learner's device; None: the host samples.
    """

    instructions: str | None = None

    def __init__(self, learner: Learner, noise: torch.Generator, sampler: DeviceSampler | None = None) -> None:
        config, device = learner.config, learner.device
        self.learner = learner
        self.compiles = compiles(config, device)
        """Whether updates are compiled."""
        # a compiler cannot trace draws from a kept generator
        self.compiles_losses = self.compiles and not (learner.algo.draws or learner.online.draws_noise)
        """Whether their first half is also compiled."""
        if self.compiles:
            torch.compiler.reset()  # drop other learners' code: past some eight versions the compiler gives up
            learner.optimiser = make_optimiser(config.optimiser, learner.masters, elementwise=True)
        if self.compiles_losses:
            learner.online.prepare_to_compile()
            learner.target.prepare_to_compile()
        self._plain = PlainEngine(learner, noise, step=self._fused_step if self.compiles else None)
        self.losses = self._plain.losses
        self._compiled_losses = compiled(self._plain.losses, self.compiles_losses, side_by_side=True)
        self._finish = compiled(self._plain.finish, self.compiles, side_by_side=True)
        self._batch_of = Batch if learner.algo.memory == "replay" else RolloutBatch
        self._moves = GraphsByShape(self._move_tensors, device, [learner.generator], config.cuda_graphs)
        newest = None if sampler is None else sampler.newest
        self.acting = RecordedActing(learner.online, device, noise, config.cuda_graphs, newest)
        self._on_device: DeviceUpdates | None = None
        if sampler is not None:
            in_a_row = config.envs // config.replay.train_period
            self._on_device = DeviceUpdates(self, sampler, config.replay.batch_size, device, in_a_row)

    def describe(self) -> str:
        """How updates are computed, in words."""
        return "compiled updates" if self.compiles else ""

    def first_half(self, batch: Batch | RolloutBatch) -> Callable[[], Tensor] | None:
        """The loss of a batch, a scalar for the backward pass."""
        return lambda: self._compiled_losses(batch).loss

    def update(self, batch: Batch | RolloutBatch) -> Tensor:
        """Update the online network with one batch; waits for nothing on the device.

        Returns:
            The errors [B] of the batch before the update, on the device; read them before the next update.
        """
        return self.learn(batch, 1)

    def learn(self, batch: Batch | RolloutBatch, count: int) -> Tensor:
        """Run `count` updates, one for each part of a batch [count · B]; returns their errors [count · B]."""
        errors = []
        for part in parts_of(batch, count):
            self.learner.announce_updates()
            error = self._moves(*part)
            errors.append(error if count == 1 else error.clone())  # the next result may overwrite it
        return errors[0] if count == 1 else torch.cat(errors)

    def learn_from(self, memory: ReplayBuffer, importance_exponent: float, updates: int) -> None:
        """Run updates with batches drawn from a replay buffer, and give it their errors."""
        if self._on_device is None:
            size = self.learner.config.replay.batch_size
            learn_from_draws(memory, size, importance_exponent, updates, memory.batch, self.learn)
        elif updates:  # the same, entirely on the device
            self._on_device.update(importance_exponent, updates)

    def _move_tensors(self, *tensors: Tensor) -> Tensor:
        return self.move(self._batch_of(*tensors))

    def move(self, batch: Batch | RolloutBatch) -> Tensor:
        """The device's part of an update, announced before; arguments and result as in `update`.

        It reads no host data, so that a graph can record and replay it.
        """
        return self.follow(self._compiled_losses(batch))

    def follow(self, losses: Losses) -> Tensor:
        """The second half of `move`: take the optimiser step; returns the errors [B]."""
        gradients = self._plain.gradients(losses.loss)
        self.learner.watch.expect(tuple(losses.ranges))
        self._finish(losses.loss.detach(), losses.ranges, gradients)
        return losses.error

    def _fused_step(self, gradients: list[Tensor]) -> Tensor:
        """`PlainEngine.step` for a compiler, which does not fuse operations on lists."""
        learner = self.learner
        gradients = [gradient.float() for gradient in gradients]
        norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
        factors = clipping_factors(learner.config.optimiser, norms)
        if learner.config.optimiser.clip != "none":
            scale(gradients, factors)
        learner.optimiser.step(gradients)
        learner.masters_to_working()
        return norms


class RecordedActing:
    """Values for acting, recorded for each number of games and replayed.

    Args:
        network: the online network.
        device: its device.
        noise: random generator for noisy layers, drawn anew before every forward pass.
        record: False computes one operation after the other.
        newest: returns the games' newest observations, made on the device from the stored planes;
            None: the host sends them.
    """

    def __init__(
        self,
        network: Network,
        device: torch.device,
        noise: torch.Generator,
        record: bool,
        newest: Callable[[], Tensor] | None = None,
    ) -> None:
        self._network = network
        self.noise = noise
        self._forward = GraphsByShape(self._values, device, [noise], record)
        self._forward_newest: Graph[Tensor] | None = None
        if newest is not None:
            self._forward_newest = Graph(lambda: self._values(newest()), device, [noise])

    @torch.no_grad()
    def q_values(self, obs: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Values of all actions, [N, 4, 84, 84] uint8 to [N, A] float32; waits for the device."""
        return self._forward(obs).cpu().numpy()

    @torch.no_grad()
    def current_values(self, obs: NDArray[np.uint8], remember: Callable[[], None]) -> NDArray[np.float32]:
        """The same of the games' newest observations, which `remember` stores."""
        if self._forward_newest is None:
            return self.q_values(obs)
        remember()
        return self._forward_newest().cpu().numpy()

    def _values(self, obs: Tensor) -> Tensor:
        self._network.redraw_noise(self.noise)
        return self._network.q_values(obs)
