"""Videos of an agent at play, at real speed and in colour."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixelq.envs import EnvSpec, VectorEnvs
from pixelq.envs.episodes import EpisodeTracker
from pixelq.envs.interface import game_seed
from pixelq.errors import PixelqError
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
from pixelq.evaluation.screens import Screen, make_screen, picture_form
from pixelq.evaluation.video import VideoWriter, video_file
from pixelq.games import game_kind
from pixelq.run.seeding import stream, stream_seed

__all__ = ["Recording", "record"]


class Recording(NamedTuple):
    """The written video."""

    path: Path
    scores: tuple[float, ...]  # raw score of each game
    frames: int  # pictures in the video
    seconds: float  # how long it plays
    settings: str  # the line that names every condition


def record(
    agent: Player | Path | str,
    out: Path | str,
    episodes: int = 1,
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
) -> Recording:
    """Play whole games and write them to an MP4, one after the other.

    Every emulator frame is a picture at 60 a second, enlarged to twice its size. The no-op start is not shown.

    Args:
        agent: the player, as in `evaluate`.
        out: file name, ending in `.mp4`. Its folder is created; an existing file is replaced as a whole.
        episodes: number of games.
        seed: of the games and of all random choices, at least 0.
        protocol: the conditions, as in `evaluate`.
        epsilon: as in `evaluate`, like the next three.
        sticky: the same.
        noops: the same.
        max_frames: the same.
        game: game of `random`, Breakout if None; an agent plays its own.
        device: device for an agent that is not loaded yet.
        progress: called with the games done and the games to do.
        make_env: makes one environment, if the game's name does not say how.

    Returns:
        The written video.

    Raises:
        PixelqError: a number is out of range, the suffix is another, or the agent cannot be used with the protocol.
        StorageError: the video cannot be written.
    """
    if episodes < 1:
        raise PixelqError(f"--episodes is {episodes}: must be at least 1")
    if seed < 0:
        raise PixelqError(f"--seed is {seed}: must be at least 0")
    player = open_player(agent, game, device, make_env=make_env)
    rules = conditions(player, protocol, Changes(epsilon, sticky, noops, max_frames))
    out = Path(out)
    form = picture_form(player.game, _spec(player, rules, make_env))
    scores = []
    with video_file(out, (form.rows, form.columns), form.scale, form.rate) as video:
        for number in range(episodes):
            scores.append(_play(player, rules, seed, number, video, make_env))
            if progress is not None:
                progress(number + 1, episodes)
    settings = rules.describe(player.game, fire_assist(player), isinstance(player, RandomAgent))
    return Recording(out, tuple(scores), video.frames, video.frames / form.rate, settings)


def _spec(agent: Player, protocol: Protocol, make_env: MakeEnv | None) -> EnvSpec | None:
    """The spec of a Gymnasium game; None for other games, which need no environment."""
    if game_kind(agent.game) in ("atari", "test"):
        return None
    games = make_games(agent, protocol, 1, 0, 1, make_env)
    games.close()
    return games.spec


def _play(
    agent: Player, protocol: Protocol, seed: int, number: int, video: VideoWriter, make_env: MakeEnv | None
) -> float:
    """Play one game into a video; returns its score."""
    games_seed = stream_seed(seed, f"recorded game {number}")
    games = make_games(agent, protocol, 1, games_seed, 1, make_env)
    # the emulator's seed of the first game of environment 0
    screen = make_screen(agent.game, env_config(agent, protocol), game_seed(games_seed, 0, 0), games)
    try:
        chance = stream(seed, f"recorded actions {number}")
        return _follow(games, Policy(agent, games.action_meanings, protocol.epsilon, chance), screen, video)
    finally:
        screen.close()
        games.close()


def _follow(games: VectorEnvs, policy: Policy, screen: Screen, video: VideoWriter) -> float:
    tracker = EpisodeTracker(1)
    result = games.reset()
    tracker.reset(result)
    video.write(screen.start(result))
    life_lost = np.zeros(1, np.bool_)
    while True:
        actions = policy.act(result.obs, life_lost)
        games.send(actions)
        result = games.recv()
        for picture in screen.step(int(actions[0]), result):
            video.write(picture)
        life_lost, finished = tracker.update(result)
        if result.terminated[0] or result.truncated[0]:
            return finished[-1].total
