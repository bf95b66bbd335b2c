"""The clock of every peer: steps a second while learning, the warm-up left out. Needs nothing but Python."""

import importlib.metadata
import json
import time
from pathlib import Path

PERIOD = 4  # steps an update
WARM_UP_STEPS = 200  # to fill the memory with a batch, and for more than 20 updates


class Stopwatch:
    """Counts steps from the warm-up's end until the time is over, in whole periods.

    Args:
        seconds: for how long.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._step = 0
        self._started = 0.0
        self._spent = 0.0

    def step(self) -> bool:
        """A step was done; whether to do another."""
        self._step += 1
        if self._step < WARM_UP_STEPS or self._step % PERIOD:
            return True
        if self._step == WARM_UP_STEPS:
            self._started = time.perf_counter()
        self._spent = time.perf_counter() - self._started
        return self._step == WARM_UP_STEPS or self._spent < self._seconds

    def report(self, *packages: str) -> None:
        """Print what was measured as one line of JSON, with the versions of those packages that are installed."""
        steps = self._step - WARM_UP_STEPS
        figures = {
            "steps": steps,
            "seconds": self._spent,
            "steps_per_second": steps / self._spent,
            "peak_resident_bytes": _peak_resident_bytes(),
            "versions": dict(filter(all, ((name, _version(name)) for name in packages))),
        }
        print(json.dumps(figures))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _peak_resident_bytes() -> int | None:
    status = Path("/proc/self/status")
    lines = status.read_text("utf-8").splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
