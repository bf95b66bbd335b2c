"""Whole runs on a GPU: recorded and not, stopped, moved to a CPU and back, learning, played, timed."""

import dataclasses
import json
import math

import pytest
import torch

from catch import solve
from pixelq.agent import load_agent
from pixelq.cli.main import main
from pixelq.presets import PRESETS
from pixelq.training.run import resume
from runs import Watch, go, metrics, stop_at, tensors, tiny

pytestmark = pytest.mark.gpu

DEVICE = "cuda"
KINDS = {
    "uniform": ("keras-example", {}),
    "prioritised": ("rainbow", {}),
    "uniform, LZ4": ("cleanrl-dqn", {"replay": {"store": "lz4"}}),
    "prioritised, LZ4": ("prioritized-dqn", {"replay": {"store": "lz4"}}),
    "rollouts": ("pqn", {}),
}


def config_of(kind, **fields):
    name, changes = KINDS[kind]
    return tiny(name, device=DEVICE, **{"compile": False, **changes, **fields})  # compiling takes longer than the rest


def assert_whole(run, step):
    """It came to its end, learned on the way, and all it holds is numbers."""
    lines = metrics(run)
    assert lines[-1]["step"] == step
    assert math.isfinite(lines[-1]["loss/td"])
    assert int(tensors(run, "learner")["counts"][0]) > 3 + 5  # updates: warming up, recording, replays
    for tensor in tensors(run, "agent").values():
        assert tensor.isfinite().all()


@pytest.mark.parametrize("name", PRESETS)
def test_a_run_of_every_preset_comes_to_its_end(name, tmp_path):
    result, watch = go(tiny(name, device=DEVICE, compile=False), tmp_path / "run")
    assert_whole(tmp_path / "run", result.step)
    assert any(DEVICE in note for note in watch.notes)


@pytest.mark.parametrize("kind", KINDS)
def test_without_recording_it_does_as_many_updates(kind, tmp_path):
    config = config_of(kind)
    for name, recorded in (("recorded", True), ("plain", False)):
        go(dataclasses.replace(config, cuda_graphs=recorded), tmp_path / name)
    counts = [tensors(tmp_path / name, "learner")["counts"] for name in ("recorded", "plain")]
    assert torch.equal(*counts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_goes_on_here_or_on_a_cpu(kind, tmp_path):
    config = config_of(kind)
    go(config, tmp_path / "whole")
    go(config, tmp_path / "parts", stop_at(400))
    resume(tmp_path / "parts", "cpu", progress=Watch(config, stop_at(800)))
    resume(tmp_path / "parts", DEVICE, progress=Watch(config))
    assert_whole(tmp_path / "parts", metrics(tmp_path / "whole")[-1]["step"])
    ours, theirs = (tensors(tmp_path / name, "learner")["counts"] for name in ("parts", "whole"))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("kind", ["uniform", "prioritised", "rollouts"])
def test_a_run_with_compiled_updates_does_as_many(kind, graphs, tmp_path):
    config = config_of(kind, cuda_graphs=graphs)
    _, watch = go(dataclasses.replace(config, compile=True), tmp_path / "compiled")
    assert any("compiled updates" in note for note in watch.notes)
    go(config, tmp_path / "plain")
    assert_whole(tmp_path / "compiled", metrics(tmp_path / "plain")[-1]["step"])
    counts = [tensors(tmp_path / name, "learner")["counts"] for name in ("compiled", "plain")]
    assert torch.equal(*counts)


@pytest.mark.parametrize("name", ["fast", "keras-example", "rainbow", "btr", "pqn"])
def test_it_learns_to_catch(name):
    assert solve(name, seed=1).solved


def test_an_agent_plays_there_as_on_a_cpu(tmp_path):
    run = tmp_path / "run"
    go(config_of("uniform"), run)
    obs = torch.randint(0, 256, (5, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    here, there = (load_agent(run, device).q_values(obs) for device in (DEVICE, "cpu"))
    torch.testing.assert_close(torch.from_numpy(here), torch.from_numpy(there), rtol=1e-2, atol=1e-2)
    for words in (f"eval {run} --episodes 2 --json", f"record {run} --out {tmp_path / 'game.mp4'}"):
        assert main([*words.split(), "--device", DEVICE]) == 0
    assert (tmp_path / "game.mp4").stat().st_size > 0


SMALL = "--game catch --network.channels 4 4 4 --network.hidden 16 --threads 1"


@pytest.mark.parametrize("name", ["keras-example", "fast", "rainbow", "iqn", "pqn"])
@pytest.mark.parametrize("graphs", ["", " --no-cuda-graphs"])
def test_benchmarks_run_there(name, graphs, capfd):
    for what in ("learner", "train"):
        words = f"bench {what} {name} {SMALL} --device {DEVICE} --seconds 0.2 --json{graphs}"
        assert main(words.split()) == 0
        said = capfd.readouterr()
        (result,) = json.loads(said.out.splitlines()[-1])["results"]
        assert result["device"] == DEVICE
        assert "Warning" not in said.err


def test_the_replay_memory_is_measured_there(capfd):
    words = "bench replay --games catch --stores device --transitions 5000 --seconds 0.1 --json"
    assert main(words.split()) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["results"][0]["store"] == "device"
