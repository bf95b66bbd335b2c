"""Activations of every hidden layer of a network for a batch of observations."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pixelq.networks.heads import DuelingHead
from pixelq.networks.network import QNetwork
from pixelq.networks.torsos import ImpalaTorso, ResidualBlock

__all__ = ["hidden_activations"]


@torch.no_grad()
def hidden_activations(network: QNetwork, obs: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Run the network once and keep its hidden layers' outputs, after their ReLU.

    Args:
        network: computed by PyTorch's operations, in evaluation mode.
        obs: [B, planes, height, width] uint8.

    Returns:
        Activations by layer name, `conv1`, `conv2`, … and `dense` (`value` and `advantage` in a dueling network), each
        [B, units] or [B, filters, rows, columns]; with several quantiles [B · N, units]; the torso's features [B, F];
        the action values [B, A] float32.
    """
    kept: dict[str, Tensor] = {}
    hooks = [place(partial(_keep, kept, name)) for name, place in _places(network)]
    try:
        features = network.features(obs)
        values = network.head.q_values(features)
    finally:
        for hook in hooks:
            hook.remove()
    return kept, features, values


def _keep(kept: dict[str, Tensor], name: str, module: nn.Module, inputs: Any, output: Tensor | None = None) -> None:
    """A forward hook keeps the output, a forward pre-hook the input."""
    del module
    planes: Tensor = inputs[0] if output is None else output
    kept[name] = planes.relu() if planes.dim() == 4 else planes.relu().flatten(0, -2)


def _places(network: QNetwork) -> list[tuple[str, Callable[..., Any]]]:
    """The layers in order, each with what registers a hook where its activations can be read."""
    torso, body = network.torso, network.head.body
    modules: list[tuple[str, Callable[..., Any]]] = []
    if isinstance(torso, ImpalaTorso):
        blocks = [module for module in torso.modules() if isinstance(module, ResidualBlock)]
        # inside a block the second convolution sees the ReLU of the first
        modules += [(f"block{i}", block.second.register_forward_pre_hook) for i, block in enumerate(blocks, 1)]
        modules += [("features", layer.register_forward_hook) for layer in torso.layers if isinstance(layer, nn.ReLU)]
    else:
        relus = [layer for layer in torso.layers if isinstance(layer, nn.ReLU)]
        modules += [(f"conv{i}", relu.register_forward_hook) for i, relu in enumerate(relus, 1)]
    streams = {"value": body.value, "advantage": body.advantage} if isinstance(body, DuelingHead) else {"dense": body}
    return modules + [(name, stream.norm.register_forward_hook) for name, stream in streams.items()]
