"""Processes of pixelq's own modules: a user's files do not get in their way, and his games are found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pixelq.children import module_command

PROBE = """
import importlib.util, json, sys
import game
print(json.dumps([importlib.util.find_spec("torch").origin, game.__file__, sys.argv, __name__, sys.path]))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a `torch.py` and a game, and a module that only this process's path leads to."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "torch.py").write_text("raise SystemExit('not the library')")
    (tmp_path / "here" / "game.py").write_text("")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "probe.py").write_text(PROBE)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "there")])
    return tmp_path


def run(*words):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(module_command(*words), capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("first", [None, "", "here"])
def test_the_working_folder_comes_last(folder, first, monkeypatch):
    if first is not None:
        monkeypatch.setattr(sys, "path", [str(folder / first) if first else "", *sys.path])
    done = run("probe", "a", "b c")
    assert done.returncode == 0, done.stderr
    torch, game, words, name, path = json.loads(done.stdout)
    assert Path(torch).parent != folder / "here"
    assert game == str(folder / "here" / "game.py")
    assert (words[1:], name) == (["a", "b c"], "__main__")
    assert path[-1] == str(folder / "here")
    assert path.count(path[-1]) == 1


def test_the_recorder_starts_beside_a_file_called_torch(folder):
    done = run("pixelq.evaluation.record_worker")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("usage: record_worker")


def test_a_process_that_has_no_such_module_says_so(folder):
    done = run("pixelq.nothing")
    assert done.returncode != 0
    assert "pixelq.nothing" in done.stderr
