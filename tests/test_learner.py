"""The learner: its update against the formulas in float64, precision, the target network, saving and restoring."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn import functional

import oracles
from moving import moving_learner, recorded_learner
from no_waiting import NoWaiting, no_waiting_for_the_gpu
from pixelq.config import DQNConfig, NetworkConfig, OptimiserConfig, PQNConfig, TrainConfig
from pixelq.device import has_fast_bfloat16
from pixelq.divergence import DeviceWatch
from pixelq.learner import LearnerMetrics
from pixelq.presets import PRESETS, preset
from pixelq.types import Batch, RolloutBatch

CPU = torch.device("cpu")
ACTIONS = 4
PRECISIONS = ["float32", "bfloat16"]


def small(config, precision="float32"):
    """A recipe with a network that is quick to compute."""
    network = dataclasses.replace(config.network, channels=(8, 8, 8), hidden=16)
    return dataclasses.replace(config, precision=precision, network=network)


def make_learner(config, seed=0):
    return moving_learner(config, ACTIONS, CPU, torch.Generator().manual_seed(seed))


def make_batch(seed, size=8, reward_scale=1.0):
    rng = np.random.default_rng(seed)
    return Batch(
        torch.from_numpy(rng.integers(0, 256, (size, 4, 84, 84), dtype=np.uint8)),
        torch.from_numpy(rng.integers(0, ACTIONS, size)),
        torch.from_numpy((reward_scale * rng.choice([-1.0, 0.0, 1.0], size)).astype(np.float32)),
        torch.from_numpy(rng.choice([0.0, 0.99], size, p=[0.3, 0.7]).astype(np.float32)),
        torch.from_numpy(rng.integers(0, 256, (size, 4, 84, 84), dtype=np.uint8)),
    )


def batch_for(config, seed, **fields):
    """What the algorithm of a config learns from."""
    batch = make_batch(seed, **fields)
    if isinstance(config.algo, PQNConfig):
        return RolloutBatch(batch.obs_tm1, batch.a_tm1, batch.r_t)
    return batch


def snapshot(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def state_of(module):
    return dict(module.named_parameters())


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


class Reference:
    """The update by its formulas, in float64: no module, no learner, no optimiser of torch's."""

    def __init__(self, config, online, target, background=0.0):
        self.config = config
        self.background = background
        self.online = {name: tensor.double() for name, tensor in snapshot(online).items()}
        self.target = {name: tensor.double() for name, tensor in snapshot(target).items()}
        self.optimiser = oracles.make_optimiser(config.optimiser)

    def values(self, weights, obs):
        out = (obs.double() - self.background) / 255
        for layer, stride in (("0", 4), ("2", 2), ("4", 1)):
            weight, bias = weights[f"torso.layers.{layer}.weight"], weights[f"torso.layers.{layer}.bias"]
            out = functional.conv2d(out, weight, bias, stride).relu()
        out = functional.linear(out.flatten(1), weights["head.hidden.weight"], weights["head.hidden.bias"]).relu()
        return functional.linear(out, weights["head.output.weight"], weights["head.output.bias"])

    def loss(self, weights, batch):
        q_t = self.values(self.target, batch.obs_t)
        chooser = self.values(self.online, batch.obs_t) if self.config.algo.double else q_t
        best = chooser.argmax(dim=1)
        target = batch.r_t + batch.discount_t.double() * q_t[torch.arange(len(best)), best]
        if self.config.algo.terminal_target is not None:
            target[batch.discount_t == 0] = self.config.algo.terminal_target
        q_tm1 = self.values(weights, batch.obs_tm1)
        error = target - q_tm1[torch.arange(len(target)), batch.a_tm1]
        size = error.abs()
        penalty = error**2 if self.config.algo.loss == "mse" else torch.where(size < 1, error**2 / 2, size - 0.5)
        return (batch.weight * penalty).mean(), q_tm1.mean(), error.detach()

    def update(self, batch):
        weights = {name: tensor.clone().requires_grad_() for name, tensor in self.online.items()}
        loss, q_mean, error = self.loss(weights, batch)
        gradients = torch.autograd.grad(loss, list(weights.values()))
        named = {name: gradient.numpy() for name, gradient in zip(weights, gradients, strict=True)}
        named = oracles.clip(self.config.optimiser, named)
        moved = self.optimiser.step({name: tensor.numpy() for name, tensor in self.online.items()}, named)
        self.online = {name: torch.from_numpy(np.asarray(array)) for name, array in moved.items()}
        return loss.item(), q_mean.item(), error


VARIANTS = {name: preset(name) for name in PRESETS}
CLIPPED = OptimiserConfig(learning_rate=1e-4, epsilon=1e-5, clip_norm=0.1)
for variant, clip in (("clipped together", "global"), ("clipped each", "per_variable")):
    changed = dataclasses.replace(CLIPPED, clip=clip)
    VARIANTS[variant] = dataclasses.replace(preset("cleanrl-dqn"), optimiser=changed)
PLAIN = [  # deep Q-learning with the network of the paper; the other algorithms have oracles of their own
    name
    for name, config in VARIANTS.items()
    if isinstance(config.algo, DQNConfig) and not config.network.dueling and not config.network.noisy
]


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.slow
def test_updates_are_those_of_the_formulas(name):
    config = small(VARIANTS[name])
    if config.optimiser.name == "radam":  # its first steps are gradients, at the recipe's rate finer than a float32
        config = dataclasses.replace(config, optimiser=dataclasses.replace(config.optimiser, learning_rate=1.0))
    learner = make_learner(config)
    learner.target.load_state_dict(make_learner(config, seed=1).online.state_dict())
    background = 0.0 if config.network.background == "none" else 87.0
    for network in (learner.online, learner.target):
        network.see_background(np.full((1, 84, 84), 87, np.uint8))
    start = snapshot(state_of(learner.online))
    reference = Reference(config, start, state_of(learner.target), background)
    seeds = itertools.count()
    for count in range(4):
        batch = make_batch(next(seeds), reward_scale=10.0 ** (count % 2))  # large errors and small ones by turns
        while oracles.kink_distance(learner.online, batch.obs_tm1) < 1e-6:
            batch = make_batch(next(seeds), reward_scale=10.0 ** (count % 2))
        if count > 1:  # as a prioritised memory weighs them
            weight = np.random.default_rng(count).uniform(0.1, 1.0, len(batch.r_t)).astype(np.float32)
            batch = batch._replace(weight=torch.from_numpy(weight))
        errors = learner.update(batch)
        loss, q_mean, expected = reference.update(batch)
        torch.testing.assert_close(errors.double(), expected, rtol=1e-4, atol=1e-5)  # unweighted
        metrics = learner.fetch_metrics()
        assert metrics.loss == pytest.approx(loss, rel=1e-4, abs=1e-6)
        assert metrics.q_mean == pytest.approx(q_mean, rel=1e-4, abs=1e-6)
        assert oracles.relative_error(start, learner.weights(), reference.online) < 1e-4, count
    moved = {name: tensor for name, tensor in learner.weights().items() if name != "background"}
    for tensor, now in zip(start.values(), moved.values(), strict=True):
        assert not torch.equal(tensor, now)
    assert_equal(state_of(learner.online), moved)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.slow
def test_bfloat16_moves_the_masters_much_as_float32_does(name):
    full, lowered = make_learner(small(preset(name))), make_learner(small(preset(name), "bfloat16"))
    start = snapshot(full.weights())
    assert_equal(start, snapshot(lowered.weights()))  # the masters begin unrounded
    for count in range(4):
        batch = batch_for(preset(name), count, size=32)
        full.update(batch)
        lowered.update(batch)
    ours, theirs = full.fetch_metrics(), lowered.fetch_metrics()
    assert theirs.loss == pytest.approx(ours.loss, rel=0.02)
    assert theirs.q_mean == pytest.approx(ours.q_mean, abs=0.005)
    # a gradient in bfloat16 is right to about 1%; Adam, whose first steps are signs, turns some of the smallest round
    assert oracles.relative_error(start, lowered.weights(), full.weights()) < 0.2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_are_float32_and_the_working_ones_their_copies(precision):
    learner = make_learner(small(preset("keras-example"), precision))
    learner.update(make_batch(0))
    learner.copy_to_target()
    for network in (learner.online, learner.target):
        for name, working in network.named_parameters():
            master = learner.weights()[name]
            assert master.dtype == torch.float32
            head = name.startswith("head.output")
            assert working.dtype == (torch.float32 if head or precision == "float32" else torch.bfloat16)
            assert torch.equal(working, master.to(working.dtype)), name


@pytest.mark.slow
def test_masters_add_up_what_bfloat16_alone_would_lose():
    tiny = OptimiserConfig(name="adam", learning_rate=1e-5)
    config = small(dataclasses.replace(preset("cleanrl-dqn"), optimiser=tiny), "bfloat16")
    learner, batch, name = make_learner(config), make_batch(0), "head.hidden.weight"
    start = learner.weights()[name].clone()
    working = learner.online.head.hidden.weight.detach().clone()
    spacing = 2.0 ** (working.abs().float().log2().floor() - 7)  # of bfloat16 there
    learner.update(batch)
    step = learner.weights()[name] - start
    moves = step.abs() > 0.9e-5
    lost = moves & (spacing > 1e-4)  # bfloat16 could only move by ten such steps at once
    assert lost.sum() > 1_000
    assert torch.equal((working + step.bfloat16())[lost], working[lost])
    for _ in range(79):
        learner.update(batch)
    now, master = learner.online.head.hidden.weight.detach(), learner.weights()[name]
    assert torch.equal(now, master.bfloat16())
    assert (master - start)[lost].abs().median() > 2e-4
    assert (now[lost] != working[lost]).float().mean() > 0.5


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_target_moves_only_when_it_is_told_to(precision):
    learner = make_learner(small(preset("keras-example"), precision))
    assert_equal(state_of(learner.target), state_of(learner.online))
    first = snapshot(state_of(learner.target))
    learner.update(make_batch(0))
    assert_equal(state_of(learner.target), first)
    learner.copy_to_target()
    assert_equal(state_of(learner.target), state_of(learner.online))
    second = snapshot(state_of(learner.target))
    assert any(not torch.equal(first[name], second[name]) for name in first)
    learner.update(make_batch(1))  # the two share no memory
    assert_equal(state_of(learner.target), second)
    assert not any(parameter.requires_grad for parameter in learner.target.parameters())


def test_metrics_are_means_and_begin_anew():
    config = small(preset("nature-dqn"))
    apart, together = make_learner(config), make_learner(config)
    assert together.fetch_metrics() == LearnerMetrics(None, None, None)
    single = []
    for count in range(3):
        apart.update(make_batch(count))
        single.append(apart.fetch_metrics())
        together.update(make_batch(count))
    mean = together.fetch_metrics()
    assert mean.loss == pytest.approx(np.mean([metrics.loss for metrics in single]), rel=1e-6)
    assert mean.q_mean == pytest.approx(np.mean([metrics.q_mean for metrics in single]), rel=1e-6)
    norms = [metrics.gradient_norm for metrics in single]
    assert mean.gradient_norm == pytest.approx(np.mean(norms), rel=1e-6)
    assert together.fetch_metrics() == LearnerMetrics(None, None, None)
    assert (apart.updates, together.updates) == (3, 3)


@pytest.mark.parametrize("clip", ["none", "per_variable", "global"])
@pytest.mark.parametrize("name", ["nature-dqn", "keras-example"])
def test_the_gradient_norm_is_of_all_gradients_before_clipping(name, clip):
    config = preset(name)
    optimiser = dataclasses.replace(config.optimiser, clip=clip, clip_norm=1e-4)
    learner = make_learner(small(dataclasses.replace(config, optimiser=optimiser)))
    batch = make_batch(0)
    reference = Reference(config, state_of(learner.online), state_of(learner.target))
    weights = [weight.requires_grad_() for weight in reference.online.values()]
    gradients = torch.autograd.grad(reference.loss(reference.online, batch)[0], weights)
    joint = sum(float(gradient.square().sum()) for gradient in gradients) ** 0.5
    learner.update(batch)
    assert learner.fetch_metrics().gradient_norm == pytest.approx(joint, rel=1e-5)


def test_metrics_belong_to_the_networks_before_the_update():
    learner = make_learner(small(preset("cleanrl-dqn")))
    batch = make_batch(0)
    q_mean = learner.online.q_values(batch.obs_tm1).mean().item()
    loss = Reference(small(preset("cleanrl-dqn")), learner.weights(), learner.weights())
    expected, *_ = loss.loss(loss.online, batch)
    learner.update(batch)
    metrics = learner.fetch_metrics()
    assert metrics.q_mean == pytest.approx(q_mean, rel=1e-6)
    assert metrics.loss == pytest.approx(expected.item(), rel=1e-4)


def through_a_file(tensors):
    """What a checkpoint gives back: the same numbers, contiguous."""
    return safetensors.torch.load(
        safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    )


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("updates", [0, 3])
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.slow
def test_a_restored_learner_goes_on_bit_for_bit(name, updates, precision):
    config = small(preset(name), precision)
    learner = make_learner(config)
    for count in range(updates):
        learner.update(batch_for(config, count))
        if count == 0:
            learner.copy_to_target()
    weights, state = through_a_file(learner.weights()), through_a_file(learner.state())

    restored = make_learner(config, seed=9)
    restored.update(batch_for(config, 99))  # nothing of this may stay
    restored.restore(weights, state)
    assert_equal(through_a_file(restored.weights()), weights)
    assert_equal(through_a_file(restored.state()), state)
    for count in range(10, 14):
        for one in (learner, restored):
            one.update(batch_for(config, count))
            if count == 11:
                one.copy_to_target()
        assert_equal(restored.weights(), learner.weights())
    assert_equal(through_a_file(restored.state()), through_a_file(learner.state()))
    assert restored.fetch_metrics() == learner.fetch_metrics()  # the sums before the save count as well
    assert restored.updates == learner.updates == updates + 4


@pytest.mark.parametrize("precision", PRECISIONS)
def test_saving_changes_nothing(precision):
    config = small(preset("keras-example"), precision)
    saved, plain = make_learner(config), make_learner(config)
    for count in range(3):
        for one in (saved, plain):
            one.update(make_batch(count))
        through_a_file(saved.weights() | saved.state())
    assert_equal(saved.weights(), plain.weights())
    assert saved.fetch_metrics() == plain.fetch_metrics()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_loading_weights_sets_both_networks(precision):
    config = small(preset("keras-example"), precision)
    weights = through_a_file(make_learner(config, seed=5).weights())
    kept = snapshot(weights)
    learner = make_learner(config, seed=6)
    learner.load_weights(weights)
    for network in (learner.online, learner.target):
        for name, tensor in network.named_parameters():
            assert torch.equal(tensor, kept[name].to(tensor.dtype)), name
    assert_equal(snapshot(learner.weights()), kept)
    learner.update(make_batch(0))
    assert_equal(weights, kept)  # copied, not taken


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_seed_decides_everything(precision):
    config = small(preset("cleanrl-dqn"), precision)
    runs = []
    for noise in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise)
            learner = make_learner(config)
            for count in range(2):
                learner.update(make_batch(count))
        runs.append(snapshot(learner.weights()))
    assert_equal(*runs)
    other = make_learner(config, seed=1).weights()
    assert not any(torch.equal(other[name], runs[0][name]) for name in other)


def test_gradients_do_not_pile_up():
    # one update twice from the same start is the same update
    config = small(preset("nature-dqn"), "bfloat16")
    learner = make_learner(config)
    weights, state = through_a_file(learner.weights()), through_a_file(learner.state())
    learner.update(make_batch(0))
    first = snapshot(learner.weights())
    learner.restore(weights, state)
    learner.update(make_batch(0))
    assert_equal(snapshot(learner.weights()), first)


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", VARIANTS)
def test_an_update_reads_nothing_back(name, precision, monkeypatch):
    monkeypatch.setattr("pixelq.learner.watch_on", DeviceWatch)  # a GPU's
    config = small(VARIANTS[name], precision)
    if config.optimiser.name == "radam":  # on a CPU it reads its own counts, which on a GPU stay there
        config = dataclasses.replace(config, optimiser=dataclasses.replace(config.optimiser, name="adam"))
    learner = make_learner(config)
    batch = batch_for(config, 0)
    with NoWaiting():
        for _ in range(2):
            learner.update(batch)
        learner.copy_to_target()
        with pytest.raises(AssertionError, match="_local_scalar_dense"):
            learner.fetch_metrics()


@pytest.mark.parametrize("name", ["keras-example", "rainbow", "pqn"])
def test_updates_from_memory_that_stays_are_the_same_updates(name):
    """As a GPU records them, in batches of two sizes by turns."""
    config = small(VARIANTS[name])
    plain = make_learner(config)
    recorded = recorded_learner(config, ACTIONS, CPU, torch.Generator().manual_seed(0))
    recorded._moves._records = True
    for seed, size in enumerate((8, 8, 6, 8, 6)):
        batch = batch_for(config, seed, size=size)
        assert torch.equal(recorded.update(batch), plain.update(batch))
    assert len(recorded._moves._recorded) == 2
    assert (recorded.updates, recorded.fetch_metrics()) == (plain.updates, plain.fetch_metrics())
    assert_equal(recorded.weights(), plain.weights())


def compiling(monkeypatch, config, device=CPU):
    """A learner with compiled updates, and its twin without."""
    plain = moving_learner(
        dataclasses.replace(config, compile=False), ACTIONS, device, torch.Generator().manual_seed(0)
    )
    with monkeypatch.context() as patch:
        patch.setattr("pixelq.engines.recorded.can_compile", lambda device: True)
        patch.setattr("pixelq.learner.watch_on", DeviceWatch)  # a GPU's
        learner = moving_learner(config, ACTIONS, device, torch.Generator().manual_seed(0))
    assert learner.compiles
    assert plain.describe() == ""
    return learner, plain


@pytest.mark.slow
@pytest.mark.parametrize("name", ["keras-example", "dueling-dqn", "nature-dqn", "c51", "rainbow", "pqn"])
def test_compiled_updates_are_the_same_updates(name, monkeypatch):
    config = small(VARIANTS[name])
    learner, plain = compiling(monkeypatch, config)
    assert learner.compiles_losses == (name != "rainbow")  # whose noisy layers draw
    start = snapshot(plain.weights())
    for seed in range(4):
        batch = batch_for(config, seed)
        torch.testing.assert_close(learner.update(batch), plain.update(batch), rtol=1e-4, atol=1e-5)
        for key, tensor in learner.weights().items():
            way = (plain.weights()[key] - start[key]).abs().max().item()
            torch.testing.assert_close(tensor, plain.weights()[key], rtol=0, atol=1e-6 + 0.01 * way)
    assert learner.fetch_metrics() == pytest.approx(plain.fetch_metrics(), rel=1e-4)
    assert learner.trouble() is None
    other = make_learner(config, seed=1)
    other.restore(through_a_file(learner.weights()), through_a_file(learner.state()))  # which computes the other way
    assert_equal(snapshot(other.weights()), snapshot(learner.weights()))
    batch = batch_for(config, 9)
    torch.testing.assert_close(other.update(batch), learner.update(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", VARIANTS)
def test_recorded_updates_are_those_made_one_operation_after_the_other(name, precision, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    config = dataclasses.replace(small(VARIANTS[name], precision), compile=False)
    device = torch.device("cuda")
    plain = moving_learner(
        dataclasses.replace(config, cuda_graphs=False), ACTIONS, device, torch.Generator().manual_seed(0)
    )
    recorded = moving_learner(config, ACTIONS, device, torch.Generator().manual_seed(0))
    for seed in range(8):
        batch = batch_for(config, seed)
        batch = type(batch)(*(tensor.to(device) for tensor in batch))
        torch.testing.assert_close(recorded.update(batch), plain.update(batch), rtol=1e-2, atol=1e-3)
    for key, tensor in recorded.weights().items():
        torch.testing.assert_close(tensor, plain.weights()[key], rtol=1e-2, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["keras-example", "fast", "dueling-dqn", "c51", "rainbow", "pqn"])
def test_compiled_updates_are_the_same_updates_on_a_gpu(name, monkeypatch):
    device = torch.device("cuda")
    learner, plain = compiling(monkeypatch, small(VARIANTS[name]), device)
    for seed in range(8):
        batch = batch_for(VARIANTS[name], seed)
        batch = type(batch)(*(tensor.to(device) for tensor in batch))
        torch.testing.assert_close(learner.update(batch), plain.update(batch), rtol=1e-2, atol=1e-3)
    with no_waiting_for_the_gpu():
        learner.update(batch)
    plain.update(batch)
    for key, tensor in learner.weights().items():
        torch.testing.assert_close(tensor, plain.weights()[key], rtol=1e-2, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", VARIANTS)
def test_an_update_does_not_wait_for_the_gpu(name, precision):
    device = torch.device("cuda")
    config = dataclasses.replace(small(VARIANTS[name], precision), compile=False)
    learner = moving_learner(config, ACTIONS, device, torch.Generator().manual_seed(0))
    batch = batch_for(config, 0)
    batch = type(batch)(*(tensor.to(device) for tensor in batch))
    learner.update(batch)
    torch.cuda.synchronize()
    with no_waiting_for_the_gpu():
        learner.update(batch)
        learner.copy_to_target()
    assert learner.fetch_metrics().loss is not None


def test_the_config_is_obeyed_not_guessed():
    learner = make_learner(
        TrainConfig(precision="float32", network=NetworkConfig(channels=(8, 8, 8), hidden=16), algo=DQNConfig())
    )
    assert copy.deepcopy(learner.online).compute_dtype == torch.float32
    assert isinstance(has_fast_bfloat16(CPU), bool)


@pytest.mark.slow
@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("name", ["fast", "keras-example", "c51", "rainbow"])
def test_updates_in_one_go_are_those_made_one_by_one(name, compile):
    """With kernels where there are any, as the presets ask for them on a CPU, and without."""
    config = dataclasses.replace(preset(name), precision="bfloat16", device="cpu", compile=compile)
    batches = [make_batch(seed) for seed in range(3)]
    together, single = (make_learner(config) for _ in range(2))
    whole = Batch(*(torch.cat(tensors) for tensors in list(zip(*batches, strict=True))[:5]), torch.rand(24) + 0.5)
    parts = [batch._replace(weight=weight) for batch, weight in zip(batches, whole.weight.chunk(3), strict=True)]
    errors = together.learn(whole, 3)
    assert torch.equal(errors, torch.cat([single.update(part) for part in parts]))
    assert_equal(together.weights(), single.weights())
    assert together.updates == single.updates == 3
    assert together.fetch_metrics() == pytest.approx(single.fetch_metrics(), rel=1e-5)
    assert together.trouble() is None
    # one weight for all
    assert torch.equal(together.learn(whole._replace(weight=torch.ones(())), 3)[:8], single.update(batches[0]))


@pytest.mark.parametrize("compile", [True, False])
def test_a_loss_that_is_no_number_is_found_in_whichever_update(compile):
    config = dataclasses.replace(preset("fast"), precision="bfloat16", device="cpu", compile=compile)
    learner = make_learner(config)
    batch = make_batch(0, size=24)
    batch.r_t[9] = torch.inf
    learner.learn(batch, 3)
    ago, words = learner.trouble()
    assert ago == 1
    assert "rewards -1 to inf" in words
