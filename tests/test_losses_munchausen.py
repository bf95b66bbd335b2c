"""Munchausen and soft Q-learning against numbers worked out by hand and loops in float64."""

import math

import numpy as np
import pytest
import torch

import loss_oracles as oracles
from pixelq.losses.td import huber, log_policy, munchausen_bonus, munchausen_q_learning, q_learning, soft_value

# τ = 1/2: a difference of ln(3)/2 = 0.5493061 makes the policy (3/4, 1/4)
LEAN = math.log(3) / 2
TEMPERATURE, ALPHA, CLIP = 0.5, 0.8, -0.5
Q_TM1_TARGET = [[LEAN, 0.0], [LEAN, 0.0], [7.0, 7.0]]
A_TM1 = [0, 1, 1]


def arguments(dtype=torch.float64, **changes):
    named = {
        "q_tm1": torch.tensor([[1.0, 2.0], [4.0, 3.0], [0.0, -1.0]], dtype=dtype),
        "a_tm1": torch.tensor(A_TM1),
        "r_t": torch.tensor([1.0, -1.0, 0.5], dtype=dtype),
        "discount_t": torch.tensor([0.9, 0.5, 0.0], dtype=dtype),
        "q_t": torch.tensor([[1.0 + LEAN, 1.0], [-2.0, -2.0], [100.0, 1000.0]], dtype=dtype),
        "q_tm1_target": torch.tensor(Q_TM1_TARGET, dtype=dtype),
        "temperature": TEMPERATURE,
        "alpha": ALPHA,
        "clip": CLIP,
    }
    return named | changes


def random_arguments(seed, temperature=0.3, alpha=0.9, clip=-1.0, batch=17, actions=6, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    return {
        "q_tm1": oracles.random_tensor(rng, batch, actions, dtype=dtype),
        "a_tm1": torch.tensor(rng.integers(0, actions, batch)),
        "r_t": oracles.random_tensor(rng, batch, dtype=dtype),
        "discount_t": torch.tensor(rng.choice([0.0, 0.9, 0.99], batch), dtype=dtype),
        "q_t": oracles.random_tensor(rng, batch, actions, dtype=dtype),
        "q_tm1_target": oracles.random_tensor(rng, batch, actions, dtype=dtype),
        "temperature": temperature,
        "alpha": alpha,
        "clip": clip,
    }


def plain(named):
    """The arguments that Q-learning takes."""
    return {name: named[name] for name in ("q_tm1", "a_tm1", "r_t", "discount_t", "q_t")}


def test_log_policy_by_hand():
    # ln 3/4 = −0.2876821, ln 1/4 = −1.3862944, ln 1/2 = −0.6931472
    expected = [[-0.2876821, -1.3862944], [-0.2876821, -1.3862944], [-0.6931472, -0.6931472]]
    np.testing.assert_allclose(log_policy(torch.tensor(Q_TM1_TARGET), TEMPERATURE), expected, rtol=1e-6)


def test_log_policy_is_the_same_wherever_zero_is():
    # exact in binary before the division by τ, so nothing may be rounded away afterwards
    q = torch.tensor([[0.0, 2**-10, -(2**-9)]])
    assert torch.equal(log_policy(q + 1024, 0.03), log_policy(q, 0.03))


def test_soft_value_by_hand():
    # π = (3/4, 1/4), −τ ln π = (0.1438410, 0.6931472): 3/4 · 3.1438410 + 1/4 · 1.6931472 = 2.7811676
    log_pi = torch.tensor([0.75, 0.25]).log()
    assert soft_value(torch.tensor([3.0, 1.0]), log_pi, TEMPERATURE).item() == pytest.approx(2.7811676, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.03, 0.5, 10.0])
def test_soft_value_of_the_softmax_policy_is_the_soft_maximum(temperature):
    # Σ π (q − τ log π) = τ log Σ exp(q / τ), between the maximum and the maximum + τ log A
    q = oracles.random_tensor(np.random.default_rng(1), 20, 6)
    value = soft_value(q, log_policy(q, temperature), temperature)
    torch.testing.assert_close(value, temperature * torch.logsumexp(q / temperature, 1))
    assert (value >= q.amax(1)).all()
    assert (value <= q.amax(1) + temperature * math.log(6) + 1e-12).all()


def test_soft_value_of_quantiles_has_the_mean_of_the_soft_value():
    rng = np.random.default_rng(2)
    dist_q = oracles.random_tensor(rng, 4, 5, 3)  # [B, M, A]
    log_pi = log_policy(dist_q.mean(1), 0.3)
    dist_v = soft_value(dist_q, log_pi[:, None, :], 0.3)
    assert dist_v.shape == (4, 5)
    torch.testing.assert_close(dist_v.mean(1), soft_value(dist_q.mean(1), log_pi, 0.3))


def test_bonus_by_hand():
    # τ ln π: 0.5 · ln 3/4 = −0.1438410; 0.5 · ln 1/4 = −0.6931472, clipped to −0.5; 0.5 · ln 1/2 = −0.3465736
    # times 0.8
    bonus = munchausen_bonus(torch.tensor(Q_TM1_TARGET), torch.tensor(A_TM1), TEMPERATURE, ALPHA, CLIP)
    assert bonus.tolist() == pytest.approx([-0.1150728, -0.4, -0.2772589], rel=1e-6)


def test_munchausen_q_learning_by_hand():
    # r + bonus + discount · τ ln Σ exp(q_t / τ) − q_tm1[a], the bonuses those above
    # 1 − 0.1150728 + 0.9 · (1 + 0.5 ln 4 = 1.6931472) − 1 = 1.4087596
    # −1 − 0.4 + 0.5 · (−2 + 0.5 ln 2 = −1.6534264) − 3 = −5.2267132
    # 0.5 − 0.2772589 + 0 − (−1) = 1.2227411
    expected = [1.4087596, -5.2267132, 1.2227411]
    for dtype in (torch.float32, torch.float64):
        error = munchausen_q_learning(**arguments(dtype))
        assert error.dtype == dtype
        assert error.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.03, 0.3, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_munchausen_q_learning_equals_a_loop(seed, temperature):
    named = random_arguments(seed, temperature)
    expected = oracles.munchausen_q_learning(**named)
    assert munchausen_q_learning(**named).tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_without_alpha_it_is_soft_q_learning():
    named = random_arguments(3, alpha=0.0)
    v_t = 0.3 * torch.logsumexp(named["q_t"] / 0.3, 1)
    chosen = named["q_tm1"].gather(1, named["a_tm1"][:, None])[:, 0]
    torch.testing.assert_close(munchausen_q_learning(**named), named["r_t"] + named["discount_t"] * v_t - chosen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1e-6, 1e-12, 1e-30])
def test_without_alpha_a_low_temperature_makes_it_q_learning(temperature, dtype):
    named = random_arguments(4, temperature, alpha=0.0, dtype=dtype)
    torch.testing.assert_close(munchausen_q_learning(**named), q_learning(**plain(named)), rtol=0, atol=1e-5)


def test_at_a_low_temperature_the_bonus_is_the_clipped_advantage():
    # τ log π(a) → q(a) − max q: 0 for the greedy action, −0.75 for the next, clipped at −1 for the last
    q = torch.tensor([[3.0, 2.25, -7.0]]).expand(3, -1)
    bonus = munchausen_bonus(q, torch.arange(3), 1e-9, 0.9, -1.0)
    assert bonus.tolist() == pytest.approx([0.0, -0.675, -0.9], rel=1e-6)


def test_gradients_reach_the_online_values_alone():
    named = random_arguments(5)
    for tensor in named.values():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
            tensor.requires_grad_()
    munchausen_q_learning(**named).square().sum().backward()
    assert [name for name, value in named.items() if getattr(value, "grad", None) is not None] == ["q_tm1"]


def test_gradients_equal_finite_differences():
    named = random_arguments(6)
    q_tm1, q = named.pop("q_tm1").requires_grad_(), named["q_t"].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda q: huber(munchausen_q_learning(q, **named)), q_tm1)
    assert torch.autograd.gradcheck(lambda q: soft_value(q, log_policy(q, 0.3), 0.3), q)
    assert torch.autograd.gradcheck(lambda q: munchausen_bonus(q, named["a_tm1"], 0.3, 0.9, -1.0), q)


@pytest.mark.parametrize(
    ("name", "wrong", "error"),
    [
        ("q_tm1", torch.zeros(3), ValueError),
        ("a_tm1", torch.zeros(3), TypeError),
        ("r_t", torch.zeros(3, 1), ValueError),
        ("discount_t", torch.ones(1), ValueError),
        ("q_t", torch.zeros(3, 3), ValueError),
        ("q_tm1_target", torch.zeros(3), ValueError),
        ("q_tm1_target", torch.zeros(3, 2, dtype=torch.int64), TypeError),
        ("temperature", 0.0, ValueError),
        ("temperature", -0.03, ValueError),
        ("clip", 1.0, ValueError),
        ("clip", math.nan, ValueError),
    ],
)
def test_other_arguments_are_refused(name, wrong, error):
    with pytest.raises(error, match=f"^{name} "):
        munchausen_q_learning(**arguments(torch.float32, **{name: wrong}))


def test_the_bonus_alone_refuses_other_tensors_too():
    with pytest.raises(ValueError, match=r"^a_tm1 has shape \(1,\): B must be 3, as in q_tm1_target"):
        munchausen_bonus(torch.tensor(Q_TM1_TARGET), torch.tensor([0]), TEMPERATURE, ALPHA, CLIP)
