"""The run directory and its one writer."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pixelq.errors import PixelqError
from pixelq.run.rundir import RunDir
from pixelq.run.storage import StorageError


def refuses(kind, call, *texts):
    """The one line of the error that `call` ends in."""
    with pytest.raises(PixelqError) as caught:
        call()
    line = str(caught.value)
    assert type(caught.value) is kind
    assert "\n" not in line
    for text in texts:
        assert text in line
    return caught.value


def failing(monkeypatch, name, number, where=os):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(where, name, fail)


def test_a_new_run_has_its_folders(tmp_path):
    run = RunDir.create(tmp_path / "deep" / "run")
    assert {path.name for path in run.path.iterdir()} == {"checkpoints", "videos", "eval", "tb"}
    assert all(path.is_dir() for path in (run.checkpoints, run.videos, run.eval, run.tb))
    names = [path.name for path in (run.config, run.provenance, run.metrics)]
    assert names == ["config.json", "provenance.json", "metrics.jsonl"]


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_exists_is_never_overwritten(tmp_path, kind):
    path = tmp_path / "run"
    if kind == "folder":
        (path / "mine").mkdir(parents=True)
    elif kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(tmp_path / "nowhere")
    error = refuses(PixelqError, lambda: RunDir.create(path), f"{path} exists already", "give --run a new path")
    assert error.exit_status == 2
    assert "resume" not in str(error)


def test_an_existing_run_says_how_to_go_on_with_it(tmp_path):
    RunDir.create(tmp_path / "run").write_json("config.json", {})
    refuses(PixelqError, lambda: RunDir.create(tmp_path / "run"), f"pixelq resume {tmp_path / 'run'}")


def test_a_path_that_cannot_be_is_bad_input(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    error = refuses(PixelqError, lambda: RunDir.create(tmp_path / "file" / "run"), "Not a directory")
    assert error.exit_status == 2
    refuses(PixelqError, lambda: RunDir.create(tmp_path / ("x" * 300)), "File name too long")
    failing(monkeypatch, "mkdir", errno.EROFS)
    refuses(PixelqError, lambda: RunDir.create(tmp_path / "new"), "--run", "the file system is read-only")
    failing(monkeypatch, "mkdir", errno.EACCES)
    refuses(PixelqError, lambda: RunDir.create(tmp_path / "new"), "permission denied")
    failing(monkeypatch, "mkdir", errno.ENOSPC)
    error = refuses(StorageError, lambda: RunDir.create(tmp_path / "new"), "the disk is full")
    assert error.exit_status == 1


def test_opening_needs_a_run(tmp_path, monkeypatch):
    run = RunDir.create(tmp_path / "run")
    refuses(PixelqError, lambda: RunDir.open(tmp_path / "none"), "none does not exist")
    refuses(PixelqError, lambda: RunDir.open(run.path), "not a run directory", "no config.json")
    run.write_json("config.json", {"seed": 1})
    refuses(PixelqError, lambda: RunDir.open(run.config), "not a run directory")
    assert RunDir.open(str(run.path)) == run
    failing(monkeypatch, "stat", errno.EACCES)
    refuses(PixelqError, lambda: RunDir.open(run.path), "cannot read", "permission denied")


def test_json_is_readable_and_comes_back(tmp_path):
    run = RunDir.create(tmp_path / "run")
    value = {"name": "Pac-Man é", "rate": 2.5e-4, "none": None, "list": [1, 2]}
    path = run.write_json("config.json", value)
    assert run.read_json("config.json") == value
    assert "é" in path.read_text(encoding="utf-8")
    assert path.read_text(encoding="utf-8").count("\n") > 5
    with pytest.raises(ValueError):
        run.write_json("config.json", {"nan": float("nan")})
    assert run.read_json("config.json") == value


def test_json_that_is_missing_or_damaged_is_one_line(tmp_path):
    run = RunDir.create(tmp_path / "run")
    refuses(PixelqError, lambda: run.read_json("config.json"), "config.json", "No such file")
    for damaged in (b'{"a": 1', b"\xff\xfe", b"[" * 100_000):
        run.config.write_bytes(damaged)
        refuses(PixelqError, lambda: run.read_json("config.json"), "config.json is damaged")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    run = RunDir.create(tmp_path / "run")
    run.write_json("config.json", {"a": 1})
    before = set(run.path.iterdir())
    failing(monkeypatch, call, errno.ENOSPC)
    refuses(StorageError, lambda: run.write_json("config.json", {"a": 2}), "config.json", "the disk is full")
    assert run.read_json("config.json") == {"a": 1}
    assert set(run.path.iterdir()) == before


HOLD = """
import sys
from pixelq.run.rundir import RunDir
with RunDir(__import__("pathlib").Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
    if sys.argv[2] == "crash":
        raise RuntimeError
"""


def holder(run, end):
    command = [sys.executable, "-c", HOLD, str(run.path), end]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    process = subprocess.Popen(command, **pipes)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("end", ["exit", "crash", "kill"])
def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path, end):
    run = RunDir.create(tmp_path / "run")
    with holder(run, end) as process:
        error = refuses(PixelqError, lambda: run.lock().__enter__(), f"{run.path} is in use", "another process")
        assert error.exit_status == 2
        if end == "kill":
            process.kill()
        process.stdin.close()
        process.wait()
        with run.lock():
            pass


def test_the_lock_is_released_by_an_exception(tmp_path):
    run = RunDir.create(tmp_path / "run")
    with pytest.raises(KeyError), run.lock():
        raise KeyError
    with run.lock():
        pass


def test_the_block_keeps_its_own_errors(tmp_path):
    with pytest.raises(OSError, match="inner") as caught, RunDir.create(tmp_path / "run").lock():
        raise OSError(errno.ENOSPC, "inner")
    assert not isinstance(caught.value, PixelqError)


def test_a_read_only_run_directory_is_one_line(tmp_path, monkeypatch):
    run = RunDir.create(tmp_path / "run")
    failing(monkeypatch, "open", errno.EROFS)
    refuses(StorageError, lambda: run.lock().__enter__(), str(run.path / ".lock"), "the file system is read-only")


def test_json_on_disk_has_no_temporary_neighbours(tmp_path):
    run = RunDir.create(tmp_path / "run")
    run.write_json("eval/nature.json", {"mean": 1.0})
    assert [path.name for path in Path(run.eval).iterdir()] == ["nature.json"]
    assert json.loads((run.eval / "nature.json").read_text()) == {"mean": 1.0}
