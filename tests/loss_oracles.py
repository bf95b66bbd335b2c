"""The losses and returns once more, as their sources print them: one number after the other, in float64."""

import math

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
    """Van Hasselt et al. 2016: one network chooses the next action, the other says what it is worth."""
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
