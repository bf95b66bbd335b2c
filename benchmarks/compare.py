"""Steps a second while learning: pixelq beside other systems that do the same work, in alternating rounds.

    python benchmarks/compare.py [--seconds 60] [--rounds 5] [--presets keras-example …] [--peers sb3 keras]
                                 [--threads 0] [--cache ~/.cache/pixelq/peers]

All learn Breakout from pixels on the CPU: batch 32, an update every fourth step, four frames a step, ε 0.1, learning
throughout. The peers are Stable-Baselines3's DQN (`sb3`) and the Keras example on TensorFlow (`keras`), both with one
game; see peers/. A peer's packages are installed once, into a virtual environment of its own under the cache. pixelq is
the one that this Python imports, by `pixelq bench train`, with as many games at once and in the precision that the
recipe says; a preset may have options, as in `--presets "keras-example --envs 1 --precision float32"`.

A round is, for each peer in turn, every preset and then the peer. A ratio is taken between such neighbours, so that
what slows the machine for a while slows both. Printed are minimum, median and maximum over the rounds. The last line of
output is one JSON document.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
SET_UP_SECONDS = 3_600


class Peer(NamedTuple):
    """Another system: a script in peers/ and what it needs."""

    script: str
    packages: tuple[str, ...]


GAMES = ("ale-py==0.12.1", "gymnasium==1.4.0", "opencv-python-headless==5.0.0.93")
# where there is a build for processors alone, it spares some gigabytes
TENSORFLOW = "tensorflow-cpu" if platform.machine().lower() in ("x86_64", "amd64") else "tensorflow"
PEERS = {
    "sb3": Peer("sb3_dqn.py", ("stable-baselines3==2.9.2", *GAMES)),
    "keras": Peer("keras_example.py", (f"{TENSORFLOW}==2.21.0", "keras==3.15.1", *GAMES)),
}


class Bout(NamedTuple):
    """Neighbours in time, in steps a second: a peer, and every preset of pixelq right before it."""

    peer: str
    theirs: float
    ours: dict[str, float]


def python_of(folder: Path) -> str:
    """The interpreter of a virtual environment."""
    return str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def torch_constraint() -> str:
    """The line of constraints.txt that pins torch; the others are for pixelq's packages, not for a peer's."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def set_up(name: str, cache: Path) -> None:
    """Install a peer, unless it is there already."""
    folder = cache / name
    wanted = "\n".join([torch_constraint(), *PEERS[name].packages])
    mark = folder / "installed.txt"
    if mark.exists() and mark.read_text("utf-8") == wanted:
        return
    print(f"setting up {name} in {folder}", flush=True)
    output([sys.executable, "-m", "venv", "--clear", str(folder)], f"{name}: no virtual environment", SET_UP_SECONDS)
    constraints = folder / "constraints.txt"
    constraints.write_text(torch_constraint() + "\n", "utf-8")
    install = [python_of(folder), "-E", "-m", "pip", "install", "-q", "-c", str(constraints), *PEERS[name].packages]
    output(install, f"{name} cannot be installed", SET_UP_SECONDS)
    mark.write_text(wanted, "utf-8")


def output(command: Sequence[str], failure: str, timeout: float) -> str:
    """Run a program and return what it prints; if it fails, end this one with a line that says why."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        sys.exit(f"{failure}: it took more than {timeout:.0f} s")
    if done.returncode:
        sys.exit(f"{failure}: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return done.stdout


def time_contender(command: Sequence[str], name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run a contender and return the figures of its last line."""
    limits = ["--seconds", str(options.seconds), "--threads", str(options.threads)]
    patience = 900 + 10 * options.seconds  # its start and its warm-up take a while
    figures = json.loads(output([*command, *limits], f"{name} failed", patience).splitlines()[-1])
    figures = figures["results"][0] if "results" in figures else figures
    print(f"  {name}: {figures['steps_per_second']:,.1f} steps/s", flush=True)
    return dict(figures)


def play_bout(peer: str, options: argparse.Namespace, last: dict[str, Any]) -> Bout:
    """Time every preset, then a peer; the figures of each go into `last`."""
    ours = {}
    for preset in options.presets:
        words = [sys.executable, "-m", "pixelq", "bench", "train", *shlex.split(preset), "--device", "cpu", "--json"]
        last[f"pixelq {preset}"] = time_contender(words, f"pixelq {preset}", options)
        ours[preset] = last[f"pixelq {preset}"]["steps_per_second"]
    script = Path(__file__).parent / "peers" / PEERS[peer].script
    last[peer] = time_contender([python_of(options.cache / peer), "-E", str(script)], peer, options)
    return Bout(peer, last[peer]["steps_per_second"], ours)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def summarise(bouts: Sequence[Bout]) -> dict[str, dict[str, dict[str, float]]]:
    """Steps a second of every contender, and its ratios to the peers beside it."""
    speeds: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    for bout in bouts:
        for preset, speed in bout.ours.items():
            speeds.setdefault(f"pixelq {preset}", []).append(speed)
            ratios.setdefault(f"pixelq {preset} / {bout.peer}", []).append(speed / bout.theirs)
        speeds.setdefault(bout.peer, []).append(bout.theirs)
    return {
        "steps_per_second": {name: spread(values) for name, values in speeds.items()},
        "ratios": {name: spread(values) for name, values in ratios.items()},
    }


def print_table(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Print spreads, a line each."""
    print(f"{title:<60}{'min':>10}{'median':>10}{'max':>10}")
    for name, values in rows.items():
        print(f"{name:<60}" + "".join(f"{values[key]:>10,.2f}" for key in ("min", "median", "max")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="timed, of each contender in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--presets", nargs="+", default=["keras-example"], help="of pixelq, with options if any")
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--threads", type=int, default=0, help="of each contender; 0: its own choice")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/pixelq/peers")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds must be at least 1 and --seconds above 0")
    for peer in options.peers:
        set_up(peer, options.cache)
    bouts: list[Bout] = []
    last: dict[str, Any] = {}
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", flush=True)
        bouts += [play_bout(peer, options, last) for peer in options.peers]
    summary = summarise(bouts)
    print_table("steps/s while learning", summary["steps_per_second"])
    print_table("ratios", summary["ratios"])
    settings = {"seconds": options.seconds, "rounds": options.rounds, "threads": options.threads}
    print(json.dumps({**settings, "cores": os.cpu_count(), **summary, "last": last}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
