"""Tuning: what is sought, how trials are scored and pruned, and that a study survives being stopped."""

import dataclasses
import json
import math
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

import pixelq
from pixelq.cli.main import main
from pixelq.errors import ConfigError, PixelqError
from pixelq.extras import install_command
from pixelq.presets import preset
from pixelq.sweeps.folder import STUDY
from pixelq.sweeps.state import run_state
from pixelq.tuning import tune as tuning
from pixelq.tuning.search import Search, check_search, read_search
from pixelq.tuning.study import StudyPlan, check_plan, open_study, trial_runs
from pixelq.tuning.trials import Curve, Trials, read_curve, value_at
from runs import assert_same_run
from test_sweeps import SHORT, wait_for

pytest.importorskip("optuna")

RATE = Search("optimiser.learning-rate", 1e-5, 1e-1, log=True)
TOTAL, EVERY = 1_000, 100
PLAN = StudyPlan(
    "cleanrl-dqn",
    ("catch",),
    (1,),
    (("total-steps", TOTAL), ("log-every-steps", EVERY)),
    (RATE,),
    "median",
    1,
)


# what is sought


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("optimiser.learning-rate=1e-5..1e-3:log", Search("optimiser.learning-rate", 1e-5, 1e-3, True)),
        ("algo.n-step=1..5", Search("algo.n-step", 1, 5)),
        ("--algo.gamma = 0.9 .. 0.99", Search("algo.gamma", 0.9, 0.99)),
        ("algo.n-step=1,3,5", Search("algo.n-step", choices=(1, 3, 5))),
        ("algo.loss=huber,mse", Search("algo.loss", choices=("huber", "mse"))),
    ],
)
def test_a_search_as_a_person_writes_it(text, search):
    assert read_search(text) == search


def test_ends_of_a_whole_number_are_whole():
    search = check_search(preset("fast"), read_search("replay.batch-size=16..1e2:log"))
    assert (search.low, search.high) == (16, 100)
    assert type(search.high) is int
    assert type(check_search(preset("fast"), Search("algo.gamma", 0, 1)).low) is float
    with pytest.raises(ConfigError, match="whole number"):
        check_search(preset("fast"), read_search("algo.n-step=1.5..3"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "--search is missing"),
        (["--search", "optimiser.learning-rate"], "must be NAME=LOW..HIGH"),
        (["--search", "algo.n-step=1,3,1"], "every value must be given once"),
        (["--search", "optimiser.learning-rate=1e-3..1e-5"], "LOW must be less than HIGH"),
        (["--search", "optimiser.learning-rate=0..1e-3:log"], "and more than 0 for log"),
        (["--search", "optimiser.learning-rate=1e-5..1e-3:lin"], "must be NAME=LOW..HIGH"),
        (["--search", "optimiser.learning-rate=a..b"], "with two numbers"),
        (["--search", "algo.n-step=3"], "at least two single values"),
        (["--search", "algo.nstep=1..3"], 'did you mean "algo.n-step"'),
        (["--search", "algo.n-step=0..3"], "--algo.n-step is 0: must be between 1 and 100"),
        (["--search", "algo.n-step=1..3", "--set", "algo.n-step=2"], "algo.n-step is given twice"),
        (["--search", "algo.n-step=1..3", "--set", "total-steps=1000,2000"], "give one value"),
        (["--search", "algo.n-step=1..3", "--games", "pnog"], 'did you mean "pong"'),
        (["--search", "algo.n-step=1..3", "--games", "pong", "catch"], "catch has no human score"),
        (["--search", "seed=1..3"], "seed cannot be sought or set"),
        (["--search", "algo.n-step=1..3", "--trials", "0"], "--trials is 0: must be at least 1"),
    ],
)
def test_user_errors_are_one_line(capsys, tmp_path, given, says):
    assert main(["tune", "fast", "--folder", str(tmp_path / "new"), "--trials", "3", *given]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_without_optuna_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PixelqError, match=re.escape(f"this needs optuna: {install_command('tune')}")):
        pixelq.tune("fast", tmp_path, 3, ["algo.n-step=1..3"])


# trials, of runs that are written by hand


def write(folder, run, points, finished):
    """A run that has logged returns, and a last checkpoint if it is finished."""
    path = folder / run.name
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text("{}")
    lines = [json.dumps({"step": step, "seconds": 1.0, "train/return_per_game": score}) for step, score in points]
    (path / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    if finished:
        place = path / "checkpoints" / f"step-{TOTAL:012}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "state.json").write_text(json.dumps({"step": TOTAL}))


def curve(score, until=TOTAL):
    """Nothing at first, then a return that goes up to its end."""
    return [(step, None if step == EVERY else score * step / TOTAL) for step in range(EVERY, until + 1, EVERY)]


def begin(folder, plan=PLAN, trials=12, at_once=1):
    study = open_study(folder, check_plan(plan), trials)
    return study, Trials(folder, study, trials, at_once)


def finish(folder, work, run, score):
    write(folder, run, curve(score), finished=True)
    return work.follow()


def test_the_first_trial_is_the_recipe_and_the_worse_are_pruned_at_a_tick(tmp_path):
    study, work = begin(tmp_path)
    first = work.next()
    assert first.config == dataclasses.replace(trial_runs(PLAN, 0, {})[0].config, seed=1)
    assert finish(tmp_path, work, first, 10.0).stop == frozenset()
    for _ in range(4):
        finish(tmp_path, work, work.next(), 10.0)
    bad = work.next()
    write(tmp_path, bad, curve(-5.0, 200), finished=False)
    assert work.follow().stop == frozenset()  # too early to say
    write(tmp_path, bad, curve(-5.0, 400), finished=False)
    orders = work.follow()
    assert orders.stop == {bad.name}
    assert "trial 5: pruned at" in orders.notes[-1]
    good = work.next()
    assert finish(tmp_path, work, good, 20.0).stop == {bad.name}
    trials = study.optuna.get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 5 + ["PRUNED", "COMPLETE"]
    assert max(trials[5].intermediate_values) == 300
    assert trials[6].value == 20.0
    assert trials[6].intermediate_values == {step: pytest.approx(20.0 * step / TOTAL) for step in range(200, 1001, 100)}


def test_halving_ends_the_worse_half_early_and_none_ends_nobody(tmp_path):
    for pruner, states in (("halving", ["COMPLETE", "PRUNED"]), ("none", ["COMPLETE", "COMPLETE"])):
        folder = tmp_path / pruner
        folder.mkdir()
        study, work = begin(folder, dataclasses.replace(PLAN, pruner=pruner))
        finish(folder, work, work.next(), 10.0)
        bad = work.next()
        write(folder, bad, curve(-5.0, 200), finished=False)
        stopped = work.follow().stop
        assert (stopped == {bad.name}) == (pruner == "halving")
        if not stopped:
            finish(folder, work, bad, -5.0)
        assert [trial.state.name for trial in study.optuna.get_trials()] == states


def test_a_trial_is_scored_over_games_and_seeds_in_rounds(tmp_path):
    plan = dataclasses.replace(PLAN, games=("pong", "breakout"), seeds=(1, 2), together=2)
    study, work = begin(tmp_path, plan)
    pong1, breakout1 = work.next(), work.next()
    assert [run.config.game for run in (pong1, breakout1)] == ["pong", "breakout"]
    assert work.next() is None  # the second round waits for the first
    write(tmp_path, pong1, [(100, -20.7), (200, 14.6)], finished=False)  # human-normalised 0 and 1
    write(tmp_path, breakout1, [(100, 1.7)], finished=False)
    work.follow()
    assert study.optuna.get_trials()[0].intermediate_values == {100: pytest.approx(0.0)}
    write(tmp_path, pong1, [(1000, 14.6)], finished=True)
    write(tmp_path, breakout1, [(1000, 30.5)], finished=True)
    pong2, breakout2 = work.next(), work.next()
    assert (pong2.config.seed, breakout2.config.seed) == (2, 2)
    for run, score in ((pong2, -20.7), (breakout2, 30.5 + 28.8)):  # 0 and 2
        write(tmp_path, run, [(1000, score)], finished=True)
    work.follow()
    trial = study.optuna.get_trials()[0]
    assert trial.value == pytest.approx(1.0)  # the middle half of 0, 1, 1, 2
    assert trial.intermediate_values[TOTAL] == pytest.approx(1.0)
    assert trial.user_attrs["runs"] == [run.name for run in (pong1, breakout1, pong2, breakout2)]


def test_a_run_that_fails_ends_its_trial_and_the_study_goes_on(tmp_path):
    study, work = begin(tmp_path, dataclasses.replace(PLAN, seeds=(1, 2), together=2))
    one, other = work.next(), work.next()
    work.failed(one.name, "the loss is no number")
    assert other.name in work.follow().stop
    assert work.next().name.startswith("trial-0001")
    trial = study.optuna.get_trials()[0]
    assert (trial.state.name, trial.user_attrs["reason"]) == ("FAIL", "the loss is no number")


def score_of(config):
    """A best learning rate of 1e-3."""
    rate = config.optimiser.learning_rate
    return -abs(3 + math.log10(rate))


def drive(folder, stops):
    """Run a study with runs that are written by hand, and begin anew at some looks, as if it had been killed."""
    study, work = begin(folder)
    run, steps, looks = None, 0, 0
    while True:
        looks += 1
        if looks in stops:
            study, work = begin(folder)
            run = None
        if run is None:
            run = work.next()
            if run is None:
                return study
            steps = len(read_curve(folder / run.name / "metrics.jsonl", Curve()).points) * EVERY
        steps = min(TOTAL, steps + 2 * EVERY)
        write(
            folder,
            run,
            [(at, score_of(run.config) * TOTAL / at) for at in range(EVERY, steps + 1, EVERY)],
            finished=steps == TOTAL,
        )
        if run.name in work.follow().stop or steps == TOTAL:
            run = None


@pytest.mark.slow
def test_a_study_that_is_stopped_anywhere_seeks_as_if_it_had_not_been(tmp_path):
    stops = random.Random(1)
    found = []
    for name, at in (
        ("whole", set()),
        ("one", {stops.randrange(2, 40)}),
        ("many", set(stops.sample(range(2, 60), 12))),
    ):
        (tmp_path / name).mkdir()
        study = drive(tmp_path / name, at)
        found.append([(trial.state, trial.params, trial.value) for trial in study.optuna.get_trials()])
    assert len(found[0]) == 12
    assert found[0] == found[1] == found[2]
    assert 1e-4 < max(found[0], key=lambda trial: trial[2])[1][RATE.name] < 1e-2
    states = {state.name for state, _, _ in found[0]}
    assert states == {"COMPLETE", "PRUNED"}


def test_another_study_does_not_go_into_the_folder(tmp_path):
    begin(tmp_path)
    begin(tmp_path, dataclasses.replace(PLAN, together=3))  # other jobs: the study's own rounds stay
    with pytest.raises(PixelqError, match="holds a study with other seeds and search"):
        begin(tmp_path, dataclasses.replace(PLAN, seeds=(1, 2), search=(Search("algo.n-step", 1, 3),)))


def test_a_damaged_study_is_named(tmp_path):
    (tmp_path / STUDY).write_text("no journal\nat all\n")
    with pytest.raises(PixelqError, match=r"study.journal is damaged"):
        begin(tmp_path)


def test_what_a_log_does_not_say_is_no_return(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_curve(path, Curve()) == Curve()
    path.write_text('{"step": 10}\n{"step": 20, "train/return_per_game": 1.5}\n{"step": 30, "train/ret')
    found = read_curve(path, Curve())
    assert found.points == ((20, 1.5),)
    assert found.step == 20
    assert [value_at(found, step) for step in (10, 20, 99)] == [None, 1.5, 1.5]


def test_the_best_is_a_command_that_trains_the_same(monkeypatch):
    said = []
    stopped = SimpleNamespace(interrupted=False)
    monkeypatch.setattr("pixelq.training.run.train", lambda config, *rest, **more: said.append(config) or stopped)
    same = (("network.channels", [4, 4, 4]), ("algo.double", True), ("notebook-log", False), ("env.sticky", None))
    plan = dataclasses.replace(PLAN, settings=same)
    values = {"optimiser.learning-rate": 1.25e-4, "algo.loss": "mse", "algo.n-step": 3}
    words = shlex.split(tuning._command(plan, values))
    assert words[:3] == ["pixelq", "train", "cleanrl-dqn"]
    assert main(words[1:]) == 0
    assert said == [trial_runs(plan, 0, values)[0].config]


def test_the_best_over_games_is_a_sweep(tmp_path, capsys):
    plan = dataclasses.replace(
        PLAN, games=("pong", "breakout"), seeds=(1, 2), settings=(("network.channels", [4, 4, 4]),)
    )
    words = shlex.split(tuning._command(plan, {"algo.n-step": 3}))
    words[words.index("--folder") + 1] = str(tmp_path / "new")
    assert main([*words[1:], "--dry-run"]) == 0
    assert "4 runs, 4 left" in capsys.readouterr().out


# the runs


@pytest.mark.slow
def test_a_study_is_stopped_and_gone_on_with(tmp_path):
    folder = tmp_path / "study"
    words = ["tune", "cleanrl-dqn", "--folder", str(folder), "--trials", "3", "--games", "catch", "--jobs", "1"]
    words += ["--search", "optimiser.learning-rate=1e-4..1e-2:log"]
    for name, value in SHORT.items():
        words += ["--set", f"{name}={' '.join(map(str, value)) if isinstance(value, list) else value}"]
    with subprocess.Popen([sys.executable, "-m", "pixelq", *words], stdout=subprocess.PIPE, text=True) as process:
        wait_for(lambda: process.poll() is not None or list(folder.glob("trial-0001-*/metrics.jsonl")))
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[0]
    assert process.returncode == 130, said
    assert "to continue, run the same command again" in said
    settings = dict(SHORT)
    result = pixelq.tune(
        "cleanrl-dqn", folder, 3, ["optimiser.learning-rate=1e-4..1e-2:log"], games=["catch"], settings=settings, jobs=1
    )
    assert [trial.state for trial in result.trials] == ["complete"] * 3
    assert result.trials[0].values == {"optimiser.learning-rate": preset("cleanrl-dqn").optimiser.learning_rate}
    assert result.best in result.trials
    plan = check_plan(
        StudyPlan(
            "cleanrl-dqn",
            ("catch",),
            (1,),
            tuple(settings.items()),
            (read_search(words[words.index("--search") + 1]),),
            "median",
            1,
        )
    )
    run = trial_runs(plan, 1, result.trials[1].values)[0]
    assert run_state(folder, run).status == "finished"
    pixelq.train(run.config, tmp_path / "single")
    assert_same_run(folder / run.name, tmp_path / "single")
