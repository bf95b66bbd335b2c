"""Games to learn from: many at once, by name."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pixelq.config import EnvConfig
from pixelq.envs.interface import RESEED_STEPS, EnvSpec, StepResult, VectorEnvs
from pixelq.errors import PixelqError
from pixelq.games import FUNCTION, TEST_GAMES, game_kind, resolve_game

if TYPE_CHECKING:
    import gymnasium

__all__ = ["RESEED_STEPS", "EnvSpec", "StepResult", "VectorEnvs", "make_envs"]


def make_envs(
    game: str,
    num_envs: int,
    seed: int,
    env: EnvConfig,
    threads: int = 0,
    make_env: "Callable[[], gymnasium.Env[Any, Any]] | None" = None,
) -> VectorEnvs:
    """Make N games that play side by side.

    Args:
        game: ROM name, Gymnasium id, `module:name`, or `catch`.
        num_envs: games played at once, N.
        seed: every game's own seed is derived from it.
        env: how the games are played; `sticky` None means: as the game's id says. `catch` ignores it;
            other games ignore the Atari settings.
        threads: threads of the emulator; 0: one for each core, at most N.
        make_env: makes one environment, if the game's name does not say how.

    Raises:
        PixelqError: unknown game, or one that does not fit.
    """
    name, sticky = resolve_game(game)
    if name in TEST_GAMES:
        from pixelq.envs.testing import Catch

        return Catch(num_envs, seed)
    kind = game_kind(name)
    if kind in ("gymnasium", "function"):
        from pixelq.envs.gymnasium import GymnasiumEnvs

        if kind == "function" and make_env is None:
            raise PixelqError(
                f'this game comes from a function ("{name.removeprefix(FUNCTION)}") that only a Python program has: '
                "give it there as make_env=function, or name it as --game module:function in a new run"
            )
        return GymnasiumEnvs(name, num_envs, seed, env, make_env)
    from pixelq.envs.atari import AtariEnvs  # late: loading the emulator takes a while

    if env.sticky is None:
        env = dataclasses.replace(env, sticky=sticky)
    return AtariEnvs(name, num_envs, seed, env, threads)
