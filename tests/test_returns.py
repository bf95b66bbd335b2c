"""Returns of sequences against numbers worked out by hand, loops in float64 and the replay memory's n steps."""

import numpy as np
import pytest
import torch

import loss_oracles as oracles
from naive_replay import GAMMA, Pair, drawn
from pixelq.returns import lambda_returns, n_step_return

# three games of four steps: one that goes on, one that terminates at step 1, one that is truncated there
R_T = [[1.0] * 3, [2.0] * 3, [3.0] * 3, [4.0] * 3]
DISCOUNT_T = [[0.5, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
V_T = [[10.0] * 3, [20.0] * 3, [30.0] * 3, [40.0] * 3]


def tensors(dtype=torch.float64):
    return tuple(torch.tensor(rows, dtype=dtype) for rows in (R_T, DISCOUNT_T, V_T))


def random_tensors(seed, length=12, width=5):
    """Rewards, discounts with ends, values and λ with ends of the other kind."""
    rng = np.random.default_rng(seed)
    shape = (length, width)
    discount_t = torch.tensor(rng.choice([0.0, 0.9, 0.99], shape, p=[0.2, 0.4, 0.4]))
    lambda_t = torch.tensor(rng.choice([0.0, 0.65, 1.0], shape, p=[0.2, 0.6, 0.2]))
    return oracles.random_tensor(rng, *shape), discount_t, oracles.random_tensor(rng, *shape), lambda_t


@pytest.mark.parametrize(
    ("n", "going_on", "terminated"),
    [
        # r + v/2
        (1, [6.0, 12.0, 18.0, 24.0], [6.0, 2.0, 18.0, 24.0]),
        # 1 + 12/2, 2 + 18/2, 3 + 24/2; one step is left: 4 + 40/2. Terminated: 1 + 2/2
        (2, [7.0, 11.0, 15.0, 24.0], [2.0, 2.0, 15.0, 24.0]),
        # 1 + 11/2, 2 + 15/2; two steps are left: 3 + 24/2; one: 24
        (3, [6.5, 9.5, 15.0, 24.0], [2.0, 2.0, 15.0, 24.0]),
        # all there is: 1 + (2 + (3 + (4 + 40/2)/2)/2)/2
        (4, [5.75, 9.5, 15.0, 24.0], [2.0, 2.0, 15.0, 24.0]),
        (9, [5.75, 9.5, 15.0, 24.0], [2.0, 2.0, 15.0, 24.0]),
    ],
)
def test_n_step_return_by_hand(n, going_on, terminated):
    returns = n_step_return(*tensors(), n)
    assert returns[:, 0].tolist() == going_on
    assert returns[:, 1].tolist() == terminated


def test_lambda_returns_by_hand():
    # λ 1/2: G₃ = 4 + 40/2; G₂ = 3 + (30/2 + 24/2)/2 = 16.5; G₁ = 2 + (20/2 + 16.5/2)/2; G₀ = 1 + (10/2 + G₁/2)/2
    # terminated: G₁ = 2, G₀ = 1 + (5 + 1)/2. Truncated, λ 0 there: G₁ = 2 + 20/2 = 12, G₀ = 1 + (5 + 6)/2
    lambda_t = torch.full((4, 3), 0.5).double()
    lambda_t[1, 2] = 0
    returns = lambda_returns(*tensors(), lambda_t).T.tolist()
    assert returns == [[6.28125, 11.125, 16.5, 24.0], [4.0, 2.0, 16.5, 24.0], [6.5, 12.0, 16.5, 24.0]]


def test_one_lambda_for_all_steps():
    assert torch.equal(lambda_returns(*tensors(), 0.5), lambda_returns(*tensors(), torch.full((4, 3), 0.5)))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 12, 20])
@pytest.mark.parametrize("seed", range(3))
def test_n_step_return_equals_a_loop(seed, n):
    r_t, discount_t, v_t, _ = random_tensors(seed)
    expected = oracles.n_step_return(r_t, discount_t, v_t, n)
    np.testing.assert_allclose(n_step_return(r_t, discount_t, v_t, n), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_lambda_returns_equal_a_loop_over_all_n_step_returns(seed):
    named = random_tensors(seed)
    np.testing.assert_allclose(lambda_returns(*named), oracles.lambda_returns(*named), rtol=1e-6, atol=1e-6)


def test_lambda_zero_is_one_step():
    r_t, discount_t, v_t, _ = random_tensors(6)
    assert torch.equal(lambda_returns(r_t, discount_t, v_t, 0.0), r_t + discount_t * v_t)
    assert torch.equal(n_step_return(r_t, discount_t, v_t, 1), r_t + discount_t * v_t)


def test_lambda_one_is_the_discounted_sum_and_the_last_value():
    rng = np.random.default_rng(7)
    r_t, v_t = oracles.random_tensor(rng, 6, 2), oracles.random_tensor(rng, 6, 2)
    discount_t = torch.full((6, 2), 0.9).double()
    # Σ γᵏ r_{t+k} + γ^(6−t) v₅, as a matrix product
    k = torch.arange(6).double()
    weights = torch.triu(0.9 ** (k[None] - k[:, None]))
    expected = weights @ r_t + 0.9 ** (6 - k[:, None]) * v_t[-1]
    torch.testing.assert_close(lambda_returns(r_t, discount_t, v_t, 1.0), expected)
    torch.testing.assert_close(n_step_return(r_t, discount_t, v_t, 6), expected)


def test_right_values_are_their_own_returns():
    # v_t = r_{t+1} + discount_{t+1} · v_{t+1} everywhere: every n and every λ gives the same
    r_t, discount_t, v_t, lambda_t = random_tensors(8)
    for t in reversed(range(11)):
        v_t[t] = r_t[t + 1] + discount_t[t + 1] * v_t[t + 1]
    expected = r_t + discount_t * v_t
    for n in (2, 3, 12):
        torch.testing.assert_close(n_step_return(r_t, discount_t, v_t, n), expected)
    torch.testing.assert_close(lambda_returns(r_t, discount_t, v_t, lambda_t), expected)


@pytest.mark.parametrize("end", range(6))
def test_no_return_crosses_a_termination(end):
    r_t, discount_t, v_t, lambda_t = random_tensors(9)
    discount_t[end] = 0
    others = [tensor.clone() for tensor in (r_t, discount_t, v_t, lambda_t)]
    others[2][end] = 1e6  # a terminated game has no value after it
    for tensor in (others[0], others[2]):
        tensor[end + 1 :] = 1e6  # another game
    others[1][end + 1 :] = others[3][end + 1 :] = 1
    upto = slice(0, end + 1)
    for n in (1, 2, 3, 12):
        assert torch.equal(n_step_return(*others[:3], n)[upto], n_step_return(r_t, discount_t, v_t, n)[upto])
    assert torch.equal(lambda_returns(*others)[upto], lambda_returns(r_t, discount_t, v_t, lambda_t)[upto])


@pytest.mark.parametrize("end", range(6))
def test_a_lambda_of_zero_ends_the_sum_at_a_truncation(end):
    r_t, discount_t, v_t, lambda_t = random_tensors(10)
    discount_t[end], lambda_t[end] = 0.9, 0
    others = [tensor.clone() for tensor in (r_t, discount_t, v_t, lambda_t)]
    for tensor in (others[0], others[2]):
        tensor[end + 1 :] = 1e6
    upto = slice(0, end + 1)
    returns = lambda_returns(*others)
    assert torch.equal(returns[upto], lambda_returns(r_t, discount_t, v_t, lambda_t)[upto])
    assert torch.equal(returns[end], r_t[end] + 0.9 * v_t[end])  # the value of the last observation counts
    # a sequence that ends there is the same
    cut = lambda_returns(*(tensor[upto] for tensor in (r_t, discount_t, v_t, lambda_t)))
    torch.testing.assert_close(cut, returns[upto], rtol=1e-12, atol=1e-12)


def value(obs):
    """Any function of an observation [..., 4, 84, 84] that tells them apart."""
    weights = torch.linspace(-1, 1, 4 * 84 * 84, dtype=torch.float64).sin().reshape(4, 84, 84)
    return (obs.double() * weights).sum((-3, -2, -1)) / 1000


@pytest.mark.parametrize("n", [1, 3, 5])
def test_n_step_return_equals_the_replay_memorys(n):
    # the same games, as a sequence and as sampled transitions; some terminate, some are truncated
    pair = Pair(num_envs=4, capacity=1000, n_step=n, seed=n)
    pair.play(120)
    steps = [list(row) for row in zip(*pair.steps, strict=True)]  # [T][B]
    terminated, truncated, ignored = (
        torch.tensor([[getattr(step, name) for step in row] for row in steps])
        for name in ("terminated", "truncated", "ignored")
    )
    assert (truncated & ~terminated).sum() > 5
    assert terminated.sum() > 5
    r_t = torch.tensor([[step.reward for step in row] for row in steps], dtype=torch.float64)
    v_t = torch.stack([value(torch.tensor(np.stack([step.next_obs for step in row]))) for row in steps])
    discount_t = GAMMA * (~terminated).double()
    # a truncated step takes its own value into its reward; the ignored step that follows belongs to no game
    ends = truncated | ignored
    returns = n_step_return(r_t + ends * discount_t * v_t, discount_t * ~ends, v_t, n)
    rows, envs = np.array(sorted(pair.sampleable())).T
    batch = pair.buffer.batch(drawn(rows, envs))
    expected = batch.r_t.double() + batch.discount_t.double() * value(batch.obs_t)
    torch.testing.assert_close(returns[rows, envs], expected, rtol=1e-5, atol=1e-5)


def test_no_gradient_flows_through():
    r_t, discount_t, v_t, lambda_t = (tensor.requires_grad_() for tensor in random_tensors(11))
    assert not n_step_return(r_t, discount_t, v_t, 3).requires_grad
    assert not lambda_returns(r_t, discount_t, v_t, lambda_t).requires_grad
    assert not lambda_returns(r_t, discount_t, v_t, 0.5).requires_grad


def test_shape_and_dtype_are_kept():
    for dtype in (torch.float32, torch.float64):
        named = tensors(dtype)
        for returns in (n_step_return(*named, 2), lambda_returns(*named, 0.5)):
            assert (returns.shape, returns.dtype) == ((4, 3), dtype)


@pytest.mark.parametrize(
    ("name", "wrong", "error"),
    [
        ("r_t", torch.zeros(4), ValueError),
        ("r_t", torch.zeros(4, 3, dtype=torch.int64), TypeError),
        ("discount_t", torch.zeros(4), ValueError),
        ("discount_t", torch.zeros(4, 1), ValueError),
        ("discount_t", torch.zeros(4, 3, dtype=torch.bool), TypeError),
        ("v_t", torch.zeros(5, 3), ValueError),  # one value too many
        ("v_t", torch.zeros(4, 3, 1), ValueError),
        ("lambda_", torch.zeros(4), ValueError),
        ("lambda_", torch.tensor(0.5), ValueError),
        ("lambda_", torch.zeros(4, 3, dtype=torch.bool), TypeError),
        ("lambda_", 65.0, ValueError),
        ("n", 0, ValueError),
    ],
)
def test_other_arguments_are_refused(name, wrong, error):
    named = dict(zip(("r_t", "discount_t", "v_t"), tensors(torch.float32), strict=True))
    if name != "n":
        with pytest.raises(error, match=f"^{name} "):
            lambda_returns(**{"lambda_": 0.5} | named | {name: wrong})
    if name != "lambda_":
        with pytest.raises(error, match=f"^{name} "):
            n_step_return(**{"n": 2} | named | {name: wrong})
