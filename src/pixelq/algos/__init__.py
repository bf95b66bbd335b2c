"""Algorithms: each a config class, a network to make and a loss; `ALGOS` holds them by the config's class."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from torch import Generator

from pixelq.algos import c51, dqn, iqn, munchausen, pqn, qr
from pixelq.config import (
    C51Config,
    DQNConfig,
    IQNConfig,
    MunchausenConfig,
    NetworkConfig,
    ObsShape,
    PQNConfig,
    QRConfig,
)
from pixelq.errors import ConfigError
from pixelq.networks import Network, QNetwork, make_network
from pixelq.types import LossOutput

__all__ = ["ALGOS", "Algo", "algo_of"]


class Algo(NamedTuple):
    """The parts of an algorithm; `config` below is an instance of its config class."""

    make_network: Callable[[NetworkConfig, Any, int, Generator | None, ObsShape], QNetwork]
    """From network, config, actions, random generator and the shape of observations."""
    loss: Callable[[Any, Network, Network, Any, Generator], LossOutput]  # config, online, target, batch, generator
    memory: Literal["replay", "rollout"] = "replay"  # source of its batches; it decides the training loop
    draws: bool = False  # whether its loss draws random numbers, apart from noisy layers


def _values(
    network: NetworkConfig, config: Any, num_actions: int, generator: Generator | None, shape: ObsShape
) -> QNetwork:
    """A network of values [B, A]."""
    del config
    return make_network(network, num_actions, generator, shape)


ALGOS: dict[type, Algo] = {
    DQNConfig: Algo(_values, dqn.loss),
    MunchausenConfig: Algo(_values, munchausen.loss),
    C51Config: Algo(c51.make_network, c51.loss),
    QRConfig: Algo(qr.make_network, qr.loss),
    IQNConfig: Algo(iqn.make_network, iqn.loss, draws=True),
    PQNConfig: Algo(_values, pqn.loss, memory="rollout"),
}


def algo_of(config: object) -> Algo:
    """The algorithm of a config, by its class.

    Raises:
        ConfigError: the class is not in `ALGOS`.
    """
    if type(config) not in ALGOS:
        raise ConfigError(f"{type(config).__name__} is not in pixelq.algos.ALGOS: add its network and its loss there")
    return ALGOS[type(config)]
