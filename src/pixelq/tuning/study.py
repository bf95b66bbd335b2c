"""A study in Optuna: its file, search space, sampler and pruner."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pixelq.config import TrainConfig, validate
from pixelq.config.assignment import assign, value_of
from pixelq.errors import PixelqError
from pixelq.evaluation.scores import REFERENCE
from pixelq.games import resolve_game
from pixelq.presets import preset
from pixelq.run.storage import reason, storage_errors
from pixelq.sweeps.folder import STUDY
from pixelq.sweeps.plan import PlannedRun, directory_name
from pixelq.tuning.search import Scalar, Search, check_search

__all__ = ["Pruner", "Study", "StudyPlan", "check_plan", "open_study", "trial_runs"]

Pruner = Literal["median", "halving", "none"]
_NAME = "pixelq"
_PLAN = "plan"  # the study's attribute
_COMPLETE_FIRST = 4  # trials without pruning, as a comparison for the others
_RANDOM_FIRST = (4, 10)  # random trials, at least and at most


@dataclass(frozen=True)
class StudyPlan:
    """What a study seeks, and how a trial is scored."""

    preset: str
    """The recipe."""
    games: tuple[str, ...]
    """ROM names or Gymnasium ids; each is played in every trial."""
    seeds: tuple[int, ...]
    """Seeds of every game in every trial."""
    settings: tuple[tuple[str, Any], ...]
    """Settings that are the same in all trials."""
    search: tuple[Search, ...]
    """Settings that are sought."""
    pruner: Pruner
    """How trials without prospects are found."""
    together: int
    """Runs of a trial that train at once."""

    @property
    def normalised(self) -> bool:
        """Whether scores are human-normalised."""
        return self.games[0] in REFERENCE


class Study:
    """A study: draws values, records scores.

    Args:
        plan: the study's plan.
        study: Optuna's.
        trials: their final number, for the sampler.
    """

    def __init__(self, plan: StudyPlan, study: Any, trials: int) -> None:
        self.plan, self.optuna, self._trials = plan, study, trials

    def ask(self) -> Any:
        """A new Optuna trial; its values depend on earlier trials, not on when the study was stopped."""
        from optuna.samplers import TPESampler

        low, high = _RANDOM_FIRST
        random = min(high, max(low, self._trials // 3))
        self.optuna.sampler = TPESampler(n_startup_trials=random, seed=len(self.optuna.get_trials(deepcopy=False)))
        return self.optuna.ask()

    def values(self, trial: Any) -> dict[str, Scalar]:
        """A trial's values, drawn on first use."""
        found: dict[str, Scalar] = {}
        for search in self.plan.search:
            name, log = search.name, search.log
            if search.choices:
                found[name] = trial.suggest_categorical(name, search.choices)
            elif isinstance(search.low, int):
                found[name] = trial.suggest_int(name, search.low, search.high, log=log)
            else:
                found[name] = trial.suggest_float(name, search.low, search.high, log=log)
        return found

    def unfinished(self) -> list[Any]:
        """Trials that were stopped before they had a score."""
        from optuna.trial import Trial, TrialState

        running = self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [Trial(self.optuna, trial._trial_id) for trial in running]

    def count(self) -> int:
        """Trials so far, running ones included."""
        from optuna.trial import TrialState

        return sum(trial.state is not TrialState.WAITING for trial in self.optuna.get_trials(deepcopy=False))

    def importances(self) -> dict[str, float]:
        """How much of the scores' spread hangs on each setting, together 1; empty if too little is known.

        Source: Watanabe et al. 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
            Subspaces".
        """
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
        from optuna.trial import TrialState

        done = self.optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(done) < 2 or len({trial.value for trial in done}) < 2:
            return {}
        return dict(get_param_importances(self.optuna, evaluator=PedAnovaImportanceEvaluator()))


def check_plan(plan: StudyPlan) -> StudyPlan:
    """A plan with checked names and ranges.

    Raises:
        PixelqError: an unknown preset, game or setting, a value out of range, games that cannot be averaged.
    """
    config = _config(plan, {})
    games = plan.games or (config.game,)
    for game in games:
        resolve_game(game)
    known = [game in REFERENCE for game in games]
    if any(known) and not all(known):
        raise PixelqError(f"{games[known.index(False)]} has no human score, so it cannot be averaged with other games")
    names = [name for name, _ in plan.settings] + [search.name for search in plan.search]
    if not plan.search:
        raise PixelqError("--search is missing: e.g. --search optimiser.learning-rate=1e-5..1e-3:log")
    for name in names:
        if name in ("seed", "game", "preset"):
            raise PixelqError(f"{name} cannot be sought or set: {name}s have their own place in a study")
        if names.count(name) > 1:
            raise PixelqError(f"{name} is given twice")
    search = tuple(check_search(config, item) for item in plan.search)
    return dataclasses.replace(plan, games=games, search=search)


def _config(plan: StudyPlan, values: dict[str, Scalar]) -> TrainConfig:
    config = preset(plan.preset)
    for name, value in [*plan.settings, *values.items()]:
        config = assign(config, name, value)
    validate(config)
    return config


def trial_runs(plan: StudyPlan, number: int, values: dict[str, Scalar]) -> list[PlannedRun]:
    """The runs of a trial: the first seed of every game, then the second.

    Args:
        plan: the study's.
        number: the trial's.
        values: of the searched settings.

    Raises:
        PixelqError: the values do not go together.
    """
    config = _config(plan, values)
    return [
        PlannedRun(
            directory_name(f"trial-{number:04}-{game}-s{seed}"), dataclasses.replace(config, game=game, seed=seed)
        )
        for seed in plan.seeds
        for game in plan.games
    ]


def open_study(folder: Path, plan: StudyPlan, trials: int) -> Study:
    """Begin a study in a folder, or continue the one there.

    Args:
        folder: of its runs.
        plan: the plan; the number of runs at once stays as at the first start.
        trials: their final number.

    Raises:
        PixelqError: the folder holds another study.
        StorageError: it cannot be written.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = folder / STUDY
    with storage_errors(path):
        lock = JournalFileOpenLock(str(path))
        try:
            storage = JournalStorage(JournalFileBackend(str(path), lock))
            study = optuna.create_study(
                storage=storage, study_name=_NAME, direction="maximize", load_if_exists=True, pruner=_pruner(plan)
            )
        except (ValueError, KeyError) as error:
            raise PixelqError(f"{path} is damaged: {reason(error) if isinstance(error, OSError) else error}") from error
    kept = study.user_attrs.get(_PLAN)
    if kept is None:
        study.set_user_attr(_PLAN, _plain(plan))
        own = {search.name: value_of(_config(plan, {}), search.name) for search in plan.search}
        if all(_within(search, own[search.name]) for search in plan.search):
            study.enqueue_trial(own, skip_if_exists=True)  # the recipe as it is, for comparison
    else:
        plan = dataclasses.replace(plan, together=int(kept["together"]))
        differ = [name for name, value in _plain(plan).items() if kept.get(name) != value]
        if differ:
            raise PixelqError(f"{folder} holds a study with other {' and '.join(differ)}: give --folder a new one")
    return Study(plan, study, trials)


def _plain(plan: StudyPlan) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(plan)))
    return found


def _pruner(plan: StudyPlan) -> Any:
    from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner

    steps = _config(plan, {}).total_steps
    if plan.pruner == "median":
        return MedianPruner(n_startup_trials=_COMPLETE_FIRST, n_warmup_steps=steps // 4)
    if plan.pruner == "halving":
        return SuccessiveHalvingPruner(min_resource=max(1, steps // 8), reduction_factor=2)
    return NopPruner()


def _within(search: Search, value: Scalar) -> bool:
    if search.choices:
        return value in search.choices
    return isinstance(value, int | float) and search.low <= value <= search.high
