"""The runs below a folder, as they come, grow and go: their cards, curves and videos. Nothing is ever written."""

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pixelq.errors import PixelqError
from pixelq.run.reading import flat, read_evaluation, read_object, same_but_seed
from pixelq.viewer.tail import MetricsTail

__all__ = ["Run", "Runs"]

_DEPTH = 4  # folders between the given one and a run
_MOST_FOLDERS = 5_000  # looked into in one round
_MOST_FILES = 200  # evaluations and videos of a run, the newest
_ALIVE_SECONDS = 120.0  # since the last metrics, if the system does not show who holds a lock
_STEP = re.compile(r"step-(\d+)")


class Run:
    """A run directory for the page.

    Args:
        name: its name: its path below the folder.
        path: where it is; no symbolic link.
        root: only this folder is read.
    """

    card: dict[str, Any]
    """The run's facts without its curves, as plain JSON values."""
    version: int
    """Goes up when the card changes; 0 before it was read for the first time."""

    def __init__(self, name: str, path: Path, root: Path) -> None:
        self.name = name
        self.path = path
        self.tail = MetricsTail(path / "metrics.jsonl")
        self.card = {}
        self.version = 0
        self._root = root
        self._seen: object = None

    def refresh(self, locked: set[int] | None) -> None:
        """Read the changes.

        Args:
            locked: inodes of files that some process has locked; None: unknown.
        """
        self.tail.refresh()
        parts = [_signature(self.path / name) for name in ("config.json", "provenance.json", "eval", "videos")]
        state = self._state(locked)
        seen = (*parts, state, self.tail.damaged)
        if seen != self._seen:
            self._seen = seen
            card = self._read_card(state)
            if card != self.card:
                self.card = card
                self.version += 1

    def video(self, file: str) -> Path | None:
        """Where a video of the card is; None if there is none of that name (any more)."""
        known = any(video["file"] == file for video in self.card.get("videos", ()))
        return _inside(self._root, self.path / "videos" / file) if known else None

    def _state(self, locked: set[int] | None) -> str:
        """`running` or `stopped`, whatever is on the disk."""
        name, known = (".lock", locked) if locked is not None else ("metrics.jsonl", None)
        try:
            status = (self.path / name).stat()
        except OSError:
            return "stopped"
        alive = status.st_ino in known if known is not None else time.time() - status.st_mtime < _ALIVE_SECONDS
        return "running" if alive else "stopped"

    def _read_card(self, state: str) -> dict[str, Any]:
        config = self._object("config.json")
        settings = _flat_json(config)
        group = same_but_seed(config) if settings else self.name
        return {
            "name": self.name,
            "state": self._ended(settings) if state == "stopped" else state,
            "group": hashlib.sha256(group.encode()).hexdigest()[:12],
            "config": settings,
            "provenance": _flat_json(self._object("provenance.json")),
            "evaluations": list(self._evaluations()),
            "videos": list(self._videos()),
            "damaged_lines": self.tail.damaged,
        }

    def _ended(self, settings: dict[str, Any]) -> str:
        """The end of a run that no process writes."""
        total = settings.get("total_steps")
        if isinstance(total, int) and self.tail.newest().get("step", -1) >= total:
            return "finished"
        if settings.get("stop_on", "none") != "none":
            newest = max(_names(self.path / "checkpoints", "step-"), default=None)
            if newest and self._object(f"checkpoints/{newest}/state.json").get("solved") is True:
                return "solved"
        return "stopped"

    def _object(self, name: str) -> dict[str, Any]:
        """A JSON object, empty if it cannot be read: half-written, damaged or gone."""
        path = _inside(self._root, self.path / name)
        try:
            return read_object(path) if path else {}
        except PixelqError:
            return {}

    def _evaluations(self) -> Iterator[dict[str, Any]]:
        for name in _newest(self.path / "eval", ".json"):
            path = _inside(self._root, self.path / "eval" / name)
            try:
                result = read_evaluation(path) if path else None
            except PixelqError:
                continue
            if result:
                values = result._asdict()
                yield {"file": name, "games": len(values.pop("scores")), **values}

    def _videos(self) -> Iterator[dict[str, Any]]:
        for name in _newest(self.path / "videos", ".mp4"):
            path = _inside(self._root, self.path / "videos" / name)
            if path:
                match = _STEP.search(name)
                yield {"file": name, "step": int(match[1]) if match else None}


class Runs:
    """All runs below a folder, or the folder itself if it is a run.

    Args:
        folder: searched a few levels deep; symbolic links in it are not followed.

    Raises:
        PixelqError: there is no such folder.
    """

    runs: dict[str, Run]
    """By name, in the order of the names."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise PixelqError(f"{folder} is no folder: give the folder that holds the runs, or a run")
        self.root = folder.resolve()
        self.runs = {}
        self._left: list[Run] = []
        self._locked: set[int] | None = None

    def refresh(self, seconds: float) -> bool:
        """Continue to look for changes, for about this long.

        Args:
            seconds: a run that was begun is finished, some hundredths of a second.

        Returns:
            Whether the round is complete: every run has been looked at since the last one was.
        """
        end = time.monotonic() + seconds
        if not self._left:
            self._find()
            self._locked = _locked_inodes()
            self._left = list(self.runs.values())[::-1]
        while self._left and time.monotonic() < end:
            self._left.pop().refresh(self._locked)
        return not self._left

    def _find(self) -> None:
        found = dict(sorted(_run_directories(self.root)))
        self.runs = {name: self.runs.get(name) or Run(name, path, self.root) for name, path in found.items()}


def _run_directories(root: Path) -> Iterator[tuple[str, Path]]:
    """Names and paths of the run directories at or below a folder."""
    if os.path.isfile(root / "config.json"):
        yield root.name, root
        return
    folders = [(root, 0)]
    looked = 0
    while folders and looked < _MOST_FOLDERS:
        folder, depth = folders.pop()
        looked += 1
        try:
            with os.scandir(folder) as entries:
                below = [Path(e.path) for e in entries if _shown(e.name) and e.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        for path in below:
            if os.path.isfile(path / "config.json"):  # no error if permission is missing
                yield path.relative_to(root).as_posix(), path
            elif depth + 1 < _DEPTH:
                folders.append((path, depth + 1))


def _flat_json(values: dict[str, Any]) -> dict[str, Any]:
    """Values by their dotted path; nothing if they are nested too deeply or hold NaN or infinity."""
    try:
        json.dumps(found := flat(values), allow_nan=False)
    except (ValueError, RecursionError):
        return {}
    return found


def _inside(root: Path, path: Path) -> Path | None:
    """The plain file at a path, if it is inside the folder."""
    try:
        real = path.resolve(strict=True)
        return real if real.is_relative_to(root) and stat.S_ISREG(real.stat().st_mode) else None
    except (OSError, RuntimeError, ValueError):
        return None


def _shown(name: str) -> bool:
    """Whether a name is visible and a page can show it."""
    return not name.startswith(".") and "\\" not in name and name.isprintable()


def _names(folder: Path, start: str) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if _shown(name) and name.startswith(start)]
    except OSError:
        return []


def _newest(folder: Path, suffix: str) -> list[str]:
    """Names of files that end so, in order; of too many those that come last."""
    return sorted(name for name in _names(folder, "") if name.endswith(suffix))[-_MOST_FILES:]


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _locked_inodes() -> set[int] | None:
    """Inodes that are locked as a run's writer locks its directory; asking takes no lock. None if unknown."""
    try:
        lines = Path("/proc/locks").read_text("utf-8").splitlines()
    except OSError:
        return None
    # e.g. `1: FLOCK  ADVISORY  WRITE 8389 fe:00:123456 0 EOF`
    words = [line.split() for line in lines]
    return {int(word[5].rpartition(":")[2]) for word in words if len(word) > 5 and word[1] == "FLOCK"}
