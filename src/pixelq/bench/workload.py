"""What the benchmarks must know of a training loop. A new kind of loop gets its `Workload` here, and nowhere else."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pixelq.actor import epsilon_at
from pixelq.algos import algo_of
from pixelq.bench.roofline import count_flops, tensor_bytes
from pixelq.config import ObsShape, PQNConfig, TrainConfig
from pixelq.device import generator_on
from pixelq.engines import Engine, make_engine
from pixelq.learner import Learner
from pixelq.types import Batch, RolloutBatch

__all__ = ["Cost", "Update", "Workload", "workload_of"]

_CAPACITY = 10_000  # transitions
_LEARN_START = 500  # transitions
_WARM_UP_UPDATES = 20


class Cost(NamedTuple):
    """What some work takes at least."""

    flops: float  # operations of the networks
    bytes: float  # read and written; activations are left out, as they stay in caches


class Update(NamedTuple):
    """One update of a recipe, over and over on the same batch."""

    batch_size: int
    forward: Callable[[], Tensor] | None  # the loss alone, a scalar to go backward from; None: a kernel does both ways
    whole: Callable[[], object]  # forward, backward and optimiser step, as in training
    flops: Callable[[], int]  # counts the operations of an update that is neither recorded nor compiled
    bytes: int  # see `Cost`
    instructions: str | None  # of kernels of our own


class Workload(NamedTuple):
    """A kind of training loop, as functions of a resolved config."""

    at_once: Callable[[TrainConfig], TrainConfig]  # the recipe, learning from its first steps on as it will at its end
    cycle_steps: Callable[[TrainConfig], int]  # steps after which the loop does the same again
    warm_up_steps: Callable[[TrainConfig], int]  # steps of `at_once` that are not timed
    update: Callable[[TrainConfig, int, torch.device], Update]  # config, number of actions, device
    step_cost: Callable[[TrainConfig, int], Cost]  # config, number of actions; of one step while learning


def workload_of(config: TrainConfig) -> Workload:
    """The loop that a config trains with."""
    return _REPLAY if algo_of(config.algo).memory == "replay" else _ROLLOUT


def _replay_at_once(config: TrainConfig) -> TrainConfig:
    """A small memory, an early start, the last ε."""
    capacity = max(_CAPACITY, config.replay.batch_size, config.envs * (_n_step(config) + 1))
    learn_start = max(_LEARN_START, config.replay.batch_size)
    replay = dataclasses.replace(config.replay, capacity=capacity, learn_start=learn_start)
    return dataclasses.replace(_with_last_epsilon(config), replay=replay)


def _with_last_epsilon(config: TrainConfig) -> TrainConfig:
    epsilon = epsilon_at(config.exploration, config.total_steps)
    settled = dataclasses.replace(config.exploration, start=epsilon, end=epsilon, random_steps=0, off_after_step=0)
    return dataclasses.replace(config, exploration=settled)


def _n_step(config: TrainConfig) -> int:
    assert not isinstance(config.algo, PQNConfig)
    return config.algo.n_step


def _replay_cycle_steps(config: TrainConfig) -> int:
    return math.lcm(config.envs, config.replay.train_period)


def _replay_warm_up_steps(config: TrainConfig) -> int:
    held_back = config.envs * _n_step(config)  # not yet counted as transitions
    return config.replay.learn_start + held_back + _WARM_UP_UPDATES * config.replay.train_period


def _replay_update(config: TrainConfig, num_actions: int, device: torch.device) -> Update:
    return _update(config, config.replay.batch_size, num_actions, device)


def _update(config: TrainConfig, size: int, num_actions: int, device: torch.device) -> Update:
    engine, batch = _engine_and_batch(config, size, num_actions, device)
    first_half = engine.first_half(batch)

    def forward() -> Tensor:
        assert first_half is not None
        engine.learner.online.zero_grad(set_to_none=True)
        return first_half()

    def flops() -> int:
        plain, _ = _engine_and_batch(_by_operations(config), size, num_actions, device)
        return count_flops(lambda: plain.move(batch))

    moved = _update_bytes(engine.learner) + tensor_bytes(batch)
    passes = None if first_half is None else forward
    return Update(size, passes, lambda: engine.update(batch), flops, moved, engine.instructions)


def _by_operations(config: TrainConfig) -> TrainConfig:
    """The same by PyTorch's operations, as in kernels of our own nothing can be counted.

    In float32, which are as many: where only kernels make bfloat16 quick, PyTorch would take seconds.
    """
    return dataclasses.replace(config, compile=False, precision="float32")


def _engine_and_batch(
    config: TrainConfig, size: int, num_actions: int, device: torch.device
) -> tuple[Engine, Batch | RolloutBatch]:
    """An engine after its first update, so that the optimiser has its moments, and the batch of that update."""
    generator = torch.Generator().manual_seed(1)
    engine = make_engine(Learner(config, num_actions, device, generator), generator_on(device, torch.Generator()))
    transitions = _random_batch(config.env.obs_shape, size, num_actions, device, generator)
    batch: Batch | RolloutBatch = transitions
    if algo_of(config.algo).memory == "rollout":
        batch = RolloutBatch(transitions.obs_tm1, transitions.a_tm1, transitions.r_t, transitions.weight)
    engine.update(batch)
    return engine, batch


def _random_batch(
    shape: ObsShape, size: int, num_actions: int, device: torch.device, generator: torch.Generator
) -> Batch:
    """Transitions of noise: an update's time does not depend on the observations."""
    obs = torch.randint(0, 256, (2, size, *shape.obs), dtype=torch.uint8, generator=generator).to(device)
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
    share = 1 - epsilon_at(config.exploration, config.total_steps) ** config.envs
    cost = _step_cost(config, config.replay.batch_size, 1 / config.replay.train_period, share, num_actions)
    return cost._replace(bytes=cost.bytes + config.env.obs_shape.picture_bytes)


def _step_cost(config: TrainConfig, size: int, updates: float, passes: float, num_actions: int) -> Cost:
    """The cost of a step of all games with this many updates and acting passes."""
    engine, batch = _engine_and_batch(config, size, num_actions, torch.device("cpu"))
    learner = engine.learner
    counted, _ = _engine_and_batch(_by_operations(config), size, num_actions, torch.device("cpu"))
    obs = torch.zeros(config.envs, *config.env.obs_shape.obs, dtype=torch.uint8)
    counted.learner.online.redraw_noise(torch.Generator())
    with torch.inference_mode():
        acting = count_flops(lambda: counted.learner.online.q_values(obs))
    flops = updates * count_flops(lambda: counted.move(batch)) + passes * acting / config.envs
    updating = updates * (_update_bytes(learner) + tensor_bytes(batch))
    weights = passes * tensor_bytes(learner.online.parameters()) / config.envs
    return Cost(flops, updating + weights + math.prod(config.env.obs_shape.obs))


def _rollout_settings(config: TrainConfig) -> PQNConfig:
    assert isinstance(config.algo, PQNConfig)
    return config.algo


def _rollout_cycle_steps(config: TrainConfig) -> int:
    return config.envs * _rollout_settings(config).rollout_steps


def _rollout_batch_size(config: TrainConfig) -> int:
    return _rollout_cycle_steps(config) // _rollout_settings(config).minibatches


def _rollout_update(config: TrainConfig, num_actions: int, device: torch.device) -> Update:
    return _update(config, _rollout_batch_size(config), num_actions, device)


def _rollout_step_cost(config: TrainConfig, num_actions: int) -> Cost:
    """The updates of a rollout over its steps, acting and one more pass for the last values, the observation stored."""
    algo = _rollout_settings(config)
    updates = algo.epochs * algo.minibatches / _rollout_cycle_steps(config)
    passes = 1 + 1 / algo.rollout_steps
    cost = _step_cost(config, _rollout_batch_size(config), updates, passes, num_actions)
    return cost._replace(bytes=cost.bytes + math.prod(config.env.obs_shape.obs))


_REPLAY = Workload(_replay_at_once, _replay_cycle_steps, _replay_warm_up_steps, _replay_update, _replay_step_cost)
_ROLLOUT = Workload(_with_last_epsilon, _rollout_cycle_steps, _rollout_cycle_steps, _rollout_update, _rollout_step_cost)
