"""Whole runs on rollouts: ticks and checkpoints between rollouts, and at which of them learning diverged."""

import dataclasses
import re

import pytest
import torch

from pixelq.agent import load_agent
from pixelq.engines.plain import PlainEngine
from pixelq.training.parts import begin, make_parts, resolve
from pixelq.training.progress import PlainProgress
from pixelq.training.rollout_loop import rollout_loop
from pixelq.training.saving import DivergedError
from pixelq.training.session import Session
from pixelq.training.stopping import Stop
from runs import go, metrics, tiny

ROLLOUT = 40  # steps of a tiny run: 5 of 8 games each


class Notes:
    """Stands for what surrounds a session: notes what it is asked for."""

    def __init__(self):
        self.asked, self.stop = [], Stop()

    def write_metrics(self, record):
        self.asked.append(("line", record["step"]))

    def check_learner(self):
        self.asked.append("check")

    def save(self, last):
        self.asked.append("last" if last else "save")

    def after_episodes(self, parts, episodes):
        self.asked.append(("episodes", episodes))

    def final(self, parts, episodes):
        """No video."""


def make_session(**fields):
    config = tiny("pqn", **fields)
    parts, notes = make_parts(resolve(config)), Notes()
    begin(parts)
    return parts, notes, Session(parts, notes, notes, PlainProgress(config), notes.stop)


def test_nothing_is_left_of_a_run_that_ends_beyond_its_last_step(capsys):
    figures = dict.fromkeys(("train/return_per_game", "train/return_per_life", "train/epsilon", "loss/td", "q/mean"))
    show = PlainProgress(tiny("pqn", total_steps=150))
    show.metrics({"step": 160, "perf/steps_per_second": 0.5, **figures, "loss/td": 0.1})  # the rollout that passed 150
    assert "ETA 0:00:00" in capsys.readouterr().out
    show.metrics({"step": 50, "perf/steps_per_second": 0.5, **figures})  # before the first update, at another speed
    assert "ETA –" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("step", "asked"),
    [
        (99, ["save"]),  # 60
        (100, [("line", 100), "check"]),  # 100 itself; 60 was the step before
        (101, [("line", 101), "check"]),
        (139, [("line", 139), "check", "save"]),  # 100 and 120
        (140, ["save"]),
        (160, []),
        (220, [("line", 220), "check"]),  # 200
        (221, [("line", 221), "check"]),
    ],
)
def test_a_rollout_is_told_and_saved_if_a_multiple_lies_within_it(step, asked):
    parts, notes, session = make_session(log_every_steps=100, checkpoint_every_steps=60)
    parts.step = step
    session.after_steps(ROLLOUT, [])
    assert notes.asked == asked


def test_several_ticks_within_a_rollout_are_one():
    parts, notes, session = make_session(log_every_steps=7, checkpoint_every_steps=3)
    for _ in range(2):
        parts.step += ROLLOUT
        session.after_steps(ROLLOUT, [])
    assert notes.asked == [("line", 40), "check", "save", ("line", 80), "check", "save"]


def test_a_run_writes_and_saves_between_rollouts(tmp_path):
    config = tiny("pqn", total_steps=190, log_every_steps=16, checkpoint_every_steps=60, keep_checkpoints=9)
    result, _ = go(config, tmp_path / "run")
    lines = metrics(tmp_path / "run")
    assert result.step == 200  # the last rollout is played to its end
    assert [line["step"] for line in lines] == [40, 80, 120, 160, 200]
    assert all(line["loss/td"] is not None for line in lines)  # what was played is learned before it is told
    saved = sorted(path.name for path in (tmp_path / "run/checkpoints").glob("step-*"))
    # 60 lies in the rollout that ends at 80, 120 in that at 120, 180 in the last; 0 and the end are always saved
    assert saved == [f"step-{step:012}" for step in (0, 80, 120, 200)]
    assert load_agent(tmp_path / "run").card.step == 200


def test_the_loop_is_over_at_once_when_there_is_nothing_to_do():
    parts, notes, session = make_session()
    notes.stop.ask()
    rollout_loop(parts, session)
    assert (parts.step, parts.learner.updates, notes.asked) == (0, 0, [])


def test_the_loop_ends_with_the_rollout_in_which_it_is_told_to():
    parts, notes, session = make_session(total_steps=10_000, log_every_steps=100)
    notes.write_metrics = lambda record: notes.stop.ask()
    rollout_loop(parts, session)
    assert parts.step == 120  # the tick at 100 is written there
    assert parts.learner.updates == 3 * 4  # 2 epochs of 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoiled", "update", "step"),
    [
        (1, 2, 40),  # the first rollout's second update
        (3, 4, 40),  # its last
        (4, 5, 80),  # the second rollout's first
        (11, 12, 120),
        (12, 13, 160),
        (19, 20, 200),  # the last before it is noticed, at the tick of 200
    ],
)
def test_divergence_is_told_with_the_rollout_it_was_learned_from(tmp_path, monkeypatch, spoiled, update, step):
    # after so many updates all weights are NaN, so that the next one's loss is
    scale = PlainEngine._scale

    def spoil(engine, gradients, factors):
        scale(engine, gradients, factors)
        if engine.learner.updates == spoiled:
            for gradient in gradients:
                gradient.fill_(torch.nan)

    monkeypatch.setattr(PlainEngine, "_scale", spoil)
    run = tmp_path / "run"
    with pytest.raises(DivergedError) as caught:
        go(tiny("pqn", total_steps=400), run)
    number = r"-?[\d.]+(e-\d+)?"
    figures = r"loss {0}, gradient norm {0}, Q {0} to {0}, returns {1} to {1}"
    returns = "nan" if spoiled % 4 == 0 else number  # a rollout begun with such weights has no number at all
    expected = (
        rf"learning diverged at step {step}, update {update}; its batch: {figures.format('nan', returns)}; "
        rf"the update before: {figures.format(number, number)}; "
        rf"training stops, the last good checkpoint is {run}/checkpoints/step-000000000000; a new run .*"
    )
    assert re.fullmatch(expected, str(caught.value))


def test_weights_spoiled_by_the_last_update_are_told_as_its_own(tmp_path, monkeypatch):
    # the loss was a number; that the weights are none is seen before the checkpoint at 80
    scale = PlainEngine._scale

    def spoil(engine, gradients, factors):
        scale(engine, gradients, factors)
        if engine.learner.updates == 7:
            gradients[0].fill_(torch.nan)

    monkeypatch.setattr(PlainEngine, "_scale", spoil)
    config = dataclasses.replace(tiny("pqn"), checkpoint_every_steps=80)
    with pytest.raises(DivergedError, match=r"diverged at step 80, update 8; .* checkpoint is .*step-000000000000;"):
        go(config, tmp_path / "run")
