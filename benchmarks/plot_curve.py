"""Draw a run's learning curve: python benchmarks/plot_curve.py RUN_OR_METRICS.jsonl OUT.png [TITLE]."""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt


def main(source: str, out: str, title: str = "") -> None:
    """Mean return per game and per life against steps."""
    path = Path(source)
    lines = (path / "metrics.jsonl" if path.is_dir() else path).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    steps = [record["step"] / 1e3 for record in records]
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
