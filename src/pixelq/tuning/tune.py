"""Search for a recipe's best settings: trials of several games and seeds each, chosen and pruned by Optuna."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pixelq.errors import PixelqError
from pixelq.extras import need
from pixelq.run.rundir import RunDir
from pixelq.run.storage import storage_errors
from pixelq.sweeps.folder import STUDY, check_folder
from pixelq.sweeps.plan import PlannedRun, seeds_of, several
from pixelq.sweeps.runner import divide, place, run_work
from pixelq.tuning.search import Scalar, Search, read_search
from pixelq.tuning.study import Pruner, Study, StudyPlan, check_plan, open_study, trial_runs
from pixelq.tuning.trials import REASON, Trials

__all__ = ["Trial", "TuneResult", "tune"]


class Trial(NamedTuple):
    """A trial of a study."""

    number: int
    state: str  # complete, pruned, fail or running
    score: float | None
    values: dict[str, Scalar]
    reason: str | None  # why it failed


class TuneResult(NamedTuple):
    """The state of a study when its process stops."""

    folder: Path
    trials: tuple[Trial, ...]
    best: Trial | None
    command: str | None  # trains with the best values
    importances: dict[str, float]  # of each setting; empty if too little is known
    measure: str  # the kind of score
    interrupted: bool


def tune(
    preset: str,
    folder: Path | str,
    trials: int,
    search: str | Search | Sequence[str | Search],
    *,
    games: str | Sequence[str] = (),
    seeds: int | str | Sequence[int] = 1,
    settings: dict[str, Any] | None = None,
    pruner: Pruner = "median",
    jobs: int | None = None,
    ray: str | None = None,
) -> TuneResult:
    """Search for a recipe's best settings; continue where the study stopped.

    A trial trains each seed of each game; its score is the interquartile mean of the runs' human-normalised returns, of
    plain returns for games without published human scores. The first trial has the recipe's own values.

    Args:
        preset: the recipe.
        folder: folder of the runs and the study; the same study in it is continued.
        trials: final number of trials, earlier ones included.
        search: one setting or several, e.g. "optimiser.learning-rate=1e-5..1e-3:log" or "algo.n-step=1,3,5".
        games: ROM names or Gymnasium ids; none: the recipe's own.
        seeds: of every game in every trial.
        settings: values by an option's name, the same in all trials.
        pruner: rule that ends poor trials: "median", "halving" or "none".
        jobs: runs at once; None: as many as cores and memory allow.
        ray: the Ray cluster that runs are sent to, as for `pixelq.sweep`.

    Returns:
        All trials, the best one, and the settings' importances.

    Raises:
        PixelqError: an unknown name, a value out of range, or a folder that holds another study.
        StorageError: the folder cannot be written.

    Source: Akiba et al. 2019, "Optuna: A Next-generation Hyperparameter Optimization Framework".
    """
    if jobs is not None and jobs < 1:
        raise PixelqError(f"--jobs is {jobs}: must be at least 1")
    need("tune", "optuna")
    if ray is not None:
        need("ray", "ray")
    if trials < 1:
        raise PixelqError(f"--trials is {trials}: must be at least 1")
    wanted = tuple(item if isinstance(item, Search) else read_search(item) for item in several(search))
    fixed = tuple((settings or {}).items())
    numbers = seeds_of(seeds)
    plan = check_plan(StudyPlan(preset, several(games), numbers, fixed, wanted, pruner, 1))
    return _run(plan, Path(folder), trials, jobs, ray)


def _run(plan: StudyPlan, folder: Path, trials: int, jobs: int | None, ray: str | None) -> TuneResult:
    example = trial_runs(plan, 0, {})
    if not example:
        raise PixelqError("--seeds names no seed")
    check_folder(folder, STUDY)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with RunDir(folder).lock(), place(ray) as cluster:
        divided = divide(example * trials, jobs, cluster)
        plan = dataclasses.replace(plan, together=min(divided.jobs, len(example)))
        study = open_study(folder, plan, trials)
        work = Trials(folder, study, trials, max(1, divided.jobs // study.plan.together))
        about = _about(study, example, trials, divided.jobs, divided.threads)
        interrupted = run_work(folder, work, divided, cluster, about).interrupted
        return _result(folder, study, interrupted)


def _about(study: Study, example: Sequence[PlannedRun], trials: int, jobs: int, threads: int) -> str:
    done = study.count() - len(study.unfinished())
    return (
        f"{trials} trials of {len(example)} run{'s' * (len(example) > 1)}, {max(0, trials - done)} left; "
        f"{jobs} at once with {threads} thread{'s' * (threads > 1)} each; optuna-dashboard reads {STUDY}"
    )


def _result(folder: Path, study: Study, interrupted: bool) -> TuneResult:
    found = tuple(
        Trial(trial.number, trial.state.name.lower(), trial.value, dict(trial.params), trial.user_attrs.get(REASON))
        for trial in study.optuna.get_trials(deepcopy=False)
        if trial.state.name != "WAITING"
    )
    complete = [trial for trial in found if trial.state == "complete" and trial.score is not None]
    best = max(complete, key=lambda trial: trial.score or 0.0, default=None)
    measure = "human-normalised" if study.plan.normalised else "raw"
    return TuneResult(
        folder,
        found,
        best,
        None if best is None else _command(study.plan, best.values),
        study.importances(),
        f"IQM of {measure} returns of the last games in training",
        interrupted,
    )


def _command(plan: StudyPlan, values: dict[str, Scalar]) -> str:
    """Of several games: a sweep over them."""
    settings = [*plan.settings, *values.items()]
    if len(plan.games) == 1:
        words = ["pixelq", "train", plan.preset, "--game", plan.games[0]]
        for name, value in settings:
            words += _option(name, value)
    else:
        words = ["pixelq", "sweep", plan.preset, "--folder", f"tuned-{plan.preset}", "--games", *plan.games]
        words += ["--seeds", ",".join(map(str, plan.seeds))]
        for name, value in settings:
            words += ["--set", f"{name}={' '.join(_words(value))}"]
    return shlex.join(words)


def _option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        group, _, last = name.rpartition(".")
        return [f"--{group}{'.' * bool(group)}{'' if value else 'no-'}{last}"]
    return [f"--{name}", *_words(value)]


def _words(value: Any) -> list[str]:
    if isinstance(value, bool):
        return [str(value).lower()]
    return list(map(str, value)) if isinstance(value, list | tuple) else [str(value)]
