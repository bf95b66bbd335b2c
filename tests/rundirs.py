"""Run directories as training leaves them, made in milliseconds for tests that read them."""

import json

import numpy as np

from pixelq.config import to_json
from pixelq.evaluation.protocols import PROTOCOLS
from pixelq.evaluation.scores import human_normalised, summarise
from pixelq.evaluation.video import video_file
from pixelq.presets import preset


def record(step, value=0.0, **more):
    """A line of metrics; `value` is the mean return per game."""
    values = {
        "step": step,
        "frames": 4 * step,
        "games": step // 100,
        "lives": step // 20,
        "seconds": step / 200,
        "train/return_per_game": value,
        "train/return_per_life": value / 5,
        "train/epsilon": 0.1,
        "loss/td": None,
        "q/mean": 0.5,
        "perf/steps_per_second": 200.0,
    }
    return json.dumps(values | more) + "\n"


def make_run(path, values=(), *, seed=1, period=100, **config):
    """A run that logged `values` as its mean returns, one every `period` steps."""
    for folder in ("checkpoints", "videos", "eval", "tb"):
        (path / folder).mkdir(parents=True)
    settings = {"seed": seed, "total_steps": period * 100, "stop_on": "none", **config}
    (path / "config.json").write_text(json.dumps(to_json(preset("keras-example")) | settings))
    (path / "provenance.json").write_text(json.dumps({"cpu": "A processor", "cores": 2, "packages": {"torch": "2"}}))
    (path / "metrics.jsonl").write_text("".join(record(period * (i + 1), value) for i, value in enumerate(values)))
    return path


def append(run, *lines):
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(lines)


def add_evaluation(run, scores, *, protocol="nature", step=1_000, seed=1, game="breakout"):
    """What `pixelq eval` keeps of these scores."""
    summary = summarise(scores)
    value = {
        "protocol": protocol,
        "game": game,
        "episodes": len(scores),
        **summary._asdict(),
        "human_normalised": human_normalised(game, summary.mean),
        "scores": list(scores),
        "step": step,
        "seed": seed,
        "settings": {"text": PROTOCOLS[protocol].describe(game, True)},
        "frames": 1,
        "notes": [],
    }
    path = run / "eval" / f"{protocol}-step-{step}-seed{seed}.json"
    path.write_text(json.dumps(value))
    return path


def add_video(run, step=1_000):
    """A second of a square that moves."""
    path = run / "videos" / f"step-{step:012d}.mp4"
    with video_file(path, (40, 32), 2, 30) as writer:
        for frame in range(30):
            picture = np.zeros((40, 32, 3), np.uint8)
            picture[frame : frame + 8, 4:12] = 255
            writer.write(picture)
    return path
