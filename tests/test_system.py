"""What not every system has: quotas of containers, locks, flags, files that tell."""

import os
import subprocess
import sys
import types

import pytest

from pixelq import memory, system
from pixelq.cli.main import main
from pixelq.config import TrainConfig
from pixelq.errors import PixelqError
from pixelq.training.run import load_notes


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Files of groups of processes, by name; the process's own list is `own`."""

    def make(own, **files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name.replace("__", "/").replace("cpu_", "cpu.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.setattr(system, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(system, "_CGROUPS", tmp_path / "cgroup")
    return make


def test_a_containers_quota_counts_as_cores(groups):
    groups("0::/a/b\n", cpu_max="400000 100000\n", a__cpu_max="150000 100000\n", a__b__cpu_max="max 100000\n")
    assert system.cpu_quota() == 1.5  # the group's own has none, one around it has
    assert system.cores() == min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)


def test_a_container_that_sees_its_hosts_path_finds_its_quota_at_the_root(groups):
    groups("0::/docker/1f2e\n", cpu_max="50000 100000\n")
    assert system.cpu_quota() == 0.5
    assert system.cores() == 1


def test_quotas_of_the_first_version(groups):
    groups(
        "4:memory:/x\n3:cpu,cpuacct:/x\n",
        **{
            "cpu__x__cpu_cfs_quota_us": "300000\n",
            "cpu__x__cpu_cfs_period_us": "100000\n",
            "cpu__cpu_cfs_quota_us": "-1\n",
            "cpu__cpu_cfs_period_us": "100000\n",
        },
    )
    assert system.cpu_quota() == 3.0


@pytest.mark.parametrize("own", ["", "0::/\n", "nonsense", "0::/../../x\n"])
def test_no_quota_is_no_quota(groups, own):
    groups(own, cpu_max="max 100000\n")
    assert system.cpu_quota() is None
    assert system.cores() >= 1


def test_without_what_linux_tells_there_is_an_answer(groups, monkeypatch):
    for name in ("sched_getaffinity", "sysconf", "getloadavg"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert (system.cores(), system.memory_bytes(), system.load(), system.cpu_quota()) == (1, None, None, None)
    assert system.open_flags("O_NOT_HERE") == 0


def test_windows_locks_a_file_its_own_way(tmp_path, monkeypatch):
    locked = []

    def locking(descriptor, mode, count):
        if locked:
            raise PermissionError(13, "Permission denied")
        locked.append((descriptor, mode, count))

    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(sys, "platform", "win32")
    with (tmp_path / "lock").open("w") as file:
        assert system.try_lock(file.fileno())
        assert not system.try_lock(file.fileno())
        assert locked == [(file.fileno(), 2, 1)]
    system.sync_directory(tmp_path / "not there")  # nothing of the kind there


ELSEWHERE = """
import os, pathlib, signal, sys
import torch, ale_py, gymnasium, matplotlib, safetensors, lz4.block, zstandard, scipy.ndimage, tensorboard, tyro, rich
import torch.utils.tensorboard, av, multiprocessing
for name in [name for name in sys.modules if name.split(".")[0] == "pixelq"]:
    del sys.modules[name]
sys.modules["fcntl"] = sys.modules["resource"] = None
for name in ("sched_getaffinity", "sched_setscheduler", "SCHED_BATCH", "sysconf", "sysconf_names", "getloadavg",
             "O_DIRECTORY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "getpriority", "uname"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGTSTP", "SIGCONT"):
    delattr(signal, name)
def hidden(path):
    return str(path).startswith(("/proc", "/sys"))
def hide(method, answer=None):
    real = getattr(pathlib.Path, method)
    def shown(self, *args, **kwargs):
        if not hidden(self):
            return real(self, *args, **kwargs)
        if answer is None:
            raise FileNotFoundError(2, "No such file or directory", str(self))
        return answer
    setattr(pathlib.Path, method, shown)
for method in ("read_text", "read_bytes", "open", "iterdir", "stat"):
    hide(method)
for method in ("exists", "is_file", "is_dir"):
    hide(method, False)
import msvcrt_here as _
sys.platform = "win32"
from pixelq.cli.main import main
run = sys.argv[1]
SMALL = "--game catch --network.channels 4 4 4 --network.hidden 16 --replay.capacity 500 --threads 1 --envs 2"
assert main(f"train keras-example {SMALL} --total-steps 200 --video-every-episodes 0 --run {run}".split()) == 0
assert main(f"resume {run} --total-steps 300".split()) == 0
assert main(f"eval {run} --episodes 2".split()) == 0
assert main(f"export {run} --out {run}.safetensors".split()) == 0
"""


@pytest.mark.slow
def test_the_verbs_work_where_the_system_has_little(tmp_path):
    (tmp_path / "msvcrt_here.py").write_text(
        "import sys, types\nsys.modules['msvcrt'] = types.SimpleNamespace(locking=lambda *_: None, LK_NBLCK=2)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("given", "left"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_torchs_threads_are_kept_from_spinning_on_unless_the_environment_says_otherwise(given, left):
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    code = "import pixelq, os, sys; assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment | given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == left


@pytest.mark.parametrize(
    ("load", "threads", "device", "advice"),
    [(0.1, 2, "cpu", None), (1.0, 2, "cpu", "--threads 1"), (9.0, 2, "cpu", "--threads 1"), (1.0, 1, "cpu", None),
     (None, 2, "cpu", None), (9.0, 2, "cuda", None)],
)  # fmt: skip
def test_a_busy_machine_is_told(monkeypatch, load, threads, device, advice):
    monkeypatch.setattr("pixelq.training.run.load", lambda: load)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    notes = load_notes(TrainConfig(threads=threads, device=device))
    assert [advice in note for note in notes] == [True] * (advice is not None)


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v")
def test_a_limit_of_the_address_space_is_what_is_free():
    assert system.address_space_left() is None or system.address_space_left() > 0
    code = "from pixelq import system; print(system.address_space_left())"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000,) * 2); "
    done = subprocess.run([sys.executable, "-c", limit + code], capture_output=True, text=True, check=True)
    assert 10**8 < int(done.stdout) < 2 * 10**9


def test_what_is_left_of_the_address_space_counts_as_memory(monkeypatch):
    monkeypatch.setattr(memory, "address_space_left", lambda: 1_000_000)
    with pytest.raises(PixelqError, match=r"needs 3\.0 GB but 1 MB are free"):
        memory.require_memory(3_000_000_000, "the replay memory")


def test_memory_that_is_not_there_is_a_line(monkeypatch, capsys):
    def full(words):
        raise MemoryError("Unable to allocate 7.1 GiB")

    monkeypatch.setattr("pixelq.cli.games.run", full)
    assert main(["games"]) == 1
    assert capsys.readouterr().err == "pixelq: not enough memory: Unable to allocate 7.1 GiB\n"
