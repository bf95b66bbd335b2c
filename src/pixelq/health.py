"""Whether a network can still learn: how many units are active, and whether its values distinguish observations."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from pixelq.networks import QNetwork, hidden_activations

__all__ = ["DORMANT", "Health", "dormant_shares", "measure_health"]

DORMANT = 0.025
"""τ of Sokar et al.: units with less than this share of their layer's mean activation are dormant."""
_SILENT = 0.9  # share of a layer's units that are never active
_CONSTANT = 0.95  # share of features that are the same for all observations


class Health(NamedTuple):
    """The result of one check of a network."""

    dead: Mapping[str, float]
    """By layer: the share of units that are 0 for all observations (τ = 0)."""
    dormant: Mapping[str, float]
    """By layer: the share of units at τ = 0.025."""
    constant_features: float
    """The share of the torso's outputs that are the same for all observations."""
    action_gap: float
    """Mean difference between the highest and the second highest action value; 0 with one action."""

    @property
    def dead_layer(self) -> str | None:
        """The silent layer that keeps the network from learning; None if there is none."""
        worst = max(self.dead, key=lambda name: self.dead[name])
        return worst if self.dead[worst] >= _SILENT else None

    @property
    def is_dead(self) -> bool:
        """Whether the network cannot distinguish observations, or a layer is silent."""
        return self.dead_layer is not None or self.constant_features >= _CONSTANT

    def metrics(self) -> dict[str, float]:
        """The figures under the names that metrics have."""
        by_layer = {f"health/dead_{name}": share for name, share in self.dead.items()}
        by_layer |= {f"health/dormant_{name}": share for name, share in self.dormant.items()}
        return by_layer | {
            "health/constant_features": self.constant_features,
            "health/action_gap": self.action_gap,
        }


def dormant_shares(activations: Tensor, *taus: float) -> tuple[float, ...]:
    """The shares of a layer's units with a score of at most τ, for each τ.

    A unit's score is its mean |activation| over the batch, divided by the mean of this over the layer's units. A
    convolution's unit is a filter: its activations are averaged over rows and columns too. Where the whole layer is 0
    all units are dormant.

    Args:
        activations: [B, units] or [B, filters, rows, columns], after the ReLU.
        taus: each at least 0.

    Source: Sokar et al. 2023, "The dormant neuron phenomenon in deep reinforcement learning", eq. 1, definition 3.1.
    """
    other = [dim for dim in range(activations.dim()) if dim != 1]
    size = activations.abs().double().mean(other)
    return tuple(float((size <= tau * size.mean()).double().mean()) for tau in taus)


def measure_health(network: QNetwork, obs: Tensor) -> Health:
    """Check a network's hidden layers on a batch of observations.

    Args:
        network: in evaluation mode, computed by PyTorch's operations.
        obs: [B, planes, height, width] uint8, B ≥ 2.

    Returns:
        Figures in 0…1, the gap in units of value.
    """
    layers, features, values = hidden_activations(network, obs)
    shares = {name: dormant_shares(activations, 0.0, DORMANT) for name, activations in layers.items()}
    best = values.topk(min(2, values.shape[1]), dim=1).values
    return Health(
        dead={name: dead for name, (dead, _) in shares.items()},
        dormant={name: dormant for name, (_, dormant) in shares.items()},
        constant_features=float((features == features[:1]).all(0).double().mean()),
        action_gap=float((best[:, 0] - best[:, -1]).mean()),
    )
