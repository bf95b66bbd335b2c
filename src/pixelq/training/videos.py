"""Videos of a run: from time to time a game of the present agent, recorded by a separate process."""

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pixelq.agent import save_agent
from pixelq.children import module_command
from pixelq.errors import PixelqError
from pixelq.run.seeding import stream_seed
from pixelq.system import step_back
from pixelq.training.parts import Parts
from pixelq.training.state import agent_card

__all__ = ["Videos"]

_FINAL_SECONDS = 300.0  # the longest a run waits for its last video


class Videos:
    """Starts the recordings of a run and keeps the newest.

    A recording has its own process at the lowest priority, its own games and random stream, so it neither slows nor
    changes the run. One runs at a time; a recording that comes too early is skipped. If one fails, for example because
    the disk is full, a line says so and the run continues. A full disk also fails the next checkpoint or metrics line.

    Args:
        folder: where the videos go.
        every: episodes between two recordings; 0: none.
        min_seconds: least time between two.
        keep: newest videos kept.
        say: tells a person one line.
    """

    def __init__(
        self, folder: Path, every: int, min_seconds: float, keep: int, say: Callable[[str], None] = print
    ) -> None:
        self._folder = folder
        self._every = every
        self._min_seconds = min_seconds
        self._keep = keep
        self._say = say
        self._seen: int | None = None
        self._last_start = -float("inf")
        self._process: subprocess.Popen[bytes] | None = None
        self._weights: Path | None = None
        with suppress(OSError):  # files of a killed process of this run
            for pattern in (".agent-*", ".tmp-*"):
                for path in folder.glob(pattern):
                    path.unlink(missing_ok=True)

    def after_episodes(self, parts: Parts, episodes: int) -> None:
        """Record if a multiple of `every` was passed, the last recording is done and long enough ago."""
        if not self._every:
            return
        period = episodes // self._every
        due = self._seen is not None and period > self._seen
        self._seen = period
        if due and self._idle() and time.monotonic() - self._last_start >= self._min_seconds:
            self._start(parts, episodes)

    @property
    def records(self) -> bool:
        """Whether the run makes videos."""
        return self._every > 0

    def final(self, parts: Parts, episodes: int) -> str | None:
        """Record the finished agent and wait for it; returns the video's path, None if there is none."""
        if not self._every:
            return None
        self._wait()
        path = self._start(parts, episodes)
        self._wait()
        return str(path) if path.exists() else None

    def close(self) -> None:
        """Stop a recording that is under way."""
        if self._process is not None and self._process.poll() is None:
            self._say = _nothing  # it fails because it is stopped
            self._process.terminate()
        self._wait()

    def _idle(self) -> bool:
        if self._process is not None and self._process.poll() is None:
            return False
        self._clean()
        return True

    def _wait(self) -> None:
        if self._process is not None:
            try:
                self._process.wait(_FINAL_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._clean()

    def _clean(self) -> None:
        """End a recording: report a failure, remove its agent and the oldest videos."""
        if self._process is not None and self._process.stderr is not None:
            with self._process.stderr as stderr:
                said = stderr.read().decode(errors="replace").strip().splitlines()
            if self._process.returncode:
                why = said[-1] if said else f"the recorder ended with {self._process.returncode}"
                self._say(f"no video: {why.removeprefix('pixelq: ')}")
        self._process = None
        stale = [self._weights] if self._weights is not None else []
        with suppress(OSError):
            stale += sorted(self._folder.glob("step-*.mp4"))[: -self._keep]
            for path in stale:
                path.unlink(missing_ok=True)
        self._weights = None

    def _start(self, parts: Parts, episodes: int) -> Path:
        out = self._folder / f"step-{parts.step:012d}.mp4"
        weights = self._folder / f".agent-{parts.step:012d}.safetensors"
        self._last_start = time.monotonic()
        try:
            save_agent(weights, parts.learner.weights(), agent_card(parts))
            self._weights = weights
            seed = stream_seed(parts.config.seed, f"video {episodes}") % 2**31
            self._process = subprocess.Popen(
                module_command("pixelq.evaluation.record_worker", str(weights), str(out), str(seed)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,  # a line or a traceback: less than a pipe holds
                start_new_session=True,  # a Ctrl-C at the terminal is for the run
                env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            )
            step_back(self._process.pid)
        except (PixelqError, OSError) as error:
            self._say(f"no video: {error}")
        return out


def _nothing(text: str) -> None:
    del text
