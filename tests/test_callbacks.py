"""Callbacks see a run, may end it, and never change it."""

import numpy as np
import pytest

import pixelq
from pixelq.agent import load_agent
from pixelq.errors import PixelqError
from pixelq.training.run import resume, train
from runs import Watch, assert_same_run, metrics, quick


class Diary(pixelq.Callback):
    """Writes down everything, and looks at the agent."""

    def __init__(self):
        self.hooks, self.steps, self.episodes, self.records, self.values = [], [], [], [], []

    def on_start(self, run):
        self.hooks.append(("start", run.step))
        assert dict(run.metrics) == {}

    def on_step(self, run):
        self.steps.append(run.step)

    def on_episode(self, run, episode):
        self.episodes.append(episode)

    def on_log(self, run):
        self.records.append(dict(run.metrics))
        self.values.append(run.agent.q_values(np.full((1, 4, 84, 84), 7, np.uint8)))
        with pytest.raises(TypeError):
            run.metrics["step"] = 0

    def on_checkpoint(self, run):
        self.hooks.append(("checkpoint", run.step))

    def on_end(self, run):
        self.hooks.append(("end", run.step, run.finished))


def go(config, run, *callbacks):
    return train(config, run, progress=Watch(config), callbacks=callbacks)


@pytest.mark.slow
def test_callbacks_see_everything_and_change_nothing(tmp_path):
    config = quick(total_steps=800)
    diary = Diary()
    go(config, tmp_path / "alone")
    go(config, tmp_path / "watched", diary)
    assert_same_run(tmp_path / "alone", tmp_path / "watched")
    assert diary.hooks == [("start", 0), ("checkpoint", 400), ("checkpoint", 800), ("end", 800, True)]
    assert diary.steps == list(range(config.envs, 801, config.envs))
    logged = [
        {key: value for key, value in record.items() if key in metrics(tmp_path / "watched")[0]}
        for record in diary.records
    ]
    assert logged == metrics(tmp_path / "watched")
    assert sum(episode.unit == "game" for episode in diary.episodes) == logged[-1]["games"]
    final = load_agent(tmp_path / "watched").q_values(np.full((1, 4, 84, 84), 7, np.uint8))
    np.testing.assert_array_equal(diary.values[-1], final)
    assert not np.array_equal(diary.values[0], final)  # the copy was not the live network


class StopAt:
    """Not a subclass: any object with a hook will do."""

    def __init__(self, step):
        self.step = step

    def on_log(self, run):
        if run.step >= self.step:
            run.stop()


@pytest.mark.slow
def test_a_callback_can_stop_a_run_that_goes_on_later(tmp_path):
    config = quick(total_steps=800)
    go(config, tmp_path / "whole")
    result = go(config, tmp_path / "parts", StopAt(400))
    assert (result.step, result.interrupted) == (400, True)
    diary = Diary()
    result = resume(tmp_path / "parts", progress=Watch(config), callbacks=[diary])
    assert (result.step, result.interrupted) == (800, False)
    assert diary.hooks[0] == ("start", 400)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_rollout_runs_call_them_too(tmp_path):
    from runs import tiny

    diary = Diary()
    go(tiny("pqn", total_steps=400), tmp_path / "run", diary)
    assert diary.steps[-1] >= 400
    assert diary.hooks[-1][0] == "end"
    assert len(diary.records) == len(metrics(tmp_path / "run"))


@pytest.mark.parametrize(
    ("callbacks", "says"),
    [
        ([Diary], r"Diary is a class: must be an object of it, Diary\(\)"),
        (Diary(), "callbacks is a Diary: must be a list"),
    ],
)
def test_a_class_and_a_callback_outside_of_a_list_are_refused(tmp_path, callbacks, says):
    with pytest.raises(PixelqError, match=says):
        train(quick(), tmp_path / "run", callbacks=callbacks)
    assert not (tmp_path / "run").exists()


def test_what_is_no_callback_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(PixelqError, match="list is no callback"):
        go(quick(), tmp_path / "run", [])
    assert not (tmp_path / "run").exists()


def test_an_error_in_a_callback_ends_the_run_and_spares_its_checkpoints(tmp_path):
    class Faulty:
        def on_log(self, run):
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        go(quick(), tmp_path / "run", Faulty())
    assert load_agent(tmp_path / "run").card.step == 0
