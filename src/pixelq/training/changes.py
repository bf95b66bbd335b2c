"""Which settings may change between a run's stop and its resuming, and which are the run."""

from pixelq.config import TrainConfig, from_json, to_json
from pixelq.errors import ConfigError
from pixelq.run.checkpoint import Checkpoint
from pixelq.run.reading import FREE, MACHINE, flat
from pixelq.run.rundir import RunDir

__all__ = ["allowed_changes", "check_same_recipe", "still_solved"]


def check_same_recipe(config: TrainConfig, run: RunDir) -> None:
    """Make sure that a run fits a command: the same recipe and seed; its length, for example, may differ.

    Args:
        config: the command's, resolved.
        run: the run that it found.

    Raises:
        ConfigError: names every setting that is another, with both values.
    """
    asked, has = flat(to_json(config)), flat(to_json(from_json(TrainConfig, run.read_json("config.json"))))
    free = FREE | MACHINE | {"log_every_steps", "precision"}  # what `auto` is depends on the machine
    other = [path for path in asked if path not in free and asked[path] != has.get(path)]
    if other:
        which = ", ".join(f"{path} is {has.get(path)} there and {asked[path]} here" for path in other)
        raise ConfigError(f"{run.path} is another run: {which}; give --run a new path")


def allowed_changes(config: TrainConfig, checkpoint: Checkpoint) -> list[str]:
    """Compare a run's settings with those under which its checkpoint was written.

    Args:
        config: the settings to continue with, resolved.
        checkpoint: the one to continue from.

    Returns:
        A line for each setting that is another now and may be.

    Raises:
        ConfigError: a setting differs that may not; names every such one, with both values.
    """
    now = flat(to_json(config))
    before = flat(to_json(from_json(TrainConfig, checkpoint.state["config"])))
    changed = [path for path in now if now[path] != before.get(path)]
    refused = [path for path in changed if path not in FREE | MACHINE]
    if refused:
        which = ", ".join(f"{path} is {now[path]} but was {before.get(path)}" for path in refused)
        raise ConfigError(f"config.json does not fit {checkpoint.path}: {which}; put it back, or start a new run")
    return [f"{path} is {now[path]}, was {before[path]}{_consequence(path)}" for path in changed]


def still_solved(config: TrainConfig, checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint's solved run is also solved by the new settings.

    Args:
        config: the settings to continue with, resolved.
        checkpoint: the one to continue from.

    Returns:
        False as well if the settings ask for another running mean now: the run itself will find out.
    """
    before = checkpoint.state["config"]
    same = all(getattr(config, name) == before[name] for name in ("stop_on", "stop_at"))
    return bool(checkpoint.state["solved"]) and same


def _consequence(path: str) -> str:
    if path not in MACHINE:
        return ""
    chance = "" if path == "threads" else " and, on a GPU, in its random numbers"
    return f"; from here on the run differs in rounding{chance}"
