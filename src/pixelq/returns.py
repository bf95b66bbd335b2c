"""Returns of sequences of steps, [T, B]: targets, so no gradient flows through them."""

import torch
from torch import Tensor

from pixelq.losses.checks import check_tensors

__all__ = ["lambda_returns", "n_step_return"]


def n_step_return(r_t: Tensor, discount_t: Tensor, v_t: Tensor, n: int) -> Tensor:
    """Up to n rewards and the value after them, `r_t + d_t · (r_{t+1} + d_{t+1} · (… + d_{t+n−1} · v_{t+n−1}))`.

    A discount of 0 ends the sum: nothing after that step counts. Where fewer than n steps are left, they are summed
    and the last value follows them. To end the sum at a step t that truncated the game, with that step's own value,
    add `discount_t · v_t` to its reward and pass a discount of 0.

    Args:
        r_t: [T, B] rewards of consecutive steps.
        discount_t: [T, B] discounts of one step each, 0 where the episode terminated.
        v_t: [T, B] values; `v_t[t]` belongs to the observation after step t.
        n: steps to sum, at least 1.

    Returns:
        [T, B] returns, without gradient.

    Raises:
        ValueError: an argument of another rank or size, or n below 1.
        TypeError: an argument of another dtype.

    Source: Sutton & Barto 2018, "Reinforcement Learning", eq. 7.1.
    """
    check_tensors(r_t=(r_t, "T B"), discount_t=(discount_t, "T B"), v_t=(v_t, "T B"))
    if n < 1:
        raise ValueError(f"n is {n}: must be at least 1")
    r_t, discount_t, v_t = r_t.detach(), discount_t.detach(), v_t.detach()
    returns = r_t + discount_t * v_t
    for _ in range(n - 1):
        returns = r_t + discount_t * torch.cat([returns[1:], v_t[-1:]])
    return returns


def lambda_returns(r_t: Tensor, discount_t: Tensor, v_t: Tensor, lambda_: float | Tensor) -> Tensor:
    """Mixtures of all n-step returns, `G_t = r_t + discount_t · ((1 − λ_t) · v_t + λ_t · G_{t+1})`.

    After the last step the sum ends with `G_T = v_{T−1}`. A discount of 0 ends a sum without a value; a λ of 0
    ends it with the value of the observation after that step, as a truncation needs.

    Args:
        r_t: [T, B] rewards of consecutive steps.
        discount_t: [T, B] discounts of one step each, 0 where the episode terminated.
        v_t: [T, B] values; `v_t[t]` belongs to the observation after step t.
        lambda_: λ in [0, 1], one for all steps or [T, B]; 0 at a truncation.

    Returns:
        [T, B] returns, without gradient.

    Raises:
        ValueError: an argument of another rank or size, or a λ beyond [0, 1] that is one for all steps.
        TypeError: an argument of another dtype.

    Source: Sutton & Barto 2018, "Reinforcement Learning", eq. 12.18; for Q-learning without replay Gallici et
    al. 2024, "Simplifying Deep Temporal Difference Learning" (https://arxiv.org/abs/2407.04811).
    """
    if not isinstance(lambda_, Tensor) and not 0 <= lambda_ <= 1:
        raise ValueError(f"lambda_ is {lambda_}: must be from 0 to 1")
    lambda_t = lambda_ if isinstance(lambda_, Tensor) else torch.full_like(r_t, lambda_)
    check_tensors(r_t=(r_t, "T B"), discount_t=(discount_t, "T B"), v_t=(v_t, "T B"), lambda_=(lambda_t, "T B"))
    r_t, discount_t, v_t, lambda_t = r_t.detach(), discount_t.detach(), v_t.detach(), lambda_t.detach()
    one_step_t = r_t + discount_t * (1 - lambda_t) * v_t
    carried_t = discount_t * lambda_t
    returns, later = [], v_t[-1]
    for t in reversed(range(len(r_t))):
        later = one_step_t[t] + carried_t[t] * later
        returns.append(later)
    return torch.stack(returns[::-1])
