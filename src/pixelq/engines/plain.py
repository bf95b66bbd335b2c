"""PyTorch, one operation after the other: the reference for all other engines."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelq.clipping import clipping_factors, scale
from pixelq.device import to_device
from pixelq.engines.draws import learn_from_draws
from pixelq.learner import Learner
from pixelq.native.replay import UnreadBatch
from pixelq.networks import Network
from pixelq.replay import ReplayBuffer
from pixelq.types import Batch, RolloutBatch

__all__ = ["Losses", "PlainActing", "PlainEngine", "parts_of", "ranges_of"]


class Losses(NamedTuple):
    """Loss and errors, computed before the optimiser step."""

    loss: Tensor  # [] weighted mean, differentiable
    error: Tensor  # [B] the batch's errors before the update
    ranges: dict[str, Tensor]  # figures that explain a diverging update, by name


class PlainEngine:
    """Loss, backward pass, clipping and step, as in the papers.

    Other engines replace parts of this one.

    Args:
        learner: the learner.
        noise: random generator for noisy layers in acting.
        online: computes the learner's online network; None: the network itself.
        target: the same for the target network.
        step: the optimiser step, like `step` below; None: that one.

    Source: Mnih et al. 2015, Methods, Algorithm 1.
    """

    instructions: str | None = None

    def __init__(
        self,
        learner: Learner,
        noise: torch.Generator,
        online: Network | None = None,
        target: Network | None = None,
        step: Callable[[list[Tensor]], Tensor] | None = None,
    ) -> None:
        self.learner = learner
        self._online: Network = learner.online if online is None else online
        self._target: Network = learner.target if target is None else target
        self._step = step or self.step
        self._kept: dict[int, Tensor] = {}  # float32 gradients of bfloat16 weights
        self.acting = PlainActing(self._online, learner.device, noise)

    def describe(self) -> str:
        """How updates are computed, in words; empty: nothing special."""
        return ""

    def first_half(self, batch: Batch | RolloutBatch) -> Callable[[], Tensor] | None:
        """The loss of a batch, a scalar for the backward pass."""
        return lambda: self.losses(batch).loss

    def update(self, batch: Batch | RolloutBatch) -> Tensor:
        """Update the online network with one batch.

        Args:
            batch: transitions; each one's loss counts by its weight before the mean is taken.

        Returns:
            The errors [B] of the batch before the update.
        """
        return self.learn(batch, 1)

    def learn(self, batch: Batch | RolloutBatch, count: int) -> Tensor:
        """Run `count` updates, one for each part of a batch [count · B]; returns their errors [count · B]."""
        errors = []
        for part in parts_of(batch, count):
            self.learner.announce_updates()
            errors.append(self.move(part))
        return errors[0] if count == 1 else torch.cat(errors)

    def learn_from(self, memory: ReplayBuffer, importance_exponent: float, updates: int) -> None:
        """Run updates with batches drawn from a replay buffer, and give it their errors."""
        size = self.learner.config.replay.batch_size
        learn_from_draws(memory, size, importance_exponent, updates, memory.batch, self.learn)

    def move(self, batch: Batch | RolloutBatch) -> Tensor:
        """An update that was announced; arguments and result as in `update`."""
        return self.follow(self.losses(batch))

    def losses(self, batch: Batch | RolloutBatch) -> Losses:
        """Loss and errors before the step."""
        learner = self.learner
        output = learner.algo.loss(learner.config.algo, self._online, self._target, batch, learner.generator)
        loss = (batch.weight * output.loss).mean()
        return Losses(loss, output.error, ranges_of(output.q_tm1, batch))

    def follow(self, losses: Losses) -> Tensor:
        """Take the optimiser step; returns the errors [B]."""
        self.conclude(losses, self.gradients(losses.loss))
        return losses.error

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """The gradients of all working weights."""
        for parameter in self.learner.working:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        return [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for parameter in self.learner.working
        ]

    def conclude(self, losses: Losses, gradients: list[Tensor]) -> None:
        """Step, and record the update's figures."""
        self.learner.watch.expect(tuple(losses.ranges))
        self.finish(losses.loss.detach(), losses.ranges, gradients)

    @torch.no_grad()
    def finish(self, loss: Tensor, ranges: dict[str, Tensor], gradients: list[Tensor]) -> None:
        """The same, once the names of the ranges are known."""
        self.learner.note(loss, ranges, self._step(gradients))

    def step(self, gradients: list[Tensor]) -> Tensor:
        """Clip, step, round; returns the norms [P] of the gradients before clipping."""
        learner = self.learner
        gradients = self._in_full(gradients)
        norms = torch.stack(list(torch._foreach_norm(gradients)))
        self._scale(gradients, clipping_factors(learner.config.optimiser, norms))
        learner.optimiser.step(gradients)
        learner.masters_to_working()
        return norms

    def _scale(self, gradients: list[Tensor], factors: Tensor) -> None:
        if self.learner.config.optimiser.clip != "none":
            scale(gradients, factors)

    def _in_full(self, gradients: list[Tensor]) -> list[Tensor]:
        """Gradients of all weights in float32, in reused memory."""
        full = list(gradients)
        for index in self.learner.lowered:
            if index not in self._kept:
                self._kept[index] = torch.empty_like(self.learner.masters[index])
            full[index] = self._kept[index].copy_(gradients[index])
        return full


class PlainActing:
    """Values for acting, with one forward pass for all games.

    Args:
        network: the online network, or a module that computes it.
        device: its device.
        noise: random generator for noisy layers, drawn anew before every forward pass.

    Source: noise as Fortunato et al. 2018, "Noisy networks for exploration", section 3.1.
    """

    def __init__(self, network: Network, device: torch.device, noise: torch.Generator) -> None:
        self._network = network
        self._device = device
        self.noise = noise

    @torch.no_grad()
    def q_values(self, obs: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Values of all actions, [N, 4, 84, 84] uint8 to [N, A] float32; waits for the device."""
        self._network.redraw_noise(self.noise)
        return self._network.q_values(to_device(obs, self._device)).cpu().numpy()

    def current_values(self, obs: NDArray[np.uint8], remember: Callable[[], None]) -> NDArray[np.float32]:
        """The same of the games' newest observations; `remember` stores them; it may be postponed."""
        del remember
        return self.q_values(obs)


def parts_of(batch: Batch | RolloutBatch, count: int) -> Sequence[Batch | RolloutBatch]:
    """A batch in parts of one size."""
    if count == 1:
        return [batch]
    pieces = [[tensor] * count if tensor.dim() == 0 else tensor.chunk(count) for tensor in batch]
    return [type(batch)(*part) for part in zip(*pieces, strict=True)]


def ranges_of(q_tm1: Tensor, batch: Batch | UnreadBatch | RolloutBatch) -> dict[str, Tensor]:
    """The figures that explain an update, by name.

    Whole tensors: the second half finds their extremes. Otherwise a compiler would repeat all of the sampling in
    the one block of threads that finds them.
    """
    if isinstance(batch, RolloutBatch):
        return {"Q": q_tm1, "returns": batch.return_t}
    return {"Q": q_tm1, "rewards": batch.r_t, "discounts": batch.discount_t}
