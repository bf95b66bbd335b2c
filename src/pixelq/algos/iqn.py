"""Implicit quantile networks (Dabney et al. 2018b), optionally with Munchausen targets (Vieillard et al. 2020)."""

import torch
from torch import Tensor

from pixelq.algos.choices import next_values
from pixelq.config import IQNConfig, NetworkConfig, ObsShape
from pixelq.losses import quantile
from pixelq.networks import Network, QNetwork, make_implicit_network
from pixelq.types import Batch, LossOutput

__all__ = ["loss", "make_network"]


def make_network(
    network: NetworkConfig, config: IQNConfig, num_actions: int, generator: torch.Generator | None, shape: ObsShape
) -> QNetwork:
    """A network of quantiles [B, N, A] at given fractions [B, N]."""
    return make_implicit_network(network, num_actions, config.cosines, config.policy_quantiles, generator, shape)


def loss(config: IQNConfig, online: Network, target: Network, batch: Batch, generator: torch.Generator) -> LossOutput:
    """Loss of a batch, per sample.

    Args:
        config: how many fractions, double or not, the threshold κ, Munchausen or not.
        online: the network that learns.
        target: the network that gives the target quantiles.
        batch: transitions.
        generator: source of the fractions τ and of the noise of noisy layers.

    Returns:
        Losses [B], the online values [B, A] at the fractions drawn, and the losses [B] again as the errors' size.

    Source: Dabney et al. 2018, "Implicit quantile networks for distributional reinforcement learning", eqs. 2 and 3;
    Munchausen: Vieillard et al. 2020, section 3.2; both together Clark et al. 2024, "Beyond The Rainbow".
    """
    size = len(batch.a_tm1)
    with torch.no_grad():
        target.redraw_noise(generator)
        tau_t = _fractions(size, config.target_quantiles, batch, generator)
        features_t = target.features(batch.obs_t)
        quantiles_t = target.head(features_t, tau_t)
        # values [B, A]: of the next observation, to choose its action; or of this one, for its log-policy
        if config.munchausen:
            selector = target.q_values(batch.obs_tm1)
        elif config.double:
            selector = next_values(online, batch, generator)
        else:
            selector = target.head.q_values(features_t)
    online.redraw_noise(generator)
    tau_tm1 = _fractions(size, config.quantiles, batch, generator)
    quantiles_tm1 = online(batch.obs_tm1, tau_tm1)
    step = (quantiles_tm1, tau_tm1, batch.a_tm1, batch.r_t, batch.discount_t)
    if config.munchausen:
        losses = quantile.munchausen_quantile_q_learning(
            *step,
            quantiles_t,
            selector,
            config.munchausen_temperature,
            config.munchausen_alpha,
            config.munchausen_clip,
            config.kappa,
        )
    else:
        losses = quantile.quantile_q_learning(*step, selector[:, None], quantiles_t, config.kappa)
    return LossOutput(losses, quantiles_tm1.detach().mean(dim=1), losses.detach())


def _fractions(size: int, count: int, batch: Batch, generator: torch.Generator) -> Tensor:
    """τ ~ U(0, 1), [B, count], drawn on the generator's device."""
    fractions = torch.rand(size, count, generator=generator, device=generator.device)
    return fractions.to(batch.r_t.device, non_blocking=True)
