"""The newest agent of a run that goes on learning."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from pixelq.agent import Agent, load_agent
from pixelq.errors import PixelqError

__all__ = ["NewestAgent"]


class NewestAgent:
    """Looks now and then whether a run has a newer checkpoint, and loads its agent; may be asked by any thread.

    Args:
        run: a run directory.
        agent: its agent so far.
        seconds: time between two looks.
        tell: called with one line about a newer checkpoint that cannot be used.
    """

    def __init__(self, run: Path, agent: Agent, seconds: float = 2.0, tell: Callable[[str], None] = print) -> None:
        self._folder = run / "checkpoints"
        self._agent = agent
        self._seconds = seconds
        self._tell = tell
        self._told = ""
        self._lock = threading.Lock()
        self._next_look = 0.0  # on the monotonic clock
        self._changed = -1  # when the folder was last seen to change, in nanoseconds

    def __call__(self) -> Agent:
        """The newest agent there is; while one thread loads, the others go on with the one before it."""
        if time.monotonic() >= self._next_look and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._agent

    def _look(self) -> None:
        try:
            changed = self._folder.stat().st_mtime_ns  # a checkpoint appears by a rename into it
            if changed != self._changed:
                self._changed = changed
                self._take(load_agent(self._folder.parent, self._agent.device.type, self._complain))
        except (OSError, PixelqError) as error:  # the run may have been moved away: what is loaded still plays
            self._complain(str(error))
        self._next_look = time.monotonic() + self._seconds

    def _take(self, agent: Agent) -> None:
        """Let it take over, if it plays the same game in the same way."""
        if (agent.game, agent.action_meanings) == (self._agent.game, self._agent.action_meanings):
            self._agent = agent
        else:
            self._complain(f"{self._folder.parent} is another run now, of {agent.game}")

    def _complain(self, line: str) -> None:
        """Say it once, not at every look."""
        if line != self._told:
            self._told = line
            self._tell(line)
