"""How batches are drawn: uniform and prioritised sampling, importance weights, and the sum tree beneath."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naive_replay import Pair, drawn, make_buffer
from pixelq.config import ReplayConfig, TrainConfig, validate
from pixelq.errors import ConfigError
from pixelq.replay.priorities import Priorities
from pixelq.replay.samplers import draw_uniform
from pixelq.replay.sumtree import SumTree
from pixelq.training.replay_loop import importance_exponent_at

ALPHA, EPSILON = 0.6, 1e-6  # the config's defaults


def pairs_of(draw):
    return list(zip(draw.rows.tolist(), draw.envs.tolist(), strict=True))


def chi_square_fits(counts, expected, least=-4.0):
    """Whether the statistic is within 4 standard deviations of its mean; stratified draws may lie far below it."""
    statistic, freedom = ((counts - expected) ** 2 / expected).sum(), len(counts) - 1
    return least < (statistic - freedom) / math.sqrt(2 * freedom) < 4


# the sum tree


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_sum_tree_agrees_with_a_list(data):
    size = data.draw(st.integers(1, 70))
    tree, naive = SumTree(size), [0.0] * size
    value = st.one_of(st.just(0.0), st.floats(0, 1e6), st.floats(1e-9, 1e-3))
    for _ in range(data.draw(st.integers(1, 6))):
        changes = data.draw(st.lists(st.tuples(st.integers(0, size - 1), value), max_size=20))
        for index, new in changes:
            naive[index] = new
        tree.set(np.array([i for i, _ in changes], np.int64), np.array([v for _, v in changes], np.float64))
        assert tree.leaves.tolist() == naive
        assert tree.total == pytest.approx(sum(naive), rel=1e-12)
        rebuilt = SumTree(size)
        rebuilt.rebuild(tree.leaves)
        np.testing.assert_array_equal(rebuilt._nodes, tree._nodes)  # bit for bit
        if tree.total > 0:
            share = data.draw(st.floats(0, 1, exclude_max=True))
            found = int(tree.find(np.array([share * tree.total]))[0])
            before = math.fsum(naive[:found])
            slack = 1e-9 * tree.total
            assert naive[found] > 0
            assert before - slack <= share * tree.total <= before + naive[found] + slack


def test_a_target_beyond_the_last_value_finds_the_last_value():
    tree = SumTree(5)
    tree.set(np.array([1, 3]), np.array([0.1, 0.2]))
    assert tree.find(np.array([0.0, tree.total, np.nextafter(tree.total, 1), 9.0])).tolist() == [1, 3, 3, 3]


def test_an_empty_tree_finds_nothing():
    with pytest.raises(ValueError, match="every leaf is 0"):
        SumTree(4).find(np.array([0.0]))


def test_the_tree_draws_in_proportion_over_a_million_draws():
    rng = np.random.default_rng(0)
    values = rng.exponential(size=300) * (rng.random(300) < 0.8)
    tree = SumTree(300)
    tree.rebuild(values)
    counts = np.bincount(tree.find(rng.random(1_000_000) * tree.total), minlength=300)
    assert counts[values == 0].sum() == 0
    held = values > 0
    assert chi_square_fits(counts[held], 1_000_000 * values[held] / values.sum())


# uniform


def test_uniform_sampling_draws_every_transition_equally_often():
    pair = Pair(3, 90, 1, 1)
    pair.play(200)
    allowed = sorted(pair.sampleable())
    draws = 200 * len(allowed)
    counts = dict.fromkeys(allowed, 0)
    for slot in pairs_of(draw_uniform(pair.buffer.ring, draws, 1, np.random.default_rng(0))):
        counts[slot] += 1
    assert chi_square_fits(np.array(list(counts.values())), np.full(len(allowed), 200.0))


def test_uniform_weights_are_all_one():
    pair = Pair(2, 60, 1, 0)
    pair.play(50)
    assert pair.buffer.batch(pair.buffer.draw(32, 0.4)).weight.tolist() == [1.0] * 32


# both


@pytest.mark.parametrize("sampling", ["uniform", "prioritised"])
def test_sampling_goes_by_its_generator_alone(sampling):
    pair = Pair(2, 60, 1, 0, sampling=sampling)
    pair.play(50)
    pair.buffer.learned(pair.buffer.draw(32, 0.4), torch.randn(32))
    draws = []
    for seed in (0, 1):
        np.random.seed(seed)
        torch.manual_seed(seed)
        pair.buffer.generator = np.random.default_rng(5)
        draws.append(pairs_of(pair.buffer.draw(32, 0.4)))
    assert draws[0] == draws[1]


@pytest.mark.parametrize("sampling", ["uniform", "prioritised"])
@pytest.mark.parametrize("n_step", [1, 3])
def test_an_empty_memory_says_so(sampling, n_step):
    pair = Pair(2, 100, n_step, 0, chances=(0.0, 0.0, 0.0), sampling=sampling)
    for _ in range(n_step):
        assert len(pair.buffer) == 0
        with pytest.raises(ValueError, match="no transition yet"):
            pair.buffer.draw(4, 0.4)
        pair.play(1)
    assert len(pair.buffer) == 2
    assert set(pairs_of(pair.buffer.draw(4, 0.4))) <= {(0, 0), (0, 1)}


@pytest.mark.parametrize(("sampling", "text"), [("uniform", "next to no"), ("prioritised", "no transition yet")])
def test_a_memory_of_ignored_steps_alone_says_so(sampling, text):
    buffer = make_buffer(100, 1, 1, sampling=sampling)
    buffer.ring.start(np.zeros((1, 84, 84), np.uint8))
    buffer.restart(np.zeros((1, 84, 84), np.uint8))
    with pytest.raises(ValueError, match=text):
        buffer.draw(4, 0.4)


# prioritised


class NaivePriorities:
    """A dictionary of priorities by row and game, in plain loops."""

    def __init__(self):
        self.values, self.highest = {}, 1.0

    def sync(self, sampleable):
        """Forget what cannot be drawn any more; what is new gets the highest priority there was."""
        self.values = {slot: self.values.get(slot, self.highest) for slot in sampleable}

    def learned(self, draw, errors):
        for slot, error in zip(pairs_of(draw), errors.tolist(), strict=True):
            if math.isfinite(error):
                value = (abs(error) + EPSILON) ** ALPHA
                self.highest = max(self.highest, value)
                if slot in self.values:
                    self.values[slot] = value


def priorities_of(pair):
    """Every priority above 0 by global row and game."""
    ring, leaves = pair.buffer.ring, pair.buffer.state()["leaves"].reshape(pair.buffer.ring.rows, -1)
    return {
        (row, env): leaves[row % ring.rows, env]
        for row in range(ring.oldest, ring.head + 1)
        for env in range(ring.num_envs)
        if leaves[row % ring.rows, env] > 0
    }, (leaves > 0).sum()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
@pytest.mark.slow
def test_priorities_agree_with_a_dictionary(data):
    num_envs, n_step = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    capacity = data.draw(st.integers(num_envs * (n_step + 1), 60))
    chances = data.draw(st.sampled_from([(0.03, 0.02, 0.05), (0.3, 0.2, 0.0), (0.0, 0.0, 0.0)]))
    pair = Pair(num_envs, capacity, n_step, data.draw(st.integers(0, 999)), chances, sampling="prioritised")
    naive, draws = NaivePriorities(), []
    for _ in range(data.draw(st.integers(1, 25))):
        if data.draw(st.booleans()):
            pair.play(data.draw(st.integers(1, 3)))
            naive.sync(pair.sampleable())
        elif naive.values:
            draws.append(pair.buffer.draw(8, 0.4))
            assert set(pairs_of(draws[-1])) <= pair.sampleable()
        if draws and data.draw(st.booleans()):
            draw = draws.pop(data.draw(st.integers(0, len(draws) - 1)))  # perhaps of long ago
            error = st.one_of(st.floats(-50, 50, width=32), st.sampled_from([0.0, math.nan, math.inf]))
            errors = torch.tensor(data.draw(st.lists(error, min_size=8, max_size=8)))
            # a transition that was drawn twice has one error
            known = {}
            errors = torch.stack([known.setdefault(s, e) for s, e in zip(pairs_of(draw), errors, strict=True)])
            pair.buffer.learned(draw, errors)
            naive.learned(draw, errors)
        found, count = priorities_of(pair)
        assert count == len(found)  # no priority in a slot that is not held
        assert found == pytest.approx(naive.values, rel=1e-12)
        assert float(pair.buffer.state()["highest"]) == pytest.approx(naive.highest, rel=1e-12)


def learned_everywhere(pair, seed):
    """Give every transition a priority of its own; returns them in the order of `pair.sampleable`."""
    slots = sorted(pair.sampleable())
    errors = torch.from_numpy(np.random.default_rng(seed).exponential(size=len(slots)))
    pair.buffer.learned(drawn(*np.array(slots).T), errors)
    return slots, (errors.numpy() + EPSILON) ** ALPHA


@pytest.mark.slow
def test_prioritised_sampling_draws_in_proportion_over_a_million_draws():
    pair = Pair(3, 90, 2, 1, sampling="prioritised")
    pair.play(200)
    slots, values = learned_everywhere(pair, 0)
    place = {slot: index for index, slot in enumerate(slots)}
    counts = np.zeros(len(slots))
    drawn_rows = []
    for _ in range(1_000):
        draw = pair.buffer.draw(1_000, 0.4)
        drawn_rows.append(draw.rows * 3 + draw.envs)
    for key, count in zip(*np.unique(np.concatenate(drawn_rows), return_counts=True), strict=True):
        counts[place[key // 3, key % 3]] = count
    assert chi_square_fits(counts, 1_000_000 * values / values.sum(), least=-math.inf)
    # drawn one by one there are no shares that even it out
    singles = np.zeros(len(slots))
    for _ in range(20_000):
        singles[place[pairs_of(pair.buffer.draw(1, 0.4))[0]]] += 1
    assert chi_square_fits(singles, 20_000 * values / values.sum())


@pytest.mark.parametrize("exponent", [0.0, 0.4, 1.0])
def test_weights_agree_with_a_loop(exponent):
    pair = Pair(2, 80, 1, 3, sampling="prioritised")
    pair.play(120)
    slots, values = learned_everywhere(pair, 1)
    priority = dict(zip(slots, values.tolist(), strict=True))
    for _ in range(20):
        draw = pair.buffer.draw(16, exponent)
        raw = [(len(slots) * priority[slot] / values.sum()) ** -exponent for slot in pairs_of(draw)]
        expected = [weight / max(raw) for weight in raw]
        assert pair.buffer.batch(draw).weight.tolist() == pytest.approx(expected, rel=1e-6)


def test_the_importance_exponent_goes_from_start_to_end_over_all_steps():
    replay = ReplayConfig(importance_exponent_start=0.4, importance_exponent_end=1.0)
    config = TrainConfig(total_steps=1_000, replay=replay)
    assert [importance_exponent_at(config, step) for step in (0, 250, 500, 1_000, 1_008)] == pytest.approx(
        [0.4, 0.55, 0.7, 1.0, 1.0]
    )


def test_a_row_that_was_overwritten_is_not_updated():
    pair = Pair(1, 20, 1, 0, chances=(0.0, 0.0, 0.0), sampling="prioritised")
    pair.play(20)
    draw = pair.buffer.draw(16, 0.4)
    pair.play(pair.buffer.ring.rows)
    before = priorities_of(pair)
    pair.buffer.learned(draw, torch.full((16,), 1e-3))
    assert priorities_of(pair) == before


def test_errors_wait_until_they_are_needed():
    """Nothing is fetched from the device before the next draw, the next row or a checkpoint."""

    class Untouchable:
        def double(self):
            raise AssertionError("fetched")

    pair = Pair(2, 60, 1, 0, sampling="prioritised")
    pair.play(30)
    draw = pair.buffer.draw(4, 0.4)
    for needs in (lambda: pair.buffer.draw(4, 0.4), lambda: pair.play(1), pair.buffer.state):
        pair.buffer.learned(draw, Untouchable())
        with pytest.raises(AssertionError, match="fetched"):
            needs()


def test_saving_changes_nothing_and_restoring_gives_the_same_tree():
    pairs = [Pair(2, 60, 2, 6, sampling="prioritised") for _ in range(2)]
    for index, pair in enumerate(pairs):
        for count in range(40):
            pair.play(2)
            if len(pair.buffer) > 4:
                draw = pair.buffer.draw(8, 0.4)
                pair.buffer.learned(draw, torch.arange(8.0) - count / 10)
            if index:
                pair.buffer = pair.reloaded_with_generator()
    one, other = (pair.buffer for pair in pairs)
    assert one.state()["highest"] == other.state()["highest"] > 1
    np.testing.assert_array_equal(one._priorities._tree._nodes, other._priorities._tree._nodes)  # bit for bit
    assert pairs_of(one.draw(32, 0.4)) == pairs_of(other.draw(32, 0.4))


def test_priorities_of_another_memory_are_refused():
    large, small = (make_buffer(capacity, 2, 1, sampling="prioritised") for capacity in (60, 40))
    with pytest.raises(ValueError, match=r"priorities of 68 slots, not 48"):
        small.restore(large.state())
    with pytest.raises(KeyError):
        small.restore({})


def test_an_exponent_of_zero_draws_all_alike():
    pair = Pair(2, 60, 1, 0)
    pair.play(40)
    priorities = Priorities(pair.buffer.ring, 1, exponent=0.0, epsilon=EPSILON)
    priorities.appended()
    draw = priorities.draw(4, 1.0, np.random.default_rng(0))
    priorities.learned(draw, torch.tensor([0.0, 1.0, 10.0, 100.0]))
    assert set(priorities.state()["leaves"].tolist()) == {0.0, 1.0}


# settings


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("priority_exponent", 1.5, "between 0 and 1"),
        ("priority_epsilon", 0.0, "above 0"),
        ("importance_exponent_start", -0.1, "between 0 and 1"),
        ("importance_exponent_end", math.nan, "between 0 and 1"),
    ],
)
def test_settings_out_of_range_are_told_in_one_line(field, value, wanted):
    config = TrainConfig(replay=dataclasses.replace(ReplayConfig(), **{field: value}))
    with pytest.raises(ConfigError, match=f"--replay.{field.replace('_', '-')} is {value}: must be {wanted}"):
        validate(config)
