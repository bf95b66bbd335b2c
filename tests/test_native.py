"""Kernels in C: against float64, against PyTorch's own, and where there are none."""

import dataclasses
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from moving import moving_learner
from pixelq.clipping import clipping_factors
from pixelq.config import DQNConfig, NetworkConfig, OptimiserConfig, ReplayConfig
from pixelq.engines.kernels import KernelEngine, fused_q_learning, is_for_kernels
from pixelq.errors import PixelqError
from pixelq.native import building, library
from pixelq.native.layers import dense_relu, takes_dense, takes_torso, torso
from pixelq.native.moves import OptimiserKernel, OptimiserStep
from pixelq.native.replay import UnreadBatch
from pixelq.optimisers import BETAS, make_optimiser
from pixelq.presets import PRESETS, preset
from pixelq.replay import ReplayBuffer
from pixelq.replay.frames import NO_PLANE, RamFrames
from pixelq.replay.lz4_frames import Lz4Frames
from pixelq.replay.ring import Ring
from pixelq.replay.sumtree import SumTree
from pixelq.replay.transitions import TransitionReader
from pixelq.training.parts import resolve
from pixelq.types import Batch, RolloutBatch

BF16 = torch.bfloat16
needs_kernels = pytest.mark.usefixtures("instructions")
needs_replay_kernels = pytest.mark.skipif(library.replay_kernels() is None, reason="needs a C compiler")
FILTERS = [(32, 64, 64), (16, 32, 32), (48, 96, 64)]
BATCHES = [1, 5, 8, 32, 37, 70]  # alone, odd, of a block, usual, of uneven shares, of several blocks a share


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.slow] * (name not in library.usable_instructions()[:1]))
        for name in ("AMX", "AVX512-BF16", "AVX512", "AVX2")
    ]
)
def instructions(request, monkeypatch):
    """Kernels for these, whatever else the processor could."""
    monkeypatch.setenv("PIXELQ_INSTRUCTIONS", request.param)
    library._tile_kernels.cache_clear()
    if library.instructions() is None:
        pytest.skip(f"needs a processor with {request.param} and a C compiler")
    assert library.instructions() == request.param
    yield
    library._tile_kernels.cache_clear()


def difference(got: Tensor, wanted: Tensor) -> float:
    """Norm of the difference, relative."""
    return float((got.detach().double() - wanted).norm() / wanted.norm())


def rounded(values: Tensor) -> Tensor:
    """As bfloat16 rounds them; gradients pass, and are rounded, too."""
    nearest = values + (values.detach().to(BF16).double() - values.detach())
    if nearest.requires_grad:
        nearest.register_hook(lambda gradient: gradient.to(BF16).double())
    return nearest


def torso_in_float64(obs, weights, biases, background=None):
    """The same sums in float64, rounded where the kernel rounds."""
    planes = (obs.double() - (0 if background is None else background.double())) / 255
    for weight, bias, stride in zip(weights, biases, (4, 2, 1), strict=True):
        planes = rounded(functional.conv2d(planes, weight, bias, stride).relu())
    return planes.flatten(1)


def torso_parameters(filters, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((filters[0], 4, 8, 8), (filters[1], filters[0], 4, 4), (filters[2], filters[1], 3, 3))
    weights = [torch.randn(shape, generator=generator) * (2 / shape[1] / shape[2] ** 2) ** 0.5 for shape in shapes]
    biases = [torch.randn(shape[0], generator=generator) * 0.1 for shape in shapes]
    return (
        [weight.to(BF16).contiguous(memory_format=torch.channels_last).requires_grad_() for weight in weights],
        [bias.to(BF16).requires_grad_() for bias in biases],
    )


def pixels(size, seed=0):
    return torch.randint(0, 256, (size, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def in_float64(tensors):
    return [tensor.detach().double().requires_grad_() for tensor in tensors]


@pytest.mark.slow
@needs_kernels
@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize(
    ("size", "background"), [*((size, None) for size in BATCHES), (5, 0.0), (37, 87.0), (8, 255.0)]
)
def test_the_torso_is_that_of_float64(filters, size, background):
    weights, biases = torso_parameters(filters)
    obs = pixels(size)
    background = None if background is None else torch.tensor([background])
    features = torso(obs, *zip(weights, biases, strict=True), background=background)
    exact_weights, exact_biases = in_float64(weights), in_float64(biases)
    exact = torso_in_float64(obs, exact_weights, exact_biases, background)
    assert features.shape == (size, filters[2] * 49)
    assert difference(features, exact.detach()) < 1e-3
    push = torch.randn(features.shape, generator=torch.Generator().manual_seed(1)).to(BF16)
    got = torch.autograd.grad(features, [*weights, *biases], push)
    wanted = torch.autograd.grad(exact, [*exact_weights, *exact_biases], push.double())
    for index, (mine, theirs) in enumerate(zip(got, wanted, strict=True)):
        assert mine.dtype == BF16
        # a sum that falls on the other side of a rounding, or of zero, moves what follows
        assert difference(mine, theirs) < 2e-2, index
    with torch.no_grad():
        assert torch.equal(torso(obs, *zip(weights, biases, strict=True), background=background), features)


@needs_kernels
def test_one_image_in_one_place_is_one_gradient_by_hand():
    """A filter that sees one pixel, and a way through the layers that adds and multiplies nothing else."""
    filters = (16, 32, 32)
    weights, biases = torso_parameters(filters)
    with torch.no_grad():
        for tensor in (*weights, *biases):
            tensor.zero_()
        weights[0][3, 2, 5, 6] = 1.0  # plane 2, row 5, column 6 of what it sees
        weights[1][7, 3, 1, 2] = 2.0
        weights[2][9, 7, 0, 1] = 0.5
    obs = torch.zeros(1, 4, 84, 84, dtype=torch.uint8)
    # the third layer's (4, 3) looks at the second's (4, 4), that at the first's (9, 10), that at pixel (41, 46)
    obs[0, 2, 41, 46] = 51
    features = torso(obs, *zip(weights, biases, strict=True))
    expected = torch.zeros(32, 7, 7)
    expected[9, 4, 3] = 51 / 255 * 2.0 * 0.5
    torch.testing.assert_close(features.float().view(32, 7, 7), expected, rtol=4e-3, atol=0)
    gradients = torch.autograd.grad(features, [*weights, *biases], torch.ones_like(features))
    for gradient, place, value in zip(
        gradients[:3], ((3, 2, 5, 6), (7, 3, 1, 2), (9, 7, 0, 1)), (51 / 255, 0.1, 0.4), strict=True
    ):
        assert gradient[place].item() == pytest.approx(value, rel=1e-2)
        assert gradient.count_nonzero() == 1
    assert [bias.count_nonzero().item() for bias in gradients[3:]] == [1, 1, 1]


@needs_kernels
@pytest.mark.parametrize("shape", [(3136, 512), (1568, 256), (64, 32), (96, 96)])
@pytest.mark.parametrize("size", BATCHES)
def test_the_dense_layer_is_that_of_float64(shape, size):
    inputs, units = shape
    generator = torch.Generator().manual_seed(2)
    parts = [torch.randn(size, inputs, generator=generator), torch.randn(units, inputs, generator=generator) * 0.03]
    features, weight, bias = (
        part.to(BF16).requires_grad_() for part in (*parts, torch.randn(units, generator=generator) * 0.1)
    )
    hidden = dense_relu(features, weight, bias)
    exact = in_float64([features, weight, bias])
    wanted = functional.linear(*exact)
    assert hidden.dtype == torch.float32
    assert difference(hidden, wanted.detach().relu()) < 1e-6
    push = torch.randn(size, units, generator=generator)
    got = torch.autograd.grad(hidden, (features, weight, bias), push)
    active = push.double() * (hidden > 0)  # a unit within rounding of zero may be on its other side in float64
    for mine, theirs in zip(got, torch.autograd.grad(wanted, exact, active), strict=True):
        assert difference(mine, theirs) < 5e-3  # of the push, then of the result


@needs_kernels
def test_results_do_not_depend_on_the_number_of_threads():
    weights, biases = torso_parameters(FILTERS[0])
    obs, threads = pixels(37), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            features = torso(obs, *zip(weights, biases, strict=True))
            dense = torch.ones(64, features.shape[1], dtype=BF16, requires_grad=True)
            hidden = dense_relu(features, dense, torch.zeros(64, dtype=BF16))
            results.append([hidden, *torch.autograd.grad(hidden.sum(), [*weights, *biases, dense])])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_kernels
def test_kernels_can_be_called_from_many_threads_at_once():
    """One caller has the team; the others work alone, and get the same results."""
    weights, biases = torso_parameters(FILTERS[1])
    obs = pixels(37)
    layers = [(weight.detach(), bias.detach()) for weight, bias in zip(weights, biases, strict=True)]
    wanted = torso(obs, *layers)

    def ask(_):
        return all(torch.equal(torso(obs, *layers), wanted) for _ in range(30))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, range(6)))


@pytest.mark.slow
@needs_kernels
@pytest.mark.parametrize("busy", [0, 6])
def test_updates_do_not_depend_on_who_comes_late(busy):
    """More threads than processors, with competing work: members of the team miss whole stages of an update."""
    learned, threads = [], torch.get_num_threads()
    done = threading.Event()

    def want_processors():
        while not done.is_set():
            torch.ones(200_000).sum()  # gives Python's lock away

    others = [threading.Thread(target=want_processors) for _ in range(busy)]
    for other in others:
        other.start()
    try:
        for count in (1, 2, 5, 16):
            torch.set_num_threads(count)
            learner = learners("narrow")[0]
            errors = [learner.learn(transitions(32, seed), 2) for seed in range(25)]
            learned.append([*errors, *learner.weights().values()])
    finally:
        done.set()
        for other in others:
            other.join()
        torch.set_num_threads(threads)
    for other in learned[1:]:
        assert all(torch.equal(a, b) for a, b in zip(learned[0], other, strict=True))


@needs_replay_kernels
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_a_team_of_its_own():
    frames = Lz4Frames(64)
    planes = np.random.default_rng(0).integers(0, 256, (64, 84, 84), np.uint8)
    frames.write(0, planes)
    slots = np.arange(64)
    assert np.array_equal(frames.read(slots).numpy(), planes)
    child = os.fork()
    if not child:
        os._exit(not all(np.array_equal(frames.read(slots).numpy(), planes) for _ in range(20)))
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(frames.read(slots).numpy(), planes)


@needs_kernels
@pytest.mark.parametrize(
    ("clip", "clip_norm"),
    [("none", 1.0), ("per_variable", 5.0), ("global", 5.0), ("per_variable", 1e6), ("global", 1e6)],
)
@pytest.mark.parametrize("weight_decay", [0.0, 3.0])
@pytest.mark.parametrize("name", ["adam", "keras_adam", "radam", "centred_rmsprop"])
def test_steps_are_those_of_the_formula(name, clip, clip_norm, weight_decay):
    config = OptimiserConfig(name, 1e-2, epsilon=1e-5, weight_decay=weight_decay, clip=clip, clip_norm=clip_norm)
    generator = torch.Generator().manual_seed(3)
    shapes = ((5, 3, 4, 4), (7,), (1,), (300, 401))  # none a multiple of what the processor takes at once
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    start[0] = start[0].contiguous(memory_format=torch.channels_last)
    masters, plain = ([tensor.clone() for tensor in start] for _ in range(2))
    working = [masters[0].to(BF16), masters[1].to(BF16), masters[2], masters[3].to(BF16)]
    mine, formula = (make_optimiser(config, weights, elementwise=True) for weights in (masters, plain))
    kernel = OptimiserKernel(masters, working, *mine.moments)
    for _ in range(8):
        gradients = [torch.randn(weight.shape, generator=generator).to(weight.dtype) for weight in working]
        kernel.take(gradients)
        mine.prepare()
        formula.prepare()
        norms = kernel.step(*mine.described())
        exact = torch.stack([gradient.double().norm() for gradient in gradients])
        torch.testing.assert_close(norms.double(), exact, rtol=1e-6, atol=0)
        factors = clipping_factors(config, norms)
        assert (factors < 1).any() == (clip != "none" and clip_norm < 1e3)
        scaled = [gradient.float() * factor for gradient, factor in zip(gradients, factors, strict=True)]
        formula.step([torch.empty_like(p).copy_(g) for p, g in zip(plain, scaled, strict=True)])
        for index in range(4):
            torch.testing.assert_close(masters[index], plain[index], rtol=1e-5, atol=1e-6)
            assert torch.equal(working[index], masters[index].to(working[index].dtype))
    for key, tensor in mine.state().items():
        torch.testing.assert_close(tensor, formula.state()[key], rtol=1e-5, atol=1e-9)


@needs_kernels
def test_weights_are_rounded_as_pytorch_rounds_them():
    """Ties to even, too large numbers to infinity, and NaN stays NaN."""
    ties = [1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8), 1 + 2**-8 + 2**-20]
    weight = torch.tensor([*ties, 0.0, -0.0, 3.4e38, -3.4e38, 1e-37, torch.inf, -torch.inf, torch.nan, -torch.nan] * 5)
    weight[-1] = torch.tensor(0x7F800001, dtype=torch.int32).view(torch.float32)  # no number, in bits that are cut off
    working = torch.zeros(len(weight), dtype=BF16)
    kernel = OptimiserKernel([weight], [working], [torch.zeros(len(weight))], [torch.zeros(len(weight))])
    kernel.take([torch.zeros(len(weight), dtype=BF16)])
    expected = weight.to(BF16)
    kernel.step(OptimiserStep("adam", "none", 1.0, *BETAS, 0.1, 1e-8, 0.0, 1.0))
    torch.testing.assert_close(working, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(working.signbit() & ~expected.isnan(), expected.signbit() & ~expected.isnan())


@needs_kernels
def test_a_gradient_without_end_stays_one():
    weight = torch.ones(40)
    kernel = OptimiserKernel([weight], [weight], [torch.zeros(40)], [torch.zeros(40)])
    for clip, gradient in (
        ("global", torch.nan),
        ("per_variable", torch.nan),
        ("none", torch.nan),
        ("global", torch.inf),
    ):
        weight.fill_(1.0)
        kernel.take([torch.full((40,), gradient)])
        norms = kernel.step(OptimiserStep("adam", clip, 10.0, *BETAS, 0.1, 1e-8, 0.0, 1.0))
        assert norms.isnan().all() if gradient != torch.inf else norms.isinf().all()
        assert weight.isnan().all()


# layers as narrow as those of `fast`, with what one kernel makes all of: one value an action, no norm
NARROW = dataclasses.replace(
    preset("fast"),
    algo=DQNConfig(n_step=3, double=True),
    network=NetworkConfig(channels=(16, 32, 32), hidden=256, background="common"),
)
GREY = np.full((1, 84, 84), 87, np.uint8)


def transitions(size, seed):
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randint(0, 256, (2, size, 4, 84, 84), dtype=torch.uint8, generator=generator)
    rewards = torch.randn(size, generator=generator)
    actions = torch.randint(0, 4, (size,), generator=generator)
    return Batch(obs[0], actions, rewards, torch.full((size,), 0.9), obs[1], torch.rand(size, generator=generator))


def batch_of(name, size, seed):
    """What the recipe learns from: transitions, or a part of a rollout."""
    batch = transitions(size, seed)
    return RolloutBatch(batch.obs_tm1, batch.a_tm1, batch.r_t, batch.weight) if name == "pqn" else batch


def learners(name):
    """One that uses kernels, and its twin that does not."""
    recipe = NARROW if name == "narrow" else preset(name)
    config = dataclasses.replace(recipe, precision="bfloat16", device="cpu")
    twins = [
        moving_learner(
            dataclasses.replace(config, compile=wanted), 4, torch.device("cpu"), torch.Generator().manual_seed(0)
        )
        for wanted in (True, False)
    ]
    for learner in twins:
        learner.see_background(GREY)
    return twins


@pytest.mark.slow
@needs_kernels
@pytest.mark.parametrize("name", ["narrow", *(name for name in PRESETS if name != "btr")])
def test_updates_are_those_of_pytorch(name):
    quick, plain = learners(name)
    assert isinstance(quick.engine, KernelEngine)
    assert not isinstance(plain.engine, KernelEngine)
    start = {key: tensor.clone() for key, tensor in plain.weights().items()}
    for seed in range(3):
        batch = batch_of(name, 32, seed)
        torch.testing.assert_close(quick.update(batch), plain.update(batch), rtol=0.05, atol=0.05)
    assert quick.fetch_metrics() == pytest.approx(plain.fetch_metrics(), rel=0.05, abs=0.02)
    ways = [torch.cat([(learner.weights()[key] - start[key]).flatten() for key in start]) for learner in (quick, plain)]
    # Adam's first steps are as long for a small gradient as for a large one, whatever its rounding says of its sign
    assert torch.cosine_similarity(*ways, dim=0) > 0.8
    assert quick.trouble() is None
    plain.restore(quick.weights(), quick.state())
    batch = batch_of(name, 32, 9)
    torch.testing.assert_close(quick.update(batch), plain.update(batch), rtol=0.05, atol=0.05)


@pytest.mark.slow
@needs_kernels
def test_an_update_is_as_near_to_float32_as_pytorchs():
    config = dataclasses.replace(preset("keras-example"), precision="float32", device="cpu")
    exact = moving_learner(config, 4, torch.device("cpu"), torch.Generator().manual_seed(0))
    quick, plain = learners("keras-example")
    batch = transitions(64, 1)
    errors = [learner.update(batch).double() for learner in (exact, quick, plain)]
    ours, theirs = ((error - errors[0]).abs().mean() for error in errors[1:])
    assert ours <= theirs


@needs_kernels
def test_what_kernels_cannot_do_is_done_without_them(monkeypatch):
    monkeypatch.setattr("pixelq.engines.choice.kernels", pytest.fail)  # nor are they compiled for nothing
    config = dataclasses.replace(preset("keras-example"), device="cpu")
    wide = dataclasses.replace(config.network, channels=(30, 64, 64), hidden=500)
    for other in (
        dataclasses.replace(config, precision="float32"),
        dataclasses.replace(config, precision="bfloat16", compile=False),
        dataclasses.replace(config, precision="bfloat16", network=wide),
        dataclasses.replace(preset("btr"), device="cpu", precision="bfloat16"),
    ):
        learner = moving_learner(other, 4, torch.device("cpu"), torch.Generator().manual_seed(0))
        assert not isinstance(learner.engine, KernelEngine)


def test_sizes_that_fit():
    assert takes_torso((32, 64, 64))
    assert takes_torso((16, 32, 32))
    assert not takes_torso((8, 64, 64))
    assert not takes_torso((32, 48, 64))
    assert not takes_torso((32, 64, 48))
    assert takes_dense(3136, 512)
    assert not takes_dense(3136, 500)


@pytest.fixture
def unloaded():
    """The library as a new process finds it, and again after the test."""
    library._tile_kernels.cache_clear()
    library._missing.clear()
    yield
    library._tile_kernels.cache_clear()


@pytest.mark.parametrize("compiler", ["/nowhere/cc", "false"])
def test_without_a_compiler_there_are_no_kernels(compiler, tmp_path, monkeypatch, unloaded):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", compiler)
    assert library.kernels() is None
    assert not list(tmp_path.rglob("*.so"))


WIDE = "avx512bw avx512dq avx512f avx512vl avx2 fma"


@pytest.mark.parametrize(
    ("vendor", "flags", "usable"),
    [
        ("GenuineIntel", f"amx_bf16 amx_tile avx512_bf16 {WIDE}", ["AMX", "AVX512", "AVX512-BF16", "AVX2"]),
        ("GenuineIntel", f"avx512_bf16 {WIDE}", ["AVX512", "AVX512-BF16", "AVX2"]),
        ("AuthenticAMD", f"avx512_bf16 {WIDE}", ["AVX512-BF16", "AVX512", "AVX2"]),
        ("GenuineIntel", WIDE, ["AVX512", "AVX2"]),
        ("GenuineIntel", "avx512f avx2 fma", ["AVX2"]),
        ("AuthenticAMD", "avx2", []),
        ("", "", []),
    ],
)
def test_what_the_processor_has_and_the_environment_allows(vendor, flags, usable, tmp_path, monkeypatch):
    told = tmp_path / "cpuinfo"
    one = f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n\n"
    told.write_text(one + "processor\t: 1\nvendor_id\t: another\nflags\t\t: sse2\n")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(library, "_CPU_INFO", told)
    monkeypatch.delenv("PIXELQ_INSTRUCTIONS", raising=False)
    library._cpu_info.cache_clear()
    try:
        assert library.usable_instructions() == usable
        for name in ("AMX", "AVX512-BF16", "AVX512", "AVX2", "none"):
            monkeypatch.setenv("PIXELQ_INSTRUCTIONS", name)
            assert library.usable_instructions() == [one for one in usable if one == name]
        monkeypatch.setenv("PIXELQ_INSTRUCTIONS", "avx")
        with pytest.raises(PixelqError, match="is avx: must be one of AMX, AVX512-BF16, AVX512, AVX2, none"):
            library.usable_instructions()
    finally:
        library._cpu_info.cache_clear()


def test_where_no_instructions_are_usable_nothing_is_compiled(tmp_path, monkeypatch, unloaded):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIXELQ_INSTRUCTIONS", "none")
    assert library.kernels() is None
    assert library.instructions() is None
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@needs_kernels
def test_a_compiler_that_knows_fewer_instructions_makes_kernels_for_these(tmp_path, monkeypatch, unloaded):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PIXELQ_INSTRUCTIONS")
    best, *others = library.usable_instructions()

    def refuse_the_best(wanted, path):
        if wanted == building.UPDATES[best]:
            raise building.CompilerError("cc failed: error: unrecognized option")
        building.build(wanted, path)

    monkeypatch.setattr(library, "build", refuse_the_best)
    assert library.instructions() == next(iter(others), None)
    assert "unrecognized" in library.why_missing()


@pytest.mark.slow
@needs_kernels
def test_kernels_are_compiled_once(tmp_path, monkeypatch, unloaded):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert library.kernels() is not None
    (built,) = (path for path in tmp_path.rglob("*") if path.is_file())
    library._tile_kernels.cache_clear()
    monkeypatch.setattr(library, "build", pytest.fail)
    assert library.kernels() is not None
    assert built.suffix == ".so"


@needs_kernels
@pytest.mark.parametrize("damage", ["", "cut off", "changed"])
def test_a_library_that_a_power_cut_damaged_is_made_again(damage, tmp_path, monkeypatch, unloaded):
    """A page of it that is not there would end the process with SIGBUS."""
    compiled, made = next(library._places(building.UPDATES[library.instructions()])).read_bytes(), []

    def build(wanted, path):  # the compiler takes seconds, and what it makes is known
        made.append(wanted.name)
        path.write_bytes(compiled)

    monkeypatch.setattr(library, "prebuilt", lambda wanted: None)
    monkeypatch.setattr(library, "build", build)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library._tile_kernels.cache_clear()
    assert library.kernels() is not None
    (built,) = (path for path in tmp_path.rglob("*") if path.is_file())
    built.unlink()  # this process has it mapped
    built.write_bytes(
        {
            "": b"",
            "cut off": compiled[: len(compiled) // 2],
            "changed": compiled[:-1] + bytes([compiled[-1] ^ 1]),
        }[damage]
    )
    library._tile_kernels.cache_clear()
    assert library.kernels() is not None
    assert len(made) == 2
    assert built.read_bytes() == compiled
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [built]


@needs_kernels
def test_a_library_that_is_damaged_is_no_library(tmp_path, monkeypatch, unloaded):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library, "build", lambda wanted, path: path.write_bytes(b"no library"))
    assert library.kernels() is None
    assert ".so" in library.why_missing()


def test_why_a_compiler_failed_is_kept(tmp_path, monkeypatch):
    fails = tmp_path / "cc"
    fails.write_text("#!/bin/sh\necho 'In file included from a.c' >&2; echo 'a.h:1: error: no such' >&2; exit 1\n")
    fails.chmod(0o755)
    monkeypatch.setenv("CC", str(fails))
    with pytest.raises(building.CompilerError, match=r"cc failed: a\.h:1: error: no such$"):
        building.build(building.REPLAY[-1], tmp_path / "replay.so")
    monkeypatch.setenv("CC", "/nowhere/cc")
    with pytest.raises(building.CompilerError, match=r"^CC names /nowhere/cc, which is not there$"):
        building.build(building.REPLAY[-1], tmp_path / "replay.so")
    assert sorted(tmp_path.iterdir()) == [fails]


def test_libraries_that_were_built_before_are_used_if_they_are_whole_and_of_these_sources(tmp_path, monkeypatch):
    one = building.REPLAY[-1]
    monkeypatch.setattr(building, "UPDATES", {})
    monkeypatch.setattr(building, "REPLAY", (one,))
    if building.prebuild(tmp_path):
        pytest.skip("needs a C compiler")
    path = building.prebuilt(one, tmp_path)
    assert path == tmp_path / "replay.so"
    assert building.prebuilt(one._replace(flags=(*one.flags, "-DOTHER")), tmp_path) is None
    assert building.prebuilt(building.Library("another", one.sources, one.needed, one.flags), tmp_path) is None
    path.write_bytes(path.read_bytes()[:-100])
    assert building.prebuilt(one, tmp_path) is None


def test_the_instructions_of_a_library_are_those_that_a_processor_must_have():
    """A library with more of them would end the process on a processor that has only these."""
    for one in (*building.UPDATES.values(), *building.REPLAY):
        allowed = {flag[2:] for flag in one.flags if flag.startswith("-m")}
        assert allowed == {name.replace("amx_", "amx-").replace("avx512_bf16", "avx512bf16") for name in one.needed}
    assert not building.REPLAY[-1].needed


def test_a_machine_of_another_kind_has_the_replay_memorys_kernels_only(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(building, "build", lambda one, path: made.append(one.name) or path.write_bytes(b""))
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert building.prebuild(tmp_path / "arm") == {}
    assert made == ["replay"]


BY_KERNELS = (
    *("fast", "keras-example", "nature-dqn", "cleanrl-dqn"),
    *("double-dqn", "prioritized-dqn", "n-step-dqn", "dueling-dqn", "noisy-dqn"),
    *("c51", "qr-dqn", "munchausen-dqn", "rainbow", "pqn"),
)


def test_recipes_that_kernels_make_all_of():
    for name in PRESETS:
        assert is_for_kernels(preset(name)) == (name in BY_KERNELS), name
        assert not is_for_kernels(dataclasses.replace(preset(name), compile=False))


@needs_kernels
def test_where_there_are_kernels_their_recipes_are_in_bfloat16(monkeypatch):
    monkeypatch.setattr("pixelq.engines.choice.has_fast_bfloat16", lambda _: False)
    for name in ("fast", "c51", "rainbow", "pqn", "iqn"):
        precision = resolve(dataclasses.replace(preset(name), device="cpu")).precision
        assert precision == ("bfloat16" if name in BY_KERNELS else "float32")


def test_where_there_are_no_kernels_recipes_are_as_pytorch_likes_them(monkeypatch, unloaded):
    monkeypatch.setenv("PIXELQ_INSTRUCTIONS", "none")
    for name in ("fast", "pqn"):
        for quick in (True, False):
            monkeypatch.setattr("pixelq.engines.choice.has_fast_bfloat16", lambda _, quick=quick: quick)
            precision = resolve(dataclasses.replace(preset(name), device="cpu")).precision
            assert precision == ("bfloat16" if quick else "float32")


def algos(penalty, double, terminal):
    return dataclasses.replace(NARROW.algo, loss=penalty, double=double, terminal_target=terminal)


@needs_kernels
@pytest.mark.parametrize("terminal", [None, -1.0])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("penalty", ["huber", "mse", "half_mse"])
def test_the_kernel_of_an_update_is_the_loss_differentiated(penalty, double, terminal):
    """The same layers, with autograd between and behind them; so nothing differs but the order of float32 sums."""
    config = dataclasses.replace(NARROW, precision="bfloat16", device="cpu", algo=algos(penalty, double, terminal))
    learner = moving_learner(config, 6, torch.device("cpu"), torch.Generator().manual_seed(0))
    learner.see_background(GREY)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in learner.target.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.02)
    kernel = fused_q_learning(config.algo, *learner.networks)
    for size in (32, 7, 64):
        batch = transitions(size, size)
        ends = torch.rand(size, generator=generator) < 0.3
        # errors on both sides of Huber's threshold
        batch = batch._replace(r_t=batch.r_t * 2, discount_t=torch.where(ends, 0.0, batch.discount_t))
        if size == 7:
            batch = batch._replace(weight=torch.ones(()))
        wanted = learner.losses(batch)
        gradients = torch.autograd.grad(wanted.loss, list(learner.online.parameters()))
        loss, q_mean, q_tm1, error, norms = kernel(batch)
        assert norms is None
        torch.testing.assert_close(loss[0], wanted.loss.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(error, wanted.error, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(q_tm1, wanted.ranges["Q"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(q_mean[0], q_tm1.mean(), rtol=1e-5, atol=1e-6)
        assert size == 7 or ((error.abs() > 1).any() and (error.abs() < 1).any())
        for ours, theirs in zip(kernel.gradients, gradients, strict=True):
            assert ours.dtype == theirs.dtype
            assert difference(ours, theirs.double()) < 2e-3  # a last bit of the push may round the other way


@needs_kernels
def test_errors_and_slopes_of_the_kernel_by_hand():
    """Networks of biases alone, so that values are known: online 1, 2, 3, target 10, 40, 20, whatever is seen."""
    config = dataclasses.replace(NARROW, precision="bfloat16", device="cpu")
    learner = moving_learner(config, 3, torch.device("cpu"), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for network, values in ((learner.online, [1.0, 2.0, 3.0]), (learner.target, [10.0, 40.0, 20.0])):
            for weight in network.parameters():
                weight.zero_()
            network.head.output.bias.copy_(torch.tensor(values))
    obs = pixels(3)
    batch = Batch(
        obs, torch.tensor([0, 2, 1]), torch.tensor([1.0, -2.0, 2.5]), torch.tensor([0.5, 0.0, 0.0]), obs,
        torch.tensor([1.0, 0.5, 1.0]),
    )  # fmt: skip
    # targets: 1 + 0.5 · 40, −2 and 2.5; double Q-learning takes the target's value of the online network's third action
    for double, first in ((False, 20.0), (True, 10.0)):
        kernel = fused_q_learning(algos("huber", double, None), *learner.networks)
        loss, _, q_tm1, error, _ = kernel(batch)
        assert error.tolist() == [first, -5.0, 0.5]
        assert q_tm1.tolist() == [[1.0, 2.0, 3.0]] * 3
        assert loss.item() == pytest.approx((first - 0.5 + 0.5 * 4.5 + 0.125) / 3)
        assert kernel.gradients[9].tolist() == pytest.approx([-1 / 3, -0.5 / 3, 0.5 / 3])  # −weight · clipped error / 3
        assert all(gradient.count_nonzero() == 0 for gradient in kernel.gradients[:9])
    error = fused_q_learning(algos("mse", False, -1.0), *learner.networks)(batch).error
    assert error.tolist() == [20.0, -4.0, -3.0]  # where the discount is 0 the target is −1


@needs_kernels
def test_values_that_are_no_numbers_stay_so():
    config = dataclasses.replace(NARROW, precision="bfloat16", device="cpu")
    learner = moving_learner(config, 4, torch.device("cpu"), torch.Generator().manual_seed(0))
    with torch.no_grad():
        learner.target.head.output.bias[2] = torch.nan
    batch = transitions(5, 0)
    kernel = fused_q_learning(algos("huber", False, None), *learner.networks)
    loss, _, _, error, _ = kernel(batch)
    assert loss.isnan()
    assert error.isnan().all()
    assert all(gradient.isnan().any() for gradient in kernel.gradients)


@needs_kernels
@pytest.mark.parametrize("name", ["narrow", "keras-example"])
def test_acting_sees_the_values_of_learning(name):
    quick, _ = learners(name)
    for size in (1, 8, 19):
        obs = pixels(size, size)
        with torch.no_grad():
            values = quick.networks[0].q_values(obs)
            assert torch.equal(quick.networks[0].q_values(obs[:4], obs[4:]), values)
        torch.testing.assert_close(values, quick.networks[0](obs).detach(), rtol=1e-5, atol=1e-5)


@needs_replay_kernels
def test_trees_are_the_same_to_the_last_bit():
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 1_000):
        quick, plain = SumTree(size), SumTree(size, kernels=False)
        for _ in range(50):
            leaves = rng.integers(0, size, rng.integers(0, 60))
            values = rng.random(len(leaves)) ** 8 * (rng.random(len(leaves)) < 0.7)
            for tree in (quick, plain):
                tree.set(leaves, values)
            assert np.array_equal(quick._nodes, plain._nodes)
            if quick.total > 0:
                targets = np.append(rng.random(40) * quick.total, [0.0, quick.total, np.nextafter(quick.total, 0)])
                assert np.array_equal(quick.find(targets), plain.find(targets))


@needs_replay_kernels
def test_planes_are_the_same_with_and_without_a_kernel():
    rng = np.random.default_rng(1)
    slots = 10_000  # more than two segments
    quick, plain = Lz4Frames(slots), Lz4Frames(slots, kernels=False)
    assert quick._kernel is not None
    nothing = np.full((2, 4), NO_PLANE)
    assert not quick.read(nothing).any()
    at = 0
    for _ in range(60):  # around the ring, so that segments are replaced
        planes = (rng.random((rng.integers(1, 400), 84, 84)) < 0.02).astype(np.uint8) * 200
        planes = planes[: slots - at]
        for frames in (quick, plain):
            frames.write(at, planes)
        at = (at + len(planes)) % slots
        written = np.arange(slots) if plain._sealed[-1] else np.arange(at)
        asked = np.append(rng.choice(written, 31), NO_PLANE).reshape(8, 4)
        assert torch.equal(quick.read(asked), plain.read(asked))
    assert plain._sealed[-1]


@needs_replay_kernels
@pytest.mark.parametrize("n_step", [1, 3])
def test_transitions_are_the_same_with_and_without_a_kernel(n_step):
    rng = np.random.default_rng(2)
    games, rows = 5, 40
    ring = Ring(rows, games, RamFrames(rows * games))
    ring.start(np.zeros((games, 84, 84), np.uint8))
    quick, plain = (TransitionReader(ring, n_step, 0.99, kernels) for kernels in (True, False))
    assert quick._kernel is not None
    assert plain._kernel is None
    for _ in range(3 * rows):  # around the ring
        ends, cuts, ignored = (rng.random((3, games)) < 0.15).astype(bool)
        rewards = rng.normal(size=games).astype(np.float32)
        ring.append(rng.integers(0, 18, games), rewards, ends, cuts, ignored, np.zeros((games, 84, 84), np.uint8))
        held = max(0, ring.head - n_step - ring.oldest + 1)
        at = ring.oldest + rng.integers(0, max(held, 1), 16 if held else 0)
        envs = rng.integers(0, games, len(at))
        for mine, theirs in zip(quick(at, envs), plain(at, envs), strict=True):
            assert mine.dtype == theirs.dtype
            assert np.array_equal(mine, theirs)


def memory_of_noise(store):
    buffer = ReplayBuffer(
        ReplayConfig(capacity=400, store=store), 4, 0.99, 3, torch.device("cpu"), np.random.default_rng(0)
    )
    rng = np.random.default_rng(3)
    buffer.ring.start(rng.integers(0, 256, (4, 84, 84), np.uint8))
    for _ in range(60):
        ends, cuts, ignored = (rng.random((3, 4)) < 0.1).astype(bool)
        planes = rng.integers(0, 256, (4, 84, 84), np.uint8)
        buffer.append(rng.integers(0, 4, 4), rng.normal(size=4).astype(np.float32), ends, cuts, ignored, planes)
    return buffer


@needs_kernels
@pytest.mark.parametrize("store", ["lz4", "ram"])
@pytest.mark.parametrize("name", ["narrow", "keras-example"])
def test_updates_are_the_same_if_planes_are_read_on_the_way(name, store):
    buffer = memory_of_noise(store)
    unread, read = learners(name)[0], learners(name)[0]
    assert unread.reads_planes
    for count in (1, 2, 3):
        draw = buffer.draw(16, 0.5, count)
        batch = buffer.unread_batch(draw)
        assert isinstance(batch, UnreadBatch) == (store == "lz4")
        assert torch.equal(unread.learn(batch, count), read.learn(buffer.batch(draw), count))
    assert unread.fetch_metrics() == read.fetch_metrics()
    assert all(torch.equal(tensor, read.weights()[key]) for key, tensor in unread.weights().items())


@needs_kernels
def test_a_damaged_block_is_told_of_by_an_update():
    buffer = memory_of_noise("lz4")
    buffer.ring._frames._sizes[:] = 5
    with pytest.raises(RuntimeError, match="damaged"):
        learners("narrow")[0].learn(buffer.unread_batch(buffer.draw(16, 0.5)), 1)


@needs_replay_kernels
def test_what_is_not_read_keeps_the_memory_from_growing():
    buffer = memory_of_noise("lz4")
    batch = buffer.unread_batch(buffer.draw(16, 0.5))
    with pytest.raises(BufferError):
        buffer.restart(np.zeros((4, 84, 84), np.uint8))
    assert isinstance(batch, UnreadBatch)


@needs_replay_kernels
def test_a_damaged_block_is_told_of():
    frames = Lz4Frames(8)
    frames.write(0, np.random.default_rng(0).integers(0, 256, (8, 84, 84), np.uint8))
    frames._sizes[3] = 5
    with pytest.raises(RuntimeError, match="damaged"):
        frames.read(np.array([2, 3]))


@needs_replay_kernels
def test_a_plane_that_was_never_written_is_told_of():
    frames = Lz4Frames(5_000)
    frames.write(0, np.zeros((8, 84, 84), np.uint8))
    with pytest.raises(RuntimeError, match="damaged"):
        frames.read(np.array([4_500]))


@needs_replay_kernels
def test_bytes_that_are_read_cannot_move():
    frames = Lz4Frames(8)
    frames.write(0, np.zeros((2, 84, 84), np.uint8))
    held = np.frombuffer(frames._open.arena, np.uint8)
    with pytest.raises(BufferError):
        frames.write(2, np.zeros((1, 84, 84), np.uint8))
    del held


def test_without_a_compiler_batches_are_the_same(tmp_path, monkeypatch):
    library.replay_kernels.cache_clear()
    monkeypatch.setenv("CC", "/nowhere/cc")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        frames, tree = Lz4Frames(8), SumTree(8)
        assert frames._kernel is None
        assert not tree._kernels
    finally:
        library.replay_kernels.cache_clear()


@pytest.mark.slow
@needs_kernels
@pytest.mark.parametrize("name", ["fast", "keras-example", "c51"])
def test_updates_by_kernels_load_no_compiler_of_pytorchs(name):
    """It would cost every start a second and every process 80 MB."""
    code = (
        "import sys, torch; from pixelq import preset; from pixelq.engines import make_engine;"
        "from pixelq.engines.kernels import is_for_kernels; from pixelq.learner import Learner;"
        f"config = preset({name!r}); import dataclasses;"
        "config = dataclasses.replace(config, device='cpu', precision='bfloat16'); assert is_for_kernels(config);"
        "learner = Learner(config, 4, torch.device('cpu'), torch.Generator().manual_seed(0));"
        "engine = make_engine(learner, torch.Generator());"
        "print(engine.describe(), sorted({'sympy', 'torch._dynamo'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("kernels []\n"), done.stdout
