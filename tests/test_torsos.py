"""Torsos: layer normalisation against PyTorch's own, the IMPALA torso's shapes, spectral norm against two oracles."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from pixelq.config import NetworkConfig, ObsShape
from pixelq.networks import make_network
from pixelq.networks.norms import PlaneNorm, dense_norm, plane_norm
from pixelq.networks.spectral import SpectralConv2d
from pixelq.networks.torsos import ImpalaTorso, NatureTorso, _FoldingConv2d


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_planes(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed)).to(memory_format=torch.channels_last)


def randomise(module, seed=0):
    source = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=source)


def test_norm_over_a_layer_is_pytorchs_over_channels_rows_columns():
    (norm,) = plane_norm("layer", 3, (4, 4))
    randomise(norm)
    planes = random_planes(2, 3, 4, 4)
    weight, bias = (tensor.permute(2, 0, 1) for tensor in (norm.norm.weight, norm.norm.bias))  # [H, W, C] to [C, H, W]
    expected = functional.layer_norm(planes.contiguous(), (3, 4, 4), weight, bias, 1e-5)
    torch.testing.assert_close(norm(planes), expected)


def test_norm_at_each_pixel_by_its_formula():
    (norm,) = plane_norm("layer_per_pixel", 3, (4, 4))
    randomise(norm)
    planes = random_planes(2, 3, 4, 4)
    wide = planes.double()
    mean = wide.mean(1, keepdim=True)
    variance = (wide - mean).square().mean(1, keepdim=True)
    weight, bias = (tensor.double()[:, None, None] for tensor in (norm.norm.weight, norm.norm.bias))
    expected = (wide - mean) / (variance + 1e-6).sqrt() * weight + bias
    torch.testing.assert_close(norm(planes).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "epsilon"), [("layer", 1e-5), ("layer_per_pixel", 1e-6)])
def test_epsilon_is_that_of_each_program(kind, epsilon):
    # two units ±10⁻³: their variance is 10⁻⁶, so that ε shows
    units = torch.tensor([[1e-3, -1e-3]])
    expected = 1e-3 / (1e-6 + epsilon) ** 0.5
    assert dense_norm(kind, 2)(units).tolist() == [pytest.approx([expected, -expected], rel=1e-5)]
    if kind == "layer_per_pixel":
        (norm,) = plane_norm(kind, 2, (1, 1))
        assert norm(units[:, :, None, None]).flatten().tolist() == pytest.approx([expected, -expected], rel=1e-5)


def test_a_normalised_dense_layer_has_length_one_at_first_and_ones_that_pqn_normalises_have_variance_one():
    units = torch.randn(3, 256, generator=generator())
    expected = functional.layer_norm(units.double(), (256,)) / 16
    torch.testing.assert_close(dense_norm("dense", 256)(units).double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(expected.norm(dim=1), torch.ones(3, dtype=torch.float64), rtol=1e-4, atol=0)
    torch.testing.assert_close(dense_norm("layer", 256)(units).double(), 16 * expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["layer", "layer_per_pixel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_keep_channels_last_and_the_type(kind, dtype):
    (norm,) = plane_norm(kind, 5, (4, 4))
    normalised = norm.to(dtype)(random_planes(3, 5, 4, 4).to(dtype))
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    assert normalised.dtype == dtype


def test_statistics_in_bfloat16_are_float32():
    # 257 numbers around 100: a sum or a variance in bfloat16, whose spacing is ½ at 100, would be far off
    planes = (100 + random_planes(1, 257, 1, 1)).bfloat16()
    (norm,) = plane_norm("layer_per_pixel", 257, (1, 1))
    expected = functional.layer_norm(planes.double().flatten(), (257,), eps=1e-6)
    normalised = norm.to(torch.bfloat16)(planes).double().flatten()
    assert (normalised - expected).abs().max() < 2**-8 * expected.abs().max()


@pytest.mark.parametrize("norm", ["layer", "layer_per_pixel"])
def test_a_norm_stands_before_each_relu(norm):
    layers = NatureTorso((3, 4, 5), norm).layers
    assert [type(layer) for layer in layers[1:]] == [
        PlaneNorm,
        nn.ReLU,
        _FoldingConv2d,
        PlaneNorm,
        nn.ReLU,
        nn.Conv2d,
        PlaneNorm,
        nn.ReLU,
    ]
    assert type(layers[0]) is _FoldingConv2d
    network = make_network(NetworkConfig(channels=(3, 4, 5), hidden=6, norm=norm), 2, generator())
    assert isinstance(network.head.norm, nn.LayerNorm)
    assert list(network.head.norm.normalized_shape) == [6]


def test_without_a_norm_the_names_are_those_of_agents_on_disk():
    network = make_network(NetworkConfig(channels=(1, 1, 1), hidden=1), 2, generator())
    parts = [f"torso.layers.{index}" for index in (0, 2, 4)] + ["head.hidden", "head.output"]
    assert list(network.state_dict()) == [f"{part}.{name}" for part in parts for name in ("weight", "bias")]


@pytest.mark.parametrize(("max_pool", "side"), [(0, 11), (6, 6), (1, 1)])
def test_impala_planes_halve_three_times(max_pool, side):
    # 84 → 42 → 21 → 11, each (n + 2 − 3) // 2 + 1
    torso = ImpalaTorso((2, 3, 4), max_pool=max_pool)
    sides = []
    for layer in torso.layers:
        if isinstance(layer, nn.MaxPool2d):
            layer.register_forward_hook(lambda _, __, planes: sides.append(planes.shape[-1]))
    features = torso(torch.zeros(2, 4, 84, 84))
    assert sides == [42, 21, 11]
    assert features.shape == (2, torso.features)
    assert torso.features == 4 * side * side


def test_spectral_norm_is_put_on_residual_convolutions_only():
    torso = ImpalaTorso((2, 3, 4), spectral_norm=True)
    assert sum(isinstance(module, SpectralConv2d) for module in torso.modules()) == 3 * 2 * 2
    assert [type(layer) for layer in torso.layers if isinstance(layer, nn.Conv2d | SpectralConv2d)] == [nn.Conv2d] * 3
    assert not any(isinstance(module, SpectralConv2d) for module in ImpalaTorso((2, 3, 4)).modules())


def spectral_pair():
    """Ours and PyTorch's, of the same weights and the same u; their v is Wᵀu normalised, as ours."""
    ours = SpectralConv2d(3, 4, 3, padding=1)
    randomise(ours)
    ours.settle(generator())
    theirs = nn.Conv2d(3, 4, 3, padding=1)
    with torch.no_grad():
        theirs.weight.copy_(ours.weight)
        theirs.bias.copy_(ours.bias)
    parametrizations.spectral_norm(theirs, n_power_iterations=1, eps=1e-12)
    vectors = theirs.parametrizations.weight[0]
    start = torch.nn.functional.normalize(torch.randn(4, generator=generator(3)), dim=0)
    ours.u.copy_(start)
    vectors._u.copy_(start)
    with torch.no_grad():
        vectors._v.copy_(functional.normalize(ours.weight.flatten(1).T @ start, dim=0))
    return ours, theirs


def test_spectral_norm_is_pytorchs_forward_and_backward():
    ours, theirs = spectral_pair()
    for step in range(3):
        planes = random_planes(2, 3, 5, 5, seed=step)
        mine, other = ours(planes), theirs(planes)
        torch.testing.assert_close(mine, other)
        torch.testing.assert_close(ours.u, theirs.parametrizations.weight[0]._u)
        mine.square().sum().backward()
        other.square().sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.parametrizations.weight.original.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_largest_singular_value_becomes_one(memory_format):
    layer = SpectralConv2d(8, 8, 3, padding=1).to(memory_format=memory_format)
    randomise(layer)
    layer.settle(generator())
    assert torch.linalg.svdvals(layer.normalised_weight().flatten(1))[0].item() == pytest.approx(1, rel=0.05)
    for _ in range(200):
        layer.normalised_weight()
    largest = torch.linalg.svdvals(layer.weight.detach().double().flatten(1))[0]
    expected = layer.weight.double() / largest
    torch.testing.assert_close(layer.normalised_weight().double(), expected, rtol=1e-4, atol=1e-6)


def test_u_moves_in_training_with_gradients_alone():
    layer, planes = SpectralConv2d(3, 4, 3, padding=1), random_planes(1, 3, 5, 5)
    layer.u.copy_(torch.tensor([1.0, 0, 0, 0]))
    before = layer.u.clone()
    with torch.no_grad():
        layer(planes)
    layer.eval()
    layer(planes)
    assert torch.equal(layer.u, before)
    layer.train()
    layer(planes)
    assert not torch.equal(layer.u, before)
    assert layer.u.norm().item() == pytest.approx(1, rel=1e-6)


def test_u_may_move_on_before_the_gradients_are_taken():
    layer, planes = SpectralConv2d(3, 4, 3, padding=1), random_planes(1, 3, 5, 5)
    loss = layer(planes).sum()
    layer(planes)
    loss.backward()
    assert layer.weight.grad.isfinite().all()


def test_spectral_weights_stay_float32_in_bfloat16():
    config = NetworkConfig("impala", (2, 3, 4), hidden=5, spectral_norm=True, max_pool=2)
    network = make_network(config, 2, generator())
    network.lower_precision(torch.bfloat16)
    assert network.compute_dtype == torch.bfloat16
    for module in network.torso.modules():
        if isinstance(module, SpectralConv2d):
            assert {module.weight.dtype, module.bias.dtype, module.u.dtype} == {torch.float32}
            assert module(torch.zeros(1, module.weight.shape[1], 3, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16
        elif isinstance(module, nn.Conv2d):
            assert module.weight.dtype == torch.bfloat16
    assert sum(name.endswith(".u") for name in network.state_dict()) == 12


def test_residual_blocks_leave_planes_that_others_hold_as_they_were():
    torso = ImpalaTorso((2, 3, 4))
    planes = torch.rand(1, 4, 84, 84)
    before = planes.clone()
    with torch.no_grad():
        first = torso(planes)
        assert torch.equal(torso(planes), first)
    assert torch.equal(planes, before)


@pytest.mark.parametrize("torso", ["nature", "impala"])
def test_width_multiplies_channels(torso):
    config = NetworkConfig(torso, (2, 3, 4), width=3, hidden=5)
    network = make_network(config, 2, generator())
    filters = [layer.out_channels for layer in network.torso.layers if isinstance(layer, nn.Conv2d)]
    assert filters == [6, 9, 12]


def test_pixels_and_observations_give_the_same_values_and_gradients_reach_pixels():
    network = make_network(NetworkConfig(channels=(3, 4, 5), hidden=6), 2, generator())
    obs = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 4, 84, 84), dtype=np.uint8))
    pixels = (obs.float() / 255).requires_grad_()
    values = network.q_values_of_pixels(pixels)
    assert torch.equal(values, network.q_values(obs))
    values.sum().backward()
    assert pixels.grad.abs().sum() > 0


def with_background(torso, shape):
    """A network that subtracts a background, and its twin that subtracts none."""
    config = NetworkConfig(torso, (3, 4, 5), hidden=6)
    networks = [make_network(replace(config, background=kind), 2, generator(), shape) for kind in ("common", "none")]
    assert networks[1].background is None
    return networks


def test_the_background_is_the_most_common_byte_of_each_colour():
    network, twin = with_background("nature", ObsShape(2, 3, 40, 36))
    pictures = np.zeros((2, 3, 40, 36), np.uint8)  # nothing is more common than 0, but in red and in blue
    pictures[:, 0, :21] = 255
    pictures[0, 2, :30], pictures[1, 2, :10], pictures[1, 2, 10:] = 7, 8, 9
    network.see_background(pictures)
    assert network.background.tolist() == [255, 0, 7]
    twin.see_background(pictures)
    assert twin.background is None
    grey, _ = with_background("nature", ObsShape(4, 1, 36, 36))
    assert grey.background.tolist() == [0]
    grey.see_background(np.full((3, 36, 36), 87, np.uint8))
    assert grey.background.tolist() == [87]


@pytest.mark.parametrize("shape", [ObsShape(), ObsShape(2, 3, 40, 36)], ids=["grey", "colour"])
@pytest.mark.parametrize("torso", ["nature", "impala"])
def test_a_background_is_subtracted_from_each_pixel(torso, shape):
    network, twin = with_background(torso, shape)
    background = [87.0, 255.0, 3.0][: shape.channels]
    network.background.copy_(torch.tensor(background))
    obs = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, *shape.obs), dtype=np.uint8))
    pictures = obs.double().unflatten(1, (shape.stack, shape.channels))
    expected = torch.stack([pictures[:, :, c] - value for c, value in enumerate(background)], dim=2).flatten(1, 2) / 255
    wanted = twin.q_values_of_pixels(expected.float())
    torch.testing.assert_close(network.q_values(obs), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network.q_values_of_pixels(obs.float() / 255), wanted, rtol=1e-5, atol=1e-6)
    low = network.lower_precision(torch.bfloat16) or network.q_values(obs)
    torch.testing.assert_close(low, wanted, rtol=0.05, atol=0.02)
    assert [name for name in network.state_dict() if name not in twin.state_dict()] == ["background"]


def test_a_background_is_a_change_of_the_first_biases():
    """conv(x − c) is conv(x) less c times the sum of a filter's weights; no padding, no edges."""
    network, twin = with_background("nature", ObsShape())
    network.background.fill_(87.0)
    first = twin.torso.convolutions[0]
    with torch.no_grad():
        first.bias -= 87 / 255 * first.weight.sum((1, 2, 3))
    obs = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 4, 84, 84), dtype=np.uint8))
    torch.testing.assert_close(network.q_values(obs), twin.q_values(obs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_folded_planes_give_the_same_sums(layout):
    torso = NatureTorso((5, 4, 3)).double()
    randomise(torso)
    planes = random_planes(2, 4, 84, 84).double().contiguous(memory_format=layout)
    results = []
    for _ in range(2):
        torso.zero_grad()
        features = torso(planes)
        features.square().sum().backward()
        results.append((features.detach(), *(parameter.grad.clone() for parameter in torso.parameters())))
        torso.fold_planes()
    for folded, plain in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(folded, plain, rtol=1e-12, atol=1e-12 * plain.abs().max().item())
