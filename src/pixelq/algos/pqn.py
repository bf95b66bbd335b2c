"""Parallelised Q-network (Gallici et al. 2024): regression on λ-returns of fresh rollouts."""

import torch

from pixelq.algos.choices import PENALTIES
from pixelq.config import PQNConfig
from pixelq.networks import Network
from pixelq.returns import lambda_returns
from pixelq.types import LossOutput, Rollout, RolloutBatch

__all__ = ["loss", "returns"]


@torch.no_grad()
def returns(config: PQNConfig, rollout: Rollout) -> torch.Tensor:
    """The target of every step of a rollout: Q(λ), cut where an episode ends, bootstrapped where it is truncated.

    Args:
        config: γ and λ.
        rollout: T steps of N games.

    Returns:
        [T, N] float32; meaningless where the action was ignored.

    Source: Gallici et al. 2024, "Simplifying deep temporal difference learning", section 4.1; Peng & Williams 1996.
    """
    discount_t = config.gamma * (~rollout.terminated_t).float()
    # the step after a game was cut off belongs to another game
    trace_t = config.trace_decay * (~rollout.truncated_t).float()
    return lambda_returns(rollout.r_t, discount_t, rollout.v_t, trace_t)


def loss(
    config: PQNConfig, online: Network, target: Network, batch: RolloutBatch, generator: torch.Generator
) -> LossOutput:
    """Loss of a part of a rollout, per sample.

    Args:
        config: the penalty.
        online: the network that learns.
        target: the same network.
        batch: steps with the returns they are to learn.
        generator: source of the noise of noisy layers.

    Returns:
        Losses [B], the online values [B, A] and the errors [B].

    Source: Gallici et al. 2024, Algorithm 1.
    """
    del target
    online.redraw_noise(generator)
    q_tm1 = online.q_values(batch.obs_tm1)
    error = batch.return_t - q_tm1.gather(1, batch.a_tm1[:, None]).squeeze(1)
    return LossOutput(PENALTIES[config.loss](error), q_tm1.detach(), error.detach())
