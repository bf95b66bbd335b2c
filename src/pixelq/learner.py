"""The learner: networks, precision, optimiser and the update."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pixelq.algos import algo_of
from pixelq.clipping import clipping_factors, scale
from pixelq.compiling import can_compile, compiled
from pixelq.config import TrainConfig
from pixelq.device import generator_on, restore_generator_on
from pixelq.divergence import HostWatch, all_finite, watch_on
from pixelq.graphs import GraphsByShape
from pixelq.native.library import instructions, kernels
from pixelq.native.moves import OptimiserKernel
from pixelq.native.q_learning import QLearningKernel
from pixelq.native.replay import UnreadBatch
from pixelq.networks import QNetwork
from pixelq.optimisers import CentredRMSProp, ElementwiseAdam, make_optimiser
from pixelq.types import Batch, RolloutBatch

__all__ = ["Learner", "LearnerMetrics", "Losses", "has_fast_bfloat16", "is_for_kernels"]


class Losses(NamedTuple):
    """What the first half of an update leaves to the second."""

    loss: Tensor  # [] weighted mean, differentiable
    error: Tensor  # [B] the batch's errors before the move
    ranges: dict[str, Tensor]  # what explains the update if it goes wrong, by name


class LearnerMetrics(NamedTuple):
    """Means over the updates since the last fetch; None before the first update."""

    loss: float | None
    q_mean: float | None


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether PyTorch's bfloat16 is the faster one there: a GPU of today, or a CPU with AMX.

    By AVX512-BF16 alone its layers take one and a half times as long as in float32, and many times beside a busy
    process.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported())


def is_for_kernels(config: TrainConfig) -> bool:
    """Whether kernels of our own, where there are any, make all of a recipe's loss and gradients in bfloat16."""
    algo = algo_of(config.algo)
    if not config.compile or algo.kernel is None:
        return False
    network = algo.make_network(config.network, config.algo, 1, torch.Generator(), config.env.obs_shape)
    network.lower_precision(torch.bfloat16)
    network.use_kernels()
    return network.all_in_kernels


class Learner:
    """Owns the online and the target network and moves the online one.

    Torso and dense layer may compute in bfloat16; the optimiser then moves float32 masters, from which the working
    weights are copied after every step. Metrics stay on the device until they are fetched.

    Args:
        config: the recipe, `precision` already decided.
        num_actions: outputs of the network.
        device: where everything lives.
        generator: source of the initial weights, on the CPU so that they do not depend on the device; then of all
            chance in the loss (sampled quantiles, the noise of noisy layers), on a GPU by way of a source of its own.

    An algorithm of fresh rollouts has no target network: `target` is then the online network itself.

    Source: Mnih et al. 2015, Methods, Algorithm 1; masters as Micikevicius et al. 2018, "Mixed precision training".
    """

    def __init__(
        self,
        config: TrainConfig,
        num_actions: int,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        self._config = config
        self._device = device
        self._algo = algo_of(config.algo)
        network = self._algo.make_network(config.network, config.algo, num_actions, generator, config.env.obs_shape)
        self.online: QNetwork = network.to(device)
        self.generator = generator_on(device, generator)
        self.compiles = config.compile and can_compile(device)
        """Whether updates are compiled."""
        # a compiler cannot follow chance out of a generator that is kept
        self.compiles_losses = self.compiles and not (self._algo.draws or self.online.draws_noise)
        """Whether the first half of them is, too."""
        if self.compiles:
            torch.compiler.reset()  # what other learners had compiled: past some eight of them it would give up
        if self.compiles_losses:
            self.online.prepare_to_compile()
        self._names = [name for name, _ in self.online.named_parameters()]
        full = [parameter.detach().clone() for parameter in self.online.parameters()]
        if config.precision == "bfloat16":
            self.online.lower_precision(torch.bfloat16)
        self.suits_kernels = config.compile and device.type == "cpu" and self.online.suits_kernels
        """Whether kernels for products of bfloat16 could make updates."""
        self.uses_kernels = self.suits_kernels and kernels() is not None
        """Whether they do."""
        if self.uses_kernels:
            self.online.use_kernels()
        self._working: list[Tensor] = list(self.online.parameters())
        # a parameter that is float32 anyway is its own master
        self._masters = [
            parameter if parameter.dtype == torch.float32 else master
            for parameter, master in zip(self._working, full, strict=True)
        ]
        self._lowered = [index for index, p in enumerate(self._working) if p.dtype != torch.float32]
        self._kept: dict[int, Tensor] = {}  # their gradients in float32
        self._has_target = self._algo.memory == "replay"
        self.target = copy.deepcopy(self.online).requires_grad_(False) if self._has_target else self.online
        self._buffers, self._target_buffers = _buffers(self.online), _buffers(self.target)
        elementwise = self.compiles or self.uses_kernels
        self._optimiser = make_optimiser(config.optimiser, self._masters, elementwise)
        make_kernel = self._algo.kernel if self.uses_kernels else None
        self._kernel = make_kernel and make_kernel(config.algo, self.online, self.target)
        self._adam: OptimiserKernel | None = None
        if self.uses_kernels and isinstance(self._optimiser, ElementwiseAdam | CentredRMSProp):
            self._adam = OptimiserKernel(self._masters, self._working, *self._optimiser.moments)
        if self._kernel and self._adam:
            self._adam.take(self._kernel.gradients)
        self._loss_sum = torch.zeros((), device=device)
        self._q_sum = torch.zeros((), device=device)
        self._count = 0
        self.updates = 0
        self._watch = watch_on(device)
        batch_of = Batch if self._has_target else RolloutBatch
        self._moves = GraphsByShape(
            lambda *tensors: self.move(batch_of(*tensors)), device, [self.generator], config.cuda_graphs
        )
        self.compiled_losses = compiled(self.losses, self.compiles_losses, side_by_side=True)
        """`losses`, compiled by itself if it is at all."""
        self._finish = compiled(self._finish_move, self.compiles, side_by_side=True)

    @property
    def has_gradient_kernel(self) -> bool:
        """Whether a kernel makes loss and gradients at once, so that an update has no passes to be told apart."""
        return self._kernel is not None

    @property
    def instructions(self) -> str | None:
        """Which of a processor's kernels are made of, that make updates; None: they are the libraries' own."""
        return instructions() if self.uses_kernels else None

    @property
    def learning_rate(self) -> float:
        """Step size of the updates to come."""
        return self._optimiser.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._optimiser.learning_rate = value

    def update(self, batch: Batch | RolloutBatch) -> Tensor:
        """Move the online network by one batch; waits for nothing on the device.

        Args:
            batch: transitions; each one's loss counts by its weight before the mean is taken.

        Returns:
            The errors [B] of the batch before the move, on the device; on a GPU to be read before the next update.
        """
        return self.learn(batch, 1)

    @property
    def reads_planes(self) -> bool:
        """Whether `learn` takes batches whose planes are not read yet, which is quicker."""
        return self._kernel is not None and self._adam is not None

    def learn(self, batch: Batch | UnreadBatch | RolloutBatch, count: int) -> Tensor:
        """So many updates, each by its part of a batch, all parts being of one size; quicker than one by one.

        Args:
            batch: transitions [count · B].
            count: how many updates.

        Returns:
            The errors [count · B] of the parts, as `update`.
        """
        if self._kernel is not None and self._adam is not None:
            assert not isinstance(batch, RolloutBatch)
            return self._updates_by_kernel(self._kernel, self._adam, batch, count)
        assert not isinstance(batch, UnreadBatch)
        errors = []
        for part in _parts(batch, count):
            self.announce_updates()
            error = self._moves(*part)
            errors.append(error if count == 1 else error.clone())  # the next one may lie in its place
        return errors[0] if count == 1 else torch.cat(errors)

    @property
    def most_at_once(self) -> int:
        """Updates that can be announced in one go."""
        return self._optimiser.most_at_once

    def announce_updates(self, count: int = 1) -> None:
        """The host's part of so many updates: count them, and put step sizes where the device finds them."""
        self._optimiser.prepare(count)
        self._count += count
        self.updates += count

    def move(self, batch: Batch | RolloutBatch) -> Tensor:
        """The device's part of an update, announced before; arguments and result are those of `update`.

        On a GPU it reads nothing of the host's, so that it can be recorded as a graph and replayed.
        """
        if self._kernel is None:
            return self.follow(self.compiled_losses(batch))
        assert isinstance(batch, Batch)
        learned = self._kernel(batch)
        self._conclude(Losses(learned.loss[0], learned.error, _ranges(learned.q_tm1, batch)), self._kernel.gradients)
        return learned.error

    def _updates_by_kernel(
        self, kernel: QLearningKernel, adam: OptimiserKernel, batch: Batch | UnreadBatch, count: int
    ) -> Tensor:
        self.announce_updates(count)
        assert isinstance(self._optimiser, ElementwiseAdam | CentredRMSProp)
        learned = kernel(batch, adam.described(self._optimiser.described()))
        assert learned.norms is not None
        assert isinstance(self._watch, HostWatch)
        ranges = _ranges(learned.q_tm1, batch)
        self._watch.expect(tuple(ranges))
        self._loss_sum += sum(self._watch.note_all(learned.loss, ranges, learned.norms))
        self._q_sum += sum(learned.q_mean.tolist())
        return learned.error

    def losses(self, batch: Batch | RolloutBatch) -> Losses:
        """The first half of `move`, which may be compiled together with what makes the batch."""
        output = self._algo.loss(self._config.algo, self.online, self.target, batch, self.generator)
        loss = (batch.weight * output.loss).mean()
        return Losses(loss, output.error, _ranges(output.q_tm1, batch))

    def follow(self, losses: Losses) -> Tensor:
        """The second half of `move`: go down the loss; returns the errors [B]."""
        for parameter in self._working:
            parameter.grad = None
        losses.loss.backward()  # type: ignore[no-untyped-call]
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in self._working
        ]
        self._conclude(losses, gradients)
        return losses.error

    def _conclude(self, losses: Losses, gradients: list[Tensor]) -> None:
        self._watch.expect(tuple(losses.ranges))
        self._finish(losses.loss.detach(), losses.ranges, gradients)

    @torch.no_grad()
    def _finish_move(self, loss: Tensor, ranges: dict[str, Tensor], gradients: list[Tensor]) -> None:
        norms = self._step(gradients) if self._adam is None else self._step_by_kernel(self._adam, gradients)
        self._watch.note(loss, ranges, norms)
        self._loss_sum += loss
        self._q_sum += ranges["Q"].mean()

    def _step(self, gradients: list[Tensor]) -> Tensor:
        """Clip, move, round; returns the norms [P] of the gradients before."""
        gradients = self._in_full(gradients)
        norms = torch.stack(self._norms(gradients))
        self._scale(gradients, clipping_factors(self._config.optimiser, norms))
        self._optimiser.step(gradients)
        self._masters_to_working()
        return norms

    def _step_by_kernel(self, adam: OptimiserKernel, gradients: list[Tensor]) -> Tensor:
        """The same."""
        adam.take(gradients)
        assert isinstance(self._optimiser, ElementwiseAdam | CentredRMSProp)
        (step,) = self._optimiser.described()
        return adam.step(step)

    def _norms(self, gradients: list[Tensor]) -> list[Tensor]:
        """Each one's Euclidean norm; a compiler takes operations on lists as they are, and fuses nothing into them."""
        if self.compiles:
            return [torch.linalg.vector_norm(gradient) for gradient in gradients]
        return list(torch._foreach_norm(gradients))

    def _scale(self, gradients: list[Tensor], factors: Tensor) -> None:
        if self._config.optimiser.clip != "none":
            scale(gradients, factors)

    def _in_full(self, gradients: list[Tensor]) -> list[Tensor]:
        """Gradients of all weights in float32; without a compiler in memory that is kept."""
        if self.compiles:
            return [gradient.float() for gradient in gradients]
        full = list(gradients)
        for index in self._lowered:
            if index not in self._kept:
                self._kept[index] = torch.empty_like(self._masters[index])
            full[index] = self._kept[index].copy_(gradients[index])
        return full

    @torch.no_grad()
    def _masters_to_working(self) -> None:
        for index in self._lowered:
            self._working[index].copy_(self._masters[index])

    @torch.no_grad()
    def copy_to_target(self) -> None:
        """Make the target network equal to the online one."""
        if self._has_target:
            torch._foreach_copy_(list(self.target.parameters()), self._working)
            for name, buffer in self._target_buffers.items():
                buffer.copy_(self._buffers[name])

    def fetch_metrics(self) -> LearnerMetrics:
        """Means since the last fetch; waits for the device."""
        if self._count == 0:
            return LearnerMetrics(None, None)
        metrics = LearnerMetrics(float(self._loss_sum) / self._count, float(self._q_sum) / self._count)
        self._loss_sum.zero_()
        self._q_sum.zero_()
        self._count = 0
        return metrics

    def trouble(self) -> tuple[int, str] | None:
        """Whether the loss, or anything that `weights` and `state` give, is no longer finite; waits for the device.

        Returns:
            None if all is well; else how many updates ago it began, 0 being the last, and that update in words.
        """
        if not self._watch.found and all_finite([*self.weights().values(), *self.state().values()]):
            return None
        return self._watch.describe()

    def weights(self) -> dict[str, Tensor]:
        """The online network's float32 weights by name, as an agent file holds them."""
        masters = {name: master.detach() for name, master in zip(self._names, self._masters, strict=True)}
        return masters | self._buffers

    @torch.no_grad()
    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Set online and target network to float32 weights of the same shapes."""
        for name, tensor in self.weights().items():
            if weights[name].shape != tensor.shape:  # copy_ would broadcast
                raise ValueError(f"{name} has shape {tuple(weights[name].shape)}: must be {tuple(tensor.shape)}")
            tensor.copy_(weights[name])
        self._masters_to_working()
        self.copy_to_target()

    def state(self) -> dict[str, Tensor]:
        """All there is to save beside `weights`, as named tensors."""
        target = self.target.state_dict() if self._has_target else {}
        named = {f"target.{name}": tensor.detach() for name, tensor in target.items()}
        named |= {f"optimiser.{name}": tensor for name, tensor in self._optimiser.state().items()}
        counts = torch.tensor([self.updates, self._count])
        named |= {"metrics.loss_sum": self._loss_sum, "metrics.q_sum": self._q_sum, "counts": counts}
        return named | {"generator": self.generator.get_state()}

    @torch.no_grad()
    def restore(self, weights: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        """The inverse of `weights` and `state` together."""
        self.load_weights(weights)
        restore_generator_on(self.generator, state["generator"])
        if self._has_target:
            for name, tensor in self.target.state_dict().items():
                tensor.copy_(state[f"target.{name}"])
        prefix = "optimiser."
        self._optimiser.restore({key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)})
        self._loss_sum.copy_(state["metrics.loss_sum"])
        self._q_sum.copy_(state["metrics.q_sum"])
        self.updates, self._count = (int(count) for count in state["counts"])


def _parts(batch: Batch | RolloutBatch, count: int) -> Sequence[Batch | RolloutBatch]:
    """A batch in parts of one size."""
    if count == 1:
        return [batch]
    pieces = [[tensor] * count if tensor.dim() == 0 else tensor.chunk(count) for tensor in batch]
    return [type(batch)(*part) for part in zip(*pieces, strict=True)]


def _buffers(network: QNetwork) -> dict[str, Tensor]:
    """What an agent file holds beside the parameters, by name."""
    parameters = dict(network.named_parameters())
    return {name: tensor for name, tensor in network.state_dict().items() if name not in parameters}


def _ranges(q_tm1: Tensor, batch: Batch | UnreadBatch | RolloutBatch) -> dict[str, Tensor]:
    """The figures that explain an update, by name.

    Whole tensors: their edges are found in the second half, or a compiler would do all of the sampling over again in
    the one block of threads that looks for them.
    """
    if isinstance(batch, RolloutBatch):
        return {"Q": q_tm1, "returns": batch.return_t}
    return {"Q": q_tm1, "rewards": batch.r_t, "discounts": batch.discount_t}
