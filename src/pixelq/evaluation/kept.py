"""Results of evaluations kept in run directories, where plots, reports and the dashboard find them."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelq.agent import Agent
from pixelq.errors import PixelqError
from pixelq.evaluation.players import Player
from pixelq.run.rundir import RunDir
from pixelq.run.storage import StorageError, storage_errors
from pixelq.shipped import RANDOM

if TYPE_CHECKING:
    from pixelq.evaluation.evaluate import EvalResult

__all__ = ["check_keeping", "is_run", "keep_result"]


def is_run(agent: Player | Path | str) -> bool:
    """Whether it is a run directory that plays, in which a result can be kept.

    Args:
        agent: as in `evaluate`.
    """
    return isinstance(agent, str | Path) and agent != RANDOM and Path(agent).is_dir()


def check_keeping(agent: Player | Path | str) -> Path:
    """Refuse, before games are played, a path that can keep no result.

    Args:
        agent: as in `evaluate`.

    Returns:
        The run directory.

    Raises:
        PixelqError: it is no run directory.
        StorageError: it cannot be written.
    """
    if not (isinstance(agent, str | Path) and is_run(agent)):
        raise PixelqError(f"keep=True needs a run directory: {agent} is none")
    place = RunDir(Path(agent)).eval
    with storage_errors(place):
        place.mkdir(exist_ok=True)
    if not os.access(place, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write {place}: permission denied")
    return Path(agent)


def keep_result(run: Path, agent: Agent, result: "EvalResult", seed: int) -> Path:
    """Keep a result in a run directory, with everything it takes to get it again.

    Args:
        run: the run directory.
        agent: the agent that played.
        result: their scores.
        seed: of the games.

    Returns:
        The file; one of the same protocol, step and seed is replaced.

    Raises:
        StorageError: it cannot be written.
    """
    protocol = result.protocol
    record: dict[str, Any] = {
        **result.to_json(),
        "step": agent.card.step,
        "seed": seed,
        "settings": {
            **dataclasses.asdict(protocol),
            "fire_at_start": True,
            "fire_after_life_loss": agent.card.fire_after_life_loss,
            "action_meanings": list(agent.action_meanings),
            "text": result.settings,
            "options": protocol.options,
        },
        "frames": result.frames,
        "notes": result.notes(),
    }
    place = RunDir(run)
    with storage_errors(place.eval):
        place.eval.mkdir(exist_ok=True)
    return place.write_json(f"eval/{protocol.file_word}-step-{agent.card.step}-seed{seed}.json", record)
