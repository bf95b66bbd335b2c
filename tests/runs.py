"""Short runs that the tests of training start, stop and compare."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import safetensors.torch
import torch

from pixelq.config import PQNConfig
from pixelq.presets import preset
from pixelq.training.progress import PlainProgress
from pixelq.training.run import train

CLOCK = ("seconds", "perf/steps_per_second")


class Watch(PlainProgress):
    """Collects a run's messages, and calls `at` with every record of metrics."""

    def __init__(self, config, at=None):
        super().__init__(config)
        self.notes, self.at = [], at

    def note(self, text):
        self.notes.append(text)

    def metrics(self, record):
        if self.at:
            self.at(record)


def tiny(name="keras-example", *, replay=None, exploration=None, **fields):
    """A preset cut down to seconds: small network, replay and schedules."""
    base = preset(name)
    defaults = {
        "game": "catch",
        "total_steps": 1_600,
        "log_every_steps": 200,
        "checkpoint_every_steps": 400,
        "checkpoint_min_seconds": 0.0,
        "video_every_episodes": 0,
        "target_period_steps": 200,
        "threads": 1,
        "notebook_log": False,
        "network": dataclasses.replace(base.network, channels=(4, 4, 4), width=1, hidden=16),
        "exploration": dataclasses.replace(
            base.exploration, **{"decay_steps": 800, "random_steps": 100, "decay_from_step": 0, **(exploration or {})}
        ),
    }
    if isinstance(base.algo, PQNConfig):
        del defaults["target_period_steps"]
        defaults["algo"] = dataclasses.replace(base.algo, rollout_steps=5, minibatches=2)
        defaults["envs"] = 8
    else:
        small = {"capacity": 500, "learn_start": 33, **(replay or {})}
        defaults["replay"] = dataclasses.replace(base.replay, **small)
    if name == "btr":
        defaults["envs"] = 8
        defaults["replay"] = dataclasses.replace(defaults["replay"], batch_size=16, train_period=16)
    return dataclasses.replace(base, **{**defaults, **fields})


def quick(*, replay=None, **fields):
    """A tiny run that learns little, for tests that do not need learning."""
    return tiny(replay={"batch_size": 8, "train_period": 8, **(replay or {})}, **fields)


def metrics(run: Path):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in CLOCK} for record in records]


def tensors(run: Path, name: str):
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    return safetensors.torch.load_file(newest / f"{name}.safetensors")


def assert_same_run(left: Path, right: Path):
    assert metrics(left) == metrics(right)
    assert_same_tensors(left, right)


def assert_same_tensors(left: Path, right: Path):
    """In their newest checkpoints."""
    newest = sorted((left / "checkpoints").glob("step-*"))[-1]
    for group in sorted(path.stem for path in newest.glob("*.safetensors")):
        one, other = tensors(left, group), tensors(right, group)
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), f"{group}/{name}"


def go(config, run, at=None):
    watch = Watch(config, at)
    return train(config, run, progress=watch), watch


def stop_at(step):
    """Asks the run to stop, as Ctrl-C at a terminal does, when its metrics come to `step`."""
    return lambda record: os.kill(os.getpid(), signal.SIGTERM) if record["step"] == step else None


def edit(run, changes):
    """Change settings in a run's config.json by hand."""
    config = json.loads((run / "config.json").read_text())
    for name, value in changes.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    (run / "config.json").write_text(json.dumps(config))
