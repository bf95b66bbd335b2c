"""Every preset on the real game: it learns, a kill without warning changes nothing, its agent is evaluated and seen."""

import dataclasses
import math
import multiprocessing
import os
import signal

import pytest

from pixelq.agent import load_agent
from pixelq.config import IQNConfig, PQNConfig
from pixelq.evaluation import PROTOCOLS
from pixelq.evaluation.evaluate import evaluate
from pixelq.evaluation.record import record
from pixelq.presets import PRESETS, preset
from pixelq.training.run import resume
from runs import Watch, assert_same_run, go, metrics, tiny

STEPS = 1_200
KILLED_AT = 1_000  # checkpoints are at 800 and 1,200, and the replay buffer has wrapped before both

pytestmark = pytest.mark.slow


class Killed(BaseException):
    """Ends a run as SIGKILL does: nothing is saved on the way out."""


def breakout(name):
    """A preset cut down so that learning begins early and its steps take seconds."""
    fields = {"game": "breakout", "envs": 4, "total_steps": STEPS}
    algo = preset(name).algo
    if isinstance(algo, PQNConfig):
        return tiny(name, **fields)
    if isinstance(algo, IQNConfig):
        fields["algo"] = dataclasses.replace(algo, quantiles=8, target_quantiles=8, policy_quantiles=8)
    config = tiny(name, **fields)
    period = 32 if config.network.torso == "impala" else 8
    return dataclasses.replace(config, replay=dataclasses.replace(config.replay, batch_size=16, train_period=period))


def raise_killed(line):
    if line["step"] == KILLED_AT:
        raise Killed


def kill_process(line):
    if line["step"] == KILLED_AT:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module", params=PRESETS)
def whole(request, tmp_path_factory):
    """A run that nothing happened to, one for all tests of a preset."""
    run = tmp_path_factory.mktemp(request.param) / "run"
    go(breakout(request.param), run)
    return run, request.param


def test_it_learns(whole):
    run, _ = whole
    lines = metrics(run)
    assert [line["step"] for line in lines] == list(range(200, STEPS + 1, 200))
    for line in lines:
        assert math.isfinite(line["q/mean"])
        assert 0 < line["loss/td"] < math.inf or line["step"] == 200
    assert lines[-1]["lives"] > 0


def test_a_kill_changes_nothing(whole, tmp_path):
    run, name = whole
    config = breakout(name)
    with pytest.raises(Killed):
        go(config, tmp_path / "killed", raise_killed)
    go_on(tmp_path / "killed", config)
    assert_same_run(run, tmp_path / "killed")


@pytest.mark.parametrize("whole", ["c51", "pqn"], indirect=True)
def test_sigkill_changes_nothing(whole, tmp_path):
    run, name = whole
    config = breakout(name)
    # a fresh process: a fork of one with torch threads may hang
    process = multiprocessing.get_context("spawn").Process(target=go, args=(config, tmp_path / "killed", kill_process))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    go_on(tmp_path / "killed", config)
    assert_same_run(run, tmp_path / "killed")


def go_on(run, config):
    """Resume from the checkpoint before the kill, to the end."""
    assert metrics(run)[-1]["step"] == KILLED_AT
    watch = Watch(config)
    assert resume(run, progress=watch).step == STEPS
    assert any("resumed at step 800," in note for note in watch.notes)


def test_its_agent_plays(whole, tmp_path):
    run, name = whole
    agent = load_agent(run)
    assert (agent.game, agent.card.preset, agent.card.step) == ("breakout", name, STEPS)
    short = dataclasses.replace(PROTOCOLS["nature"], max_frames=200)
    played = evaluate(agent, short, episodes=2, threads=1)
    assert played.episodes == 2
    assert 0 < played.frames <= 2 * 200
    assert all(score >= 0 for score in played.scores)
    made = record(agent, tmp_path / "game.mp4", max_frames=120)
    assert made.path.stat().st_size > 0
    assert 60 < made.frames <= 130
