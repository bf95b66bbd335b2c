"""Every algorithm's loss against its paper, in float64 from the networks' outputs: which network gives which part,
with which noise and fractions, and where gradients go."""

import copy
import dataclasses
import functools

import numpy as np
import pytest
import torch
from scipy import special

import loss_oracles as oracles
from algo_oracles import expected
from oracles import screens
from pixelq.algos import ALGOS
from pixelq.config import (
    C51Config,
    DQNConfig,
    IQNConfig,
    MunchausenConfig,
    NetworkConfig,
    ObsShape,
    PQNConfig,
    QRConfig,
)
from pixelq.networks import QNetwork
from pixelq.networks.noisy import NoisyLinear
from pixelq.types import Batch, RolloutBatch

ACTIONS = 4
GAMMA = 0.9
SIZE = 12
IQN = IQNConfig(quantiles=5, target_quantiles=7, policy_quantiles=3, cosines=6)
C51 = C51Config(atoms=9, v_min=-3.0, v_max=5.0)
ALGO = {
    "dqn": DQNConfig(),
    "dqn-mse": DQNConfig(loss="mse"),
    "dqn-double": DQNConfig(double=True),
    "munchausen": MunchausenConfig(),
    "munchausen-mse": MunchausenConfig(loss="mse", munchausen_alpha=0.4, munchausen_temperature=0.5),
    "c51": C51,
    "c51-double": dataclasses.replace(C51, double=True),
    "qr": QRConfig(quantiles=5),
    "qr-double": QRConfig(quantiles=5, double=True, kappa=0.0),
    "iqn": IQN,
    "iqn-double": dataclasses.replace(IQN, double=True, kappa=0.5),
    "iqn-munchausen": dataclasses.replace(IQN, munchausen=True),
    "pqn": PQNConfig(),
    "pqn-huber": PQNConfig(loss="huber"),
    "pqn-mse": PQNConfig(loss="mse"),
}
PLAIN = NetworkConfig(channels=(4, 4, 4), hidden=16, init="he_normal")
NETWORK = {"plain": PLAIN, "dueling-noisy": dataclasses.replace(PLAIN, dueling=True, noisy=True)}

every_algo = pytest.mark.parametrize("algo", ALGO)
every_network = pytest.mark.parametrize("kind", NETWORK)
every_double = pytest.mark.parametrize("algo", ["dqn-double", "c51-double", "qr-double", "iqn-double"])


def make_network(algo, kind, seed):
    """A network whose values the screens decide; they are a few units apart."""
    return copy.deepcopy(made(algo, kind, seed))


@functools.cache
def made(algo, kind, seed):
    config = ALGO[algo]
    network = ALGOS[type(config)].make_network(NETWORK[kind], config, ACTIONS, generator(seed), ObsShape()).eval()
    named = dict(network.named_parameters())
    obs = torch.from_numpy(screens(np.random.default_rng(9), 32))
    tau = (torch.rand(32, 5, generator=generator()),) if isinstance(config, IQNConfig) else ()
    with torch.no_grad():
        for name, parameter in named.items():
            if name.endswith("bias"):  # what all screens have in common
                parameter.zero_()
        scale = 2 / network(obs, *tau).std()
        for name, parameter in named.items():
            if name.endswith("output.weight"):
                parameter.mul_(scale)
    return network.train()


def make_networks(algo, kind):
    return make_network(algo, kind, 5), make_network(algo, kind, 7)


@functools.cache
def make_batch(algo, seed=0, size=SIZE):
    """Rewards of several sizes; terminations, and sums of one to three rewards."""
    rng = np.random.default_rng(seed)
    obs_tm1, obs_t = (torch.from_numpy(screens(rng, size)) for _ in range(2))
    a_tm1 = torch.from_numpy(rng.permutation(np.arange(size) % ACTIONS))
    r_t = torch.tensor(rng.choice([-1.0, 0.0, 0.5, 1.0, 2.7], size), dtype=torch.float32)
    discount_t = torch.tensor(rng.permutation([0.0, 0.0, GAMMA, GAMMA**2] + [GAMMA**3] * (size - 4))).float()
    weight = torch.tensor(rng.uniform(0.1, 1.0, size), dtype=torch.float32)
    if isinstance(ALGO[algo], PQNConfig):
        return RolloutBatch(obs_tm1, a_tm1, 2 * r_t, weight)
    return Batch(obs_tm1, a_tm1, r_t, discount_t, obs_t, weight)


def generator(seed=5):
    return torch.Generator().manual_seed(seed)


def loss(algo, online, target, batch, chance=None):
    config = ALGO[algo] if isinstance(algo, str) else algo
    return ALGOS[type(config)].loss(config, online, target, batch, chance or generator())


@pytest.mark.parametrize("seed", range(2))
@every_network
@every_algo
def test_the_loss_is_the_papers(algo, kind, seed):
    online, target = make_networks(algo, kind)
    batch, chance, same = make_batch(algo, seed), generator(), generator()
    for _ in range(2):  # random numbers continue where the first loss stopped
        output = loss(algo, online, target, batch, chance)
        by_hand = expected(ALGO[algo], online, target, batch, same)
        for found, wanted in zip(output, by_hand, strict=True):
            assert found.dtype == torch.float32
            np.testing.assert_allclose(found.detach(), wanted, rtol=2e-5, atol=2e-5)
    assert torch.equal(chance.get_state(), same.get_state())
    assert output.loss.requires_grad
    assert not output.q_tm1.requires_grad
    assert not output.error.requires_grad
    unweighted = loss(algo, online, target, batch._replace(weight=torch.ones(())), chance=None)
    assert torch.equal(unweighted.loss, loss(algo, online, target, batch).loss)  # weighing is the learner's


@every_algo
def test_the_cases_have_what_tells_mistakes_apart(algo):
    online, target = make_networks(algo, "plain")
    batch = make_batch(algo)
    assert len(set(batch.a_tm1.tolist())) == ACTIONS
    with torch.no_grad():
        best = [network.q_values(batch.obs_tm1).argmax(dim=1).tolist() for network in (online, target)]
    assert all(len(set(actions)) > 1 for actions in best)
    errors = loss(algo, online, target, batch).error.abs()
    if hasattr(ALGO[algo], "loss"):  # both sides of Huber's threshold
        assert (errors > 1).any()
        assert (errors < 1).any()
    if isinstance(batch, Batch):
        assert batch.discount_t.unique().tolist() == pytest.approx([0.0, GAMMA**3, GAMMA**2, GAMMA])
        future = batch._replace(obs_t=batch.obs_t.flip(0))
        changed = (loss(algo, online, target, future).loss - loss(algo, online, target, batch).loss).abs() > 1e-5
        assert not changed[batch.discount_t == 0].any()  # nothing after a termination counts
        assert changed[batch.discount_t > 0].any()


def watch_gradients(network, into, name):
    """Note for each pass whether a graph is built."""
    network.torso.register_forward_pre_hook(lambda *_: into.append((name, torch.is_grad_enabled())))


@every_network
@every_algo
def test_gradients_reach_the_online_network_alone(algo, kind):
    online, target = make_networks(algo, kind)
    passes = []
    watch_gradients(online, passes, "online")
    watch_gradients(target, passes, "target")
    loss(algo, online, target, make_batch(algo)).loss.mean().backward()
    assert all(parameter.grad is None for parameter in target.parameters())
    for name, parameter in online.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    # one pass learns; the target's and the selection's build no graph, which would be kept for nothing
    assert [built for name, built in passes if name == "online"] == [False] * is_double(algo) + [True]
    assert [built for name, built in passes if name == "target"].count(True) == 0
    assert any(name == "target" for name, _ in passes) == (not isinstance(ALGO[algo], PQNConfig))


def is_double(algo):
    return getattr(ALGO[algo], "double", False)


@every_network
@every_algo
def test_the_target_is_a_constant_even_if_it_is_the_online_network(algo, kind):
    both, apart, batch = make_network(algo, kind, 1), make_network(algo, kind, 1), make_batch(algo)
    loss(algo, both, both, batch).loss.mean().backward()
    loss(algo, apart, copy.deepcopy(apart), batch).loss.mean().backward()
    for one, other in zip(both.parameters(), apart.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


@every_network
@every_algo
def test_chance_decides_the_loss_where_there_is_any(algo, kind):
    online, target = make_networks(algo, kind)
    batch, chance = make_batch(algo), generator()
    start = chance.get_state()
    first = loss(algo, online, target, batch, chance)
    moved = not torch.equal(chance.get_state(), start)
    next_ = loss(algo, online, target, batch, chance)
    chance.set_state(start)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)  # no other source
        again = loss(algo, online, target, batch, chance)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    random = kind == "dueling-noisy" or isinstance(ALGO[algo], IQNConfig)
    assert moved == random
    assert torch.equal(first.loss, next_.loss) != random


def noise_in_use(network):
    """Tells the noise of all noisy layers: each one's biases, μ + σε."""
    with torch.no_grad():
        layers = [layer for layer in network.modules() if isinstance(layer, NoisyLinear)]
        return torch.cat([layer(torch.zeros(layer.in_features)) for layer in layers]).numpy().tobytes()


@pytest.mark.parametrize(
    ("algo", "passes"),
    [
        ("dqn", "target online"),
        ("dqn-double", "target selection online"),
        ("munchausen", "target online"),
        ("c51", "target online"),
        ("c51-double", "target selection online"),
        ("qr", "target online"),
        ("qr-double", "target selection online"),
        ("iqn", "target target online"),  # its quantiles; its means, which select
        ("iqn-double", "target selection online"),
        ("iqn-munchausen", "target target online"),  # its quantiles; the policy's values
        ("pqn", "online"),
    ],
)
def test_selection_target_and_online_values_have_noise_of_their_own(algo, passes):
    # Fortunato et al. 2018, section 3.1: three independent draws, ζ, ζ' and ζ''
    network = make_network(algo, "dueling-noisy", 1)  # one network in all parts, so that only noise tells them apart
    noises = []
    network.head.body.register_forward_hook(lambda *_: noises.append(noise_in_use(network)))
    loss(algo, network, network, make_batch(algo))
    names = passes.split()
    assert len(noises) == len(names)
    for one, of in zip(noises, names, strict=True):
        for other, also_of in zip(noises, names, strict=True):
            assert (one == other) == (of == also_of)


@every_double
def test_double_is_plain_where_the_online_network_is_the_target(algo):
    network, batch = make_network(algo, "plain", 1), make_batch(algo)
    plain = dataclasses.replace(ALGO[algo], double=False)
    for one, other in zip(
        loss(algo, network, network, batch), loss(plain, network, copy.deepcopy(network), batch), strict=True
    ):
        torch.testing.assert_close(one, other)


@every_double
def test_double_differs_where_the_two_choose_differently(algo):
    online, target = make_networks(algo, "plain")
    batch = make_batch(algo, size=24)
    double, single = (
        loss(dataclasses.replace(ALGO[algo], double=double), online, target, batch).loss for double in (True, False)
    )
    with torch.no_grad():
        chosen = [network.q_values(batch.obs_t).argmax(dim=1) for network in (online, target)]
    same = (chosen[0] == chosen[1]) | (batch.discount_t == 0)
    assert 0 < same.sum() < 24
    torch.testing.assert_close(double[same], single[same])
    assert ((double - single).abs() > 1e-5)[~same].all()


@pytest.mark.parametrize("temperature", [0.03, 0.5])
def test_munchausen_without_its_bonus_is_soft_q_learning(temperature):
    # Haarnoja et al. 2017, eq. 3: V = τ log Σ exp(q / τ); values of the observation before do not count
    config = MunchausenConfig(munchausen_alpha=0.0, munchausen_temperature=temperature, loss="mse")
    online, target = make_networks("munchausen", "plain")
    batch = make_batch("munchausen")
    with torch.no_grad():
        q_t, q_tm1 = target.q_values(batch.obs_t).double().numpy(), online.q_values(batch.obs_tm1).double().numpy()
    v_t = temperature * special.logsumexp(q_t / temperature, axis=1)
    errors = batch.r_t.numpy() + batch.discount_t.numpy() * v_t - q_tm1[range(SIZE), batch.a_tm1]
    output = loss(config, online, target, batch)
    np.testing.assert_allclose(output.error, errors, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(output.loss.detach(), errors**2, rtol=1e-5, atol=1e-5)
    cold = loss(dataclasses.replace(config, munchausen_temperature=1e-7), online, target, batch)
    torch.testing.assert_close(cold.error, loss("dqn", online, target, batch).error, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.03, 0.5])
def test_implicit_munchausen_without_its_bonus_is_soft_q_learning_of_quantiles(temperature):
    config = dataclasses.replace(IQN, munchausen=True, munchausen_alpha=0.0, munchausen_temperature=temperature)
    online, target = make_networks("iqn", "plain")
    batch, chance = make_batch("iqn"), generator()
    with torch.no_grad():
        z_t = target(batch.obs_t, torch.rand(SIZE, 7, generator=chance)).double().numpy()  # [B, 7, A]
        tau = torch.rand(SIZE, 5, generator=chance)
        z = online(batch.obs_tm1, tau).double()[range(SIZE), :, batch.a_tm1]  # [B, 5]
    log_pi = special.log_softmax(z_t.mean(axis=1) / temperature, axis=1)[:, None]
    soft = (np.exp(log_pi) * (z_t - temperature * log_pi)).sum(axis=2)
    aims = batch.r_t.numpy()[:, None] + batch.discount_t.numpy()[:, None] * soft
    wanted = oracles.quantile_regression(z, tau, torch.from_numpy(aims), 1.0)
    np.testing.assert_allclose(loss(config, online, target, batch).loss.detach(), wanted, rtol=1e-5, atol=1e-5)
    # the mean of the targets is the soft value of the means
    means = temperature * special.logsumexp(z_t.mean(axis=1) / temperature, axis=1)
    np.testing.assert_allclose(soft.mean(axis=1), means, rtol=1e-9)


def test_the_bonus_is_paid_between_its_clip_and_nothing():
    online, target = make_networks("munchausen", "plain")
    batch = make_batch("munchausen", size=24)
    paid, unpaid = (
        loss(dataclasses.replace(ALGO["munchausen"], munchausen_alpha=alpha), online, target, batch).error
        for alpha in (0.9, 0.0)
    )
    bonus = (paid - unpaid).numpy()
    assert bonus.min() == pytest.approx(-0.9, abs=1e-5)  # clipped
    assert bonus.max() == pytest.approx(0.0, abs=1e-5)  # the best action's
    assert ((bonus > -0.89) & (bonus < -0.01)).any()


@every_algo
def test_the_config_finds_the_algorithm_and_its_network(algo):
    config = ALGO[algo]
    found = ALGOS[type(config)]
    assert found.memory == ("rollout" if isinstance(config, PQNConfig) else "replay")
    network = make_network(algo, "plain", 1)
    assert isinstance(network, QNetwork)
    assert network.num_actions == ACTIONS
    arguments = (torch.rand(2, 5, generator=generator()),) if isinstance(config, IQNConfig) else ()
    shape = {C51Config: (2, ACTIONS, 9), QRConfig: (2, 5, ACTIONS), IQNConfig: (2, 5, ACTIONS)}
    obs = make_batch(algo).obs_tm1[:2]
    assert tuple(network(obs, *arguments).shape) == shape.get(type(config), (2, ACTIONS))
    assert network.q_values(obs).shape == (2, ACTIONS)
