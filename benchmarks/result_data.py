"""Recorded results: small tables under `results/`, one compressed table of curves a study."""

import csv
import gzip
import io
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLUMNS", "FOLDER", "ROOT", "chain", "curves", "first_above", "read", "write_curves"]

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "results"
COLUMNS = ("step", "seconds", "return_per_game", "return_per_life", "epsilon", "loss", "q_mean")
_DIGITS = {"seconds": 1, "return_per_game": 2, "return_per_life": 2, "epsilon": 4}
Curve = dict[str, NDArray[np.float64]]  # each of COLUMNS, [P]; NaN where a run had no figure


@cache
def read(name: str) -> tuple[dict[str, str], ...]:
    """The rows of `results/NAME.csv`, all cells as text."""
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


@cache
def curves(study: str) -> dict[str, Curve]:
    """The curves of `results/curves/STUDY.csv.gz` by the name of their run."""
    text = gzip.decompress((FOLDER / "curves" / f"{study}.csv.gz").read_bytes()).decode()
    found: dict[str, list[list[float]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        found.setdefault(row["run"], []).append([float(row[name] or "nan") for name in COLUMNS])
    return {run: dict(zip(COLUMNS, np.array(points).T, strict=True)) for run, points in found.items()}


def write_curves(study: str, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Write a study's curves: the same curves always give the same bytes.

    Args:
        study: the table's name.
        runs: lines of `metrics.jsonl` by the name of their run.
    """
    keys = {name: f"train/{name}" for name in ("return_per_game", "return_per_life", "epsilon")}
    keys |= {"loss": "loss/td", "q_mean": "q/mean"}
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(("run", *COLUMNS))
    for run, lines in runs.items():
        table.writerows([run, *(_cell(name, line.get(keys.get(name, name))) for name in COLUMNS)] for line in lines)
    (FOLDER / "curves" / f"{study}.csv.gz").write_bytes(gzip.compress(out.getvalue().encode(), 9, mtime=0))


def _cell(name: str, value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    if name == "step":
        return str(int(value))
    digits = _DIGITS.get(name)
    return f"{value:.4g}" if digits is None else f"{value:.{digits}f}".rstrip("0").rstrip(".")


def chain(study: str, runs: str) -> Curve:
    """Runs that each go on with the weights of the one before, as one curve.

    Args:
        study: where their curves are.
        runs: names of runs, joined by `+`.

    Returns:
        Their points in order; steps and seconds go on where the run before ended.
    """
    parts, done = [], {"step": 0.0, "seconds": 0.0}
    for name in runs.split("+"):
        part = dict(curves(study)[name])
        for key, before in done.items():
            part[key] = part[key] + before
        done = {key: float(part[key][-1]) for key in done}
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}


def first_above(curve: Curve, score: float, axis: str = "seconds") -> float | None:
    """Where the return per game first exceeds a score, None if it never does."""
    above = np.nonzero(curve["return_per_game"] > score)[0]
    return float(curve[axis][above[0]]) if len(above) else None
