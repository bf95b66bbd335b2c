"""The origin of a run: versions, commit, machine, command. Imports no torch."""

import importlib.metadata
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pixelq.errors import PixelqError
from pixelq.run.reading import flat
from pixelq.run.rundir import RunDir
from pixelq.system import cores, memory_bytes

__all__ = ["add_resume", "provenance"]

_KERNELS = "kernels"
_OF_A_PROCESS = ("command", "started")  # another every time
_PACKAGES = ("torch", "numpy", "ale-py", "gymnasium", "safetensors", "zstandard", "lz4")


def provenance(kernels: str | None = None) -> dict[str, Any]:
    """What is worth knowing about this process and machine, as plain JSON values; unknown is null.

    Args:
        kernels: the instructions of the kernels that make updates; None: PyTorch makes them.
    """
    return {
        "pixelq": _version("pixelq"),
        "git": _git(Path(__file__).parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": cores(),
        "memory_bytes": memory_bytes(),
        "gpus": _gpus(),
        "kernels": kernels,
        "packages": {name: _version(name) for name in _PACKAGES},
        "command": shlex.join(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def add_resume(run: RunDir, step: int, kernels: str | None = None) -> list[str]:
    """Record in a run's `provenance.json` that this process continues it, and the differences to the start.

    Under `resumed`, a list, an object each time: `step`, `command`, `started`, and by its dotted path whatever else is
    another now. A file that is damaged stays as it is.

    Args:
        run: the run, locked.
        step: where it continues.
        kernels: as `provenance` takes them.

    Returns:
        Lines to show: the differences, and why they could not be written.
    """
    now = flat(provenance(kernels))
    try:
        first = run.read_json(run.provenance.name)
        before = first.get("resumed", []) if isinstance(first, dict) else None
        if not isinstance(before, list):
            raise PixelqError(f"{run.provenance} is damaged: not a run's provenance")
        at_the_start = flat(first)
        changed = {name: value for name, value in now.items() if value != at_the_start.get(name)}
        process = {name: now[name] for name in _OF_A_PROCESS}
        run.write_json(run.provenance.name, first | {"resumed": [*before, {"step": step, **process, **changed}]})
    except (PixelqError, RecursionError) as error:
        return [f"{error}; this resume is not written down there"]
    names = [name for name in changed if name not in (*_OF_A_PROCESS, _KERNELS)]
    last = at_the_start | (flat(before[-1]) if before and isinstance(before[-1], dict) else {})
    told = []
    if last.get(_KERNELS) != kernels and _KERNELS in at_the_start:
        was, now_by = (f"by {name or 'PyTorch'}" for name in (last[_KERNELS], kernels))
        told.append(f"updates are {now_by}, were {was}; from here on the run differs in rounding")
    return told + [f"not as at the start of the run: {', '.join(names)} (see {run.provenance})"] * bool(names)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    """What a program prints; None if it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=10, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout the code runs from; None for a package installed inside some other checkout."""
    if _output("git", "-C", str(folder), "ls-files", "--error-unmatch", "provenance.py") is None:
        return None
    commit = _output("git", "-C", str(folder), "rev-parse", "HEAD")
    changes = _output("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or None)


def _gpus() -> list[str]:
    # asking torch would open a CUDA context, memory and seconds, even for a run on the CPU
    names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return names.splitlines() if names else []
