"""`benchmarks/compare.py`: order and ratios of its rounds; and the peers' game, frame by frame."""

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import gymnasium
import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def compare():
    return load(BENCHMARKS / "compare.py")


@pytest.fixture(scope="module")
def notebook_game():
    return load(BENCHMARKS / "peers/notebook_game.py")


def test_ratios_are_between_neighbours(compare):
    bouts = [
        compare.Bout("sb3", 50.0, {"a": 100.0, "b": 200.0}),
        compare.Bout("keras", 10.0, {"a": 120.0, "b": 150.0}),
        compare.Bout("sb3", 20.0, {"a": 60.0, "b": 100.0}),
        compare.Bout("keras", 5.0, {"a": 80.0, "b": 100.0}),
        compare.Bout("sb3", 40.0, {"a": 100.0, "b": 100.0}),
        compare.Bout("keras", 10.0, {"a": 90.0, "b": 100.0}),
    ]
    summary = compare.summarise(bouts)
    # 100/50, 60/20 and 100/40; 120/10, 80/5 and 90/10
    assert summary["ratios"]["pixelq a / sb3"] == {"min": 2.0, "median": 2.5, "max": 3.0}
    assert summary["ratios"]["pixelq a / keras"] == {"min": 9.0, "median": 12.0, "max": 16.0}
    assert summary["steps_per_second"]["pixelq a"] == {"min": 60.0, "median": 95.0, "max": 120.0}
    assert summary["steps_per_second"]["sb3"] == {"min": 20.0, "median": 40.0, "max": 50.0}
    assert list(summary["steps_per_second"]) == ["pixelq a", "pixelq b", "sb3", "keras"]


def test_contenders_take_turns_and_json_comes_last(compare, monkeypatch, capsys, tmp_path):
    commands = []

    def fake_output(command, failure, timeout):
        commands.append(command)
        if "bench" in command:
            return "a table\n" + json.dumps({"results": [{"steps_per_second": 300.0}]})
        return json.dumps({"steps_per_second": 100.0})

    monkeypatch.setattr(compare, "set_up", lambda name, cache: None)
    monkeypatch.setattr(compare, "output", fake_output)
    words = ["--rounds", "2", "--seconds", "3", "--threads", "1", "--cache", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["compare.py", *words, "--presets", "keras-example", "nature-dqn --envs 1"])
    assert compare.main() == 0
    scripts = [Path(command[2]).name if command[1] == "-E" else command[5] for command in commands]
    assert (
        scripts == ["keras-example", "nature-dqn", "sb3_dqn.py", "keras-example", "nature-dqn", "keras_example.py"] * 2
    )
    assert commands[1][1:] == [
        *("-m", "pixelq", "bench", "train", "nature-dqn", "--envs", "1", "--device", "cpu", "--json"),
        *("--seconds", "3.0", "--threads", "1"),
    ]
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["ratios"]["pixelq nature-dqn --envs 1 / keras"] == {"min": 3.0, "median": 3.0, "max": 3.0}
    assert (result["rounds"], result["seconds"], result["threads"]) == (2, 3.0, 1)


def test_a_peer_is_installed_once_and_torch_is_pinned(compare, monkeypatch, tmp_path):
    commands = []

    def fake_output(command, failure, timeout):
        commands.append(command)
        (tmp_path / "sb3").mkdir(exist_ok=True)
        return ""

    monkeypatch.setattr(compare, "output", fake_output)
    for _ in range(2):
        compare.set_up("sb3", tmp_path)
    make, install = commands
    assert make[1:3] == ["-m", "venv"]
    assert any(word.startswith("stable-baselines3==") for word in install)
    constraints = Path(install[install.index("-c") + 1])
    assert constraints.read_text() == compare.torch_constraint() + "\n"
    assert compare.torch_constraint().startswith("torch==2.")


def test_a_failure_is_one_line(compare):
    with pytest.raises(SystemExit) as ended:
        compare.output([sys.executable, "-c", "raise RuntimeError('no games here')"], "sb3 failed", 60)
    assert str(ended.value) == "sb3 failed: RuntimeError: no games here"


def test_the_stopwatch_times_whole_periods(monkeypatch, capsys):
    stopwatch = load(BENCHMARKS / "peers/stopwatch.py")
    clock = [0.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: clock[0])
    watch, steps = stopwatch.Stopwatch(10.0), 1
    while watch.step():
        clock[0] += 1.0  # a step a second
        steps += 1
    assert steps == 200 + 12  # ten seconds after the warm-up end within a period of four steps
    watch.report("numpy", "no-such-package")
    figures = json.loads(capsys.readouterr().out)
    assert (figures["steps"], figures["seconds"], figures["steps_per_second"]) == (12, 12.0, 1.0)
    assert figures["versions"] == {"numpy": np.__version__}


@pytest.mark.slow
def test_the_peers_game_shows_what_the_notebooks_wrappers_do(notebook_game):
    game = notebook_game.NotebookGame(3)
    first = game.reset()
    raw = gymnasium.make("ALE/Breakout-v5", frameskip=1, repeat_action_probability=0.0, disable_env_checker=True)
    raw.reset(seed=3)
    for _ in range(np.random.default_rng(3).integers(1, 31)):
        raw.step(0)

    def play(action):
        frames = [raw.step(action)[0] for _ in range(4)]
        grey = cv2.cvtColor(np.maximum(frames[2], frames[3]), cv2.COLOR_RGB2GRAY)
        return cv2.resize(grey, (84, 84), interpolation=cv2.INTER_AREA).astype(np.float32) / 255

    play(1)
    plane = play(2)  # FIRE and RIGHT begin an episode
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, np.stack([plane] * 4, axis=-1))
    for action in (3, 0, 2):
        state, reward, done = game.step(action)
        np.testing.assert_array_equal(state[:, :, -1], play(action))
        assert (reward, done) == (0.0, False)
    np.testing.assert_array_equal(state[:, :, 0], plane)
    raw.close()


def test_the_peers_episodes_are_lives(notebook_game):
    game, rng = notebook_game.NotebookGame(1), np.random.default_rng(1)
    lives, rewards = [], set()
    for _ in range(6):
        game.reset()
        lives.append(game._env.unwrapped.ale.lives())
        done = False
        while not done:
            _, reward, done = game.step(int(rng.integers(4)))
            rewards.add(reward)
    assert lives == [5, 4, 3, 2, 1, 5]
    assert rewards <= {0.0, 1.0}
