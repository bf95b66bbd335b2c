"""The newest agent of a run that is still learning."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from pixelq.agent import Agent, load_agent
from pixelq.errors import PixelqError

__all__ = ["NewestAgent"]


class NewestAgent:
    """Checks from time to time for a newer checkpoint of a run, and loads its agent; any thread may call it.

    Args:
        run: a run directory.
        agent: its agent so far.
        seconds: time between two checks.
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
        """The newest agent; while one thread loads it, the others keep the one before."""
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
        except (OSError, PixelqError) as error:  # the run may have been moved: the loaded agent still plays
            self._complain(str(error))
        self._next_look = time.monotonic() + self._seconds

    def _take(self, agent: Agent) -> None:
        """Use the new agent, if it plays the same game with the same settings."""
        if (agent.game, agent.action_meanings) == (self._agent.game, self._agent.action_meanings):
            self._agent = agent
        else:
            self._complain(f"{self._folder.parent} is another run now, of {agent.game}")

    def _complain(self, line: str) -> None:
        """Report it once, not at every check."""
        if line != self._told:
            self._told = line
            self._tell(line)
