"""Rollouts: the memory and its minibatches, their returns, and what the loop puts into them, against naive loops."""

import dataclasses

import numpy as np
import pytest
import torch

from naive_rollouts import ACTIONS, ENV, FIRE, GAMMA, LAMBDA, Recorder, Table, make, naive_play, naive_returns
from pixelq.algos import pqn
from pixelq.config import EnvConfig, PQNConfig
from pixelq.envs.testing import decode
from pixelq.rollouts import Rollouts
from pixelq.training.rollout_loop import collect, learn
from pixelq.types import Rollout
from runs import tiny

CPU = torch.device("cpu")


def filled(steps, games, seed=0):
    """A rollout whose slots can be told apart: slot s shows s, and its action is s."""
    memory = Rollouts(steps, games, CPU, np.random.default_rng(seed))
    slots = np.arange(steps * games).reshape(steps, games)
    flags = np.random.default_rng(seed).random((3, steps, games)) < 0.2
    for t in range(steps):
        obs = np.broadcast_to(slots[t, :, None, None, None], (games, 4, 84, 84)).astype(np.uint8)
        values = (slots[t] / 4).astype(np.float32)
        rewards = (-slots[t]).astype(np.float32)
        memory.append(obs, values, slots[t], rewards, *flags[:, t])
    return memory, memory.rollout(np.full(games, 99.0, np.float32)), flags


def test_a_rollout_holds_the_steps_in_order():
    memory, rollout, flags = filled(5, 3)
    slots = torch.arange(15).reshape(5, 3)
    assert torch.equal(rollout.obs_tm1, slots[..., None, None, None].expand(5, 3, 4, 84, 84))
    assert torch.equal(rollout.a_tm1, slots)
    assert torch.equal(rollout.r_t, -slots.float())
    for found, wanted in zip((rollout.terminated_t, rollout.truncated_t, rollout.ignored_t), flags, strict=True):
        assert found.tolist() == wanted.tolist()
    # the value after a step is that of the observation before the next; after the last step that of the last one
    assert rollout.v_t.tolist() == [[(3 * t + n) / 4 for n in range(3)] for t in range(1, 5)] + [[99.0] * 3]
    kinds = [torch.uint8, torch.int64, torch.float32, torch.bool, torch.bool, torch.bool, torch.float32]
    assert [tensor.dtype for tensor in rollout] == kinds
    assert memory.describe() == "rollouts of 5 steps of 3 games, 0 MB"


def test_the_same_memory_is_used_again():
    memory, first, _ = filled(4, 2)
    kept = first.obs_tm1.clone()
    assert memory.full
    row = [np.full((2, 4, 84, 84), 200, np.uint8), np.full(2, 7, np.float32), np.full(2, 3), np.full(2, 5, np.float32)]
    row += [*np.ones((3, 2), np.bool_)]
    memory.append(*row)
    assert not memory.full
    assert (first.obs_tm1[0] == 200).all()
    assert torch.equal(first.obs_tm1[1:], kept[1:])
    for _ in range(3):
        memory.append(*row)
    assert memory.full
    second = memory.rollout(np.zeros(2, np.float32))
    assert second.obs_tm1.data_ptr() == first.obs_tm1.data_ptr()
    assert second.v_t.tolist() == [[7.0, 7.0]] * 3 + [[0.0, 0.0]]
    assert second.ignored_t.all()


@pytest.mark.parametrize("count", [1, 4, 7, 35])
def test_a_pass_takes_every_step_once_in_parts_as_equal_as_can_be(count):
    memory, rollout, (_, _, ignored) = filled(7, 5)
    returns = torch.arange(35.0).reshape(7, 5) / 8
    for _ in range(2):
        parts = list(memory.minibatches(rollout, returns, count))
        sizes = [len(part.a_tm1) for part in parts]
        assert len(sizes) == count
        assert max(sizes) - min(sizes) <= 1
        slots = torch.cat([part.a_tm1 for part in parts])
        assert sorted(slots.tolist()) == list(range(35))
        for part in parts:  # all that belongs to a step comes with it
            assert part.obs_tm1.shape == (len(part.a_tm1), 4, 84, 84)
            assert torch.equal(part.obs_tm1[:, 3, 83, 83].long(), part.a_tm1)
            assert torch.equal(part.return_t, part.a_tm1 / 8)
            assert part.weight.tolist() == [float(not ignored.flat[slot]) for slot in part.a_tm1.tolist()]
    assert ignored.any()


def order(memory, rollout):
    parts = memory.minibatches(rollout, torch.zeros(7, 5), 3)
    return torch.cat([part.a_tm1 for part in parts]).tolist()


@pytest.mark.slow
def test_the_order_is_random_and_the_generators_alone():
    orders = []
    for _ in range(2):
        memory, rollout, _ = filled(7, 5)
        orders.append([order(memory, rollout) for _ in range(3)])
    assert orders[0] == orders[1]
    assert len({tuple(one) for one in orders[0]}) == 3  # each pass has its own
    other, rollout, _ = filled(7, 5, seed=1)
    assert order(other, rollout) not in orders[0]
    # every step is as likely to come first as any other: chi-squared of 35 cells, 34 degrees, 0.1% beyond 65.2
    first = np.bincount([order(memory, rollout)[0] for _ in range(1_400)], minlength=35)
    assert np.square(first - 40).sum() / 40 < 65.2


def rollout_of(r_t, v_t, terminated=(), truncated=(), ignored=()):
    """A rollout without pixels; flags are given as places (t, n)."""
    r_t, v_t = torch.tensor(r_t), torch.tensor(v_t)
    flags = [torch.zeros(r_t.shape, dtype=torch.bool) for _ in range(3)]
    for flag, places in zip(flags, (terminated, truncated, ignored), strict=True):
        for place in places:
            flag[place] = True
    return Rollout(torch.zeros(*r_t.shape, 0), torch.zeros(r_t.shape).long(), r_t, *flags, v_t)


@pytest.mark.parametrize(
    ("trace_decay", "expected"),
    [
        # one step: r + v/2; terminated: r; truncated: r + v/2 of its own last observation
        (0.0, [[6.0, 12.0, 18.0, 24.0], [6.0, 2.0, None, 24.0], [6.0, 12.0, None, 24.0], [6.0, 12.0, 18.0, 4.0]]),
        # all rewards and the last value: 4 + 40/2, 3 + 24/2, 2 + 15/2, 1 + 9.5/2. Terminated at 1: 2, 1 + 2/2.
        # Truncated at 1: 2 + 20/2, 1 + 12/2. Terminated at the end: 4, 3 + 4/2, 2 + 5/2, 1 + 4.5/2
        (1.0, [[5.75, 9.5, 15.0, 24.0], [2.0, 2.0, None, 24.0], [7.0, 12.0, None, 24.0], [3.25, 4.5, 5.0, 4.0]]),
        # half of each, G = r + (v/2 + G'/2)/2: 24, 3 + (15 + 12)/2, 2 + (10 + 8.25)/2, 1 + (5 + 5.5625)/2.
        # Terminated: 2, 1 + (5 + 1)/2. Truncated: 12, 1 + (5 + 6)/2. At the end: 4, 3 + (15 + 2)/2, 2 + (10 + 5.75)/2,
        # 1 + (5 + 4.9375)/2
        (
            0.5,
            [
                [6.28125, 11.125, 16.5, 24.0],
                [4.0, 2.0, None, 24.0],
                [6.5, 12.0, None, 24.0],
                [5.96875, 9.875, 11.5, 4.0],
            ],
        ),
    ],
)
def test_returns_by_hand(trace_decay, expected):
    # games: one goes on, one terminates at step 1, one is truncated there, one terminates with the rollout; step 2 of
    # the second and third is ignored, and its reward and the values around it belong to nothing
    r_t = [[1.0] * 4, [2.0] * 4, [3.0, 777.0, 777.0, 3.0], [4.0] * 4]
    v_t = [[10.0] * 4, [20.0, 555.0, 20.0, 20.0], [30.0, 666.0, 666.0, 30.0], [40.0, 40.0, 40.0, 444.0]]
    rollout = rollout_of(r_t, v_t, [(1, 1), (3, 3)], [(1, 2)], [(2, 1), (2, 2)])
    returns = pqn.returns(PQNConfig(gamma=0.5, trace_decay=trace_decay), rollout)
    assert returns.shape == (4, 4)
    assert returns.dtype == torch.float32
    for game, wanted in enumerate(expected):
        found = [None if value is None else got for got, value in zip(returns[:, game].tolist(), wanted, strict=True)]
        assert found == wanted


@pytest.mark.parametrize("trace_decay", [0.0, 0.65, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_returns_equal_a_recursion_over_episodes(seed, trace_decay):
    rng = np.random.default_rng(seed)
    length, games = 30, 6
    r_t, v_t = rng.normal(size=(2, length, games)).astype(np.float32)
    ends = rng.random((2, length, games)) < 0.1
    # a lost life terminates as a game's end does, but no ignored step follows
    lost = rng.random((length, games)) < 0.1
    ignored = np.zeros((length, games), np.bool_)
    for t in range(1, length):
        ignored[t] = (ends[0, t - 1] | ends[1, t - 1]) & ~ignored[t - 1]
    terminated, truncated = (ends[0] | lost) & ~ignored, ends[1] & ~ignored
    flags = (np.argwhere(flag).tolist() for flag in (terminated, truncated, ignored))
    rollout = rollout_of(r_t.tolist(), v_t.tolist(), *([tuple(place) for place in flag] for flag in flags))
    returns = pqn.returns(PQNConfig(gamma=GAMMA, trace_decay=trace_decay), rollout)
    columns = (r_t.astype(np.float64), v_t.astype(np.float64), terminated, truncated, ignored)
    for n in range(games):
        steps = zip(*(column[:, n].tolist() for column in columns), strict=True)
        names = ("reward", "value", "terminated", "truncated", "ignored")
        history = [dict(zip(names, step, strict=True)) for step in steps]
        for found, wanted in zip(returns[:, n].tolist(), naive_returns(history, GAMMA, trace_decay), strict=True):
            assert wanted is None or found == pytest.approx(wanted, rel=1e-5, abs=1e-5)
    kinds = (ends[0] & ~ignored, lost & ~ignored, truncated & ~terminated, ignored)
    assert all(kind.any() for kind in kinds)


# ε falls from 1 to 0 over the 21 steps of six games that are played below
FALLING = {"start": 1.0, "end": 0.0, "decay_steps": 126, "random_steps": 0}
EPSILONS = [1 - 6 * k / 126 for k in range(21)]
ENVS = {
    "lives-end-episodes": (ENV, FIRE),
    "lives-do-not": (EnvConfig(life_loss_terminal=False), FIRE),
    "raw-rewards-no-fire": (EnvConfig(life_loss_terminal=True, rewards="raw"), None),
}


@pytest.mark.parametrize("kind", ENVS)
def test_what_is_collected_is_what_happened(kind):
    env, fire = ENVS[kind]
    parts = make(env, network=Table(), fire=fire, exploration=FALLING)
    histories, ended, last, lost = naive_play(env, EPSILONS, fire)
    sent, send = [], parts.envs.send
    parts.envs.send = lambda actions: sent.append(actions.copy()) or send(actions)
    found = []
    for start in (0, 7, 14):
        found += collect(parts, 7)
        assert parts.step == 6 * (start + 7)
        assert parts.memory.full
        rollout = parts.memory.rollout(parts.actor.q_values(parts.obs).max(axis=1))
        for n, history in enumerate(histories):
            for t, step in enumerate(history[start : start + 7]):
                np.testing.assert_array_equal(rollout.obs_tm1[t, n], step["obs"])
                assert rollout.a_tm1[t, n] == step["action"] == sent[start + t][n]
                assert rollout.r_t[t, n] == step["reward"]
                assert rollout.terminated_t[t, n] == step["terminated"]
                assert rollout.truncated_t[t, n] == step["truncated"]
                assert rollout.ignored_t[t, n] == step["ignored"]
                assert rollout.v_t[t, n] == step["value"]
    assert found == ended
    np.testing.assert_array_equal(parts.obs, last.obs)
    assert parts.life_lost.tolist() == lost


def test_the_scripted_games_have_what_tells_mistakes_apart():
    histories, ended, *_ = naive_play(ENV, EPSILONS)
    every = [step for history in histories for step in history]
    assert {episode.unit for episode in ended} == {"game", "life"}
    assert {step["raw"] for step in every} == {-2.0, -1.0, 0.0, 1.0, 2.0}
    assert {step["action"] for step in every} == set(range(ACTIONS))
    assert histories[1][6]["truncated"]  # with a rollout, so that the next begins with an ignored step
    assert histories[1][7]["ignored"]
    assert histories[4][6]["lost"]  # so that the next begins with FIRE
    assert histories[4][7]["action"] == FIRE
    unfired = naive_play(ENV, EPSILONS, None)[0]
    assert unfired[4][7]["action"] != FIRE
    assert not any(step["ignored"] for step in histories[5])


@pytest.mark.parametrize("kind", ENVS)
def test_every_step_is_learned_with_its_return(kind):
    env, fire = ENVS[kind]
    parts = make(env, network=Table(), fire=fire, exploration=FALLING)
    histories, *_ = naive_play(env, EPSILONS, fire)
    for start in (0, 7, 14):
        collect(parts, 7)
        parts.learner = parts.engine = Recorder()
        learn(parts, parts.config.algo)
        assert len(parts.learner.batches) == 8  # 2 epochs of 4
        expected = {}
        for history in histories:
            steps = history[start : start + 7]
            for step, wanted in zip(steps, naive_returns(steps, GAMMA, LAMBDA), strict=True):
                expected[tuple(decode(step["obs"][-1]))] = (step["action"], wanted)
        assert len(expected) == 42  # no two show the same
        for epoch in (slice(0, 4), slice(4, 8)):
            seen = set()
            for batch in parts.learner.batches[epoch]:
                assert len(batch.a_tm1) in (10, 11)
                for says, action, return_t, weight in zip(
                    decode(batch.obs_tm1.numpy()[:, -1]), batch.a_tm1, batch.return_t, batch.weight, strict=True
                ):
                    seen.add(tuple(says))
                    wanted_action, wanted = expected[tuple(says)]
                    assert action == wanted_action
                    assert weight == (wanted is not None)
                    assert wanted is None or return_t.item() == pytest.approx(wanted, rel=1e-5, abs=1e-5)
            assert seen == set(expected)


def weights_after(change):
    """The learner's weights after a round on a rollout that was changed."""
    parts = make(network=Table())
    collect(parts, 7)
    change(parts.memory.rollout(np.zeros(6, np.float32)))
    learn(parts, parts.config.algo)
    assert parts.learner.updates == 8
    return {name: tensor.clone() for name, tensor in parts.learner.weights().items()}


def test_ignored_steps_teach_nothing():
    def change(rollout, where):
        assert where.any()
        rollout.obs_tm1[where] = 255 - rollout.obs_tm1[where]
        rollout.a_tm1[where] = (rollout.a_tm1[where] + 1) % ACTIONS
        rollout.r_t[where] += 1_000.0  # neither this step's return nor, through it, any other's

    plain = weights_after(lambda rollout: None)
    ignored = weights_after(lambda rollout: change(rollout, rollout.ignored_t.clone()))
    assert all(torch.equal(plain[name], ignored[name]) for name in plain)
    first = torch.zeros(7, 6, dtype=torch.bool)
    first[0, 5] = True
    heeded = weights_after(lambda rollout: change(rollout, first))
    assert not any(torch.equal(plain[name], heeded[name]) for name in plain)


def test_the_learning_rate_is_that_of_the_steps_done():
    falling = dataclasses.replace(tiny("pqn").optimiser, learning_rate=1e-3, learning_rate_end=2e-4)
    parts = make(network=Table(), optimiser=falling, total_steps=420)
    rates = []
    for _ in range(11):
        collect(parts, 7)
        parts.learner = parts.engine = Recorder()
        learn(parts, parts.config.algo)
        assert len(set(parts.learner.rates)) == 1
        rates += parts.learner.rates[:1]
    # 42 of 420 steps a round, 0.08e-3 each; none beyond the end
    assert rates == pytest.approx([1e-3 - 0.08e-3 * k for k in range(1, 11)] + [2e-4])


def test_actions_and_values_are_of_the_network_as_it_is():
    parts = make(fire=None, exploration={"start": 0.0, "end": 0.0, "decay_steps": 0, "random_steps": 0})
    for _ in range(2):
        collect(parts, 7)
        rollout = parts.memory.rollout(parts.actor.q_values(parts.obs).max(axis=1))
        with torch.no_grad():
            values = parts.learner.online.q_values(rollout.obs_tm1.flatten(0, 1)).unflatten(0, (7, 6))
        torch.testing.assert_close(rollout.v_t[:-1], values.amax(dim=2)[1:])
        assert torch.equal(rollout.a_tm1, values.argmax(dim=2))
        before = parts.learner.weights()["head.output.weight"].clone()
        learn(parts, parts.config.algo)
        assert not torch.equal(before, parts.learner.weights()["head.output.weight"])
