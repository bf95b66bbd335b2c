"""The engine of C kernels for layers and optimisers; PyTorch computes the loss between them, on small tensors."""

from collections.abc import Callable

import torch
from torch import Tensor

from pixelq.algos import algo_of
from pixelq.config import DQNConfig, TrainConfig
from pixelq.divergence import HostWatch
from pixelq.engines.draws import learn_from_draws
from pixelq.engines.kernel_network import KernelNetwork, layers_of
from pixelq.engines.plain import Losses, PlainEngine, ranges_of
from pixelq.learner import Learner
from pixelq.native.library import instructions
from pixelq.native.moves import OptimiserKernel
from pixelq.native.q_learning import QLearningKernel
from pixelq.native.replay import UnreadBatch
from pixelq.optimisers import CentredRMSProp, ElementwiseAdam, make_optimiser
from pixelq.replay import ReplayBuffer
from pixelq.types import Batch, RolloutBatch

__all__ = ["KernelEngine", "fused_q_learning", "is_for_kernels"]


def fused_q_learning(config: object, online: KernelNetwork, target: KernelNetwork) -> QLearningKernel | None:
    """The loss of `algos.dqn` with its gradients in one kernel, for networks that the kernels fully support.

    A special case for speed: the only loss with two implementations.
    """
    if type(config) is not DQNConfig or online.weights is None or target.weights is None:
        return None
    settings = config.double, config.loss, config.terminal_target
    return QLearningKernel(online.weights, target.weights, *settings, online.background)


def is_for_kernels(config: TrainConfig) -> bool:
    """Whether our kernels, if there are any, compute a recipe's whole network in bfloat16."""
    algo = algo_of(config.algo)
    if not config.compile:
        return False
    with torch.device("meta"):  # nobody needs the weights
        network = algo.make_network(config.network, config.algo, 1, None, config.env.obs_shape)
    network.lower_precision(torch.bfloat16)
    return layers_of(network) is not None


class KernelEngine:
    """Updates with kernels, for any algorithm: kernels compute the networks for its loss, and the optimiser step.

    Args:
        learner: the learner, on a CPU; `suits_kernels` must accept its network.
        noise: random generator for noisy layers in acting.
    """

    def __init__(self, learner: Learner, noise: torch.Generator) -> None:
        self.learner = learner
        optimiser = make_optimiser(learner.config.optimiser, learner.masters, elementwise=True)
        assert isinstance(optimiser, ElementwiseAdam | CentredRMSProp)
        learner.optimiser = self._optimiser = optimiser
        self._mover = OptimiserKernel(learner.masters, learner.working, *optimiser.moments)
        self.networks = KernelNetwork(learner.online), KernelNetwork(learner.target)
        """The online and the target network, computed by kernels."""
        self._fused = fused_q_learning(learner.config.algo, *self.networks)
        if self._fused:
            self._mover.take(self._fused.gradients)
        self._by_autograd = PlainEngine(learner, noise, *self.networks, self._step_by_kernel)
        self.losses = self._by_autograd.losses
        self.acting = self._by_autograd.acting
        self.instructions = instructions()

    def describe(self) -> str:
        """How updates are computed, in words."""
        return f"{self.instructions} kernels"

    def first_half(self, batch: Batch | RolloutBatch) -> Callable[[], Tensor] | None:
        """The loss of a batch, a scalar for the backward pass; None: one kernel computes loss and gradients at once."""
        return None if self._fused else self._by_autograd.first_half(batch)

    def update(self, batch: Batch | RolloutBatch) -> Tensor:
        """Update the online network with one batch; returns the errors [B] of the batch before the update."""
        return self.learn(batch, 1)

    def learn(self, batch: Batch | UnreadBatch | RolloutBatch, count: int) -> Tensor:
        """Run `count` updates, one for each part of a batch [count · B]; returns their errors [count · B]."""
        if self._fused:
            assert not isinstance(batch, RolloutBatch)
            return self._fused_updates(self._fused, batch, count)
        assert not isinstance(batch, UnreadBatch)
        return self._by_autograd.learn(batch, count)

    @property
    def reads_planes(self) -> bool:
        """Whether `learn` takes batches with unread planes, which is faster."""
        return self._fused is not None

    def learn_from(self, memory: ReplayBuffer, importance_exponent: float, updates: int) -> None:
        """Run updates with batches drawn from a replay buffer, and give it their errors."""
        size = self.learner.config.replay.batch_size
        read = memory.unread_batch if self.reads_planes else memory.batch
        learn_from_draws(memory, size, importance_exponent, updates, read, self.learn)

    def move(self, batch: Batch | RolloutBatch) -> Tensor:
        """An update that was announced; arguments and result as in `update`."""
        if self._fused is None:
            return self._by_autograd.move(batch)
        assert isinstance(batch, Batch)
        learned = self._fused(batch)
        losses = Losses(learned.loss[0], learned.error, ranges_of(learned.q_tm1, batch))
        self._by_autograd.conclude(losses, self._fused.gradients)
        return learned.error

    def _fused_updates(self, fused: QLearningKernel, batch: Batch | UnreadBatch, count: int) -> Tensor:
        learner = self.learner
        learner.announce_updates(count)
        learned = fused(batch, self._mover.described(self._optimiser.described()))
        assert learned.norms is not None
        assert isinstance(learner.watch, HostWatch)
        ranges = ranges_of(learned.q_tm1, batch)
        learner.watch.expect(tuple(ranges))
        losses = learner.watch.note_all(learned.loss, ranges, learned.norms)
        learner.add_to_means(sum(losses), sum(learned.q_mean.tolist()), sum(learned.norms.norm(dim=1).tolist()))
        return learned.error

    def _step_by_kernel(self, gradients: list[Tensor]) -> Tensor:
        """Clip, step, round; returns the norms [P] of the gradients before clipping."""
        self._mover.take(gradients)
        (step,) = self._optimiser.described()
        norms = self._mover.step(step)
        if not self._fused:
            self.networks[0].take_back(gradients)
        return norms
