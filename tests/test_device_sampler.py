"""Sampling on the device, exercised on a CPU: against naive lists, and against the sampler of the host."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naive_replay import CPU, ON_DEVICE, Pair, batch_at, make_buffer
from no_waiting import NoWaiting
from pixelq.replay.block_sums import BlockSums
from pixelq.replay.device_sampler import DeviceDraw

BETA = torch.tensor(0.4, dtype=torch.float64)
CHANCES = [(0.03, 0.02, 0.05), (0.3, 0.0, 0.0), (0.0, 0.3, 0.1), (0.0, 0.0, 0.0)]


def pairs_of(pair, draw):
    """Rows and games of a draw, rows counted as the pair counts them."""
    ring = pair.buffer.ring
    at, envs = np.divmod(draw.slots.numpy(), ring.num_envs)
    return [*zip((ring.oldest + (at - ring.oldest) % ring.rows).tolist(), envs.tolist(), strict=True)]


# the sums


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_block_sums_agree_with_a_list(data):
    size = data.draw(st.integers(1, 40))
    sums, naive = BlockSums(size, CPU), np.zeros(size)
    value = st.one_of(st.just(0.0), st.floats(1e-3, 1e3))
    for _ in range(data.draw(st.integers(1, 6))):
        if data.draw(st.booleans()):
            naive[:] = data.draw(st.lists(value, min_size=size, max_size=size))
            sums.rebuild(naive)
        indices = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=8, unique=True))
        values = np.array(data.draw(st.lists(value, min_size=len(indices), max_size=len(indices))))
        keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(indices), max_size=len(indices))))
        sums.set(torch.tensor(indices), torch.from_numpy(values), torch.from_numpy(keep))
        naive[np.array(indices)[~keep]] = values[~keep]
        assert sums.values.tolist() == naive.tolist()
        if naive.any():
            shares = np.array([0.0, *data.draw(st.lists(st.floats(0, 1, exclude_max=True), max_size=5)), 1 - 2**-53])
            found = sums.find(torch.from_numpy(shares)).numpy()
            assert (naive[found] > 0).all()
            ends = naive.cumsum()
            slack = 1e-9 * ends[-1]
            targets = shares * ends[-1]
            assert (ends[found] >= targets - slack).all()
            assert (ends[found] - naive[found] <= targets + slack).all()


def test_sums_without_a_value_find_something_harmless():
    assert 0 <= int(BlockSums(10, CPU).find(torch.tensor([0.5], dtype=torch.float64))) < 20


@pytest.mark.slow
def test_a_million_values_are_found_in_proportion():
    values = np.random.default_rng(0).exponential(size=1_000_000)
    sums = BlockSums(len(values), CPU)
    sums.rebuild(values)
    shares = (np.arange(20_000) + 0.5) / 20_000
    expected = np.searchsorted(values.cumsum(), shares * values.sum(), side="right")
    assert (sums.find(torch.from_numpy(shares)).numpy() == expected).mean() > 0.9999  # except for rounding


# against naive lists


@pytest.mark.parametrize("sampling", ["uniform", "prioritised"])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
@pytest.mark.slow
def test_every_batch_equals_the_naive_lists(sampling, data):
    num_envs = data.draw(st.integers(1, 5))
    n_step = data.draw(st.integers(1, 5))
    capacity = data.draw(st.integers(num_envs * (n_step + 1), 120))
    chances, seed = data.draw(st.sampled_from(CHANCES)), data.draw(st.integers(0, 999))
    pair = Pair(num_envs, capacity, n_step, seed, chances, data.draw(st.booleans()), ON_DEVICE, sampling)
    for ticks in data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=4)):
        pair.play(ticks)
        if data.draw(st.booleans()):
            pair.give_up()
        pair.check_all()
        allowed = pair.sampleable()
        if len(allowed) < 5:
            continue
        sampler = pair.buffer.sampler
        draw = sampler.draw(16, BETA)
        assert set(pairs_of(pair, draw)) <= allowed
        sampler.learned(draw, torch.randn(16))
        twin = pair.reloaded()
        pair.check_all(twin)
        for a, b in zip(twin.sampler.draw(16, BETA), sampler.draw(16, BETA), strict=True):
            assert torch.equal(a, b)


@pytest.mark.slow
def test_uniform_sampling_draws_every_transition_equally_often():
    pair = Pair(3, 90, 2, 1, store=ON_DEVICE)
    pair.play(200)
    draws = [pair.buffer.sampler.draw(1, BETA) for _ in range(20_000)]
    assert all(draw.weight.item() == 1 for draw in draws)
    slots, counts = np.unique([draw.slots.item() for draw in draws], return_counts=True)
    held = len(pair.sampleable())
    assert len(slots) == held
    mean = len(draws) / held
    assert (((counts - mean) ** 2 / mean).sum() - held) / math.sqrt(2 * held) < 4


def test_one_transition_comes_from_each_equal_share():
    pair = Pair(2, 100, 1, 1, (0.0, 0.0, 0.0), store=ON_DEVICE)
    pair.play(40)
    draw = pair.buffer.sampler.draw(80, BETA)  # as many as there are
    assert set(pairs_of(pair, draw)) == pair.sampleable()


# against the host's


class Shares:
    """The host's random generator with known numbers."""

    def __init__(self, numbers):
        self.numbers = numbers

    def random(self, shape):
        return self.numbers[: np.prod(shape)].reshape(shape)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
@pytest.mark.slow
def test_it_does_what_the_hosts_sampler_does(data):
    num_envs, n_step = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    capacity, seed = data.draw(st.integers(num_envs * (n_step + 1), 60)), data.draw(st.integers(0, 999))
    both = [
        Pair(num_envs, capacity, n_step, seed, CHANCES[0], store=store, sampling="prioritised")
        for store in ("ram", ON_DEVICE)
    ]
    host, device = (pair.buffer for pair in both)
    rng = np.random.default_rng(seed)
    for _ in range(data.draw(st.integers(1, 20))):
        for pair in both:
            pair.play(1)
        if both[0].sampleable():
            numbers = rng.random(16)
            host.generator = Shares(numbers)
            theirs = host.draw(16, 0.4)
            ours = device.sampler.draw_at(torch.from_numpy((np.arange(16) + numbers) / 16), BETA)
            assert pairs_of(both[1], ours) == [*zip(theirs.rows.tolist(), theirs.envs.tolist(), strict=True)]
            np.testing.assert_allclose(ours.weight.numpy(), theirs.weight, rtol=1e-6)
            for a, b in zip(device.sampler.batch(ours), host.batch(theirs), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-6, atol=0)
            errors = torch.from_numpy(rng.choice([0.0, 0.3, 2.0, math.nan, math.inf], 16))
            host.learned(theirs, errors)
            device.sampler.learned(ours, errors)
        theirs, ours = host.state(), device.state()
        np.testing.assert_allclose(ours["leaves"], theirs["leaves"], rtol=1e-12)
        assert float(ours["highest"]) == pytest.approx(float(theirs["highest"]), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["uniform", "prioritised"])
@pytest.mark.parametrize("stores", [("lz4", ON_DEVICE), (ON_DEVICE, "lz4"), (ON_DEVICE, ON_DEVICE)])
def test_a_run_may_move_between_a_cpu_and_a_gpu(stores, sampling):
    pair = Pair(2, 90, 2, 8, store=stores[0], sampling=sampling)
    pair.play(140)
    if sampling == "prioritised":
        slots = np.array(sorted(pair.sampleable())[:20]).T
        errors = torch.linspace(0, 3, 20)
        if pair.buffer.sampler is None:
            pair.buffer.learned(pair.buffer.draw(20, 0.4)._replace(rows=slots[0], envs=slots[1]), errors)
        else:
            at = torch.from_numpy(slots[0] % pair.buffer.ring.rows * 2 + slots[1])
            pair.buffer.sampler.learned(DeviceDraw(at, torch.ones(20)), errors)
        leaves = pair.buffer.state()["leaves"]
    pair.kind = (stores[1], sampling)
    pair.buffer = pair.reloaded()
    if sampling == "prioritised":
        np.testing.assert_allclose(pair.buffer.state()["leaves"], leaves, rtol=1e-12)
    pair.check_all()
    pair.play(100)
    pair.check_all()
    if pair.buffer.sampler is not None:
        assert set(pairs_of(pair, pair.buffer.sampler.draw(200, BETA))) <= pair.sampleable()


def test_priorities_of_another_memory_are_refused():
    pair, other = Pair(2, 90, 1, 0, store=ON_DEVICE, sampling="prioritised"), Pair(2, 60, 1, 0, store=ON_DEVICE)
    with pytest.raises(ValueError, match="priorities of 98 slots"):
        make_buffer(60, 2, 1, ON_DEVICE, "prioritised").restore(pair.buffer.state())
    with pytest.raises(KeyError):
        pair.buffer.restore(other.buffer.state())


# nothing waits


@pytest.mark.parametrize("sampling", ["uniform", "prioritised"])
def test_drawing_and_learning_read_nothing_back(sampling):
    pair = Pair(2, 90, 3, 8, store=ON_DEVICE, sampling=sampling)
    pair.play(140)
    sampler = pair.buffer.sampler
    with NoWaiting():
        for _ in range(2):
            draw = sampler.draw(16, BETA)
            assert sampler.batch(draw).obs_tm1.shape == (16, 4, 84, 84)
            sampler.learned(draw, torch.linspace(-1, 1, 16))
            pair.play(1)


@pytest.mark.parametrize("errors", [[1.0, 2.0, math.nan], [math.inf, 5.0, 2.0], [math.nan, math.nan, 2.0]])
def test_of_a_transition_drawn_twice_the_last_good_error_counts(errors):
    pair = Pair(1, 30, 1, 0, store=ON_DEVICE, sampling="prioritised")
    pair.play(20)
    sampler = pair.buffer.sampler
    sampler.learned(DeviceDraw(torch.tensor([5, 5, 5]), torch.ones(3)), torch.tensor(errors))
    leaves = sampler.state()["leaves"]
    assert leaves[5] == pytest.approx((2 + 1e-6) ** 0.6)
    assert (np.delete(leaves, 5)[np.delete(leaves, 5) > 0] == 1).all()


def test_batches_are_copies():
    pair = Pair(2, 30, 1, 0, store=ON_DEVICE)
    pair.play(20)
    rows, envs = np.array(sorted(pair.sampleable())[:6]).T
    before = batch_at(pair.buffer, rows, envs)
    kept = [tensor.clone() for tensor in before]
    pair.play(40)
    assert all(torch.equal(a, b) for a, b in zip(before, kept, strict=True))


@pytest.mark.slow
@given(seed=st.integers(0, 10_000), num_envs=st.integers(1, 3), chances=st.sampled_from(CHANCES))
@settings(max_examples=20, deadline=None)
def test_the_newest_observations_are_those_of_the_games(seed, num_envs, chances):
    pair = Pair(num_envs, 30, 2, seed, chances, store=ON_DEVICE)
    for tick in range(60):  # more than once around the ring
        with NoWaiting():
            newest = pair.buffer.sampler.newest()
        np.testing.assert_array_equal(newest, pair.obs)
        if tick % 20 == 13:
            pair.give_up()
        elif tick % 20 == 17:
            np.testing.assert_array_equal(pair.reloaded().sampler.newest(), pair.obs)
        else:
            pair.play(1)
