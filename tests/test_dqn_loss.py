"""The loss of deep Q-learning against the notebook's own arithmetic, in NumPy."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from pixelq.algos import ALGOS, dqn
from pixelq.config import DQNConfig, NetworkConfig, ObsShape
from pixelq.networks import make_network
from pixelq.types import Batch

ACTIONS = 3
GAMMA = 0.99
CHANCE = torch.Generator()
NOTEBOOK = DQNConfig(loss="huber", terminal_target=-1.0)


def network(seed, scale=1.0):
    made = make_network(NetworkConfig(channels=(3, 4, 5), hidden=8), ACTIONS, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        made.head.output.weight *= scale
        made.head.output.bias *= scale
    return made


def make_batch(seed=0, size=12, done=(2, 5, 11)):
    rng = np.random.default_rng(seed)
    discounts = np.full(size, GAMMA, np.float32)
    discounts[list(done)] = 0.0
    return Batch(
        torch.from_numpy(rng.integers(0, 256, (size, 4, 84, 84), dtype=np.uint8)),
        torch.from_numpy(rng.integers(0, ACTIONS, size)),
        torch.from_numpy(rng.choice([-1.0, 0.0, 1.0], size).astype(np.float32)),
        torch.from_numpy(discounts),
        torch.from_numpy(rng.integers(0, 256, (size, 4, 84, 84), dtype=np.uint8)),
    )


@pytest.fixture(scope="module")
def online():
    return network(1)


@pytest.fixture(scope="module")
def target():
    return network(2, scale=30.0)  # so that errors are on both sides of Huber's threshold


def values(net, obs):
    return net.q_values(obs).detach().numpy()


def notebook_errors(batch, online, target, quirk):
    """updated_q_values and q_action as the notebook computes them, float32."""
    done_sample = (batch.discount_t == 0).numpy().astype(np.float32)
    rewards_sample = batch.r_t.numpy()
    future_rewards = values(target, batch.obs_t)
    updated_q_values = rewards_sample + np.float32(GAMMA) * np.max(future_rewards, axis=1)
    if quirk:
        updated_q_values = updated_q_values * (1 - done_sample) - done_sample
    else:
        updated_q_values = np.where(done_sample == 1, rewards_sample, updated_q_values)
    masks = np.eye(ACTIONS, dtype=np.float32)[batch.a_tm1.numpy()]
    q_action = np.sum(np.multiply(values(online, batch.obs_tm1), masks), axis=1)
    return updated_q_values - q_action


def keras_huber(error, delta=1.0):
    """Keras' formula; its mean over the batch is the loss."""
    size = np.abs(error)
    return np.where(size <= delta, 0.5 * np.square(error), delta * size - 0.5 * delta * delta)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("quirk", [True, False])
@pytest.mark.parametrize("name", ["huber", "mse"])
def test_the_loss_is_the_notebooks(online, target, name, quirk, seed):
    batch = make_batch(seed)
    config = DQNConfig(loss=name, terminal_target=-1.0 if quirk else None)
    output = dqn.loss(config, online, target, batch, CHANCE)
    error = notebook_errors(batch, online, target, quirk)
    assert (np.abs(error) > 1).any()
    assert (np.abs(error) < 1).any()
    expected = keras_huber(error) if name == "huber" else np.square(error)
    assert output.loss.shape == (12,)
    assert output.loss.dtype == torch.float32
    np.testing.assert_allclose(output.loss.detach().numpy(), expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(output.error.numpy(), error, rtol=1e-6, atol=1e-6)  # signed, and not cut by Huber
    assert not output.error.requires_grad


def test_the_quirk_is_the_target_itself(online, target):
    batch = make_batch()
    chosen = values(online, batch.obs_tm1)[range(12), batch.a_tm1]
    loss = dqn.loss(DQNConfig(loss="mse", terminal_target=-1.0), online, target, batch, CHANCE).loss.detach().numpy()
    done = [2, 5, 11]
    # exactly −1 − q, whatever the last reward was
    np.testing.assert_array_equal(loss[done], np.square(np.float32(-1) - chosen[done]))
    other = batch._replace(r_t=torch.where(batch.discount_t == 0, 123.0, batch.r_t))
    same = dqn.loss(DQNConfig(loss="mse", terminal_target=-1.0), online, target, other, CHANCE).loss.detach().numpy()
    np.testing.assert_array_equal(same, loss)


def test_without_the_quirk_the_last_reward_counts(online, target):
    batch = make_batch()
    chosen = values(online, batch.obs_tm1)[range(12), batch.a_tm1]
    loss = dqn.loss(DQNConfig(loss="mse"), online, target, batch, CHANCE).loss.detach().numpy()
    done = [2, 5, 11]
    np.testing.assert_array_equal(loss[done], np.square(batch.r_t.numpy()[done] - chosen[done]))


def test_the_quirk_touches_terminal_transitions_alone(online, target):
    batch = make_batch(done=())
    plain = dqn.loss(DQNConfig(), online, target, batch, CHANCE).loss
    assert torch.equal(dqn.loss(NOTEBOOK, online, target, batch, CHANCE).loss, plain)


def test_the_batch_is_left_as_it_was(online, target):
    batch = make_batch()
    before = copy.deepcopy(batch)
    dqn.loss(NOTEBOOK, online, target, batch, CHANCE).loss.mean().backward()
    online.zero_grad()
    assert all(torch.equal(now, then) for now, then in zip(batch, before, strict=True))


def test_discounts_come_from_the_batch(online, target):
    # with n steps the batch brings γᵐ, and the config's γ must not enter a second time
    batch = make_batch(done=())
    batch = batch._replace(discount_t=torch.full((12,), 0.5))
    loss = dqn.loss(DQNConfig(loss="mse", gamma=0.9, n_step=3), online, target, batch, CHANCE).loss.detach().numpy()
    chosen = values(online, batch.obs_tm1)[range(12), batch.a_tm1]
    updated = batch.r_t.numpy() + np.float32(0.5) * values(target, batch.obs_t).max(axis=1)
    np.testing.assert_allclose(loss, np.square(updated - chosen), rtol=1e-6, atol=1e-7)


def test_no_gradient_reaches_the_target_network(online):
    target = network(2)
    assert all(parameter.requires_grad for parameter in target.parameters())
    dqn.loss(DQNConfig(), online, target, make_batch(), CHANCE).loss.mean().backward()
    assert all(parameter.grad is None for parameter in target.parameters())
    assert all(parameter.grad is not None for parameter in online.parameters())
    online.zero_grad()


def test_the_target_network_builds_no_graph(online, target, monkeypatch):
    # its activations would be kept for a backward pass that never comes
    asked, values_of = [], target.q_values
    monkeypatch.setattr(target, "q_values", lambda obs: asked.append(torch.is_grad_enabled()) or values_of(obs))
    dqn.loss(DQNConfig(), online, target, make_batch(), CHANCE)
    assert asked == [False]


def test_the_target_is_a_constant_even_if_it_is_the_online_network():
    both, apart = network(1), network(1)
    batch = make_batch()
    dqn.loss(DQNConfig(), both, both, batch, CHANCE).loss.mean().backward()
    dqn.loss(DQNConfig(), apart, network(1), batch, CHANCE).loss.mean().backward()
    for one, other in zip(both.parameters(), apart.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_the_values_are_those_of_the_online_network_detached(online, target):
    batch = make_batch()
    output = dqn.loss(DQNConfig(), online, target, batch, CHANCE)
    assert not output.q_tm1.requires_grad
    assert output.loss.requires_grad
    np.testing.assert_array_equal(output.q_tm1.numpy(), values(online, batch.obs_tm1))


def plain_forward(net, pixels):
    """The network with the layers' weights alone, pixels in 0…1."""
    torso, head = net.torso.layers, net.head
    out = functional.conv2d(pixels, torso[0].weight, torso[0].bias, 4).relu()
    out = functional.conv2d(out, torso[2].weight, torso[2].bias, 2).relu()
    out = functional.conv2d(out, torso[4].weight, torso[4].bias, 1).relu()
    out = functional.linear(out.flatten(1), head.hidden.weight, head.hidden.bias).relu()
    return functional.linear(out, head.output.weight, head.output.bias)


def test_pixels_are_scaled_once(online, target):
    batch = make_batch()
    output = dqn.loss(DQNConfig(loss="mse"), online, target, batch, CHANCE)
    with torch.no_grad():
        q_tm1 = plain_forward(online, batch.obs_tm1.float() / 255)
        q_t = plain_forward(target, batch.obs_t.float() / 255)
    error = batch.r_t + batch.discount_t * q_t.max(dim=1).values - q_tm1[torch.arange(12), batch.a_tm1]
    torch.testing.assert_close(output.loss.detach(), error.square(), rtol=1e-4, atol=1e-5)


def test_the_config_finds_the_algorithm():
    algo = ALGOS[DQNConfig]
    assert (algo.memory, algo.loss) == ("replay", dqn.loss)
    assert (
        algo.make_network(NetworkConfig(channels=(1, 1, 1), hidden=2), DQNConfig(), 5, None, ObsShape()).num_actions
        == 5
    )
