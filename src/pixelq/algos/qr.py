"""Quantile-regression DQN (Dabney et al. 2018)."""

import torch

from pixelq.algos.choices import next_values
from pixelq.config import NetworkConfig, ObsShape, QRConfig
from pixelq.losses import quantile
from pixelq.networks import Network, QNetwork, make_quantile_network
from pixelq.types import Batch, LossOutput

__all__ = ["loss", "make_network"]


def make_network(
    network: NetworkConfig, config: QRConfig, num_actions: int, generator: torch.Generator | None, shape: ObsShape
) -> QNetwork:
    """A network of quantiles [B, N, A]."""
    return make_quantile_network(network, num_actions, config.quantiles, generator, shape)


def loss(config: QRConfig, online: Network, target: Network, batch: Batch, generator: torch.Generator) -> LossOutput:
    """Loss of a batch, per sample.

    Args:
        config: double or not, the threshold κ.
        online: the network that learns.
        target: the network that gives the target quantiles.
        batch: transitions.
        generator: source of the noise of noisy layers.

    Returns:
        Losses [B], the online values [B, A], and the losses [B] again as the errors' size.

    Source: Dabney et al. 2018, "Distributional reinforcement learning with quantile regression", Algorithm 1.
    """
    with torch.no_grad():
        target.redraw_noise(generator)
        quantiles_t = target(batch.obs_t)
    # a selector [B, 1, A] is a distribution of one quantile
    selector = next_values(online, batch, generator)[:, None] if config.double else quantiles_t
    online.redraw_noise(generator)
    quantiles_tm1 = online(batch.obs_tm1)
    midpoints = (torch.arange(config.quantiles, device=quantiles_tm1.device) + 0.5) / config.quantiles
    losses = quantile.quantile_q_learning(
        quantiles_tm1,
        midpoints.expand(len(quantiles_tm1), -1),
        batch.a_tm1,
        batch.r_t,
        batch.discount_t,
        selector,
        quantiles_t,
        config.kappa,
    )
    return LossOutput(losses, quantiles_tm1.detach().mean(dim=1), losses.detach())
