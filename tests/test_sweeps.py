"""Sweeps: what a plan combines, and that runs survive whatever becomes of the sweep."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import pixelq
from pixelq import system
from pixelq.cli.main import main
from pixelq.config.assignment import assign, read_value
from pixelq.errors import ConfigError, PixelqError
from pixelq.presets import preset
from pixelq.run.rundir import RunDir
from pixelq.sweeps import runner
from pixelq.sweeps.budget import share
from pixelq.sweeps.folder import PLAN as PLAN_FILE
from pixelq.sweeps.plan import Plan, keep_plan, planned_runs, read_plan, read_seeds, read_setting
from pixelq.sweeps.state import run_state
from runs import assert_same_run

SHORT = {
    "threads": 1,
    "device": "cpu",
    "total-steps": 600,
    "log-every-steps": 100,
    "checkpoint-every-steps": 200,
    "checkpoint-min-seconds": 0,
    "video-every-episodes": 0,
    "notebook-log": False,
    "network.channels": [4, 4, 4],
    "network.hidden": 16,
    "replay.capacity": 500,
    "replay.learn-start": 64,
}
PLAN = Plan(("cleanrl-dqn", "c51"), ("catch", "pong"), (1, 2), tuple((name, (value,)) for name, value in SHORT.items()))


def words(plan, folder):
    settings = [
        f"{name}={' '.join(map(str, value)) if isinstance(value, list) else value}" for name, (value,) in plan.settings
    ]
    options = ["--games", *plan.games, "--seeds", ",".join(map(str, plan.seeds)), "--folder", str(folder)]
    return ["sweep", *plan.presets, *options, *(word for setting in settings for word in ("--set", setting))]


# the plan


def test_a_plan_combines_everything_and_names_what_varies():
    plan = Plan(("fast", "c51"), ("pong", "breakout"), (1, 2), (("algo.n-step", (1, 3)), ("total-steps", (5e4,))))
    runs = planned_runs(plan)
    assert len({run.name for run in runs}) == 16
    run = next(run for run in runs if run.name == "c51-pong-n-step=3-s2")
    config = run.config
    assert (config.preset, config.game, config.seed, config.algo.n_step) == ("c51", "pong", 2, 3)
    assert config.total_steps == 50_000
    assert type(config.total_steps) is int


def test_a_plan_comes_back_from_its_file(tmp_path):
    plan = Plan(("fast",), ("pong",), (1, 2), (("env.sticky", (None, 0.25)), ("network.channels", ([4, 4, 4],))))
    keep_plan(tmp_path, plan)
    assert planned_runs(read_plan(tmp_path / PLAN_FILE)) == planned_runs(plan)
    keep_plan(tmp_path, plan)
    keep_plan(tmp_path, Plan(("fast",), ("pong",), (1, 2, 3), plan.settings))  # more seeds: the same sweep, longer
    with pytest.raises(PixelqError, match="holds a sweep with fast-pong-sticky=None-s2"):
        keep_plan(tmp_path, Plan(("fast",), ("pong",), (1,), plan.settings))


def test_seeds_and_settings_as_a_person_writes_them():
    assert read_seeds("1-3,7,2") == (1, 2, 3, 7)
    assert read_setting("algo.n-step=1,3") == ("algo.n-step", (1, 3))
    assert read_value("4 8 8") == [4, 8, 8]
    assert [read_value(word) for word in ("1e-4", "true", "None", "huber")] == [1e-4, True, None, "huber"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["fsat"], 'did you mean "fast"'),
        (["fast", "--games", "pnog"], 'did you mean "pong"'),
        (["fast", "--set", "algo.nstep=1"], 'unknown setting "algo.nstep" of fast (did you mean "algo.n-step"?)'),
        (["fast", "--set", "algo.n-step=many"], "must be a whole number"),
        (["fast", "--set", "algo.n-step=0"], "--algo.n-step is 0: must be between 1 and 100"),
        (["fast", "--set", "seed=3"], "--set seed cannot be: seeds of a sweep are given by --seeds"),
        (["fast", "fast"], "would be run twice"),
        (["fast", "--seeds", "5-1"], "--seeds is 5-1"),
        (["fast", "--jobs", "0"], "--jobs is 0: must be at least 1"),
        (["no.toml"], "cannot read no.toml"),
        (["no.toml", "--seeds", "1"], "no.toml is the whole plan"),
        ([], "PRESET is missing"),
    ],
)
def test_user_errors_are_one_line(capsys, tmp_path, given, says):
    assert main(["sweep", *given, "--folder", str(tmp_path / "new")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_setting_of_another_algorithm_is_unknown():
    with pytest.raises(ConfigError, match="unknown setting"):
        assign(preset("fast"), "algo.atoms", 21)
    with pytest.raises(ConfigError, match="unknown setting"):
        assign(preset("fast"), "algo.kind", "c51")


def test_cores_are_divided():
    runs = planned_runs(PLAN)
    cores = system.cores()
    assert share(runs, 1) == (1, cores)
    assert share(runs[:1], 8).jobs == 1
    assert share(runs, 4 * cores) == (min(len(runs), 4 * cores), 1)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a system without SIGHUP")
def test_what_was_ignored_when_a_sweep_started_does_not_stop_it():
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGUSR1)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    try:
        with runner._stopping() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.asked == 0
            os.kill(os.getpid(), signal.SIGUSR1)  # a scheduler's warning
            assert stop.asked == 1
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# the runs


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "pixelq", *words(PLAN, folder)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def training(folder):
    """Processes that work on runs of this folder."""
    listed = subprocess.run(["ps", "-eo", "pid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    return [
        line
        for line in listed.splitlines()
        if "pixelq.distributed.worker" in line and str(folder) in line and " Z" not in line[:16]
    ]


def wait_for(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def logged(folder):
    return sum(path.read_text().count("\n") for path in folder.glob("*/metrics.jsonl"))


@pytest.mark.slow
def test_a_sweep_that_is_killed_and_stopped_ends_as_if_it_had_not_been(tmp_path):
    folder = tmp_path / "sweep"
    for _ in range(2):
        before = logged(folder)
        process = start(folder)
        with process.stdout:
            wait_for(lambda before=before: logged(folder) > before + 3)
            process.kill()
            process.wait()
        wait_for(lambda: not training(folder), 60)  # nobody trains on
    process = start(folder)
    with process.stdout:
        before = logged(folder)
        wait_for(lambda: logged(folder) > before)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 130
    assert training(folder) == []
    assert main(words(PLAN, folder)) == 0
    runs = planned_runs(PLAN)
    assert len(runs) == 8
    for run in runs:
        assert run_state(folder, run).status == "finished"
        pixelq.train(run.config, tmp_path / "single" / run.name)
        assert_same_run(folder / run.name, tmp_path / "single" / run.name)


@pytest.fixture
def failing(monkeypatch, tmp_path):
    """Every run's process says a line and fails."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho first; echo 'it broke'; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


@pytest.mark.usefixtures("failing")
def test_what_fails_is_tried_three_times_and_named(capsys, tmp_path):
    few = Plan(("fast",), ("catch",), (1, 2), PLAN.settings)
    assert main(words(few, tmp_path / "sweep")) == 1
    out = capsys.readouterr().out
    assert out.count("fast-catch-s1 failed and is tried again: it broke") == 2
    assert "fast-catch-s2 failed: it broke" in out
    assert (tmp_path / "sweep" / "logs" / "fast-catch-s1.log").read_text().count("it broke") == 3


@pytest.mark.usefixtures("failing")
def test_a_sweep_needs_nobody_to_read_what_it_says(tmp_path):
    few = Plan(("fast",), ("catch",), (1,), PLAN.settings)
    code = f"import sys; from pixelq.cli.main import main; sys.executable = {sys.executable!r}; "
    code += f"sys.exit(main({words(few, tmp_path / 'sweep')!r}))"
    python = os.path.join(sys.exec_prefix, "bin", "python")
    process = subprocess.Popen([python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    with process.stderr:
        assert process.wait() == 1
    assert (tmp_path / "sweep" / "logs" / "fast-catch-s1.log").read_text().count("it broke") == 3


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(capsys, tmp_path):
    assert main([*words(PLAN, tmp_path / "sweep"), "--dry-run"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("8 runs, 8 left with 4,800 steps")
    assert "memory about" in last
    assert "disk about" in last
    assert not (tmp_path / "sweep").exists()


def test_a_dry_run_counts_the_threads_that_runs_are_given(capsys, tmp_path):
    one = [*words(Plan(("fast",), ("pong",), (1,), (("threads", (1,)),)), tmp_path), "--jobs", "1", "--dry-run"]
    assert main(one) == 0
    assert "1 run, 1 left with 700,000 steps; 1 at once with 1 thread each" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("config.json", "holds a run: give a sweep a folder of its own"),
        ("study.journal", "holds a study: give a sweep a folder of its own"),
        (None, "is a file: give a folder"),
        ("sweep.toml", "holds a sweep with fast-pong-s1, which this one has not: give --folder a new one"),
    ],
)
@pytest.mark.parametrize("way", [["--dry-run"], []])
def test_a_folder_that_is_no_place_for_a_sweep(capsys, tmp_path, file, line, way):
    place = tmp_path / "place"
    if file is None:
        place.touch()
    elif file == PLAN_FILE:
        keep_plan(place, Plan(("fast",), ("pong",)))
    else:
        place.mkdir()
        (place / file).touch()
    before = sorted(tmp_path.rglob("*"))
    assert main([*words(PLAN, place), *way]) == 2
    assert line in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_two_sweeps_do_not_share_a_folder(tmp_path):
    keep_plan(tmp_path, PLAN)
    with RunDir(tmp_path).lock(), pytest.raises(PixelqError, match="is in use"):
        pixelq.sweep(PLAN, tmp_path)


def test_a_finished_run_is_known_by_its_newest_checkpoint(tmp_path):
    run = planned_runs(PLAN)[0]
    place = tmp_path / run.name / "checkpoints" / "step-000000000600"
    assert run_state(tmp_path, run).status == "waiting"
    place.mkdir(parents=True)
    (tmp_path / run.name / "config.json").write_text("{}")
    assert run_state(tmp_path, run).status == "stopped"
    for state, status in (({"step": 400}, "stopped"), ({"step": 400, "solved": True}, "finished")):
        (place / "state.json").write_text(json.dumps(state))
        assert run_state(tmp_path, run).status == status
