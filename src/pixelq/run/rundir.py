"""The run directory: the only API between a run and all programs that read it. Imports no torch."""

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelq.errors import PixelqError
from pixelq.games import did_you_mean
from pixelq.hub import fetch_agent, is_hub_address
from pixelq.run.storage import reason, storage_errors, write_atomically
from pixelq.shipped import agent_path, shipped_agents
from pixelq.system import try_lock

__all__ = ["RunDir", "find_agent", "is_unborn"]

_FOLDERS = ("checkpoints", "videos", "eval", "tb")
# files of a run that has not begun; its only checkpoint is the first
_EARLY = {*_FOLDERS, ".lock", "provenance.json", "metrics.jsonl", ".tmp-provenance.json", ".tmp-config.json"}
_EARLY_CHECKPOINTS = r"chunks|(\.tmp-)?step-0{12}(-\d+)?"
# errors of the given path, not of the machine
_WRONG_PATH = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),
    errno.ENOENT,  # in /proc, say: parents are made where they can be
}


@dataclass(frozen=True)
class RunDir:
    """Where a run keeps its `config.json provenance.json metrics.jsonl tb/ checkpoints/ eval/ videos/`."""

    path: Path

    @classmethod
    def create(cls, path: Path | str) -> "RunDir":
        """Make the directory of a new run, its parents too; an empty folder, or one of `is_unborn`, will do.

        Raises:
            PixelqError: something is there already, for a run is never overwritten; or the path is no good.
            StorageError: the disk is full or failing.
        """
        path = Path(path)
        cls.check_new(path)
        with storage_errors(path):
            try:
                path.mkdir(parents=True, exist_ok=True)
                for name in _FOLDERS:
                    (path / name).mkdir(exist_ok=True)
            except OSError as error:
                if error.errno in _WRONG_PATH:
                    raise PixelqError(f"--run {path} cannot be made: {reason(error)}") from error
                raise
        return cls(path)

    @classmethod
    def check_new(cls, path: Path | str) -> None:
        """Refuse a path where something is already.

        Raises:
            PixelqError: names what is there.
        """
        path = Path(path)
        if os.path.lexists(path) and not is_unborn(path):
            hint = f"; to continue it: pixelq resume {path}" if (path / "config.json").is_file() else ""
            raise PixelqError(f"{path} exists already: give --run a new path{hint}")

    @classmethod
    def open(cls, path: Path | str) -> "RunDir":
        """Find the directory of an existing run; touches nothing.

        Raises:
            PixelqError: it is missing, or holds no `config.json`.
        """
        path = Path(path)
        try:
            if not path.exists():
                raise PixelqError(f"{path} does not exist: give the directory of a run")
            if not (path / "config.json").is_file():
                raise PixelqError(f"{path} is not a run directory: it has no config.json")
        except OSError as error:
            raise PixelqError(f"cannot read {path}: {reason(error)}") from error
        return cls(path)

    @property
    def config(self) -> Path:
        """The run's settings, JSON."""
        return self.path / "config.json"

    @property
    def provenance(self) -> Path:
        """Versions, commit and machine, JSON."""
        return self.path / "provenance.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a log tick."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The newest checkpoints and their replay chunks."""
        return self.path / "checkpoints"

    @property
    def videos(self) -> Path:
        """Recorded games."""
        return self.path / "videos"

    @property
    def eval(self) -> Path:
        """Results of evaluations."""
        return self.path / "eval"

    @property
    def tb(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tb"

    def write_json(self, name: str, value: Any) -> Path:
        """Write `name` under the run directory as readable JSON, as a whole or not at all.

        Raises:
            StorageError: it cannot be written.
        """
        target = self.path / name
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        with storage_errors(target):
            # bytes of a path that are no UTF-8 become JSON's escapes
            write_atomically(target, text.encode(errors="backslashreplace"))
        return target

    def read_json(self, name: str) -> Any:
        """The value of a JSON file under the run directory.

        Raises:
            PixelqError: it is missing, unreadable or not JSON.
        """
        source = self.path / name
        try:
            return json.loads(source.read_bytes())
        except OSError as error:
            raise PixelqError(f"cannot read {source}: {reason(error)}") from error
        except (ValueError, RecursionError) as error:
            raise PixelqError(f"{source} is damaged: not JSON") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer of this run while the block lasts.

        A lock of the system's, so the kernel releases it however the process ends; never a pid file.

        Raises:
            PixelqError: another process holds it.
            StorageError: the directory cannot be written.
        """
        path = self.path / ".lock"
        with storage_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            with storage_errors(path):
                free = try_lock(descriptor)
            if not free:
                raise PixelqError(
                    f"{self.path} is in use: another process is writing this run; if it is just ending, try again"
                )
            yield
        finally:
            os.close(descriptor)


def is_unborn(path: Path) -> bool:
    """Whether a folder is empty, or holds no more than a run that was ended before its `config.json` was written.

    A run writes that last, after the checkpoint of step 0, so nothing was learned yet.

    Args:
        path: the folder; only names are read.
    """
    try:
        return (
            {entry.name for entry in path.iterdir()} <= _EARLY
            and all(re.fullmatch(_EARLY_CHECKPOINTS, name) for name in _names(path / "checkpoints"))
            and not _names(path / "eval")
            and not _names(path / "videos")
            and not ((path / "metrics.jsonl").exists() and (path / "metrics.jsonl").stat().st_size)
        )
    except OSError:  # no folder, or none that can be read
        return False


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.exists() else []


def find_agent(agent: Path | str) -> Path:
    """Where an agent is; refuses what cannot hold one, by its name and kind alone: nothing of the agent is read.

    Args:
        agent: a run directory, a `.safetensors` or `.onnx` file, the name of an agent that comes with pixelq, or
            `hf:USER/NAME[@REVISION]`, which is downloaded.

    Raises:
        PixelqError: it is missing, or none of these.
    """
    if is_hub_address(agent):
        return fetch_agent(agent)
    path = agent_path(agent)
    try:
        if not path.exists():
            names = shipped_agents()
            raise PixelqError(
                f"{agent} does not exist{did_you_mean(str(agent), names)}: "
                f"give a run directory, a .safetensors file or an agent that ships: {', '.join(names)}"
            )
        if path.is_dir():
            if not (path / "checkpoints").is_dir():
                raise PixelqError(f"{path} is no run directory: it has no checkpoints folder")
        elif path.suffix not in (".safetensors", ".onnx"):
            raise PixelqError(f"{path} is no agent file: pixelq loads .safetensors and .onnx")
    except OSError as error:
        raise PixelqError(f"cannot read {path}: {reason(error)}") from error
    return path
