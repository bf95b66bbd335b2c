"""Quantile losses against numbers computed by hand, loops in float64, and distributions with known quantiles."""

import math

import numpy as np
import pytest
import torch

import loss_oracles as oracles
from pixelq.losses.quantile import munchausen_quantile_q_learning, quantile_q_learning, quantile_regression

LEAN = math.log(3) / 2  # at τ = 1/2 a difference that makes the policy (3/4, 1/4)


def arguments(dtype=torch.float64, **changes):
    """Two transitions, two actions; 2 quantiles, 4 that select, 3 of the target."""
    named = {
        "dist_q_tm1": torch.tensor([[[9.0, 0.0], [9.0, 1.0]], [[0.0, 9.0], [1.0, 9.0]]], dtype=dtype),
        "tau_q_tm1": torch.tensor([[0.25, 0.75], [0.25, 0.75]], dtype=dtype),
        "a_tm1": torch.tensor([1, 0]),
        "r_t": torch.tensor([1.0, 0.5], dtype=dtype),
        "discount_t": torch.tensor([0.5, 0.0], dtype=dtype),
        # means 0 and 1/2, so action 1, though action 0 has the greatest quantile
        "dist_q_t_selector": torch.tensor([[[-6.0, 0.0], [-2.0, 0.0], [2.0, 1.0], [6.0, 1.0]]] * 2, dtype=dtype),
        "dist_q_t": torch.tensor([[[7.0, -4.0], [8.0, -1.0], [9.0, 4.0]]] * 2, dtype=dtype),
    }
    return named | changes


def random_arguments(seed, batch=7, actions=4, n=5, k=6, m=3):
    rng = np.random.default_rng(seed)
    return {
        "dist_q_tm1": oracles.random_tensor(rng, batch, n, actions),
        "tau_q_tm1": torch.tensor(rng.uniform(0, 1, (batch, n))),
        "a_tm1": torch.tensor(rng.integers(0, actions, batch)),
        "r_t": oracles.random_tensor(rng, batch),
        "discount_t": torch.tensor(rng.choice([0.0, 0.9, 0.99], batch)),
        "dist_q_t_selector": oracles.random_tensor(rng, batch, k, actions),
        "dist_q_t": oracles.random_tensor(rng, batch, m, actions),
    }


def munchausen(named, seed=1, temperature=0.3, alpha=0.9, clip=-1.0):
    """The arguments of the same example with Munchausen: no selector, but the target's means before the step."""
    rest = {name: value for name, value in named.items() if name != "dist_q_t_selector"}
    batch, _, actions = named["dist_q_tm1"].shape
    old = oracles.random_tensor(np.random.default_rng(seed), batch, actions)
    return rest | {"q_tm1_target": old, "temperature": temperature, "alpha": alpha, "clip": clip}


@pytest.mark.parametrize(
    ("huber_param", "expected"),
    [
        # quantiles 0 (τ 1/4) and 1 (τ 3/4); errors −1, 0.5, 3 and −2, −0.5, 2; weights 3/4, 1/4, 1/4 and 1/4, 1/4, 3/4
        # κ 1, penalties 0.5, 0.125, 2.5 and 1.5, 0.125, 1.5: (0.375 + 0.03125 + 0.625 + 0.375 + 0.03125 + 1.125) / 3
        (1.0, 2.5625 / 3),
        # κ 2, u²/4 or |u| − 1: (0.1875 + 0.015625 + 0.5 + 0.25 + 0.015625 + 0.75) / 3
        (2.0, 1.71875 / 3),
        # plain: (0.75 + 0.125 + 0.75 + 0.5 + 0.125 + 1.5) / 3
        (0.0, 3.75 / 3),
    ],
)
def test_quantile_regression_by_hand(huber_param, expected):
    # divided by 3 samples, not by 2 quantiles
    dist, tau, target = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.25, 0.75]]), torch.tensor([[-1.0, 0.5, 3.0]])
    assert quantile_regression(dist, tau, target, huber_param).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("huber_param", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_quantile_regression_equals_a_loop(seed, huber_param):
    rng = np.random.default_rng(seed)
    dist, target = oracles.random_tensor(rng, 7, 5), oracles.random_tensor(rng, 7, 3)
    tau = torch.tensor(rng.uniform(0, 1, (7, 5)))
    expected = oracles.quantile_regression(dist, tau, target, huber_param)
    assert quantile_regression(dist, tau, target, huber_param).tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_it_is_summed_over_quantiles_and_averaged_over_samples():
    rng = np.random.default_rng(3)
    dist, target = oracles.random_tensor(rng, 2, 5), oracles.random_tensor(rng, 2, 3)
    tau = torch.full((2, 5), 0.3).double()
    loss = quantile_regression(dist, tau, target)
    torch.testing.assert_close(quantile_regression(dist.repeat(1, 2), tau.repeat(1, 2), target), 2 * loss)
    torch.testing.assert_close(quantile_regression(dist, tau, target.repeat(1, 2)), loss)


def test_a_small_kappa_approaches_the_plain_loss():
    rng = np.random.default_rng(4)
    dist, target = oracles.random_tensor(rng, 2, 5), oracles.random_tensor(rng, 2, 3)
    tau = torch.tensor(rng.uniform(0, 1, (2, 5)))
    close = quantile_regression(dist, tau, target, 1e-7)
    torch.testing.assert_close(close, quantile_regression(dist, tau, target, 0.0), rtol=1e-6, atol=1e-6)


def exponential(shares):
    """Quantiles of the exponential distribution, which is skewed: −ln(1 − τ)."""
    return -torch.log1p(-shares)


def test_the_plain_loss_is_least_at_the_true_quantiles():
    # d/dθ is the share below θ less τ: 0 at the τ-quantile, and of θ's own sign beside it
    tau = torch.tensor([[0.05, 0.25, 0.5, 0.9]]).double()
    samples = exponential((torch.arange(10_000).double() + 0.5) / 10_000)[None]
    for shift in (0.0, 0.2, -0.04):
        dist = (exponential(tau) + shift).requires_grad_()
        quantile_regression(dist, tau, samples, 0.0).sum().backward()
        below = 1 - torch.exp(-dist.detach())
        torch.testing.assert_close(dist.grad, below - tau, rtol=0, atol=2e-4)
        assert (dist.grad.sign() == np.sign(shift)).all() or shift == 0


@pytest.mark.parametrize("huber_param", [0.0, 0.01])
def test_descent_finds_the_quantiles(huber_param):
    tau = (torch.arange(5).double()[None] + 0.5) / 5
    samples = exponential((torch.arange(1000).double() + 0.5) / 1000)[None]
    dist = torch.zeros(1, 5).double().requires_grad_()
    for step in range(400):
        (slope,) = torch.autograd.grad(quantile_regression(dist, tau, samples, huber_param).sum(), dist)
        dist = (dist - 2 * 0.985**step * slope).detach().requires_grad_()
    torch.testing.assert_close(dist.detach(), exponential(tau), rtol=0, atol=0.02)


def test_quantile_q_learning_by_hand():
    # 1: action 1 of the target, −4, −1, 4, so 1 + 0.5 · that = −1, 0.5, 3: the example above, 2.5625 / 3
    # 2: terminated, 0.5 three times; errors 0.5 and −0.5: 1/4 · 0.125 + 1/4 · 0.125 = 0.0625
    for dtype in (torch.float32, torch.float64):
        loss = quantile_q_learning(**arguments(dtype))
        assert loss.dtype == dtype
        assert loss.tolist() == pytest.approx([2.5625 / 3, 0.0625], rel=1e-6)


@pytest.mark.parametrize("huber_param", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_quantile_q_learning_equals_a_loop(seed, huber_param):
    named = random_arguments(seed)
    expected = oracles.quantile_q_learning(*named.values(), huber_param)
    assert quantile_q_learning(**named, huber_param=huber_param).tolist() == pytest.approx(expected, rel=1e-6)


def test_kappa_is_one_if_none_is_given():
    named = random_arguments(5)
    assert torch.equal(quantile_q_learning(**named), quantile_q_learning(**named, huber_param=1.0))
    named = munchausen(named)
    assert torch.equal(
        munchausen_quantile_q_learning(**named), munchausen_quantile_q_learning(**named, huber_param=1.0)
    )


def test_munchausen_by_hand():
    # τ 1/2. Next: means ln(3)/2 and 0, π = (3/4, 1/4), −τ Σ π ln π = 0.2811676; 3/4 · ln(3)/2 = 0.4119796
    # quantiles of the value: 0.4119796 + 0.2811676 = 0.6931472, and that ∓ (3/4 · 2 + 1/4 · 1 = 1.75)
    # before: action 1 has 1/4, 0.5 ln 1/4 = −0.69 is clipped to −0.5, times 0.8 = −0.4
    # target: 0.5 − 0.4 + 0.5 · (−1.0568528, 0.6931472, 2.4431472) = −0.4284264, 0.4465736, 1.3215736
    # plain quantile loss of 0 (τ 1/2): 1/2 · (0.4284264 + 0.4465736 + 1.3215736) = 1.0982868
    # of 1 (τ 3/4): 1/4 · (1.4284264 + 0.5534264) + 3/4 · 0.3215736 = 0.7366434; (1.0982868 + 0.7366434) / 3 = 0.6116434
    loss = munchausen_quantile_q_learning(
        dist_q_tm1=torch.tensor([[[9.0, 0.0], [9.0, 1.0]]]),
        tau_q_tm1=torch.tensor([[0.5, 0.75]]),
        a_tm1=torch.tensor([1]),
        r_t=torch.tensor([0.5]),
        discount_t=torch.tensor([0.5]),
        dist_q_t=torch.tensor([[[LEAN - 2, -1.0], [LEAN, 0.0], [LEAN + 2, 1.0]]]),
        q_tm1_target=torch.tensor([[LEAN, 0.0]]),
        temperature=0.5,
        alpha=0.8,
        clip=-0.5,
        huber_param=0.0,
    )
    assert loss.tolist() == pytest.approx([0.6116434], rel=1e-6)


@pytest.mark.parametrize("temperature", [0.03, 0.3, 3.0])
@pytest.mark.parametrize("huber_param", [0.0, 1.0])
def test_munchausen_equals_a_loop(temperature, huber_param):
    named = munchausen(random_arguments(6), temperature=temperature)
    expected = oracles.munchausen_quantile_q_learning(*named.values(), huber_param)
    loss = munchausen_quantile_q_learning(**named, huber_param=huber_param)
    assert loss.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_munchausen_without_alpha_at_a_low_temperature_is_quantile_q_learning():
    named = random_arguments(7)
    plain = quantile_q_learning(**named | {"dist_q_t_selector": named["dist_q_t"]})
    soft = munchausen_quantile_q_learning(**munchausen(named, temperature=1e-9, alpha=0.0))
    torch.testing.assert_close(soft, plain)


def test_gradients_reach_the_chosen_actions_quantiles_alone():
    for function, named in (
        (quantile_q_learning, random_arguments(8)),
        (munchausen_quantile_q_learning, munchausen(random_arguments(8))),
    ):
        for tensor in named.values():
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                tensor.requires_grad_()
        function(**named).sum().backward()
        assert [name for name, value in named.items() if getattr(value, "grad", None) is not None] == ["dist_q_tm1"]
        touched = named["dist_q_tm1"].grad.abs().sum(1) > 0  # [B, A]
        assert torch.equal(touched, torch.nn.functional.one_hot(named["a_tm1"], 4).bool())


@pytest.mark.parametrize("huber_param", [0.0, 0.3, 1.0])
def test_gradients_equal_finite_differences(huber_param):
    named = random_arguments(9)
    dist = named.pop("dist_q_tm1").requires_grad_()
    assert torch.autograd.gradcheck(lambda d: quantile_q_learning(d, **named, huber_param=huber_param), dist)
    with_bonus = munchausen({"dist_q_tm1": dist.detach(), **named})
    del with_bonus["dist_q_tm1"]
    assert torch.autograd.gradcheck(
        lambda d: munchausen_quantile_q_learning(d, **with_bonus, huber_param=huber_param), dist
    )


@pytest.mark.parametrize(
    ("name", "wrong", "error"),
    [
        ("dist_q_tm1", torch.zeros(2, 2), ValueError),
        ("tau_q_tm1", torch.zeros(2), ValueError),
        ("tau_q_tm1", torch.zeros(2, 3), ValueError),
        ("a_tm1", torch.zeros(2), TypeError),
        ("a_tm1", torch.tensor([0]), ValueError),
        ("r_t", torch.zeros(2, 1), ValueError),
        ("discount_t", torch.zeros(2, dtype=torch.int64), TypeError),
        ("dist_q_t_selector", torch.zeros(2, 2, 4), ValueError),  # [B, A, K]
        ("dist_q_t_selector", torch.zeros(2, 2), ValueError),
        ("dist_q_t", torch.zeros(2, 2, 3), ValueError),  # [B, A, M]
        ("dist_q_t", torch.zeros(2, 3, 2, dtype=torch.int64), TypeError),
        ("huber_param", -1.0, ValueError),
        ("huber_param", math.nan, ValueError),
        ("q_tm1_target", torch.zeros(2, 3), ValueError),
        ("q_tm1_target", torch.zeros(2), ValueError),
        ("temperature", 0.0, ValueError),
        ("clip", 1.0, ValueError),
    ],
)
def test_other_arguments_are_refused(name, wrong, error):
    named, with_bonus = arguments(), munchausen(arguments())
    if name in named or name == "huber_param":
        with pytest.raises(error, match=f"^{name} "):
            quantile_q_learning(**named | {name: wrong})
    if name != "dist_q_t_selector":
        with pytest.raises(error, match=f"^{name} "):
            munchausen_quantile_q_learning(**with_bonus | {name: wrong})


def test_quantile_regression_refuses_other_tensors():
    with pytest.raises(ValueError, match=r"^tau has shape \(1, 5\): B must be 2, as in dist"):
        quantile_regression(torch.zeros(2, 5), torch.zeros(1, 5), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"^target has shape \(2, 3, 1\): must have rank 2, \[B, M\]"):
        quantile_regression(torch.zeros(2, 5), torch.zeros(2, 5), torch.zeros(2, 3, 1))
