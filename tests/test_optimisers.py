"""Optimisers and clipping against loops in float64, and their state through a file."""

import dataclasses

import numpy as np
import pytest
import safetensors.torch
import torch

import oracles
from pixelq.clipping import clipping_factors, scale
from pixelq.config import OptimiserConfig
from pixelq.optimisers import StepSize, learning_rate_at, make_optimiser

CONFIGS = {
    "adam": OptimiserConfig(name="adam", learning_rate=1e-2, epsilon=1e-8),
    "keras_adam": OptimiserConfig(name="keras_adam", learning_rate=1e-2, epsilon=1e-7),
    "radam": OptimiserConfig(name="radam", learning_rate=1e-2, epsilon=1e-8),
    "centred_rmsprop": OptimiserConfig(name="centred_rmsprop", learning_rate=1e-2, epsilon=0.01 / 32**2, decay=0.95),
}
KINDS = {name: (config, False) for name, config in CONFIGS.items()} | {
    f"{name}, elementwise": (CONFIGS[name], True) for name in ("adam", "keras_adam", "radam")
}
SHAPES = {"conv": (5, 4, 3, 3), "dense": (6, 7), "bias": (6,), "scalar": ()}


def make_parameters(seed=0):
    """Named float32 tensors, the convolution stored channels-last as in the network."""
    rng = np.random.default_rng(seed)
    parameters = {name: torch.tensor(rng.normal(size=shape), dtype=torch.float32) for name, shape in SHAPES.items()}
    parameters["conv"] = parameters["conv"].contiguous(memory_format=torch.channels_last)
    assert not parameters["conv"].is_contiguous()
    return parameters


def make(kind, parameters):
    config, elementwise = KINDS[kind]
    return make_optimiser(config, list(parameters.values()), elementwise)


def random_gradients(rng, scale):
    return {name: (scale * rng.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()}


def step(optimiser, parameters, gradients):
    optimiser.prepare()
    optimiser.step(
        [
            torch.empty_like(parameter).copy_(torch.from_numpy(np.asarray(gradients[name])))
            for name, parameter in parameters.items()
        ]
    )


def as_float64(parameters):
    return {name: tensor.numpy().astype(np.float64) for name, tensor in parameters.items()}


def relative_error(start, got, wanted):
    """Of the whole way from the start, so that a step not made counts as 1."""
    way = sum(np.sum((wanted[name] - start[name]) ** 2) for name in start)
    off = sum(np.sum((got[name] - wanted[name]) ** 2) for name in start)
    return float(np.sqrt(off / way))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [3.0, 1e-2, 1e-6])
def test_optimisers_equal_their_source(kind, scale):
    config, _ = KINDS[kind]
    parameters = make_parameters()
    for tensor in parameters.values():
        tensor.zero_()  # so that float32 does not round small steps away
    optimiser, oracle = make(kind, parameters), oracles.make_optimiser(config)
    rng = np.random.default_rng(1)
    start = expected = as_float64(parameters)
    for count in range(1, 51):
        gradients = random_gradients(rng, scale)
        step(optimiser, parameters, gradients)
        expected = oracle.step(expected, gradients)
        if count in (1, 2, 10, 50):
            assert relative_error(start, as_float64(parameters), expected) < 1e-4, count


@pytest.mark.parametrize("kind", KINDS)
def test_weights_decay_apart_from_their_gradients(kind):
    config = dataclasses.replace(KINDS[kind][0], weight_decay=5.0)
    parameters = make_parameters()
    optimiser = make_optimiser(config, list(parameters.values()), KINDS[kind][1])
    oracle, plain = oracles.make_optimiser(config), oracles.make_optimiser(KINDS[kind][0])
    rng = np.random.default_rng(8)
    start = expected = undecayed = as_float64(parameters)
    for count in range(1, 21):
        optimiser.learning_rate = oracle.learning_rate = plain.learning_rate = 1e-2 / count**0.5
        gradients = random_gradients(rng, 0.1)
        step(optimiser, parameters, gradients)
        expected, undecayed = oracle.step(expected, gradients), plain.step(undecayed, gradients)
        assert relative_error(start, as_float64(parameters), expected) < 1e-4, count
    assert relative_error(start, as_float64(parameters), undecayed) > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_weight_decay_by_hand(kind):
    # step size 0.01, λ 10: without gradients a weight keeps nine tenths at each step
    parameter = torch.tensor([1.0, -2.0])
    config = dataclasses.replace(KINDS[kind][0], weight_decay=10.0)
    optimiser = make_optimiser(config, [parameter], KINDS[kind][1])
    for kept in (0.9, 0.81, 0.729):
        step(optimiser, {"p": parameter}, {"p": np.zeros(2)})
        assert parameter.tolist() == pytest.approx([kept, -2 * kept], rel=1e-6)
    optimiser.learning_rate = 0.05
    step(optimiser, {"p": parameter}, {"p": np.zeros(2)})
    assert parameter.tolist() == pytest.approx([0.3645, -0.729], rel=1e-6)


def test_the_place_of_epsilon_shows():
    # the first step of a gradient g: PyTorch's form lr · g / (|g| + ε), Keras' lr · g / (|g| + ε / √0.001)
    size, rate = 1e-6, 1e-2
    moved = {}
    for name in ("adam", "keras_adam"):
        parameter = torch.zeros(1)
        config = OptimiserConfig(name=name, learning_rate=rate, epsilon=1e-7)
        step(make_optimiser(config, [parameter]), {"p": parameter}, {"p": np.full(1, size, np.float32)})
        moved[name] = -parameter.item()
    assert moved["adam"] == pytest.approx(rate / 1.1, rel=1e-5)  # 1e-6 / (1e-6 + 1e-7)
    assert moved["keras_adam"] == pytest.approx(rate / (1 + 0.1 / 0.001**0.5), rel=1e-4)  # 0.24 of the rate


def test_centred_rmsprop_by_hand():
    # ρ 0.5, rate 1, ε 0.75, gradient 2: m = 1, v = 2, v − m² = 1, step −2 / √(1 + 0.75)
    # again 2: m = 1.5, v = 3, v − m² = 0.75, step −2 / √(0.75 + 0.75)
    config = OptimiserConfig(name="centred_rmsprop", learning_rate=1.0, epsilon=0.75, decay=0.5)
    parameter = torch.zeros(1)
    optimiser = make_optimiser(config, [parameter])
    step(optimiser, {"p": parameter}, {"p": np.full(1, 2.0)})
    assert parameter.item() == pytest.approx(-2 / 1.75**0.5, rel=1e-6)
    step(optimiser, {"p": parameter}, {"p": np.full(1, 2.0)})
    assert parameter.item() == pytest.approx(-2 / 1.75**0.5 - 2 / 1.5**0.5, rel=1e-6)


def test_centred_rmsprop_of_averages_equals_that_of_sums():
    # Nature's program sums gradients over its batch of 32 and takes ε 0.01; ours averages
    averaged, summed = make_parameters(), make_parameters()
    start = as_float64(averaged)
    rate = {"name": "centred_rmsprop", "learning_rate": 2.5e-4, "decay": 0.95}
    ours = make_optimiser(OptimiserConfig(epsilon=0.01 / 32**2, **rate), list(averaged.values()))
    nature = make_optimiser(OptimiserConfig(epsilon=0.01, **rate), list(summed.values()))
    rng = np.random.default_rng(2)
    for _ in range(50):
        gradients = random_gradients(rng, 3e-3)  # where ε is as large as the variance
        step(ours, averaged, gradients)
        step(nature, summed, {name: 32 * g for name, g in gradients.items()})
    assert relative_error(start, as_float64(averaged), as_float64(summed)) < 1e-3


def test_centred_rmsprop_survives_gradients_that_never_change():
    # the variance goes to 0, and rounding may bring it below
    config = CONFIGS["centred_rmsprop"]
    parameter = torch.zeros(3)
    optimiser = make_optimiser(config, [parameter])
    for _ in range(500):
        step(optimiser, {"p": parameter}, {"p": np.array([0.1, 1e3, 1e6])})
    assert parameter.isfinite().all()
    before = parameter[0].item()
    step(optimiser, {"p": parameter}, {"p": np.array([0.1, 1e3, 1e6])})
    assert parameter[0].item() - before == pytest.approx(-1e-2 * 0.1 / config.epsilon**0.5, rel=1e-3)


def through_a_file(tensors):
    """What a checkpoint gives back: the same numbers, contiguous."""
    stored = safetensors.torch.load(
        safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    )
    assert all(tensor.is_contiguous() for tensor in stored.values())
    return stored


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [0, 1, 7])
def test_a_restored_optimiser_goes_on_bit_for_bit(kind, steps):
    parameters = make_parameters()
    optimiser = make(kind, parameters)
    rng = np.random.default_rng(3)
    for _ in range(steps):
        step(optimiser, parameters, random_gradients(rng, 0.1))
    stored = through_a_file(optimiser.state())

    copies = {key: tensor.clone() for key, tensor in parameters.items()}  # keeps the strides
    restored = make(kind, copies)
    restored.restore(stored)
    again = through_a_file(restored.state())
    assert {key: tensor.tolist() for key, tensor in again.items()} == {k: t.tolist() for k, t in stored.items()}
    for _ in range(5):
        gradients = random_gradients(rng, 0.1)
        step(optimiser, parameters, gradients)
        step(restored, copies, gradients)
        for key, tensor in parameters.items():
            assert torch.equal(copies[key], tensor), key


@pytest.mark.parametrize("kind", KINDS)
def test_restoring_forgets_the_steps_made_before(kind):
    rng = np.random.default_rng(4)
    parameters = make_parameters()
    optimiser = make(kind, parameters)
    step(optimiser, parameters, random_gradients(rng, 0.1))
    weights = {key: tensor.clone() for key, tensor in parameters.items()}
    stored = through_a_file(optimiser.state())
    gradients = [random_gradients(rng, 0.1) for _ in range(3)]
    ends = []
    for _ in range(2):
        for gradient in gradients:
            step(optimiser, parameters, gradient)
        ends.append({key: tensor.clone() for key, tensor in parameters.items()})
        for key, tensor in parameters.items():
            tensor.copy_(weights[key])
        optimiser.restore(stored)
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in weights)


@pytest.mark.parametrize("kind", KINDS)
def test_restored_tensors_are_copies(kind):
    parameters = make_parameters()
    optimiser = make(kind, parameters)
    rng = np.random.default_rng(5)
    step(optimiser, parameters, random_gradients(rng, 0.1))
    stored = through_a_file(optimiser.state())
    kept = {key: tensor.clone() for key, tensor in stored.items()}
    optimiser.restore(stored)
    step(optimiser, parameters, random_gradients(rng, 0.1))
    assert all(torch.equal(stored[key], kept[key]) for key in kept)


@pytest.mark.parametrize("name", ["adam", "keras_adam", "radam"])
@pytest.mark.parametrize("elementwise", [False, True])
@pytest.mark.parametrize("steps", [0, 3, 9])
def test_a_run_may_go_on_with_the_other_way_to_compute_it(name, elementwise, steps):
    ways = [name, f"{name}, elementwise"]
    first, second = reversed(ways) if elementwise else ways
    rng = np.random.default_rng(7)
    gradients = [random_gradients(rng, 0.1) for _ in range(steps + 6)]
    parameters = make_parameters()
    optimiser = make(first, parameters)
    for gradient in gradients[:steps]:
        step(optimiser, parameters, gradient)
    copies = {key: tensor.clone() for key, tensor in parameters.items()}
    start = as_float64(copies)
    other = make(second, copies)
    other.restore(through_a_file(optimiser.state()))
    for gradient in gradients[steps:]:
        step(optimiser, parameters, gradient)
        step(other, copies, gradient)
    assert relative_error(start, as_float64(copies), as_float64(parameters)) < 1e-4
    ours, theirs = through_a_file(other.state()), through_a_file(optimiser.state())
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[key], rtol=1e-5, atol=1e-9)


def tensors_of(gradients):
    return [torch.from_numpy(np.array(gradient)) for gradient in gradients]


GRADIENTS = [
    np.array([3.0, 4.0], np.float32),  # norm 5
    np.array([[0.3, 0.0], [0.0, 0.4]], np.float32),  # norm 1/2
    np.zeros(3, np.float32),
    np.array([0.6, 0.8], np.float32),  # norm 1
    np.array(-7.0, np.float32),
]


def clip(kind, gradients, norm):
    norms = torch.stack(torch._foreach_norm(gradients))
    scale(gradients, clipping_factors(OptimiserConfig(clip=kind, clip_norm=norm), norms))


def test_clipping_per_variable_by_hand():
    clipped = tensors_of(GRADIENTS)
    clip("per_variable", clipped, 1.0)
    # only what is longer than 1 is shortened, each by itself, and zeros stay zeros
    expected = [[0.6, 0.8], [[0.3, 0.0], [0.0, 0.4]], [0.0, 0.0, 0.0], [0.6, 0.8], -1.0]
    for got, wanted in zip(clipped, expected, strict=True):
        torch.testing.assert_close(got, torch.tensor(wanted), rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", [0.1, 1.0, 10.0])
def test_clipping_per_variable_is_keras(norm):
    rng = np.random.default_rng(6)
    gradients = [(size * rng.normal(size=(4, 5))).astype(np.float32) for size in (1e-4, 0.1, 1.0, 10.0, 1e4)]
    clipped = tensors_of(gradients)
    clip("per_variable", clipped, norm)
    for got, gradient in zip(clipped, gradients, strict=True):
        np.testing.assert_allclose(got.numpy(), oracles.clip_by_norm(gradient, norm), rtol=1e-6)


@pytest.mark.parametrize("norm", [0.1, 1.0, 10.0, 1e3])
def test_clipping_together_is_torchs(norm):
    clipped, parameters = tensors_of(GRADIENTS), tensors_of(GRADIENTS)
    for parameter, gradient in zip(parameters, tensors_of(GRADIENTS), strict=True):
        parameter.grad = gradient
    clip("global", clipped, norm)
    torch.nn.utils.clip_grad_norm_(parameters, norm)  # which adds 1e-6 to the norm
    oracle = oracles.clip_by_global_norm(dict(enumerate(GRADIENTS)), norm)
    for index, (got, parameter) in enumerate(zip(clipped, parameters, strict=True)):
        torch.testing.assert_close(got, parameter.grad, rtol=1e-5, atol=0)
        np.testing.assert_allclose(got.numpy(), oracle[index], rtol=1e-6)


def test_clipping_together_by_hand():
    # norms 3, 4 and 12 make 13; to 6.5 is one half
    gradients = [torch.tensor([3.0]), torch.tensor([0.0, -4.0]), torch.tensor([[12.0]])]
    clip("global", gradients, 6.5)
    assert [gradient.flatten().tolist() for gradient in gradients] == [[1.5], [0.0, -2.0], [6.0]]


@pytest.mark.parametrize("kind", ["per_variable", "global"])
def test_no_gradient_at_all_stays_none_at_all(kind):
    gradients = [torch.zeros(2), torch.zeros(3, 3)]
    clip(kind, gradients, 1.0)
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


@pytest.mark.parametrize("kind", ["per_variable", "global"])
def test_clipping_is_in_place_and_keeps_strides(kind):
    gradient = torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    address, stride = gradient.data_ptr(), gradient.stride()
    clip(kind, [gradient], 1.0)
    assert (gradient.data_ptr(), gradient.stride()) == (address, stride)
    assert gradient.norm().item() == pytest.approx(1.0, rel=1e-6)


def test_what_is_not_clipped_keeps_its_size():
    assert clipping_factors(OptimiserConfig(clip="none"), torch.tensor([0.0, 0.5, 1e9])).tolist() == [1.0, 1.0, 1.0]


def test_the_learning_rate_falls_in_a_straight_line_if_it_has_an_end():
    falling = OptimiserConfig(learning_rate=1e-3, learning_rate_end=2e-4)
    rates = [learning_rate_at(falling, step, 1_000) for step in (0, 250, 500, 1_000, 2_000)]
    assert rates == pytest.approx([1e-3, 8e-4, 6e-4, 2e-4, 2e-4], rel=1e-12)
    assert {learning_rate_at(OptimiserConfig(learning_rate=1e-3), step, 1_000) for step in (0, 500, 5_000)} == {1e-3}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_takes_the_learning_rate_of_the_moment(kind):
    # the moments do not depend on the rate, so the second of two steps is proportional to its own rate
    ways = []
    for rate in (1e-2, 5e-3):
        parameters = make_parameters()
        optimiser = make(kind, parameters)
        rng = np.random.default_rng(3)
        step(optimiser, parameters, random_gradients(rng, 1.0))
        before = as_float64(parameters)
        optimiser.learning_rate = rate
        step(optimiser, parameters, random_gradients(rng, 1.0))
        after = as_float64(parameters)
        ways.append({key: after[key] - before[key] for key in after})
    for key, way in ways[0].items():
        np.testing.assert_allclose(way, 2 * ways[1][key], rtol=1e-2, atol=3e-6)


@pytest.mark.parametrize("weight_decay", [0.0, 5.0])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_size_that_is_a_tensor_gives_the_same_steps(name, weight_decay):
    """As a GPU reads it, and what it leaves of weights that decay."""
    config = dataclasses.replace(CONFIGS[name], weight_decay=weight_decay)
    rng = np.random.default_rng(6)
    plain, tensors = make_parameters(), make_parameters()
    optimiser, twin = (make_optimiser(config, list(p.values())) for p in (plain, tensors))
    twin._rate.value = torch.tensor(1e-2)
    twin._weight_decay._kept.value = torch.tensor(1.0 - 1e-2 * weight_decay)
    for count in range(1, 6):
        gradients = random_gradients(rng, 0.1)
        optimiser.learning_rate = twin.learning_rate = 1e-2 / count
        step(optimiser, plain, gradients)
        step(twin, tensors, gradients)
    for key, tensor in plain.items():
        torch.testing.assert_close(tensors[key], tensor, rtol=1e-5, atol=1e-6)
    assert isinstance(twin._rate.value, torch.Tensor)
    assert isinstance(twin._weight_decay._kept.value, torch.Tensor)


@pytest.mark.parametrize("name", ["adam", "keras_adam", "radam"])
def test_steps_announced_together_are_the_same_as_one_by_one(name):
    rng = np.random.default_rng(5)
    gradients = [torch.from_numpy(rng.normal(size=3).astype(np.float32)) for _ in range(12)]
    together, alone = (torch.ones(3), torch.ones(3))
    optimiser, twin = (make_optimiser(CONFIGS[name], [tensor], elementwise=True) for tensor in (together, alone))
    for begin, count in ((0, 5), (5, 1), (6, 6)):  # rectified Adam changes its formula after the fifth step
        optimiser.prepare(count)
        for gradient in gradients[begin : begin + count]:
            optimiser.step([gradient])
            twin.prepare()
            twin.step([gradient])
    assert torch.equal(together, alone)
    assert all(torch.equal(tensor, twin.state()[key]) for key, tensor in optimiser.state().items())


def test_a_tensor_of_the_step_size_stays_where_it_is():
    size = StepSize(0.5, torch.device("meta"))
    memory = size.value
    size.set(0.25)
    assert size.value is memory
    on_cpu = StepSize(0.5, torch.device("cpu"))
    on_cpu.set(0.25)
    assert on_cpu.value == 0.25
