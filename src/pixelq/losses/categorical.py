"""Losses of value distributions on fixed atoms (C51): the target is projected onto them."""

import torch
from torch import Tensor

from pixelq.losses.checks import check_tensors

__all__ = ["categorical_double_q_learning", "categorical_q_learning", "project"]


def project(z_p: Tensor, probs: Tensor, z_q: Tensor) -> Tensor:
    """Project distributions onto other atoms: each atom's mass goes to its two neighbours, more to the nearer one.

    Args:
        z_p: [B, M] places of the mass, in any order; beyond `z_q` the mass goes to its first or last atom.
        probs: [B, M] the mass.
        z_q: [N] increasing atoms, at least two, not necessarily evenly spaced.

    Returns:
        [B, N] the mass on `z_q`; each row has the sum of its `probs`.

    Raises:
        ValueError: an argument of another rank or size, or fewer than two atoms.
        TypeError: an argument of another dtype.

    Source: Bellemare et al. 2017, "A Distributional Perspective on Reinforcement Learning", eq. 7
    (https://arxiv.org/abs/1707.06887).
    """
    check_tensors(z_p=(z_p, "B M"), probs=(probs, "B M"), z_q=(z_q, "N"))
    if z_q.shape[0] < 2:
        raise ValueError(f"z_q has shape {tuple(z_q.shape)}: must have two atoms or more")
    gap = z_q.diff()  # [N − 1]
    above, below = torch.cat([gap, gap[-1:]]), torch.cat([gap[:1], gap])  # [N]; clipped places pass no edge
    from_atom = z_p.clamp(z_q[0], z_q[-1])[:, None, :] - z_q[:, None]  # [B, N, M]
    # an atom's share falls from 1 at the atom to 0 at its neighbours: no floor and ceiling that may coincide,
    # and no scatter, whose order of summation changes on a GPU
    share = 1 - torch.maximum(from_atom / above[:, None], from_atom / -below[:, None])
    return (share.clamp(min=0) * probs[:, None, :]).sum(dim=2)


def categorical_q_learning(
    atoms_tm1: Tensor,
    logits_tm1: Tensor,
    a_tm1: Tensor,
    r_t: Tensor,
    discount_t: Tensor,
    atoms_t: Tensor,
    logits_t: Tensor,
) -> Tensor:
    """Cross-entropy of categorical Q-learning; the next action has the target's greatest mean.

    Args:
        atoms_tm1: [N] increasing atoms of `logits_tm1`.
        logits_tm1: [B, A, N] distributions at the time of the action.
        a_tm1: [B] int64 actions taken.
        r_t: [B] rewards that followed.
        discount_t: [B] discounts, 0 where the episode terminated.
        atoms_t: [M] atoms of `logits_t`, usually the same.
        logits_t: [B, A, M] distributions at the next time, of the target network; no gradient flows into them.

    Returns:
        [B] losses, differentiable in `logits_tm1`.

    Raises:
        ValueError: an argument of another rank or size, or fewer than two atoms.
        TypeError: an argument of another dtype.

    Source: Bellemare et al. 2017, Algorithm 1.
    """
    check_tensors(
        atoms_tm1=(atoms_tm1, "N"),
        logits_tm1=(logits_tm1, "B A N"),
        a_tm1=(a_tm1, "int64 B"),
        r_t=(r_t, "B"),
        discount_t=(discount_t, "B"),
        atoms_t=(atoms_t, "M"),
        logits_t=(logits_t, "B A M"),
    )
    probs_t = logits_t.softmax(dim=2)
    a_t = (probs_t * atoms_t).sum(dim=2).argmax(dim=1)
    target_tm1 = _target(atoms_tm1, r_t, discount_t, atoms_t, _chosen(probs_t, a_t))
    return _cross_entropy(target_tm1, _chosen(logits_tm1, a_tm1))


def categorical_double_q_learning(
    atoms_tm1: Tensor,
    logits_tm1: Tensor,
    a_tm1: Tensor,
    r_t: Tensor,
    discount_t: Tensor,
    atoms_t: Tensor,
    logits_t: Tensor,
    q_t_selector: Tensor,
) -> Tensor:
    """Cross-entropy of categorical double Q-learning; the next action is the selector's best.

    Args:
        atoms_tm1: [N] increasing atoms of `logits_tm1`.
        logits_tm1: [B, A, N] distributions at the time of the action.
        a_tm1: [B] int64 actions taken.
        r_t: [B] rewards that followed.
        discount_t: [B] discounts, 0 where the episode terminated.
        atoms_t: [M] atoms of `logits_t`, usually the same.
        logits_t: [B, A, M] distributions at the next time, of the target network; no gradient flows into them.
        q_t_selector: [B, A] values at the next time, of the online network, that choose the action; without gradient.

    Returns:
        [B] losses, differentiable in `logits_tm1`.

    Raises:
        ValueError: an argument of another rank or size, or fewer than two atoms.
        TypeError: an argument of another dtype.

    Source: Hessel et al. 2018, "Rainbow: Combining Improvements in Deep Reinforcement Learning", "The Integrated
    Agent" (https://arxiv.org/abs/1710.02298).
    """
    check_tensors(
        atoms_tm1=(atoms_tm1, "N"),
        logits_tm1=(logits_tm1, "B A N"),
        a_tm1=(a_tm1, "int64 B"),
        r_t=(r_t, "B"),
        discount_t=(discount_t, "B"),
        atoms_t=(atoms_t, "M"),
        logits_t=(logits_t, "B A M"),
        q_t_selector=(q_t_selector, "B A"),
    )
    a_t = q_t_selector.argmax(dim=1)
    target_tm1 = _target(atoms_tm1, r_t, discount_t, atoms_t, _chosen(logits_t, a_t).softmax(dim=1))
    return _cross_entropy(target_tm1, _chosen(logits_tm1, a_tm1))


def _target(atoms_tm1: Tensor, r_t: Tensor, discount_t: Tensor, atoms_t: Tensor, probs_a_t: Tensor) -> Tensor:
    """The distribution [B, N] of `r + discount · z` on `atoms_tm1`, z of probs [B, M]; no gradient flows through."""
    z_tm1 = r_t[:, None] + discount_t[:, None] * atoms_t  # [B, M]
    return project(z_tm1, probs_a_t, atoms_tm1).detach()


def _cross_entropy(probs: Tensor, logits: Tensor) -> Tensor:
    """`−Σ probs · log softmax(logits)` of each row of [B, N]: [B]."""
    return -(probs * logits.log_softmax(dim=1)).sum(dim=1)


def _chosen(dist: Tensor, action: Tensor) -> Tensor:
    """The distribution [B, N] of each row's action [B], from [B, A, N]."""
    return dist.gather(1, action[:, None, None].expand(-1, 1, dist.shape[2])).squeeze(1)
