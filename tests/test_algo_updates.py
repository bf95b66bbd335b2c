"""What the learner makes of every algorithm: its updates in float64, spectral norm's vectors, agent files."""

import copy
import dataclasses

import numpy as np
import pytest
import safetensors.torch
import torch

import oracles
from moving import moving_learner
from pixelq.agent import load_agent, save_agent
from pixelq.algos import ALGOS
from pixelq.config import PQNConfig
from pixelq.presets import PRESETS, preset
from pixelq.training.parts import make_parts, resolve
from pixelq.training.state import agent_card
from pixelq.types import Batch, RolloutBatch
from runs import tiny

CPU = torch.device("cpu")
ACTIONS = 4


def small(name):
    config = preset(name)
    network = dataclasses.replace(config.network, channels=(4, 4, 4), width=1, hidden=16)
    return dataclasses.replace(config, precision="float32", network=network)


def make_learner(name, seed=0):
    return moving_learner(small(name), ACTIONS, CPU, torch.Generator().manual_seed(seed))


def make_batch(name, seed, size=8):
    """Weighed transitions of several lengths, some of them terminations."""
    rng = np.random.default_rng(seed)
    obs_tm1, obs_t = (torch.from_numpy(oracles.screens(rng, size)) for _ in range(2))
    a_tm1 = torch.from_numpy(rng.integers(0, ACTIONS, size))
    r_t, weight = (torch.from_numpy(rng.uniform(low, 1.0, size)).float() for low in (-1.0, 0.1))
    if isinstance(preset(name).algo, PQNConfig):
        return RolloutBatch(obs_tm1, a_tm1, r_t, weight)
    discount_t = torch.from_numpy(rng.choice([0.0, 0.99, 0.99**3], size)).float()
    return Batch(obs_tm1, a_tm1, r_t, discount_t, obs_t, weight)


def snapshot(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def through_a_file(tensors):
    """What a checkpoint gives back: the same numbers, contiguous."""
    return safetensors.torch.load(
        safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    )


def vectors(tensors):
    """Spectral norm's `u` by name."""
    return {name: tensor for name, tensor in tensors.items() if name.endswith(".u")}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


class Reference:
    """A learner's twin: networks, loss and gradients in float64 by autograd, steps by the optimisers' formulas."""

    def __init__(self, learner, config):
        self.config = config
        self.online, self.target = copy.deepcopy((learner.online, learner.target))  # one network stays one
        self.online.double()
        self.target.double()
        self.chance = torch.Generator()
        self.chance.set_state(learner.state()["generator"])
        self.optimiser = oracles.make_optimiser(config.optimiser)

    def update(self, batch):
        """Mean loss, mean value and errors before the step."""
        batch = type(batch)(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in batch))
        loss = ALGOS[type(self.config.algo)].loss
        output = loss(self.config.algo, self.online, self.target, batch, self.chance)
        mean = (batch.weight * output.loss).sum() / len(batch.weight)
        named = dict(self.online.named_parameters())
        gradients = torch.autograd.grad(mean, list(named.values()))
        clipped = oracles.clip(
            self.config.optimiser, {name: g.numpy() for name, g in zip(named, gradients, strict=True)}
        )
        moved = self.optimiser.step({name: p.detach().numpy() for name, p in named.items()}, clipped)
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(torch.from_numpy(moved[name]))
        return mean.item(), output.q_tm1.mean().item(), output.error

    def weights(self):
        return snapshot(dict(self.online.named_parameters()))

    def copy_to_target(self):
        self.target.load_state_dict(self.online.state_dict())


@pytest.mark.parametrize(
    "name", ["c51", "qr-dqn", "iqn", "munchausen-dqn", "dueling-dqn", "noisy-dqn", "rainbow", "btr", "pqn"]
)
def test_updates_are_those_of_the_loss_in_float64(name):
    learner, config = make_learner(name), small(name)
    if learner.target is not learner.online:
        learner.target.load_state_dict(make_learner(name, seed=1).online.state_dict())
    start = snapshot(dict(learner.online.named_parameters()))
    reference = Reference(learner, config)
    assert (reference.target is reference.online) == isinstance(config.algo, PQNConfig)
    for count in range(4):
        batch = make_batch(name, 10 + count)
        errors = learner.update(batch)
        loss, q_mean, expected = reference.update(batch)
        torch.testing.assert_close(errors.double(), expected, rtol=1e-4, atol=1e-5)  # unweighted
        metrics = learner.fetch_metrics()
        assert metrics.loss == pytest.approx(loss, rel=1e-4, abs=1e-6)
        assert metrics.q_mean == pytest.approx(q_mean, rel=1e-4, abs=1e-5)
        # float32 weights of 0.1 hold steps of 5e-5 to about 1e-4
        assert oracles.relative_error(start, learner.weights(), reference.weights()) < 3e-4, count
        if count == 1:
            learner.copy_to_target()
            reference.copy_to_target()
    for tensor, moved in zip(start.values(), learner.online.parameters(), strict=True):
        assert not torch.equal(tensor, moved)
    for u, wanted in zip(learner.online.buffers(), reference.online.buffers(), strict=True):
        torch.testing.assert_close(u.double(), wanted, rtol=0, atol=1e-5)


def test_spectral_norms_vectors_go_to_the_target_with_the_weights():
    learner = make_learner("btr")
    first = snapshot(vectors(learner.online.state_dict()))
    assert len(first) == 12  # three stages, two blocks each, two convolutions each
    learner.update(make_batch("btr", 0))
    moved = snapshot(vectors(learner.online.state_dict()))
    assert not any(torch.equal(first[name], moved[name]) for name in first)
    assert_equal(vectors(learner.target.state_dict()), first)  # the target's stay, whatever it is asked
    learner.copy_to_target()
    assert_equal(learner.target.state_dict(), learner.online.state_dict())
    learner.update(make_batch("btr", 1))
    assert_equal(vectors(learner.target.state_dict()), moved)  # and are its own


def test_spectral_norms_vectors_move_once_an_update_and_not_by_looking():
    learner = make_learner("btr")
    learner.update(make_batch("btr", 0))
    kept = snapshot(learner.weights())
    obs = make_batch("btr", 1).obs_t
    for grad in (torch.no_grad, torch.inference_mode):
        with grad():
            learner.online.q_values(obs)
    learner.state()
    assert_equal(vectors(learner.weights()), vectors(kept))
    learner.update(make_batch("btr", 1))
    for name, u in vectors(learner.weights()).items():
        # one power iteration, Miyato et al. 2018, Algorithm 1: v is Wᵀu, the next u is Wv, both of length 1
        matrix = kept[name.removesuffix("u") + "weight"].double().flatten(1)
        v = torch.nn.functional.normalize(matrix.T @ kept[name].double(), dim=0)
        torch.testing.assert_close(u.double(), torch.nn.functional.normalize(matrix @ v, dim=0), rtol=0, atol=1e-6)
        assert not torch.equal(u, kept[name])


def test_spectral_norms_vectors_are_saved_and_restored():
    learner = make_learner("btr")
    learner.update(make_batch("btr", 0))
    learner.copy_to_target()
    learner.update(make_batch("btr", 1))
    weights, state = through_a_file(learner.weights()), through_a_file(learner.state())
    assert len(vectors(weights)) == len(vectors(state)) == 12
    for name, u in vectors(weights).items():
        assert not torch.equal(u, state[f"target.{name}"]), name  # each network has its own

    begun = make_learner("btr", seed=3)
    begun.load_weights(weights)
    assert_equal(vectors(begun.online.state_dict()), vectors(weights))
    assert_equal(vectors(begun.target.state_dict()), vectors(weights))  # both begin with the same weights

    restored = make_learner("btr", seed=4)
    restored.update(make_batch("btr", 9))
    restored.restore(weights, state)
    assert_equal(restored.online.state_dict(), learner.online.state_dict())
    assert_equal(restored.target.state_dict(), learner.target.state_dict())
    for one in (learner, restored):
        one.update(make_batch("btr", 2))
    assert_equal(restored.online.state_dict(), learner.online.state_dict())


@pytest.mark.parametrize("name", PRESETS)
def test_an_agent_file_gives_the_learners_values(name, tmp_path):
    parts = make_parts(resolve(tiny(name, precision="float32")))
    learner, actions = parts.learner, len(parts.envs.action_meanings)
    for seed in range(2):
        batch = make_batch(name, seed)
        parts.engine.update(batch._replace(a_tm1=batch.a_tm1 % actions))
    save_agent(tmp_path / "agent.safetensors", learner.weights(), agent_card(parts))
    agent = load_agent(tmp_path / "agent.safetensors")
    assert (agent.card.algo, agent.card.network, agent.card.preset) == (parts.config.algo, parts.config.network, name)
    obs = oracles.screens(np.random.default_rng(7), 16)
    with torch.no_grad():
        expected = learner.online.eval().q_values(torch.from_numpy(obs)).numpy()
    np.testing.assert_array_equal(agent.q_values(obs), expected)
    np.testing.assert_array_equal(agent.q_values(obs), expected)  # asking changes nothing
    np.testing.assert_array_equal(agent.act(obs), expected.argmax(axis=1))
    assert len(np.unique(expected, axis=0)) > 1
