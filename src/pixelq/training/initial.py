"""A run's first weights from an agent, and what to change if they do not fit."""

import dataclasses
from typing import Any

from pixelq.agent import AgentCard, load_agent
from pixelq.algos import algo_of
from pixelq.config import NetworkConfig
from pixelq.config.algos import kind_of
from pixelq.errors import PixelqError
from pixelq.networks import QNetwork
from pixelq.training.parts import Parts

__all__ = ["load_initial"]

_SHAPELESS = {"init", "noisy_sigma"}  # settings of a network that weights do not show


def load_initial(parts: Parts, init: str) -> None:
    """Give a fresh run the weights of an agent.

    Args:
        parts: the run, at step 0.
        init: the agent: a name, a file or a run directory.

    Raises:
        PixelqError: there is no such agent, or its network or its actions are not this run's; says which.
    """
    agent = load_agent(init)
    if agent.action_meanings != parts.envs.action_meanings:
        ours, theirs = (" ".join(names) for names in (parts.envs.action_meanings, agent.action_meanings))
        raise PixelqError(f"--init {init}: it plays {agent.card.game} with the actions {theirs}; this run has {ours}")
    if not isinstance(agent.network, QNetwork):
        raise PixelqError(f"--init {init}: an ONNX file's weights cannot be learned on; give a .safetensors file")
    weights = dict(agent.network.state_dict())
    wanted = {name: tensor.shape for name, tensor in parts.learner.weights().items()}
    if {name: tensor.shape for name, tensor in weights.items()} != wanted:
        raise PixelqError(f"--init {init}: {_difference(agent.card, parts)}")
    parts.learner.load_weights(weights)


def _difference(card: AgentCard, parts: Parts) -> str:
    """Why an agent's weights do not fit, and the options with which they would."""
    theirs, ours = _network(card.network), _network(parts.config.network)
    options = [_option(name, value) for name, value in theirs.items() if value != ours[name]]
    reasons = [f"its network is made with {' '.join(options)}"] if options else []
    if algo_of(card.algo).make_network is not algo_of(parts.config.algo).make_network:
        kinds = kind_of(card.algo), kind_of(parts.config.algo)
        reasons.append(f"it comes from the preset {card.preset} ({kinds[0]}), this run's algorithm is {kinds[1]}")
    elif not options:
        reasons.append(f"it is of {card.algo}, this run of {parts.config.algo}")
    return "; ".join(reasons) + "; begin with the same"


def _network(config: NetworkConfig) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in _SHAPELESS}


def _option(name: str, value: Any) -> str:
    """A setting of the network, as a command-line option."""
    word = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--network.{word}" if value else f"--network.no-{word}"
    words = [str(part) for part in value] if isinstance(value, tuple | list) else [str(value)]
    return " ".join([f"--network.{word}", *words])
