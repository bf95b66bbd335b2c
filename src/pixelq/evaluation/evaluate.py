"""Scores under a protocol: every environment plays a fixed quota of whole games."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixelq.agent import Agent
from pixelq.envs import VectorEnvs
from pixelq.envs.episodes import EpisodeTracker
from pixelq.errors import PixelqError
from pixelq.evaluation.kept import check_keeping, keep_result
from pixelq.evaluation.players import (
    MakeEnv,
    Player,
    Policy,
    RandomAgent,
    conditions,
    fire_assist,
    make_games,
    open_player,
)
from pixelq.evaluation.protocols import Changes, Protocol
from pixelq.evaluation.scores import human_normalised, summarise
from pixelq.games import game_kind
from pixelq.run.seeding import stream, stream_seed

__all__ = ["EvalResult", "PlayedGame", "evaluate", "play_quotas", "quotas"]

_MOST_AT_ONCE = 16
_INPUT_ENDS_FRAMES = {"breakout": 65_535}  # the ROM counts frames in 16 bits; after that it ignores input


class PlayedGame(NamedTuple):
    """A whole game."""

    score: float  # raw
    frames: int  # emulator frames played, those before the first action left out
    truncated: bool  # the frame cap cut it


@dataclass(frozen=True)
class EvalResult:
    """Scores with the conditions under which they were played."""

    protocol: Protocol
    game: str
    scores: tuple[float, ...]
    """Raw score of each game; the first environment's games in order, then the second's, and so on."""
    mean: float
    median: float
    iqm: float
    """Mean of the middle half."""
    ci95: tuple[float, float]
    """95% bootstrap interval of the mean."""
    human_normalised: float | None
    """The mean where random play is 0 and the human tester 1; None for games without references."""
    settings: str
    """The line that names every condition."""
    frames: int
    """Emulator frames played."""
    cut: int
    """Games that the frame cap cut."""
    past_input: int
    """Games that continued after the ROM had stopped reading input (Breakout: after 65,535 frames)."""

    @property
    def episodes(self) -> int:
        """Number of games."""
        return len(self.scores)

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON values; its keys are what scripts rely on."""
        return {
            "protocol": self.protocol.name,
            "game": self.game,
            "episodes": self.episodes,
            "mean": self.mean,
            "median": self.median,
            "iqm": self.iqm,
            "ci95": list(self.ci95),
            "human_normalised": self.human_normalised,
            "scores": list(self.scores),
        }

    def notes(self) -> list[str]:
        """Lines that qualify the scores: games cut by the cap, games that outlived the ROM's input."""
        lines = []
        if self.cut:
            atari = game_kind(self.game) == "atari"
            cap = f"cap of {self.protocol.max_frames:,} frames" if atari else "limit of steps"
            lines.append(f"{self.cut} of {self.episodes} games reached the {cap}")
        if self.past_input:
            limit = _INPUT_ENDS_FRAMES[self.game]
            lines.append(f"{self.past_input} of {self.episodes} games passed {limit:,} frames: input is ignored then")
        return lines


def evaluate(
    agent: Player | Path | str,
    protocol: Protocol | str | None = None,
    episodes: int = 30,
    seed: int = 1,
    *,
    epsilon: float | None = None,
    sticky: float | None = None,
    noops: int | None = None,
    max_frames: int | None = None,
    keep: bool = False,
    game: str | None = None,
    device: str = "auto",
    num_envs: int | None = None,
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
    make_env: MakeEnv | None = None,
) -> EvalResult:
    """Play whole games and summarise their raw scores.

    Args:
        agent: a run directory (its newest good checkpoint), a `.safetensors` or `.onnx` file, the name of an agent that
            ships with pixelq, an address on the hub, `random`, or a loaded agent.
        protocol: the conditions, or their name; None: `nature`, or `plain` if the game is not an Atari game.
        episodes: number of games.
        seed: of the games and of all random choices, at least 0; the same seed gives the same scores.
        epsilon: probability of a random action at each step; None: the protocol's. If this or one of the next three
            differs from the protocol, the protocol's name says so: «nature, ε 0.001».
        sticky: probability that the emulator repeats the last action, at each frame; None: the protocol's.
        noops: largest number of no-op frames at a game's start; None: the protocol's.
        max_frames: cut a game after this many emulator frames; other games than Atari's count four a step. None: the
            protocol's.
        keep: whether the run directory's `eval` keeps the result for `plot`, `report` and the dashboard.
        game: game of `random`, Breakout if None; an agent plays its own.
        device: device for an agent that is not loaded yet: `auto`, `cpu`, `cuda` or `mps`.
        num_envs: games at once; None: as few as play the same rounds as 16. Other numbers play other games.
        threads: threads of the emulator; 0: one a core.
        progress: called with the games done and the games to do.
        make_env: makes one environment, if the game's name does not say how.

    Returns:
        The scores and their summary.

    Raises:
        PixelqError: a number is out of range, the agent cannot be used, its actions do not suit the protocol, or `keep`
            is asked for something that is not a run directory.
        StorageError: the result cannot be kept.
    """
    if episodes < 1:
        raise PixelqError(f"--episodes is {episodes}: must be at least 1")
    if seed < 0:
        raise PixelqError(f"--seed is {seed}: must be at least 0")
    player = open_player(agent, game, device, make_env=make_env)
    rules = conditions(player, protocol, Changes(epsilon, sticky, noops, max_frames))
    place = check_keeping(agent) if keep else None
    shares = quotas(episodes, num_envs)
    games = make_games(player, rules, len(shares), stream_seed(seed, "evaluation games"), threads, make_env)
    try:
        chance = stream(seed, "evaluation actions")
        policy = Policy(player, games.action_meanings, rules.epsilon, chance)
        played = play_quotas(games, policy, shares, progress)
    finally:
        games.close()
    result = _result(player, rules, [game for share in played for game in share])
    if place is not None and isinstance(player, Agent):
        keep_result(place, player, result, seed)
    return result


def quotas(episodes: int, num_envs: int | None = None) -> list[int]:
    """How many games each environment plays.

    Args:
        episodes: games in all.
        num_envs: environments; None: as few as need no more rounds than 16 do. Never more than games.

    Returns:
        Shares that sum up to `episodes` and differ by at most one.
    """
    if num_envs is None:
        rounds = -(-episodes // _MOST_AT_ONCE)
        num_envs = -(-episodes // rounds)
    num_envs = min(max(num_envs, 1), episodes)
    return [episodes // num_envs + (env < episodes % num_envs) for env in range(num_envs)]


def play_quotas(
    games: VectorEnvs,
    policy: Policy,
    shares: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
) -> list[list[PlayedGame]]:
    """Let each environment play its share of games; ignore further games.

    The first games to finish would be the short, bad ones; so each environment's number of games is
    settled before the first step.

    Args:
        games: N environments.
        policy: chooses the actions.
        shares: [N] games to play in each.
        progress: called with the games done and the games to do.

    Returns:
        The games of each environment, in order.
    """
    played: list[list[PlayedGame]] = [[] for _ in shares]
    tracker = EpisodeTracker(games.num_envs)
    result = games.reset()
    tracker.reset(result)
    life_lost = np.zeros(games.num_envs, np.bool_)
    done = 0
    while done < sum(shares):
        games.send(policy.act(result.obs, life_lost))
        result = games.recv()
        life_lost, finished = tracker.update(result)
        life_lost &= ~(result.terminated | result.truncated)
        for episode in finished:
            env = episode.env
            if episode.unit == "game" and len(played[env]) < shares[env]:
                cut = bool(result.truncated[env] and not result.terminated[env])
                played[env].append(PlayedGame(episode.total, games.spec.frames_per_step * episode.steps, cut))
                done += 1
                if progress is not None:
                    progress(done, sum(shares))
    return played


def _result(agent: Player, protocol: Protocol, played: list[PlayedGame]) -> EvalResult:
    scores = tuple(game.score for game in played)
    summary = summarise(scores)
    limit = _INPUT_ENDS_FRAMES.get(agent.game)
    return EvalResult(
        protocol=protocol,
        game=agent.game,
        scores=scores,
        mean=summary.mean,
        median=summary.median,
        iqm=summary.iqm,
        ci95=summary.ci95,
        human_normalised=human_normalised(agent.game, summary.mean),
        settings=protocol.describe(agent.game, fire_assist(agent), isinstance(agent, RandomAgent)),
        frames=sum(game.frames for game in played),
        cut=sum(game.truncated for game in played),
        past_input=sum(limit is not None and game.frames > limit for game in played),
    )
