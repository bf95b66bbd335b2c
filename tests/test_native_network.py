"""A network's two kernels against float64."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from pixelq.engines.kernels import is_for_kernels
from pixelq.native.network import Dense, Layers, NetworkKernel, Norm, Stream
from pixelq.presets import PRESETS
from pixelq.replay.lz4_frames import Lz4Frames
from test_native import (  # noqa: F401 (a fixture)
    BATCHES,
    BF16,
    difference,
    in_float64,
    instructions,
    needs_kernels,
    pixels,
    rounded,
    torso_in_float64,
    torso_parameters,
)

SMALL, USUAL = ((16, 32, 32), 64), ((32, 64, 64), 512)
KINDS = [  # sizes, streams, noisy, actions, numbers of an action, normalised: the dense layers, the convolutions
    pytest.param(USUAL, 1, False, 4, 1, False, None, id="values"),
    pytest.param(SMALL, 1, False, 3, 51, False, None, id="atoms"),
    pytest.param(SMALL, 1, True, 6, 1, False, None, id="noisy"),
    pytest.param(USUAL, 2, False, 4, 1, False, None, id="dueling"),
    pytest.param(USUAL, 1, False, 4, 1, True, None, id="normalised"),
    pytest.param(USUAL, 1, False, 4, 1, True, "pixels", id="normalised at each pixel"),
    pytest.param(SMALL, 1, False, 4, 1, True, "layers", id="normalised over all of a layer"),
    pytest.param(((48, 96, 64), 64), 2, True, 5, 33, True, "pixels", id="dueling, normalised, noisy, wide"),
    pytest.param(SMALL, 2, True, 5, 33, False, None, id="dueling, noisy, wide"),
]


def dense(inputs, outputs, dtype, noisy, generator):
    shapes = ((outputs, inputs), (outputs,))
    means = [torch.randn(shape, generator=generator) * inputs**-0.5 for shape in shapes]
    sigmas = [0.5 * torch.rand(shape, generator=generator) * inputs**-0.5 for shape in shapes]
    tensors = [*means, *(sigmas if noisy else [])]
    return Dense(*(tensor.to(dtype).requires_grad_() for tensor in tensors))


def norm(shape, generator):
    numbers = (1 + torch.randn(shape, generator=generator) / 4, torch.randn(shape, generator=generator) / 4)
    return Norm(*(tensor.to(BF16).requires_grad_() for tensor in numbers), 1e-3)


def make(sizes, streams, noisy, actions, each, normalised, planes, seed=0):
    """Layers, and the noise of an update."""
    filters, units = sizes
    weights, biases = torso_parameters(filters, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    convolutions = list(zip(weights, biases, strict=True))
    widths = [each, actions * each][-streams:]
    made = [
        Stream(
            dense(filters[2] * 49, units, BF16, noisy, generator),
            dense(units, width, torch.float32, noisy, generator),
            norm(units, generator) if normalised else None,
        )
        for width in widths
    ]
    shapes = [(n,) if planes == "pixels" else (side, side, n) for side, n in zip((20, 9, 7), filters, strict=True)]
    norms = [norm(shape, generator) for shape in shapes] if planes else ()
    background = torch.tensor([87.0]) if sizes[1] == 64 else None
    layers = Layers(convolutions, made, actions, norms, background)
    shapes = [layer.weight.shape for stream in made for layer in stream[:2]]
    noise = [tuple(torch.randn(n, generator=generator) for n in reversed(shape)) for shape in shapes]
    return layers, noise if noisy else None


def normalised_torso_in_float64(obs, weights, biases, norms, epsilon, background):
    """The same sums in float64, rounded where the kernel rounds."""
    planes = (obs.double() - (0 if background is None else background.double())) / 255
    gains, shifts = norms[::2], norms[1::2]
    for weight, bias, stride, gain, shift in zip(weights, biases, (4, 2, 1), gains, shifts, strict=True):
        sums = rounded(functional.conv2d(planes, weight, bias, stride)).permute(0, 2, 3, 1)
        planes = rounded(functional.layer_norm(sums, gain.shape, gain, shift, epsilon).permute(0, 3, 1, 2).relu())
    return planes.flatten(1)


def outputs_in_float64(layers, weights, noise, obs):
    """The same sums in float64 of weights in the order of `Layers.weights`, rounded where the kernel rounds."""
    exact = {id(tensor): weight for tensor, weight in zip(layers.weights(), weights, strict=True)}
    convolutions = weights[0:6:2], weights[1:6:2]
    if layers.norms:
        kind = layers.norms[0].epsilon, layers.background
        features = normalised_torso_in_float64(obs, *convolutions, weights[6:12], *kind)
    else:
        features = torso_in_float64(obs, *convolutions, layers.background)
    if len(layers.streams) == 2:
        scale = 0.5**0.5
        features = features * scale + features.detach() * (1 - scale)
    parts = []
    for index, stream in enumerate(layers.streams):
        numbers = features
        for place, layer in enumerate(stream[:2]):
            weight, bias, *sigmas = (exact[id(tensor)] for tensor in layer if tensor is not None)
            if sigmas and noise is not None:
                inputs, outputs = (factor.double() for factor in noise[2 * index + place])
                weight, bias = weight + sigmas[0] * outputs.outer(inputs), bias + sigmas[1] * outputs
                if layer.weight.dtype == BF16:
                    weight, bias = rounded(weight), rounded(bias)
            numbers = functional.linear(numbers, weight, bias)
            if place == 0 and stream.norm:
                gain, shift = (exact[id(tensor)] for tensor in stream.norm[:2])
                numbers = functional.layer_norm(numbers, gain.shape, gain, shift, stream.norm.epsilon)
            if place == 0:
                numbers = numbers.relu()
        parts.append(numbers)
    if len(parts) == 1:
        return parts[0]
    value, advantage = parts[0].unsqueeze(1), parts[1].unflatten(1, (layers.num_actions, -1))
    return (value + advantage - advantage.mean(1, keepdim=True)).flatten(1)


@needs_kernels
@pytest.mark.parametrize(("sizes", "streams", "noisy", "actions", "each", "normalised", "planes"), KINDS)
@pytest.mark.parametrize("size", [BATCHES[0], *BATCHES[3:5]])
def test_outputs_and_gradients_are_those_of_float64(sizes, streams, noisy, actions, each, normalised, planes, size):
    layers, noise = make(sizes, streams, noisy, actions, each, normalised, planes)
    obs = pixels(size)
    kernel = NetworkKernel(layers)
    outputs = kernel(obs, noise)
    exact = in_float64(kernel.weights)
    wanted = outputs_in_float64(layers, exact, noise, obs)
    assert outputs.shape == (size, actions * each)
    assert difference(outputs, wanted.detach()) < 2e-3
    with torch.no_grad():
        assert torch.equal(kernel(obs, noise), outputs)
        silent = outputs_in_float64(layers, exact, None, obs)  # in evaluation
        assert difference(kernel(obs), silent) < 2e-3
    push = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(3))
    got = torch.autograd.grad(outputs, kernel.weights, push)
    for index, (mine, theirs) in enumerate(zip(got, torch.autograd.grad(wanted, exact, push.double()), strict=True)):
        assert mine.stride() == kernel.weights[index].stride()
        assert mine.dtype == kernel.weights[index].dtype
        # a unit within rounding of zero may be on its other side in float64
        assert difference(mine, theirs) < 3e-2, index


@needs_kernels
def test_a_pass_back_is_of_its_own_pass_forward():
    layers, noise = make(*KINDS[-1].values)
    other = [tuple(-factor for factor in factors) for factors in noise]
    kernel = NetworkKernel(layers)

    def gradients(outputs):
        return torch.autograd.grad(outputs.sum(), kernel.weights)

    wanted = [gradients(kernel(pixels(5), which)) for which in (noise, other)]
    first, second = (kernel(pixels(5), which) for which in (noise, other))
    with torch.no_grad():
        kernel(pixels(70, seed=9), noise)
    for outputs, expected in ((second, wanted[1]), (first, wanted[0])):
        assert all(torch.equal(a, b) for a, b in zip(gradients(outputs), expected, strict=True))
    outputs = kernel(pixels(5), noise)
    outputs.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated before"):
        outputs.sum().backward()


@needs_kernels
def test_gradients_may_have_the_memory_of_those_before():
    layers, noise = make(*KINDS[-1].values)
    kernel = NetworkKernel(layers)

    def gradients(seed):
        return torch.autograd.grad(kernel(pixels(5, seed), noise).sum(), kernel.weights)

    first, second = gradients(1), gradients(2)
    kept = [gradient.clone() for gradient in first]
    for gradient in second:
        gradient.fill_(torch.nan)
    kernel.take_back(second)
    again = gradients(1)
    assert [gradient.data_ptr() for gradient in again] == [gradient.data_ptr() for gradient in second]
    gradients(2)  # nobody has given back what it was given
    for results in (first, again):
        assert all(torch.equal(a, b) for a, b in zip(results, kept, strict=True))


@needs_kernels
@pytest.mark.parametrize("kind", [-1, -2])
def test_a_network_does_not_depend_on_the_number_of_threads(kind):
    layers, noise = make(*KINDS[kind].values)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            kernel = NetworkKernel(layers)
            outputs = kernel(pixels(70), noise)
            results.append([outputs, *torch.autograd.grad(outputs.cos().sum(), kernel.weights)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_kernels
def test_planes_are_read_when_they_are_wanted():
    frames = Lz4Frames(64)
    obs = pixels(12)
    frames.write(0, obs.flatten(0, 1).numpy())
    slots = torch.arange(48).view(12, 4).flip(0).numpy().copy()
    kernel = NetworkKernel(make(*KINDS[1].values)[0])
    assert torch.equal(kernel(frames.unread(slots)), kernel(obs.flip(0)))


@pytest.mark.parametrize(
    ("preset", "changes", "whole"),
    [
        ("fast", {}, True),
        ("rainbow", {}, True),
        ("fast", {"channels": (16, 32, 32), "hidden": 64}, True),
        ("fast", {"channels": (24, 64, 64)}, False),
        ("fast", {"channels": (32, 40, 64)}, False),
        ("fast", {"hidden": 500}, False),
        ("dueling-dqn", {"hidden": 500}, False),
        ("pqn", {}, True),
        ("fast", {"norm": "layer"}, True),
        ("iqn", {}, False),
        ("iqn", {"norm": "layer"}, False),
        ("btr", {}, False),
    ],
)
def test_what_a_network_must_be(preset, changes, whole):
    config = PRESETS[preset].config
    assert is_for_kernels(replace(config, network=replace(config.network, **changes))) is whole


def test_planes_of_another_size_are_not_for_the_kernel():
    config = PRESETS["fast"].config
    for view in ({"height": 96}, {"stack": 3}, {"colour": True}):
        assert not is_for_kernels(replace(config, env=replace(config.env, **view)))


@needs_kernels
@pytest.mark.parametrize(("sizes", "streams", "noisy", "actions", "each", "normalised", "planes"), KINDS[2:4])
def test_observations_in_two_places_are_one_batch(sizes, streams, noisy, actions, each, normalised, planes):
    layers, noise = make(sizes, streams, noisy, actions, each, normalised, planes)
    kernel, obs = NetworkKernel(layers), pixels(13)
    wanted = kernel(obs, noise)
    outputs = kernel(obs[:5], noise, obs[5:].clone())
    assert torch.equal(outputs, wanted)
    results = [torch.autograd.grad(one.sum(), kernel.weights) for one in (outputs, wanted)]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
