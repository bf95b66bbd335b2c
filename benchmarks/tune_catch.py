"""Seek a learning rate on Catch and hold it against a grid: python benchmarks/tune_catch.py [--folder DIR].

The grid is a sweep; the study is `pixelq tune`, stopped once in the middle and gone on with. Passes if the learning
rate of the study is within a factor of 3 of the best of the grid, trials were pruned and none failed. Ends with a line
of JSON.
"""

import argparse
import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import pixelq
from pixelq.reports.statistics import iqm
from pixelq.run.reading import read_object
from pixelq.tuning.trials import Curve, read_curve, value_at

PRESET = "cleanrl-dqn"
NAME = "optimiser.learning-rate"
GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
SEEDS = (1, 2, 3, 4)  # with two, neighbours on the grid change places by chance
SEARCH = f"{NAME}=1e-5..1e-1:log"
SETTINGS = {
    "total-steps": 6_000,
    "envs": 16,
    "threads": 1,
    "device": "cpu",
    "log-every-steps": 500,
    "checkpoint-every-steps": 2_000,
    "checkpoint-min-seconds": 0.0,
    "video-every-episodes": 0,
    "window-episodes": 20,
    "network.channels": [8, 8, 8],
    "network.hidden": 64,
    "algo.gamma": 0.9,
    "exploration.end": 0.01,
    "exploration.decay-steps": 2_000,
    "exploration.decay-from-step": 0,
    "exploration.random-steps": 300,
    "target-period-steps": 200,
    "replay.capacity": 5_000,
    "replay.learn-start": 300,
    "replay.train-period": 4,
}


def grid(folder: Path) -> dict[float, float]:
    """IQM of the last returns at each learning rate."""
    settings = {name: [value] for name, value in SETTINGS.items()} | {NAME: list(GRID)}
    pixelq.sweep([PRESET], folder, games=["catch"], seeds=SEEDS, settings=settings)
    found: dict[float, list[float]] = {}
    for path in sorted(folder.glob("*/config.json")):
        rate = float(read_object(path)["optimiser"]["learning_rate"])
        last = value_at(read_curve(path.parent / "metrics.jsonl", Curve()), SETTINGS["total-steps"])
        found.setdefault(rate, []).append(math.nan if last is None else last)
    return {rate: float(iqm(np.array(scores))) for rate, scores in sorted(found.items())}


def command(folder: Path, trials: int) -> list[str]:
    words = [sys.executable, "-m", "pixelq", "tune", PRESET, "--folder", str(folder), "--trials", str(trials)]
    words += ["--games", "catch", "--seeds", ",".join(map(str, SEEDS)), "--search", SEARCH]
    for name, value in SETTINGS.items():
        words += ["--set", f"{name}={' '.join(map(str, value)) if isinstance(value, list) else value}"]
    return words


def stop_in_the_middle(folder: Path, trials: int) -> int:
    """Start the study and stop it once half of its trials have begun."""
    process = subprocess.Popen(command(folder, trials))
    while process.poll() is None and not list(folder.glob(f"trial-{trials // 2:04}-*")):
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    return process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the runs go; default: a temporary one")
    parser.add_argument("--trials", type=int, default=12)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        scores = grid(folder / "grid")
        stopped = stop_in_the_middle(folder / "study", options.trials)
        study = pixelq.tune(
            PRESET, folder / "study", options.trials, [SEARCH], games=["catch"], seeds=SEEDS, settings=SETTINGS
        )
    best = max(scores, key=lambda rate: scores[rate])
    assert study.best is not None
    found = float(study.best.values[NAME] or 0.0)
    pruned = sum(trial.state == "pruned" for trial in study.trials)
    result = {
        "grid": scores,
        "grid_best": best,
        "study_best": found,
        "study_score": study.best.score,
        "factor": max(found / best, best / found),
        "stopped_with": stopped,
        "trials": len(study.trials),
        "pruned": pruned,
        "failed": sum(trial.state == "fail" for trial in study.trials),
    }
    print(json.dumps(result))
    return 0 if result["factor"] <= 3 and pruned and not result["failed"] and stopped == 130 else 1


if __name__ == "__main__":
    sys.exit(main())
