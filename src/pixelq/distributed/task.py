"""A run on a cluster's node: it trains in its own process and ends with the task. Imports no Ray.

Nodes and the caller share only the run's files: to stop a run, the caller writes a file beside its log.
"""

import os
import subprocess
import time
from pathlib import Path

from pixelq.distributed.processes import worker_command
from pixelq.system import kill_group, try_lock

__all__ = ["AT_ONCE", "STOPPED", "run_task"]

STOPPED = 130  # exit status of a run that had to stop
AT_ONCE = "at once"  # content of the stop file then
_LOOK_SECONDS = 0.25
_LOCK_SECONDS = 300.0  # a node that was lost may take that long to notice


def run_task(settings: str, run: str, log: str, stop: str, environment: dict[str, str | None]) -> int:
    """Train or continue a run, and return its exit status.

    Args:
        settings: the config in a file.
        run: its directory.
        log: its output is appended here.
        stop: the file that asks it to stop, when it appears.
        environment: the caller's variables, which Ray would change; None: not set.
    """
    if not _free(Path(run), Path(stop)):
        return STOPPED
    variables = {name: value for name, value in os.environ.items() if name not in environment}
    variables |= {name: value for name, value in environment.items() if value is not None}
    variables["PYTHONUNBUFFERED"] = "1"
    read, write = os.pipe()  # its end, when this process ends, is the run's end
    with open(log, "ab") as output:
        process = subprocess.Popen(
            worker_command(settings, run),
            stdin=read,
            stdout=output,
            stderr=output,
            env=variables,
            start_new_session=True,
        )
        os.close(read)
        try:
            return _follow(process, Path(stop))
        finally:
            if process.poll() is None:  # the task is cancelled
                kill_group(process.pid)
                process.wait()
            os.close(write)


def _follow(process: subprocess.Popen[bytes], stop: Path) -> int:
    asked = False
    while True:
        try:
            return process.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if stop.exists():
                if stop.read_text(encoding="utf-8") == AT_ONCE:
                    kill_group(process.pid)
                elif not asked:
                    process.terminate()
                asked = True


def _free(run: Path, stop: Path) -> bool:
    """Wait until no process writes the run; on a lost node the old one may live a little longer."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < deadline:
        if stop.exists():
            return False
        if not (run / ".lock").exists():
            return True
        descriptor = os.open(run / ".lock", os.O_RDWR)
        try:
            if try_lock(descriptor):
                return True
        finally:
            os.close(descriptor)
        time.sleep(_LOOK_SECONDS)
    return True  # the run itself says who holds it
