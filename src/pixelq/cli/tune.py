"""`pixelq tune`: search for a recipe's best settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pixelq.cli.options import parse
from pixelq.cli.places import check_new_folder
from pixelq.errors import PixelqError
from pixelq.sweeps.plan import read_seeds, read_setting
from pixelq.tuning.search import read_search

__all__ = ["run"]

_BEST = 5  # trials that are listed


@dataclass(frozen=True)
class _Options:
    preset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")]
    """The recipe."""
    folder: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the study and its runs. The same command in the same folder continues."""
    trials: Annotated[int, tyro.conf.arg(metavar="N")]
    """Trials of the study, earlier ones included."""
    search: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=LOW..HIGH[:log]")] = ()
    """A setting to search, by its option's name: a range, e.g. optimiser.learning-rate=1e-5..1e-3:log, or values, e.g.
    algo.n-step=1,3,5. May be given several times."""
    games: Annotated[tuple[str, ...], tyro.conf.arg(metavar="G")] = ()
    """Games of every trial (default: the preset's own)."""
    seeds: Annotated[str | None, tyro.conf.arg(metavar="1-5|1,3,7")] = None
    """Seeds of every game in every trial (default: 1)."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=V")] = ()
    """A setting that is the same in all trials, e.g. total-steps=200000. May be given several times."""
    pruner: Literal["median", "halving", "none"] = "median"
    """Which trials end early: those below the others' median at the same step, or the worse half at each stage."""
    jobs: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Runs at once (default: as many as cores and memory allow)."""
    ray: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT|auto|local")] = None
    """Send the runs to a Ray cluster. All nodes must see DIR under the same path. local: a cluster on this machine."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    about = "Search for a recipe's best settings. Every trial trains all seeds of all games; Optuna chooses the trials."
    options = parse(_Options, words, "pixelq tune", about)
    search = list(map(read_search, options.search))
    seeds = read_seeds("1" if options.seeds is None else options.seeds)
    settings = dict(map(_one, options.set))
    check_new_folder("--folder", options.folder)

    from pixelq.training.output import Output
    from pixelq.tuning.tune import tune

    result = tune(
        options.preset,
        options.folder,
        options.trials,
        search,
        games=options.games,
        seeds=seeds,
        settings=settings,
        pruner=options.pruner,
        jobs=options.jobs,
        ray=options.ray,
    )
    lines = [f"score: {result.measure}"]
    complete = [trial for trial in result.trials if trial.state == "complete"]
    for trial in sorted(complete, key=lambda trial: trial.score or 0.0, reverse=True)[:_BEST]:
        lines.append(f"trial {trial.number}: {trial.score:.4g} with {_shown(trial.values)}")
    counts = {state: sum(trial.state == state for trial in result.trials) for state in ("complete", "pruned", "fail")}
    lines.append(f"{counts['complete']} trials complete, {counts['pruned']} pruned, {counts['fail']} failed")
    if len(result.importances) > 1:
        shown = ", ".join(f"{name} {share:.0%}" for name, share in result.importances.items())
        lines.append(f"importance: {shown}")
    if result.interrupted:
        lines.append("to continue, run the same command again")
    if result.command is not None:
        lines += ["the best:", result.command]
    print("\n".join(lines), file=Output(), flush=True)
    if result.interrupted:
        return 130
    return 0 if complete else 1


def _one(text: str) -> tuple[str, object]:
    name, values = read_setting(text)
    if len(values) > 1:
        raise PixelqError(f"--set {text}: give one value; several values belong to --search {text}")
    return name, values[0]


def _shown(values: dict[str, float | int | str | bool | None]) -> str:
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )
