"""Whole runs with each frame store and with prioritised sampling."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from pixelq.config import DQNConfig
from pixelq.training.parts import begin, make_parts, resolve
from pixelq.training.replay_loop import learn, remember
from pixelq.training.run import resume
from pixelq.types import Batch
from runs import Watch, assert_same_run, edit, go, metrics, quick, stop_at, tensors, tiny


def prioritised(**fields):
    replay = {"sampling": "prioritised", "capacity": 300, "batch_size": 16, "train_period": 8}
    return tiny("cleanrl-dqn", replay=replay, algo=DQNConfig(n_step=3), total_steps=1_200, **fields)


def test_the_store_is_decided_once_told_and_written_down(tmp_path):
    _, watch = go(quick(total_steps=200), tmp_path / "run")
    start = "replay buffer of 500 transitions, 200 of them used: planes as LZ4 blocks"
    told = [note for note in watch.notes if note.startswith(start)]
    assert len(told) == 1
    assert "at most 4 MB" in told[0]
    assert json.loads((tmp_path / "run/config.json").read_text())["replay"]["store"] == "lz4"


@pytest.mark.slow
def test_a_run_is_the_same_on_every_store_and_can_change_it(tmp_path):
    config = quick(total_steps=800)
    for store in ("lz4", "ram"):
        go(dataclasses.replace(config, replay=dataclasses.replace(config.replay, store=store)), tmp_path / store)
    assert_same_run(tmp_path / "lz4", tmp_path / "ram")
    go(config, tmp_path / "both", stop_at(400))
    edit(tmp_path / "both", {"replay": {"store": "ram"}})
    watch = Watch(config)
    resume(tmp_path / "both", progress=watch)
    assert "replay.store is ram, was lz4" in watch.notes
    assert_same_run(tmp_path / "lz4", tmp_path / "both")


@pytest.mark.slow
def test_stopping_and_resuming_a_prioritised_run_changes_nothing(tmp_path):
    config = prioritised()
    go(config, tmp_path / "whole")
    go(config, tmp_path / "parts", stop_at(400))
    resume(tmp_path / "parts", progress=Watch(config, stop_at(800)))
    resume(tmp_path / "parts", progress=Watch(config))
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    one, other = tensors(tmp_path / "whole", "sampler"), tensors(tmp_path / "parts", "sampler")
    assert set(one) == {"leaves", "highest"}
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert len(one["leaves"].unique()) > 100  # priorities of their own
    uniform = dataclasses.replace(config.replay, sampling="uniform")
    go(dataclasses.replace(config, replay=uniform), tmp_path / "uniform")
    assert metrics(tmp_path / "uniform") != metrics(tmp_path / "whole")
    assert not (tmp_path / "uniform/checkpoints/step-000000001200/sampler.safetensors").exists()


def test_each_loss_counts_by_its_weight_before_the_mean():
    engine = make_parts(resolve(prioritised(precision="float32"))).engine
    learner = engine.learner
    obs = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 8, 4, 84, 84), dtype=np.uint8))
    batch = Batch(obs[0], torch.zeros(8, dtype=torch.int64), torch.arange(8.0), torch.full((8,), 0.9), obs[1])
    start = {name: weight.clone() for name, weight in learner.weights().items()}

    def learned(weight):
        learner.load_weights(start)
        errors = engine.update(batch._replace(weight=weight))
        return errors, torch.cat([parameter.grad.flatten() for parameter in learner.online.parameters()])

    errors, together = learned(torch.ones(8))
    assert errors.shape == (8,)
    assert not errors.requires_grad
    torch.testing.assert_close(learned(torch.ones(()))[1], together)
    each = torch.stack([learned(torch.eye(8)[index])[1] for index in range(8)])
    weight = torch.linspace(0.1, 1.0, 8)
    torch.testing.assert_close(learned(weight)[1], weight @ each, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together, each.sum(0), rtol=1e-4, atol=1e-5)


def played(config):
    """A run whose eight games have been played for 20 steps, and nothing learned from them."""
    parts = make_parts(resolve(config))
    begin(parts)
    for _ in range(20):
        actions = np.zeros(8, np.int64)
        parts.envs.send(actions)
        remember(parts, actions, parts.envs.recv(), np.zeros(8, np.bool_))
        parts.step += 8
    return parts


def test_errors_go_back_to_the_memory_they_came_from(monkeypatch):
    parts = played(prioritised())
    drawn, told, errors = [], [], torch.rand(16)
    draw = parts.buffer.draw
    monkeypatch.setattr(parts.buffer, "draw", lambda *given: drawn.append((draw(*given), given)) or drawn[-1][0])
    monkeypatch.setattr(parts.buffer, "learned", lambda *given: told.append(given))
    monkeypatch.setattr(parts.engine, "learn", lambda batch, count: errors)
    learn(parts)
    assert [given for _, given in drawn] == [(16, pytest.approx(0.4 + 0.6 * 160 / 1_200), 1)]
    assert [(a is drawn[0][0], b is errors) for a, b in told] == [(True, True)]


@pytest.mark.parametrize(("period", "together"), [(8, [1]), (4, [2]), (2, [2, 2]), (1, [2, 2, 2, 2])])
def test_updates_owed_together_are_made_two_by_two(monkeypatch, period, together):
    config = prioritised()
    parts = played(dataclasses.replace(config, replay=dataclasses.replace(config.replay, train_period=period)))
    done = []
    learn_from, learned = parts.engine.learn, parts.buffer.learned

    def noting_learn(batch, count):
        done.append((len(batch.a_tm1), count))
        return learn_from(batch, count)

    def noting_learned(draw, errors):
        done.append(len(errors))
        learned(draw, errors)

    monkeypatch.setattr(parts.engine, "learn", noting_learn)
    monkeypatch.setattr(parts.buffer, "learned", noting_learned)
    learn(parts)
    assert done == [item for count in together for item in ((16 * count, count), 16 * count)]
    assert parts.learner.updates == sum(together)
