"""The Q-network as a whole, built from its config."""

import torch
from torch import Tensor, nn

from pixelq.config import NetworkConfig
from pixelq.networks.heads import LinearHead
from pixelq.networks.torsos import NatureTorso

__all__ = ["QNetwork", "make_network"]


class QNetwork(nn.Module):
    """Action values of stacks of four planes.

    Args:
        torso: [B, 4, 84, 84] in 0…1 to [B, F].
        head: [B, F] to [B, A].
    """

    def __init__(self, torso: NatureTorso, head: LinearHead) -> None:
        super().__init__()
        self.torso = torso
        self.head = head

    @property
    def num_actions(self) -> int:
        """Number of actions A."""
        return self.head.output.out_features

    @property
    def compute_dtype(self) -> torch.dtype:
        """The type that the torso computes in."""
        return self.head.hidden.weight.dtype

    def forward(self, obs: Tensor) -> Tensor:
        """Values of all actions.

        Args:
            obs: [B, 4, 84, 84] uint8; divided by 255 here and nowhere else.

        Returns:
            [B, A] float32.
        """
        pixels = obs.to(self.compute_dtype, memory_format=torch.channels_last).div_(255)
        values: Tensor = self.head(self.torso(pixels))
        return values

    def q_values(self, obs: Tensor) -> Tensor:
        """Expected return of each action, [B, 4, 84, 84] uint8 to [B, A] float32; every network offers it."""
        values: Tensor = self(obs)
        return values

    def lower_precision(self, dtype: torch.dtype) -> None:
        """Let torso and dense layer compute in `dtype`; the output layer stays float32."""
        self.torso.to(dtype)
        self.head.hidden.to(dtype)


def make_network(config: NetworkConfig, num_actions: int, generator: torch.Generator | None = None) -> QNetwork:
    """Build a network on the CPU with fresh weights.

    Args:
        config: its sizes and its initial weights.
        num_actions: outputs.
        generator: source of the weights; None: torch's global one.

    Returns:
        The network, float32, convolutions stored channels-last.
    """
    torso = NatureTorso(config.channels)
    network = QNetwork(torso, LinearHead(torso.features, config.hidden, num_actions))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            _initialise(module, config.init, generator)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _initialise(layer: nn.Conv2d | nn.Linear, init: str, generator: torch.Generator | None) -> None:
    assert layer.bias is not None
    if init == "glorot_uniform":
        nn.init.xavier_uniform_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
        return
    # PyTorch's own default, drawn from an explicit generator: both uniform within 1/√fan_in
    bound = layer.weight[0].numel() ** -0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
