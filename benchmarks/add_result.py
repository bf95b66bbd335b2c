"""Add runs to the recorded results: python benchmarks/add_result.py RUN... --study NAME --machine TEXT.

Reads each run directory and adds its curve to `results/curves/NAME.csv.gz`, a row to `results/runs.csv`, and one row
for each of its evaluations to `results/scores.csv`. A row of the same run and study is replaced.
"""

import argparse
import csv
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from pixelq.run.reading import read_evaluation, read_object
from result_data import COLUMNS, FOLDER, curves, read, write_curves

__all__ = ["add", "main"]


def add(run: Path, study: str, machine: str, beside: str, label: str | None = None) -> str:
    """Add one run; returns its name in the study.

    Args:
        run: a run directory with metrics, and evaluations if it has scores.
        study: the table of curves it belongs to.
        machine: the machine, in words.
        beside: what else the machine did meanwhile.
        label: the agent's name in tables, the preset if None.
    """
    config, source = read_object(run / "config.json"), read_object(run / "provenance.json")
    preset, game, seed = (str(config[name]) for name in ("preset", "game", "seed"))
    label = label or preset
    name = f"{label}-{game}-s{seed}"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    old = {kept: _lines(curve) for kept, curve in _curves(study).items() if kept != name}
    write_curves(study, {**old, name: lines})
    commit = ((source.get("git") or {}).get("commit") or "")[:7]
    row = {"study": study, "run": name, "preset": preset, "game": game, "seed": seed, "commit": commit}
    row |= {"machine": machine, "command": _command(source["command"], config), "beside": beside}
    _replace("runs", ("study", "run"), row)
    for path in sorted((run / "eval").glob("*.json")):
        result = read_evaluation(path)
        score = {"agent": label, "preset": preset, "game": game, "seed": seed, "steps": str(result.step)}
        score |= {"protocol": result.protocol, "episodes": str(len(result.scores)), "eval_seed": str(result.seed)}
        numbers = {"mean": result.mean, "low": result.ci95[0], "high": result.ci95[1]}
        numbers |= {"median": result.median, "iqm": result.iqm}
        digits = 2 if abs(result.mean) < 10 else 1
        score |= {key: str(round(value, digits)) for key, value in numbers.items()}
        normalised = result.human_normalised
        score["human_normalised"] = "" if normalised is None else f"{normalised:.2f}"
        score |= {"machine": machine, "commit": commit}
        _replace("scores", ("agent", "game", "seed", "steps", "protocol", "eval_seed", "commit"), score)
    return name


def _curves(study: str) -> dict[str, Any]:
    curves.cache_clear()
    return curves(study) if (FOLDER / "curves" / f"{study}.csv.gz").exists() else {}


def _lines(curve: dict[str, Any]) -> list[dict[str, Any]]:
    keys = ("step", "seconds", "train/return_per_game", "train/return_per_life", "train/epsilon", "loss/td", "q/mean")
    points = zip(*(curve[name] for name in COLUMNS), strict=True)
    return [dict(zip(keys, point, strict=True)) for point in points]


def _command(command: str, config: dict[str, Any]) -> str:
    """A command without the places of its program and its run; of one of several runs, that of this run alone."""
    program, *words = shlex.split(command)
    if Path(program).name == "worker.py":
        run = f"{config['preset']} --games {config['game']} --seeds {config['seed']}"
        return f"pixelq sweep {run} --set threads={config['threads']}"
    if Path(program).name == "family.py":
        run = f"--presets {config['preset']} --games {config['game']} --seeds {config['seed']}"
        return f"python benchmarks/family.py FOLDER {run} --threads {config['threads']} --device {config['device']}"
    for option in ("--run", "--progress"):  # neither changes what is learned
        if option in words:
            at = words.index(option)
            del words[at : at + 2]
    name = Path(program).name
    return shlex.join(["pixelq" if name == "__main__.py" else name, *words])


def _replace(name: str, keys: tuple[str, ...], row: dict[str, str]) -> None:
    read.cache_clear()
    rows = [old for old in read(name) if any(old[key] != row[key] for key in keys)]
    with (FOLDER / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, row.keys(), lineterminator="\n")
        table.writeheader()
        table.writerows([*rows, row])


def main(arguments: list[str]) -> int:
    """Add each run that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--study", required=True, help="the table of curves, e.g. fast")
    parser.add_argument("--machine", required=True, help="e.g. '2 virtual cores of an Intel Xeon (AMX), 23 GiB'")
    parser.add_argument("--beside", default="nothing", help="what else the machine did meanwhile")
    parser.add_argument("--label", help="the agent's name in tables (default: the preset)")
    options = parser.parse_args(arguments)
    for run in options.runs:
        print(add(run, options.study, options.machine, options.beside, options.label))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
