"""Losses of value distributions given by quantiles (QR-DQN, IQN, and the latter with Munchausen)."""

import torch
from torch import Tensor
from torch.nn import functional

from pixelq.losses.checks import check_tensors
from pixelq.losses.td import log_policy, munchausen_bonus, soft_value

__all__ = ["munchausen_quantile_q_learning", "quantile_q_learning", "quantile_regression"]


def quantile_regression(dist: Tensor, tau: Tensor, target: Tensor, huber_param: float = 1.0) -> Tensor:
    """Quantile Huber loss of every quantile against every sample, summed over quantiles, averaged over samples.

    Args:
        dist: [B, N] quantiles.
        tau: [B, N] the share of the target below each quantile, in (0, 1); no gradient flows into it.
        target: [B, M] samples or quantiles of the target; no gradient flows into it.
        huber_param: κ: beyond it the square becomes a line; the penalty is divided by κ. 0: the plain quantile loss.

    Returns:
        [B] losses, differentiable in `dist`.

    Raises:
        ValueError: an argument of another rank or size, or a negative κ.
        TypeError: an argument of another dtype.

    Source: Dabney et al. 2018, "Distributional Reinforcement Learning with Quantile Regression", eqs. 8–10 and
    Algorithm 1 (https://arxiv.org/abs/1710.10044); divided by κ as in Dabney et al. 2018, "Implicit Quantile Networks
    for Distributional Reinforcement Learning", eq. 3 (https://arxiv.org/abs/1806.06923).
    """
    check_tensors(dist=(dist, "B N"), tau=(tau, "B N"), target=(target, "B M"))
    if not huber_param >= 0:
        raise ValueError(f"huber_param is {huber_param}: must be at least 0")
    tau, target = tau.detach()[:, :, None], target.detach()[:, None, :]
    below = target < dist.detach()[:, :, None]  # [B, N, M]
    weight = torch.where(below, 1 - tau, tau)  # |τ − 1{δ < 0}|
    error = target - dist[:, :, None]
    # one operation forward and one backward on N · M numbers; 200 · 200 a transition for QR-DQN
    penalty = (
        error.abs()
        if huber_param == 0
        else functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=huber_param)
    )
    return (weight * penalty).mean(dim=2).sum(dim=1) / (huber_param or 1.0)


def quantile_q_learning(
    dist_q_tm1: Tensor,
    tau_q_tm1: Tensor,
    a_tm1: Tensor,
    r_t: Tensor,
    discount_t: Tensor,
    dist_q_t_selector: Tensor,
    dist_q_t: Tensor,
    huber_param: float = 1.0,
) -> Tensor:
    """Quantile regression of Q-learning, towards `r + discount · dist_q_t[a]`, with a the action of the greatest mean.

    Args:
        dist_q_tm1: [B, N, A] quantiles at the time of the action.
        tau_q_tm1: [B, N] the share of the return below each quantile; fixed midpoints (QR-DQN) or drawn (IQN).
        a_tm1: [B] int64 actions taken.
        r_t: [B] rewards that followed.
        discount_t: [B] discounts, 0 where the episode terminated.
        dist_q_t_selector: [B, K, A] quantiles at the next time; their mean chooses the action: the target network's,
            or for double Q-learning the online network's; no gradient flows into them.
        dist_q_t: [B, M, A] quantiles at the next time, of the target network; no gradient flows into them.
        huber_param: κ of the quantile Huber loss; 0 is the plain quantile loss.

    Returns:
        [B] losses, differentiable in `dist_q_tm1`.

    Raises:
        ValueError: an argument of another rank or size, or a negative κ.
        TypeError: an argument of another dtype.

    Source: Dabney et al. 2018, QR-DQN, Algorithm 1, and IQN, eq. 3.
    """
    check_tensors(
        dist_q_tm1=(dist_q_tm1, "B N A"),
        tau_q_tm1=(tau_q_tm1, "B N"),
        a_tm1=(a_tm1, "int64 B"),
        r_t=(r_t, "B"),
        discount_t=(discount_t, "B"),
        dist_q_t_selector=(dist_q_t_selector, "B K A"),
        dist_q_t=(dist_q_t, "B M A"),
    )
    a_t = dist_q_t_selector.mean(dim=1).argmax(dim=1)
    target_tm1 = r_t[:, None] + discount_t[:, None] * _chosen(dist_q_t, a_t)  # [B, M]
    return quantile_regression(_chosen(dist_q_tm1, a_tm1), tau_q_tm1, target_tm1, huber_param)


def munchausen_quantile_q_learning(
    dist_q_tm1: Tensor,
    tau_q_tm1: Tensor,
    a_tm1: Tensor,
    r_t: Tensor,
    discount_t: Tensor,
    dist_q_t: Tensor,
    q_tm1_target: Tensor,
    temperature: float,
    alpha: float,
    clip: float,
    huber_param: float = 1.0,
) -> Tensor:
    """Quantile regression of Munchausen Q-learning, with policies from the means over quantiles.

    Args:
        dist_q_tm1: [B, N, A] quantiles at the time of the action.
        tau_q_tm1: [B, N] the share of the return below each quantile.
        a_tm1: [B] int64 actions taken.
        r_t: [B] rewards that followed.
        discount_t: [B] discounts, 0 where the episode terminated.
        dist_q_t: [B, M, A] quantiles at the next time, of the target network; no gradient flows into them.
        q_tm1_target: [B, A] mean values at the time of the action, of the target network; no gradient flows into them.
        temperature: τ of the policies, in units of value.
        alpha: the share of the scaled log-policy in the reward.
        clip: l₀, in units of value, at most 0: the lowest scaled log-policy.
        huber_param: κ of the quantile Huber loss; 0 is the plain quantile loss.

    Returns:
        [B] losses, differentiable in `dist_q_tm1`.

    Raises:
        ValueError: an argument of another rank or size, a temperature that is not positive, a positive `clip`, or a
            negative κ.
        TypeError: an argument of another dtype.

    Source: Vieillard et al. 2020, "Munchausen Reinforcement Learning", M-IQN in section 4 and appendix B
    (https://arxiv.org/abs/2007.14430); part of Clark et al. 2024, "Beyond The Rainbow"
    (https://arxiv.org/abs/2411.03820).
    """
    check_tensors(
        dist_q_tm1=(dist_q_tm1, "B N A"),
        tau_q_tm1=(tau_q_tm1, "B N"),
        a_tm1=(a_tm1, "int64 B"),
        r_t=(r_t, "B"),
        discount_t=(discount_t, "B"),
        dist_q_t=(dist_q_t, "B M A"),
        q_tm1_target=(q_tm1_target, "B A"),
    )
    bonus_tm1 = munchausen_bonus(q_tm1_target, a_tm1, temperature, alpha, clip)
    log_pi_t = log_policy(dist_q_t.mean(dim=1), temperature)  # [B, A]
    dist_v_t = soft_value(dist_q_t, log_pi_t[:, None, :], temperature)  # [B, M]
    target_tm1 = (r_t + bonus_tm1)[:, None] + discount_t[:, None] * dist_v_t
    return quantile_regression(_chosen(dist_q_tm1, a_tm1), tau_q_tm1, target_tm1, huber_param)


def _chosen(dist_q: Tensor, action: Tensor) -> Tensor:
    """The quantiles [B, N] of each row's action [B], from [B, N, A]."""
    return dist_q.gather(2, action[:, None, None].expand(-1, dist_q.shape[1], 1)).squeeze(2)
