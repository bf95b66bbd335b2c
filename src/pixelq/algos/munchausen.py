"""Munchausen DQN (Vieillard et al. 2020)."""

import torch

from pixelq.algos.choices import PENALTIES
from pixelq.config import MunchausenConfig
from pixelq.losses import td
from pixelq.networks import Network
from pixelq.types import Batch, LossOutput

__all__ = ["loss"]


def loss(
    config: MunchausenConfig, online: Network, target: Network, batch: Batch, generator: torch.Generator
) -> LossOutput:
    """Loss of a batch, per sample.

    Args:
        config: temperature, scale and clip of the log-policy, the penalty.
        online: the network that learns.
        target: the network that gives the softmax policy.
        batch: transitions.
        generator: source of the noise of noisy layers.

    Returns:
        Losses [B], the online values [B, A] and the temporal-difference errors [B].

    Source: Vieillard et al. 2020, "Munchausen reinforcement learning", eq. 2.
    """
    with torch.no_grad():
        target.redraw_noise(generator)
        q_t, q_tm1_target = target.q_values(batch.obs_t, batch.obs_tm1).chunk(2)
    online.redraw_noise(generator)
    q_tm1 = online.q_values(batch.obs_tm1)
    error = td.munchausen_q_learning(
        q_tm1,
        batch.a_tm1,
        batch.r_t,
        batch.discount_t,
        q_t,
        q_tm1_target,
        config.munchausen_temperature,
        config.munchausen_alpha,
        config.munchausen_clip,
    )
    return LossOutput(PENALTIES[config.loss](error), q_tm1.detach(), error.detach())
