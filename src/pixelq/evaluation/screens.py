"""The picture for people: the true colours of an Atari game, the plane of a test game."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import ale_py
import numpy as np
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv
from numpy.typing import NDArray

from pixelq.config import FRAME_SKIP, EnvConfig
from pixelq.envs import EnvSpec, StepResult, VectorEnvs
from pixelq.games import TEST_GAMES, game_kind

__all__ = ["AtariScreen", "GameScreen", "PictureForm", "PlaneScreen", "Screen", "make_screen", "picture_form"]


class PictureForm(NamedTuple):
    """The form of a game's pictures."""

    rows: int
    columns: int
    scale: int  # whole number that a video enlarges them by
    rate: int  # pictures a second at real speed


def picture_form(game: str, spec: EnvSpec | None = None) -> PictureForm:
    """The form of a game's pictures: 210 x 160 at 60 a second for most Atari games, 250 x 160 for some.

    Args:
        game: a resolved game's name.
        spec: the game's spec; needed for Gymnasium's games.
    """
    if game in TEST_GAMES:
        return PictureForm(84, 84, scale=4, rate=60 // FRAME_SKIP)
    if game_kind(game) != "atari":
        assert spec is not None
        rows, columns = spec.screen
        return PictureForm(rows, columns, _enlarged(rows, columns), max(1, round(spec.steps_per_second)))
    rom = roms.get_rom_path(game)
    assert rom is not None, game
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner on stderr
    emulator = ale_py.ALEInterface()
    emulator.loadROM(rom)
    rows, columns = emulator.getScreenDims()
    return PictureForm(int(rows), int(columns), scale=2, rate=60)


def _enlarged(rows: int, columns: int) -> int:
    """How much a video enlarges pictures: small ones, and by 2 if a side is odd, which videos cannot have."""
    odd = rows % 2 or columns % 2
    return 4 if min(rows, columns) < 100 else 2 if odd or min(rows, columns) < 250 else 1


class Screen(Protocol):
    """Follows one game that is played elsewhere and shows it."""

    def reseed(self, seed: int) -> None:
        """Follow another game from its next start on; its emulator has this seed."""
        ...

    def start(self, result: StepResult) -> NDArray[np.uint8]:
        """The picture of the game's start, [H, W, 3] uint8 RGB."""
        ...

    def step(self, action: int, result: StepResult) -> Iterator[NDArray[np.uint8]]:
        """The pictures of one agent step, [H, W, 3] uint8 RGB each.

        Args:
            action: the action of the step.
            result: the game's result, [1, ...] each.
        """
        ...

    def close(self) -> None:
        """Let go of the emulator."""
        ...


class AtariScreen:
    """A second emulator, seeded alike and given the same actions, that shows every frame in colour.

    Args:
        game: ROM name.
        env: the settings of the game that is followed.
        seed: its emulator's seed.
    """

    def __init__(self, game: str, env: EnvConfig, seed: int) -> None:
        form = picture_form(game)
        self._seed = seed
        self._frames = env.frame_skip or FRAME_SKIP
        self._twin = AtariVectorEnv(
            game,
            1,
            num_threads=1,
            max_num_frames_per_episode=env.max_frames_per_game + self._frames,  # the other game's cap decides
            repeat_action_probability=env.sticky or 0.0,
            full_action_space=env.full_action_space,
            img_height=form.rows,
            img_width=form.columns,
            grayscale=False,
            stack_num=1,
            frameskip=1,
            maxpool=False,
            noop_max=env.noop_max,
            use_fire_reset=env.fire_at_start,
            reward_clipping=False,
        )

    def reseed(self, seed: int) -> None:
        """The seed of the next start."""
        self._seed = seed

    def start(self, result: StepResult) -> NDArray[np.uint8]:
        """The picture after the no-op start."""
        obs, info = self._twin.reset(seed=np.array([self._seed]))
        _check_in_step(info["lives"], result.lives)
        return np.asarray(obs[0, 0])

    def step(self, action: int, result: StepResult) -> Iterator[NDArray[np.uint8]]:
        """The frames of a step, four of them unless the game ends.

        Raises:
            RuntimeError: the two emulators no longer play the same game.
        """
        reward = np.zeros(1, np.float32)
        for _ in range(self._frames):
            obs, gained, over, _, info = self._twin.step(np.array([action]))
            reward += gained
            yield np.asarray(obs[0, 0])
            if over[0]:
                break
        _check_in_step(reward, result.reward)
        _check_in_step(info["lives"], result.lives)

    def close(self) -> None:
        """Stop the emulator's thread; may be called twice."""
        if not self._twin.closed:
            self._twin.close()
            del self._twin.ale  # the thread ends with it


class GameScreen:
    """Shows the first of a set of Gymnasium's games as it renders itself, one picture a step."""

    def __init__(self, games: VectorEnvs) -> None:
        self._games: Any = games  # one of GymnasiumEnvs

    def reseed(self, seed: int) -> None:
        """The pictures are the game's own."""

    def start(self, result: StepResult) -> NDArray[np.uint8]:
        """The first picture."""
        return np.asarray(self._games.show())

    def step(self, action: int, result: StepResult) -> Iterator[NDArray[np.uint8]]:
        """The picture after the step."""
        yield self.start(result)

    def close(self) -> None:
        """Nothing to let go of."""


class PlaneScreen:
    """The newest plane of the observation, in grey, one picture a step."""

    def reseed(self, seed: int) -> None:
        """The planes are the game's own."""

    def start(self, result: StepResult) -> NDArray[np.uint8]:
        """The first plane."""
        return np.repeat(result.obs[0, -1][:, :, None], 3, axis=2)

    def step(self, action: int, result: StepResult) -> Iterator[NDArray[np.uint8]]:
        """The plane after the step."""
        yield self.start(result)

    def close(self) -> None:
        """Nothing to let go of."""


def make_screen(game: str, env: EnvConfig, seed: int, games: VectorEnvs) -> Screen:
    """The screen of a game.

    Args:
        game: a resolved game's name.
        env: the settings of the game that is followed.
        seed: its emulator's seed.
        games: the games to follow.
    """
    if game_kind(game) not in ("atari", "test"):
        return GameScreen(games)
    return PlaneScreen() if game in TEST_GAMES else AtariScreen(game, env, seed)


def _check_in_step(twin: NDArray[np.generic], game: NDArray[np.generic]) -> None:
    if not np.array_equal(twin, game):
        raise RuntimeError(f"the picture lost step with the game: {twin} is not {game}")
