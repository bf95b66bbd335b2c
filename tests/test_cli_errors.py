"""Bad input: each case has its one line on stderr and its exit status, and harms nothing that is there."""

import dataclasses
import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

import pixelq
from pixelq.agent import AgentCard, save_agent
from pixelq.cli.complaints import explain
from pixelq.cli.main import main
from pixelq.cli.options import parse
from pixelq.config import DQNConfig, NetworkConfig
from pixelq.errors import PixelqError
from pixelq.networks import make_network
from pixelq.run.rundir import RunDir
from pixelq.run.storage import StorageError
from runs import tiny

NETWORK = NetworkConfig(channels=(1, 1, 1), hidden=4)
# a run of seconds should a case be let through by mistake
TINY = (
    "--game catch --total-steps 32 --envs 2 --threads 1 --device cpu --network.channels 1 1 1 --network.hidden 4 "
    "--replay.capacity 100 --replay.learn-start 33 --video-every-episodes 0"
)


def write_agent(path, game, action_meanings):
    card = AgentCard(game, action_meanings, False, 0.0, False, NETWORK, DQNConfig(), "custom", 7, 1)
    weights = make_network(NETWORK, len(action_meanings), torch.Generator().manual_seed(0)).state_dict()
    save_agent(path, weights, card)


def write_config(run, text):
    run.mkdir()
    (run / "checkpoints").mkdir()
    (run / "config.json").write_text(text)


def damage(run):
    for path in run.glob("checkpoints/step-*/*.safetensors"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with everything that can be given by mistake, and what makes it look right."""
    world = tmp_path_factory.mktemp("world")
    config = tiny("cleanrl-dqn", total_steps=64, envs=2, checkpoint_every_steps=32, network=NETWORK)
    pixelq.train(config, world / "run")
    shutil.copytree(world / "run", world / "damaged")
    damage(world / "damaged")
    plain = (world / "run" / "config.json").read_text()
    settings = json.loads(plain)
    write_config(world / "no-checkpoint", plain)
    write_config(world / "no-json", plain[:-20])
    write_config(world / "no-object", "[]")
    write_config(world / "unknown-key", json.dumps(settings | {"sed": 1}))
    write_config(world / "wrong-type", json.dumps(settings | {"envs": "8"}))
    write_config(world / "wrong-part", json.dumps(settings | {"env": {"noop_max": True}}))
    write_config(world / "wrong-choice", json.dumps(settings | {"device": "tpu"}))
    write_config(world / "out-of-range", json.dumps(settings | {"seed": -1}))
    write_config(world / "not-a-number", json.dumps(settings | {"stop_at": float("nan")}))
    write_agent(world / "catch.safetensors", "catch", ("NOOP", "RIGHT", "LEFT"))
    write_agent(world / "breakout.safetensors", "breakout", ("NOOP", "FIRE", "RIGHT", "LEFT"))
    data = (world / "catch.safetensors").read_bytes()
    (world / "truncated.safetensors").write_bytes(data[: len(data) // 2])
    (world / "empty.safetensors").touch()
    (world / "noise.safetensors").write_bytes(bytes(range(256)))
    safetensors.torch.save_file({"weight": torch.zeros(2)}, world / "foreign.safetensors")
    (world / "agent.pt").write_bytes(data)
    (world / "notes.txt").write_text("mine")
    (world / "empty").mkdir()
    (world / "videos/mine").mkdir(parents=True)
    (world / "folder.mp4").mkdir()
    (world / "folder.safetensors").mkdir()
    (world / "link").symlink_to("nowhere")
    (world / "loop").symlink_to("loop")
    return world


@pytest.fixture
def here(world, monkeypatch):
    monkeypatch.chdir(world)
    return world


def contents(folder):
    """Every path under a folder with its bytes; a run's lock, which is empty, may come."""
    paths = sorted(path for path in folder.rglob("*") if path.name != ".lock")
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


CASES = {
    # the verb
    "no words": (
        "",
        re.compile(
            r"a command is missing: train, resume, sweep, tune, report, eval, .*presets, games; see: pixelq --help"
        ),
        2,
    ),
    "unknown verb": ("trian", 'unknown command "trian" (did you mean "train"?); see: pixelq --help', 2),
    "strange verb": ("--frobnicate", 'unknown command "--frobnicate"; see: pixelq --help', 2),
    "empty verb": ("''", 'unknown command ""; see: pixelq --help', 2),
    # what a verb is followed by
    "unknown preset": ("train nature", 'unknown preset "nature" (did you mean "nature-dqn"?); see: pixelq presets', 2),
    "empty preset": ("train ''", 'unknown preset ""; see: pixelq presets', 2),
    "preset as an option": (
        "train --preset cleanrl-dqn",
        "--preset is not how to choose one: pixelq train cleanrl-dqn …",
        2,
    ),
    "unknown game": ("train --game brekout", 'unknown game "brekout" (did you mean "breakout"?); see: pixelq games', 2),
    "unknown id": (
        "train --game ALE/Brakout-v5",
        'unknown game "ALE/Brakout-v5" (did you mean "breakout"?); see: pixelq games',
        2,
    ),
    "id of another frame skip": (
        "train --game Breakout-v4",
        'game id "Breakout-v4" has another frame skip: use "breakout", "ALE/Breakout-v5" or "BreakoutNoFrameskip-v4"',
        2,
    ),
    "empty game": ("train --game ''", "--game is empty; see: pixelq train --help", 2),
    "unicode game": ("train --game прорыв", 'unknown game "прорыв"; see: pixelq games', 2),
    "unknown option": (
        "train --sed 3",
        'unknown option --sed (did you mean "--seed"?); see: pixelq train --help',
        2,
    ),
    "unknown option of a part": (
        "train nature-dqn --replay.capcity=10",
        'unknown option --replay.capcity (did you mean "--replay.capacity"?); see: pixelq train nature-dqn --help',
        2,
    ),
    "option without its part": (
        "train --capacity 10",
        'unknown option --capacity (did you mean "--replay.capacity"?); see: pixelq train --help',
        2,
    ),
    "threads below none": (
        "eval random --threads -1",
        "--threads is -1: must be between 0 (one a core) and 1,024",
        2,
    ),
    "another library's name of an option": (
        "train --lr 1e-4",
        'unknown option --lr (did you mean "--optimiser.learning-rate"?); see: pixelq train --help',
        2,
    ),
    "several unknown options": (
        "train --xyzzy 1 --seed 2 --plugh",
        "unknown options --xyzzy, --plugh; see: pixelq train --help",
        2,
    ),
    "unicode option": ("train --приставка 3", "unknown option --приставка; see: pixelq train --help", 2),
    "short option": ("train -s 3", "unknown option -s; see: pixelq train --help", 2),
    "the parser's own option": (
        "train --tyro-print-completion bash",
        "unknown option --tyro-print-completion; see: pixelq train --help",
        2,
    ),
    "word too many": ("resume run run", 'unexpected word "run"; see: pixelq resume --help', 2),
    "word after a flag": ("train --notebook-log yes", 'unexpected word "yes"; see: pixelq train --help', 2),
    "option for a verb without": ("games --json", "unknown option --json; see: pixelq games --help", 2),
    "word for a verb without": ("presets nature", 'unexpected word "nature"; see: pixelq presets --help', 2),
    # values of another type
    "no whole number": ("train --seed x", "--seed is x: must be a whole number; see: pixelq train --help", 2),
    "half a number": ("train --envs 1.5", "--envs is 1.5: must be a whole number; see: pixelq train --help", 2),
    "empty number": ("train --seed ''", "--seed is empty; see: pixelq train --help", 2),
    "an empty address": ("train --actors 2 --ray=", "--ray needs a value; see: pixelq train --help", 2),
    "no number": (
        "train --env.sticky often",
        "--env.sticky is often: must be a number; see: pixelq train --help",
        2,
    ),
    "no choice": (
        "train --device gpu",
        '--device is gpu: must be auto, cpu, cuda or mps (did you mean "cpu"?); see: pixelq train --help',
        2,
    ),
    "nearly a choice": (
        "train --optimiser.name rmsprop",
        "--optimiser.name is rmsprop: must be adam, keras_adam, radam or centred_rmsprop "
        '(did you mean "centred_rmsprop"?); see: pixelq train --help',
        2,
    ),
    "no values": ("sweep fast --games --folder f", "--games needs a value; see: pixelq sweep --help", 2),
    "no values at the end": ("sweep fast --folder f --games", "--games needs a value; see: pixelq sweep --help", 2),
    "an empty list": ("sweep fast --folder f --seeds ''", "--seeds is empty; see: pixelq sweep --help", 2),
    "a tracker's option alone": (
        "train --track.project p",
        "--track.project, .name and .tags need a tracker: --track wandb, mlflow, trackio or tensorboard",
        2,
    ),
    "no value": ("train --game", "--game needs a value; see: pixelq train --help", 2),
    "an option for a value": ("train --game --seed 1", "--game needs a value; see: pixelq train --help", 2),
    "too few values": (
        "train --network.channels 1 2",
        "--network.channels needs 3 values; see: pixelq train --help",
        2,
    ),
    "one bad value of three": (
        "train --network.channels 1 2 x",
        "--network.channels is 1 2 x: must be 3 whole numbers; see: pixelq train --help",
        2,
    ),
    "value for a flag": (
        "train --notebook-log=no",
        "--notebook-log takes no value; see: pixelq train --help",
        2,
    ),
    "value of several lines": (
        "train --seed 'a\nb'",
        "--seed is a b: must be a whole number; see: pixelq train --help",
        2,
    ),
    "endless value": (
        f"train --seed {'9' * 5000}",
        f"--seed is {'9' * 59}…: must be a whole number; see: pixelq train --help",
        2,
    ),
    "one bad value of many": (
        "bench replay --stores lz4 disk --seconds 0",
        "--stores is lz4 disk: must be any of lz4, ram or device; see: pixelq bench replay --help",
        2,
    ),
    # values out of range; every bound has its case in test_config.py
    "negative seed": ("train --seed -1", "--seed is -1: must be between 0 and 2147483647", 2),
    "huge seed": (f"train --seed {2**63}", f"--seed is {2**63}: must be between 0 and 2147483647", 2),
    "huge count": (
        f"train --total-steps {10**18}",
        f"--total-steps is {10**18}: must be at most 1,000,000,000,000,000",
        2,
    ),
    "negative epsilon": (
        "train --exploration.end -0.1",
        "--exploration.end is -0.1: must be between 0 and 1",
        2,
    ),
    "not a number": ("train --algo.gamma nan", "--algo.gamma is nan: must be between 0 and 1", 2),
    "no finite number": ("train --stop-at inf", "--stop-at is inf: must be a finite number", 2),
    "conflict of settings": (
        "train --exploration.start 0.1 --exploration.end 0.5",
        "--exploration.end is 0.5: must not be above --exploration.start (0.1)",
        2,
    ),
    # where a run is to be
    "a run that exists": (
        f"train {TINY} --run run",
        "run exists already: give --run a new path; to continue it: pixelq resume run",
        2,
    ),
    "a folder that exists": (f"train {TINY} --run videos", "videos exists already: give --run a new path", 2),
    "a file that exists": (f"train {TINY} --run notes.txt", "notes.txt exists already: give --run a new path", 2),
    "a link to nowhere": (f"train {TINY} --run link", "link exists already: give --run a new path", 2),
    "no place at all": (f"train {TINY} --run ''", "--run is empty; see: pixelq train --help", 2),
    "a file for a folder": (
        f"train {TINY} --run notes.txt/run",
        re.compile(r"--run notes.txt/run cannot be made: \S+/notes.txt is not a folder"),
        2,
    ),
    "an endless name": (
        f"train {TINY} --run {'x' * 300}",
        f"--run {'x' * 300} cannot be made: File name too long",
        2,
    ),
    "a place that takes no folder": (
        f"train {TINY} --run /proc/nowhere",
        "--run /proc/nowhere cannot be made: No such file or directory",
        2,
    ),
    "a link in circles": (f"train {TINY} --run loop", "loop exists already: give --run a new path", 2),
    # what a run needs
    "too large a replay": (
        f"train {TINY} --replay.capacity 10000000000 --replay.store ram --run new",
        re.compile(r"the replay buffer needs \S+ GB but \S+ GB are free: lower --replay.capacity"),
        2,
    ),
    "too large a compressed replay": (
        f"train {TINY} --replay.capacity 100000000000 --replay.store lz4 --run new",
        re.compile(r"the replay buffer.* needs \S+ GB.* but \S+ GB are free: lower --replay.capacity"),
        2,
    ),
    "no agent to begin with": (
        f"train {TINY} --init nowhere --run new",
        "nowhere does not exist: give a run directory, a .safetensors file or an agent that ships: breakout",
        2,
    ),
    "no agent at a path": (
        f"train {TINY} --init ./breakout --run new",
        re.compile(r"\./breakout does not exist .*"),
        2,
    ),
    "an agent of another network": (
        f"train {TINY} --network.hidden 5 --init catch.safetensors --run new",
        re.compile(
            r"--init catch.safetensors: its network is made with .*--network.hidden 4 --network.background none; "
            r"begin with the same"
        ),
        2,
    ),
    "an agent of another game": (
        f"train {TINY} --init breakout.safetensors --run new",
        "--init breakout.safetensors: it plays breakout with the actions NOOP FIRE RIGHT LEFT; "
        "this run has NOOP RIGHT LEFT",
        2,
    ),
    "an agent of a preset with another network": (
        f"train {TINY} --game breakout --init breakout --run new",
        re.compile(
            r"--init breakout: its network is made with .*--network.norm layer --network.background none; "
            r"begin with the same"
        ),
        2,
    ),
    "an agent of an algorithm with another head": (
        f"train c51 {TINY} --init catch.safetensors --run new",
        re.compile(r"--init catch.* it comes from the preset \S+ \(dqn\), this run's algorithm is c51; begin with .*"),
        2,
    ),
    # going on with a run
    "no run given": ("resume", "RUN is missing: pixelq resume RUN", 2),
    "no such run": ("resume nowhere", "nowhere does not exist: give the directory of a run", 2),
    "a folder that is no run": ("resume empty", "empty is not a run directory: it has no config.json", 2),
    "a file that is no run": ("resume notes.txt", "notes.txt is not a run directory: it has no config.json", 2),
    "a run without checkpoint": ("resume no-checkpoint", "no checkpoint in no-checkpoint/checkpoints", 2),
    "a run with damaged checkpoints": (
        "resume damaged",
        re.compile(r"no undamaged checkpoint in damaged/checkpoints: damaged/\S+ is damaged: its checksum differs"),
        2,
    ),
    "settings that are no JSON": ("resume no-json", "no-json/config.json is damaged: not JSON", 2),
    "settings that are a list": (
        "resume no-object",
        "no-object/config.json cannot be used: the settings must be an object",
        2,
    ),
    "an unknown setting": ("resume unknown-key", 'unknown-key/config.json cannot be used: unknown setting "sed"', 2),
    "a setting of another type": (
        "resume wrong-type",
        "wrong-type/config.json cannot be used: \"envs\" is '8': must be a whole number",
        2,
    ),
    "a part's setting of another type": (
        "resume wrong-part",
        'wrong-part/config.json cannot be used: "env.noop_max" is True: must be a whole number',
        2,
    ),
    "a setting that is no choice": (
        "resume wrong-choice",
        "wrong-choice/config.json cannot be used: \"device\" is 'tpu': must be 'auto' or 'cpu' or 'cuda' or 'mps'",
        2,
    ),
    "a setting out of range": (
        "resume out-of-range",
        "out-of-range/config.json cannot be used: --seed is -1: must be between 0 and 2147483647",
        2,
    ),
    "a setting that is NaN": (
        "resume not-a-number",
        "not-a-number/config.json cannot be used: --stop-at is nan: must be a finite number",
        2,
    ),
    "no steps": ("resume run --total-steps 0", "--total-steps is 0: must be at least 1", 2),
    "a mean that is none": (
        "resume run --stop-on None",
        '--stop-on is None: must be none, return_per_life or return_per_game (did you mean "none"?); '
        "see: pixelq resume --help",
        2,
    ),
    "a mark that is NaN": ("resume run --stop-at nan", "--stop-at is nan: must be a finite number", 2),
    "too many threads": (
        "resume run --threads 5000",
        "--threads is 5000: must be between 0 (one a core) and 1,024",
        2,
    ),
    # agents
    "no agent given": ("eval --episodes 3", "AGENT is missing: pixelq eval AGENT", 2),
    "a slip in the name of an agent": (
        "eval braekout",
        re.compile(r'braekout does not exist \(did you mean "breakout"\?\): give a run directory, .*'),
        2,
    ),
    "no agent for a benchmark": (
        "bench replay --agent nowhere",
        "nowhere does not exist: give a run directory, a .safetensors file or an agent that ships: breakout",
        2,
    ),
    "no such agent": (
        "eval nowhere",
        "nowhere does not exist: give a run directory, a .safetensors file or an agent that ships: breakout",
        2,
    ),
    "an empty name": ("eval ''", "AGENT is empty; see: pixelq eval --help", 2),
    "another kind of file": ("eval agent.pt", "agent.pt is no agent file: pixelq loads .safetensors and .onnx", 2),
    "an empty file": ("eval empty.safetensors", "empty.safetensors is damaged, or no safetensors file", 2),
    "half a file": ("eval truncated.safetensors", "truncated.safetensors is damaged, or no safetensors file", 2),
    "noise": ("eval noise.safetensors", "noise.safetensors is damaged, or no safetensors file", 2),
    "somebody else's weights": (
        "eval foreign.safetensors",
        "foreign.safetensors is not an agent of pixelq: it has no agent card",
        2,
    ),
    "a folder without checkpoints": ("eval empty", "empty is no run directory: it has no checkpoints folder", 2),
    "an agent not trained yet": ("eval no-checkpoint", "no-checkpoint has no checkpoint yet", 2),
    "a damaged agent": (
        "eval damaged --json",
        re.compile(r"damaged has no undamaged checkpoint: damaged/\S+/agent.safetensors is damaged: its checksum .*"),
        2,
    ),
    "unknown protocol": (
        "eval catch.safetensors --protocol natur",
        'unknown protocol "natur" (did you mean "nature"?); there are: nature, noop, dopamine, machado, plain',
        2,
    ),
    "a protocol for 18 actions": (
        "eval breakout.safetensors --protocol machado",
        "protocol machado plays with all 18 actions: this agent of breakout has 4 actions (NOOP FIRE RIGHT LEFT)",
        2,
    ),
    "no games": ("eval random --episodes 0", "--episodes is 0: must be between 1 and 100,000", 2),
    "too many games": (
        f"eval random --episodes {10**12}",
        f"--episodes is {10**12}: must be between 1 and 100,000",
        2,
    ),
    "a seed below 0": ("eval random --seed -1", "--seed is -1: must be between 0 and 2147483647", 2),
    "a seed too large": (f"eval random --seed {2**31}", f"--seed is {2**31}: must be between 0 and 2147483647", 2),
    "an unknown game to evaluate": (
        "eval random --game pomg",
        'unknown game "pomg" (did you mean "pong"?); see: pixelq games',
        2,
    ),
    "a game the agent doesn't play": (
        "eval catch.safetensors --game pong",
        "--game is pong: this agent plays catch; leave --game out",
        2,
    ),
    "nearly a device": (
        "eval random --device CPU",
        '--device is CPU: must be auto, cpu, cuda or mps (did you mean "cpu"?); see: pixelq eval --help',
        2,
    ),
    # videos
    "no agent to record": ("record --out a.mp4", "AGENT is missing: pixelq record AGENT --out FILE.mp4", 2),
    "no video named": ("record random", "--out is missing: pixelq record AGENT --out FILE.mp4", 2),
    "another kind of video": ("record random --out a.gif", "--out a.gif: a video's name must end in .mp4", 2),
    "a video without name": ("record random --out ''", "--out is empty; see: pixelq record --help", 2),
    "a folder for a video": (
        "record random --out folder.mp4",
        "--out folder.mp4 is a folder: give the video a file name",
        2,
    ),
    "a video in a file": (
        "record random --out notes.txt/a.mp4",
        re.compile(r"--out notes.txt/a.mp4 cannot be made: \S+/notes.txt is not a folder"),
        2,
    ),
    "a video on a missing drive": (
        "record random --game catch --out /proc/drive/a.mp4",
        re.compile(r"cannot write /proc/drive/a.mp4: .*"),
        1,
    ),
    # agent files
    "nothing to export": (
        "export --out a.safetensors",
        "AGENT is missing: pixelq export AGENT --out FILE",
        2,
    ),
    "nobody to export": (
        "export random --out a.safetensors",
        "random has no weights: give a run directory or a .safetensors file",
        2,
    ),
    "another kind of agent file": (
        "export catch.safetensors --out a.pt",
        "--out a.pt: an agent file's name must end in .safetensors, .onnx or .pt2",
        2,
    ),
    "a folder for an agent": (
        "export catch.safetensors --out folder.safetensors",
        "--out folder.safetensors is a folder: give the agent a file name",
        2,
    ),
    "an agent in a file": (
        "export catch.safetensors --out notes.txt/a.safetensors",
        re.compile(r"--out notes.txt/a.safetensors cannot be made: \S+/notes.txt is not a folder"),
        2,
    ),
    "weights in no known form": (
        "export catch.safetensors --out a.safetensors --weights half",
        "--weights is half: must be float32, bfloat16 or float16; see: pixelq export --help",
        2,
    ),
    "no games to record": (
        "record random --out a.mp4 --episodes 0",
        "--episodes is 0: must be between 1 and 100,000",
        2,
    ),
}


@pytest.mark.parametrize(("words", "says", "status"), CASES.values(), ids=list(CASES))
def test_bad_input_is_one_line(here, capsys, words, says, status):
    before = contents(here)
    assert main(shlex.split(words)) == status
    out, err = capsys.readouterr()
    assert out == ""
    line = err.removeprefix("pixelq: ").removesuffix("\n")
    assert err == f"pixelq: {line}\n"
    assert "\n" not in line
    if isinstance(says, re.Pattern):
        assert says.fullmatch(line)
    else:
        assert line == says
    assert contents(here) == before


def test_there_are_many_cases():
    assert len(CASES) >= 90


@pytest.mark.parametrize("words", [f"train {TINY} --run new --device cuda", "resume run --device cuda"])
def test_a_device_that_is_not_there(here, capsys, words):
    before = contents(here)
    assert main(shlex.split(words)) == 2
    expected = "pixelq: --device cuda: torch finds no CUDA GPU here; use --device cpu or auto\n"
    assert capsys.readouterr() == ("", expected)
    for verb in ("eval catch.safetensors", "eval random", "record random --out a.mp4"):
        assert main([*verb.split(), "--device", "cuda"]) == 2
        assert capsys.readouterr() == ("", expected)
    assert contents(here) == before


def test_a_run_that_another_process_is_writing(here, capsys):
    before = contents(here)
    with RunDir(Path("run")).lock():
        assert main(["resume", "run", "--total-steps", "128"]) == 2
    assert capsys.readouterr() == (
        "",
        "pixelq: run is in use: another process is writing this run; if it is just ending, try again\n",
    )
    assert contents(here) == before


@pytest.mark.parametrize(
    ("verb", "says"),
    [
        (f"train {TINY} --run empty/run", "--run empty/run cannot be made: {} cannot be written"),
        ("record random --out empty/a.mp4", "--out empty/a.mp4 cannot be made: {} cannot be written"),
    ],
)
def test_a_folder_that_cannot_be_written(here, capsys, monkeypatch, verb, says):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert main(shlex.split(verb)) == 2
    assert capsys.readouterr() == ("", f"pixelq: {says.format(here / 'empty')}\n")


def test_a_result_that_cannot_be_kept_is_still_shown(here, capsys, monkeypatch):
    def full(self, name, value):
        raise StorageError(f"cannot write {self.path / name}: the disk is full")

    monkeypatch.setattr(RunDir, "write_json", full)
    assert main(["eval", "run", "--episodes", "1", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["episodes"] == 1
    assert err == "pixelq: cannot write run/eval/nature-step-64-seed1.json: the disk is full\n"


def test_a_damaged_newest_agent_is_told_and_the_one_before_used(world, tmp_path, capsys):
    shutil.copytree(world / "run", tmp_path / "run")
    newest = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[-1]
    (newest / "agent.safetensors").write_bytes(b"")
    assert main(["eval", str(tmp_path / "run"), "--episodes", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"catch: {tmp_path / 'run'} at step 32, seed 1\n")
    assert err.startswith(f"pixelq: {newest / 'agent.safetensors'} is damaged")
    assert err.endswith("; using the checkpoint before it\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error", "there"), OSError("strange")])
def test_an_error_of_the_machine_is_one_line(capsys, monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr("pixelq.cli.games.game_names", fail)
    assert main(["games"]) == 1
    expected = "there: Input/output error" if error.filename else "strange"
    assert capsys.readouterr() == ("", f"pixelq: {expected}\n")


def test_an_interrupt_before_there_is_anything_to_save(capsys, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("pixelq.cli.games.game_names", interrupt)
    assert main(["games"]) == 130
    assert capsys.readouterr() == ("", "pixelq: interrupted\n")


@dataclasses.dataclass(frozen=True)
class Options:
    count: int = 1


def test_what_only_the_parser_understands_is_told_in_its_own_words(monkeypatch):
    assert explain(Options, ["--count", "3"], "pixelq x") is None
    monkeypatch.setattr("pixelq.cli.options.explain", lambda *_: None)
    with pytest.raises(PixelqError) as caught:
        parse(Options, ["--count", "many"], "pixelq x", "")
    line = str(caught.value)
    assert re.fullmatch(r"Error parsing --count: .*'many'; see: pixelq x --help", line)


# in a process of their own: the real entry point, and torch that must not be loaded

PIXELQ = [sys.executable, "-m", "pixelq"]
NO_TORCH = """
import shlex, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise AssertionError("torch was imported")

sys.meta_path.insert(0, Refuse())
from pixelq.cli.main import main

for line in sys.stdin.read().split("\\0"):
    print(main(shlex.split(line)), file=sys.stderr)
"""
NEEDS_TORCH = {  # a network, a checkpoint or the machine has to be looked at
    "a place that takes no folder",
    "too large a replay",
    "too large a compressed replay",
    "an agent of another network",
    "an agent of another game",
    "an agent of a preset with another network",
    "an agent of an algorithm with another head",
    "a run without checkpoint",
    "a run with damaged checkpoints",
    "an empty file",
    "half a file",
    "noise",
    "somebody else's weights",
    "an agent not trained yet",
    "a damaged agent",
    "a protocol for 18 actions",
    "a game the agent doesn't play",
    "a video on a missing drive",
}


@pytest.mark.slow
def test_what_can_be_checked_without_torch_is(here):
    light = [words for name, (words, _, _) in CASES.items() if name not in NEEDS_TORCH]
    command, told = [sys.executable, "-c", NO_TORCH], "\0".join(light)
    done = subprocess.run(command, input=told, capture_output=True, text=True, check=False)
    assert "torch was imported" not in done.stderr
    lines = done.stderr.splitlines()
    assert lines[1::2] == ["2"] * len(light)
    assert all(line.startswith("pixelq: ") for line in lines[::2])
    assert done.returncode == 0
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], 'pixelq: unknown command "trian" (did you mean "train"?); see: pixelq --help\n'),
        (["train", "--seed", "x"], "pixelq: --seed is x: must be a whole number; see: pixelq train --help\n"),
        (["resume"], "pixelq: RUN is missing: pixelq resume RUN\n"),
        (
            ["eval", b"\xff.safetensors"],
            "pixelq:  .safetensors does not exist: give a run directory, a .safetensors file or an agent that ships: "
            "breakout\n",
        ),
    ],
)
def test_a_real_process_ends_with_the_status(here, words, says):
    done = subprocess.run([*PIXELQ, *words], capture_output=True, check=False, env=os.environ | {"COLUMNS": "40"})
    assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", says)


def test_a_terminal_without_greek_is_no_error():
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*PIXELQ, "presets"], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "keras-example" in done.stdout


def test_a_closed_pipe_is_no_error():
    done = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$0" -m pixelq games | head -n 1', sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
