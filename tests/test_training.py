"""Whole runs: what they write, that they stop when they should, and that stopping changes nothing."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelq.agent import load_agent, save_agent
from pixelq.config import NetworkConfig
from pixelq.device import tiny_as_zero
from pixelq.engines import Choice, choose
from pixelq.engines.notes import gpu_notes, kernel_notes
from pixelq.envs.testing import CounterEnv
from pixelq.errors import PixelqError
from pixelq.learner import Learner
from pixelq.presets import PRESETS, preset
from pixelq.training.parts import begin, make_parts, resolve
from pixelq.training.replay_loop import learn, remember, replay_loop, updates_due
from pixelq.training.run import resume, train
from pixelq.training.session import Session, crossed
from runs import Watch, assert_same_run, assert_same_tensors, go, metrics, quick, stop_at, tensors, tiny

KEYS = [
    *("step", "frames", "games", "lives", "seconds", "train/return_per_game", "train/return_per_life"),
    *("train/epsilon", "loss/td", "q/mean"),
    *(f"health/{kind}_{layer}" for kind in ("dead", "dormant") for layer in ("conv1", "conv2", "conv3", "dense")),
    *("health/constant_features", "health/action_gap", "health/gradient_norm", "perf/steps_per_second"),
]


@pytest.mark.slow
def test_a_run_writes_what_the_contract_says(tmp_path):
    result, _ = go(tiny(), tmp_path / "run")
    assert (result.step, result.solved, result.interrupted) == (1_600, False, False)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [KEYS] * 8
    assert [line["step"] for line in lines] == list(range(200, 1_601, 200))
    assert all(line["frames"] == 4 * line["step"] for line in lines)
    assert lines[0]["train/return_per_game"] is None or lines[0]["games"] > 0
    assert lines[-1]["games"] == result.games
    assert lines[-1]["train/return_per_game"] == result.return_per_game
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {
        *("config.json", "provenance.json", "metrics.jsonl", "tb", "checkpoints", "eval", "videos"),
    }
    assert json.loads((tmp_path / "run/config.json").read_text())["threads"] == 1


@pytest.mark.slow
def test_no_preset_loads_the_compiler_of_pytorch(tmp_path):
    """It would cost every start two seconds and every process 70 MB."""
    code = (
        "import sys; from pathlib import Path; from pixelq.presets import PRESETS; from runs import go, tiny\n"
        "for name in PRESETS:\n"
        "    go(tiny(name, total_steps=400), Path(sys.argv[1]) / name)\n"
        "    print(name, sorted({'sympy', 'torch._dynamo'} & set(sys.modules)))"
    )
    here = os.environ | {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), *sys.path))}
    done = subprocess.run([sys.executable, "-c", code, tmp_path], env=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.endswith("]")]
    assert said == [f"{name} []" for name in PRESETS]


@pytest.mark.slow
def test_the_last_line_of_metrics_is_of_the_end_even_off_the_ticks(tmp_path):
    go(tiny(total_steps=500), tmp_path / "run")
    assert [line["step"] for line in metrics(tmp_path / "run")] == [200, 400, 504]


@pytest.mark.parametrize(
    "name",
    [
        "keras-example",
        "pqn",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("nature-dqn", "cleanrl-dqn", "rainbow", "iqn")),
    ],
)
@pytest.mark.slow
def test_the_same_seed_gives_the_same_run(tmp_path, name):
    config = tiny(name, total_steps=800)
    go(config, tmp_path / "one")
    go(config, tmp_path / "two")
    go(dataclasses.replace(config, seed=2), tmp_path / "three")
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert metrics(tmp_path / "one") != metrics(tmp_path / "three")
    assert metrics(tmp_path / "one")[-1]["loss/td"] > 0


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("keras-example", "bfloat16"),
        ("pqn", "bfloat16"),
        pytest.param("keras-example", "float32", marks=pytest.mark.slow),
        pytest.param("pqn", "float32", marks=pytest.mark.slow),
        *(
            pytest.param(name, precision, marks=pytest.mark.slow)
            for name in ("nature-dqn", "cleanrl-dqn")
            for precision in ("float32", "bfloat16")
        ),
    ],
)
@pytest.mark.slow
def test_stopping_and_resuming_changes_nothing(tmp_path, name, precision):
    config = tiny(name, precision=precision)
    go(config, tmp_path / "whole")
    first, _ = go(config, tmp_path / "parts", stop_at(600))
    assert first.interrupted
    assert first.step == 600
    second = resume(tmp_path / "parts", progress=Watch(config, stop_at(1_200)))
    assert second.interrupted
    last = resume(tmp_path / "parts", progress=Watch(config))
    assert (last.step, last.interrupted) == (1_600, False)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_stopping_and_resuming_changes_nothing_on_breakout(tmp_path):
    config = tiny(game="ALE/Breakout-v5", envs=4, total_steps=2_400, log_every_steps=400)
    go(config, tmp_path / "whole")
    go(config, tmp_path / "parts", stop_at(1_200))
    resume(tmp_path / "parts", progress=Watch(config))
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert metrics(tmp_path / "whole")[-1]["lives"] > 20


@pytest.mark.slow
def test_how_often_a_checkpoint_is_written_changes_nothing(tmp_path):
    go(tiny(checkpoint_every_steps=104), tmp_path / "often")
    go(tiny(checkpoint_every_steps=10_000), tmp_path / "never")
    assert metrics(tmp_path / "often") == metrics(tmp_path / "never")


@pytest.mark.slow
def test_checkpoints_keep_their_least_distance_in_seconds(tmp_path, monkeypatch):
    # a clock that goes on by a second for every line of metrics, of which there is one before each chance to save
    seconds = [0.0]
    monkeypatch.setattr("pixelq.training.stopping.time.monotonic", lambda: seconds[0])
    config = quick(
        total_steps=1_600,
        log_every_steps=100,
        checkpoint_every_steps=200,
        checkpoint_min_seconds=5.0,
        keep_checkpoints=9,
    )

    def tick(_):
        seconds[0] += 1.0

    go(config, tmp_path / "run", tick)
    steps = [int(path.name.removeprefix("step-")) for path in sorted((tmp_path / "run/checkpoints").glob("step-*"))]
    # at 200 and 400 two and four seconds have gone by; after 600 again; the last one is always there
    assert steps == [0, 600, 1_200, 1_600]


@pytest.mark.slow
def test_a_checkpoint_is_there_before_the_first_step(tmp_path):
    steps = []
    go(
        tiny(),
        tmp_path / "run",
        lambda _: steps.append(sorted(p.name for p in tmp_path.glob("run/checkpoints/step-*"))),
    )
    assert steps[0] == ["step-000000000000"]


@pytest.mark.slow
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path):
    config = tiny()
    go(config, tmp_path / "whole")
    go(config, tmp_path / "hurt", stop_at(1_000))
    weights = tmp_path / "hurt/checkpoints/step-000000001000/agent.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    watch = Watch(config)
    resume(tmp_path / "hurt", progress=watch)
    assert "agent.safetensors" in watch.notes[0]
    assert "step-000000001000" in watch.notes[0]
    assert any("resumed at step 800" in note for note in watch.notes)
    assert_same_run(tmp_path / "whole", tmp_path / "hurt")


@pytest.mark.slow
def test_a_finished_run_comes_back_as_it_is_and_can_be_made_longer(tmp_path):
    config = tiny(total_steps=400)
    result, _ = go(config, tmp_path / "run")
    watch = Watch(config)
    assert resume(tmp_path / "run", progress=watch) == result
    assert "is finished, at step 400" in watch.notes[0]
    assert resume(tmp_path / "run", total_steps=600, progress=watch).step == 600
    assert resume(tmp_path / "run", progress=watch).step == 600
    resumes = json.loads((tmp_path / "run/provenance.json").read_text())["resumed"]
    assert [resumed["step"] for resumed in resumes] == [400]  # not those that had nothing to do
    assert [line["step"] for line in metrics(tmp_path / "run")] == [200, 400, 600]


@pytest.mark.slow
def test_a_run_that_is_written_by_another_process_is_refused(tmp_path):
    config = tiny(total_steps=400)
    refused = []

    def meddle(_):
        with pytest.raises(PixelqError, match="is in use") as caught:
            resume(tmp_path / "run", progress=Watch(config))
        refused.append(caught)

    go(config, tmp_path / "run", meddle)
    assert len(refused) == 2


@pytest.mark.slow
def test_init_begins_with_an_agents_weights_and_a_fresh_optimiser(tmp_path):
    config = tiny(total_steps=400)
    go(config, tmp_path / "first")
    train(dataclasses.replace(config, total_steps=8), tmp_path / "next", str(tmp_path / "first"), Watch(config))
    for name, value in tensors(tmp_path / "first", "agent").items():
        assert torch.equal(value, tensors(tmp_path / "next", "agent")[name])
    other = dataclasses.replace(config, network=NetworkConfig(channels=(4, 4, 4), hidden=8))
    with pytest.raises(PixelqError, match=r"its network is made with .*; begin with the same"):
        train(other, tmp_path / "other", str(tmp_path / "first"), Watch(config))
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_run_takes_its_background_from_the_first_pictures_or_from_its_first_agent(tmp_path):
    base = tiny(game="pong", total_steps=8)  # even grey
    config = dataclasses.replace(base, network=dataclasses.replace(base.network, background="common"))
    go(config, tmp_path / "first")
    assert tensors(tmp_path / "first", "agent")["background"].tolist() == [87]
    assert tensors(tmp_path / "first", "learner")["target.background"].tolist() == [87]
    resume(tmp_path / "first", total_steps=16, progress=Watch(config))
    agent = load_agent(tmp_path / "first")
    assert agent.network.background.tolist() == [87]
    agent.network.background.fill_(5)
    save_agent(tmp_path / "other.safetensors", agent.network.state_dict(), agent.card)
    train(config, tmp_path / "next", str(tmp_path / "other.safetensors"), Watch(config))
    assert tensors(tmp_path / "next", "agent")["background"].tolist() == [5]
    with pytest.raises(PixelqError, match=r"its network is made with --network\.background common; begin with"):
        train(base, tmp_path / "plain", str(tmp_path / "other.safetensors"), Watch(config))


@pytest.mark.slow
def test_it_stops_once_the_mean_of_a_full_window_is_above_the_mark(tmp_path):
    config = tiny(stop_on="return_per_game", stop_at=-10.5, window_episodes=20, total_steps=4_000)
    result, watch = go(config, tmp_path / "run")
    assert result.solved
    assert result.games == 20 + result.games % 20 < 30  # the window of 20 must be full first
    assert f"Solved at episode {result.games}!" in watch.notes
    assert metrics(tmp_path / "run")[-1]["step"] == result.step
    again = Watch(config)
    assert resume(tmp_path / "run", progress=again).solved
    assert again.notes == [f"{tmp_path / 'run'} is solved, at step {result.step:,}; --stop-on none continues"]
    unreachable, _ = go(dataclasses.replace(config, stop_at=10.0, total_steps=800), tmp_path / "not")
    assert not unreachable.solved


@pytest.mark.slow
def test_a_solved_run_can_go_on_and_is_the_run_that_never_stopped(tmp_path):
    endless = tiny(total_steps=1_600, window_episodes=5)
    config = dataclasses.replace(endless, stop_on="return_per_game", stop_at=-10.5)
    go(endless, tmp_path / "whole")
    solved, _ = go(config, tmp_path / "run")
    assert solved.step < 1_000
    watch = Watch(config)
    higher = resume(tmp_path / "run", stop_at=10.0, total_steps=1_000, progress=watch)
    assert (higher.step, higher.solved) == (1_000, False)
    assert "stop_at is 10.0, was -10.5" in watch.notes
    result = resume(tmp_path / "run", stop_on="none", total_steps=1_600, progress=watch)
    assert (result.step, result.solved) == (1_600, False)
    assert "stop_on is none, was return_per_game" in watch.notes
    assert_same_tensors(tmp_path / "whole", tmp_path / "run")
    lines = {line["step"]: line["train/return_per_game"] for line in metrics(tmp_path / "run")}
    assert lines == {line["step"]: line["train/return_per_game"] for line in metrics(tmp_path / "whole")} | {
        solved.step: solved.return_per_game
    }


@pytest.mark.parametrize(
    ("device", "envs", "threads", "told"),
    [("cuda", 8, 16, "--envs 64"), ("cuda", 8, 6, "--envs 24"), ("cuda", 32, 16, None), ("cpu", 8, 16, None)],
)
def test_a_gpu_that_would_wait_for_games_is_told_of(device, envs, threads, told):
    config = tiny(device=device, envs=envs, threads=threads, compile=False)
    notes = gpu_notes(config, compiles=False)
    assert len(notes) == (told is not None)
    if told:
        assert notes[0].startswith(f"{envs} games leave the GPU waiting")
        assert told in notes[0]
    wanted = dataclasses.replace(config, compile=True)
    assert "first updates are compiled" in gpu_notes(wanted, compiles=True)[0]
    assert len(gpu_notes(wanted, compiles=False)) == len(notes) + (device == "cuda")


@pytest.mark.slow
def test_the_notebooks_own_line(tmp_path):
    _, watch = go(tiny(notebook_log=True, total_steps=800, target_period_steps=400), tmp_path / "run")
    lines = [note for note in watch.notes if note.startswith("running reward")]
    last = metrics(tmp_path / "run")[-1]
    assert len(lines) == 2
    assert lines[-1] == (
        f"running reward: {last['train/return_per_life']:.2f} at episode {last['lives']}, frame count 800"
    )


def test_with_one_game_the_first_update_is_at_step_36(tmp_path):
    parts = make_parts(resolve(tiny(envs=1)))
    begin(parts)
    counts = []
    for _ in range(44):
        actions = parts.actor.act(parts.obs, 1.0, parts.life_lost)
        parts.envs.send(actions)
        result = parts.envs.recv()
        life_lost, _ = parts.tracker.update(result)
        remember(parts, actions, result, life_lost)
        parts.step += 1
        learn(parts)
        counts.append(parts.learner.updates)
    assert counts == [0] * 35 + [1] * 4 + [2] * 4 + [3]


def test_updates_keep_their_ratio_to_steps_whatever_the_number_of_games():
    for envs in (1, 3, 8, 64):
        done = sum(updates_due(step, step - envs, 4) for step in range(envs, 10 * 192 + 1, envs))
        assert done == 10 * 192 // 4
    assert [crossed(step, step - 8, 20) for step in (8, 16, 24, 32, 40, 48)] == [False, False, True, False, True, False]


def test_what_is_remembered_is_what_learning_should_see(tmp_path):
    parts = make_parts(resolve(tiny(envs=1)))
    parts.envs = CounterEnv(1, seed=3, script=["..L..T.U"])
    begin(parts)
    seen = []
    for _ in range(20):
        actions = np.array([2])
        parts.envs.send(actions)
        result = parts.envs.recv()
        life_lost, _ = parts.tracker.update(result)
        remember(parts, actions, result, life_lost)
        seen.append(result)
    ring = parts.buffer.ring
    rows = slice(0, 20)
    assert np.abs([result.reward[0] for result in seen]).max() == 2
    assert ring.rewards[rows, 0].tolist() == [float(np.sign(result.reward[0])) for result in seen]
    assert ring.truncated[rows, 0].tolist() == [bool(result.truncated[0]) for result in seen]
    assert ring.ignored[rows, 0].tolist() == [bool(result.reset[0]) for result in seen]
    ends = [bool(result.terminated[0]) for result in seen]
    lost = [index for index, end in enumerate(ring.terminated[rows, 0]) if end and not ends[index]]
    assert lost
    assert all(seen[index].lives[0] < seen[index - 1].lives[0] for index in lost)  # a lost life, not a game's end


@pytest.mark.slow
def test_memory_is_flat_once_the_replay_is_full(tmp_path):
    resident = {}

    def note(record):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident[record["step"]] = pages * os.sysconf("SC_PAGE_SIZE")

    config = tiny(total_steps=12_000, log_every_steps=1_000, replay={"capacity": 2_000}, checkpoint_every_steps=3_000)
    go(config, tmp_path / "run", note)
    assert resident[12_000] < 1.01 * resident[4_000]


@pytest.mark.slow
def test_a_video_of_the_final_agent(tmp_path):
    go(tiny(total_steps=400, video_every_episodes=100), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run/videos").iterdir()] == ["step-000000000400.mp4"]


def test_the_loop_is_over_at_once_when_there_is_nothing_to_do(tmp_path):
    class Over(Session):
        over = True

        def __init__(self):
            pass

    parts = make_parts(resolve(tiny(envs=1)))
    begin(parts)
    replay_loop(parts, Over())
    assert parts.step == 0


def test_numbers_that_are_not_normal_are_zero_while_a_run_trains_and_only_then():
    tiny = torch.tensor([1e-40])
    with tiny_as_zero():
        assert (tiny * 0.5).item() == 0
        with tiny_as_zero():
            pass
        assert (tiny * 0.5).item() == 0  # the inner one found it so
    assert (tiny * 0.5).item() > 0


@pytest.mark.parametrize(
    ("usable", "library", "compiler", "settings", "told"),
    [
        (["AMX"], None, True, {}, True),  # it failed
        (["AMX"], None, False, {}, True),
        (["AMX"], object(), True, {}, False),
        ([], None, False, {}, False),
        (["AMX"], None, True, {"precision": "float32"}, False),  # which was asked for
        (["AMX"], None, False, {"precision": "float32"}, True),  # as there is no compiler, or asked for
        ([], None, False, {"precision": "float32"}, False),
        (["AMX"], None, False, {"compile": False}, False),
        (["AMX"], None, False, {"device": "meta", "optimiser": preset("nature-dqn").optimiser}, False),  # no CPU
        (["AMX"], None, False, {"network": preset("btr").network}, False),  # which kernels cannot compute
    ],
)
def test_who_lacks_a_compiler_for_kernels_is_told(monkeypatch, usable, library, compiler, settings, told):
    monkeypatch.setattr("pixelq.engines.notes.usable_instructions", lambda: usable)
    monkeypatch.setattr("pixelq.engines.notes.has_compiler", lambda: compiler)
    monkeypatch.setattr("pixelq.engines.choice.kernels", lambda: library)
    monkeypatch.setattr("pixelq.engines.notes.kernels", lambda: library)
    monkeypatch.setattr("pixelq.engines.notes.instructions", lambda: usable[0])
    monkeypatch.setattr("pixelq.engines.notes.replay_kernels", object)
    monkeypatch.setattr("pixelq.engines.notes.why_missing", lambda: "cc failed: such an error")
    config = dataclasses.replace(preset("keras-example"), **({"device": "cpu", "precision": "bfloat16"} | settings))
    learner = Learner(config, 4, torch.device(config.device), torch.Generator().manual_seed(0))
    notes = kernel_notes(config, choose(config, learner.device, learner.online))
    assert len(notes) == told
    assert all("has AMX" in note and "C compiler" in note and "such an error" in note for note in notes)


def test_who_lacks_other_kernels_is_told(monkeypatch):
    config = dataclasses.replace(preset("keras-example"), device="cpu", precision="bfloat16")
    monkeypatch.setattr("pixelq.engines.notes.why_missing", lambda: "cc failed: such an error")
    monkeypatch.setattr("pixelq.engines.notes.usable_instructions", lambda: ["AMX", "AVX2"])
    monkeypatch.setattr("pixelq.engines.notes.kernels", object)
    monkeypatch.setattr("pixelq.engines.notes.instructions", lambda: "AVX2")
    (note,) = kernel_notes(config, Choice("kernels", "they are there"))
    assert note == (
        "updates are by kernels for AVX2; those for AMX, which are quicker, are not here: cc failed: such an error"
    )
    monkeypatch.setattr("pixelq.engines.notes.replay_kernels", lambda: None)
    (note,) = kernel_notes(config, Choice("plain", "they are not"))
    assert note.startswith("batches are slower than they could be")
    assert note.endswith("cc failed: such an error")
