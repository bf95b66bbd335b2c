"""Schedules at their ends, and ε of every preset against the loops of its source."""

import pytest

from pixelq.actor import epsilon_at
from pixelq.config import ExplorationConfig
from pixelq.presets import PRESETS, preset
from pixelq.schedules import exponential, linear

AROUND = [
    *(0, 1, 2, 3, 1_000),
    *range(49_990, 50_011),
    *(79_999, 80_000, 500_000, 949_999, 950_000),
    *range(999_990, 1_000_011),
    *(1_049_998, 1_049_999, 1_050_000, 1_050_001, 1_060_000),
]
"""Steps done, where something begins or ends in one recipe or the other."""


def test_linear_by_hand():
    # from 3 to 1 over 4 steps that begin after step 10: one half a step
    values = [linear(step, 3.0, 1.0, 4, 10) for step in (0, 9, 10, 11, 12, 13, 14, 15, 10**9)]
    assert values == [3.0, 3.0, 3.0, 2.5, 2.0, 1.5, 1.0, 1.0, 1.0]


def test_linear_rises_too():
    assert [linear(step, 0.4, 1.0, 3) for step in (0, 3, 4)] == [0.4, 1.0, 1.0]
    assert linear(1, 0.4, 1.0, 3) == pytest.approx(0.6)


@pytest.mark.parametrize(("start", "end"), [(1.0, 0.1), (1.0, 0.01), (0.1, 0.7)])
def test_linear_ends_are_exact(start, end):
    for duration in (1, 3, 7, 1_000_000):
        assert linear(0, start, end, duration) == start
        assert linear(duration, start, end, duration) == end
        low, high = sorted((start, end))
        assert all(low <= linear(step, start, end, duration) <= high for step in (1, duration // 2, duration - 1))


def test_a_slope_of_no_length_is_a_jump():
    assert [linear(step, 1.0, 0.1, 0, 5) for step in (4, 5, 6)] == [1.0, 0.1, 0.1]
    assert linear(0, 1.0, 0.1, 0) == 0.1


def notebook_epsilons(last):
    """The notebook's loop without its games: the probability of a random action at its frames 1, 2, …"""
    epsilon = 1.0
    epsilon_min = 0.1
    epsilon_max = 1.0
    epsilon_interval = epsilon_max - epsilon_min
    epsilon_random_frames = 50000
    epsilon_greedy_frames = 1000000.0
    frame_count = 0
    while frame_count < last:
        frame_count += 1
        # `if frame_count < epsilon_random_frames or epsilon > np.random.rand(1)[0]:`
        yield 1.0 if frame_count < epsilon_random_frames else epsilon
        epsilon -= epsilon_interval / epsilon_greedy_frames
        epsilon = max(epsilon, epsilon_min)


def nature_epsilons(last):
    """The loop of Mnih et al.'s program: `ep_endt` 1,000,000, `learn_start` 50,000; numSteps counts steps done."""
    for num_steps in range(last):
        left = 1_000_000 - max(0, num_steps - 50_000)
        yield 0.1 + max(0.0, (1.0 - 0.1) * left / 1_000_000)


def cleanrl_epsilons(last):
    """CleanRL's `linear_schedule(1, 0.01, 0.10 · 10,000,000, global_step)`."""
    slope = (0.01 - 1) / (0.10 * 10_000_000)
    for global_step in range(last):
        yield max(slope * global_step + 1, 0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "source"),
    [("keras-example", notebook_epsilons), ("nature-dqn", nature_epsilons), ("cleanrl-dqn", cleanrl_epsilons)],
)
def test_epsilon_is_that_of_the_source(name, source):
    # the first action comes after 0 steps done, at the notebook's frame 1
    exploration = preset(name).exploration
    wanted = set(AROUND)
    for step, epsilon in enumerate(source(max(AROUND) + 1)):
        if step in wanted:
            # the notebook subtracts a million times, which leaves rounding behind
            assert epsilon_at(exploration, step) == pytest.approx(epsilon, rel=0, abs=1e-9), step
            wanted.remove(step)
    assert not wanted


# of the presets whose sources are above only in part: some steps and their ε, worked out by hand
LIKE_NATURE = {0: 1.0, 50_000: 1.0, 550_000: 0.55, 1_050_000: 0.1}
TO_1_PERCENT = {0: 1.0, 50_000: 1.0, 550_000: 0.505, 1_050_000: 0.01}
BY_NOISE = {0: 1.0, 49_998: 1.0, 49_999: 0.0, 10**7: 0.0}
BY_HAND = {
    "fast": {0: 1.0, 9_999: 1.0, 10_000: 1.0, 60_000: 0.505, 110_000: 0.01, 600_000: 0.01},
    **dict.fromkeys(("double-dqn", "dueling-dqn", "prioritized-dqn", "n-step-dqn"), LIKE_NATURE),
    **dict.fromkeys(("c51", "qr-dqn", "iqn", "munchausen-dqn"), TO_1_PERCENT),
    "noisy-dqn": BY_NOISE,
    "rainbow": {0: 1.0, 19_998: 1.0, 19_999: 0.0, 10**7: 0.0},
    # 0.01 + 0.99 · exp(-1) and, twelve time constants on, 0.01 + 0.99 · exp(-12); off after half of the run
    "btr": {0: 1.0, 199_998: 1.0, 2_000_000: 0.3742006467597279, 24_000_000: 0.0100060827, 25_000_000: 0.0},
    "pqn": {0: 1.0, 2_500_000: 0.5005, 5_000_000: 0.001, 50_000_000: 0.001},
}


@pytest.mark.parametrize("name", BY_HAND)
def test_epsilon_by_hand(name):
    for step, epsilon in BY_HAND[name].items():
        assert epsilon_at(preset(name).exploration, step) == pytest.approx(epsilon, rel=0, abs=1e-9), step


def test_every_preset_has_its_source_here():
    assert set(PRESETS) == {"keras-example", "nature-dqn", "cleanrl-dqn"} | set(BY_HAND)


def test_exponential_at_its_ends():
    assert [exponential(step, 1.0, 0.1, 10, begin_step=5) for step in (0, 4, 5)] == [1.0, 1.0, 1.0]
    assert exponential(15, 1.0, 0.1, 10, begin_step=5) == pytest.approx(0.1 + 0.9 * 0.36787944117144233, abs=1e-15)
    assert exponential(10**6, 1.0, 0.1, 10) == pytest.approx(0.1, abs=1e-15)
    assert [exponential(step, 1.0, 0.1, 0, begin_step=5) for step in (4, 5)] == [1.0, 0.1]


def test_keras_example_by_hand():
    exploration = preset("keras-example").exploration
    # frame 49,999 is the last random one; at frame 50,000, 49,999 decrements of 0.9e-6 have been made
    assert epsilon_at(exploration, 49_998) == 1.0
    assert epsilon_at(exploration, 49_999) == pytest.approx(1 - 0.9e-6 * 49_999, abs=1e-12)
    assert epsilon_at(exploration, 50_000) == pytest.approx(0.955, abs=1e-12)
    assert epsilon_at(exploration, 500_000) == pytest.approx(0.55, abs=1e-12)
    assert epsilon_at(exploration, 999_999) == pytest.approx(0.1 + 0.9e-6, abs=1e-12)
    assert [epsilon_at(exploration, step) for step in (1_000_000, 1_000_001, 10**9)] == [0.1, 0.1, 0.1]


def test_nature_decays_from_fifty_thousand():
    exploration = preset("nature-dqn").exploration
    assert [epsilon_at(exploration, step) for step in (0, 49_999, 50_000)] == [1.0, 1.0, 1.0]
    assert epsilon_at(exploration, 50_001) == pytest.approx(1 - 0.9e-6, abs=1e-12)
    assert epsilon_at(exploration, 550_000) == pytest.approx(0.55, abs=1e-12)
    assert epsilon_at(exploration, 1_049_999) == pytest.approx(0.1 + 0.9e-6, abs=1e-12)
    assert epsilon_at(exploration, 1_050_000) == 0.1


def test_random_steps_win_over_any_slope():
    exploration = ExplorationConfig(start=0.5, end=0.0, decay_steps=2, random_steps=5)
    # steps 1 to 4 are random, which are chosen after 0 to 3 steps
    assert [epsilon_at(exploration, step) for step in range(6)] == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
