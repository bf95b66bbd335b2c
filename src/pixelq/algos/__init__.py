"""Algorithms: each a config class, a network to make and a loss; `ALGOS` finds them by the config's class."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Generator

from pixelq.algos import dqn
from pixelq.config import AlgoConfig, DQNConfig, NetworkConfig
from pixelq.networks import QNetwork, make_network
from pixelq.types import Batch, LossOutput

__all__ = ["ALGOS", "Algo"]


class Algo(NamedTuple):
    """What an algorithm brings."""

    name: str
    make_network: Callable[[NetworkConfig, int, Generator | None], QNetwork]
    loss: Callable[[AlgoConfig, QNetwork, QNetwork, Batch], LossOutput]  # config, online, target, batch


ALGOS: dict[type[AlgoConfig], Algo] = {
    DQNConfig: Algo("dqn", make_network, dqn.loss),
}
