import math

import numpy as np
import pytest
from scipy.stats import bootstrap, trim_mean

from pixelq.evaluation.scores import REFERENCE, human_normalised, summarise, summarise_seeds
from pixelq.games import game_names


@pytest.mark.parametrize(
    ("game", "random", "human"),
    [
        ("alien", 227.8, 7127.7),
        ("amidar", 5.8, 1719.5),
        ("breakout", 1.7, 30.5),
        ("pong", -20.7, 14.6),
        ("ms_pacman", 307.3, 6951.6),
        ("space_invaders", 148.0, 1668.7),
        ("seaquest", 68.4, 42054.7),
        ("qbert", 163.9, 13455.0),
        ("montezuma_revenge", 0.0, 4753.3),
        ("skiing", -17098.1, -4336.9),
        ("private_eye", 24.9, 69571.3),
        ("double_dunk", -18.6, -16.4),
        ("video_pinball", 16256.9, 17667.9),
        ("zaxxon", 32.5, 9173.3),
    ],
)
def test_published_scores(game, random, human):
    assert REFERENCE[game] == (random, human)


def test_reference_table_covers_the_57_games_by_rom_name():
    assert len(REFERENCE) == 57
    assert set(REFERENCE) <= set(game_names())
    assert all(reference.human > reference.random for reference in REFERENCE.values())


def test_human_normalised():
    assert human_normalised("breakout", 1.7) == 0.0
    assert human_normalised("breakout", 30.5) == 1.0
    assert human_normalised("breakout", 401.2) == pytest.approx(399.5 / 28.8)
    assert human_normalised("pong", -38.35) == pytest.approx(-0.5)
    assert human_normalised("catch", 5.0) is None


@pytest.mark.parametrize(
    ("scores", "mean", "median", "iqm"),
    [
        ([5, 100, 1, 0, 4, 2, 6, 3], 15.125, 3.5, 3.5),  # two cut off at each end: (2 + 3 + 4 + 5) / 4
        ([9, 0, 1, 3, 2], 3.0, 2.0, 2.0),  # a quarter of five is one whole game
        ([0, 10, 2], 4.0, 2.0, 4.0),  # a quarter of three is none
        ([-1, 1], 0.0, 0.0, 0.0),
    ],
)
def test_summary_worked_out_by_hand(scores, mean, median, iqm):
    summary = summarise(scores)
    assert summary.mean == pytest.approx(mean)
    assert summary.median == pytest.approx(median)
    assert summary.iqm == pytest.approx(iqm)


def test_interval_of_two_games_is_both():
    # the resampled mean is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4
    assert summarise([0, 1]).ci95 == (0.0, 1.0)


def test_interval_is_scipys_and_the_normal_approximations():
    scores = np.arange(100.0)
    low, high = summarise(scores).ci95
    spread = 1.96 * scores.std() / 10
    assert low == pytest.approx(49.5 - spread, abs=0.3)
    assert high == pytest.approx(49.5 + spread, abs=0.3)
    theirs = bootstrap((scores,), np.mean, method="percentile", batch=1000).confidence_interval
    assert (low, high) == pytest.approx(tuple(theirs), abs=0.4)


def test_the_same_scores_give_the_same_summary_in_any_order():
    scores = np.random.default_rng(3).integers(0, 400, 30).tolist()
    assert summarise(scores) == summarise(scores) == summarise(sorted(scores))


@pytest.mark.parametrize("scores", [[7.0], [0.1] * 3, [-21.0] * 30])
def test_no_spread_no_interval(scores):
    summary = summarise(scores)
    assert summary == (scores[0], scores[0], scores[0], (scores[0], scores[0]))


@pytest.mark.parametrize("scores", [[], [1.0, math.nan], [math.inf]])
def test_scores_that_are_none_raise(scores):
    with pytest.raises(ValueError, match="finite"):
        summarise(scores)


def test_one_agent_is_summed_up_as_ever():
    scores = np.random.default_rng(4).integers(0, 400, 30).tolist()
    alone, seeds = summarise(scores), summarise_seeds([scores])
    assert (seeds.mean, seeds.mean_ci95, seeds.iqm) == (alone.mean, alone.ci95, alone.iqm)
    low, high = seeds.iqm_ci95
    assert low < seeds.iqm < high
    theirs = bootstrap((np.array(scores),), lambda x, axis: trim_mean(x, 0.25, axis=axis), method="percentile")
    assert (low, high) == pytest.approx(tuple(theirs.confidence_interval), abs=8)


def test_the_interval_of_several_agents_knows_of_the_seeds():
    # two agents that always score the same: the resampled mean is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4,
    # however many games there are; a bootstrap of the 200 games alone would say 0.43 to 0.57
    summary = summarise_seeds([[0.0] * 100, [1.0] * 100])
    assert (summary.mean, summary.mean_ci95) == (0.5, (0.0, 1.0))
    assert (summary.iqm, summary.iqm_ci95) == (0.5, (0.0, 1.0))


@pytest.mark.slow
def test_the_nested_bootstrap_has_the_variance_of_both_levels():
    generator = np.random.default_rng(5)
    agents = [generator.normal(centre, 2.0, 50) for centre in generator.normal(10.0, 3.0, 40)]
    low, high = summarise_seeds([agent.tolist() for agent in agents]).mean_ci95
    between = np.var([agent.mean() for agent in agents]) / 40
    within = np.mean([np.var(agent) for agent in agents]) / 50 / 40
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(between + within), rel=0.08)


def test_agents_may_have_played_different_numbers_of_games():
    # all games count alike: (0 + 3 + 6 + 7) / 4; the middle half is 3 and 6
    summary = summarise_seeds([[7.0], [0.0, 3.0, 6.0]])
    assert (summary.mean, summary.iqm) == (4.0, 4.5)
    assert summary == summarise_seeds([[7.0], [6.0, 0.0, 3.0]])
    assert summarise_seeds([[7.0], [7.0, 7.0]]) == (7.0, (7.0, 7.0), 7.0, (7.0, 7.0))


@pytest.mark.parametrize("scores", [[], [[]], [[1.0], []], [[math.nan]]])
def test_seeds_without_scores_raise(scores):
    with pytest.raises(ValueError, match="at least one"):
        summarise_seeds(scores)
