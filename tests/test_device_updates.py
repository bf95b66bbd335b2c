"""Updates that never leave the device: equal to the same steps one by one, in whole runs, nothing waiting."""

import dataclasses

import numpy as np
import pytest
import torch

from moving import moving_learner, recorded_learner
from naive_replay import CPU, ON_DEVICE, Pair
from no_waiting import NothingOfTheHosts, NoWaiting
from pixelq.config import PQNConfig, ReplayConfig
from pixelq.divergence import DeviceWatch
from pixelq.engines import choice
from pixelq.engines.device_updates import DeviceUpdates
from pixelq.engines.plain import PlainEngine
from pixelq.engines.recorded import RecordedActing
from pixelq.presets import PRESETS, preset
from pixelq.replay import ReplayBuffer
from pixelq.training import parts as training_parts
from pixelq.training.parts import make_parts, resolve
from pixelq.training.run import resume
from runs import Watch, assert_same_run, go, metrics, stop_at, tensors, tiny

SAMPLING = ("uniform", "prioritised")


def small_learner(name="keras-example", device=CPU, **fields):
    base = preset(name)
    network = dataclasses.replace(base.network, channels=(4, 4, 4), width=1, hidden=16)
    config = dataclasses.replace(base, precision="float32", network=network, **fields)
    learner = recorded_learner(config, 4, device, torch.Generator().manual_seed(0))
    learner.see_background(np.full((1, 84, 84), 87, np.uint8))  # for those that subtract one
    return learner


def memory(sampling, n_step=3, device=CPU):
    pair = Pair(2, 200, n_step, 1, store=ON_DEVICE, sampling=sampling, device=device)
    pair.play(150)
    return pair


@pytest.mark.parametrize("sampling", SAMPLING)
def test_an_update_is_to_draw_to_learn_and_to_tell_the_memory(sampling):
    whole, steps = memory(sampling).buffer.sampler, memory(sampling).buffer.sampler
    learner, twin = small_learner(), small_learner()
    updates = DeviceUpdates(learner, whole, 16, CPU)
    for beta in (0.4, 0.7, 1.0):
        errors = updates.update(beta)
        draw = steps.draw(16, torch.tensor(beta, dtype=torch.float64))
        assert torch.equal(twin.update(steps.batch(draw)), errors)
        steps.learned(draw, errors)
    assert learner.updates == 3
    assert learner.fetch_metrics() == twin.fetch_metrics()
    assert all(torch.equal(tensor, twin.weights()[name]) for name, tensor in learner.weights().items())
    ours, theirs = whole.state(), steps.state()
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


COMPILED = [("keras-example", "uniform"), ("fast", "prioritised"), ("iqn", "uniform")]


def assert_compiled_updates_are_the_same(name, sampling, device, tolerance, monkeypatch):
    n_step = preset(name).algo.n_step
    whole, steps = (memory(sampling, n_step, device).buffer.sampler for _ in range(2))
    twin = small_learner(name, device, compile=False)
    monkeypatch.setattr("pixelq.engines.recorded.can_compile", lambda device: True)
    monkeypatch.setattr("pixelq.learner.watch_on", DeviceWatch)  # a GPU's
    learner = small_learner(name, device)
    assert (learner.compiles, twin.compiles) == (True, False)
    assert learner.compiles_losses == (name != "iqn")  # whose fractions are drawn
    compiled, plain = DeviceUpdates(learner, whole, 16, device), DeviceUpdates(twin, steps, 16, device)
    for beta in (0.4, 0.7, 1.0, 1.0, 0.9, 0.8):
        torch.testing.assert_close(compiled.update(beta), plain.update(beta), rtol=tolerance, atol=tolerance)
    assert learner.fetch_metrics() == pytest.approx(twin.fetch_metrics(), rel=tolerance)
    assert int(learner.watch._noted) == 6
    ours, theirs = whole.state(), steps.state()
    assert ours.keys() == theirs.keys()
    for key, array in ours.items():
        np.testing.assert_allclose(array, theirs[key], rtol=tolerance, atol=tolerance)
    sums = whole._priorities
    torch.testing.assert_close(sums._sums, sums._blocks().sum(dim=1))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sampling"), COMPILED)
def test_compiled_they_are_the_same_updates(name, sampling, monkeypatch):
    assert_compiled_updates_are_the_same(name, sampling, CPU, 1e-4, monkeypatch)


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "sampling"), COMPILED)
def test_compiled_they_are_the_same_updates_on_a_gpu(name, sampling, monkeypatch):
    assert_compiled_updates_are_the_same(name, sampling, torch.device("cuda"), 1e-2, monkeypatch)


def assert_updates_in_a_row_are_the_same(name, sampling, device, tolerance):
    n_step = preset(name).algo.n_step
    rows, steps = (memory(sampling, n_step, device).buffer.sampler for _ in range(2))
    learner, twin = (small_learner(name, device) for _ in range(2))
    in_a_row, one_by_one = DeviceUpdates(learner, rows, 16, device, 3), DeviceUpdates(twin, steps, 16, device)
    for rate in (1e-3, 1e-3, 5e-4, 1e-4, 2e-4, 3e-4):  # on a GPU the fifth row is the first that is replayed
        learner.learning_rate = twin.learning_rate = rate
        errors = in_a_row.update(0.5, 7)
        for _ in range(7):
            expected = one_by_one.update(0.5)
        torch.testing.assert_close(errors, expected, rtol=tolerance, atol=tolerance)
    assert learner.updates == twin.updates == 42
    for key, weights in learner.weights().items():
        torch.testing.assert_close(weights, twin.weights()[key], rtol=tolerance, atol=tolerance)
    ours, theirs = rows.state(), steps.state()
    assert np.array_equal(ours["chance"], theirs["chance"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sampling"), [("keras-example", "uniform"), ("nature-dqn", "prioritised")])
def test_updates_in_a_row_are_the_same_as_one_by_one(name, sampling):
    assert_updates_in_a_row_are_the_same(name, sampling, CPU, 0.0)


@pytest.mark.slow
def test_compiled_updates_in_a_row_are_the_same_as_one_by_one(monkeypatch):
    monkeypatch.setattr("pixelq.engines.recorded.can_compile", lambda device: True)
    monkeypatch.setattr("pixelq.learner.watch_on", DeviceWatch)
    assert_updates_in_a_row_are_the_same("keras-example", "uniform", CPU, 1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "sampling"), [*COMPILED, ("nature-dqn", "prioritised")])
def test_updates_in_a_row_are_the_same_as_one_by_one_on_a_gpu(name, sampling):
    assert_updates_in_a_row_are_the_same(name, sampling, torch.device("cuda"), 1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["keras-example", "nature-dqn", "c51", "qr-dqn", "munchausen-dqn", "iqn", "rainbow"])
def test_nothing_is_read_back_in_between(name, monkeypatch):
    monkeypatch.setattr("pixelq.learner.watch_on", DeviceWatch)  # a GPU's
    config = preset(name)
    pair = memory("prioritised", config.algo.n_step)
    updates = DeviceUpdates(small_learner(name), pair.buffer.sampler, 8, CPU)
    updates.update(0.5)  # optimisers set up what they need
    with NoWaiting():
        updates.update(0.6)


META = torch.device("meta")  # has shapes without numbers, in place of a GPU


class MetaSource:
    """A random generator of a device without numbers."""

    device = META

    def __init__(self, device=META):
        assert device == META

    def manual_seed(self, seed):
        return self


@pytest.fixture
def meta_chance(monkeypatch):
    for name in ("rand", "randn"):
        draw = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *size, generator, draw=draw, **how: draw(*size, **how))
    fill = torch.Tensor.normal_

    def normal(tensor, *parameters, generator):
        return fill(tensor, *parameters)

    monkeypatch.setattr(torch.Tensor, "normal_", normal)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PRESETS if not isinstance(preset(name).algo, PQNConfig)])
def test_nothing_of_the_hosts_takes_part(name, monkeypatch, meta_chance):
    base = preset(name)
    network = dataclasses.replace(base.network, channels=(4, 4, 4), width=1, hidden=16)
    # PyTorch's fused kernels know no such device
    optimiser = dataclasses.replace(base.optimiser, name="centred_rmsprop")
    config = dataclasses.replace(base, precision="bfloat16", network=network, optimiser=optimiser)
    learner = moving_learner(config, 4, META, torch.Generator().manual_seed(0))
    learner.generator = MetaSource()
    monkeypatch.setattr(torch, "Generator", MetaSource)
    replay = ReplayConfig(capacity=100, store="device", sampling="prioritised")
    sampler = ReplayBuffer(replay, 2, 0.99, base.algo.n_step, META, np.random.default_rng(0), True).sampler
    beta = torch.zeros((), dtype=torch.float64, device=META)

    def update():
        draw = sampler.draw(8, beta)
        sampler.learned(draw, learner.move(sampler.batch(draw)))

    update()  # sets up what it needs
    with NothingOfTheHosts():
        update()
        sampler._take_row()


def test_what_is_of_the_host_would_be_seen():
    numbers, one = torch.zeros(3, device=META), torch.ones(())
    with NothingOfTheHosts():
        numbers + 1.0
        with pytest.raises(AssertionError, match="mul"):
            numbers * one
        with pytest.raises(AssertionError, match="copy"):
            numbers.copy_(one)


@pytest.fixture
def on_device(monkeypatch):
    """A CPU that keeps its planes and samples as a GPU would."""
    for asked in (choice, training_parts):
        monkeypatch.setattr(asked, "samples_on_device", lambda config, device: True)
    monkeypatch.setattr(training_parts, "choose_store", lambda store, transitions, device, shape: "device")


def run_config(sampling, **fields):
    replay = {"sampling": sampling, "capacity": 300, "batch_size": 16, "train_period": 8}
    return tiny("cleanrl-dqn", replay=replay, total_steps=800, **fields)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", SAMPLING)
def test_stopping_and_resuming_such_a_run_changes_nothing(sampling, tmp_path, on_device):
    config = run_config(sampling)
    _, watch = go(config, tmp_path / "whole")
    assert any("raw planes in the GPU's memory" in note for note in watch.notes)
    go(config, tmp_path / "parts", stop_at(400))
    resume(tmp_path / "parts", progress=Watch(config))
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert "chance" in tensors(tmp_path / "whole", "sampler")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rainbow", "keras-example"])
def test_acting_on_planes_that_are_there_changes_nothing(name, tmp_path, on_device, monkeypatch):
    config = tiny(name, envs=3, total_steps=900)
    for folder in ("there", "sent"):
        go(config, tmp_path / folder, stop_at(600))
        resume(tmp_path / folder, progress=Watch(config))
        monkeypatch.setattr(RecordedActing, "current_values", lambda acting, obs, remember: acting.q_values(obs))
    assert_same_run(tmp_path / "there", tmp_path / "sent")


@pytest.mark.slow
@pytest.mark.parametrize("sampling", SAMPLING)
def test_such_a_run_goes_on_where_the_host_samples_and_the_other_way_round(sampling, tmp_path, monkeypatch):
    config = run_config(sampling)
    for name, first, then in (("away", True, False), ("here", False, True)):
        for here, begin in ((first, True), (then, False)):
            for asked in (choice, training_parts):
                monkeypatch.setattr(asked, "samples_on_device", lambda config, device, here=here: here)
            store = "device" if here else "lz4"
            monkeypatch.setattr(training_parts, "choose_store", lambda *_, store=store: store)
            if begin:
                go(config, tmp_path / name, stop_at(400))
            else:
                resume(tmp_path / name, progress=Watch(config))
        assert metrics(tmp_path / name)[-1]["step"] == 800


def test_a_cpu_samples_on_the_host():
    parts = make_parts(resolve(run_config("prioritised")))
    assert parts.buffer.sampler is None
    assert isinstance(parts.engine, PlainEngine)
