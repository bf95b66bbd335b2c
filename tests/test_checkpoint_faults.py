"""Checkpoints on a disk that takes no more, and under kills."""

import errno
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from checkpoints import check, files, load, save
from pixelq.run import storage
from pixelq.run.checkpoint import CheckpointStore, Chunk
from pixelq.run.storage import StorageError


def failing_at(monkeypatch, count):
    """The `count`-th write, sync, rename or new folder fails, and so do all writes after it, until undone."""
    left = [count]

    def limited(real):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(storage.DigestWriter, "write", limited(storage.DigestWriter.write))
    monkeypatch.setattr(os, "fsync", limited(os.fsync))
    for name in ("rename", "replace", "mkdir"):
        monkeypatch.setattr(Path, name, limited(getattr(Path, name)))
    return left


@pytest.mark.slow
def test_a_full_disk_at_any_moment_leaves_the_earlier_ones_and_nothing_else(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    save(store, 0)
    save(store, 1)
    before = files(tmp_path)
    folders = {path for path in tmp_path.rglob("*") if path.is_dir()}
    for count in itertools.count():
        with monkeypatch.context() as patch:
            failing_at(patch, count)
            with pytest.raises(StorageError) as caught:
                save(store, 2)
        assert str(caught.value).endswith(": the disk is full")
        assert caught.value.exit_status == 1
        if (tmp_path / "step-000000000200").exists():
            break  # failed while tidying up: the new one is complete
        assert files(tmp_path) == before
        assert {path for path in tmp_path.rglob("*") if path.is_dir()} == folders
        check(load(tmp_path)[0], 1)
    assert count > 10
    check(load(tmp_path)[0], 2)
    save(store, 3)  # trying again works
    check(load(tmp_path)[0], 3)
    assert store.steps() == [200, 300]


def test_an_interrupt_right_after_the_rename_keeps_the_new_one(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    real = Path.rename

    def interrupted(path, target):
        real(path, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save(store, 2)
    check(load(tmp_path)[0], 2)
    save(store, 3)
    check(load(tmp_path)[0], 3)


def test_no_permission_is_one_line(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    save(store, 1)

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError, match=r"^cannot write .*step-000000000200: permission denied$"):
        save(store, 2)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk(small_disk):
    noise = np.random.default_rng(0)

    def big(number, size):
        planes = noise.integers(0, 256, size, np.uint8)
        tensors = {"agent": {"w": noise.integers(0, 256, size, np.uint8)}}
        return store.save(number, {}, tensors, [Chunk(number, number + 1, lambda: {"planes": planes})])

    store = CheckpointStore(small_disk / "checkpoints")
    big(1, 20_000)
    big(2, 20_000)
    before = files(small_disk)
    for size in (300_000, 100_000, 80_000):  # the chunk does not fit; it does, the tensors do not
        with pytest.raises(StorageError, match=r"^cannot write .*step-000000000003: the disk is full$"):
            big(3, size)
        assert files(small_disk) == before
        assert load(small_disk / "checkpoints")[0].step == 2
    big(3, 20_000)
    assert load(small_disk / "checkpoints")[0].step == 3


def in_another_process(script, *arguments):
    """Run one of the scripts below, which import torch once and fork what they kill."""
    command = [sys.executable, "-c", SAVER + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


SAVER = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np, torch
from pixelq.errors import CheckpointError
from pixelq.run.checkpoint import CheckpointStore, Chunk

torch.set_num_threads(1)
directory = Path(sys.argv[1])

def contents(number):
    tensors = {"agent": {"w": torch.full((5000,), float(number))}, "learner": {"m": torch.zeros(3)}}
    def chunk(n):
        return Chunk(n, n + 1, lambda: {"planes": np.full((20, 84, 84), n % 256, np.uint8)})
    return {"number": number}, tensors, [chunk(n) for n in range(max(0, number - 3), number + 1)]

def load():
    store = CheckpointStore(directory)
    def damaged(line):
        raise SystemExit("damaged: " + line)
    checkpoint = store.load_newest(damaged)
    number = checkpoint.state["number"]
    state, tensors, chunks = contents(number)
    assert checkpoint.step == number
    assert torch.equal(checkpoint.tensors("agent")["w"], tensors["agent"]["w"])
    for loaded, made in zip(checkpoint.chunks, chunks, strict=True):
        assert loaded[:2] == made[:2] and (loaded.arrays()["planes"] == made.arrays()["planes"]).all()
    return store, number

def in_child(work):
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    return child
"""

KILL_STORM = """
random.seed(int(sys.argv[2]))
CheckpointStore(directory).save(0, *contents(0))
read, write = os.pipe()
os.set_blocking(read, False)

def save_on():
    store, number = load()
    while True:
        number += 1
        store.save(number, *contents(number))
        os.write(write, b"%d " % number)

longest = 0.12  # seconds of a life
for kill in range(int(sys.argv[3])):
    before = load()[1]
    child = in_child(save_on)
    lived = random.uniform(0.02, longest)
    time.sleep(lived)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        said = int(os.read(read, 1 << 20).split()[-1])
    except BlockingIOError:
        said = 0
    assert load()[1] >= said, "a finished checkpoint was lost"
    if lived > longest / 2 and load()[1] < before + 4:  # a busy machine
        longest *= 1.5
store, number = load()
store.save(number + 1, *contents(number + 1))
load()
print(number)
"""

EVERY_CALL = """
# the process ends at its n-th call to the file system, for every n; the next one tidies up
import itertools
left = -1

def hook(event, arguments):
    global left
    if left >= 0 and event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"):
        left -= 1
        if left < 0:
            os._exit(9)

def save_next(calls):
    def work():
        global left
        store, number = load()
        left = calls
        store.save(number + 1, *contents(number + 1))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(in_child(work), 0)[1])

for number in range(5):
    CheckpointStore(directory).save(number, *contents(number))
sys.addaudithook(hook)
gains = []
for calls in itertools.count():
    before = load()[1]
    status = save_next(calls)
    gains.append(load()[1] - before)
    assert status in (0, 9) and gains[-1] in (0, 1), (status, gains)
    assert save_next(-1) == 0 and load()[1] == before + gains[-1] + 1
    assert len(list(directory.iterdir())) == 3 and len(list((directory / "chunks").iterdir())) == 5
    if status == 0:
        break
assert gains == sorted(gains) and gains[-1] == 1
print(calls, sum(gains))
"""


def tidy(directory):
    """Two checkpoints, the chunks they need, nothing else."""
    assert {path.name.split("-")[0] for path in directory.iterdir()} == {"chunks", "step"}
    assert len(list(directory.glob("step-*"))) == 2
    assert all(path.name.startswith("rows-") for path in (directory / "chunks").iterdir())
    assert len(list((directory / "chunks").iterdir())) == 5  # 4 each, 3 of them shared


@pytest.mark.slow
def test_kills_at_random_instants_lose_nothing(tmp_path):
    (last,) = in_another_process(KILL_STORM, tmp_path, 1, 25)
    assert int(last) > 25  # the storm left time to save in
    tidy(tmp_path)


@pytest.mark.slow
def test_a_process_that_ends_at_any_call_to_the_file_system_loses_nothing(tmp_path):
    calls, saved = map(int, in_another_process(EVERY_CALL, tmp_path))
    assert calls > 20  # so many places to end at
    assert 1 < saved < calls
    tidy(tmp_path)
