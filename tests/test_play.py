"""A viewer's game, without a page."""

import os
import shutil
import threading

import cv2
import numpy as np
import pytest

from agents import write_agent, write_checkpoint
from pixelq.agent import load_agent
from pixelq.evaluation.players import RandomAgent
from pixelq.viewer.joystick import KEYS, joystick_action
from pixelq.viewer.newest import NewestAgent
from pixelq.viewer.play import LiveGame
from pixelq.viewer.saliency import gradient_saliency, occlusion_saliency

ATARI = ("NOOP", "FIRE", "RIGHT", "LEFT")
WORDS = ("UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPLEFT", "DOWNRIGHT", "DOWNLEFT")
SEAQUEST = ("NOOP", "FIRE", *WORDS, *(f"{word}FIRE" for word in WORDS))


# the joystick


@pytest.mark.parametrize(
    ("meanings", "keys", "meaning"),
    [
        (ATARI, "", "NOOP"),
        (ATARI, "left", "LEFT"),
        (ATARI, "left right", "NOOP"),
        (ATARI, "left right fire", "FIRE"),
        (ATARI, "left fire", "FIRE"),
        (ATARI, "up left", "LEFT"),
        (ATARI, "up", "NOOP"),
        (SEAQUEST, "up left fire", "UPLEFTFIRE"),
        (SEAQUEST, "down right", "DOWNRIGHT"),
        (SEAQUEST, "down up right", "RIGHT"),
        (("NOOP", "RIGHT", "LEFT"), "right fire", "RIGHT"),
        (("NOOP", "FIRE", "UP", "UPFIRE"), "up right fire", "UPFIRE"),
        (("NOOP", "UP", "DOWN"), "down left", "DOWN"),
    ],
)
def test_the_joystick_does_what_the_game_has(meanings, keys, meaning):
    assert meanings[joystick_action(meanings, set(keys.split()))] == meaning


def test_every_action_of_a_full_joystick_can_be_reached():
    reached = set()
    for bits in range(2 ** len(KEYS)):
        reached.add(joystick_action(SEAQUEST, {key for i, key in enumerate(KEYS) if bits >> i & 1}))
    assert reached == set(range(18))


# play


@pytest.fixture(scope="module")
def catcher(tmp_path_factory):
    return load_agent(write_agent(tmp_path_factory.mktemp("agents") / "catch.safetensors"))


@pytest.fixture(scope="module")
def breaker(tmp_path_factory):
    path = tmp_path_factory.mktemp("agents") / "breakout.safetensors"
    return load_agent(write_agent(path, "breakout", fire_after_life_loss=True))


@pytest.fixture
def game(catcher):
    game = LiveGame(catcher, 3)
    yield game
    game.close()


@pytest.fixture(scope="module")
def shared_breakout(breaker):
    game = LiveGame(breaker, 1)
    yield game
    game.close()


@pytest.fixture
def breakout(shared_breakout):
    shared_breakout.holder, shared_breakout.epsilon = "agent", 0.05
    return shared_breakout


def play(game, steps, keys=frozenset()):
    return [game.step(keys) for _ in range(steps)]


def play_out(game, keys=frozenset()):
    """The moments up to the end of the game at hand."""
    moments = [game.step(keys)]
    while not moments[-1].over:
        moments.append(game.step(keys))
    return moments


def same(one, other):
    """Whether two moments look the same."""
    return (
        (one.game, one.action, one.chooser, one.reward, one.lives, one.over)
        == (other.game, other.action, other.chooser, other.reward, other.lives, other.over)
        and np.array_equal(one.seen, other.seen)
        and np.array_equal(one.values, other.values)
        and len(one.pictures) == len(other.pictures)
        and all(map(np.array_equal, one.pictures, other.pictures))
    )


@pytest.mark.slow
def test_a_moment_is_a_view_a_choice_and_what_came_of_it(breakout, breaker):
    start = breakout.restart(1, 0.0)
    assert (start.action, start.chooser, start.game, start.over) == (None, None, 0, False)
    assert [picture.shape for picture in start.pictures] == [(210, 160, 3)]
    assert not start.seen[:3].any()
    assert start.seen[3].any()
    moments = play(breakout, 30)
    assert [moment.number for moment in moments] == [start.number + i for i in range(1, 31)]
    for before, moment in zip([start, *moments], moments, strict=False):
        assert [picture.shape for picture in moment.pictures] == [(210, 160, 3)] * 4
        np.testing.assert_array_equal(moment.values, breaker.q_values(moment.seen[None])[0])
        if before is not start:  # the view moves on by a plane a step
            np.testing.assert_array_equal(moment.seen[:3], before.seen[1:])
        if moment.chooser == "agent":
            assert moment.action == moment.values.argmax()
    assert moments[-1].trained == 1_000
    assert moments[0].lives == 5


@pytest.mark.slow
def test_the_pictures_are_those_of_the_planes(breakout):
    """The newest plane is the brighter of the last two frames before it, in grey and shrunk."""
    breakout.restart(5, 0.0)
    moments = play(breakout, 20, {"right"})
    shrunk = []
    for moment in moments:
        grey = np.maximum(*(picture @ np.array([0.299, 0.587, 0.114]) for picture in moment.pictures[-2:]))
        shrunk.append(cv2.resize(grey, (84, 84), interpolation=cv2.INTER_AREA))
    away = [[np.abs(moment.seen[3] - one).max() for one in shrunk] for moment in moments]
    assert all(away[index][index - 1] < 3 for index in range(1, 20))
    assert sum(away[index][index] > 20 for index in range(20)) >= 10  # what comes of the action is not seen yet


@pytest.mark.slow
def test_a_seed_gives_the_same_games(breakout):
    first = [breakout.restart(7, 0.25), *play(breakout, 60)]
    play(breakout, 5)
    again = [breakout.restart(7, 0.25), *play(breakout, 60)]
    assert all(map(same, first, again))
    other = [breakout.restart(8, 0.25), *play(breakout, 60)]
    assert not all(map(same, first, other))


def test_the_games_of_a_seed_go_on_and_differ(game):
    first, second = play_out(game), play_out(game)
    assert first[0].action is None
    assert second[0].action is None
    assert (first[-1].game, second[-1].game) == (0, 1)
    assert first[-1].scores["agent"].games == 0 + 1
    assert not all(map(np.array_equal, (m.seen for m in first), (m.seen for m in second)))
    game.restart(3, 0.0)
    assert all(map(same, first[1:], play(game, len(first) - 1)))
    assert all(map(same, second, play_out(game)))


@pytest.mark.slow
def test_two_atari_games_one_after_the_other(breakout):
    """The second one is seeded too, emulator and picture alike; else they would lose step."""
    breakout.restart(2, 0.0)
    breakout.holder = "person"
    fire = iter(range(10**6))
    moments = [breakout.step()]
    while not moments[-1].over:  # serves and lets the ball drop
        moments.append(breakout.step({"fire"} if next(fire) % 4 == 0 else set()))
    assert moments[-1].lives == 0
    start = breakout.step()
    assert (start.game, start.action, start.lives) == (1, None, 5)
    play(breakout, 40, {"fire", "left"})
    assert breakout.step().game == 1


def test_epsilon_one_is_chance_and_zero_is_the_agent(game):
    game.epsilon = 1.0
    actions = [moment.action for moment in play(game, 400) if moment.action is not None]
    shares = np.bincount(actions, minlength=3) / len(actions)
    assert shares == pytest.approx(np.full(3, 1 / 3), abs=0.1)
    game.epsilon = 0.0
    moments = [moment for moment in play(game, 100) if moment.action is not None]
    assert {moment.chooser for moment in moments} == {"agent"}
    assert all(moment.action == moment.values.argmax() for moment in moments)


@pytest.mark.slow
def test_epsilon_between_is_seen_now_and_then(game):
    game.epsilon = 0.3
    choosers = [moment.chooser for moment in play(game, 600) if moment.action is not None]
    # chance takes the agent's own action a third of the time
    assert choosers.count("chance") / len(choosers) == pytest.approx(0.2, abs=0.06)


@pytest.mark.slow
def test_sticky_actions_repeat_the_last_one(breakout):
    for sticky, moves in ((1.0, False), (0.0, True)):
        first = breakout.restart(1, sticky).pictures[0]
        breakout.holder = "person"
        last = play(breakout, 15, {"left"})[-1].pictures[-1]
        assert (not np.array_equal(first[189:193, 8:152], last[189:193, 8:152])) == moves  # where the paddle is


def test_an_agent_plays_as_it_was_trained(tmp_path):
    sticky = load_agent(write_agent(tmp_path / "a.safetensors", sticky=0.25))
    game = LiveGame(sticky, 1)
    assert game.sticky == 0.25
    assert LiveGame(sticky, 1, sticky=0.0).sticky == 0.0
    assert LiveGame(RandomAgent("catch"), 1).sticky == 0.0


@pytest.mark.slow
def test_the_conditions_are_named(breakout):
    breakout.restart(1, 0.25)
    breakout.epsilon = 0.3
    assert "ε 0.3" in breakout.conditions
    assert "sticky 0.25" in breakout.conditions
    assert "up to 30 no-ops" in breakout.conditions


# two at one joystick


def test_points_go_to_whoever_has_the_joystick(game):
    points = {"agent": 0.0, "person": 0.0}
    steps = {"agent": 0, "person": 0}
    play(game, 1)
    for turn in range(60):
        game.holder = "person" if turn // 7 % 2 else "agent"
        moment = game.step({"left"})
        assert moment.holder == game.holder
        assert (moment.chooser == "person") == (game.holder == "person")
        if game.holder == "person":
            assert moment.action == 2
        points[moment.holder] += moment.reward
        steps[moment.holder] += 1
        assert {side: score.points for side, score in moment.scores.items()} == points
        assert {side: score.steps for side, score in moment.scores.items()} == steps
        assert not moment.over
    assert any(points.values())


def test_whole_games_count_for_who_played_them_alone(game):
    lone = play_out(game)[-1]
    total = lone.scores["agent"].points
    assert lone.scores["agent"][2:] == (1, total, total)
    assert lone.scores["person"] == (0.0, 0, 0, None, None)
    start = game.step()
    assert start.scores["agent"] == (0.0, 0, 1, total, total)  # a new game, and what was done is kept
    game.holder = "person"
    mine = play_out(game, {"right"})[-1]
    assert mine.scores["person"][2:] == (1, mine.scores["person"].points, mine.scores["person"].points)
    play(game, 5)
    game.holder = "agent"
    mixed = play_out(game)[-1]
    assert mixed.scores["agent"][2:] == (1, total, total)
    assert mixed.scores["person"].games == 1


def test_the_best_and_the_last_of_several_games(game):
    game.epsilon = 1.0
    totals = []
    for _ in range(6):
        moment = play_out(game)[-1]
        totals.append(moment.scores["agent"].points)
        assert moment.scores["agent"][2:] == (len(totals), totals[-1], max(totals))
    assert len(set(totals)) > 1


def test_a_game_that_is_given_up_counts_for_nobody(game):
    play(game, 20)
    moment = game.restart(3, 0.0)
    assert moment.scores["agent"] == (0.0, 0, 0, None, None)
    assert moment.game == 0


def test_keys_are_the_agents_own_business(catcher):
    with_keys, without = LiveGame(catcher, 3), LiveGame(catcher, 3)
    assert all(map(same, play(with_keys, 30, {"left", "fire"}), play(without, 30)))


def lose_a_life(game):
    """Play as a person until a life is lost."""
    game.holder = "person"
    lives = 5
    for turn in range(400):
        moment = game.step({"fire"} if turn % 4 == 0 else set())
        if moment.lives < lives:
            return moment
    raise AssertionError("no life was lost")


@pytest.mark.slow
def test_the_agent_serves_after_a_life_that_a_person_lost(breakout):
    breakout.restart(2, 0.0)
    lose_a_life(breakout)
    play(breakout, 5)  # the person waits
    breakout.holder = "agent"
    moment = breakout.step()
    assert (moment.chooser, moment.action) == ("fire", 1)
    assert breakout.step().chooser != "fire"
    breakout.restart(2, 0.0)
    lose_a_life(breakout)
    play(breakout, 1, {"fire"})  # the person serves
    breakout.holder = "agent"
    assert breakout.step().chooser != "fire"


def test_chance_alone_plays_without_values():
    game = LiveGame(RandomAgent("catch"), 1)
    moments = play(game, 50)
    assert all(moment.values is None and moment.trained is None for moment in moments)
    assert {moment.chooser for moment in moments} == {None, "chance"}
    assert {moment.action for moment in moments[1:]} == {0, 1, 2}
    assert moments[0].pictures[0].shape == (84, 84, 3)
    assert game.saliency(moments[-1].number, "gradient") is None
    game.holder = "person"
    assert game.step({"left"}).action == 2


def test_saliency_is_that_of_the_moments_view(game, catcher):
    moments = play(game, 80)
    moment = moments[-10]
    for kind, compute in (("gradient", gradient_saliency), ("occlusion", occlusion_saliency)):
        expected = compute(catcher.network.q_values, moment.seen, catcher.device)
        assert expected.any()
        np.testing.assert_array_equal(game.saliency(moment.number, kind), expected)
    assert game.saliency(moments[0].number, "gradient") is None
    assert game.saliency(10**9, "gradient") is None


# the end


def threads():
    return len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else threading.active_count()


@pytest.mark.slow
def test_closing_stops_both_emulators():
    before = threads()
    game = LiveGame(RandomAgent("breakout"), 1)
    play(game, 3)
    assert threads() == before + 2
    game.restart(9, 0.25)
    assert threads() == before + 2
    game.close()
    game.close()
    assert threads() == before
    for call in (game.step, lambda: game.restart(1, 0.0)):
        with pytest.raises(RuntimeError, match="closed"):
            call()


# following a run


@pytest.mark.slow
def test_the_newest_checkpoint_takes_over(tmp_path):
    run = write_checkpoint(tmp_path / "run", 100)
    told = []
    newest = NewestAgent(run, load_agent(run), seconds=0, tell=told.append)
    game = LiveGame(newest(), 1)
    assert game.step().trained == 100
    assert newest() is newest()  # nothing is loaded in vain
    write_checkpoint(run, 200)
    game.player = newest()
    moment = game.step()
    assert moment.trained == 200
    np.testing.assert_array_equal(moment.values, load_agent(run).q_values(moment.seen[None])[0])
    assert told == []


def test_between_two_looks_the_run_is_left_alone(tmp_path):
    run = write_checkpoint(tmp_path / "run", 100)
    newest = NewestAgent(run, load_agent(run), seconds=3_600)
    first = newest()
    write_checkpoint(run, 200)
    assert newest() is first


def test_what_cannot_be_followed_is_told_once_and_the_agent_plays_on(tmp_path):
    run = write_checkpoint(tmp_path / "run", 100)
    told = []
    newest = NewestAgent(run, load_agent(run), seconds=0, tell=told.append)
    write_checkpoint(run, 200)
    (path,) = run.glob("checkpoints/step-*200/agent.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    assert [newest().card.step for _ in range(3)] == [100] * 3
    assert len(told) == 1
    assert "step-000000000200" in told[0]
    shutil.rmtree(run)
    assert [newest().card.step for _ in range(3)] == [100] * 3
    assert len(told) == 2
    write_checkpoint(run, 50, "breakout")
    assert newest().card.step == 100
    assert "breakout" in told[2]
    write_checkpoint(run, 60)
    assert newest().card.step == 60
