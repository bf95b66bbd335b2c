"""Kill a training run at random instants, resume it each time, and compare its end with an uninterrupted run's.

    python benchmarks/kill_storm.py [--kills 50] [--game breakout] [--seed 1] [--sampling uniform] [--folder DIR]

Every process of the run is ended by SIGKILL: half of them at any instant, from before it has restored anything on; the
other half as soon as a checkpoint is being written. The processes are forks of this one, which has done nothing but
import pixelq, since importing takes longer than what is killed. At the end metrics (the clock's fields aside), every
file of the last checkpoint but its times, and an evaluation must be byte-identical. The last line of output is one JSON
document; the exit status is 1 if anything differs or a resume fails.
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

import pixelq.envs.atari  # noqa: F401  the emulator, which is loaded late otherwise
from pixelq.agent import load_agent
from pixelq.config import NetworkConfig, TrainConfig
from pixelq.evaluation import PROTOCOLS
from pixelq.evaluation.evaluate import evaluate
from pixelq.presets import preset
from pixelq.run.checkpoint import CheckpointStore
from pixelq.training.progress import PlainProgress
from pixelq.training.run import resume, train

EVERY_STEPS = 96  # between two checkpoints
MOST_CHECKPOINTS = 2  # a process is killed at the latest when it has written so many
CLOCK = ("seconds", "perf/steps_per_second")


class Life(NamedTuple):
    """How a process of the run ended."""

    seconds: float
    in_write: bool  # it left an unfinished checkpoint behind
    checkpoints: int  # written by it
    status: int  # -9 if it was killed


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
        total_steps=EVERY_STEPS * ((MOST_CHECKPOINTS + 1) * kills + 2),
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
            work()
            status = 0
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
        sys.exit(f"a process failed:\n{log.read_text()}")


class Killer:
    """Starts processes and kills them; learns how long they take to start and to write."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._start_seconds = 2.0
        self._write_seconds = 0.02

    def live(self, work: Callable[[], Any], run: Path, log: Path, at_a_write: bool) -> Life:
        """One life: from its start to its kill."""
        before, stale = checkpoints(run), unfinished(run)
        started = time.monotonic()
        child = fork(work, log)
        end = started + self._random.uniform(0, 1.5 * self._start_seconds) if not at_a_write else float("inf")
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
                if at_a_write and len(checkpoints(run) - before) >= write - 1:
                    end = begun + self._random.uniform(0, 0.7 * self._write_seconds)
            elif begun is not None and not writing:
                self._write_seconds += 0.2 * (time.monotonic() - begun - self._write_seconds)
                begun = None
            time.sleep(0.0005)
        os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return Life(time.monotonic() - started, bool(unfinished(run) - stale), len(checkpoints(run) - before), status)


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


def storm(run: Path, config: TrainConfig, kills: int, seed: int) -> tuple[list[Life], int]:
    """Kill and resume; returns the lives, and how many ended before there was anything to resume."""
    killer, log = Killer(seed), run.with_suffix(".log")
    lives: list[Life] = []
    unborn = 0
    while len(lives) < kills:
        exists = (run / "config.json").exists()
        if not exists and run.exists():
            unborn += 1
            shutil.rmtree(run)  # killed before the first checkpoint was complete: nothing was done yet
        work = go_on(run, config) if exists else start(run, config)
        life = killer.live(work, run, log, at_a_write=len(lives) % 2 == 1)
        if life.status != -signal.SIGKILL:
            sys.exit(f"process {len(lives) + 1} ended with {life.status}:\n{log.read_text()}")
        lives.append(life)
        if (run / "config.json").exists():
            store = CheckpointStore(run / "checkpoints")
            step = store.load_newest(lambda line: sys.exit(f"after kill {len(lives)}: {line}")).step
            where = "in a write" if life.in_write else "elsewhere"
            print(f"kill {len(lives):3}: after {life.seconds:5.2f} s, {where}; newest checkpoint of step {step:,}")
    return lives, unborn


def start(run: Path, config: TrainConfig) -> Callable[[], Any]:
    """What the first process does."""
    return lambda: train(config, run, progress=PlainProgress(config))


def go_on(run: Path, config: TrainConfig) -> Callable[[], Any]:
    """What the others do."""
    return lambda: resume(run, progress=PlainProgress(config))


def score(run: Path, out: Path) -> Callable[[], Any]:
    """Evaluate a run's agent into a file."""
    protocol = dataclasses.replace(PROTOCOLS["noop"], max_frames=8_000)

    def work() -> None:
        out.write_text(json.dumps(evaluate(load_agent(run), protocol, 4, threads=1).to_json()))

    return work


def metrics(run: Path) -> list[str]:
    """The lines of metrics without what the clock says."""
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [json.dumps({key: value for key, value in record.items() if key not in CLOCK}) for record in records]


def files(run: Path) -> dict[str, Any]:
    """The last checkpoint: every group's bytes, and the checksums of the replay's chunks."""
    checkpoint = CheckpointStore(run / "checkpoints").load_newest(sys.exit)
    groups: dict[str, Any] = {path.name: path.read_bytes() for path in checkpoint.path.glob("*.safetensors")}
    return groups | {"chunks": checkpoint.manifest.chunks}


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
        "evaluation": scores[0] == scores[1],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
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
        finish(fork(start(calm, config), calm.with_suffix(".log")), calm.with_suffix(".log"))
        print(f"the uninterrupted run is done: {config.total_steps:,} steps, {time.monotonic() - began:.0f} s")
        lives, unborn = storm(stormy, config, options.kills, options.seed)
        last = go_on(stormy, config) if (stormy / "config.json").exists() else start(stormy, config)
        finish(fork(last, stormy.with_suffix(".log")), stormy.with_suffix(".log"))
        identical = compare(calm, stormy)
    result = {
        "game": options.game,
        "kills": len(lives),
        "in_writes": sum(life.in_write for life in lives),
        "before_the_first_checkpoint": unborn,
        "steps": config.total_steps,
        "identical": identical,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(result))
    return 0 if all(identical.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
