"""Videos of a run: now and then a game played by the agent of the moment, recorded by a process of its own."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from pixelq.agent import save_agent
from pixelq.run.seeding import stream_seed
from pixelq.training.parts import Parts
from pixelq.training.state import agent_card

__all__ = ["Videos"]

_FINAL_SECONDS = 300.0  # the longest a run waits for its last video


class Videos:
    """Starts the recordings of a run and keeps the newest.

    A recording has its own process at the lowest priority, its own games and random stream, so it neither slows nor
    changes the run. One at a time; a moment that comes too early is skipped.

    Args:
        folder: where the videos go.
        every: episodes between two recordings; 0: none.
        min_seconds: least time between two.
        keep: newest videos kept.
    """

    def __init__(self, folder: Path, every: int, min_seconds: float, keep: int) -> None:
        self._folder = folder
        self._every = every
        self._min_seconds = min_seconds
        self._keep = keep
        self._seen: int | None = None
        self._last_start = -float("inf")
        self._process: subprocess.Popen[bytes] | None = None
        self._weights: Path | None = None

    def after_episodes(self, parts: Parts, episodes: int) -> None:
        """Record if a multiple of `every` was passed, the last recording is done and long enough ago."""
        if not self._every:
            return
        period = episodes // self._every
        due = self._seen is not None and period > self._seen
        self._seen = period
        if due and self._idle() and time.monotonic() - self._last_start >= self._min_seconds:
            self._start(parts, episodes)

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
        self._process = None
        if self._weights is not None:
            self._weights.unlink(missing_ok=True)
            self._weights = None
        videos = sorted(self._folder.glob("step-*.mp4"))
        for path in videos[: -self._keep]:
            path.unlink(missing_ok=True)

    def _start(self, parts: Parts, episodes: int) -> Path:
        out = self._folder / f"step-{parts.step:012d}.mp4"
        weights = self._folder / f".agent-{parts.step:012d}.safetensors"
        with suppress(OSError):  # a video is never worth a run
            save_agent(weights, parts.learner.weights(), agent_card(parts))
            seed = stream_seed(parts.config.seed, f"video {episodes}") % 2**31
            self._weights = weights
            self._last_start = time.monotonic()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pixelq.evaluation.record_worker", str(weights), str(out), str(seed)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C at the terminal is for the run
                env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            )
            if hasattr(os, "setpriority"):
                os.setpriority(os.PRIO_PROCESS, self._process.pid, 19)
        return out
