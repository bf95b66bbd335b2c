"""Deep Q-learning with a target network (Mnih et al. 2015)."""

import torch

from pixelq.algos.choices import PENALTIES, next_values
from pixelq.config import DQNConfig
from pixelq.losses import td
from pixelq.networks import Network
from pixelq.types import Batch, LossOutput

__all__ = ["loss"]


def loss(config: DQNConfig, online: Network, target: Network, batch: Batch, generator: torch.Generator) -> LossOutput:
    """Loss of a batch, per sample.

    Args:
        config: double or not, the penalty, and the terminal quirk of the Keras example.
        online: the network that learns.
        target: the network that gives the target values.
        batch: transitions.
        generator: source of the noise of noisy layers.

    Returns:
        Losses [B], the online values [B, A] and the temporal-difference errors [B].

    Source: Mnih et al. 2015, Methods, Algorithm 1; double: van Hasselt et al. 2016, "Deep reinforcement learning with
    double Q-learning", eq. 4.
    """
    with torch.no_grad():
        target.redraw_noise(generator)
        q_t = target.q_values(batch.obs_t)
        q_t_selector = next_values(online, batch, generator) if config.double else None
    online.redraw_noise(generator)
    q_tm1 = online.q_values(batch.obs_tm1)
    r_t = batch.r_t
    if config.terminal_target is not None:
        # `updated * (1 − done) − done` in the notebook: the target itself; the last reward is dropped
        r_t = r_t.masked_fill(batch.discount_t == 0, config.terminal_target)
    if q_t_selector is None:
        error = td.q_learning(q_tm1, batch.a_tm1, r_t, batch.discount_t, q_t)
    else:
        error = td.double_q_learning(q_tm1, batch.a_tm1, r_t, batch.discount_t, q_t, q_t_selector)
    return LossOutput(PENALTIES[config.loss](error), q_tm1.detach(), error.detach())
