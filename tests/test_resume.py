"""Resuming: with fresh games, with changed settings, and what is said before it."""

import dataclasses
import json
import re
import shutil
import time
from contextlib import closing

import numpy as np
import pytest

from pixelq.config import DQNConfig, EnvConfig, TrainConfig, from_json
from pixelq.envs import make_envs
from pixelq.envs.testing import CounterEnv, decode
from pixelq.errors import ConfigError, PixelqError
from pixelq.native.library import instructions, kernels
from pixelq.presets import preset
from pixelq.replay.samplers import Draw
from pixelq.run.checkpoint import CheckpointStore
from pixelq.training.changes import allowed_changes
from pixelq.training.parts import begin, make_parts, resolve
from pixelq.training.progress import follow_restoring
from pixelq.training.replay_loop import remember
from pixelq.training.run import resume
from pixelq.training.state import restore_parts, restore_with_fresh_games, save_parts
from runs import Watch, assert_same_run, edit, go, metrics, quick, stop_at, tiny


@pytest.mark.parametrize("name", ["rainbow", "pqn"])
@pytest.mark.slow
def test_stopping_and_resuming_changes_nothing_with_kernels(tmp_path, name):
    if kernels() is None:
        pytest.skip("needs a processor with AVX2 and a C compiler")
    network = dataclasses.replace(preset(name).network, channels=(16, 32, 32), hidden=32)
    config = tiny(name, precision="bfloat16", network=network, total_steps=1_000)
    go(config, tmp_path / "whole")
    go(config, tmp_path / "parts", stop_at(600))
    resume(tmp_path / "parts", progress=Watch(config))
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert json.loads((tmp_path / "whole/provenance.json").read_text())["kernels"] == instructions()


def counting_parts(**fields):
    parts = make_parts(resolve(quick(envs=3, seed=2, **fields)))
    parts.envs = CounterEnv(3, seed=4)
    return parts


def play(parts, ticks, rng):
    for _ in range(ticks):
        actions = rng.integers(0, 3, 3)
        parts.envs.send(actions)
        result = parts.envs.recv()
        remember(parts, actions, result, parts.tracker.update(result)[0])
        parts.obs = result.obs
        parts.step += 3


def check_no_bridges(buffer, n_step):
    """All that can be sampled comes from one game each, its observations as far apart as the discount says."""
    ring = buffer.ring
    rows, envs = np.divmod(np.arange(ring.oldest * 3, ring.head * 3), 3)
    drawable = ring.is_transition(rows, envs, n_step)
    batch = buffer.batch(Draw(rows[drawable], envs[drawable], np.ones(drawable.sum(), np.float32)))
    before, after = decode(batch.obs_tm1.numpy()), decode(batch.obs_t.numpy())  # [B, 4, 3]
    for stack in (before, after):
        ages = np.arange(-3, 1) + stack[:, -1:, 2]  # [B, 4]
        assert (stack[..., 2] == np.where(ages < 0, -1, ages)).all()
        assert ((stack[..., :2] == stack[:, -1:, :2]) | (stack[..., 2:] < 0)).all()
    assert (before[:, -1, :2] == after[:, -1, :2]).all()
    assert (before[:, -1, 0] == envs[drawable]).all()
    steps = after[:, -1, 2] - before[:, -1, 2]
    discount = batch.discount_t.numpy()
    ended = discount == 0
    np.testing.assert_allclose(discount[~ended], 0.99 ** steps[~ended], rtol=1e-6)
    assert steps.min() >= 1
    assert steps.max() <= n_step
    return before[:, -1]


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["uniform", "prioritised"])
@pytest.mark.parametrize("n_step", [1, 3])
def test_fresh_games_are_never_mixed_with_those_given_up(tmp_path, n_step, sampling):
    fields = {"algo": DQNConfig(n_step=n_step), "replay": {"capacity": 400, "sampling": sampling}}
    rng = np.random.default_rng(0)
    parts = counting_parts(**fields)
    begin(parts)
    play(parts, 60, rng)
    games = parts.tracker.games
    chunks = save_parts(store := CheckpointStore(tmp_path), parts, [], 0)
    for ticks in (0, 1, 40):  # again and again, the second time before anything was played
        episodes = parts.envs.state()["episode"]
        parts = counting_parts(**fields)
        chunks = restore_with_fresh_games(parts, store.load_newest(pytest.fail))
        assert (parts.envs.state()["episode"] == episodes + 1).all()
        assert parts.tracker.games == games
        play(parts, ticks, rng)
        games = parts.tracker.games
        seen = check_no_bridges(parts.buffer, n_step)
        chunks = save_parts(store, parts, chunks, 0)
    assert {tuple(game) for game in seen[:, :2]} >= {(env, int(parts.envs.state()["episode"][env])) for env in range(3)}
    exact = counting_parts(**fields)
    restore_parts(exact, store.load_newest(pytest.fail))
    assert (check_no_bridges(exact.buffer, n_step) == seen).all()
    drawn = parts.buffer.draw(64, 0.5), exact.buffer.draw(64, 0.5)
    assert all(np.array_equal(one, other) for one, other in zip(*drawn, strict=True))


@pytest.mark.slow
def test_a_run_resumed_with_fresh_games_can_be_resumed_exactly(tmp_path):
    config = quick()
    go(config, tmp_path / "one", stop_at(600))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    watch = Watch(config)
    assert resume(tmp_path / "one", progress=watch, fresh_games=True).step == 1_600
    assert any("resumed at step 600, with fresh games" in note for note in watch.notes)
    assert resume(tmp_path / "two", progress=Watch(config, stop_at(1_000)), fresh_games=True).interrupted
    resume(tmp_path / "two", progress=Watch(config))
    assert_same_run(tmp_path / "one", tmp_path / "two")
    lines = metrics(tmp_path / "one")
    assert lines[3]["games"] >= lines[2]["games"]


@pytest.mark.slow
def test_fresh_games_of_an_emulator_are_new_ones():
    def make():
        return make_envs("breakout", 2, 7, EnvConfig(), threads=1)

    def played(envs, ticks):
        for _ in range(ticks):
            envs.send(np.ones(2, np.int64))
            obs = envs.recv().obs
        return obs

    with closing(make()) as first, closing(make()) as second, closing(make()) as third:
        first.reset()
        played(first, 30)
        state = first.state()
        result = second.restart(state)
        assert result.reset.all()
        assert (second.state()["seeds"] != state["seeds"]).all()
        obs = played(second, 20)
        assert np.array_equal(third.restore(second.state()).obs, obs)
        assert np.array_equal(played(third, 5), played(second, 5))


REFUSED = [
    ({"seed": 2}, "seed is 2 but was 1"),
    ({"network": {"hidden": 24}, "total_steps": 800}, r"network\.hidden is 24 but was 16"),
    ({"replay": {"capacity": 600}, "envs": 4}, r"envs is 4 but was 8, replay\.capacity is 600 but was 500"),
    ({"log_every_steps": 100}, "log_every_steps is 100 but was 200"),
    ({"optimiser": {"learning_rate": 1e-3}}, r"optimiser\.learning_rate is 0\.001 but was 0\.00025"),
]


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    run = tmp_path_factory.mktemp("short") / "run"
    go(quick(total_steps=400), run)
    return run


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_a_setting_that_is_the_run_cannot_change(tmp_path, short, changes, said):
    shutil.copytree(short, run := tmp_path / "run")
    edit(run, changes)
    with pytest.raises(ConfigError, match=rf"config\.json does not fit .*step-000000000400: {said}; put it back"):
        resume(run, progress=Watch(quick()))
    edit(run, json.loads((short / "config.json").read_text()))
    assert resume(run, total_steps=600, progress=Watch(quick())).step == 600


@pytest.mark.slow
def test_other_settings_can_change_and_are_told(tmp_path, short):
    shutil.copytree(short, run := tmp_path / "run")
    edit(run, {"keep_videos": 3, "replay": {"store": "ram"}})
    watch = Watch(quick())
    result = resume(run, total_steps=800, checkpoint_every_steps=80, keep_going=True, progress=watch)
    assert result.step == 800
    assert sorted(note for note in watch.notes if ", was " in note) == [
        "checkpoint_every_steps is 80, was 400",
        "keep_going is True, was False",
        "keep_videos is 3, was 20",
        "replay.store is ram, was lz4",
        "total_steps is 800, was 400",
    ]
    checkpoint = CheckpointStore(run / "checkpoints").load_newest(pytest.fail)
    elsewhere = dataclasses.replace(from_json(TrainConfig, checkpoint.state["config"]), threads=2)
    assert allowed_changes(elsewhere, checkpoint) == ["threads is 2, was 1; from here on the run differs in rounding"]
    config = json.loads((run / "config.json").read_text())
    assert [config[key] for key in ("total_steps", "checkpoint_every_steps", "keep_going")] == [
        800,
        80,
        True,
    ]
    assert sorted(path.name for path in run.glob("checkpoints/step-*")) == ["step-000000000720", "step-000000000800"]


def test_nothing_is_changed_by_a_resume_that_is_refused(tmp_path, short):
    shutil.copytree(short, run := tmp_path / "run")
    edit(run, {"seed": 2})
    before = (run / "config.json").read_bytes()
    with pytest.raises(PixelqError):
        resume(run, total_steps=800, progress=Watch(quick()))
    assert (run / "config.json").read_bytes() == before


def test_a_resume_says_how_long_it_will_take_before_it_takes_long():
    for total, hint in ((400, ""), (40_000, "; --fresh-games skips it, and the run is then not bit for bit the same")):
        watch = Watch(quick())
        follow = follow_restoring(watch)
        follow(0, total)
        assert watch.notes == []
        time.sleep(0.02)
        follow(40, total)
        follow(80, total)
        follow(total, total)
        (said,) = watch.notes
        seconds = re.fullmatch(rf"replaying the games: {total:,} steps, about (\d+) s{hint}", said)[1]
        assert int(seconds) >= 0.02 * total / 40 - 0.5
