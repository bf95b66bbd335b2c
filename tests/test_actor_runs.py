"""Whole runs with actors: in this process, and on a Ray cluster."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pixelq.cli.main import main
from pixelq.distributed.feed import Arrived, Feed, Lost
from pixelq.distributed.player import make_player
from pixelq.envs.testing import Catch
from pixelq.errors import PixelqError
from pixelq.extras import install_command
from pixelq.training.run import resume, train
from runs import Watch, metrics, quick, tiny


class Here:
    """Actors in this process: a whole run without Ray.

    `kill` names actors to lose, by the number of batches before; others take their place after `away` polls.
    """

    def __init__(self, number, kill=None, away=0):
        self.number, self.kill, self.away = number, dict(kill or {}), away
        self.looks = 0
        self.feed = None

    def games(self, config, step):
        self.step, self.each = step, dataclasses.replace(config, envs=config.envs // self.number)
        self.players, self.asked, self.sent, self.closed = {}, [], 0, 0
        self.feed = Feed(config, self.number, Catch(1).spec, self)
        return self.feed

    def begin(self, actor, life):
        self.players[actor] = make_player(
            self.each, actor, self.number, f"actor {actor}, life {life}, from {self.step}"
        )

    def ask(self, actor, life, number):
        self.asked.append((actor, life, number, self.weights))

    def publish(self, weights):
        self.weights = weights

    def poll(self, seconds):
        self.looks -= 1
        for sent, actor in list(self.kill.items()):
            lost = [one for one in self.asked if one[0] == actor]
            if self.sent >= sent and lost:
                del self.kill[sent]
                self.looks = self.away
                self.asked = [one for one in self.asked if one[0] != actor]
                return [Lost(actor, lost[0][1], "killed")]
        now = [one for one in self.asked if one[1] == 0 or self.looks <= 0]
        self.asked = [one for one in self.asked if one not in now]
        self.sent += len(now)
        return [Arrived(*one[:3], self.players[one[0]].play(one[3])) for one in now]

    def close(self):
        self.closed += 1


def go(config, run, actors, at=None):
    watch = Watch(config, at)
    return train(config, run, progress=watch, actors=actors), watch.notes


@pytest.mark.slow
def test_a_run_is_played_by_actors_and_goes_on_with_them_or_without(tmp_path):
    config, actors, run = quick(envs=2, total_steps=1_000), Here(3, {6: 1}), tmp_path / "run"
    result, notes = go(config, run, actors)
    assert result.step >= 1_000
    assert not result.interrupted
    assert json.loads((run / "config.json").read_text())["envs"] == 6
    assert "3 actors with 2 games each, ε from 0.4 to 0.00066 in place of --exploration" in notes
    lost = [note for note in notes if "was lost" in note]
    assert lost == ["actor 1 was lost (killed), with 1 batch of it (number 3); another takes its place, with new games"]
    accounts = actors.feed.accounts
    assert (accounts.lost, accounts.lives) == (1, 4)
    said = next(note for note in notes if "batches received" in note)
    assert said.startswith(f"{accounts.received} batches received with {result.step:,} steps learned from, 1 lost;")
    assert "actors replaced 1 times" in said
    assert actors.closed
    assert metrics(run)[-1]["train/epsilon"] == pytest.approx(np.mean([0.4, 0.4**4.5, 0.4**8]))
    updates = [record["loss/td"] for record in metrics(run)]
    assert updates[-1] is not None

    # ordinary resume: this process plays, from then on an ordinary run
    watch = Watch(config)
    resume(run, total_steps=1_200, progress=watch)
    assert any("actors played these games, which are dropped: this process starts 6 new ones" in n for n in watch.notes)
    watch = Watch(config)
    resume(run, total_steps=1_300, progress=watch)
    assert any(note.startswith("resumed at step 1,20") and "restored in" in note for note in watch.notes)

    # and with actors again, another number of them
    watch, actors = Watch(config), Here(2)
    result = resume(run, total_steps=1_500, progress=watch, actors=actors)
    assert result.step >= 1_500
    assert "actors start new games; the old games are dropped" in watch.notes
    assert actors.step == 1_302
    with pytest.raises(PixelqError, match=r"--actors is 4: this run has 6 games.* 1, 2, 3, 6 can"):
        resume(run, total_steps=1_600, actors=Here(4))


@pytest.mark.slow
def test_an_interrupted_run_goes_on_by_the_same_command(tmp_path):
    config, run = quick(envs=2, total_steps=800), tmp_path / "run"
    stop = lambda record: os.kill(os.getpid(), signal.SIGTERM) if record["step"] >= 400 else None  # noqa: E731
    result, notes = go(config, run, Here(2), stop)
    assert result.interrupted
    assert any(note.startswith("saved at step") for note in notes)
    watch = Watch(config)
    result = train(config, run, progress=watch, actors=Here(2), or_resume=True)
    assert result.step >= 800
    assert any("with fresh games" in note for note in watch.notes)
    with pytest.raises(PixelqError, match="envs is 4 there and 6 here"):
        train(config, run, actors=Here(3), or_resume=True)


@pytest.mark.slow
def test_updates_keep_their_ratio_to_steps_though_an_actor_is_missing(tmp_path):
    config = quick(envs=1, total_steps=900, replay={"train_period": 8, "learn_start": 100})
    counts = []

    class Count:
        def on_log(self, run):
            counts.append((run.step, run._parts.learner.updates))

    actors = Here(4, {4: 2, 16: 0}, away=12)
    train(config, tmp_path / "run", progress="none", actors=actors, callbacks=[Count()])
    assert actors.feed._given * 4 > 1_000  # some places were empty
    (first_step, first), (last_step, last) = counts[0], counts[-1]
    # the updates of the newest row are still owed: 4 steps at most
    assert abs((last - first) - (last_step - first_step) / 8) <= 1
    assert first_step < 400


def test_what_actors_cannot_do_is_one_line(tmp_path, capsys):
    pqn = tiny("pqn")
    with pytest.raises(PixelqError, match="--actors does not go with pqn"):
        train(pqn, tmp_path / "a", actors=Here(2))
    with pytest.raises(PixelqError, match="name the game as module:function"):
        train(quick(), tmp_path / "a", actors=Here(2), make_env=lambda: None)
    assert main(["train", "pqn", "--actors", "2", "--ray", "local", "--run", str(tmp_path / "a")]) == 2
    assert "--actors does not go with pqn" in capsys.readouterr().err
    assert main(["train", "fast", "--ray", "local", "--run", str(tmp_path / "a")]) == 2
    assert capsys.readouterr().err == "pixelq: --ray local needs --actors: how many processes of the cluster play\n"
    assert main(["train", "fast", "--actors", "0", "--run", str(tmp_path / "a")]) == 2
    assert "--actors is 0: must be at least 1" in capsys.readouterr().err
    assert main(["train", "fast", "--actors", "600", "--envs", "8", "--run", str(tmp_path / "a")]) == 2
    assert "--actors is 600 with --envs 8: 4,800 games, at most 4,096 together" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["train", "resume"])
def test_without_ray_one_line_says_what_to_install(monkeypatch, capsys, tmp_path, verb):
    find = importlib.util.find_spec
    run = tmp_path / "run"
    if verb == "resume":
        train(quick(total_steps=40), run, progress="none")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ray" else find(name))
    words = ["train", "fast", "--run", str(run)] if verb == "train" else ["resume", str(run)]
    assert main([*words, "--ray", "local", "--actors", "2"]) == 2
    assert capsys.readouterr().err == f"pixelq: this needs ray: {install_command('ray')}\n"


# a cluster


def wait_for(condition, seconds=1_200):  # Ray alone takes minutes to start on a busy machine
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def step_of(run):
    lines = (run / "metrics.jsonl").read_bytes().splitlines() if (run / "metrics.jsonl").exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def processes_of_actors():
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"RayPlayer" in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_a_run_on_a_cluster_outlives_an_actor_and_a_node(tmp_path):
    pytest.importorskip("ray")
    tests, run = Path(__file__).parent, tmp_path / "run"
    variables = os.environ | {"PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "text": True, "env": variables}
    command = [sys.executable, "-m", "pixelq", "train", "cleanrl-dqn", "--game", "own_games:unhurried"]
    command += ["--run", str(run), "--actors", "4", "--envs", "1", "--total-steps", "6000", "--log-every-steps", "100"]
    command += ["--replay.capacity", "2000", "--replay.learn-start", "100", "--replay.batch-size", "8"]
    command += ["--replay.train-period", "16", "--network.channels", "4", "4", "4", "--network.hidden", "16"]
    command += ["--threads", "1", "--video-every-episodes", "0", "--target-period-steps", "200", "--progress", "lines"]
    nodes = subprocess.Popen(
        [sys.executable, str(tests / "ray_nodes.py"), "2", "2"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        **pipes,
    )
    with nodes:
        others = set(processes_of_actors())
        command += ["--ray", nodes.stdout.readline().strip()]
        with subprocess.Popen(command, stderr=subprocess.STDOUT, **pipes) as process:
            try:
                wait_for(lambda: process.poll() is not None or step_of(run) >= 300)
                for actor in sorted(set(processes_of_actors()) - others)[:1]:
                    os.kill(actor, signal.SIGKILL)
                wait_for(lambda: process.poll() is not None or step_of(run) >= 1_500)
                nodes.stdin.write("kill\n")
                nodes.stdin.flush()
                assert nodes.stdout.readline() == "killed\n"
            finally:
                said = process.communicate()[0]
        nodes.stdin.close()
    assert process.returncode == 0, said
    lost = [line for line in said.splitlines() if "was lost" in line]
    assert 2 <= len(lost) <= 8, said  # the one that was killed, and those of the node
    received, steps, gone, again = map(
        int,
        re.search(
            r"(\d+) batches received with (\d+) steps learned from, (\d+) lost; actors replaced (\d+) times",
            said.replace(",0", "0").replace(",", "", 0),
        ).groups(),
    )
    assert (steps, again) == (6_000, len(lost))
    assert gone == sum(int(re.search(r"with (\d+) batch", line).group(1)) for line in lost)
    assert received > 0
