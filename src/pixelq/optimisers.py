"""Optimisers over float32 masters, and the clipping of gradients."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from pixelq.config import OptimiserConfig
from pixelq.schedules import linear

__all__ = [
    "Adam",
    "CentredRMSProp",
    "Optimiser",
    "clip_global",
    "clip_per_variable",
    "learning_rate_at",
    "make_optimiser",
]


class Optimiser(Protocol):
    """Turns the gradients in `.grad` into a step."""

    learning_rate: float
    """Of the steps to come."""

    def step(self) -> None:
        """Move every parameter by its gradient."""

    def state(self) -> dict[str, Tensor]:
        """All there is to save, as named tensors."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""


class Adam:
    """Adam, Adam as Keras has it, and rectified Adam, by PyTorch's kernels.

    `keras_adam` adds ε to the uncorrected √v; PyTorch adds it to the corrected one, so its ε must be ε/√(1 − β₂ᵗ) to
    give the same step.

    Args:
        parameters: what to move.
        config: which of them, learning rate and ε.

    Source: Kingma & Ba 2015, "Adam", Algorithm 1; Keras' form is the one at the end of its section 2; Liu et al. 2020,
    "On the variance of the adaptive learning rate and beyond", Algorithm 2.
    """

    def __init__(self, parameters: Sequence[Tensor], config: OptimiserConfig) -> None:
        self._epsilon = config.epsilon
        self._keras_epsilon = config.name == "keras_adam"
        self.learning_rate = config.learning_rate
        self._steps = 0
        self._parameters = list(parameters)
        self._adam: torch.optim.Optimizer
        if config.name == "radam":
            self._adam = torch.optim.RAdam(
                self._parameters,
                config.learning_rate,
                eps=config.epsilon,
                foreach=True,
                capturable=self._parameters[0].is_cuda,  # counts that no update waits for
            )
        else:
            self._adam = torch.optim.Adam(self._parameters, config.learning_rate, eps=config.epsilon, fused=True)

    def step(self) -> None:
        """Move every parameter by its gradient."""
        self._steps += 1
        group = self._adam.param_groups[0]
        group["lr"] = self.learning_rate
        if self._keras_epsilon:
            group["eps"] = self._epsilon / (1.0 - group["betas"][1] ** self._steps) ** 0.5
        self._adam.step()

    def state(self) -> dict[str, Tensor]:
        """Both moments of every parameter and the count of steps."""
        tensors = {"steps": torch.tensor(self._steps)}
        for index, moments in self._adam.state_dict()["state"].items():
            tensors |= {f"{index}.{name}": tensor for name, tensor in moments.items()}
        return tensors

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self._steps = int(state["steps"])
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            index, _, name = key.partition(".")
            if name == "step":
                moments.setdefault(int(index), {})[name] = tensor.clone()
            elif name:
                # the fused kernel walks memory, so moments must have their parameter's strides (channels-last)
                moment = torch.empty_like(self._parameters[int(index)], requires_grad=False).copy_(tensor)
                moments.setdefault(int(index), {})[name] = moment
        self._adam.load_state_dict({"state": moments, "param_groups": self._adam.state_dict()["param_groups"]})


class CentredRMSProp:
    """RMSProp over an estimate of the gradient's variance, ε inside the root.

    m ← ρm + (1−ρ)g;  v ← ρv + (1−ρ)g²;  θ ← θ − lr·g / √(v − m² + ε)

    Args:
        parameters: what to move.
        config: learning rate, decay ρ and ε.

    Source: Graves 2013, "Generating sequences with recurrent neural networks", eqs. 38–45, without momentum, as
    Mnih et al. 2015, Extended Data Table 1.
    """

    def __init__(self, parameters: Sequence[Tensor], config: OptimiserConfig) -> None:
        self._config = config
        self.learning_rate = config.learning_rate
        self._parameters = list(parameters)
        self._mean = [torch.zeros_like(parameter) for parameter in parameters]
        self._square = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter by its gradient."""
        decay = self._config.decay
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        torch._foreach_lerp_(self._mean, gradients, 1 - decay)
        torch._foreach_mul_(self._square, decay)
        torch._foreach_addcmul_(self._square, gradients, gradients, 1 - decay)
        root = torch._foreach_addcmul(self._square, self._mean, self._mean, -1.0)
        torch._foreach_clamp_min_(root, 0.0)  # rounding may leave a variance just below zero
        torch._foreach_add_(root, self._config.epsilon)
        torch._foreach_sqrt_(root)
        torch._foreach_addcdiv_(self._parameters, gradients, root, -self.learning_rate)

    def state(self) -> dict[str, Tensor]:
        """Both moving averages of every parameter."""
        named = {f"{index}.mean": tensor for index, tensor in enumerate(self._mean)}
        return named | {f"{index}.square": tensor for index, tensor in enumerate(self._square)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        for index, (mean, square) in enumerate(zip(self._mean, self._square, strict=True)):
            mean.copy_(state[f"{index}.mean"])
            square.copy_(state[f"{index}.square"])


def make_optimiser(config: OptimiserConfig, parameters: Sequence[Tensor]) -> Optimiser:
    """The optimiser that a config names, over float32 parameters."""
    if config.name == "centred_rmsprop":
        return CentredRMSProp(parameters, config)
    return Adam(parameters, config)


def clip_per_variable(gradients: list[Tensor], norm: float) -> None:
    """Scale each gradient whose Euclidean norm exceeds `norm` down to it, in place, as Keras' `clipnorm` does."""
    norms = torch._foreach_norm(gradients)
    torch._foreach_mul_(gradients, [norm / size.clamp(min=norm) for size in norms])


def clip_global(gradients: list[Tensor], norm: float) -> None:
    """Scale all gradients together so that their joint Euclidean norm is at most `norm`, in place.

    Source: Pascanu et al. 2013, "On the difficulty of training recurrent neural networks", Algorithm 1.
    """
    total = torch.stack(torch._foreach_norm(gradients)).norm()
    torch._foreach_mul_(gradients, norm / total.clamp(min=norm))


def learning_rate_at(config: OptimiserConfig, step: int, total_steps: int) -> float:
    """Step size of the updates after `step` of a run's `total_steps` steps."""
    if config.learning_rate_end is None:
        return config.learning_rate
    return linear(step, config.learning_rate, config.learning_rate_end, total_steps)
