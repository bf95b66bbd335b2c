"""What trackers cost a run: rounds with all of them and with none, in turn, on the same seed.

    python benchmarks/tracker_cost.py [--rounds 5] [--steps 20000] [--trackers wandb mlflow tensorboard]

Each round is a process of its own. A round's speed is that of its second half by its metrics, so that starting
is left out. Both kinds of rounds must log the same numbers and end with the same weights.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CLOCK = ("seconds", "perf/steps_per_second")


def play(run: Path, steps: int, trackers: list[str]) -> float:
    """Train for a while; returns steps a second."""
    words = [sys.executable, "-m", "pixelq", "train", "fast", "--run", str(run), "--progress", "none"]
    words += ["--total-steps", str(steps), "--log-every-steps", str(steps // 20), "--replay.learn-start", "500"]
    words += ["--replay.capacity", "20000", "--video-every-episodes", "0", "--threads", "1", "--device", "cpu"]
    words += ["--exploration.random-steps", "0"]
    words += ["--track", *trackers] if trackers else []
    place = run.parent
    offline = {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow.db'}"}
    offline |= {"TENSORBOARD_LOGDIR": str(place / "tensorboard"), "TRACKIO_DIR": str(place / "trackio")}
    subprocess.run(words, check=True, cwd=place, env=os.environ | offline, stdout=subprocess.DEVNULL)
    lines = records(run)
    half, last = lines[len(lines) // 2], lines[-1]
    return (last["step"] - half["step"]) / (last["seconds"] - half["seconds"])


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
    parser.add_argument("--trackers", nargs="+", default=["wandb", "mlflow", "tensorboard"])
    options = parser.parse_args()
    ratios, first = [], None
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds + 1):  # the first one makes MLflow's database, and is not counted
            speeds = {}
            for name in ("none", "all") if number % 2 else ("all", "none"):
                run = Path(folder) / f"{name}-{number}"
                speeds[name] = play(run, options.steps, options.trackers if name == "all" else [])
                first = first or outcome(run)
                assert outcome(run) == first, f"{run.name} is another run"
            ratio = speeds["all"] / speeds["none"]
            print(f"round {number}: {speeds['none']:.0f} steps/s, tracked {speeds['all']:.0f}: {ratio:.3f}", flush=True)
            ratios += [ratio] if number else []
    low, high = min(ratios), max(ratios)
    result = {"trackers": options.trackers, "ratio": round(statistics.median(ratios), 4), "rounds": len(ratios)}
    print(json.dumps(result | {"least": round(low, 4), "most": round(high, 4), "load": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
