"""Temporal-difference errors of Q-learning, and penalties on them."""

import torch
from torch import Tensor

from pixelq.losses.checks import check_tensors

__all__ = [
    "double_q_learning",
    "huber",
    "log_policy",
    "munchausen_bonus",
    "munchausen_q_learning",
    "q_learning",
    "soft_value",
    "squared",
]


def q_learning(q_tm1: Tensor, a_tm1: Tensor, r_t: Tensor, discount_t: Tensor, q_t: Tensor) -> Tensor:
    """Temporal-difference error of Q-learning, `r + discount · max_a q_t − q_tm1[a]`.

    Args:
        q_tm1: [B, A] values at the time of the action.
        a_tm1: [B] int64 actions taken.
        r_t: [B] rewards that followed.
        discount_t: [B] discounts, 0 where the episode terminated.
        q_t: [B, A] values at the next time, of the target network; no gradient flows into them.

    Returns:
        [B] errors, differentiable in `q_tm1`.

    Raises:
        ValueError: an argument of another rank or size.
        TypeError: an argument of another dtype.

    Source: Watkins & Dayan 1992, "Q-learning", eq. 1; with a target network Mnih et al. 2015, "Human-level control
    through deep reinforcement learning", eq. 2 (https://www.nature.com/articles/nature14236).
    """
    check_tensors(
        q_tm1=(q_tm1, "B A"),
        a_tm1=(a_tm1, "int64 B"),
        r_t=(r_t, "B"),
        discount_t=(discount_t, "B"),
        q_t=(q_t, "B A"),
    )
    target_tm1 = r_t + discount_t * q_t.amax(dim=1)
    return target_tm1.detach() - _chosen(q_tm1, a_tm1)


def double_q_learning(
    q_tm1: Tensor, a_tm1: Tensor, r_t: Tensor, discount_t: Tensor, q_t_value: Tensor, q_t_selector: Tensor
) -> Tensor:
    """Temporal-difference error of double Q-learning, `r + discount · q_t_value[argmax_a q_t_selector] − q_tm1[a]`.

    Args:
        q_tm1: [B, A] values at the time of the action.
        a_tm1: [B] int64 actions taken.
        r_t: [B] rewards that followed.
        discount_t: [B] discounts, 0 where the episode terminated.
        q_t_value: [B, A] values at the next time, of the target network; no gradient flows into them.
        q_t_selector: [B, A] values at the next time, of the online network, that choose the action; without gradient.

    Returns:
        [B] errors, differentiable in `q_tm1`.

    Raises:
        ValueError: an argument of another rank or size.
        TypeError: an argument of another dtype.

    Source: van Hasselt et al. 2016, "Deep Reinforcement Learning with Double Q-learning", eq. 4 with the target
    network as second estimator (https://arxiv.org/abs/1509.06461).
    """
    check_tensors(
        q_tm1=(q_tm1, "B A"),
        a_tm1=(a_tm1, "int64 B"),
        r_t=(r_t, "B"),
        discount_t=(discount_t, "B"),
        q_t_value=(q_t_value, "B A"),
        q_t_selector=(q_t_selector, "B A"),
    )
    target_tm1 = r_t + discount_t * _chosen(q_t_value, q_t_selector.argmax(dim=1))
    return target_tm1.detach() - _chosen(q_tm1, a_tm1)


def log_policy(q: Tensor, temperature: float) -> Tensor:
    """Logarithms of the softmax policy, `log softmax(q / temperature)`.

    Args:
        q: [..., A] values; for a distributional network their means.
        temperature: τ, in units of value.

    Returns:
        [..., A] log-probabilities.

    Raises:
        ValueError: a temperature that is not positive.

    Source: Vieillard et al. 2020, "Munchausen Reinforcement Learning", section 2 (https://arxiv.org/abs/2007.14430).
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}: must be above 0")
    # subtract the largest before the division: q / τ is large, and its rounding would hide small action gaps
    return torch.log_softmax((q - q.amax(dim=-1, keepdim=True)) / temperature, dim=-1)


def soft_value(q: Tensor, log_pi: Tensor, temperature: float) -> Tensor:
    """Value of a policy with its entropy, `Σ_a π(a) (q(a) − temperature · log π(a))`.

    Args:
        q: [..., A] values, or quantiles of values.
        log_pi: [..., A] log-probabilities, broadcast against `q`.
        temperature: τ, in units of value.

    Returns:
        [...] values.

    Source: Vieillard et al. 2020, eq. 1.
    """
    return (log_pi.exp() * (q - temperature * log_pi)).sum(dim=-1)


def munchausen_bonus(q_tm1_target: Tensor, a_tm1: Tensor, temperature: float, alpha: float, clip: float) -> Tensor:
    """Munchausen's addition to the reward, `alpha · clip(temperature · log π(a_tm1), clip, 0)`.

    Args:
        q_tm1_target: [B, A] values of the target network at the time of the action.
        a_tm1: [B] int64 actions taken.
        temperature: τ, in units of value.
        alpha: the share of the scaled log-policy in the reward.
        clip: l₀, in units of value, at most 0: the lowest scaled log-policy.

    Returns:
        [B] bonuses, none of them positive if `alpha` is not negative.

    Raises:
        ValueError: an argument of another rank or size, a temperature that is not positive, or a positive `clip`.
        TypeError: an argument of another dtype.

    Source: Vieillard et al. 2020, eq. 2, with the clipping of section 4.
    """
    check_tensors(q_tm1_target=(q_tm1_target, "B A"), a_tm1=(a_tm1, "int64 B"))
    if not clip <= 0:
        raise ValueError(f"clip is {clip}: must be at most 0")
    log_pi_a_tm1 = _chosen(log_policy(q_tm1_target, temperature), a_tm1)
    return alpha * (temperature * log_pi_a_tm1).clamp(clip, 0)


def munchausen_q_learning(
    q_tm1: Tensor,
    a_tm1: Tensor,
    r_t: Tensor,
    discount_t: Tensor,
    q_t: Tensor,
    q_tm1_target: Tensor,
    temperature: float,
    alpha: float,
    clip: float,
) -> Tensor:
    """Temporal-difference error of Munchausen Q-learning, `r + bonus + discount · soft value of q_t − q_tm1[a]`.

    Args:
        q_tm1: [B, A] values at the time of the action.
        a_tm1: [B] int64 actions taken.
        r_t: [B] rewards that followed.
        discount_t: [B] discounts, 0 where the episode terminated.
        q_t: [B, A] values at the next time, of the target network; no gradient flows into them.
        q_tm1_target: [B, A] values at the time of the action, of the target network; no gradient flows into them.
        temperature: τ of the policy, in units of value.
        alpha: the share of the scaled log-policy in the reward; 0 is soft Q-learning.
        clip: l₀, in units of value, at most 0: the lowest scaled log-policy.

    Returns:
        [B] errors, differentiable in `q_tm1`.

    Raises:
        ValueError: an argument of another rank or size, a temperature that is not positive, or a positive `clip`.
        TypeError: an argument of another dtype.

    Source: Vieillard et al. 2020, eq. 2.
    """
    check_tensors(
        q_tm1=(q_tm1, "B A"),
        a_tm1=(a_tm1, "int64 B"),
        r_t=(r_t, "B"),
        discount_t=(discount_t, "B"),
        q_t=(q_t, "B A"),
        q_tm1_target=(q_tm1_target, "B A"),
    )
    bonus_tm1 = munchausen_bonus(q_tm1_target, a_tm1, temperature, alpha, clip)
    v_t = soft_value(q_t, log_policy(q_t, temperature), temperature)
    target_tm1 = r_t + bonus_tm1 + discount_t * v_t
    return target_tm1.detach() - _chosen(q_tm1, a_tm1)


def huber(error: Tensor, threshold: float = 1.0) -> Tensor:
    """Huber's penalty: half the square within the threshold, linear beyond it.

    Args:
        error: any shape.
        threshold: error at which the square becomes a line; also the slope there.

    Returns:
        The penalty of each error, same shape.

    Source: Huber 1964, "Robust estimation of a location parameter", eq. 2.2; its slope at threshold 1 is the error
    clipping of Mnih et al. 2015, Methods.
    """
    size = error.abs()
    inner = size.clamp(max=threshold)
    return 0.5 * inner.square() + threshold * (size - inner)


def squared(error: Tensor) -> Tensor:
    """The square of each error, same shape (no factor one half)."""
    return error.square()


def _chosen(q: Tensor, action: Tensor) -> Tensor:
    """The value [B] of each row's action [B], from [B, A]."""
    return q.gather(1, action[:, None]).squeeze(1)
