"""`pixelq sweep`: many runs at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pixelq.cli.options import parse
from pixelq.cli.places import check_new_folder
from pixelq.errors import PixelqError
from pixelq.extras import need
from pixelq.sweeps.budget import counted, describe, share
from pixelq.sweeps.plan import Plan, check_kept, planned_runs, read_plan, read_seeds, read_setting
from pixelq.sweeps.state import run_state

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    presets: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")]
    """Recipes, or one file .toml with presets, games, seeds and a table [set]."""
    folder: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the runs. The same command in the same folder continues with the remaining runs."""
    games: Annotated[tuple[str, ...], tyro.conf.arg(metavar="G")] = ()
    """Games (default: each preset's own)."""
    seeds: Annotated[str | None, tyro.conf.arg(metavar="1-5|1,3,7")] = None
    """Seeds, one run each (default: 1)."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=V[,V]")] = ()
    """A setting and one or several values, e.g. algo.n-step=1,3. May be given several times."""
    jobs: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Runs at once (default: as many as cores and memory allow)."""
    ray: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT|auto|local")] = None
    """Send the runs to a Ray cluster. All nodes must see DIR under the same path. local: a cluster on this machine."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the number of runs, the time, the memory and the disk space; run nothing."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    about = "Train presets × games × seeds × settings, each an ordinary run directory in one folder."
    options = parse(_Options, words, "pixelq sweep", about)
    plan = _plan(options)
    if options.jobs is not None and options.jobs < 1:
        raise PixelqError(f"--jobs is {options.jobs}: must be at least 1")
    runs = planned_runs(plan)
    check_new_folder("--folder", options.folder)
    if options.ray is not None:
        need("ray", "ray")
    if options.dry_run:
        check_kept(options.folder, plan)
        states = [run_state(options.folder, run) for run in runs]
        left = [run for run, state in zip(runs, states, strict=True) if state.status != "finished"]
        for run, state in zip(runs, states, strict=True):
            print(f"{run.name}: {state.status}")
        print(describe(runs, states, share(left, options.jobs)))
        return 0

    from pixelq.sweeps.runner import sweep
    from pixelq.training.output import Output

    result = sweep(plan, options.folder, jobs=options.jobs, ray=options.ray)
    print(f"{len(result.finished)} of {counted(len(runs))} finished in {result.folder}", file=Output(), flush=True)
    if result.interrupted and len(result.finished) < len(runs):
        print("to continue, run the same command again", file=Output(), flush=True)
        return 130
    return 1 if result.failed else 0


def _plan(options: _Options) -> Plan:
    files = [name for name in options.presets if name.endswith(".toml")]
    if not files:
        seeds = read_seeds("1" if options.seeds is None else options.seeds)
        return Plan(options.presets, options.games, seeds, tuple(map(read_setting, options.set)))
    if len(options.presets) > 1 or options.games or options.seeds or options.set:
        raise PixelqError(f"{files[0]} is the whole plan: leave out other presets, --games, --seeds and --set")
    return read_plan(Path(files[0]))
