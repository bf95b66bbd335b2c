"""Runs on a Ray cluster: each a task with its processors or a GPU, tried again elsewhere when a node is lost."""

import contextlib
import ipaddress
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pixelq.config import TrainConfig
from pixelq.distributed.processes import Job, Process
from pixelq.distributed.task import AT_ONCE, run_task
from pixelq.errors import PixelqError
from pixelq.extras import need
from pixelq.run.storage import storage_errors
from pixelq.system import cores

__all__ = ["RayCluster", "connected"]

_OBJECT_STORE = 80 * 2**20  # bytes, near Ray's minimum: only short texts go through it
_LOST_NODES = 10  # node losses that a run survives, each time from its last checkpoint
_CONNECT_SECONDS = 10.0
_SAVE_SECONDS = 90.0
_RAY_SETS = ("OMP_NUM_THREADS",)  # for its workers: runs count their own threads


@contextlib.contextmanager
def connected(address: str, processors: int = 0) -> Iterator["RayCluster"]:
    """A Ray cluster, for as long as the block lasts.

    Args:
        address: HOST:PORT of one that was started with `ray start`, `auto` for the one this machine is part of, `local`
            for one of this machine's own, which ends with the block.
        processors: that `local` says it has, at least, however many there are.

    Raises:
        PixelqError: Ray is missing, or there is no cluster.
    """
    need("ray", "ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray would report its use to its makers
    if address == "local":
        os.environ.setdefault("RAY_worker_niceness", "0")  # default 15: runs would starve beside other programs
    if address == "local" or _is_loopback(address):
        # else Ray uses this machine's network address instead of the loopback
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    elif address != "auto":
        _check_reachable(address)
    import ray

    if address == "auto" and ray.is_initialized():  # the program's own connection, which stays
        yield RayCluster(ray)
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        quiet |= {
            "num_cpus": max(cores(), processors),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE,
            "_node_ip_address": "127.0.0.1",
        }
    elif _is_loopback(address):
        quiet["_node_ip_address"] = address.rpartition(":")[0]
    try:
        ray.init(address=address, **quiet)
    except Exception as error:  # Ray raises many kinds, Exception itself if its own processes are slow to start
        line = str(error).strip().splitlines() or [type(error).__name__]
        raise PixelqError(f"--ray {address}: no Ray cluster there: {line[0]}") from error
    try:
        yield RayCluster(ray)
    finally:
        ray.shutdown()


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0]
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise PixelqError(f"--ray is {address}: must be HOST:PORT, auto or local")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise PixelqError(f"--ray {address}: no cluster answers there: {error.strerror or error}") from error


class RayCluster:
    """A cluster that runs are sent to.

    Args:
        ray: the library, connected.
    """

    def __init__(self, ray: Any) -> None:
        self.ray = self._ray = ray
        have = ray.cluster_resources()
        self._cpus, self._gpus = int(have.get("CPU", 0)), int(have.get("GPU", 0))

    def room(self, configs: Sequence[TrainConfig], jobs: int | None) -> tuple[int, int]:
        """How many runs at once, and the threads of each.

        Args:
            configs: of the runs.
            jobs: how many are wanted; None: as many as the cluster has processors or GPUs for.
        """
        on_gpu = any(self._gpus_of(config) for config in configs)
        threads = max((config.threads for config in configs), default=0)
        threads = threads or (max(1, self._cpus // self._gpus) if on_gpu and self._gpus else 1)
        carried = max(1, self._gpus if on_gpu and self._gpus else self._cpus // threads)
        return max(1, min(jobs or carried, len(configs))), threads

    def start(self, job: Job) -> Process:
        """Send a run to the cluster; it begins as soon as a node has room.

        Args:
            job: the run; all nodes must see its files.

        Raises:
            PixelqError: no node has the resources that the run needs.
        """
        gpus, need = self._gpus_of(job.config), max(1, job.config.threads)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(
            node.get("CPU", 0) >= need and node.get("GPU", 0) >= gpus and node.get("memory", 0) >= job.memory
            for node in nodes
        ):
            what = f"{need} processors, {'a GPU and ' if gpus else ''}{job.memory / 1e9:.1f} GB of memory"
            raise PixelqError(f"no node of the cluster has {what}, which {job.run.name} needs")
        stop = job.log.with_suffix(".stop").absolute()
        with storage_errors(stop):
            stop.unlink(missing_ok=True)
        task = self._ray.remote(run_task).options(
            num_cpus=need,
            num_gpus=gpus,
            memory=job.memory,
            max_retries=_LOST_NODES,
            scheduling_strategy="SPREAD",
            name=job.run.name,
        )
        words = [str(path.absolute()) for path in (job.settings, job.run, job.log)]
        ours = {name: os.environ.get(name) for name in _RAY_SETS}
        return _RayProcess(self._ray, task.remote(*words, str(stop), ours), stop, job.log)

    def _gpus_of(self, config: TrainConfig) -> int:
        return int(config.device == "cuda" or (config.device == "auto" and self._gpus > 0))


class _RayProcess:
    def __init__(self, ray: Any, task: Any, stop: Path, log: Path) -> None:
        self._ray, self._task, self._stop, self._log = ray, task, stop, log

    def poll(self) -> int | None:
        done, _ = self._ray.wait([self._task], timeout=0)
        if not done:
            return None
        try:
            return int(self._ray.get(self._task))
        except self._ray.exceptions.RayError as error:  # nodes were lost too often, or the cluster is
            line = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
            with storage_errors(self._log), self._log.open("a", encoding="utf-8") as log:
                log.write(f"{line.strip()}\n")
            return 1

    def end(self, at_once: bool) -> None:
        with storage_errors(self._stop):
            self._stop.write_text(AT_ONCE if at_once else "", encoding="utf-8")

    def wait(self) -> None:
        deadline = time.monotonic() + _SAVE_SECONDS
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._stop.unlink(missing_ok=True)
