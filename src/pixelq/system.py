"""Functions that only some operating systems have, each with a fallback for the rest. Imports no torch."""

import math
import mmap
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

__all__ = [
    "address_space_left",
    "anonymous_pages",
    "cores",
    "cpu_quota",
    "hide_windows",
    "kill_group",
    "let_cpu_help_apples_gpu",
    "load",
    "memory_bytes",
    "open_flags",
    "read_at",
    "step_back",
    "sync_directory",
    "try_lock",
    "wait_passively",
]

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
# passes of libgomp's loop before a thread sleeps, some microseconds: a busy process's core is not spun away
_SPINS = "1000"


def open_flags(*names: str) -> int:
    """Those of the flags for `os.open` that this system has, together.

    Windows needs O_BINARY, which no other has; O_NOFOLLOW and O_NONBLOCK it has not.
    """
    flags = 0
    for name in names:
        flags |= getattr(os, name, 0)
    return flags


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """Up to `count` bytes of a file from an offset on; on Windows this moves the file position."""
    if sys.platform == "win32":
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, count)
    else:
        return os.pread(descriptor, count, offset)


def anonymous_pages(size: int) -> mmap.mmap:
    """Memory in separate pages, which return to the system when freed."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    else:
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def step_back(process: int) -> None:
    """Give a process of ours the lowest priority; on Windows its priority does not change."""
    if sys.platform != "win32":
        os.setpriority(os.PRIO_PROCESS, process, 19)


def kill_group(process: int) -> None:
    """End a process and all that it started at once; on Windows it alone.

    Args:
        process: the leader of its group.

    Raises:
        ProcessLookupError, PermissionError: it has ended.
    """
    if sys.platform == "win32":
        os.kill(process, signal.SIGTERM)  # which there is TerminateProcess
    else:
        os.killpg(process, signal.SIGKILL)


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this process alone, until it is closed or the process ends, however that happens.

    Returns:
        False if another process has it locked.

    Raises:
        OSError: this file system has no locks.
    """
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    else:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable; a rename is not until its directory is synced.

    Windows cannot open directories; there NTFS keeps a journal of names.
    """
    if sys.platform == "win32":
        return
    else:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def memory_bytes() -> int | None:
    """Memory of the machine; None if unknown."""
    if sys.platform == "win32":
        return None
    else:
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, OSError, ValueError):
            return None


def address_space_left() -> int | None:
    """Bytes that this process may still map under the limit of `ulimit -v`; None where there is no such limit."""
    if sys.platform == "win32":
        return None
    else:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        sizes = Path("/proc/self/statm")
        if limit == resource.RLIM_INFINITY or not sizes.exists():
            return None
        return max(0, limit - int(sizes.read_text("ascii").split()[0]) * mmap.PAGESIZE)


def cores() -> int:
    """Cores this process may use: fewer than the machine has where its affinity or a container's quota says so."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def cpu_quota() -> float | None:
    """Cores' worth of time that the container, or any group of processes around this one, may use; None: all.

    Source: "Control Group v2", cpu.max, and "CFS Bandwidth Control", both in Linux's documentation.
    """
    try:
        lines = _OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    quotas: list[float] = []
    for line in lines:  # e.g. `0::/user.slice` (v2), `4:cpu,cpuacct:/docker/1f2e` (v1)
        _, _, rest = line.partition(":")
        controllers, _, own = rest.partition(":")
        if not controllers:
            quotas += _quotas(_CGROUPS, own, "cpu.max")
        elif "cpu" in controllers.split(","):
            for root in {_CGROUPS / controllers, _CGROUPS / "cpu"}:
                quotas += _quotas(root, own, "cpu.cfs_quota_us", "cpu.cfs_period_us")
    return min(quotas, default=None)


def _quotas(root: Path, own: str, *names: str) -> list[float]:
    """Limits of a group and of all around it; in a container its path may be the host's, and only the root be there."""
    found = []
    group = Path(own.lstrip("/"))
    for folder in (group, *group.parents):
        with suppress(OSError, ValueError):
            words = " ".join((root / folder / name).read_text(encoding="utf-8") for name in names).split()
            quota, period = float(words[0]), float(words[1])  # `max` or -1: no limit
            if quota > 0 and period > 0:
                found.append(quota / period)
    return found


def load() -> float | None:
    """Mean number of runnable processes over the last minute; None if the system does not report it."""
    if sys.platform == "win32":
        return None
    else:
        try:
            return os.getloadavg()[0]
        except (AttributeError, OSError):
            return None


def let_cpu_help_apples_gpu() -> None:
    """Have a CPU compute what PyTorch cannot on an Apple GPU, no error; to be called before torch is loaded."""
    if sys.platform == "darwin":
        os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def wait_passively() -> None:
    """Let waiting threads of PyTorch sleep soon, unless the environment sets another policy.

    To be called before torch is loaded; afterwards it changes nothing. Who spins takes the core from the thread that is
    waited for, if another process has one: two threads are then many times slower than one.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def hide_windows() -> None:
    """Let games that draw with SDL, such as Pygame's, look for no display where there is none.

    Without it SDL complains on stderr once a process. A driver that the environment names already is kept.
    """
    if sys.platform == "linux" and not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
