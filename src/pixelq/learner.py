"""The learner: the state that learning keeps between updates. Engines compute the updates."""

import copy
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelq.algos import algo_of
from pixelq.config import TrainConfig
from pixelq.device import generator_on, restore_generator_on
from pixelq.divergence import all_finite, watch_on
from pixelq.networks import QNetwork
from pixelq.optimisers import Optimiser, make_optimiser

__all__ = ["Learner", "LearnerMetrics"]


class LearnerMetrics(NamedTuple):
    """Means over the updates since the last fetch; None before the first update."""

    loss: float | None
    q_mean: float | None
    gradient_norm: float | None
    """Joint Euclidean norm of all gradients before any clipping."""


class Learner:
    """Owns the online and the target network, the optimiser's state and the figures of the updates.

    Torso and dense layer may compute in bfloat16; the optimiser then moves float32 masters, from which the working
    weights are copied after every step. Figures stay on the device until they are fetched.

    Args:
        config: the recipe, with `precision` resolved.
        num_actions: outputs of the network.
        device: the device of all tensors.
        generator: source of the initial weights, on the CPU so that they do not depend on the device; then of
            random numbers in the loss (sampled quantiles, noisy layers), on a GPU through a generator of the device.

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
        self.config = config
        self.device = device
        self.algo = algo_of(config.algo)
        network = self.algo.make_network(config.network, config.algo, num_actions, generator, config.env.obs_shape)
        self.online: QNetwork = network.to(device)
        self.generator = generator_on(device, generator)
        self._names = [name for name, _ in self.online.named_parameters()]
        full = [parameter.detach().clone() for parameter in self.online.parameters()]
        if config.precision == "bfloat16":
            self.online.lower_precision(torch.bfloat16)
        self.working: list[Tensor] = list(self.online.parameters())
        """The weights that the online network computes with."""
        # a parameter that is float32 anyway is its own master
        self.masters = [
            parameter if parameter.dtype == torch.float32 else master
            for parameter, master in zip(self.working, full, strict=True)
        ]
        """The same in float32; the optimiser updates them."""
        self.lowered = [index for index, p in enumerate(self.working) if p.dtype != torch.float32]
        """Which of them are not their own masters."""
        self._has_target = self.algo.memory == "replay"
        self.target = copy.deepcopy(self.online).requires_grad_(False) if self._has_target else self.online
        self._buffers, self._target_buffers = _buffers(self.online), _buffers(self.target)
        self.optimiser: Optimiser = make_optimiser(config.optimiser, self.masters)
        """Its state, and its step by PyTorch; an engine may replace it with another one of the same state."""
        self.watch = watch_on(device)
        """Figures that explain a diverging update."""
        self._loss_sum = torch.zeros((), device=device)
        self._q_sum = torch.zeros((), device=device)
        self._norm_sum = torch.zeros((), device=device)
        self._count = 0
        self.updates = 0

    @property
    def learning_rate(self) -> float:
        """Step size of the next updates."""
        return self.optimiser.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.optimiser.learning_rate = value

    def announce_updates(self, count: int = 1) -> None:
        """The host's part of the next updates: count them, and put step sizes where the device finds them."""
        self.optimiser.prepare(count)
        self._count += count
        self.updates += count

    def note(self, loss: Tensor, ranges: Mapping[str, Tensor], norms: Tensor) -> None:
        """Record the figures of an update; reads no host data.

        Args:
            loss: [] mean loss of the batch.
            ranges: tensors by name; their extremes explain the update. `Q` holds the online network's values.
            norms: [P] of the gradients of all weights before any clipping.
        """
        self.watch.note(loss, ranges, norms)
        self.add_to_means(loss, ranges["Q"].mean(), norms.norm())

    def add_to_means(self, loss: Tensor | float, q_mean: Tensor | float, gradient_norm: Tensor | float) -> None:
        """Add to the sums for the means of `fetch_metrics`."""
        self._loss_sum += loss
        self._q_sum += q_mean
        self._norm_sum += gradient_norm

    @torch.no_grad()
    def masters_to_working(self) -> None:
        """Round the masters to the weights that the online network computes with."""
        for index in self.lowered:
            self.working[index].copy_(self.masters[index])

    def see_background(self, pictures: NDArray[np.uint8]) -> None:
        """Take the background from a game's first pictures, for networks that subtract one.

        Args:
            pictures: [N, 84, 84], or [N, 3, 84, 84] in colour.
        """
        self.online.see_background(pictures)
        self.copy_to_target()

    @torch.no_grad()
    def copy_to_target(self) -> None:
        """Make the target network equal to the online one."""
        if self._has_target:
            torch._foreach_copy_(list(self.target.parameters()), self.working)
            for name, buffer in self._target_buffers.items():
                buffer.copy_(self._buffers[name])

    def fetch_metrics(self) -> LearnerMetrics:
        """Means since the last fetch; waits for the device."""
        if self._count == 0:
            return LearnerMetrics(None, None, None)
        sums = self._loss_sum, self._q_sum, self._norm_sum
        metrics = LearnerMetrics(*(float(total) / self._count for total in sums))
        for total in sums:
            total.zero_()
        self._count = 0
        return metrics

    def trouble(self) -> tuple[int, str] | None:
        """Whether the loss, `weights` or `state` hold NaN or infinity; waits for the device.

        Returns:
            None if all is well; else how many updates ago it began, 0 being the last, and that update in words.
        """
        if not self.watch.found and all_finite([*self.weights().values(), *self.state().values()]):
            return None
        return self.watch.describe()

    def weights(self) -> dict[str, Tensor]:
        """The online network's float32 weights by name, as in an agent file."""
        masters = {name: master.detach() for name, master in zip(self._names, self.masters, strict=True)}
        return masters | self._buffers

    @torch.no_grad()
    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Set online and target network to float32 weights of the same shapes."""
        for name, tensor in self.weights().items():
            if weights[name].shape != tensor.shape:  # copy_ would broadcast
                raise ValueError(f"{name} has shape {tuple(weights[name].shape)}: must be {tuple(tensor.shape)}")
            tensor.copy_(weights[name])
        self.masters_to_working()
        self.copy_to_target()

    def state(self) -> dict[str, Tensor]:
        """The state to save beside `weights`, as named tensors."""
        target = self.target.state_dict() if self._has_target else {}
        named = {f"target.{name}": tensor.detach() for name, tensor in target.items()}
        named |= {f"optimiser.{name}": tensor for name, tensor in self.optimiser.state().items()}
        counts = torch.tensor([self.updates, self._count])
        named |= {"metrics.loss_sum": self._loss_sum, "metrics.q_sum": self._q_sum}
        named |= {"metrics.norm_sum": self._norm_sum, "counts": counts}
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
        self.optimiser.restore({key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)})
        self._loss_sum.copy_(state["metrics.loss_sum"])
        self._q_sum.copy_(state["metrics.q_sum"])
        self._norm_sum.copy_(state.get("metrics.norm_sum", torch.zeros(())))  # older checkpoints have none
        self.updates, self._count = (int(count) for count in state["counts"])


def _buffers(network: QNetwork) -> dict[str, Tensor]:
    """An agent file's tensors beside the parameters, by name."""
    parameters = dict(network.named_parameters())
    return {name: tensor for name, tensor in network.state_dict().items() if name not in parameters}
