"""An agent's network as one function, bytes to values, in operations that every runtime has."""

import copy

import torch
from torch import Tensor, nn

from pixelq.agent import Agent
from pixelq.errors import PixelqError
from pixelq.networks import QNetwork

__all__ = ["PlainValues", "plain_values"]


class PlainValues(nn.Module):
    """Action values from bytes, with the scaling inside and noise off.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: QNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, obs: Tensor) -> Tensor:
        """[B, planes, H, W] uint8 to [B, A] float32."""
        return self.network.q_values(obs)


class _FixedMaxPool(nn.Module):
    """`nn.AdaptiveMaxPool2d` as maxima of slices: ONNX has no operator of that name.

    Args:
        size: rows and columns of the result.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, planes: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C, size, size]."""
        for axis in (2, 3):
            length = planes.shape[axis]
            edges = [(i * length // self.size, -(-(i + 1) * length // self.size)) for i in range(self.size)]
            planes = torch.stack([planes.narrow(axis, a, b - a).amax(axis) for a, b in edges], axis)
        return planes


def plain_values(agent: Agent) -> tuple[PlainValues, Tensor]:
    """A copy of an agent's network for an exporter.

    Args:
        agent: with a network that has weights.

    Returns:
        The module, on the CPU and in evaluation mode; and observations [2, planes, H, W] to trace it with.

    Raises:
        PixelqError: the agent came from an ONNX file.
    """
    if not isinstance(agent.network, QNetwork):
        raise PixelqError("an agent from an ONNX file is exported already: give its run or its .safetensors file")
    network = copy.deepcopy(agent.network).cpu().eval().requires_grad_(False)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.AdaptiveMaxPool2d):
                assert isinstance(child.output_size, int)
                setattr(parent, name, _FixedMaxPool(child.output_size))
    return PlainValues(network).eval(), torch.zeros((2, *agent.obs_shape), dtype=torch.uint8)
