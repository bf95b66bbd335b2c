"""Heads: shapes, the papers' sizes, oracles worked out by hand, the dueling identity, initial weights, precision."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from pixelq.config import NetworkConfig
from pixelq.networks import (
    CategoricalHead,
    DuelingHead,
    ImplicitHead,
    LinearHead,
    QuantileHead,
    make_categorical_network,
    make_implicit_network,
    make_network,
    make_quantile_network,
)
from pixelq.networks.spectral import SpectralConv2d

TINY = NetworkConfig(channels=(3, 4, 5), hidden=6)


def categorical(config, actions, source):
    return make_categorical_network(config, actions, 7, -2.0, 4.0, source)


def quantile(config, actions, source):
    return make_quantile_network(config, actions, 5, source)


def implicit(config, actions, source):
    return make_implicit_network(config, actions, 8, 3, source)


KINDS = {"linear": make_network, "categorical": categorical, "quantile": quantile, "implicit": implicit}
SHAPES = {"linear": (2, 4), "categorical": (2, 4, 7), "quantile": (2, 5, 4), "implicit": (2, 9, 4)}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_obs(batch=2, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (batch, 4, 84, 84), dtype=np.uint8))


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_have_their_shapes(kind, dueling):
    network = KINDS[kind](dataclasses.replace(TINY, dueling=dueling), 4, generator())
    network.lower_precision(torch.bfloat16)
    output = network(random_obs(), *([torch.rand(2, 9)] if kind == "implicit" else []))
    values = network.q_values(random_obs())
    assert (tuple(output.shape), output.dtype) == (SHAPES[kind], torch.float32)
    assert (tuple(values.shape), values.dtype) == ((2, 4), torch.float32)
    assert network.num_actions == 4


# Nature's torso: 8,224 + 32,832 + 36,928 = 77,984 weights; its dense layer 512 · 3,137 = 1,606,144; its output layer
# 513 an action. All for 4 actions.
IMPALA = NetworkConfig("impala", (16, 32, 32), hidden=256)
BTR = NetworkConfig("impala", (16, 32, 32), 2, dueling=True, noisy=True, spectral_norm=True, max_pool=6)
SIZES = {
    # two dense layers, a value and 4 advantages: 77,984 + 2 · 1,606,144 + 513 + 2,052 (Wang et al. 2016, section 4.2)
    "dueling": (lambda: make_network(NetworkConfig(dueling=True), 4), 3_292_837),
    # μ and σ of each dense weight: 77,984 + 2 · (1,606,144 + 2,052) (Fortunato et al. 2018, section 3.2)
    "noisy": (lambda: make_network(NetworkConfig(noisy=True), 4), 3_294_376),
    # 4 · 51 outputs: 77,984 + 1,606,144 + 513 · 204 (Bellemare et al. 2017, section 4.1)
    "c51": (lambda: make_categorical_network(NetworkConfig(), 4, 51, -10, 10), 1_788_780),
    # 4 · 200 outputs: 77,984 + 1,606,144 + 513 · 800 (Dabney et al. 2018, QR-DQN)
    "qr": (lambda: make_quantile_network(NetworkConfig(), 4, 200), 2_094_528),
    # 1,686,180 and an embedding of 64 cosines, 65 · 3,136 (Dabney et al. 2018b, eq. 4)
    "iqn": (lambda: make_implicit_network(NetworkConfig(), 4, 64, 32), 1_890_020),
    # dueling, noisy, 51 atoms: 77,984 + 2 · (2 · 1,606,144 + 513 · 51 + 513 · 204) (Hessel et al. 2018)
    "rainbow": (lambda: make_categorical_network(NetworkConfig(dueling=True, noisy=True), 4, 51, -10, 10), 6_764_190),
    # gain and bias of 32 · 20² + 64 · 9² + 64 · 7² + 512 = 21,632 numbers: 1,686,180 + 43,264
    "layer": (lambda: make_network(NetworkConfig(norm="layer"), 4), 1_729_444),
    # of 32 + 64 + 64 + 512 = 672 channels and units: 1,686,180 + 1,344
    "layer_per_pixel": (lambda: make_network(NetworkConfig(norm="layer_per_pixel"), 4), 1_687_524),
    # stages of 592 + 4 · 2,320, 4,640 + 4 · 9,248 and 5 · 9,248 = 97,744; dense 256 · (32 · 11² + 1) = 991,488; 4 · 257
    # (Espeholt et al. 2018, Figure 3, without its LSTM)
    "impala": (lambda: make_network(IMPALA, 4), 1_090_260),
    # stages of 1,184 + 4 · 9,248, 18,496 + 4 · 36,928 and 5 · 36,928 = 389,024; features 64 · 6² = 2,304; embedding
    # 65 · 2,304 = 149,760; noisy and dueling 2 · (2 · 512 · 2,305 + 513 + 2,052) = 4,725,770
    "btr": (lambda: make_implicit_network(BTR, 4, 64, 32), 5_264_554),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_papers(name):
    make, expected = SIZES[name]
    with torch.device("meta"):
        assert count(make()) == expected


def set_linear(layer, weight, bias):
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))


def test_dueling_by_hand():
    # feature 2, both dense layers double it: 4. Value 4·½ + 1 = 3. Advantages 4·(1, 2, 6) = (4, 8, 24), mean 12.
    # Q = 3 + (4, 8, 24) − 12
    head = DuelingHead(1, 1, 3)
    for stream in (head.value, head.advantage):
        set_linear(stream.hidden, [[2.0]], [0.0])
    set_linear(head.value.output, [[0.5]], [1.0])
    set_linear(head.advantage.output, [[1.0], [2.0], [6.0]], [0.0, 0.0, 0.0])
    assert head(torch.tensor([[2.0]])).tolist() == [[-5.0, -1.0, 15.0]]


def test_dueling_by_hand_for_each_unit():
    # two units an action: values (1, 10); advantages of two actions (1, 3) and (5, 5), means (3, 4): each its own
    head = DuelingHead(1, 1, 2, units=2)
    for stream in (head.value, head.advantage):
        set_linear(stream.hidden, [[0.0]], [0.0])
    set_linear(head.value.output, [[0.0]] * 2, [1.0, 10.0])
    set_linear(head.advantage.output, [[0.0]] * 4, [1.0, 3.0, 5.0, 5.0])
    assert head(torch.zeros(1, 1)).tolist() == [[1.0 - 2, 10.0 - 1, 1.0 + 2, 10.0 + 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_dueling_is_identifiable(kind):
    network = KINDS[kind](dataclasses.replace(TINY, dueling=True), 4, generator())
    body = network.head if kind == "linear" else network.head.body
    features = torch.rand(5, network.torso.features, generator=generator(1))
    values = body(features).unflatten(-1, (4, -1))
    torch.testing.assert_close(values.mean(1), body.value(features))  # the advantages' mean is zero
    with torch.no_grad():  # a shift of all advantages of a unit moves nothing
        body.advantage.output.bias.unflatten(0, (4, -1)).add_(torch.arange(1.0, values.shape[-1] + 1))
    torch.testing.assert_close(body(features).unflatten(-1, (4, -1)), values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "categorical", "quantile"])
def test_dueling_scales_the_gradient_into_the_features(kind):
    network = KINDS[kind](dataclasses.replace(TINY, dueling=True), 4, generator())
    body = network.head if kind == "linear" else network.head.body
    features = torch.rand(3, network.torso.features, requires_grad=True)
    twin = features.detach().clone().requires_grad_()
    value, advantage = body.value(twin).unsqueeze(1), body.advantage(twin).unflatten(-1, (4, -1))
    (value + advantage - advantage.mean(1, keepdim=True)).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in body.parameters()]
    for _ in range(2):  # the second time not 1/2
        network.zero_grad()
        features.grad = None
        body(features).square().sum().backward()
        torch.testing.assert_close(features.grad, twin.grad / math.sqrt(2))
    for parameter, gradient in zip(body.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_into_the_torso_is_scaled_by_dueling_alone(kind, dueling):
    network = KINDS[kind](dataclasses.replace(TINY, dueling=dueling), 4, generator())
    seen = []

    def keep(module, arguments, features):
        features.retain_grad()
        seen.append(features)

    network.torso.register_forward_hook(keep)
    network.q_values(random_obs()).sum().backward()
    # numerically, in float64: how the sum of all values changes along a direction of the features
    head, features = network.head.double(), seen[0].detach().double()
    direction = torch.rand(features.shape, generator=generator(2), dtype=torch.float64)
    with torch.no_grad():
        change = (head.q_values(features + 1e-6 * direction) - head.q_values(features - 1e-6 * direction)).sum().item()
    expected = change / 2e-6 * (0.5**0.5 if dueling else 1)
    assert (seen[0].grad.double() * direction).sum().item() == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_atoms_are_evenly_spaced():
    assert make_categorical_network(TINY, 2, 4, -1, 2, generator()).head.atoms.tolist() == [-1, 0, 1, 2]
    atoms = make_categorical_network(TINY, 2, 51, -10, 10, generator()).head.atoms
    assert atoms.dtype == torch.float32
    np.testing.assert_allclose(atoms.numpy(), np.linspace(-10, 10, 51), rtol=1e-7, atol=1e-12)
    assert (atoms[0].item(), atoms[-1].item()) == (-10, 10)


def test_categorical_values_by_hand():
    # atoms −2, 0, 2. Logits ln 1, ln 2, ln 1 of the first action: probabilities ¼, ½, ¼, mean 0; ln 1, ln 1, ln 6 of
    # the second: ⅛, ⅛, ¾, mean −¼ + 3/2 = 1.25
    head = CategoricalHead(LinearHead(1, 1, 2, 3), 3, -2.0, 2.0)
    set_linear(head.body.hidden, [[0.0]], [0.0])
    set_linear(head.body.output, [[0.0]] * 6, [0.0, math.log(2), 0.0, 0.0, 0.0, math.log(6)])
    features = torch.zeros(1, 1)
    assert head(features)[0, 1].tolist() == pytest.approx([0.0, 0.0, math.log(6)])
    assert head.q_values(features).tolist() == [pytest.approx([0.0, 1.25], abs=1e-6)]


def test_quantile_values_by_hand():
    # quantiles (1, 2, 6) of the first action and (0, 0, −3) of the second, forward has them as [N, A]
    head = QuantileHead(LinearHead(1, 1, 2, 3))
    set_linear(head.body.hidden, [[0.0]], [0.0])
    set_linear(head.body.output, [[0.0]] * 6, [1.0, 2.0, 6.0, 0.0, 0.0, -3.0])
    features = torch.zeros(1, 1)
    assert head(features).tolist() == [[[1.0, 0.0], [2.0, 0.0], [6.0, -3.0]]]
    assert head.q_values(features).tolist() == [[3.0, -1.0]]


def implicit_by_hand():
    """One feature, 3 cosines with weights 1, 2, 4 and bias ½, one action whose quantile is the product of the two."""
    head = ImplicitHead(LinearHead(1, 1, 1), 1, cosines=3, policy_quantiles=2)
    set_linear(head.embedding, [[1.0, 2.0, 4.0]], [0.5])
    set_linear(head.body.hidden, [[1.0]], [0.0])
    set_linear(head.body.output, [[1.0]], [0.0])
    return head


def test_the_embedding_of_fractions_by_hand():
    # φ(τ) = ReLU(1·cos 0 + 2·cos πτ + 4·cos 2πτ + ½)
    # τ = 0: 1 + 2 + 4 + ½ = 7.5      τ = ½: 1 + 0 − 4 + ½ < 0, so 0     τ = 1: 1 − 2 + 4 + ½ = 3.5
    # τ = ⅓: 1 + 1 − 2 + ½ = 0.5
    quantiles = implicit_by_hand()(torch.tensor([[2.0], [10.0]]), torch.tensor([[0, 0.5, 1, 1 / 3], [1, 0, 0, 0.5]]))
    expected = [[15.0, 0.0, 7.0, 1.0], [35.0, 75.0, 75.0, 0.0]]
    np.testing.assert_allclose(quantiles.squeeze(-1).detach(), expected, atol=2e-5)


def test_implicit_values_are_the_mean_over_midpoints():
    # K = 2: τ = ¼: 1 + √2 + 0 + ½ = 2.914…; τ = ¾: 1 − √2 + 0 + ½ = 0.0858: their mean is 1.5
    assert implicit_by_hand().q_values(torch.tensor([[2.0]])).tolist() == [[pytest.approx(3.0, abs=2e-5)]]
    network = make_implicit_network(TINY, 4, 8, 5, generator())
    obs = random_obs()
    tau = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]).expand(2, 5)
    torch.testing.assert_close(network.q_values(obs), network(obs, tau).mean(1))
    assert torch.equal(network.q_values(obs), network.q_values(obs))


def test_fractions_are_embedded_in_float32_even_in_bfloat16():
    # 64 cosines: an angle of 63π τ in bfloat16 would be off by up to half a radian
    head = ImplicitHead(LinearHead(7, 6, 2), 7, 64, 8)
    features, tau = torch.rand(3, 7, generator=generator()), torch.rand(3, 5, generator=generator(1))
    full = head(features, tau)
    head.lower_precision(torch.bfloat16)
    assert (head(features.bfloat16(), tau) - full).norm() < 0.02 * full.norm()


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_only_output_layers_stay_float32_in_bfloat16(kind, dueling):
    network = KINDS[kind](dataclasses.replace(TINY, dueling=dueling, norm="layer"), 4, generator())
    network.lower_precision(torch.bfloat16)
    for name, parameter in network.named_parameters():
        assert parameter.dtype == (torch.float32 if "output" in name else torch.bfloat16), name


def weights_of(network):
    return {
        name: module.weight.detach().flatten(1)
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear | SpectralConv2d)
    }


@pytest.mark.parametrize("torso", ["nature", "impala"])
@pytest.mark.parametrize("kind", KINDS)
def test_orthogonal_weights(torso, kind):
    config = dataclasses.replace(TINY, torso=torso, init="orthogonal", dueling=True, spectral_norm=torso == "impala")
    for name, weight in weights_of(KINDS[kind](config, 4, generator())).items():
        gain = 1 if name.endswith("output") else 2  # squared
        tall = weight if weight.shape[0] < weight.shape[1] else weight.T
        torch.testing.assert_close(tall @ tall.T, gain * torch.eye(len(tall)), rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("torso", ["nature", "impala"])
def test_centred_filters_see_no_even_background(torso):
    plain, centred = (
        make_network(dataclasses.replace(TINY, torso=torso, init=init), 4, generator())
        for init in ("orthogonal", "centred_orthogonal")
    )
    first, other = (next(m for m in net.torso.modules() if isinstance(m, torch.nn.Conv2d)) for net in (plain, centred))
    expected = first.weight - first.weight.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(other.weight, expected, rtol=0, atol=1e-6)
    for brightness in (0.0, 0.34, 1.0):
        even = torch.full((1, 4, 84, 84), brightness)
        answer = torch.nn.functional.conv2d(even, other.weight, other.bias, other.stride)  # no padding: no edges
        torch.testing.assert_close(answer, torch.zeros_like(answer), rtol=0, atol=1e-5)
    same = dict(plain.named_parameters())
    differs = [name for name, tensor in centred.named_parameters() if not torch.equal(tensor, same[name])]
    assert len(differs) == 1


def test_he_normal_weights():
    # variance 2 / inputs before a ReLU, 1 / inputs in the last layer
    network = make_implicit_network(NetworkConfig(init="he_normal", hidden=400), 200, 64, 8, generator())
    for name, weight in weights_of(network).items():
        expected = (1 if name == "head.body.output" else 2) / weight.shape[1]
        error = 5 * math.sqrt(2 / weight.numel())
        assert weight.square().mean().item() == pytest.approx(expected, rel=error), name
        fourth = (weight.square().square().mean() / weight.square().mean().square()).item()
        assert fourth == pytest.approx(3, rel=5 * math.sqrt(11 / weight.numel())), name  # a normal one, not cut off


@pytest.mark.parametrize("init", ["glorot_uniform", "he_normal", "orthogonal", "centred_orthogonal"])
def test_biases_are_zero_but_for_torchs_default(init):
    network = make_implicit_network(dataclasses.replace(TINY, init=init, dueling=True), 4, 8, 3, generator())
    for name, parameter in network.named_parameters():
        assert not name.endswith("bias") or torch.equal(parameter, torch.zeros_like(parameter)), name


def test_an_unknown_init_is_refused():
    with pytest.raises(ValueError, match="xavier"):
        make_network(dataclasses.replace(TINY, init="xavier"), 2, generator())
