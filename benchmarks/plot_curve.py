"""Draw a run's learning curve: python benchmarks/plot_curve.py RUN_OR_METRICS.jsonl[,NEXT...] OUT.png [TITLE].

Of several, each goes on with the weights of the one before.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt


def read(source: str) -> list[dict[str, Any]]:
    """The lines of metrics of a run's directory or file."""
    path = Path(source)
    lines = (path / "metrics.jsonl" if path.is_dir() else path).read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def main(sources: str, out: str, title: str = "") -> None:
    """Mean return per game and per life against steps."""
    records: list[dict[str, Any]] = []
    steps: list[float] = []
    for source in sources.split(","):
        done = steps[-1] if steps else 0.0
        records += (run := read(source))
        steps += [done + record["step"] / 1e3 for record in run]
    figure, axis = plt.subplots(figsize=(8, 4), dpi=120)
    axis.plot(steps, [record["train/return_per_game"] for record in records], label="return per game (raw score)")
    axis.plot(steps, [record["train/return_per_life"] for record in records], label="return per life (clipped)")
    axis.set_xlabel("steps (thousands; 4 emulator frames each)")
    axis.set_ylabel("mean of the last 100 in training")
    axis.set_title(title, fontsize=10)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left")
    figure.tight_layout()
    figure.savefig(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
