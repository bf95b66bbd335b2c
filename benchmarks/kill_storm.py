"""End a training run at random instants, give the same command again, and compare its end with an uninterrupted run's.

    python benchmarks/kill_storm.py [--kills 100] [--game breakout] [--seed 1] [--sampling uniform] [--folder DIR]

The command is `train --or-resume`. Its processes are ended by SIGKILL, SIGTERM, SIGINT and SIGHUP in turn: a third of
them while the run begins, from the first millisecond on, until there is something to resume; of the others half at any
instant, from before anything is restored on, and half as soon as a checkpoint is being written. Every process must
begin or go on: one that refuses or fails ends the storm. The processes are forks of this one, which has done nothing
but import pixelq, since importing takes longer than what is ended. At the end metrics (the clock's fields aside), every
file of the last checkpoint but its times, its replay's rows, and an evaluation must be byte-identical. The last line of
output is one JSON document; the exit status is 1 if anything differs.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded; it must start no thread here, or forks would hang

import numpy as np

import pixelq.envs.atari  # noqa: F401  the emulator, which is loaded late otherwise
from pixelq.agent import load_agent
from pixelq.config import NetworkConfig, TrainConfig
from pixelq.evaluation import PROTOCOLS
from pixelq.evaluation.evaluate import evaluate
from pixelq.presets import preset
from pixelq.run.checkpoint import CheckpointStore
from pixelq.training.progress import PlainProgress
from pixelq.training.run import train

EVERY_STEPS = 96  # between two checkpoints
MOST_CHECKPOINTS = 2  # a process is killed at the latest when it has written so many
CLOCK = ("seconds", "perf/steps_per_second")


SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
INTERRUPTED = 130  # what a process ends with that was asked to stop when there was nothing to save
LONGEST = 120.0  # seconds that a process takes at most to save and end


class Life(NamedTuple):
    """How a process of the run ended."""

    seconds: float
    in_write: bool  # it left an unfinished checkpoint behind
    checkpoints: int  # written by it
    status: int  # 0 if it saved, minus the signal if that ended it


def may_end_with(number: signal.Signals) -> set[int]:
    """What a process may end with: saved, nothing to save, or before it handled signals."""
    return {-number} if number == signal.SIGKILL else {0, INTERRUPTED, -number}


def storm_config(game: str, kills: int, seed: int, sampling: Any) -> TrainConfig:
    """A run of small parts, so long that the kills cannot outlast it."""
    base = preset("keras-example")
    replay = dataclasses.replace(base.replay, capacity=1_000, learn_start=100, sampling=sampling)
    return dataclasses.replace(
        base,
        game=game,
        seed=seed,
        envs=2,
        device="cpu",
        threads=1,
        total_steps=EVERY_STEPS * ((MOST_CHECKPOINTS + 1) * (kills - kills // 3) + 2),
        log_every_steps=64,
        checkpoint_every_steps=EVERY_STEPS,
        checkpoint_min_seconds=0.0,
        target_period_steps=200,
        video_every_episodes=0,
        notebook_log=False,
        stop_on="none",
        network=NetworkConfig(channels=(4, 4, 4), hidden=16),
        algo=dataclasses.replace(base.algo, n_step=3),
        replay=replay,
        exploration=dataclasses.replace(base.exploration, decay_steps=2_000, random_steps=200),
    )


def fork(work: Callable[[], Any], log: Path) -> int:
    """Do `work` in a process of its own, whose output goes to `log`; returns its id."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        status = 1
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            for number in SIGNALS[1:]:  # as a terminal leaves them
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            work()
            status = 0
        except KeyboardInterrupt:
            status = INTERRUPTED
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return child


def finish(child: int, log: Path) -> None:
    """Wait for a process that must end well."""
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(f"a process failed:\n{log.read_text('utf-8')}")


class Killer:
    """Starts processes and kills them; learns how long they take to start and to write."""

    def __init__(self, seed: int, begin_seconds: float) -> None:
        self._random = random.Random(seed)
        self._begin_seconds = begin_seconds  # till there is something to resume
        self._start_seconds = 2.0
        self._write_seconds = 0.02

    def live(self, work: Callable[[], Any], run: Path, log: Path, number: signal.Signals, when: str) -> Life:
        """One life: from its start to its end by a signal.

        Args:
            work: what the process does.
            run: its run directory.
            log: where its output goes.
            number: the signal.
            when: "first" (while it begins), "any" (at any instant) or "write" (at a checkpoint).
        """
        before, stale = checkpoints(run), unfinished(run)
        started = time.monotonic()
        child = fork(work, log)
        longest = {"first": self._begin_seconds, "any": 1.5 * self._start_seconds, "write": float("inf")}[when]
        end = started + (longest if when == "write" else self._random.uniform(0, longest))
        write = self._random.randint(1, MOST_CHECKPOINTS)
        begun: float | None = None
        while time.monotonic() < end and len(checkpoints(run) - before) < MOST_CHECKPOINTS:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return Life(time.monotonic() - started, False, 0, os.waitstatus_to_exitcode(status))
            writing = bool(unfinished(run) - stale)
            if writing and begun is None:
                begun = time.monotonic()
                self._start_seconds += 0.2 * (begun - started - self._start_seconds)
                if when == "write" and len(checkpoints(run) - before) >= write - 1:
                    end = begun + self._random.uniform(0, 0.7 * self._write_seconds)
            elif begun is not None and not writing:
                self._write_seconds += 0.2 * (time.monotonic() - begun - self._write_seconds)
                begun = None
            time.sleep(0.0005)
        os.kill(child, number)
        status = ended(child, started)
        if when == "first" and (run / "config.json").exists():
            self._begin_seconds *= 0.9  # too late to see a beginning: sooner
        return Life(time.monotonic() - started, bool(unfinished(run) - stale), len(checkpoints(run) - before), status)


def ended(child: int, started: float) -> int:
    """Wait for a process that was told to end; returns its status."""
    told = time.monotonic()
    while time.monotonic() - told < LONGEST:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    sys.exit(f"a process did not end, {time.monotonic() - started:.0f} s after its start")


def checkpoints(run: Path) -> set[str]:
    """Names of the finished checkpoints."""
    folder = run / "checkpoints"
    return {name for name in os.listdir(folder) if name.startswith("step-")} if folder.is_dir() else set()


def unfinished(run: Path) -> set[tuple[str, int]]:
    """What belongs to a checkpoint that is being written, or was when its writer was killed."""
    found = set()
    for place in (run / "checkpoints", run / "checkpoints/chunks"):
        with contextlib.suppress(FileNotFoundError):  # a folder or a file that comes or goes
            found |= {(path.name, path.stat().st_ctime_ns) for path in place.iterdir() if path.name.startswith(".tmp-")}
    return found


def storm(run: Path, config: TrainConfig, kills: int, seed: int, begin_seconds: float) -> tuple[list[Life], int]:
    """End the command and give it again; returns the lives, and how many ended before there was anything to resume."""
    killer, log = Killer(seed, begin_seconds), run.with_suffix(".log")
    lives: list[Life] = []
    unborn = 0
    for index in range(kills):
        first = index < kills // 3
        if first and (run / "config.json").exists():
            shutil.rmtree(run)  # another beginning is wanted
        when = "first" if first else ("any", "write")[index // len(SIGNALS) % 2]
        number = SIGNALS[index % len(SIGNALS)]
        life = killer.live(command(run, config), run, log, number, when)
        if life.status not in may_end_with(number):
            sys.exit(f"process {index + 1} ended with {life.status} after {number.name}:\n{log.read_text('utf-8')}")
        lives.append(life)
        newest = "nothing to resume"
        if (run / "config.json").exists():
            store = CheckpointStore(run / "checkpoints")
            checkpoint = store.load_newest(lambda line: sys.exit(f"after {len(lives)}: {line}"))
            newest = f"newest checkpoint of step {checkpoint.step:,}"
        else:
            unborn += 1
        where = "in a write" if life.in_write else "elsewhere"
        print(f"{index + 1:3} {number.name}: {life.status} after {life.seconds:5.2f} s, {where}; {newest}")
    return lives, unborn


def command(run: Path, config: TrainConfig) -> Callable[[], Any]:
    """What every process does."""
    return lambda: train(config, run, progress=PlainProgress(config), or_resume=True)


def score(run: Path, out: Path) -> Callable[[], Any]:
    """Evaluate a run's agent into a file."""
    protocol = dataclasses.replace(PROTOCOLS["noop"], max_frames=8_000)

    def work() -> None:
        out.write_text(json.dumps(evaluate(load_agent(run), protocol, 4, threads=1).to_json()), "utf-8")

    return work


def metrics(run: Path) -> list[str]:
    """The lines of metrics without what the clock says."""
    records = map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines())
    return [json.dumps({key: value for key, value in record.items() if key not in CLOCK}) for record in records]


def files(run: Path) -> dict[str, bytes]:
    """The last checkpoint: every group's bytes."""
    checkpoint = CheckpointStore(run / "checkpoints").load_newest(sys.exit)
    return {path.name: path.read_bytes() for path in checkpoint.path.glob("*.safetensors")}


def rows(run: Path) -> tuple[int, dict[str, np.ndarray]]:
    """The replay's rows in the last checkpoint and the first one's number; where it is cut into chunks may differ."""
    chunks = list(CheckpointStore(run / "checkpoints").load_newest(sys.exit).chunks)
    parts = [chunk.arrays() for chunk in chunks]
    for part in parts:
        part["planes"] = part["planes"].swapaxes(0, 1)
    return chunks[0].start, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def same_rows(calm: Path, stormy: Path) -> bool:
    """Whether the rows that both hold are the same; a chunk may reach further back than the replay does."""
    (start, one), (other_start, other) = rows(calm), rows(stormy)
    first = max(start, other_start)
    return all(np.array_equal(one[name][first - start :], other[name][first - other_start :]) for name in one)


def compare(calm: Path, stormy: Path) -> dict[str, bool]:
    """What is byte-identical."""
    scores = []
    for run in (calm, stormy):
        out = run.with_suffix(".score")
        finish(fork(score(run, out), log := run.with_suffix(".log")), log)
        scores.append(out.read_bytes())
    one, other = files(calm), files(stormy)
    return {
        "metrics": metrics(calm) == metrics(stormy),
        "weights": one["agent.safetensors"] == other["agent.safetensors"],
        "checkpoint": one == other,
        "replay": same_rows(calm, stormy),
        "evaluation": scores[0] == scores[1],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--game", default="breakout", help="breakout, catch, or another game")
    parser.add_argument("--seed", type=int, default=1, help="of the run and of the kills")
    parser.add_argument("--sampling", default="uniform", choices=("uniform", "prioritised"))
    parser.add_argument("--folder", type=Path, help="where to keep both runs; default: nowhere")
    options = parser.parse_args()
    began = time.monotonic()
    config = storm_config(options.game, options.kills, options.seed, options.sampling)
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        calm, stormy = folder / "calm", folder / "stormy"
        log = calm.with_suffix(".log")
        child = fork(command(calm, config), log)
        while not (calm / "config.json").exists() and not os.waitid(
            os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT
        ):
            time.sleep(0.001)
        begin_seconds = time.monotonic() - began
        finish(child, log)
        print(f"the uninterrupted run is done: {config.total_steps:,} steps, {time.monotonic() - began:.0f} s")
        lives, unborn = storm(stormy, config, options.kills, options.seed, begin_seconds)
        log = stormy.with_suffix(".log")
        finish(fork(command(stormy, config), log), log)
        identical = compare(calm, stormy)
    result = {
        "game": options.game,
        "kills": len(lives),
        "in_writes": sum(life.in_write for life in lives),
        "before_the_first_checkpoint": unborn,
        "saved": sum(life.status == 0 for life in lives),
        "steps": config.total_steps,
        "identical": identical,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(result))
    return 0 if all(identical.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
