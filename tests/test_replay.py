"""The replay memory against naive lists, whatever its store and however it is sampled."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naive_replay import GAMMA, ON_DEVICE, SHAPES, STORES, Pair, drawn, make_buffer
from pixelq.envs.testing import decode


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    """So short that small memories have many segments, and the last one is cut short."""
    monkeypatch.setattr("pixelq.replay.lz4_frames._SEGMENT", 32)


@pytest.mark.parametrize("sampling", ["uniform", "prioritised"])
@pytest.mark.parametrize("store", STORES)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
@pytest.mark.slow
def test_every_batch_equals_the_naive_lists(store, sampling, data):
    num_envs = data.draw(st.integers(1, 5))
    n_step = data.draw(st.integers(1, 5))
    capacity = data.draw(st.integers(num_envs * (n_step + 1), 120))
    chances = data.draw(st.sampled_from([(0.03, 0.02, 0.05), (0.3, 0.0, 0.0), (0.0, 0.3, 0.1), (0.0, 0.0, 0.0)]))
    seed, life_terminal = data.draw(st.integers(0, 999)), data.draw(st.booleans())
    pair = Pair(num_envs, capacity, n_step, seed, chances, life_terminal, store, sampling)
    for ticks in data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=4)):
        pair.play(ticks)
        pair.check_all()
        allowed = pair.sampleable()
        if len(allowed) < 5:
            continue
        draw = pair.buffer.draw(16, 0.4)
        assert set(zip(draw.rows.tolist(), draw.envs.tolist(), strict=True)) <= allowed
        pair.buffer.learned(draw, torch.randn(16))
        twin = pair.reloaded()
        pair.check_all(twin)
        twin.generator = np.random.default_rng(9)
        pair.buffer.generator = np.random.default_rng(9)
        for a, b in zip(twin.draw(16, 0.4), pair.buffer.draw(16, 0.4), strict=True):
            np.testing.assert_array_equal(a, b)


def test_every_store_gives_the_same_batches_bit_for_bit():
    pairs = [Pair(3, 200, 3, 5, store=store) for store in STORES]
    for pair in pairs:
        pair.play(230)
        pair.buffer.generator = np.random.default_rng(3)
    for _ in range(20):
        batches = [pair.buffer.batch(pair.buffer.draw(32, 1.0)) for pair in pairs]
        for tensors in zip(*batches, strict=True):
            assert all(torch.equal(tensors[0], tensor) for tensor in tensors)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
@pytest.mark.parametrize("store", [*STORES, ON_DEVICE])
def test_pictures_of_any_shape_equal_the_naive_lists(store, shape):
    pair = Pair(2, 60, 2, 6, store=store, shape=shape, sampling="prioritised")
    pair.play(90)  # the ring has wrapped
    pair.check_all()
    if pair.buffer.sampler is None:
        draw = pair.buffer.draw(32, 0.4)
        assert set(zip(draw.rows.tolist(), draw.envs.tolist(), strict=True)) <= pair.sampleable()
    pair.check_all(pair.reloaded())
    pair.buffer = pair.reloaded()
    pair.play(40)
    pair.check_all()


@pytest.mark.slow
@pytest.mark.parametrize("other", STORES)
@pytest.mark.parametrize("store", STORES)
def test_rows_go_from_any_store_to_any_other(store, other):
    """As when a run that began on a GPU goes on without one."""
    pair = Pair(2, 90, 2, 8, store=store)
    pair.play(140)
    pair.kind = (other, "uniform")
    pair.buffer = pair.reloaded()
    pair.check_all()
    pair.play(100)  # from the middle of the ring on
    pair.check_all()


@pytest.mark.parametrize("sampling", ["uniform", "prioritised"])
@pytest.mark.parametrize("n_step", [1, 3])
def test_games_that_were_given_up_end_there_without_terminating(n_step, sampling):
    pair = Pair(3, 80, n_step, 4, (0.0, 0.0, 0.0), sampling=sampling)
    for ticks in (0, 2, 30, 1, 5):
        pair.play(ticks)
        pair.give_up()
        pair.play(n_step)
        pair.check_all()
        draw = pair.buffer.draw(200, 0.4)
        assert set(zip(draw.rows.tolist(), draw.envs.tolist(), strict=True)) <= pair.sampleable()


@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_it_holds_at_least_its_capacity_of_transitions(num_envs):
    pair = Pair(num_envs, 100, 3, 0, chances=(0.0, 0.0, 0.0))
    pair.play(300)
    assert 100 <= len(pair.sampleable()) < 100 + 2 * num_envs


def test_a_truncated_transition_bootstraps_from_the_final_observation():
    pair = Pair(1, 50, 1, 3, chances=(0.0, 0.2, 0.0))
    pair.play(60)
    rows = [row for row, _ in sorted(pair.sampleable()) if pair.steps[0][row].truncated]
    assert rows
    for row in rows:
        batch = pair.buffer.batch(drawn(np.array([row]), np.array([0])))
        before, after = decode(batch.obs_tm1[0, -1].numpy()), decode(batch.obs_t[0, -1].numpy())
        assert batch.discount_t[0] == np.float32(GAMMA)
        assert after.tolist() == [
            *before[:2].tolist(),
            before[2] + 1,
        ]  # same game, a step later: not the next game's start


def test_a_transition_counts_once_its_n_steps_are_known():
    pair = Pair(2, 60, 3, 0, chances=(0.0, 0.0, 0.0))
    sizes = []
    for _ in range(5):
        sizes.append(len(pair.buffer))
        pair.play(1)
    assert sizes == [0, 0, 0, 2, 4]


def test_rows_that_do_not_follow_are_refused():
    pair = Pair(2, 60, 1, 0)
    pair.play(20)
    rows = pair.buffer.ring.read_rows(0, 10)
    twin = pair.fresh()
    twin.ring.write_rows(0, rows)
    with pytest.raises(ValueError, match="do not follow row 10"):
        twin.ring.write_rows(11, rows)


def test_a_plane_is_stored_once():
    buffer = make_buffer(100_000, 8, 1)
    assert buffer.ring.rows * 8 * 84 * 84 <= 1.001 * 100_000 * 84 * 84  # 0.71 GB, claimed as it fills


@pytest.mark.parametrize("sampling", ["uniform", "prioritised"])
def test_batches_drawn_together_are_whole_batches(sampling):
    pair = Pair(3, 60, 3, seed=5, store="lz4", sampling=sampling)
    pair.play(70)
    buffer = pair.buffer
    errors = torch.linspace(0.1, 9.0, 32)
    buffer.learned(buffer.draw(32, 0.6), errors)
    state = buffer.generator.bit_generator.state
    together = buffer.draw(8, 0.6, batches=3)
    assert len(together.rows) == len(together.envs) == len(together.weight) == 24
    assert set(zip(together.rows.tolist(), together.envs.tolist(), strict=True)) <= pair.sampleable()
    assert [weights.max() for weights in np.split(together.weight, 3)] == [1.0] * 3
    if sampling == "prioritised":  # the very ones that would be drawn one by one
        buffer.generator.bit_generator.state = state
        singles = [buffer.draw(8, 0.6) for _ in range(3)]
        for mine, theirs in zip(together, zip(*singles, strict=True), strict=True):
            assert np.array_equal(mine, np.concatenate(theirs))
