"""Games to learn from: many at once, by name."""

import dataclasses

from pixelq.config import EnvConfig
from pixelq.envs.interface import RESEED_STEPS, StepResult, VectorEnvs
from pixelq.games import TEST_GAMES, resolve_game

__all__ = ["RESEED_STEPS", "StepResult", "VectorEnvs", "make_envs"]


def make_envs(game: str, num_envs: int, seed: int, env: EnvConfig, threads: int = 0) -> VectorEnvs:
    """Make N games that play side by side.

    Args:
        game: ROM name, Gymnasium id, or `catch`.
        num_envs: games played at once, N.
        seed: every game's own seed is derived from it.
        env: how the games are played; `sticky` None means what the game's id says. `catch` heeds none of it.
        threads: threads of the emulator; 0: one a core, at most N.

    Raises:
        PixelqError: unknown game.
    """
    name, sticky = resolve_game(game)
    if name in TEST_GAMES:
        from pixelq.envs.testing import Catch

        return Catch(num_envs, seed)
    from pixelq.envs.atari import AtariEnvs  # late: loading the emulator takes a while

    if env.sticky is None:
        env = dataclasses.replace(env, sticky=sticky)
    return AtariEnvs(name, num_envs, seed, env, threads)
