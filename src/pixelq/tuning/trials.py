"""The trials of a study as work for a sweep's runner: the next run, pruning, and a trial's score."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixelq.errors import PixelqError
from pixelq.evaluation.scores import human_normalised
from pixelq.reports.statistics import iqm
from pixelq.sweeps.plan import PlannedRun
from pixelq.sweeps.runner import Orders
from pixelq.sweeps.state import run_state
from pixelq.tuning.search import Scalar
from pixelq.tuning.study import Study, trial_runs

__all__ = ["REASON", "Curve", "Trials", "read_curve", "value_at"]

REASON = "reason"  # of a trial that failed: its attribute
_RETURN = "train/return_per_game"


class Curve(NamedTuple):
    """A run's returns in training."""

    points: tuple[tuple[int, float], ...] = ()  # step, mean return of the last games
    step: int = 0  # of the newest line of metrics
    size: int = -1  # bytes that were read


class _Trial:
    def __init__(self, trial: Any, values: dict[str, Scalar], runs: Sequence[PlannedRun], finished: set[str]) -> None:
        self.trial, self.values, self.runs, self.finished = trial, values, runs, finished
        self.curves = {run.name: Curve() for run in runs}
        self.begun = set(finished)  # names of runs
        told = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        self.told = max(told, default=0)  # the last tick that Optuna knows


class Trials:
    """Work for a runner: trials one after the other, or several at once if there is room.

    The runs of a trial train in rounds of `plan.together`. At a log tick that all of a round have passed, Optuna gets
    the IQM of the round's returns at that tick and of the last returns of the rounds before; its ticks are counted
    through all rounds, so that trials are compared at equal work.

    Args:
        folder: of the runs.
        study: of these trials.
        trials: their final number.
        at_once: trials at the same time.
    """

    def __init__(self, folder: Path, study: Study, trials: int, at_once: int) -> None:
        self._folder, self._study, self._trials, self._at_once = folder, study, trials, at_once
        self._known: list[PlannedRun] = []
        self._stop: set[str] = set()
        self._notes: list[str] = []
        self._live = [made for trial in study.unfinished() if (made := self._make(trial)) is not None]

    def known(self) -> Sequence[PlannedRun]:
        """The runs of all trials of this process."""
        return self._known

    def next(self) -> PlannedRun | None:
        """A run of a running trial, or the first run of a new one."""
        self._follow()
        for trial in self._live:
            for run in self._round(trial)[0]:
                if run.name not in trial.begun:
                    trial.begun.add(run.name)
                    return run
        while len(self._live) < self._at_once and self._study.count() < self._trials:
            made = self._make(self._study.ask())
            if made is not None:
                self._live.append(made)
                return self.next()
        return None

    def follow(self) -> Orders:
        """Tell Optuna of new ticks and finished trials; the runs of those without prospects are to stop."""
        self._follow()
        orders = Orders(frozenset(self._stop), tuple(self._notes))
        self._notes.clear()
        return orders

    def failed(self, name: str, line: str) -> None:
        """A run is given up, and its trial with it."""
        for trial in self._live:
            if name in trial.curves:
                self._fail(trial, line)
                return

    def _make(self, trial: Any) -> _Trial | None:
        values = self._study.values(trial)
        try:
            runs = trial_runs(self._study.plan, trial.number, values)
        except PixelqError as error:
            trial.set_user_attr(REASON, str(error))
            self._tell(trial, None, "FAIL")
            self._notes.append(f"trial {trial.number} is left out: {error}")
            return None
        done = {run.name for run in runs if run_state(self._folder, run).status == "finished"}
        self._known += runs
        shown = ", ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
        )
        self._notes.append(f"trial {trial.number}: {shown}")
        return _Trial(trial, values, runs, done)

    def _round(self, trial: _Trial) -> tuple[Sequence[PlannedRun], int]:
        """The runs that are to train at once now, and the number of the round; all are finished in the last one."""
        size = self._study.plan.together
        rounds = [trial.runs[start : start + size] for start in range(0, len(trial.runs), size)]
        for number, runs in enumerate(rounds):
            if any(run.name not in trial.finished for run in runs):
                return runs, number
        return rounds[-1], len(rounds) - 1

    def _follow(self) -> None:
        for trial in list(self._live):
            for run in trial.runs:
                self._read(trial, run)
            if not self._prune(trial) and all(run.name in trial.finished for run in trial.runs):
                self._finish(trial)

    def _read(self, trial: _Trial, run: PlannedRun) -> None:
        curve = read_curve(self._folder / run.name / "metrics.jsonl", trial.curves[run.name])
        trial.curves[run.name] = curve
        training = run.name in trial.begun and run.name not in trial.finished
        if training and run_state(self._folder, run).status == "finished":
            trial.finished.add(run.name)
            trial.curves[run.name] = read_curve(self._folder / run.name / "metrics.jsonl", curve)

    def _prune(self, trial: _Trial) -> bool:
        """Tell Optuna of ticks that are new; whether the trial has no prospects."""
        total = trial.runs[0].config.total_steps
        every = trial.runs[0].config.log_every_steps
        last = len(trial.runs) * total  # no tick comes after
        _, number = self._round(trial)
        size = self._study.plan.together
        for round_ in range(trial.told // total, number + 1):
            runs = trial.runs[: (round_ + 1) * size]
            now = runs[round_ * size :]
            for tick in range(every, total + 1, every):
                at = round_ * total + tick
                passed = all(run.name in trial.finished or trial.curves[run.name].step >= tick for run in now)
                if at <= trial.told or not passed:
                    continue
                score = self._score(trial, runs, [tick if run in now else total for run in runs])
                if score is None:
                    continue
                trial.trial.report(score, at)
                trial.told = at
                pruned = trial.trial.should_prune()  # asked at every tick: some pruners keep count of them
                if pruned and at < last and len(trial.finished) < len(trial.runs):
                    self._stop |= set(trial.curves)
                    self._end(trial, "PRUNED", f"pruned at {score:.4g}")
                    return True
        return False

    def _score(self, trial: _Trial, runs: Sequence[PlannedRun], steps: Sequence[int]) -> float | None:
        """IQM of runs' returns at some steps; None before each has finished a game."""
        values = [value_at(trial.curves[run.name], step) for run, step in zip(runs, steps, strict=True)]
        if not all(value is not None for value in values):
            return None
        normalised = self._study.plan.normalised
        scores = [
            human_normalised(run.config.game, value or 0.0) if normalised else value
            for run, value in zip(runs, values, strict=True)
        ]
        return float(iqm(np.array(scores, np.float64)))

    def _finish(self, trial: _Trial) -> None:
        score = self._score(trial, trial.runs, [run.config.total_steps for run in trial.runs])
        if score is None:
            self._fail(trial, "a run has not finished a single game: give it more --set total-steps")
        else:
            self._end(trial, "COMPLETE", f"{score:.4g}", score)

    def _fail(self, trial: _Trial, line: str) -> None:
        trial.trial.set_user_attr(REASON, line)
        self._stop |= set(trial.curves)
        self._end(trial, "FAIL", f"failed: {line}")

    def _end(self, trial: _Trial, state: str, said: str, score: float | None = None) -> None:
        self._live.remove(trial)
        trial.trial.set_user_attr("runs", [run.name for run in trial.runs])
        self._tell(trial.trial, score, state)
        self._notes.append(f"trial {trial.trial.number}: {said}")

    def _tell(self, trial: Any, score: float | None, state: str) -> None:
        from optuna.trial import TrialState

        self._study.optuna.tell(trial, score, TrialState[state])


def read_curve(path: Path, before: Curve) -> Curve:
    """A run's returns so far.

    Args:
        path: its `metrics.jsonl`.
        before: the previous result, returned if nothing is new.
    """
    try:
        if path.stat().st_size == before.size:
            return before
        data = path.read_bytes()
    except OSError:  # it has not begun
        return before
    points, step = [], 0
    for line in data.split(b"\n")[:-1]:  # what follows the last newline is being written
        try:
            record = json.loads(line)
            step = int(record["step"])
            if record.get(_RETURN) is not None:
                points.append((step, float(record[_RETURN])))
        except (ValueError, TypeError, KeyError):
            continue
    return Curve(tuple(points), step, len(data))


def value_at(curve: Curve, step: int) -> float | None:
    """The newest return at a step, None if no game had ended."""
    found = None
    for at, value in curve.points:
        if at > step:
            break
        found = value
    return found
