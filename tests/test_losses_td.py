"""Temporal-difference errors and penalties against numbers worked out by hand and loops in float64."""

import math

import numpy as np
import pytest
import torch

import loss_oracles as oracles
from pixelq.losses.td import double_q_learning, huber, q_learning, squared

Q_TM1 = [[1.0, 2.0], [4.0, 3.0], [0.0, -1.0]]
A_TM1 = [0, 1, 1]
R_T = [1.0, -1.0, 0.5]
DISCOUNT_T = [0.9, 0.5, 0.0]
Q_T = [[2.0, 5.0], [-2.0, -4.0], [100.0, 1000.0]]
Q_T_SELECTOR = [[1.0, 0.0], [-1.0, 3.0], [0.0, 1.0]]


def arguments(dtype=torch.float32, **changes):
    """The literal example, or parts of it replaced."""
    named = {
        "q_tm1": torch.tensor(Q_TM1, dtype=dtype),
        "a_tm1": torch.tensor(A_TM1),
        "r_t": torch.tensor(R_T, dtype=dtype),
        "discount_t": torch.tensor(DISCOUNT_T, dtype=dtype),
        "q_t": torch.tensor(Q_T, dtype=dtype),
    }
    return named | changes


def random_arguments(seed, batch=17, actions=6, dtype=torch.float32):
    rng = np.random.default_rng(seed)
    return {
        "q_tm1": torch.tensor(rng.normal(size=(batch, actions)), dtype=dtype),
        "a_tm1": torch.tensor(rng.integers(0, actions, batch)),
        "r_t": torch.tensor(rng.normal(size=batch), dtype=dtype),
        "discount_t": torch.tensor(rng.choice([0.0, 0.9, 0.99], batch), dtype=dtype),
        "q_t": torch.tensor(rng.normal(size=(batch, actions)), dtype=dtype),
    }


def test_q_learning_by_hand():
    # r + discount · max q_t − q_tm1[a]
    # 1 + 0.9 · max(2, 5) − 1 = 4.5
    # −1 + 0.5 · max(−2, −4) − 3 = −5
    # 0.5 + 0 · 1000 − (−1) = 1.5: the episode ended, the next value does not count
    assert q_learning(**arguments()).tolist() == pytest.approx([4.5, -5.0, 1.5], rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_q_learning_equals_a_loop(seed):
    named = random_arguments(seed)
    assert q_learning(**named).tolist() == pytest.approx(oracles.q_learning(**named), rel=1e-6, abs=1e-6)


def test_the_reward_alone_counts_where_the_episode_terminated():
    named = random_arguments(1)
    named["discount_t"].zero_()
    chosen = named["q_tm1"].gather(1, named["a_tm1"][:, None])[:, 0]
    torch.testing.assert_close(q_learning(**named), named["r_t"] - chosen, rtol=0, atol=0)


def test_the_error_keeps_shape_and_dtype():
    for dtype in (torch.float32, torch.float64):
        error = q_learning(**arguments(dtype))
        assert (error.shape, error.dtype) == ((3,), dtype)


def test_gradients_reach_the_chosen_action_alone():
    q_tm1 = torch.tensor(Q_TM1, requires_grad=True)
    q_learning(**arguments(q_tm1=q_tm1)).sum().backward()
    # d(−q_tm1[a]) is −1 at the action taken and 0 elsewhere
    assert q_tm1.grad.tolist() == [[-1.0, 0.0], [0.0, -1.0], [0.0, -1.0]]


def test_no_gradient_reaches_the_target():
    named = arguments(q_tm1=torch.tensor(Q_TM1, requires_grad=True))
    for name in ("r_t", "discount_t", "q_t"):
        named[name].requires_grad_()
    squared(q_learning(**named)).sum().backward()
    assert named["q_tm1"].grad is not None
    assert [named[name].grad for name in ("r_t", "discount_t", "q_t")] == [None, None, None]


@pytest.mark.parametrize("penalty", [huber, squared, lambda error: huber(error, 0.3)])
def test_gradients_equal_finite_differences(penalty):
    named = random_arguments(2, dtype=torch.float64)
    q_tm1 = named.pop("q_tm1").requires_grad_()
    assert torch.autograd.gradcheck(lambda q: penalty(q_learning(q, **named)), q_tm1)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("q_tm1", torch.zeros(3)),
        ("q_tm1", torch.zeros(3, 2, 1)),
        ("a_tm1", torch.zeros(3, 1, dtype=torch.int64)),
        ("a_tm1", torch.tensor(0)),
        ("r_t", torch.zeros(3, 1)),  # would broadcast to [3, 3] and train on nonsense
        ("discount_t", torch.zeros(3, 1)),
        ("discount_t", torch.tensor(0.99)),
        ("q_t", torch.zeros(3)),
    ],
)
def test_other_ranks_are_refused(name, wrong):
    with pytest.raises(ValueError, match=rf"{name} has shape .*: must have rank \d"):
        q_learning(**arguments(**{name: wrong}))


@pytest.mark.parametrize(
    ("name", "wrong", "told"),
    [
        # all of them would broadcast, or be cut by gather, without a word
        ("a_tm1", torch.tensor([0]), r"a_tm1 has shape \(1,\): B must be 3, as in q_tm1"),
        ("r_t", torch.zeros(1), r"r_t has shape \(1,\): B must be 3, as in q_tm1"),
        ("discount_t", torch.ones(1), r"discount_t has shape \(1,\): B must be 3, as in q_tm1"),
        ("q_t", torch.zeros(1, 2), r"q_t has shape \(1, 2\): B must be 3, as in q_tm1"),
        ("q_t", torch.zeros(3, 4), r"q_t has shape \(3, 4\): A must be 2, as in q_tm1"),
    ],
)
def test_sizes_that_do_not_agree_are_refused(name, wrong, told):
    with pytest.raises(ValueError, match=told):
        q_learning(**arguments(**{name: wrong}))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("q_tm1", torch.zeros(3, 2, dtype=torch.int64)),
        ("a_tm1", torch.zeros(3)),
        ("a_tm1", torch.zeros(3, dtype=torch.int32)),
        ("a_tm1", torch.zeros(3, dtype=torch.bool)),
        ("r_t", torch.zeros(3, dtype=torch.int64)),
        ("discount_t", torch.zeros(3, dtype=torch.bool)),
        ("q_t", torch.zeros(3, 2, dtype=torch.uint8)),
    ],
)
def test_other_dtypes_are_refused(name, wrong):
    with pytest.raises(TypeError, match=f"{name} is {wrong.dtype}"):
        q_learning(**arguments(**{name: wrong}))


def double_arguments(named, q_t_selector):
    """Those of double Q-learning: what was `q_t` gives the value."""
    named["q_t_value"] = named.pop("q_t")
    return named | {"q_t_selector": q_t_selector}


def test_double_q_learning_by_hand():
    # r + discount · q_t_value[argmax q_t_selector] − q_tm1[a]
    # 1 + 0.9 · 2 − 1 = 1.8: the selector prefers action 0, whose value is 2, though action 1 has 5
    # −1 + 0.5 · (−4) − 3 = −6
    # 0.5 + 0 · 1000 − (−1) = 1.5
    named = double_arguments(arguments(), torch.tensor(Q_T_SELECTOR))
    assert double_q_learning(**named).tolist() == pytest.approx([1.8, -6.0, 1.5], rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_double_q_learning_equals_a_loop(seed):
    selector = oracles.random_tensor(np.random.default_rng(seed + 100), 17, 6)
    named = double_arguments(random_arguments(seed, dtype=torch.float64), selector)
    error = double_q_learning(**named)
    assert error.tolist() == pytest.approx(oracles.double_q_learning(**named), rel=1e-6, abs=1e-6)


def test_double_equals_plain_where_the_selector_is_the_target():
    named = random_arguments(6)
    plain = q_learning(**named)
    assert torch.equal(double_q_learning(**double_arguments(named, named["q_t"])), plain)


def test_the_selector_only_selects():
    # any other values in the same order choose the same actions
    named = random_arguments(7)
    expected = q_learning(**named)
    assert torch.equal(double_q_learning(**double_arguments(named, named["q_t"].exp() * 100 - 3)), expected)


def test_gradients_of_double_q_learning_reach_the_online_values_alone():
    named = double_arguments(
        random_arguments(8, dtype=torch.float64), oracles.random_tensor(np.random.default_rng(9), 17, 6)
    )
    for name in set(named) - {"a_tm1"}:
        named[name].requires_grad_()
    huber(double_q_learning(**named)).sum().backward()
    assert [name for name, tensor in named.items() if tensor.grad is not None] == ["q_tm1"]
    q_tm1, rest = named.pop("q_tm1"), {name: tensor.detach() for name, tensor in named.items()}
    assert torch.autograd.gradcheck(lambda q: huber(double_q_learning(q, **rest)), q_tm1)


@pytest.mark.parametrize(
    ("name", "wrong", "error"),
    [
        ("q_t_selector", torch.zeros(3), ValueError),
        ("q_t_selector", torch.zeros(3, 3), ValueError),
        ("q_t_selector", torch.zeros(3, 2, dtype=torch.int64), TypeError),
        ("q_t_value", torch.zeros(3), ValueError),
        ("q_t_value", torch.zeros(1, 2), ValueError),
        ("r_t", torch.zeros(3, 1), ValueError),
        ("discount_t", torch.zeros(3, dtype=torch.bool), TypeError),
    ],
)
def test_double_q_learning_refuses_other_tensors(name, wrong, error):
    named = double_arguments(arguments(), torch.tensor(Q_T_SELECTOR)) | {name: wrong}
    with pytest.raises(error, match=f"{name} "):
        double_q_learning(**named)


@pytest.mark.parametrize(
    ("threshold", "errors", "expected"),
    [
        # within 1: e²/2; beyond: |e| − 1/2; both give 1/2 at the threshold
        (1.0, [-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 100.0], [2.5, 0.5, 0.125, 0.0, 0.125, 0.5, 1.5, 99.5]),
        # within 2: e²/2; beyond: 2 (|e| − 1)
        (2.0, [-4.0, -2.0, 1.0, 2.0, 3.0], [6.0, 2.0, 0.5, 2.0, 4.0]),
        # within 1/4: e²/2; beyond: (|e| − 1/8) / 4
        (0.25, [-1.0, -0.25, 0.125, 0.25, 0.5], [0.21875, 0.03125, 0.0078125, 0.03125, 0.09375]),
    ],
)
def test_huber_by_hand(threshold, errors, expected):
    assert huber(torch.tensor(errors), threshold).tolist() == expected  # all exact in binary


def test_the_threshold_is_one_if_none_is_given():
    error = torch.linspace(-3, 3, 61)
    assert torch.equal(huber(error), huber(error, 1.0))


def huber_loop(error, threshold):
    """Huber 1964, eq. 2.2, in float64."""
    out = []
    for e in error.tolist():
        out.append(e * e / 2 if abs(e) < threshold else threshold * abs(e) - threshold * threshold / 2)
    return out


@pytest.mark.parametrize("threshold", [0.1, 1.0, 3.0])
def test_huber_equals_a_loop(threshold):
    error = torch.tensor(np.random.default_rng(3).normal(0, 2, 500), dtype=torch.float32)
    assert (error.abs() > threshold).any()
    assert (error.abs() < threshold).any()
    assert huber(error, threshold).tolist() == pytest.approx(huber_loop(error, threshold), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("threshold", [0.5, 1.0, 2.0])
def test_hubers_slope_is_the_error_clipped(threshold):
    # also just inside, at and just outside the threshold, at 0 and far out
    sizes = [0.0, 0.1, threshold * (1 - 2**-20), threshold, threshold * (1 + 2**-20), 7.0, 1e8]
    error = torch.tensor([*sizes, *(-size for size in sizes)], requires_grad=True)
    huber(error, threshold).sum().backward()
    expected = error.detach().clamp(-threshold, threshold)
    torch.testing.assert_close(error.grad, expected, rtol=1e-6, atol=0)


def test_huber_has_no_step_at_the_threshold():
    one = np.float32(1)
    around = torch.tensor([np.nextafter(one, np.float32(0)), one, np.nextafter(one, np.float32(2))])
    below, at, above = huber(around).tolist()
    assert below <= at <= above
    assert above - below < 3e-7


def test_errors_that_are_no_numbers_show():
    penalty = huber(torch.tensor([math.nan, math.inf, -math.inf]))
    assert penalty.isnan().tolist() == [True, False, False]
    assert penalty[1:].tolist() == [math.inf, math.inf]


def test_squared_by_hand():
    error = torch.tensor([-3.0, 0.0, 0.5], requires_grad=True)
    penalty = squared(error)
    assert penalty.tolist() == [9.0, 0.0, 0.25]  # no factor one half
    penalty.sum().backward()
    assert error.grad.tolist() == [-6.0, 0.0, 1.0]


def test_squared_equals_a_loop():
    error = torch.tensor(np.random.default_rng(4).normal(0, 2, 100), dtype=torch.float32)
    assert squared(error).tolist() == pytest.approx([e * e for e in error.tolist()], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("penalty", [huber, squared])
@pytest.mark.parametrize("shape", [(), (4,), (4, 3, 2)])
def test_penalties_keep_the_shape(penalty, shape):
    assert penalty(torch.ones(shape)).shape == shape
