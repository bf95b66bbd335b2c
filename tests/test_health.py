"""Health of a network: the figures against loops and by hand, and that a dead one is reported."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from pixelq.agent import load_agent
from pixelq.algos import algo_of
from pixelq.config import validate
from pixelq.health import Health, dormant_shares, measure_health
from pixelq.networks import hidden_activations
from pixelq.presets import PRESETS, preset
from pixelq.training.health import HealthWatch
from pixelq.training.parts import begin, make_parts, resolve
from runs import go, metrics, quick, tiny


def loop_dormant_share(activations, tau):
    """Sokar et al. 2023, eq. 1, number by number in float64."""
    sizes = []
    for unit in range(activations.shape[1]):
        numbers = [abs(float(x)) for x in activations[:, unit].flatten()]
        sizes.append(sum(numbers) / len(numbers))
    mean = sum(sizes) / len(sizes)
    if mean == 0:
        return 1.0
    return sum(size / mean <= tau for size in sizes) / len(sizes)


@pytest.mark.parametrize("shape", [(6, 40), (5, 16, 3, 4)])
@pytest.mark.parametrize("tau", [0.0, 0.025, 0.5])
def test_dormant_shares_equal_a_loop(shape, tau):
    generator = torch.Generator().manual_seed(1)
    activations = torch.randn(shape, generator=generator).relu()
    activations[:, ::5] = 0
    activations[:, 1::5] *= 1e-3
    (share,) = dormant_shares(activations, tau)
    assert share == pytest.approx(loop_dormant_share(activations, tau), abs=1e-12)


def test_dormant_shares_by_hand():
    # means over the batch 0, 1, 3, 0.02; over the layer 1.005; scores 0, 0.995, 2.985, 0.0199
    activations = torch.tensor([[0.0, 2.0, 3.0, 0.04], [0.0, 0.0, 3.0, 0.0]])
    assert dormant_shares(activations, 0.0, 0.025) == (0.25, 0.5)
    assert dormant_shares(torch.zeros(3, 4), 0.0) == (1.0,)


def network_and_obs(name, actions=4, batch=8):
    config = preset(name)
    network = algo_of(config.algo).make_network(
        config.network, config.algo, actions, torch.Generator().manual_seed(3), config.env.obs_shape
    )
    obs = torch.randint(0, 256, (batch, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    return network.eval(), obs


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "btr"])
def test_hidden_layers_are_those_that_the_forward_pass_goes_through(name):
    network, obs = network_and_obs(name)
    layers, features, values = hidden_activations(network, obs)
    with torch.no_grad():
        assert torch.equal(values, network.q_values(obs))
        assert torch.equal(features, network.features(obs))
    dense = ["value", "advantage"] if preset(name).network.dueling else ["dense"]
    assert list(layers) == ["conv1", "conv2", "conv3", *dense]
    assert torch.equal(layers["conv3"].flatten(1), features)
    assert all((planes >= 0).all() and (planes > 0).any() for planes in layers.values())
    # the head's last layer makes its outputs of the dense layer
    body = getattr(network.head, "body", network.head)
    if dense == ["dense"] and name not in ("iqn", "noisy-dqn"):
        torch.testing.assert_close(layers["dense"] @ body.output.weight.T + body.output.bias, body(features))


def test_the_impala_torso_has_its_blocks():
    network, obs = network_and_obs("btr", batch=2)
    layers, features, _ = hidden_activations(network, obs)
    assert list(layers) == [*(f"block{i}" for i in range(1, 7)), "features", "value", "advantage"]
    assert layers["features"].shape[1] == 2 * 32
    assert features.shape == (2, 64 * 36)


def test_looking_leaves_no_hooks_and_no_gradients():
    network, obs = network_and_obs("fast")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    measure_health(network, obs)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_features_that_do_not_change_and_the_gap_are_counted():
    network, obs = network_and_obs("fast")
    with torch.no_grad():
        network.torso.convolutions[2].weight[:8] = 0  # 8 of 32 filters are the same everywhere
        network.torso.convolutions[2].bias[:8] = 1.0
        features, values = network.features(obs), network.q_values(obs)
    health = measure_health(network, obs)
    same = sum(len(set(features[:, i].tolist())) == 1 for i in range(features.shape[1]))
    assert health.constant_features == same / features.shape[1] >= 0.25
    rows = [sorted(row, reverse=True) for row in values.tolist()]
    assert health.action_gap == pytest.approx(np.mean([row[0] - row[1] for row in rows]), rel=1e-5)


@pytest.mark.parametrize(
    ("dead", "constant", "is_dead"),
    [(0.5, 0.5, False), (0.89, 0.94, False), (0.9, 0.5, True), (0.5, 0.95, True)],
)
def test_a_network_counts_as_dead_if_a_layer_is_silent_or_its_features_do_not_change(dead, constant, is_dead):
    health = Health({"conv1": 0.1, "conv2": dead}, {"conv1": 0.1, "conv2": dead}, constant, 0.1)
    assert health.is_dead == is_dead
    assert health.dead_layer == ("conv2" if dead >= 0.9 else None)


def test_the_agent_that_ships_and_fresh_networks_are_alive():
    agent = load_agent("breakout")
    _, obs = network_and_obs("fast", batch=32)
    assert not measure_health(agent.network, obs).is_dead
    for name in ("fast", "keras-example", "c51", "pqn"):
        network, _ = network_and_obs(name)
        assert not measure_health(network, obs).is_dead


def silence(learner):
    """Weights that no observation can wake: biases before a ReLU are far below zero."""
    weights = {name: tensor.clone() for name, tensor in learner.weights().items()}
    biases = [name for name in weights if name.startswith("torso") and name.endswith("bias")]
    weights[biases[1]].fill_(-1e3)
    learner.load_weights(weights)


@pytest.mark.parametrize(("name", "layer"), [("fast", "conv2"), ("pqn", "conv1")])  # pqn's second bias is a norm's
def test_a_watch_tells_once_that_the_network_died(name, layer):
    parts = make_parts(resolve(tiny(name)))
    begin(parts)
    watch = HealthWatch(parts)
    assert watch.look()[1] is None
    silence(parts.learner)
    assert watch.look()[1] is None  # nothing was learned yet, so nothing was lost
    parts.learner.updates = 1
    figures, line = watch.look()
    assert figures[f"health/dead_{layer}"] == 1.0
    assert line
    assert f"the network has died at step 0: 100% of the units of {layer} never answer" in line
    assert watch.look()[1] is None
    parts.envs.close()


@pytest.mark.parametrize("name", ["fast", "keras-example", "noisy-dqn", "pqn", "btr"])
def test_the_remedies_that_a_watch_names_go_with_the_recipe(name):
    config = tiny(name)
    # a spectral norm divides weights by their own size
    parts = make_parts(
        resolve(dataclasses.replace(config, network=dataclasses.replace(config.network, spectral_norm=False)))
    )
    begin(parts)
    watch = HealthWatch(parts)
    weights = parts.learner.weights()
    parts.learner.load_weights(
        {name: 0 * tensor if name.startswith("torso") else tensor for name, tensor in weights.items()}
    )
    parts.learner.updates = 1
    line = watch.look()[1]
    parts.envs.close()
    named = dict(re.findall(r"--network\.(\w+) (\w+)", line))
    expected = {
        "fast": ["norm"],
        "keras-example": ["init", "background", "norm"],
        "noisy-dqn": ["init", "background"],
        "pqn": ["init", "background"],
        "btr": ["background"],
    }
    assert list(named) == expected[name]
    validate(dataclasses.replace(parts.config, network=dataclasses.replace(parts.config.network, **named)))
    # rectified Adam is what an Adam could be
    assert ("--optimiser.name radam" in line) == (name in ("keras-example", "btr"))


@pytest.mark.slow
def test_a_run_says_within_one_log_tick_that_its_network_died(tmp_path):
    config = quick(total_steps=800)
    _, shown = go(config, tmp_path / "alive")
    assert not [note for note in shown.notes if "died" in note]
    run = tmp_path / "run"
    killer = Killer()
    with pytest.MonkeyPatch.context() as patch:
        killer.follow(patch)
        _, shown = go(config, run, killer)
    told = [note for note in shown.notes if "the network has died" in note]
    assert len(told) == 1
    assert "at step 600" in told[0]  # killed after the tick of step 400
    records = metrics(run)
    assert [record["health/dead_conv2"] == 1.0 for record in records] == [False, False, True, True]


class Killer:
    """Silences the network of a run at step 400."""

    def follow(self, patch):
        init = HealthWatch.__init__

        def remember(watch, parts):
            init(watch, parts)
            self.learner = parts.learner

        patch.setattr(HealthWatch, "__init__", remember)

    def __call__(self, record):
        if record["step"] == 400:
            silence(self.learner)


@pytest.mark.slow
def test_looking_changes_nothing_of_a_run(tmp_path):
    often, seldom = quick(log_every_steps=50), quick(log_every_steps=800)
    for name, config in (("often", often), ("seldom", seldom)):
        go(config, tmp_path / name)
    last = [load_agent(tmp_path / name).network.state_dict() for name in ("often", "seldom")]
    assert all(torch.equal(tensor, last[1][name]) for name, tensor in last[0].items())


@pytest.mark.slow
def test_a_config_that_differs_only_in_logging_sees_the_same_health(tmp_path):
    records = []
    for name, period in (("often", 100), ("seldom", 400)):
        go(dataclasses.replace(quick(), log_every_steps=period), tmp_path / name)
        records.append({line["step"]: line for line in metrics(tmp_path / name)})
    for step, line in records[1].items():
        # the gradients' norm is a mean over the updates of a tick, as the loss is
        looks = {key for key in line if key.startswith("health/")} - {"health/gradient_norm"}
        assert len(looks) == 10
        assert {key: line[key] for key in looks} == {key: records[0][step][key] for key in looks}
