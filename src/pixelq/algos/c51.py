"""Categorical distributional Q-learning (Bellemare et al. 2017)."""

import torch

from pixelq.algos.choices import next_values
from pixelq.config import C51Config, NetworkConfig, ObsShape
from pixelq.losses import categorical
from pixelq.networks import CategoricalHead, Network, QNetwork, make_categorical_network
from pixelq.types import Batch, LossOutput

__all__ = ["loss", "make_network"]


def make_network(
    network: NetworkConfig, config: C51Config, num_actions: int, generator: torch.Generator | None, shape: ObsShape
) -> QNetwork:
    """A network of logits [B, A, atoms]."""
    return make_categorical_network(network, num_actions, config.atoms, config.v_min, config.v_max, generator, shape)


def loss(config: C51Config, online: Network, target: Network, batch: Batch, generator: torch.Generator) -> LossOutput:
    """Loss of a batch, per sample.

    Args:
        config: double or not.
        online: the network that learns.
        target: the network that gives the target distribution.
        batch: transitions.
        generator: source of the noise of noisy layers.

    Returns:
        Cross-entropies [B], the online values [B, A], and the cross-entropies [B] again as the errors' size.

    Source: Bellemare et al. 2017, "A distributional perspective on reinforcement learning", Algorithm 1; the loss as
    priority: Hessel et al. 2018, "Rainbow", section 3.
    """
    with torch.no_grad():
        target.redraw_noise(generator)
        logits_t = target(batch.obs_t)
    assert isinstance(online.head, CategoricalHead)
    atoms = online.head.atoms
    selector = next_values(online, batch, generator) if config.double else None
    online.redraw_noise(generator)
    logits_tm1 = online(batch.obs_tm1)
    step = (atoms, logits_tm1, batch.a_tm1, batch.r_t, batch.discount_t, atoms, logits_t)
    if selector is None:
        losses = categorical.categorical_q_learning(*step)
    else:
        losses = categorical.categorical_double_q_learning(*step, selector)
    q_tm1 = (logits_tm1.detach().softmax(dim=2) * atoms).sum(dim=2)
    return LossOutput(losses, q_tm1, losses.detach())
