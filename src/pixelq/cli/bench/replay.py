"""`pixelq bench replay`: the replay buffer alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pixelq.cli.bench.checks import check_seconds
from pixelq.cli.options import parse
from pixelq.cli.players import open_player
from pixelq.errors import PixelqError
from pixelq.games import resolve_game
from pixelq.run.rundir import find_agent
from pixelq.shipped import RANDOM

if TYPE_CHECKING:
    from pixelq.bench.replay import Measurement
    from pixelq.evaluation.players import Player

__all__ = ["run"]

_LEAST_TRANSITIONS = 1_000
_GAMES = ("breakout", "pong", "ms_pacman", "seaquest", "space_invaders")


@dataclass(frozen=True)
class _Options:
    transitions: Annotated[int, tyro.conf.arg(metavar="N")] = 1_000_000
    """Capacity of the replay buffer. The benchmark fills it once."""
    games: Annotated[tuple[str, ...], tyro.conf.arg(metavar="G …")] = _GAMES
    """ROM names or Gymnasium ids."""
    stores: Annotated[tuple[Literal["lz4", "ram", "device"], ...], tyro.conf.arg(metavar="S …")] = ("lz4", "ram")
    """Frame stores: lz4, ram, device."""
    agent: Annotated[str, tyro.conf.arg(metavar="AGENT")] = RANDOM
    """Agent that plays its own game with ε = 0.1: a run directory, a .safetensors file or `breakout`. Other games are
    played at random; `random`: all games."""
    seconds: Annotated[float, tyro.conf.arg(metavar="S")] = 3.0
    """Seconds to sample each store."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The last line of stdout is the results as JSON."""


def run(words: Sequence[str]) -> int:
    """Run the benchmark and return the exit status."""
    about = "Fill a replay buffer. Measure its memory, how fast it fills and how fast it gives batches."
    options = parse(_Options, words, "pixelq bench replay", about)
    if options.transitions < _LEAST_TRANSITIONS:
        raise PixelqError(f"--transitions is {options.transitions}: must be at least {_LEAST_TRANSITIONS:,}")
    check_seconds(options.seconds)
    games = [resolve_game(game).name for game in options.games]
    if options.agent != RANDOM:
        find_agent(options.agent)

    from pixelq.bench.replay import bench_replay

    results: list[Measurement] = []
    print(_ROW.format("game", "store", "transitions", "resident", "B/transition", "sample(32)", "adds/s"), flush=True)
    for player in _players(options.agent, games):
        for result in bench_replay(player, options.stores, options.transitions, options.seconds, _note):
            print(_line(result), flush=True)
            results.append(result)
    if options.json:
        print(json.dumps({"results": [result._asdict() for result in results]}))
    return 0


def _players(agent: str, games: Sequence[str]) -> list["Player"]:
    """Who plays each game."""
    if agent == RANDOM:
        return [open_player(RANDOM, game, "cpu") for game in games]
    trained = open_player(agent, None, "cpu")
    others = [game for game in games if game != trained.game]
    if others:
        _note(f"{agent} plays {trained.game}; played at random: {', '.join(others)}")
    return [trained if game == trained.game else open_player(RANDOM, game, "cpu") for game in games]


def _note(text: str) -> None:
    print(f"  {text}", flush=True)


_ROW = "{:<16}{:<8}{:>12}{:>11}{:>14}{:>12}{:>11}"


def _line(result: "Measurement") -> str:
    return _ROW.format(
        result.game,
        result.store,
        f"{result.transitions:,}",
        f"{result.resident_bytes / 1e6:,.0f} MB",
        f"{result.bytes_per_transition:,.0f}",
        f"{result.sample32_ms_median:.2f} ms",
        f"{result.adds_per_second:,.0f}",
    )
