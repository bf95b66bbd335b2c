"""Every command at work, and the contract for scripts."""

import contextlib
import dataclasses
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from itertools import pairwise

import av
import numpy as np
import pytest
import torch

import pixelq
from pixelq.cli.main import main
from pixelq.cli.players import show_games
from pixelq.config import TrainConfig, from_json, option
from pixelq.evaluation import PROTOCOLS
from pixelq.games import game_names
from pixelq.presets import DEFAULT_PRESET, PRESETS
from pixelq.training.progress import PlainProgress
from pixelq.training.run import RunResult
from runs import metrics, tiny

METRICS = [
    "step",
    "frames",
    "games",
    "lives",
    "seconds",
    "train/return_per_game",
    "train/return_per_life",
    "train/epsilon",
    "loss/td",
    "q/mean",
    *(f"health/{kind}_{layer}" for kind in ("dead", "dormant") for layer in ("conv1", "conv2", "conv3", "dense")),
    "health/constant_features",
    "health/action_gap",
    "health/gradient_norm",
    "perf/steps_per_second",
]
RESULT = ["protocol", "game", "episodes", "mean", "median", "iqm", "ci95", "human_normalised", "scores"]
VERBS = (
    "train",
    "resume",
    "sweep",
    "tune",
    "report",
    "eval",
    "record",
    "collect",
    "export",
    "watch",
    "presets",
    "games",
)
TRAIN = shlex.split(
    "train cleanrl-dqn --game catch --seed 3 --envs 2 --threads 1 --device cpu --total-steps 600 "
    "--log-every-steps 200 --checkpoint-every-steps 300 --checkpoint-min-seconds 0 --video-every-episodes 0 "
    "--target-period-steps 100 --network.channels 2 2 2 --network.hidden 8 --replay.capacity 500 "
    "--replay.learn-start 64 --exploration.decay_steps=400 --env.no-fire-at-start"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the command line, with its output."""
    run = tmp_path_factory.mktemp("runs") / "deep" / "run"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*TRAIN, "--run", str(run)]) == 0
    (run.parent / "printed").write_text(printed.getvalue())
    return run


def said(capsys):
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


# help, lists, version


def test_help_is_quick_and_loads_nothing_heavy():
    heavy = ("torch", "numpy", "tyro", "rich", "gymnasium", "ale_py", "tensorboard", "scipy")
    code = (
        "import sys; from pixelq.cli.main import main; assert main(['--help']) == 0; "
        f"print(sorted(set({heavy}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    for verb in VERBS:
        assert f"\n  {verb} " in done.stdout
    tries = []
    while min(tries, default=1) > 0.5 and len(tries) < 5:
        started = os.times()
        subprocess.run([sys.executable, "-m", "pixelq", "--help"], capture_output=True, check=True)
        done = os.times()  # processor time: other programs take none of it
        tries.append(done.children_user + done.children_system - started.children_user - started.children_system)
    assert min(tries) < 0.5


def test_no_verbs_help_loads_torch():
    code = (
        "import sys; from pixelq.cli.main import _VERBS, main\n"
        "kinds = ('env', 'replay', 'learner', 'train')\n"
        "for words in [*([verb] for verb in _VERBS), *(['bench', kind] for kind in kinds)]:\n"
        "    assert main([*words, '--help']) == 0, words\n"
        "    assert 'torch' not in sys.modules, words"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [["-h"], ["help"], ["--help"]])
def test_help_can_be_asked_for_in_three_ways(capsys, words):
    assert main(words) == 0
    assert said(capsys)[0] == "pixelq: deep Q-learning from pixels"


@pytest.mark.parametrize("words", [["--version"], ["-V"]])
def test_version(capsys, words):
    assert main(words) == 0
    assert said(capsys) == [f"pixelq {pixelq.__version__}"]


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(capsys, verb, flag):
    assert main([verb, flag]) == 0
    assert said(capsys)[0].startswith(f"usage: pixelq {verb}")


def options_of(kind, prefix=""):
    for field in dataclasses.fields(kind):
        path = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(field.type):
            yield from options_of(field.type, f"{path}.")
        else:
            yield option(path)


@pytest.mark.parametrize("words", [[], ["nature-dqn"]])
def test_the_help_of_train_lists_every_setting(capsys, words):
    assert main(["train", *words, "--help"]) == 0
    text = "\n".join(said(capsys))
    for name in [*options_of(TrainConfig), "--run RUN", "--init AGENT"]:
        assert f" {name}" in text
    assert all(name in text for name in PRESETS)
    start = 50_000 if words else 10_000
    assert f"(default: {start})" in text


def test_help_names_what_a_word_stands_for(capsys):
    assert main(["resume", "--help"]) == 0
    assert "RUN" in said(capsys)[0]
    for verb in ("eval", "record", "export", "watch"):
        assert main([verb, "--help"]) == 0
        lines = said(capsys)
        assert "AGENT" in lines[0]
        assert any("`breakout`" in line for line in lines)  # the agent that comes along


def test_presets_are_listed_with_their_sources(capsys):
    assert main(["presets"]) == 0
    lines = said(capsys)
    assert [line.split()[0] for line in lines[::2]] == list(PRESETS)
    assert [line.strip() for line in lines[1::2]] == [preset.source for preset in PRESETS.values()]
    assert [line.split()[0] for line in lines if "(the default)" in line] == [DEFAULT_PRESET]


def test_games_are_listed_one_a_line(capsys):
    assert main(["games"]) == 0
    assert [line.split()[0] for line in said(capsys)] == list(game_names())


def test_the_module_is_the_command(tmp_path):
    for command in ([sys.executable, "-m", "pixelq"], [f"{os.path.dirname(sys.executable)}/pixelq"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path)
        assert done.stdout == f"pixelq {pixelq.__version__}\n"


# train and resume


@pytest.mark.slow
def test_a_run_has_all_that_the_contract_names(run):
    names = {path.name for path in run.iterdir()} - {".lock"}
    assert names == {
        *("config.json", "provenance.json", "metrics.jsonl"),
        *("tb", "checkpoints", "eval", "videos"),
    }
    steps = [path.name for path in sorted((run / "checkpoints").glob("step-*"))]
    assert steps == ["step-000000000300", "step-000000000600"]


@pytest.mark.slow
def test_the_words_become_the_settings(run):
    config = from_json(TrainConfig, json.loads((run / "config.json").read_text()))
    assert (config.preset, config.game, config.seed, config.envs) == ("cleanrl-dqn", "catch", 3, 2)
    assert config.network.channels == (2, 2, 2)
    assert config.exploration.decay_steps == 400
    assert config.env.fire_at_start is False
    base = PRESETS["cleanrl-dqn"].config
    assert (config.algo, config.optimiser) == (base.algo, base.optimiser)
    assert "auto" not in (config.device, config.precision)


@pytest.mark.slow
def test_metrics_have_the_contracts_keys_in_their_order(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [METRICS] * len(lines)
    assert [line["step"] for line in lines] == [200, 400, 600]
    for line in lines:
        assert line["frames"] == 4 * line["step"]
        assert all(type(line[key]) is int for key in METRICS[:4])
    assert all(one["seconds"] < other["seconds"] for one, other in pairwise(lines))
    assert lines[0]["games"] > 0
    assert lines[-1]["loss/td"] > 0
    assert lines[-1]["train/epsilon"] == pytest.approx(0.01)


@pytest.mark.slow
def test_what_is_not_known_yet_is_null(tmp_path):
    assert main([*TRAIN, "--run", str(tmp_path / "run"), "--total-steps", "20", "--log-every-steps", "10"]) == 0
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert list(first) == METRICS
    for key in ("train/return_per_game", "train/return_per_life", "loss/td", "q/mean"):
        assert first[key] is None


def test_progress_without_a_terminal_is_plain_lines(run):
    lines = (run.parent / "printed").read_text().splitlines()
    assert lines[0].startswith("cleanrl-dqn on catch: 2 games, cpu, ")
    assert str(run) in lines[0]
    ticks = [line for line in lines if line.startswith("step ")]
    assert [line.split("  ")[0] for line in ticks] == ["step 200 (33.3%)", "step 400 (66.7%)", "step 600 (100.0%)"]
    assert not any(control in line for line in lines for control in "\x1b\r")


def test_without_run_the_directory_names_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*TRAIN, "--total-steps", "10"]) == 0
    (made,) = (tmp_path / "runs").iterdir()
    assert made.name.startswith("catch-cleanrl-dqn-s3-2")


def test_a_run_can_begin_with_an_agent(run, tmp_path):
    agent = run / "checkpoints" / "step-000000000600" / "agent.safetensors"
    words = [*TRAIN, "--total-steps", "10", "--init"]
    assert main([*words, str(agent), "--run", str(tmp_path / "file")]) == 0
    assert main([*words, str(run), "--run", str(tmp_path / "run")]) == 0
    obs = np.random.default_rng(0).integers(0, 256, (3, 4, 84, 84), np.uint8)
    values = [pixelq.load_agent(place).q_values(obs) for place in (agent, tmp_path / "file", tmp_path / "run")]
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_array_equal(values[0], values[2])


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on_and_loses_nothing(run, tmp_path, capsys, monkeypatch):
    other = tmp_path / "run"
    show = PlainProgress.metrics

    def interrupt(self, record):
        show(self, record)
        if record["step"] == 400:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(PlainProgress, "metrics", interrupt)
    assert main([*TRAIN, "--run", str(other)]) == 130
    assert said(capsys)[-1] == f"saved at step 400; to continue: pixelq resume {other}"
    monkeypatch.setattr(PlainProgress, "metrics", show)
    assert main(["resume", str(other)]) == 0
    assert any(line.startswith("resumed at step 400") for line in said(capsys))
    assert metrics(other) == metrics(run)
    assert main(["resume", str(other)]) == 0
    assert said(capsys)[-1] == f"{other} is finished, at step 600"
    assert main(["resume", str(other), "--total-steps", "800"]) == 0
    assert metrics(other)[:3] == metrics(run)
    assert metrics(other)[-1]["step"] == 800
    assert main(["resume", str(other), "--stop-on", "return_per_game", "--stop-at", "9"]) == 0
    config = json.loads((other / "config.json").read_text())
    assert [config[name] for name in ("stop_on", "stop_at", "total_steps")] == ["return_per_game", 9.0, 800]


# eval and record


def result_of(lines):
    result = json.loads(lines[-1])
    assert list(result) == RESULT
    assert result["episodes"] == len(result["scores"])
    assert result["mean"] == pytest.approx(np.mean(result["scores"]))
    assert result["median"] == np.median(result["scores"])
    low, high = result["ci95"]
    assert low <= result["mean"] <= high
    return result


def test_an_agent_is_scored_and_the_result_kept(run, capsys):
    threads = torch.get_num_threads()
    assert main(["eval", str(run), "--episodes", "5", "--seed", "4", "--json", "--threads", "1"]) == 0
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)
    lines = said(capsys)
    result = result_of(lines)
    assert (result["protocol"], result["game"], result["episodes"]) == ("nature", "catch", 5)
    assert result["human_normalised"] is None
    assert lines[0] == f"catch: {run} at step 600, seed 4"
    place = run / "eval" / "nature-step-600-seed4.json"
    assert lines[-2] == f"saved as {place}"
    kept = json.loads(place.read_text())
    assert {key: kept[key] for key in RESULT} == result
    assert (kept["step"], kept["seed"]) == (600, 4)
    settings = kept["settings"]
    assert (settings["max_frames"], settings["noop_max"]) == (18_000, 30)
    assert (settings["sticky"], settings["epsilon"]) == (0.0, 0.05)
    assert settings["fire_at_start"] is True
    assert settings["fire_after_life_loss"] is True
    assert settings["text"] == lines[1]
    # the same command gives the same scores, another seed others
    assert main(["eval", str(run), "--episodes", "5", "--seed", "4", "--json"]) == 0
    assert result_of(said(capsys)) == result
    assert main(["eval", str(run), "--episodes", "5", "--seed", "5", "--json"]) == 0
    assert result_of(said(capsys))["scores"] != result["scores"]
    assert len(list((run / "eval").iterdir())) == 2


def test_a_run_without_its_eval_folder_gets_one(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    assert main(["eval", str(tmp_path / "run"), "--episodes", "1"]) == 0
    assert (tmp_path / "run" / "eval" / "nature-step-600-seed1.json").is_file()
    assert said(capsys)[-1].startswith("saved as")


def test_a_file_is_scored_and_nothing_written(run, tmp_path, capsys):
    agent = tmp_path / "agent.safetensors"
    shutil.copy(run / "checkpoints" / "step-000000000600" / "agent.safetensors", agent)
    assert main(["eval", str(agent), "--episodes", "5", "--seed", "4", "--game", "catch", "--json"]) == 0
    from_file = result_of(said(capsys))
    assert main(["eval", str(run), "--episodes", "5", "--seed", "4", "--json"]) == 0
    assert result_of(said(capsys)) == from_file
    assert [path.name for path in tmp_path.iterdir()] == ["agent.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_random_play_is_scored_under_every_protocol(capsys, protocol):
    game = ["--game", "ALE/Pong-v5"] if protocol == "machado" else []  # Breakout if none is given
    assert main(["eval", "random", "--protocol", protocol, "--episodes", "1", *game, "--json"]) == 0
    lines = said(capsys)
    result = result_of(lines)
    assert (result["protocol"], result["game"]) == (protocol, "pong" if game else "breakout")
    assert result["human_normalised"] is not None
    cap = "18,000" if protocol == "nature" else "108,000"
    sticky = "sticky 0.25" if protocol in ("dopamine", "machado") else "sticky 0"
    noops = "no no-ops" if protocol in ("dopamine", "machado", "plain") else "up to 30 no-ops"
    for part in (f"protocol {protocol}", cap, sticky, noops, "random", "FIRE pressed at the start", "FIRE assist"):
        assert part in lines[1]


def test_without_json_it_is_text_alone(capsys):
    assert main(["eval", "random", "--game", "catch", "--episodes", "3"]) == 0
    lines = said(capsys)
    assert lines[0] == "catch: random, seed 1"
    assert lines[1].startswith("protocol nature: ")
    assert [line.split()[0] for line in lines[2:]] == ["3", "mean", "median", "IQM", "human-normalised", "raw"]
    assert len(lines[-1].split()) == 2 + 3


@pytest.mark.slow
def test_a_game_is_recorded(run, tmp_path, capsys):
    out = tmp_path / "deep" / "game.mp4"
    assert main(["record", str(run), "--out", str(out), "--episodes", "2", "--seed", "7"]) == 0
    lines = said(capsys)
    with av.open(str(out)) as container:
        pictures = sum(1 for _ in container.decode(video=0))
    assert lines[0].startswith("protocol nature: ")
    assert len(lines[1].split()) == 2 + 2
    assert lines[2].startswith(f"{out}: {pictures} pictures, ")
    assert main(["record", "random", "--out", str(out), "--game", "catch", "--protocol", "dopamine"]) == 0
    assert said(capsys)[0].startswith("protocol dopamine: all actions random")


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "float16"])
def test_an_agent_is_exported(run, weights, tmp_path, capsys):
    out = tmp_path / "deep" / "agent.safetensors"
    assert main(["export", str(run), "--out", str(out), "--weights", weights]) == 0
    (line,) = said(capsys)
    assert line.startswith(f"{out}: catch, cleanrl-dqn, step 600, {weights}, ")
    source, copy = (pixelq.load_agent(path) for path in (run, out))
    assert copy.card == source.card
    dtype = getattr(torch, weights)
    for name, tensor in source.network.state_dict().items():
        assert torch.equal(copy.network.state_dict()[name], tensor.to(dtype).float())


def test_an_agent_is_exported_onto_itself(run, tmp_path, capsys):
    out = tmp_path / "agent.safetensors"
    assert main(["export", str(run), "--out", str(out)]) == 0
    data = out.read_bytes()
    assert main(["export", str(out), "--out", str(out)]) == 0
    assert out.read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["agent.safetensors"]


def test_games_are_counted_on_a_terminal_only(capsys, monkeypatch):
    with show_games("catch") as progress:
        assert progress is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with show_games("catch") as progress:
        progress(2, 5)
    out, err = capsys.readouterr()
    assert out == ""
    assert "catch" in err
    assert "2/5" in err


# from Python


def test_importing_pixelq_loads_no_torch():
    code = "import sys, pixelq; print('torch' in sys.modules); pixelq.preset; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.slow
def test_the_same_from_python(tmp_path):
    config = pixelq.preset("nature-dqn")
    assert isinstance(config, TrainConfig)
    result = pixelq.train(tiny("nature-dqn", total_steps=400, envs=2), tmp_path / "run")
    assert isinstance(result, RunResult)
    assert (result.run_dir, result.step, result.interrupted, result.solved) == (tmp_path / "run", 400, False, False)
    assert result.games > 0
    assert -10 <= result.return_per_game <= 10
    agent = pixelq.load_agent(tmp_path / "run")
    obs = np.random.default_rng(0).integers(0, 256, (5, 4, 84, 84), np.uint8)
    actions, values = agent.act(obs), agent.q_values(obs)
    assert (actions.dtype, actions.shape) == (np.int64, (5,))
    assert (values.dtype, values.shape) == (np.float32, (5, 3))
    np.testing.assert_array_equal(actions, values.argmax(axis=1))
    assert type(actions) is type(values) is np.ndarray
    assert agent.act(obs[:1]).shape == (1,)
