"""Noisy layers: their sizes and moments, silence in evaluation, noise that is drawn from one generator alone."""

import copy
import math

import numpy as np
import pytest
import torch

from pixelq.config import NetworkConfig
from pixelq.networks import make_network
from pixelq.networks.noisy import NoisyLinear

TINY = NetworkConfig(channels=(2, 3, 2), hidden=5, noisy=True, dueling=True)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_obs(batch=2, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (batch, 4, 84, 84), dtype=np.uint8))


def noisy_layer(inputs=3, outputs=2, sigma0=0.5):
    layer = NoisyLinear(inputs, outputs, sigma0)
    layer.reset(generator())
    return layer


@torch.no_grad()
def weights_in_use(layer):
    """Weight [q, p] and bias [q] as the layer applies them now."""
    bias = layer(torch.zeros(layer.in_features, dtype=layer.weight.dtype))
    return (layer(torch.eye(layer.in_features, dtype=layer.weight.dtype)) - bias).T, bias


def test_initial_weights_are_the_papers():
    # p = 400: μ uniform within 1/20, σ = 0.5/20 = 0.025, for weights and biases alike
    layer = noisy_layer(400, 300)
    for mean in (layer.weight.detach(), layer.bias.detach()):
        assert mean.abs().max() <= 0.05
        assert mean.abs().max() > 0.049
        assert mean.std().item() == pytest.approx(0.05 / math.sqrt(3), rel=0.1)
    for sigma in (layer.weight_sigma, layer.bias_sigma):
        assert torch.equal(sigma, torch.full_like(sigma, 0.025))


def test_noise_is_the_formula_of_its_draws():
    layer = noisy_layer()
    layer.redraw_noise(generator(5))
    epsilon = torch.randn(5, generator=generator(5), dtype=torch.float32).double()
    factor = epsilon.sign() * epsilon.abs().sqrt()  # f(x) = sgn(x) √|x|; inputs first, then outputs
    weight, bias = weights_in_use(layer)
    sigma = 0.5 / math.sqrt(3)
    expected = layer.weight.double() + sigma * factor[3:, None] * factor[None, :3]
    torch.testing.assert_close(weight.double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(bias.double(), layer.bias.double() + sigma * factor[3:], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_moments_over_many_draws():
    # f(ε)² = |ε|, whose mean is √(2/π): Var[w] = σ²·2/π, Var[b] = σ²·√(2/π). With E[ε⁴f] = E[ε²]² = 1 the standard
    # error of Var[w]/σ² over n draws is √(1 − (2/π)²)/√n = 0.77/√n, and of Var[b]/σ² √(1 − 2/π)/√n = 0.60/√n
    layer, source, draws = noisy_layer(sigma0=1.0), generator(1), 4_000
    sigma = 1 / math.sqrt(3)
    weights, biases = [], []
    for _ in range(draws):
        layer.redraw_noise(source)
        weight, bias = weights_in_use(layer)
        weights.append((weight - layer.weight.detach()) / sigma)
        biases.append((bias - layer.bias.detach()) / sigma)
    error = 4.5 / math.sqrt(draws)
    for noise, variance in ((torch.stack(weights), 2 / math.pi), (torch.stack(biases), math.sqrt(2 / math.pi))):
        assert noise.mean(0).abs().max() < error
        assert (noise.square().mean(0) - variance).abs().max() < error


def test_noise_is_factorised():
    layer = noisy_layer(7, 6)
    layer.redraw_noise(generator())
    weight, _ = weights_in_use(layer)
    values = torch.linalg.svdvals((weight - layer.weight) / layer.weight_sigma)
    assert values[1] < 1e-4 * values[0]


def test_evaluation_is_silent_and_uses_the_means():
    network = make_network(TINY, 3, generator())
    plain = make_network(NetworkConfig(channels=(2, 3, 2), hidden=5, dueling=True), 3, generator(1))
    plain.load_state_dict({name: t for name, t in network.state_dict().items() if not name.endswith("sigma")})
    obs = random_obs()
    network.eval()
    first = network.q_values(obs)
    assert torch.equal(first, plain.q_values(obs))
    network.redraw_noise(generator())
    assert torch.equal(first, network.q_values(obs))
    network.train()
    assert not torch.equal(first, network.q_values(obs))


def test_noise_stays_until_it_is_redrawn():
    network = make_network(TINY, 3, generator())
    obs, source = random_obs(), generator(1)
    network.redraw_noise(source)
    first = network.q_values(obs)
    assert torch.equal(first, network.q_values(obs))
    network.redraw_noise(source)
    second = network.q_values(obs)
    assert not torch.isclose(first, second, rtol=1e-6).any()
    network.redraw_noise(generator(1))
    assert torch.equal(first, network.q_values(obs))


def test_every_layer_has_noise_of_its_own():
    network = make_network(TINY, 3, generator())
    network.redraw_noise(generator())
    noise = [module._noise for module in network.modules() if isinstance(module, NoisyLinear)]
    assert len(noise) == 4  # dense and output, of value and advantage
    assert not torch.equal(noise[0][0], noise[2][0])  # both of the same width
    numbers = torch.cat([tensor for pair in noise for tensor in pair])
    assert len(numbers.unique()) == len(numbers)


def test_noise_comes_from_its_generator_alone():
    network = make_network(TINY, 3, generator())
    before = torch.random.get_rng_state()
    network.redraw_noise(generator())
    assert torch.equal(before, torch.random.get_rng_state())
    source = generator()
    state = source.get_state()
    make_network(NetworkConfig(channels=(1, 1, 1), hidden=1), 3, generator()).redraw_noise(source)
    assert torch.equal(state, source.get_state())  # nothing noisy, nothing drawn


def test_training_without_noise_says_what_to_do():
    network = make_network(TINY, 3, generator())
    with pytest.raises(RuntimeError, match=r"redraw_noise\(generator\)"):
        network.q_values(random_obs())


def test_noise_is_no_part_of_the_state_and_is_copied_with_the_network():
    network = make_network(TINY, 3, generator())
    names = set(network.state_dict())
    network.redraw_noise(generator())
    assert set(network.state_dict()) == names
    twin, obs = copy.deepcopy(network), random_obs()
    values = network.q_values(obs)
    assert torch.equal(values, twin.q_values(obs))
    twin.redraw_noise(generator(1))
    assert torch.equal(values, network.q_values(obs))


def test_redrawing_spares_the_graphs_of_earlier_forwards():
    network = make_network(TINY, 3, generator())
    network.redraw_noise(generator())
    network.q_values(random_obs()).sum().backward()
    expected = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    loss = network.q_values(random_obs()).sum()
    network.redraw_noise(generator(1))
    loss.backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(expected, network.parameters(), strict=True))


def test_gradients_of_mean_and_sigma():
    # y = Σ_j (μ_j + σ_j f_out f_j) x_j + …: dy/dμ_j = x_j and dy/dσ_j = x_j f_out f_j, for the bias 1 and f_out
    layer = noisy_layer(3, 1)
    layer.redraw_noise(generator(2))
    features = torch.tensor([1.0, -2.0, 0.5])
    layer(features).sum().backward()
    inputs, outputs = layer._noise
    torch.testing.assert_close(layer.weight.grad, features[None])
    torch.testing.assert_close(layer.weight_sigma.grad, (features * inputs * outputs)[None])
    assert layer.bias.grad.tolist() == [1.0]
    torch.testing.assert_close(layer.bias_sigma.grad, outputs)


def test_noise_is_float32_whatever_the_weights_are():
    network = make_network(TINY, 3, generator())
    network.redraw_noise(generator())
    full = network.q_values(random_obs())
    network.lower_precision(torch.bfloat16)
    lowered = network.q_values(random_obs())
    assert lowered.dtype == torch.float32
    assert (lowered - full).norm() < 0.02 * full.norm()
    for module in network.modules():
        if isinstance(module, NoisyLinear):
            assert {tensor.dtype for tensor in module._noise} == {torch.float32}
    assert network.head.value.hidden.weight_sigma.dtype == torch.bfloat16
    assert network.head.value.output.weight_sigma.dtype == torch.float32
