"""Where a run comes from."""

import json
import shutil
import subprocess
import sys
from datetime import datetime

import pytest

from pixelq.run import provenance as module
from pixelq.run.provenance import add_resume, provenance
from pixelq.run.rundir import RunDir


def test_it_says_what_and_where_as_plain_json(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pixelq", "train", "--run", "a b"])
    found = provenance()
    assert json.loads(json.dumps(found)) == found
    assert found["command"] == "pixelq train --run 'a b'"
    assert found["python"] == sys.version.split()[0]
    assert found["cores"] >= 1
    assert found["memory_bytes"] > 2**28
    assert set(found["packages"]) >= {"torch", "numpy", "ale-py", "gymnasium"}
    assert found["packages"]["ale-py"].startswith("0.12")
    assert datetime.fromisoformat(found["started"]).tzinfo is not None


def test_unknown_things_are_null_and_never_an_error(monkeypatch):
    monkeypatch.setenv("PATH", "")  # neither git nor nvidia-smi
    found = provenance()
    assert found["git"] is None
    assert found["gpus"] == []
    assert module._version("no-such-package-here") is None


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_that_of_the_code_and_of_nothing_around_it(tmp_path):
    def git(*words):
        identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
        command = ["git", *identity, "-C", str(tmp_path), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "provenance.py").write_text("a = 1\n")
    assert module._git(tmp_path) is None  # inside a checkout that does not track it: an installed package
    git("add", "provenance.py")
    git("commit", "-m", "one")
    assert module._git(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "provenance.py").write_text("a = 2\n")
    assert module._git(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": True}


@pytest.fixture
def run(tmp_path):
    run = RunDir.create(tmp_path / "run")
    run.write_json("provenance.json", provenance())
    return run


def test_a_resume_is_added_with_what_is_not_as_it_was(run, monkeypatch):
    first = run.read_json("provenance.json")
    monkeypatch.setattr(sys, "argv", ["pixelq", "resume", "run"])
    assert add_resume(run, 200) == []
    monkeypatch.setattr(module, "cores", lambda: first["cores"] + 1)
    monkeypatch.setattr(module, "_git", lambda _: {"commit": "abc", "dirty": True})
    (line,) = add_resume(run, 600)
    assert line.startswith("not as at the start of the run: git.commit, ")
    assert line.endswith(f"cores (see {run.provenance})")
    found = run.read_json("provenance.json")
    once, twice = found.pop("resumed")
    assert found == first
    assert set(once) == {"step", "command", "started"}
    assert (once["step"], once["command"]) == (200, "pixelq resume run")
    assert (twice["step"], twice["git.commit"], twice["cores"]) == (600, "abc", first["cores"] + 1)


def test_other_kernels_than_the_last_time_are_told_as_what_changes_the_rounding(tmp_path):
    run = RunDir.create(tmp_path / "run")
    run.write_json("provenance.json", provenance("AMX"))
    told = []
    for step, kernels in enumerate(["AMX", "AVX2", "AVX2", None, "AMX"]):
        told += [(step, line.partition(";")[0]) for line in add_resume(run, step, kernels)]
    assert told == [
        (1, "updates are by AVX2, were by AMX"),
        (3, "updates are by PyTorch, were by AVX2"),
        (4, "updates are by AMX, were by PyTorch"),
    ]
    resumed = run.read_json("provenance.json")["resumed"]
    assert [one.get("kernels", "AMX") for one in resumed] == ["AMX", "AVX2", "AVX2", None, "AMX"]


@pytest.mark.parametrize("text", [None, "{", "[]", '{"resumed": 3}', '{"a":' * 3_000])
def test_a_resume_leaves_what_is_damaged_as_it_is_and_says_so(run, text):
    run.provenance.write_text(text) if text is not None else run.provenance.unlink()
    (line,) = add_resume(run, 1)
    assert str(run.provenance) in line
    assert line.endswith("; this resume is not written down there")
    assert (run.provenance.read_text() if run.provenance.exists() else None) == text


def test_what_checks_paths_imports_no_torch():
    code = (
        "import sys, pixelq.run.rundir, pixelq.run.seeding, pixelq.run.provenance as p; p.provenance();"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
