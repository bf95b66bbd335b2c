"""Open the dashboard over many long runs in Chromium: python benchmarks/dashboard_load.py [RUNS] [LINES].

Makes a folder of runs (50 of 100,000 lines, 1.3 GB, unless told otherwise) in a temporary place, starts the server
and loads the page, cold and then once more. Prints the time until all curves are drawn and the server's memory; the
last line is JSON. The targets for 50 × 100,000: under 2 s, under 300 MB.
"""

import json
import math
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser

from chromium import browser, served
from pixelq.config import to_json
from pixelq.presets import preset

_PERIOD = 100  # steps between two lines
_SETTLE_SECONDS = 5  # until the runs, sampled at first, have been read in full


def write_run(path: Path, seed: int, lines: int) -> None:
    """A run of so many lines, like those that training writes."""
    for folder in ("checkpoints", "videos", "eval", "tb"):
        (path / folder).mkdir(parents=True)
    config = to_json(preset("keras-example")) | {"seed": seed, "total_steps": _PERIOD * lines}
    (path / "config.json").write_text(json.dumps(config), "utf-8")
    (path / "provenance.json").write_text(json.dumps({"cpu": "none", "cores": 2}), "utf-8")
    with (path / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for line in range(1, lines + 1):
            part = line / lines
            score = 60 * part + 5 * math.sin(line / 997 + seed) + (line * 7919 + seed) % 101 / 40
            record = {
                "step": _PERIOD * line,
                "frames": 4 * _PERIOD * line,
                "games": line // 4,
                "lives": line,
                "seconds": 0.437 * line,
                "train/return_per_game": score,
                "train/return_per_life": score / 7,
                "train/epsilon": max(0.1, 1 - 2 * part),
                "loss/td": 0.014256561956098002 * (1.5 - part),
                "q/mean": 1.8 * part - 0.0051426314538525,
                "perf/steps_per_second": 230.4,
            }
            file.write(json.dumps(record) + "\n")


def load(chromium: Browser, url: str, runs: int) -> float:
    """Seconds from the request to the drawing of all curves."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.goto("about:blank")
    begin = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_selector(f"#charts[data-runs='{runs}'] .first canvas")
    spent = time.perf_counter() - begin
    page.close()
    return spent


def peak_mb(pid: int) -> float:
    """Most resident memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) / 1e3


def main(runs: int = 50, lines: int = 100_000) -> None:
    """Make, measure, clean up."""
    folder = Path(tempfile.mkdtemp(prefix="dashboard-load-"))
    try:
        write_run(folder / "run-00", 0, lines)
        for number in range(1, runs):
            write_run(folder / f"run-{number:02}", number, lines) if number < 4 else shutil.copytree(
                folder / f"run-{number % 4:02}", folder / f"run-{number:02}"
            )
        size = sum(path.stat().st_size for path in folder.glob("*/metrics.jsonl"))
        print(f"{runs} runs of {lines:,} lines, {size / 1e6:,.0f} MB", flush=True)
        with browser() as chromium:
            begin = time.perf_counter()
            with served("dashboard", folder) as (url, server):
                ready = time.perf_counter() - begin
                cold = load(chromium, url, runs)
                time.sleep(_SETTLE_SECONDS)
                warm = load(chromium, url, runs)
                memory = peak_mb(server)
    finally:
        shutil.rmtree(folder)
    print(f"server ready after {ready:.2f} s; all curves drawn {cold:.2f} s after the first request")
    print(f"and {warm:.2f} s after a later one")
    print(f"most memory of the server: {memory:.0f} MB")
    values = {"ready_s": ready, "first_load_s": cold, "second_load_s": warm, "server_peak_mb": memory}
    print(json.dumps({"runs": runs, "lines": lines} | {key: round(value, 2) for key, value in values.items()}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
