"""Every combination of torso, head, dueling, noise and norm: its formula in float64, loading, copies, bfloat16."""

import copy
import functools
import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional

from pixelq.config import NetworkConfig
from pixelq.networks import make_categorical_network, make_implicit_network, make_network, make_quantile_network

ACTIONS, ATOMS, QUANTILES, COSINES, FRACTIONS = 3, 5, 4, 6, 3
INITS = ("torch", "glorot_uniform", "he_normal", "orthogonal")
TORSOS = (
    {"torso": "nature"},
    {"torso": "nature", "norm": "layer"},
    {"torso": "nature", "norm": "layer_per_pixel"},
    {"torso": "impala"},
    {"torso": "impala", "spectral_norm": True, "max_pool": 6},
    {"torso": "nature", "norm": "dense"},
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_obs(batch=2, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (batch, 4, 84, 84), dtype=np.uint8))


def make(kind, config, source=None):
    if kind == "categorical":
        return make_categorical_network(config, ACTIONS, ATOMS, -1.0, 3.0, source)
    if kind == "quantile":
        return make_quantile_network(config, ACTIONS, QUANTILES, source)
    if kind == "implicit":
        return make_implicit_network(config, ACTIONS, COSINES, FRACTIONS, source)
    return make_network(config, ACTIONS, source)


KINDS = ("linear", "categorical", "quantile", "implicit")
COMBINATIONS = [
    (kind, NetworkConfig(**torso, channels=(2, 3, 4), hidden=5, dueling=dueling, noisy=noisy, init=init))
    for (torso, kind, dueling, noisy), init in zip(
        itertools.product(TORSOS, KINDS, (False, True), (False, True)), itertools.cycle(INITS + INITS[:1]), strict=False
    )
]


def name_of(combination):
    kind, config = combination
    words = [kind, config.torso, config.norm, config.init]
    return "-".join(words + [word for word in ("dueling", "noisy", "spectral_norm") if getattr(config, word)])


every_combination = pytest.mark.parametrize("combination", COMBINATIONS, ids=map(name_of, COMBINATIONS))


@functools.cache
def evaluated(combination):
    """The network of a combination in evaluation, all weights moved off their initial values, and its values."""
    kind, config = combination
    network = make(kind, config, generator()).eval()
    source = generator(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm" in name or name.endswith("bias"):  # ones and zeros, and other zeros
                parameter.add_(torch.randn(parameter.shape, generator=source), alpha=0.1)
        return network, network.q_values(random_obs())


def layer_norm(values, axes, weight, bias, epsilon):
    mean = values.mean(axes, keepdim=True)
    variance = (values - mean).square().mean(axes, keepdim=True)
    return (values - mean) / (variance + epsilon).sqrt() * weight + bias


def torso_by_formula(state, config, pixels):
    """[B, F] in the type of `state`."""

    def conv(name, planes, stride, padding):
        weight = state[f"{name}.weight"]
        if f"{name}.u" in state:  # the spectral norm as the u at hand estimates it, ‖Wᵀu‖
            weight = weight / torch.einsum("oikl,o->ikl", weight, state[f"{name}.u"]).norm()
        return functional.conv2d(planes, weight, state[f"{name}.bias"], stride, padding)

    planes = pixels
    if config.torso == "nature":
        normalised = config.norm not in ("none", "dense")
        step = 3 if normalised else 2
        for index, stride in enumerate((4, 2, 1)):
            planes = conv(f"torso.layers.{index * step}", planes, stride, 0)
            if normalised:
                weight, bias = (state[f"torso.layers.{index * step + 1}.norm.{part}"] for part in ("weight", "bias"))
                axes, epsilon = ((1, 2, 3), 1e-5) if config.norm == "layer" else ((3,), 1e-6)
                planes = layer_norm(planes.permute(0, 2, 3, 1), axes, weight, bias, epsilon).permute(0, 3, 1, 2)
            planes = planes.relu()
        return planes.flatten(1)
    for stage in range(3):
        planes = functional.max_pool2d(conv(f"torso.layers.{4 * stage}", planes, 1, 1), 3, 2, 1)
        for block in (2, 3):
            name = f"torso.layers.{4 * stage + block}"
            planes = planes + conv(f"{name}.second", conv(f"{name}.first", planes.relu(), 1, 1).relu(), 1, 1)
    planes = planes.relu()
    return (functional.adaptive_max_pool2d(planes, config.max_pool) if config.max_pool else planes).flatten(1)


def stream_by_formula(state, config, name, features):
    """Dense layer, norm, ReLU, output."""
    hidden = features @ state[f"{name}.hidden.weight"].T + state[f"{name}.hidden.bias"]
    if config.norm != "none":
        epsilon = 1e-6 if config.norm == "layer_per_pixel" else 1e-5
        hidden = layer_norm(hidden, -1, state[f"{name}.norm.weight"], state[f"{name}.norm.bias"], epsilon)
    return hidden.relu() @ state[f"{name}.output.weight"].T + state[f"{name}.output.bias"]


def values_by_formula(state, kind, config, pixels):
    """[B, A] in the type of `state`."""
    features = torso_by_formula(state, config, pixels)
    if kind == "implicit":
        fractions = []
        for tau in [(index + 0.5) / FRACTIONS for index in range(FRACTIONS)]:
            cosines = torch.tensor([math.cos(math.pi * i * tau) for i in range(COSINES)], dtype=features.dtype)
            fractions.append((state["head.embedding.weight"] @ cosines + state["head.embedding.bias"]).relu())
        features = features[:, None] * torch.stack(fractions)
    body = "head" if kind == "linear" else "head.body"
    if config.dueling:
        value = stream_by_formula(state, config, f"{body}.value", features)[..., None, :]
        advantage = stream_by_formula(state, config, f"{body}.advantage", features).unflatten(-1, (ACTIONS, -1))
        units = value + advantage - advantage.sum(-2, keepdim=True) / ACTIONS
    else:
        units = stream_by_formula(state, config, body, features).unflatten(-1, (ACTIONS, -1))
    if kind == "categorical":
        probabilities = units.exp() / units.exp().sum(-1, keepdim=True)
        return sum(probabilities[..., index] * (-1.0 + 4.0 * index / (ATOMS - 1)) for index in range(ATOMS))
    return units.mean(1)[..., 0] if kind == "implicit" else units.mean(-1)


@every_combination
def test_values_are_those_of_the_formula_in_float64(combination):
    network, values = evaluated(combination)
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}
    expected = values_by_formula(state, *combination, random_obs().double() / 255)
    torch.testing.assert_close(values.double(), expected, rtol=1e-4, atol=2e-5)


@every_combination
def test_a_network_built_without_memory_and_loaded_gives_the_same_values(combination):
    network, values = evaluated(combination)
    with torch.device("meta"):
        loaded = make(*combination)
    tensors = {
        name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in network.state_dict().items()
    }
    loaded.load_state_dict(tensors, assign=True)
    loaded.to(memory_format=torch.channels_last)
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))
    with torch.no_grad():
        assert torch.equal(loaded.eval().q_values(random_obs()), values)
        loaded.train().redraw_noise(generator())
        assert loaded.q_values(random_obs()).isfinite().all()
    if combination[0] == "categorical":
        assert torch.equal(loaded.head.atoms, network.head.atoms)


@every_combination
def test_a_copy_gives_the_same_values_and_is_a_network_of_its_own(combination):
    network, values = evaluated(combination)
    twin = copy.deepcopy(network).requires_grad_(False)
    assert torch.equal(twin.q_values(random_obs()), values)
    with torch.no_grad():
        for tensor in twin.state_dict().values():
            tensor.add_(0.1)
        assert torch.equal(network.q_values(random_obs()), values)
        assert not torch.equal(twin.q_values(random_obs()), values)


@every_combination
def test_values_in_bfloat16_are_close_to_float32(combination):
    network, values = evaluated(combination)
    lowered = copy.deepcopy(network)
    lowered.lower_precision(torch.bfloat16)
    assert lowered.compute_dtype == torch.bfloat16
    with torch.no_grad():
        found = lowered.q_values(random_obs())
    assert found.dtype == torch.float32
    assert (found - values).norm() < 0.05 * values.norm() + 0.01


@every_combination
def test_every_weight_gets_a_gradient_in_training(combination):
    network = copy.deepcopy(evaluated(combination)[0]).train()
    network.redraw_noise(generator())
    network.lower_precision(torch.bfloat16)
    network.q_values(random_obs(8)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.dtype == parameter.dtype
        assert parameter.dim() != 4 or parameter.is_contiguous(memory_format=torch.channels_last)


@every_combination
def test_the_generator_decides_the_weights(combination):
    kind, config = combination
    before = make(kind, config, generator(5)).state_dict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        again = make(kind, config, generator(5)).state_dict()
    other = make(kind, config, generator(6)).state_dict()
    assert all(torch.equal(before[name], again[name]) for name in before)
    assert not any(
        torch.equal(before[name], other[name]) for name in before if before[name].dim() in (2, 4) if "sigma" not in name
    )


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    torso=st.sampled_from(TORSOS),
    channels=st.tuples(*[st.integers(1, 3)] * 3),
    width=st.integers(1, 2),
    hidden=st.integers(1, 4),
    flags=st.tuples(st.booleans(), st.booleans()),
    init=st.sampled_from(INITS),
    batch=st.integers(1, 3),
)
@pytest.mark.slow
def test_any_sizes_load_and_compute_by_the_formula(kind, torso, channels, width, hidden, flags, init, batch):
    dueling, noisy = flags
    config = NetworkConfig(
        **torso, channels=channels, width=width, hidden=hidden, dueling=dueling, noisy=noisy, init=init
    )
    network = make(kind, config, generator()).eval()
    obs = random_obs(batch)
    with torch.device("meta"):
        loaded = make(kind, config)
    loaded.load_state_dict(network.state_dict(), assign=True)
    with torch.no_grad():
        values = network.q_values(obs)
        assert torch.equal(values, loaded.eval().q_values(obs))
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}
    expected = values_by_formula(state, kind, config, obs.double() / 255)
    # one channel or one unit leaves a variance of nothing but rounding errors
    if config.norm == "none" or min(*channels, hidden) > 1:
        torch.testing.assert_close(values.double(), expected, rtol=1e-3, atol=1e-4)
