"""What trackers cost a run: rounds with all of them and with none, in turn, on the same seed.

    python benchmarks/tracker_cost.py [--rounds 5] [--steps 20000] [--trackers wandb mlflow tensorboard]

Each round is a process of its own. Counted is the second half of its steps, so that starting is left out: seconds, and
processor time of all threads and of all processes that it started, which other programs on the machine change less.
Both kinds of rounds must log the same numbers and end with the same weights.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pixelq.training.callbacks import RunView

CLOCK = ("seconds", "perf/steps_per_second")


class Cost(NamedTuple):
    """Of a thousand steps."""

    seconds: float
    cpu_seconds: float


def cpu_seconds() -> float:
    """Processor time of this process and of all that it started, as far as Linux tells."""
    parents, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        number = int(path.parent.name)
        parents[number] = int(fields[1])
        ticks[number] = sum(map(int, fields[11:15]))  # its own, and of those it waited for
    family = {os.getpid()}
    while more := {number for number, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks[number] for number in family) / os.sysconf("SC_CLK_TCK")


def measured(run: Path, steps: int, trackers: list[str]) -> Cost:
    """Train in this process; returns what the second half took."""
    import pixelq
    from pixelq.trackers.tracking import Tracking

    preset = pixelq.preset("fast")
    config = dataclasses.replace(
        preset,
        total_steps=steps,
        log_every_steps=steps // 20,
        threads=1,
        device="cpu",
        video_every_episodes=0,
        replay=dataclasses.replace(preset.replay, learn_start=500, capacity=20_000),
        exploration=dataclasses.replace(preset.exploration, random_steps=0),
    )
    seen = []

    class Meter(pixelq.Callback):
        def on_log(self, run: "RunView") -> None:
            seen.append((run.step, time.perf_counter(), cpu_seconds()))

    pixelq.train(config, run, progress="none", callbacks=[Meter(), *([Tracking(trackers)] if trackers else [])])
    half, last = seen[len(seen) // 2], seen[-1]
    thousands = (last[0] - half[0]) / 1_000
    return Cost((last[1] - half[1]) / thousands, (last[2] - half[2]) / thousands)


def play(run: Path, steps: int, trackers: list[str]) -> Cost:
    """`measured` in a process of its own."""
    place = run.parent
    offline = {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow.db'}"}
    offline |= {"TENSORBOARD_LOGDIR": str(place / "tensorboard"), "TRACKIO_DIR": str(place / "trackio")}
    words = [sys.executable, str(Path(__file__).resolve()), "--alone", str(run), "--steps", str(steps)]
    words += ["--trackers", *trackers]
    done = subprocess.run(
        words, check=True, cwd=place, env=os.environ | offline, stdout=subprocess.PIPE, encoding="utf-8"
    )
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def outcome(run: Path) -> tuple[list[dict], str]:
    """What must not depend on trackers: metrics without the clock's, and the last weights."""
    weights = sorted((run / "checkpoints").glob("step-*"))[-1] / "agent.safetensors"
    plain = [{key: value for key, value in record.items() if key not in CLOCK} for record in records(run)]
    return plain, hashlib.sha256(weights.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--trackers", nargs="*", default=["wandb", "mlflow", "tensorboard"])
    parser.add_argument("--alone", type=Path, metavar="RUN", help="one run, in this process")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measured(options.alone, options.steps, options.trackers)))
        return
    ratios, first = [], None
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds + 1):  # the first one makes MLflow's database, and is not counted
            costs = {}
            for name in ("none", "all") if number % 2 else ("all", "none"):
                run = Path(folder) / f"{name}-{number}"
                costs[name] = play(run, options.steps, options.trackers if name == "all" else [])
                first = first or outcome(run)
                assert outcome(run) == first, f"{run.name} is another run"
            ratio = Cost(*(tracked / alone for tracked, alone in zip(costs["all"], costs["none"], strict=True)))
            print(f"round {number}: {costs['none']}, tracked {costs['all']}: {ratio}", flush=True)
            ratios += [ratio] if number else []
    result = {"trackers": options.trackers, "rounds": len(ratios), "load": os.getloadavg()[0]}
    for name, values in zip(Cost._fields, zip(*ratios, strict=True), strict=True):
        result[name] = {"ratio": statistics.median(values), "least": min(values), "most": max(values)}
    print(json.dumps(result, default=str))


if __name__ == "__main__":
    main()
