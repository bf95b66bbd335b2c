"""How large a checkpoint of a full replay memory is, and how long writing it and coming back from it take.

    python benchmarks/checkpoint_times.py [--transitions 1000000] [--agent RUN|random] [--store lz4] [--threads 2]

20,000 steps of Breakout are emulated and appended over and over, as separate games. Then come: a whole checkpoint; one
after 50,000 more steps; loading that, up to the first step of the games that is replayed; and replaying 8 games of
5,000 steps each. The files were just written, so reading them does not wait for the disk. The last line of output is
one JSON document; the exit status is 1 if the checkpoint takes more than 200 MB or a time is above its limit.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from pixelq.agent import load_agent
from pixelq.bench.replay import Played, play
from pixelq.evaluation.players import Player, RandomAgent
from pixelq.presets import preset
from pixelq.replay import ReplayBuffer
from pixelq.run.checkpoint import CheckpointStore
from pixelq.training.parts import Parts, begin, make_parts, resolve
from pixelq.training.state import restore_parts, save_parts

GAMES = 8
EMULATED_STEPS = 20_000
LOG_STEPS = 5_000  # of each game
MORE_STEPS = 50_000
LIMITS = {
    "checkpoint_bytes": 200e6,
    "incremental_save_seconds": 2.0,
    "load_seconds": 20.0,
    "restore_games_seconds": 40.0,
}


def seconds_since(start: float) -> float:
    return round(time.perf_counter() - start, 2)


def play_games(parts: Parts, ticks: int) -> None:
    """Give every game a log of so many actions."""
    rng = np.random.default_rng(1)
    for _ in range(ticks):
        parts.envs.send(rng.integers(0, len(parts.envs.action_meanings), GAMES))
        parts.obs = parts.envs.recv().obs


def append(buffer: ReplayBuffer, played: Played, transitions: int) -> None:
    """Remember what was played over and over, each time as other games."""
    for row in range(transitions // GAMES):
        at = row % len(played.actions)
        if at == 0:
            buffer.restart(played.planes[0])
        flags = (played.terminated[at], played.truncated[at], played.ignored[at])
        buffer.append(played.actions[at], played.rewards[at], *flags, played.planes[at + 1])


def measure_saving(parts: Parts, player: Player, folder: Path, transitions: int) -> dict[str, Any]:
    """Fill the memory and write it whole, then what is new."""
    played = play(player, min(EMULATED_STEPS, transitions))
    begin(parts)
    play_games(parts, LOG_STEPS)
    append(parts.buffer, played, transitions)
    store = CheckpointStore(folder)
    start = time.perf_counter()
    chunks = save_parts(store, parts, [], 0)
    saving = seconds_since(start)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    append(parts.buffer, played, MORE_STEPS)
    parts.step = MORE_STEPS
    start = time.perf_counter()
    save_parts(store, parts, chunks, 0)
    return {"checkpoint_bytes": size, "save_seconds": saving, "incremental_save_seconds": seconds_since(start)}


def measure_restoring(parts: Parts, folder: Path) -> dict[str, Any]:
    """Come back from the newest checkpoint."""
    loaded: list[float] = []

    def follow(done: int, total: int) -> None:
        loaded.append(time.perf_counter())

    start = time.perf_counter()
    restore_parts(parts, CheckpointStore(folder).load_newest(sys.exit), follow)
    return {"load_seconds": round(loaded[0] - start, 2), "restore_games_seconds": seconds_since(loaded[0])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=1_000_000)
    parser.add_argument("--agent", default="random", help="who plays: a run, an agent file, or `random`")
    parser.add_argument("--store", default="lz4", choices=("lz4", "ram"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    base = preset("nature-dqn")
    capacity = options.transitions
    replay = dataclasses.replace(base.replay, capacity=capacity, store=options.store, learn_start=1)
    config = resolve(dataclasses.replace(base, envs=GAMES, device="cpu", threads=options.threads, replay=replay))
    with tempfile.TemporaryDirectory() as temporary:
        with closing((parts := make_parts(config)).envs):
            player = RandomAgent("breakout") if options.agent == "random" else load_agent(options.agent)
            result = measure_saving(parts, player, Path(temporary), capacity)
        del parts  # a memory of that size fits once
        with closing((parts := make_parts(config)).envs):
            result |= measure_restoring(parts, Path(temporary))
    result = {"transitions": capacity, "agent": options.agent, "store": options.store} | result
    print(json.dumps(result))
    return 0 if all(result[name] <= limit for name, limit in LIMITS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
