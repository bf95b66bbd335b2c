"""The projection and the losses of C51 against numbers worked out by hand, loops in float64 and its Algorithm 1."""

import numpy as np
import pytest
import torch

import loss_oracles as oracles
from pixelq.losses.categorical import categorical_double_q_learning, categorical_q_learning, project

ATOMS = [0.0, 1.0, 2.0]
HALF_LOW, HALF_MIDDLE, HALF_HIGH = [0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]
FIFTY_ONE = torch.linspace(-10, 10, 51, dtype=torch.float64)


def arguments(dtype=torch.float64, **changes):
    """Two transitions, two actions, three atoms; logits are logarithms of the probabilities."""
    named = {
        "atoms_tm1": torch.tensor(ATOMS, dtype=dtype),
        "logits_tm1": torch.tensor([[HALF_LOW, HALF_HIGH], [HALF_HIGH, HALF_MIDDLE]], dtype=dtype).log(),
        "a_tm1": torch.tensor([0, 1]),
        "r_t": torch.tensor([0.5, 1.25], dtype=dtype),
        "discount_t": torch.tensor([0.5, 0.0], dtype=dtype),
        "atoms_t": torch.tensor(ATOMS, dtype=dtype),
        "logits_t": torch.tensor([[HALF_LOW, HALF_HIGH], [HALF_HIGH, HALF_LOW]], dtype=dtype).log(),
    }
    return named | changes


def random_arguments(seed, batch=9, actions=4, atoms=7, atoms_t=11):
    """Atoms at the two times differ in number, range and spacing."""
    rng = np.random.default_rng(seed)
    return {
        "atoms_tm1": torch.linspace(-2, 2, atoms, dtype=torch.float64),
        "logits_tm1": oracles.random_tensor(rng, batch, actions, atoms),
        "a_tm1": torch.tensor(rng.integers(0, actions, batch)),
        "r_t": oracles.random_tensor(rng, batch),
        "discount_t": torch.tensor(rng.choice([0.0, 0.9, 0.99], batch)),
        "atoms_t": torch.tensor(np.sort(rng.normal(0, 2, atoms_t))),
        "logits_t": oracles.random_tensor(rng, batch, actions, atoms_t),
    }


def masses(seed, batch, count):
    return torch.tensor(np.random.default_rng(seed).dirichlet(np.ones(count), batch))


def test_projection_by_hand():
    # −1 is clipped to atom 0; 0.25 gives 3/4 to atom 0 and 1/4 to atom 1; 1 stays whole; 5 is clipped to atom 2
    # 0.1 + 0.2 · 3/4 = 0.25; 0.2 · 1/4 + 0.3 = 0.35; 0.4
    z_p, probs = torch.tensor([[-1.0, 0.25, 1.0, 5.0]]), torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    assert project(z_p, probs, torch.tensor(ATOMS)).tolist()[0] == pytest.approx([0.25, 0.35, 0.4], rel=1e-6)


def test_projection_onto_uneven_atoms_by_hand():
    # atoms −1, 0, 4: −0.25 gives 1/4 to −1 and 3/4 to 0; 1 gives 3/4 to 0 and 1/4 to 4
    z_p, probs = torch.tensor([[1.0, -0.25]]), torch.tensor([[0.5, 0.5]])
    assert project(z_p, probs, torch.tensor([-1.0, 0.0, 4.0])).tolist() == [[0.125, 0.75, 0.125]]


@pytest.mark.parametrize("seed", range(5))
def test_projection_equals_a_loop(seed):
    rng = np.random.default_rng(seed)
    z_q = torch.tensor(np.sort(rng.normal(0, 1, 7)))
    z_p, probs = torch.tensor(rng.normal(0, 1.5, (9, 13))), masses(seed, 9, 13)
    z_p[:, 5] = z_q[3]  # some on an atom
    expected = oracles.project(z_p, probs, z_q)
    np.testing.assert_allclose(project(z_p, probs, z_q), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("reward", [-1.0, 0.0, 0.3, 0.4, 0.8, 1.0, 9.9, 10.0, -25.0])
@pytest.mark.parametrize("discount", [0.0, 0.5, 0.99, 0.99**3, 1.0])
def test_projection_equals_algorithm_1(reward, discount):
    probs = masses(1, 1, 51)
    z_p = reward + discount * FIFTY_ONE[None]
    expected = oracles.categorical_algorithm_1(probs[0].tolist(), reward, discount, -10.0, 10.0)
    np.testing.assert_allclose(project(z_p, probs, FIFTY_ONE)[0], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_atoms_projected_onto_themselves_stay_bit_for_bit(dtype):
    # no reward, no discounting; also where the atoms, as 0.4 apart, are no binary numbers
    for z_q in (FIFTY_ONE.to(dtype), torch.tensor([-1.0, 0.1, 0.7, 30.0], dtype=dtype)):
        probs = masses(2, 5, len(z_q)).to(dtype)
        assert torch.equal(project(z_q.expand(5, -1), probs, z_q), probs)


@pytest.mark.parametrize("steps", range(-3, 4))
def test_whole_steps_shift_the_mass(steps):
    # atoms 0 … 9 and a whole reward: b is an integer everywhere; what passes an edge stays there
    z_q, probs = torch.arange(10.0), masses(3, 1, 10).float()
    shifted = torch.zeros(10)
    for i, mass in enumerate(probs[0]):
        shifted[min(max(i + steps, 0), 9)] += mass
    torch.testing.assert_close(project(z_q[None] + steps, probs, z_q)[0], shifted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.slow
def test_no_mass_is_lost(dtype):
    rng = np.random.default_rng(4)
    z_q, probs = FIFTY_ONE.to(dtype), masses(5, 4000, 51).to(dtype)
    # as many whole rewards and discounts as others: places on atoms, between them, at the edges and beyond
    reward = torch.tensor(np.where(rng.random(4000) < 0.5, rng.integers(-3, 4, 4000), rng.normal(0, 8, 4000)))
    discount = torch.tensor(rng.choice([0.0, 0.5, 0.970299, 0.99, 1.0], 4000))
    z_p = reward[:, None].to(dtype) + discount[:, None].to(dtype) * z_q
    projected = project(z_p, probs, z_q)
    assert (projected >= 0).all()
    torch.testing.assert_close(projected.sum(1), torch.ones(4000, dtype=dtype), rtol=0, atol=2e-6)


def test_the_mean_is_kept_between_the_edges():
    z_p, probs = torch.tensor(np.random.default_rng(6).uniform(-10, 10, (50, 20))), masses(7, 50, 20)
    torch.testing.assert_close((project(z_p, probs, FIFTY_ONE) * FIFTY_ONE).sum(1), (z_p * probs).sum(1))


@pytest.mark.parametrize(("reward", "atom"), [(10.0, 50), (10.01, 50), (1e30, 50), (-10.0, 0), (-1e30, 0)])
def test_rewards_at_the_edges_and_beyond_land_on_the_edge_atoms(reward, atom):
    probs = masses(8, 1, 51)
    projected = project(torch.full((1, 51), reward).double(), probs, FIFTY_ONE)[0]
    assert projected[atom].item() == pytest.approx(1.0, rel=1e-12)
    assert projected.count_nonzero() == 1


def test_categorical_q_learning_by_hand():
    # 1: means 0.75 and 1.25, so action 1, (1/4, 1/4, 1/2) at 0.5, 1, 1.5. 0.5: 1/8 to atom 0 and 1/8 to atom 1;
    #    1: 1/4 to atom 1; 1.5: 1/4 to atom 1 and 1/4 to atom 2. Target (1/8, 5/8, 1/4) against (1/2, 1/4, 1/4):
    #    1/8 ln 2 + 7/8 ln 4 = 0.0866434 + 1.2130076 = 1.2996510
    # 2: terminated, all mass at 1.25, target (0, 3/4, 1/4) against (1/4, 1/2, 1/4):
    #    3/4 ln 2 + 1/4 ln 4 = 0.5198604 + 0.3465736 = 0.8664340
    for dtype in (torch.float32, torch.float64):
        loss = categorical_q_learning(**arguments(dtype))
        assert loss.dtype == dtype
        assert loss.tolist() == pytest.approx([1.2996510, 0.8664340], rel=1e-6)


def test_categorical_double_q_learning_by_hand():
    # 1: the selector chooses action 0, (1/2, 1/4, 1/4) at 0.5, 1, 1.5: target (1/4, 5/8, 1/8) against (1/2, 1/4, 1/4):
    #    1/4 ln 2 + 3/4 ln 4 = 0.1732868 + 1.0397208 = 1.2130076
    # 2: as above
    loss = categorical_double_q_learning(**arguments(), q_t_selector=torch.tensor([[9.0, 8.0], [0.0, 1.0]]))
    assert loss.tolist() == pytest.approx([1.2130076, 0.8664340], rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_losses_equal_loops(seed):
    named = random_arguments(seed)
    loss = categorical_q_learning(**named)
    assert loss.tolist() == pytest.approx(oracles.categorical_q_learning(**named), rel=1e-6, abs=1e-6)
    named["q_t_selector"] = oracles.random_tensor(np.random.default_rng(seed + 100), 9, 4)
    loss = categorical_double_q_learning(**named)
    assert loss.tolist() == pytest.approx(oracles.categorical_double_q_learning(**named), rel=1e-6, abs=1e-6)


def test_double_equals_plain_where_the_selector_is_the_target():
    named = random_arguments(6)
    q_t = (named["logits_t"].softmax(2) * named["atoms_t"]).sum(2)
    assert torch.equal(categorical_double_q_learning(**named, q_t_selector=q_t), categorical_q_learning(**named))


def test_gradients_are_the_prediction_less_the_target_at_the_action_taken():
    # d/dlogits of −Σ m log softmax = softmax − m; the targets are those worked out above
    named = arguments()
    named["logits_tm1"].requires_grad_()
    categorical_q_learning(**named).sum().backward()
    nothing = [0.0, 0.0, 0.0]
    expected = [[[0.375, -0.375, 0.0], nothing], [nothing, [0.25, -0.25, 0.0]]]
    np.testing.assert_allclose(named["logits_tm1"].grad, expected, atol=1e-12)


def test_no_gradient_reaches_the_target():
    named = random_arguments(7)
    named["q_t_selector"] = (named["logits_t"].softmax(2) * named["atoms_t"]).sum(2)
    for name in set(named) - {"a_tm1"}:
        named[name] = named[name].detach().requires_grad_()
    categorical_double_q_learning(**named).sum().backward()
    categorical_q_learning(**{name: named[name] for name in set(named) - {"q_t_selector"}}).sum().backward()
    assert [name for name, tensor in named.items() if tensor.grad is not None] == ["logits_tm1"]


def test_gradients_equal_finite_differences():
    named = random_arguments(8)
    logits = named["logits_tm1"].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: categorical_q_learning(**named | {"logits_tm1": x}), logits)
    z_p, probs = named["logits_t"][:, 0].clone().requires_grad_(), masses(9, 9, 11).requires_grad_()
    assert torch.autograd.gradcheck(lambda z, p: project(z, p, named["atoms_tm1"]), (z_p, probs))


@pytest.mark.parametrize(
    ("name", "wrong", "error"),
    [
        ("atoms_tm1", torch.zeros(2, 3), ValueError),
        ("atoms_tm1", torch.arange(3), TypeError),
        ("logits_tm1", torch.zeros(2, 3), ValueError),
        ("logits_tm1", torch.zeros(2, 3, 2), ValueError),  # [B, N, A]
        ("a_tm1", torch.tensor([0, 0], dtype=torch.int32), TypeError),
        ("a_tm1", torch.tensor([0]), ValueError),
        ("r_t", torch.zeros(2, 1), ValueError),
        ("discount_t", torch.zeros(2, dtype=torch.bool), TypeError),
        ("atoms_t", torch.tensor(1.0), ValueError),
        ("logits_t", torch.zeros(2, 3, 2), ValueError),
        ("logits_t", torch.zeros(1, 2, 3), ValueError),
        ("q_t_selector", torch.zeros(2), ValueError),
        ("q_t_selector", torch.zeros(2, 2, dtype=torch.int64), TypeError),
    ],
)
def test_other_tensors_are_refused(name, wrong, error):
    named = arguments(torch.float32, q_t_selector=torch.zeros(2, 2)) | {name: wrong}
    with pytest.raises(error, match=f"^{name} "):
        categorical_double_q_learning(**named)
    if name != "q_t_selector":
        del named["q_t_selector"]
        with pytest.raises(error, match=f"^{name} "):
            categorical_q_learning(**named)


def test_the_projection_refuses_other_tensors():
    z_p, probs, z_q = torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(3)
    with pytest.raises(ValueError, match=r"^z_q has shape \(3, 1\): must have rank 1, \[N\]"):
        project(z_p, probs, z_q[:, None])
    with pytest.raises(ValueError, match=r"^probs has shape \(2, 3\): M must be 4, as in z_p"):
        project(z_p, probs[:, :3], z_q)
    with pytest.raises(ValueError, match=r"^z_q has shape \(1,\): must have two atoms or more"):
        project(z_p, probs, z_q[:1])
    with pytest.raises(TypeError, match=r"^probs is torch.int64"):
        project(z_p, probs.long(), z_q)
