"""What the benchmarks must know of a training loop. A new kind of loop gets its `Workload` here, and nowhere else."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pixelq.actor import epsilon_at
from pixelq.algos import ALGOS
from pixelq.bench.roofline import count_flops, tensor_bytes
from pixelq.config import TrainConfig
from pixelq.learner import Learner
from pixelq.replay.frames import PLANE_BYTES
from pixelq.types import Batch

__all__ = ["Cost", "Update", "Workload", "workload_of"]

_CAPACITY = 10_000  # transitions
_LEARN_START = 500  # transitions
_WARM_UP_UPDATES = 20
_STACK_BYTES = 4 * PLANE_BYTES


class Cost(NamedTuple):
    """What some work takes at least."""

    flops: float  # operations of the networks
    bytes: float  # read and written; activations are left out, as they stay in caches


class Update(NamedTuple):
    """One update of a recipe, over and over on the same batch."""

    batch_size: int
    forward: Callable[[], Tensor]  # the loss alone, a scalar to go backward from
    whole: Callable[[], object]  # forward, backward and the optimiser's step
    bytes: int  # see `Cost`


class Workload(NamedTuple):
    """A kind of training loop, as functions of a resolved config."""

    at_once: Callable[[TrainConfig], TrainConfig]  # the recipe, learning from its first steps on as it will at its end
    cycle_steps: Callable[[TrainConfig], int]  # steps after which the loop does the same again
    warm_up_steps: Callable[[TrainConfig], int]  # steps of `at_once` that are not timed
    update: Callable[[TrainConfig, int, torch.device], Update]  # config, number of actions, device
    step_cost: Callable[[TrainConfig, int], Cost]  # config, number of actions; of one step while learning


def workload_of(config: TrainConfig) -> Workload:
    """The loop that a config trains with."""
    del config  # every algorithm so far learns from a replay memory
    return _REPLAY


def _replay_at_once(config: TrainConfig) -> TrainConfig:
    """A small memory, an early start, the last ε."""
    epsilon = epsilon_at(config.exploration, config.total_steps)
    capacity = max(_CAPACITY, config.replay.batch_size, config.envs * (config.algo.n_step + 1))
    return dataclasses.replace(
        config,
        replay=dataclasses.replace(
            config.replay, capacity=capacity, learn_start=max(_LEARN_START, config.replay.batch_size)
        ),
        exploration=dataclasses.replace(config.exploration, start=epsilon, end=epsilon, random_steps=0),
    )


def _replay_cycle_steps(config: TrainConfig) -> int:
    return math.lcm(config.envs, config.replay.train_period)


def _replay_warm_up_steps(config: TrainConfig) -> int:
    held_back = config.envs * config.algo.n_step  # not yet counted as transitions
    return config.replay.learn_start + held_back + _WARM_UP_UPDATES * config.replay.train_period


def _replay_update(config: TrainConfig, num_actions: int, device: torch.device) -> Update:
    learner, batch = _learner_and_batch(config, num_actions, device)
    loss = ALGOS[type(config.algo)].loss

    def forward() -> Tensor:
        learner.online.zero_grad(set_to_none=True)
        output = loss(config.algo, learner.online, learner.target, batch)
        return (batch.weight * output.loss).mean()

    moved = _update_bytes(learner) + tensor_bytes(batch)
    return Update(config.replay.batch_size, forward, lambda: learner.update(batch), moved)


def _learner_and_batch(config: TrainConfig, num_actions: int, device: torch.device) -> tuple[Learner, Batch]:
    """A learner after its first update, so that the optimiser has its moments, and the batch of that update."""
    generator = torch.Generator().manual_seed(1)
    learner = Learner(config, num_actions, device, generator)
    batch = _random_batch(config.replay.batch_size, num_actions, device, generator)
    learner.update(batch)
    return learner, batch


def _random_batch(size: int, num_actions: int, device: torch.device, generator: torch.Generator) -> Batch:
    """Transitions of noise: how long an update takes does not depend on what is seen."""
    obs = torch.randint(0, 256, (2, size, 4, 84, 84), dtype=torch.uint8, generator=generator).to(device)
    actions = torch.randint(0, num_actions, (size,), generator=generator).to(device)
    rewards = torch.randint(-1, 2, (size,), generator=generator).to(device, torch.float32)
    discounts, weights = torch.full((2, size), 0.99, device=device)
    return Batch(obs[0], actions, rewards, discounts, obs[1], weights)


def _update_bytes(learner: Learner) -> int:
    """Weights, gradients, masters and moments, each as often as it is read or written.

    The working weights are read by the forward and by the backward pass, the target's by one; gradients are written and
    read; masters and moments are read and written; working weights that are not their own masters are written.
    """
    working = list(learner.online.parameters())
    moments = [tensor for name, tensor in learner.state().items() if name.startswith("optimiser.") and tensor.dim() > 0]
    lowered = [parameter for parameter in working if parameter.dtype != torch.float32]
    once = tensor_bytes(learner.target.parameters()) + tensor_bytes(lowered)
    return once + 4 * tensor_bytes(working) + 2 * tensor_bytes([*learner.weights().values(), *moments])


def _replay_step_cost(config: TrainConfig, num_actions: int) -> Cost:
    """The share of an update that falls to a step, acting, and moving the observation and its plane.

    All games act in one forward pass, which is left out when all of them explore.
    """
    learner, batch = _learner_and_batch(config, num_actions, torch.device("cpu"))
    obs = torch.zeros(config.envs, 4, 84, 84, dtype=torch.uint8)
    with torch.inference_mode():
        acting = count_flops(lambda: learner.online.q_values(obs))
    share = 1 - epsilon_at(config.exploration, config.total_steps) ** config.envs
    flops = count_flops(lambda: learner.update(batch)) / config.replay.train_period + share * acting / config.envs
    updating = (_update_bytes(learner) + tensor_bytes(batch)) / config.replay.train_period
    weights = share * tensor_bytes(learner.online.parameters()) / config.envs
    return Cost(flops, updating + weights + _STACK_BYTES + PLANE_BYTES)


_REPLAY = Workload(_replay_at_once, _replay_cycle_steps, _replay_warm_up_steps, _replay_update, _replay_step_cost)
