"""The Q-network: sizes, initial weights, pixels, precision."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pixelq.config import NetworkConfig
from pixelq.networks import make_network
from pixelq.networks.heads import LinearHead
from pixelq.networks.torsos import NatureTorso

SMALL = NetworkConfig(channels=(8, 8, 8), hidden=16)
FAN_IN = {"torso.layers.0": 4 * 64, "torso.layers.2": 32 * 16, "torso.layers.4": 64 * 9, "head.hidden": 3136}
FAN_IN["head.output"] = 512
FAN_OUT = {"torso.layers.0": 32 * 64, "torso.layers.2": 64 * 16, "torso.layers.4": 64 * 9, "head.hidden": 512}
FAN_OUT["head.output"] = 4


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_obs(batch=5, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (batch, 4, 84, 84), dtype=np.uint8))


@pytest.fixture(scope="module")
def nature():
    return make_network(NetworkConfig(), 4, generator())


@pytest.fixture(scope="module")
def glorot():
    return make_network(NetworkConfig(init="glorot_uniform"), 4, generator())


def test_sizes_are_the_papers(nature):
    shapes = {name: tuple(parameter.shape) for name, parameter in nature.named_parameters()}
    assert shapes == {
        "torso.layers.0.weight": (32, 4, 8, 8),  # 8,192 + 32
        "torso.layers.0.bias": (32,),
        "torso.layers.2.weight": (64, 32, 4, 4),  # 32,768 + 64
        "torso.layers.2.bias": (64,),
        "torso.layers.4.weight": (64, 64, 3, 3),  # 36,864 + 64
        "torso.layers.4.bias": (64,),
        "head.hidden.weight": (512, 3136),  # 1,605,632 + 512
        "head.hidden.bias": (512,),
        "head.output.weight": (4, 512),  # 2,048 + 4
        "head.output.bias": (4,),
    }
    assert sum(parameter.numel() for parameter in nature.parameters()) == 1_686_180


@pytest.mark.parametrize(("actions", "count"), [(3, 1_685_667), (6, 1_687_206), (18, 1_693_362)])
def test_every_further_action_costs_513_weights(actions, count):
    network = make_network(NetworkConfig(), actions, generator())
    assert network.num_actions == actions
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("batch", [1, 3, 32])
@pytest.mark.parametrize("actions", [1, 4, 18])
def test_values_have_their_shape(batch, actions):
    values = make_network(SMALL, actions, generator()).q_values(random_obs(batch))
    assert (values.shape, values.dtype) == ((batch, actions), torch.float32)
    assert values.isfinite().all()


def test_parameters_are_float32_and_convolutions_channels_last(nature):
    for name, parameter in nature.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.requires_grad
        if parameter.dim() == 4:
            assert parameter.is_contiguous(memory_format=torch.channels_last), name


def layers_of(network):
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}


def assert_uniform(tensor, bound):
    """Within the bound, out to it, and spread as a uniform distribution is: mean 0, standard deviation bound / √3."""
    numbers = tensor.detach().double().flatten()
    count = len(numbers)
    assert numbers.abs().max() <= bound * (1 + 1e-6)
    # the chance that no number of n lies in the outer share s is (1 − s)ⁿ; e⁻¹² at s = 12 / n
    assert numbers.abs().max() >= bound * (1 - 12 / count)
    assert abs(numbers.mean()) < 5 * bound / math.sqrt(3 * count)
    assert abs(numbers.square().mean() / (bound**2 / 3) - 1) < 5 * math.sqrt(0.8 / count)


def test_glorot_uniform_and_zero_biases(glorot):
    for name, layer in layers_of(glorot).items():
        assert_uniform(layer.weight, math.sqrt(6 / (FAN_IN[name] + FAN_OUT[name])))
        assert torch.equal(layer.bias, torch.zeros_like(layer.bias)), name


def test_torchs_default_bounds(nature):
    for name, layer in layers_of(nature).items():
        assert_uniform(layer.weight, 1 / math.sqrt(FAN_IN[name]))
        assert layer.bias.abs().max() <= 1 / math.sqrt(FAN_IN[name]) * (1 + 1e-6)
        assert layer.bias.abs().max() > 0
    biases = torch.cat([layer.bias * FAN_IN[name] ** 0.5 for name, layer in layers_of(nature).items()])
    assert_uniform(biases, 1.0)


def test_torchs_default_is_torchs_default(nature):
    # the layers as torch itself makes them, with the same numbers from its global generator
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torso = NatureTorso((32, 64, 64))
        head = LinearHead(torso.features, 512, 4)
    made = [*torso.state_dict().values(), *head.state_dict().values()]
    for (name, ours), theirs in zip(nature.state_dict().items(), made, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9, msg=name)


@pytest.mark.parametrize("init", ["torch", "glorot_uniform"])
def test_the_generator_decides_the_weights(init):
    config = dataclasses.replace(SMALL, init=init)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = make_network(config, 4, generator(7)).state_dict()
        torch.manual_seed(2)
        same = make_network(config, 4, generator(7)).state_dict()
        other = make_network(config, 4, generator(8)).state_dict()
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if name.endswith("weight"))


def plain_values(state, pixels):
    """The network by its formula, for any floating type, pixels in 0…1."""
    out = pixels
    for layer, stride in (("0", 4), ("2", 2), ("4", 1)):
        weight, bias = state[f"torso.layers.{layer}.weight"], state[f"torso.layers.{layer}.bias"]
        out = functional.conv2d(out, weight, bias, stride).relu()
    out = functional.linear(out.flatten(1), state["head.hidden.weight"], state["head.hidden.bias"]).relu()
    return functional.linear(out, state["head.output.weight"], state["head.output.bias"])


@pytest.mark.parametrize("init", ["torch", "glorot_uniform"])
def test_values_are_those_of_the_formula_in_float64(init):
    network = make_network(NetworkConfig(init=init), 4, generator(3))
    obs = random_obs()
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}
    expected = plain_values(state, obs.double() / 255)
    torch.testing.assert_close(network.q_values(obs).detach().double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(network(obs), network.q_values(obs))


def test_pixels_are_scaled_once_and_left_as_they_were():
    # weights that pass the corner pixel of the newest plane through: white is 1, half grey is 128/255
    network = make_network(NetworkConfig(channels=(1, 1, 1), hidden=1, init="glorot_uniform"), 1, generator())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.torso.layers[0].weight[0, 3, 0, 0] = 1
        network.torso.layers[2].weight[0, 0, 0, 0] = 1
        network.torso.layers[4].weight[0, 0, 0, 0] = 1
        network.head.hidden.weight[0, 0] = 1
        network.head.output.weight[0, 0] = 1
    obs = torch.zeros(3, 4, 84, 84, dtype=torch.uint8)
    obs[1, 3, 0, 0], obs[2, 3, 0, 0] = 128, 255
    before = obs.clone()
    assert network.q_values(obs).flatten().tolist() == pytest.approx([0.0, 128 / 255, 1.0], rel=1e-6)
    assert torch.equal(obs, before)


def test_features_are_flattened_as_channels_rows_columns():
    torso = NatureTorso((1, 1, 3))
    with torch.no_grad():
        for parameter in torso.parameters():
            parameter.zero_()
        torso.layers[4].bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
        features = torso(torch.zeros(1, 4, 84, 84))
    assert features.tolist() == [[1.0] * 49 + [2.0] * 49 + [3.0] * 49]


def test_lower_precision_spares_the_output_layer():
    network = make_network(NetworkConfig(), 4, generator())
    assert network.compute_dtype == torch.float32
    network.lower_precision(torch.bfloat16)
    assert network.compute_dtype == torch.bfloat16
    dtypes = {name: parameter.dtype for name, parameter in network.named_parameters()}
    assert {name for name, dtype in dtypes.items() if dtype == torch.float32} == {
        "head.output.weight",
        "head.output.bias",
    }
    assert set(dtypes.values()) == {torch.float32, torch.bfloat16}
    for parameter in network.parameters():
        assert parameter.dim() != 4 or parameter.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("init", ["torch", "glorot_uniform"])
def test_values_in_bfloat16_are_close_to_float32(init):
    config = NetworkConfig(init=init)
    obs = random_obs(8)
    full = make_network(config, 4, generator(1)).q_values(obs).detach()
    lowered = make_network(config, 4, generator(1))
    lowered.lower_precision(torch.bfloat16)
    values = lowered.q_values(obs).detach()
    assert values.dtype == torch.float32
    # bfloat16 keeps 8 bits, an error of at most 0.4% a rounding
    assert (values - full).norm() < 0.02 * full.norm()
    # computed in float32 at the end: not all values are numbers of bfloat16
    assert not torch.equal(values, values.bfloat16().float())


def test_all_pixels_are_distinct_in_bfloat16():
    pixels = torch.arange(256, dtype=torch.uint8).to(torch.bfloat16)
    assert torch.equal(pixels.float(), torch.arange(256.0))
