"""The losses and returns again, as in their sources: plain loops in float64."""

import math

import numpy as np
import torch


def random_tensor(rng, *shape, dtype=torch.float64):
    return torch.tensor(rng.normal(size=shape), dtype=dtype)


def lists(*tensors):
    return [tensor.tolist() for tensor in tensors]


def best(values):
    """Index of the first greatest."""
    index = 0
    for i, value in enumerate(values):
        if value > values[index]:
            index = i
    return index


def mean(values):
    return sum(values) / len(values)


def softmax(values):
    exponentials = [math.exp(value) for value in values]
    return [e / sum(exponentials) for e in exponentials]


def q_learning(q_tm1, a_tm1, r_t, discount_t, q_t):
    q_tm1, a_tm1, r_t, discount_t, q_t = lists(q_tm1, a_tm1, r_t, discount_t, q_t)
    return [r_t[b] + discount_t[b] * max(q_t[b]) - q_tm1[b][a_tm1[b]] for b in range(len(a_tm1))]


def double_q_learning(q_tm1, a_tm1, r_t, discount_t, q_t_value, q_t_selector):
    """Van Hasselt et al. 2016: one network chooses the next action, the other gives its value."""
    q_tm1, a_tm1, r_t, discount_t, value, selector = lists(q_tm1, a_tm1, r_t, discount_t, q_t_value, q_t_selector)
    errors = []
    for b, action in enumerate(a_tm1):
        errors.append(r_t[b] + discount_t[b] * value[b][best(selector[b])] - q_tm1[b][action])
    return errors


def bonus(q, action, temperature, alpha, clip):
    """Vieillard et al. 2020: α [τ log π(a)] clipped to [l₀, 0], of one row of values."""
    pi = softmax([value / temperature for value in q])
    return alpha * min(max(temperature * math.log(pi[action]), clip), 0.0)


def munchausen_q_learning(q_tm1, a_tm1, r_t, discount_t, q_t, q_tm1_target, temperature, alpha, clip):
    """Vieillard et al. 2020, eq. 2."""
    q_tm1, a_tm1, r_t, discount_t, q_t, old = lists(q_tm1, a_tm1, r_t, discount_t, q_t, q_tm1_target)
    errors = []
    for b, action in enumerate(a_tm1):
        target = r_t[b] + bonus(old[b], action, temperature, alpha, clip)
        pi = softmax([value / temperature for value in q_t[b]])
        for p, value in zip(pi, q_t[b], strict=True):
            target += discount_t[b] * p * (value - temperature * math.log(p))
        errors.append(target - q_tm1[b][action])
    return errors


def project(z_p, probs, z_q):
    """Every atom's mass, split between its two neighbours."""
    z_p, probs, z_q = lists(z_p, probs, z_q)
    rows = []
    for places, masses in zip(z_p, probs, strict=True):
        row = [0.0] * len(z_q)
        for place, mass in zip(places, masses, strict=True):
            z = min(max(place, z_q[0]), z_q[-1])
            upper = next(i for i, atom in enumerate(z_q) if atom >= z)
            if z_q[upper] == z:
                row[upper] += mass
                continue
            lower = upper - 1
            row[lower] += mass * (z_q[upper] - z) / (z_q[upper] - z_q[lower])
            row[upper] += mass * (z - z_q[lower]) / (z_q[upper] - z_q[lower])
        rows.append(row)
    return rows


def categorical_algorithm_1(probs, reward, discount, v_min, v_max):
    """Bellemare et al. 2017, Algorithm 1, of one distribution; with the care that it needs where b is an integer."""
    count = len(probs)
    delta = (v_max - v_min) / (count - 1)
    m = [0.0] * count
    for j, p in enumerate(probs):
        tz = min(max(reward + discount * (v_min + j * delta), v_min), v_max)
        b = (tz - v_min) / delta
        lower, upper = math.floor(b), math.ceil(b)
        if lower == upper:
            m[lower] += p
        else:
            m[lower] += p * (upper - b)
            m[upper] += p * (b - lower)
    return m


def categorical_double_q_learning(atoms_tm1, logits_tm1, a_tm1, r_t, discount_t, atoms_t, logits_t, q_t_selector):
    """Cross-entropy of the projected target; the selector chooses the next action."""
    losses = []
    for b, action in enumerate(a_tm1.tolist()):
        probs = softmax(logits_t[b, best(q_t_selector[b].tolist())].tolist())
        places = [r_t[b].item() + discount_t[b].item() * atom for atom in atoms_t.tolist()]
        target = project(torch.tensor([places]).double(), torch.tensor([probs]).double(), atoms_tm1)[0]
        predicted = softmax(logits_tm1[b, action].tolist())
        losses.append(-sum(t * math.log(p) for t, p in zip(target, predicted, strict=True)))
    return losses


def categorical_q_learning(atoms_tm1, logits_tm1, a_tm1, r_t, discount_t, atoms_t, logits_t):
    """The same, the target's own means choosing."""
    atoms = atoms_t.tolist()
    means = [
        [sum(p * z for p, z in zip(softmax(logits), atoms, strict=True)) for logits in row] for row in logits_t.tolist()
    ]
    selector = torch.tensor(means)
    return categorical_double_q_learning(atoms_tm1, logits_tm1, a_tm1, r_t, discount_t, atoms_t, logits_t, selector)


def quantile_regression(dist, tau, target, kappa):
    """Dabney et al. 2018 (IQN), eq. 3: the mean over the target's, the sum over our own quantiles."""
    dist, tau, target = lists(dist, tau, target)
    losses = []
    for b in range(len(dist)):
        loss = 0.0
        for theta, share in zip(dist[b], tau[b], strict=True):
            for sample in target[b]:
                u = sample - theta
                if kappa == 0:
                    penalty = abs(u)
                elif abs(u) <= kappa:
                    penalty = u * u / 2 / kappa
                else:
                    penalty = abs(u) - kappa / 2
                loss += abs(share - (1 if u < 0 else 0)) * penalty / len(target[b])
        losses.append(loss)
    return losses


def quantile_q_learning(dist_q_tm1, tau_q_tm1, a_tm1, r_t, discount_t, selector, dist_q_t, kappa):
    """Dabney et al. 2018 (QR-DQN), Algorithm 1."""
    losses = []
    for b, action in enumerate(a_tm1.tolist()):
        means = [mean(selector[b, :, a].tolist()) for a in range(selector.shape[2])]
        target = [r_t[b].item() + discount_t[b].item() * z for z in dist_q_t[b, :, best(means)].tolist()]
        dist = dist_q_tm1[b : b + 1, :, action]
        losses += quantile_regression(dist, tau_q_tm1[b : b + 1], torch.tensor([target]).double(), kappa)
    return losses


def munchausen_quantile_q_learning(
    dist_q_tm1, tau_q_tm1, a_tm1, r_t, discount_t, dist_q_t, q_tm1_target, temperature, alpha, clip, kappa
):
    """Vieillard et al. 2020, M-IQN: every quantile of the target follows the policy of the means."""
    losses = []
    for b, action in enumerate(a_tm1.tolist()):
        reward = r_t[b].item() + bonus(q_tm1_target[b].tolist(), action, temperature, alpha, clip)
        actions = range(dist_q_t.shape[2])
        pi = softmax([mean(dist_q_t[b, :, a].tolist()) / temperature for a in actions])
        target = []
        for quantiles in dist_q_t[b].tolist():
            value = sum(pi[a] * (quantiles[a] - temperature * math.log(pi[a])) for a in actions)
            target.append(reward + discount_t[b].item() * value)
        dist = dist_q_tm1[b : b + 1, :, action]
        losses += quantile_regression(dist, tau_q_tm1[b : b + 1], torch.tensor([target]).double(), kappa)
    return losses


def n_step_return(r_t, discount_t, v_t, n):
    """Sutton & Barto 2018, eq. 7.1, forwards from every step; stops where a discount is 0 and at the end."""
    r_t, discount_t, v_t = lists(r_t, discount_t, v_t)
    returns = np.zeros((len(r_t), len(r_t[0])))
    for t, b in np.ndindex(returns.shape):
        total, factor = 0.0, 1.0
        for k in range(t, min(t + n, len(r_t))):
            total += factor * r_t[k][b]
            factor *= discount_t[k][b]
            if factor == 0:
                break
        else:
            total += factor * v_t[k][b]
        returns[t, b] = total
    return returns.tolist()


def lambda_returns(r_t, discount_t, v_t, lambda_t):
    """Sutton & Barto 2018, eq. 12.3: the n-step returns, weighted (1 − λ) λⁿ⁻¹, the last one with all that is left."""
    length, width = r_t.shape
    n_steps = [n_step_return(r_t, discount_t, v_t, n) for n in range(1, length + 1)]
    returns = np.zeros((length, width))
    for t, b in np.ndindex(returns.shape):
        left = 1.0
        for n in range(1, length - t):
            lambda_ = lambda_t[t + n - 1, b].item()
            returns[t, b] += left * (1 - lambda_) * n_steps[n - 1][t][b]
            left *= lambda_
        returns[t, b] += left * n_steps[length - t - 1][t][b]
    return returns.tolist()
