"""Offline datasets: whole games of an agent; seed and actions replay each game."""

import dataclasses
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import pixelq
from pixelq.agent import Agent
from pixelq.config import to_json
from pixelq.config.algos import kind_of
from pixelq.envs import VectorEnvs
from pixelq.envs.episodes import EpisodeTracker
from pixelq.envs.interface import game_seed
from pixelq.errors import PixelqError
from pixelq.evaluation.minari_folder import (
    MOST_STEPS,
    DatasetGame,
    DatasetWriter,
    Pictures,
    check_collection,
    dataset_folder,
)
from pixelq.evaluation.players import (
    MakeEnv,
    Player,
    Policy,
    RandomAgent,
    conditions,
    env_config,
    fire_assist,
    make_games,
    open_player,
)
from pixelq.evaluation.protocols import Changes, Protocol
from pixelq.games import game_kind
from pixelq.run.seeding import stream, stream_seed

__all__ = ["Collection", "collect"]

_MOST_AT_ONCE = 16
_STEPS_FOR_ONE = 5_000  # with fewer steps to collect for each, fewer games are played at once


class Collection(NamedTuple):
    """What was written."""

    path: Path
    games: int
    steps: int  # of all games together
    mean: float  # raw score
    bytes: int  # on the disk
    settings: str  # the line that names every condition


def collect(
    agent: Player | Path | str,
    out: Path | str,
    steps: int = 100_000,
    seed: int = 1,
    *,
    protocol: Protocol | str | None = None,
    epsilon: float | None = None,
    sticky: float | None = None,
    noops: int | None = None,
    max_frames: int | None = None,
    game: str | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    make_env: MakeEnv | None = None,
) -> Collection:
    """Play whole games and write them as an offline dataset, which Minari reads.

    Each step has only the newest picture; `docs/tools.md` says how to read stacks. No game begins after those that have
    begun have enough steps, and every one that has begun is played to its end: short games are not preferred.

    Args:
        agent: the player, as in `evaluate`.
        out: the dataset's folder, which must be new or empty and have a name as Minari's, e.g. `breakout-v0`; it
            appears when all is written.
        steps: least number of steps.
        seed: of the games and of all random numbers, at least 0.
        protocol: the conditions, as in `evaluate`.
        epsilon: as in `evaluate`, like the next three.
        sticky: the same.
        noops: the same.
        max_frames: the same.
        game: what `random` plays, Breakout if None; an agent plays its own.
        device: where the network of an agent lives that is not loaded yet.
        progress: called with the steps done and the steps to do.
        make_env: makes one environment, if the game's name does not say how.

    Returns:
        What was written.

    Raises:
        PixelqError: a number out of range, a folder that is no place for it, an agent that cannot be used or does not
            suit the protocol, or Minari is missing.
        StorageError: the dataset cannot be written.
    """
    if seed < 0:
        raise PixelqError(f"--seed is {seed}: must be at least 0")
    out = Path(out)
    check_collection(out, steps)
    player = open_player(agent, game, device, make_env=make_env)
    rules = conditions(player, protocol, Changes(epsilon, sticky, noops, max_frames))
    seats = _Seats(player, rules, seed, make_env)
    try:
        spec = seats.begin().games.spec
        if rules.max_frames // spec.frames_per_step > MOST_STEPS:
            most = MOST_STEPS * spec.frames_per_step
            raise PixelqError(f"--max-frames is {rules.max_frames}: Minari reads games of {most:,} frames at most")
        facts = _facts(player, rules, seed, spec.action_meanings)
        with dataset_folder(out, spec.obs.picture, len(spec.action_meanings), facts) as dataset:
            scores = _play(seats, steps, dataset, progress)
    finally:
        seats.close()
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Collection(out, len(scores), seats.steps, float(np.mean(scores)), size, facts["description"])


class _Game:
    """One game at play, and all that it has shown."""

    def __init__(self, games: VectorEnvs, seed: int) -> None:
        self.games = games
        self._seed = seed
        self._tracker = EpisodeTracker(1)
        self.result = games.reset()
        self._tracker.reset(self.result)
        self.life_lost = np.zeros(1, np.bool_)
        self._pictures = Pictures(games.spec.obs.picture)
        self._actions: list[int] = []
        self._rewards: list[np.float32] = []
        self._lives: list[int] = []
        self._keep()

    def _keep(self) -> None:
        self._pictures.append(self.games.spec.obs.newest(self.result.obs)[0])
        self._lives.append(int(self.result.lives[0]))

    def send(self, action: np.int64) -> None:
        self._actions.append(int(action))
        self.games.send(np.array([action], np.int64))

    def recv(self) -> bool:
        """Take in the result of `send`; returns whether the game has ended."""
        self.result = self.games.recv()
        self.life_lost, _ = self._tracker.update(self.result)
        self._rewards.append(self.result.reward[0])
        self._keep()
        return bool(self.result.terminated[0] or self.result.truncated[0])

    def played(self) -> DatasetGame:
        return DatasetGame(
            self._seed,
            self._pictures.stacked(),
            np.array(self._actions, np.int64),
            np.array(self._rewards, np.float32),
            bool(self.result.terminated[0]),
            bool(self.result.truncated[0]),
            self._lives if self.games.spec.has_lives else None,
        )


class _Seats:
    """The games in play; each new game begins from its own seed."""

    def __init__(self, player: Player, rules: Protocol, seed: int, make_env: MakeEnv | None) -> None:
        self.player, self.rules, self.seed = player, rules, seed
        self._make_env = make_env
        self._begun = 0
        self.steps = 0  # of all games that have begun
        self.playing: list[_Game] = []

    def begin(self) -> _Game:
        """Start the next game."""
        seed = stream_seed(self.seed, f"collected game {self._begun}")
        self._begun += 1
        games = make_games(self.player, self.rules, 1, seed, 1, self._make_env)
        # the seed for the reset of emulator or environment
        self.playing.append(_Game(games, seed if game_kind(self.player.game) == "test" else game_seed(seed, 0, 0)))
        return self.playing[-1]

    def end(self, game: _Game) -> None:
        """Make room for another."""
        self.playing.remove(game)
        game.games.close()

    def close(self) -> None:
        """End all games."""
        for game in list(self.playing):
            self.end(game)


def _play(
    seats: _Seats, steps: int, dataset: DatasetWriter, progress: Callable[[int, int], None] | None
) -> list[float]:
    """Play until there are enough steps, all games to their ends; returns their scores."""
    at_once = max(1, min(_MOST_AT_ONCE, steps // _STEPS_FOR_ONE))
    meanings = seats.playing[0].games.action_meanings
    policy = Policy(seats.player, meanings, seats.rules.epsilon, stream(seats.seed, "collected actions"))
    scores: list[float] = []
    while True:
        while len(seats.playing) < at_once and seats.steps < steps:
            seats.begin()
        playing = list(seats.playing)
        if not playing:
            return scores
        obs = np.concatenate([game.result.obs for game in playing])
        actions = policy.act(obs, np.concatenate([game.life_lost for game in playing]))
        for game, action in zip(playing, actions, strict=True):
            game.send(action)
        seats.steps += len(playing)
        for game in playing:
            if game.recv():
                played = game.played()
                seats.end(game)
                dataset.append(played)
                scores.append(float(played.rewards.sum(dtype=np.float64)))
        if progress is not None:
            progress(min(seats.steps, steps), steps)


def _facts(player: Player, rules: Protocol, seed: int, meanings: tuple[str, ...]) -> dict[str, Any]:
    """What the dataset's metadata say beside Minari's own entries."""
    card = player.card if isinstance(player, Agent) else None
    env = env_config(player, rules)
    said = {
        "game": player.game,
        "action_meanings": list(meanings),
        "stack": env.stack,
        "protocol": dataclasses.asdict(rules),
        "env": to_json(env),
        "fire_after_life_loss": fire_assist(player),
        "seed": seed,
        "agent": None if card is None else json.loads(card.to_json()),
        "versions": {"pixelq": pixelq.__version__, "ale-py": importlib.metadata.version("ale-py")},
    }
    return {
        "algorithm_name": "random" if card is None else f"pixelq {kind_of(card.algo)}",
        "description": rules.describe(player.game, fire_assist(player), isinstance(player, RandomAgent)),
        "pixelq": said,
    }
