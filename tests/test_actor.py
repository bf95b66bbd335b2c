"""The actor: its exploration, its random numbers, and FIRE after a lost life."""

import numpy as np
import pytest
import torch
from scipy import stats

from pixelq.actor import Actor, greedy_actions
from pixelq.config import NetworkConfig
from pixelq.engines.plain import PlainActing
from pixelq.engines.recorded import RecordedActing
from pixelq.networks import make_network
from pixelq.run.seeding import generator_state

CPU = torch.device("cpu")
ACTIONS = 4


class Table:
    """Stands for a network: the values are the first pixels of the newest plane."""

    def __init__(self, actions=ACTIONS):
        self.actions = actions
        self.calls = 0

    def q_values(self, obs):
        assert obs.dtype == torch.uint8
        assert not torch.is_grad_enabled()
        self.calls += 1
        return obs[:, -1, 0, : self.actions].float()

    def redraw_noise(self, generator):
        """There is none."""


def observations(values):
    """Observations for which `Table` gives these values, [N, A] to [N, 4, 84, 84]."""
    values = np.asarray(values, np.uint8)
    obs = np.zeros((len(values), 4, 84, 84), np.uint8)
    obs[:, -1, 0, : values.shape[1]] = values
    return obs


def make_actor(network=None, fire=None, seed=0, acting=PlainActing):
    noise = torch.Generator().manual_seed(seed)
    return Actor(acting(network or Table(), CPU, noise), ACTIONS, fire, np.random.default_rng(seed))


def always(action, games):
    return observations(np.eye(ACTIONS, dtype=np.uint8)[[action] * games])


def no_life_lost(games):
    return np.zeros(games, np.bool_)


def test_greedy_actions_are_those_of_the_network():
    network = make_network(NetworkConfig(channels=(2, 3, 4), hidden=8), 6, torch.Generator().manual_seed(0))
    obs = np.random.default_rng(0).integers(0, 256, (64, 4, 84, 84), dtype=np.uint8)
    with torch.no_grad():  # so that no action is the best everywhere
        network.head.output.bias -= network.q_values(torch.from_numpy(obs)).mean(dim=0)
    actions = greedy_actions(network, obs, CPU)
    assert actions.dtype == np.int64
    expected = network.q_values(torch.from_numpy(obs)).detach().numpy().argmax(axis=1)
    np.testing.assert_array_equal(actions, expected)
    assert len(set(actions.tolist())) > 1


def test_without_epsilon_it_is_greedy():
    values = np.random.default_rng(1).permuted(np.tile(np.arange(ACTIONS), (200, 1)), axis=1)
    actions = make_actor().act(observations(values), 0.0, no_life_lost(200))
    assert actions.dtype == np.int64
    np.testing.assert_array_equal(actions, values.argmax(axis=1))


def test_ties_go_to_the_first():
    values = [[7, 7, 7, 7], [0, 0, 0, 0], [1, 9, 9, 1], [1, 2, 1, 2]]
    assert make_actor().act(observations(values), 0.0, no_life_lost(4)).tolist() == [0, 0, 1, 1]


def draw(actor, epsilon, times, games=50, action=2):
    obs = always(action, games)
    return np.concatenate([actor.act(obs, epsilon, no_life_lost(games)) for _ in range(times)])


def test_with_epsilon_one_it_is_uniform_and_asks_no_network():
    table = Table()
    actions = draw(make_actor(table), 1.0, 400)
    counts = np.bincount(actions, minlength=ACTIONS)
    assert counts.sum() == 20_000
    assert stats.chisquare(counts).pvalue > 0.001
    assert table.calls == 0


def test_random_actions_are_independent_of_game_and_time():
    obs = always(0, 3)
    actor = make_actor(seed=2)
    drawn = np.array([actor.act(obs, 1.0, no_life_lost(3)) for _ in range(6_000)])
    pairs = [(drawn[:, 0], drawn[:, 1]), (drawn[:, 1], drawn[:, 2]), (drawn[:-1, 0], drawn[1:, 0])]
    for one, other in pairs:
        table = np.bincount(one * ACTIONS + other, minlength=ACTIONS**2).reshape(ACTIONS, ACTIONS)
        assert stats.chi2_contingency(table).pvalue > 0.001


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.5, 0.9])
def test_epsilon_is_the_share_of_random_actions(epsilon):
    actions = draw(make_actor(seed=3), epsilon, 400, action=2)
    # a random action is the greedy one a quarter of the time
    shares = np.full(ACTIONS, epsilon / ACTIONS)
    shares[2] += 1 - epsilon
    counts = np.bincount(actions, minlength=ACTIONS)
    assert stats.chisquare(counts, shares * len(actions)).pvalue > 0.001


def test_each_game_explores_by_itself():
    # within one call some games explore and others do not
    obs = always(2, 1_000)
    actions = make_actor(seed=4).act(obs, 0.5, no_life_lost(1_000))
    assert 300 < (actions != 2).sum() < 450  # 375 expected


def test_fire_after_a_lost_life_whatever_else():
    obs = always(2, 5)
    life_lost = np.array([True, False, True, False, False])
    actions = make_actor(fire=1).act(obs, 0.0, life_lost)
    assert actions.tolist() == [1, 2, 1, 2, 2]
    for seed in range(20):
        assert make_actor(fire=1, seed=seed).act(obs, 1.0, life_lost)[[0, 2]].tolist() == [1, 1]


def test_fire_is_the_index_it_was_given():
    obs = always(2, 2)
    assert make_actor(fire=3).act(obs, 0.0, np.array([False, True])).tolist() == [2, 3]
    assert make_actor(fire=0).act(obs, 0.0, np.array([False, True])).tolist() == [2, 0]


def test_without_fire_a_lost_life_changes_nothing():
    obs = always(2, 50)
    lost = np.ones(50, np.bool_)
    one, other = make_actor(seed=5), make_actor(seed=5)
    for _ in range(20):
        np.testing.assert_array_equal(one.act(obs, 0.3, lost), other.act(obs, 0.3, ~lost))


def test_chance_is_drawn_alike_whatever_happens():
    # so that a run's random stream is a matter of steps alone
    states = set()
    for epsilon in (0.0, 0.2, 1.0):
        for action in (0, 3):
            for fire, lost in ((None, False), (1, True)):
                actor = make_actor(fire=fire, seed=6)
                for _ in range(7):
                    actor.act(always(action, 3), epsilon, np.full(3, lost))
                states.add(str(generator_state(actor.generator)))
    assert len(states) == 1


def test_random_actions_do_not_depend_on_the_network():
    one, other = make_actor(seed=7), make_actor(seed=7)
    for _ in range(50):
        first = one.act(always(0, 20), 0.5, no_life_lost(20))
        second = other.act(always(3, 20), 0.5, no_life_lost(20))
        # where both differ from their greedy action both explored, and drew the same
        explored = (first != 0) & (second != 3)
        np.testing.assert_array_equal(first[explored], second[explored])
        # and wherever one was greedy the other was, or drew that very action
        assert set(zip(first[~explored].tolist(), second[~explored].tolist(), strict=True)) <= {(0, 3), (0, 0), (3, 3)}


def test_the_same_generator_gives_the_same_actions():
    for games in (1, 8):
        one, other = make_actor(seed=8), make_actor(seed=8)
        np.testing.assert_array_equal(draw(one, 0.5, 30, games), draw(other, 0.5, 30, games))


def test_observations_are_left_as_they_were():
    obs = always(1, 3)
    before = obs.copy()
    make_actor(fire=1).act(obs, 0.5, np.array([True, False, True]))
    np.testing.assert_array_equal(obs, before)


def test_values_from_memory_that_stays_are_the_same_values():
    """As a GPU records them, for two numbers of games by turns."""
    network = make_network(NetworkConfig(channels=(2, 3, 4), hidden=8), ACTIONS, torch.Generator().manual_seed(0))
    plain = make_actor(network)
    recorded = make_actor(network, acting=lambda *given: RecordedActing(*given, record=True))
    recorded._acting._forward._records = True
    rng = np.random.default_rng(0)
    for games in (5, 5, 1, 5, 1):
        obs = rng.integers(0, 256, (games, 4, 84, 84), dtype=np.uint8)
        np.testing.assert_array_equal(recorded.q_values(obs), plain.q_values(obs))


@pytest.mark.gpu
def test_a_gpu_records_the_forward_pass_and_sees_new_weights():
    device = torch.device("cuda")
    network = make_network(NetworkConfig(channels=(2, 3, 4), hidden=8), ACTIONS, torch.Generator().manual_seed(0))
    network.to(device)
    noise = torch.Generator(device).manual_seed(0)
    actor = Actor(RecordedActing(network, device, noise, record=True), ACTIONS, None, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    for call in range(8):
        obs = rng.integers(0, 256, (5, 4, 84, 84), dtype=np.uint8)
        with torch.no_grad():
            network.head.output.bias += call
            expected = network.q_values(torch.from_numpy(obs).to(device)).cpu().numpy()
        np.testing.assert_allclose(actor.q_values(obs), expected, rtol=1e-3, atol=1e-3)
