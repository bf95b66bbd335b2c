"""Looks at the network's health at log ticks, and tells when the network has died."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pixelq.algos import algo_of
from pixelq.config import TrainConfig
from pixelq.health import Health, measure_health
from pixelq.networks import QNetwork
from pixelq.replay import ReplayBuffer
from pixelq.replay.samplers import draw_uniform
from pixelq.run.seeding import stream
from pixelq.training.parts import Parts

__all__ = ["HealthWatch"]

_OBSERVATIONS = 64


class HealthWatch:
    """Measures the online network on observations from the run's memory, without touching the run.

    The observations are drawn from a random stream of the step's own, so that looking changes nothing and a resumed run
    sees the same. The network is a twin of the learner's, in float32 and by PyTorch's operations, whatever way the run
    computes.

    Args:
        parts: the run.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._told = False

    def look(self) -> tuple[dict[str, float], str | None]:
        """Metrics by name, and a line to say if the network has died since the last look."""
        weights = self._parts.learner.weights()
        self._twin.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        health = measure_health(self._twin, self._observations())
        dead = health.is_dead and self._parts.learner.updates > 0
        line = _warning(health, self._parts.step, self._parts.config) if dead and not self._told else None
        self._told = dead
        return health.metrics(), line

    @cached_property
    def _twin(self) -> QNetwork:
        parts = self._parts
        num_actions = len(parts.envs.action_meanings)
        config = parts.config
        make_network, shape = algo_of(config.algo).make_network, config.env.obs_shape
        network = make_network(config.network, config.algo, num_actions, torch.Generator(), shape)
        return network.to(parts.device).eval()

    def _observations(self) -> Tensor:
        """[B, planes, height, width] uint8 on the device: from the replay buffer, or from the games if it is empty."""
        parts = self._parts
        generator = stream(parts.config.seed, f"health at step {parts.step}")
        if not isinstance(parts.memory, ReplayBuffer):
            return parts.memory.observations(_OBSERVATIONS, generator)
        try:
            draw = draw_uniform(parts.memory.ring, _OBSERVATIONS, 1, generator)
        except ValueError:  # no transition yet
            return torch.from_numpy(np.ascontiguousarray(parts.obs)).to(parts.device)
        return parts.memory.observations(draw)


def _warning(health: Health, step: int, config: TrainConfig) -> str:
    layer = health.dead_layer
    if layer is None:
        what = f"{health.constant_features:.0%} of its features are the same whatever the screen shows"
    else:
        what = f"{health.dead[layer]:.0%} of the units of {layer} never answer"
    network, remedies = config.network, []
    if config.optimiser.name in ("adam", "keras_adam"):
        remedies.append("--optimiser.name radam")
    remedies += ["a lower --optimiser.learning-rate", "a larger --optimiser.epsilon (1.5e-4)"]
    if network.torso == "nature" and network.init != "centred_orthogonal":
        remedies.append("--network.init centred_orthogonal")
    if network.background == "none":
        remedies.append("--network.background common")
    if network.torso == "nature" and network.norm == "none" and not network.noisy:
        remedies.append("--network.norm dense")
    return (
        f"the network has died at step {step:,}: {what}; it will hardly learn any more. "
        f"Try {', '.join(remedies[:-1])}, or {remedies[-1]}"
    )
