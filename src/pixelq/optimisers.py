"""Optimisers over float32 masters."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.radam import radam

from pixelq.config import OptimiserConfig
from pixelq.device import send
from pixelq.native.moves import OptimiserStep
from pixelq.schedules import linear

__all__ = [
    "BETAS",
    "Adam",
    "CentredRMSProp",
    "ElementwiseAdam",
    "Optimiser",
    "StepSize",
    "WeightDecay",
    "learning_rate_at",
    "make_optimiser",
]

BETAS = (0.9, 0.999)  # PyTorch's, Keras' and both papers' own
_MOST_AT_ONCE = 16  # steps announced in one go
_CORRECTED_STEPS = 1e6  # steps after which 1 − β₂ᵗ is 1 to the last bit; the next ten million do not change it


class Optimiser(Protocol):
    """Turns gradients into a step, in two parts.

    `prepare` is the host's part: it counts, and puts the changing numbers where the device finds them. `step`
    is the device's part: on a GPU it reads no host number, so that it can be recorded once and replayed.
    """

    learning_rate: float
    """Learning rate of the next steps."""
    most_at_once: int
    """Steps that can be announced in one go."""

    def prepare(self, count: int = 1) -> None:
        """Announce the next steps."""

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Move every parameter by its gradient; the step was announced."""

    def state(self) -> dict[str, Tensor]:
        """The state to save, as named tensors."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""


class StepSize:
    """A step size that changes from step to step: a number for a CPU, a tensor in the memory of a GPU.

    Args:
        value: the first one.
        device: the device that reads it.
    """

    def __init__(self, value: float, device: torch.device) -> None:
        self._last = value
        self.value: float | Tensor = value if device.type in ("cpu", "mps") else torch.full((), value, device=device)

    def set(self, value: float) -> None:
        """Change it; waits for nothing, and steps that a GPU has not made yet keep theirs."""
        if value == self._last:
            return
        self._last = value
        if isinstance(self.value, Tensor):
            self.value.fill_(value)
        else:
            self.value = value


class WeightDecay:
    """Weights shrink before a step, independently of gradients: θ ← (1 − lr · λ) θ, with that step's step size lr.

    Args:
        parameters: what to shrink.
        config: λ and the first step size.

    Source: Loshchilov & Hutter 2019, "Decoupled weight decay regularization", Algorithm 2 (AdamW), without its
    schedule multiplier, as PyTorch and Keras have it.
    """

    def __init__(self, parameters: Sequence[Tensor], config: OptimiserConfig) -> None:
        self._parameters = list(parameters)
        self._config = config
        self._kept = StepSize(_kept_share(config, config.learning_rate), self._parameters[0].device)

    def prepare(self, learning_rate: float) -> None:
        """Announce a step of that size."""
        self._kept.set(_kept_share(self._config, learning_rate))

    @torch.no_grad()
    def apply(self) -> None:
        """Shrink; does nothing where λ is 0."""
        if self._config.weight_decay:
            torch._foreach_mul_(self._parameters, self._kept.value)


class _Moments:
    """What Adam, Keras' Adam and rectified Adam keep: both moments of every parameter, and the count of steps.

    Args:
        parameters: what to move.
        config: which of them, learning rate and ε.
    """

    def __init__(self, parameters: Sequence[Tensor], config: OptimiserConfig) -> None:
        self._config = config
        self.learning_rate = config.learning_rate
        self._steps = 0
        self._parameters = list(parameters)
        self._first, self._second = (
            [torch.zeros_like(parameter, requires_grad=False) for parameter in parameters] for _ in range(2)
        )

    def state(self) -> dict[str, Tensor]:
        """Both moments of every parameter and the count of steps."""
        tensors = {"steps": torch.tensor(self._steps)}
        for index, (first, second) in enumerate(zip(self._first, self._second, strict=True)):
            tensors |= {f"{index}.exp_avg": first, f"{index}.exp_avg_sq": second}
            if self._config.name != "keras_adam":
                tensors[f"{index}.step"] = torch.tensor(float(self._steps))
        return tensors

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self._steps = int(state["steps"])
        for index, (first, second) in enumerate(zip(self._first, self._second, strict=True)):
            for moment, name in ((first, f"{index}.exp_avg"), (second, f"{index}.exp_avg_sq")):
                # before the first step checkpoints of older versions have none
                moment.copy_(state[name]) if self._steps else moment.zero_()


class Adam(_Moments):
    """Adam, Keras' Adam, and rectified Adam, with PyTorch's kernels.

    PyTorch's functions, not its classes: those load its compiler, which takes two seconds and 70 MB.
    `keras_adam` adds ε to the uncorrected √v; PyTorch adds it to the corrected one. So its kernel gets a count of
    steps at which both corrections are 1, and they go into the step size: lr · √(1 − β₂ᵗ) / (1 − β₁ᵗ).

    Args:
        parameters: what to move.
        config: which of them, learning rate and ε.

    Source: Kingma & Ba 2015, "Adam", Algorithm 1; Keras' form is the one at the end of its section 2; Liu et al. 2020,
    "On the variance of the adaptive learning rate and beyond", Algorithm 2.
    """

    most_at_once = 1

    def __init__(self, parameters: Sequence[Tensor], config: OptimiserConfig) -> None:
        super().__init__(parameters, config)
        self._as_keras = config.name == "keras_adam"
        self._rate = StepSize(config.learning_rate, self._parameters[0].device)
        self._weight_decay = WeightDecay(self._parameters, config)
        self._counts = [torch.zeros((), device=parameter.device) for parameter in parameters]
        self._set_counts()

    def prepare(self, count: int = 1) -> None:
        """Announce a step."""
        assert count == 1  # the next one's size may be another
        self._steps += 1
        rate = self.learning_rate
        if self._as_keras:
            correction1, correction2 = _corrections(self._steps)
            rate *= correction2**0.5 / correction1
        self._rate.set(rate)
        self._weight_decay.prepare(self.learning_rate)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Move every parameter by its gradient; the step was announced."""
        self._weight_decay.apply()
        beta1, beta2 = BETAS
        numbers: dict[str, Any] = {"lr": self._rate.value, "beta1": beta1, "beta2": beta2, "eps": self._config.epsilon}
        # on a GPU the counts stay on the device, and no update waits for them
        numbers |= {"weight_decay": 0.0, "maximize": False, "capturable": self._parameters[0].is_cuda}
        moved = self._parameters, list(gradients), self._first, self._second
        if self._config.name == "radam":
            radam(*moved, self._counts, foreach=True, **numbers)
        else:
            adam(*moved, [], self._counts, fused=True, amsgrad=False, **numbers)

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        super().restore(state)
        self._set_counts()

    def _set_counts(self) -> None:
        for count in self._counts:
            count.fill_(_CORRECTED_STEPS if self._as_keras else self._steps)


class ElementwiseAdam(_Moments):
    """The optimisers of `Adam` as one formula of plain operations, which a compiler fuses into one pass; same state.

    m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← dθ − m · (a / (√v + b) + c)

    The three, and successive steps, differ in the numbers a, b, c and d; d as in `WeightDecay`.

    Args:
        parameters: what to move.
        config: which of them, learning rate and ε.

    Source: as `Adam`.
    """

    most_at_once = _MOST_AT_ONCE

    def __init__(self, parameters: Sequence[Tensor], config: OptimiserConfig) -> None:
        super().__init__(parameters, config)
        self.numbers: list[tuple[float, float, float, float]] = []
        """a, b, c and d of each of the steps that were announced last."""
        device = self._parameters[0].device
        self._announced = torch.zeros(_MOST_AT_ONCE, 4, device=device)  # the same, where the device finds them
        self._next = torch.zeros(1, dtype=torch.int64, device=device)

    @property
    def moments(self) -> tuple[list[Tensor], list[Tensor]]:
        """Both moments, m and v, of every parameter, which stay where they are."""
        return self._first, self._second

    def described(self) -> list[OptimiserStep]:
        """The steps that were announced last, for a kernel that makes them."""
        clipping = self._config.clip, self._config.clip_norm
        return [OptimiserStep("adam", *clipping, *BETAS, *numbers) for numbers in self.numbers]

    def prepare(self, count: int = 1) -> None:
        """Announce the next steps."""
        self.numbers = [self._numbers(self._steps + number) for number in range(1, count + 1)]
        self._steps += count
        send(torch.tensor(self.numbers), self._announced[:count])
        self._next.zero_()

    def _numbers(self, steps: int) -> tuple[float, float, float, float]:
        """a, b, c and d of a step, counted from 1."""
        correction1, correction2 = _corrections(steps)
        scaled, epsilon, plain = self.learning_rate * correction2**0.5 / correction1, self._config.epsilon, 0.0
        if self._config.name == "adam":
            epsilon *= correction2**0.5
        elif self._config.name == "radam":
            beta2 = BETAS[1]
            longest = 2.0 / (1.0 - beta2) - 1.0
            length = longest - 2.0 * steps * beta2**steps / correction2
            if length > 5.0:
                scaled *= ((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)) ** 0.5
            else:
                scaled, plain = 0.0, self.learning_rate / correction1
        return scaled, epsilon, plain, _kept_share(self._config, self.learning_rate)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Move every parameter by its gradient; the step was announced."""
        beta1, beta2 = BETAS
        scaled, epsilon, plain, kept = self._announced.index_select(0, self._next)[0].unbind()
        self._next.add_(1)
        moments = zip(self._parameters, gradients, self._first, self._second, strict=True)
        for parameter, gradient, first, second in moments:
            first.lerp_(gradient, 1 - beta1)
            second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            parameter.mul_(kept).sub_(first * (scaled / (second.sqrt() + epsilon) + plain))


def _corrections(steps: int) -> tuple[float, float]:
    """1 − β₁ᵗ and 1 − β₂ᵗ, Adam's bias corrections after t steps."""
    beta1, beta2 = BETAS
    return 1.0 - beta1**steps, 1.0 - beta2**steps


class CentredRMSProp:
    """RMSProp over an estimate of the gradient's variance, ε inside the root.

    m ← ρm + (1−ρ)g;  v ← ρv + (1−ρ)g²;  θ ← θ − lr·g / √(v − m² + ε)

    Args:
        parameters: what to move.
        config: learning rate, decay ρ and ε.

    Source: Graves 2013, "Generating sequences with recurrent neural networks", eqs. 38–45, without momentum, as
    Mnih et al. 2015, Extended Data Table 1.
    """

    most_at_once = _MOST_AT_ONCE

    def __init__(self, parameters: Sequence[Tensor], config: OptimiserConfig) -> None:
        self._config = config
        self.learning_rate = config.learning_rate
        self._parameters = list(parameters)
        self._rate = StepSize(config.learning_rate, self._parameters[0].device)
        self._mean = [torch.zeros_like(parameter) for parameter in parameters]
        self._square = [torch.zeros_like(parameter) for parameter in parameters]
        self._weight_decay = WeightDecay(self._parameters, config)
        self._count = 0  # of steps that were announced last

    @property
    def moments(self) -> tuple[list[Tensor], list[Tensor]]:
        """Both moving averages, m and v, of every parameter, which stay where they are."""
        return self._mean, self._square

    def described(self) -> list[OptimiserStep]:
        """The steps that were announced last, for a kernel that makes them."""
        clipping, decay = (self._config.clip, self._config.clip_norm), self._config.decay
        numbers = self.learning_rate, self._config.epsilon, 0.0, _kept_share(self._config, self.learning_rate)
        return [OptimiserStep("centred_rmsprop", *clipping, decay, decay, *numbers)] * self._count

    def prepare(self, count: int = 1) -> None:
        """Announce the next steps, all of one size."""
        self._count = count
        self._rate.set(self.learning_rate)
        self._weight_decay.prepare(self.learning_rate)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Move every parameter by its gradient; the step was announced."""
        self._weight_decay.apply()
        decay = self._config.decay
        gradients = list(gradients)
        torch._foreach_lerp_(self._mean, gradients, 1 - decay)
        torch._foreach_mul_(self._square, decay)
        torch._foreach_addcmul_(self._square, gradients, gradients, 1 - decay)
        root = torch._foreach_addcmul(self._square, self._mean, self._mean, -1.0)
        torch._foreach_clamp_min_(root, 0.0)  # rounding may leave a variance just below zero
        torch._foreach_add_(root, self._config.epsilon)
        torch._foreach_sqrt_(root)
        if isinstance(self._rate.value, Tensor):
            moves = torch._foreach_div(gradients, root)
            torch._foreach_mul_(moves, self._rate.value)
            torch._foreach_sub_(self._parameters, moves)
        else:  # in one pass
            torch._foreach_addcdiv_(self._parameters, gradients, root, -self._rate.value)

    def state(self) -> dict[str, Tensor]:
        """Both moving averages of every parameter."""
        named = {f"{index}.mean": tensor for index, tensor in enumerate(self._mean)}
        return named | {f"{index}.square": tensor for index, tensor in enumerate(self._square)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        for index, (mean, square) in enumerate(zip(self._mean, self._square, strict=True)):
            mean.copy_(state[f"{index}.mean"])
            square.copy_(state[f"{index}.square"])


def make_optimiser(config: OptimiserConfig, parameters: Sequence[Tensor], elementwise: bool = False) -> Optimiser:
    """The optimiser that a config names, over float32 parameters; elementwise: written to be compiled."""
    if config.name == "centred_rmsprop":
        return CentredRMSProp(parameters, config)
    return ElementwiseAdam(parameters, config) if elementwise else Adam(parameters, config)


def _kept_share(config: OptimiserConfig, learning_rate: float) -> float:
    """What weights are multiplied by before a step of that size, 1 − lr · λ."""
    return 1.0 - learning_rate * config.weight_decay


def learning_rate_at(config: OptimiserConfig, step: int, total_steps: int) -> float:
    """Step size of the updates after `step` of a run's `total_steps` steps."""
    if config.learning_rate_end is None:
        return config.learning_rate
    return linear(step, config.learning_rate, config.learning_rate_end, total_steps)
