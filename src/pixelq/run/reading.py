"""Reading a run directory without running it: settings and results of evaluations. Imports no torch."""

import json
import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pixelq.errors import PixelqError
from pixelq.run.storage import reason

__all__ = ["FREE", "LENGTH", "MACHINE", "Evaluation", "flat", "read_evaluation", "read_object", "same_but_seed"]

_LONGEST = 8_000_000  # bytes of a JSON file that are read: an evaluation of 100,000 games is 1 MB
# settings by their path. How long a run may be; a learning rate that falls does so until `total_steps`
LENGTH = {"total_steps", "stop_on", "stop_at"}
# settings that a resume may change: when to stop, what to save and how, what to show
FREE = LENGTH | {
    "replay.store",
    *("checkpoint_every_steps", "checkpoint_min_seconds", "keep_checkpoints", "keep_going"),
    "env.vector",
    *("notebook_log", "video_every_episodes", "video_min_seconds", "keep_videos"),
}
# where and how it is computed: the same recipe, in other bits
MACHINE = {"device", "threads", "cuda_graphs", "compile", "env.reseed_steps"}


class Evaluation(NamedTuple):
    """A result that `pixelq eval` kept in a run directory."""

    protocol: str
    game: str
    step: int  # of the agent
    seed: int  # of the games
    scores: tuple[float, ...]  # raw
    mean: float
    median: float
    iqm: float
    ci95: tuple[float, float]  # of the mean
    human_normalised: float | None
    settings: str  # the line that names every condition
    options: str  # what asks `pixelq eval` for these conditions
    notes: tuple[str, ...]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted path, e.g. `algo.gamma`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def same_but_seed(config: Mapping[str, Any]) -> str:
    """A text that two runs share if they differ in nothing but the seed, as far as learning and length are concerned.

    Args:
        config: the value of a run's `config.json`.
    """
    others = (FREE - LENGTH) | MACHINE | {"seed", "log_every_steps"}
    if config.get("stop_on") == "none":
        others.add("stop_at")  # unused
    learning = {name: value for name, value in flat(config).items() if name not in others}
    return json.dumps(learning, sort_keys=True)


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        PixelqError: it is missing, unreadable, no plain file, far too long, or no JSON object.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LONGEST:
            raise PixelqError(f"{path} is no JSON file of at most {_LONGEST:,} bytes")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise PixelqError(f"cannot read {path}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise PixelqError(f"{path} is damaged: not JSON") from error
    if not isinstance(value, dict):
        raise PixelqError(f"{path} is damaged: not a JSON object")
    return value


def read_evaluation(path: Path) -> Evaluation:
    """A result from a run's `eval` folder.

    Raises:
        PixelqError: it cannot be read, or is not what `pixelq eval` writes.
    """
    value = read_object(path)
    try:
        low, high = value["ci95"]
        normalised = value["human_normalised"]
        result = Evaluation(
            protocol=str(value["protocol"]),
            game=str(value["game"]),
            step=int(value["step"]),
            seed=int(value["seed"]),
            scores=tuple(float(score) for score in value["scores"]),
            mean=float(value["mean"]),
            median=float(value["median"]),
            iqm=float(value["iqm"]),
            ci95=(float(low), float(high)),
            human_normalised=None if normalised is None else float(normalised),
            settings=str(value["settings"]["text"]),
            options=str(value["settings"].get("options", f"--protocol {value['protocol']}")),
            notes=tuple(str(note) for note in value["notes"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise PixelqError(f"{path} is damaged: not a result of pixelq eval") from error
    numbers = (*result.scores, result.mean, result.median, result.iqm, *result.ci95, result.human_normalised or 0.0)
    if not result.scores or not all(map(math.isfinite, numbers)):
        raise PixelqError(f"{path} is damaged: its scores are no numbers")
    return result
