"""Names of games: ROM names and Gymnasium ids to one `Game`, with «did you mean» for anything else."""

import difflib
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pixelq.errors import PixelqError

__all__ = ["TEST_GAMES", "Game", "did_you_mean", "game_names", "resolve_game"]

_TWO_PLAYERS = {"combat", "joust", "maze_craze", "warlords"}  # ale-py ends the process when given one alone
TEST_GAMES = ("catch",)  # pixelq's own, seconds to learn, for trying things out


class Game(NamedTuple):
    """A game and what its id says about sticky actions."""

    name: str  # ROM name, e.g. "ms_pacman"
    sticky: float  # probability that the emulator repeats the last action, as the id means it


@cache
def game_names() -> tuple[str, ...]:
    """Every Atari ROM that ale-py brings, sorted, then pixelq's own test games; imports nothing heavy."""
    spec = importlib.util.find_spec("ale_py")
    if spec is None or spec.origin is None:
        raise PixelqError("ale-py is not installed: pip install ale-py")
    roms = {path.stem for path in (Path(spec.origin).parent / "roms").glob("*.bin")}
    return (*sorted(roms - _TWO_PLAYERS), *TEST_GAMES)


def did_you_mean(word: str, choices: list[str] | tuple[str, ...]) -> str:
    """A suffix such as ` (did you mean "breakout"?)`, empty if nothing is near."""
    near = difflib.get_close_matches(word.lower(), choices, n=1, cutoff=0.6)
    return f' (did you mean "{near[0]}"?)' if near else ""


def resolve_game(text: str) -> Game:
    """Find the game a name or an id means.

    Args:
        text: a ROM name (`breakout`, no sticky actions), `ALE/Breakout-v5` (sticky 0.25), `BreakoutNoFrameskip-v0`
            (0.25) or `BreakoutNoFrameskip-v4` (0).

    Raises:
        PixelqError: unknown; the line suggests the nearest game.
    """
    if text in game_names():
        return Game(text, 0.0)
    by_camel = {name.title().replace("_", ""): name for name in game_names()}
    match = re.fullmatch(r"ALE/(\w+)-v5|(\w+)NoFrameskip-v([04])", text)
    if match:
        camel = match[1] or match[2]
        if camel in by_camel:
            return Game(by_camel[camel], 0.0 if match[3] == "4" else 0.25)
        raise PixelqError(f'unknown game "{text}"{did_you_mean(_snake(camel), game_names())}; see: pixelq games')
    if re.fullmatch(r"(\w+)-v\d+", text):
        raise PixelqError(
            f'game id "{text}" has another frame skip: use a ROM name, "ALE/Breakout-v5" or "BreakoutNoFrameskip-v4"'
        )
    raise PixelqError(f'unknown game "{text}"{did_you_mean(_snake(text), game_names())}; see: pixelq games')


def _snake(camel: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", camel.removeprefix("ALE/")).lower()
