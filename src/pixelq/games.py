"""Names of games: ROM names, Gymnasium ids and functions to one `Game`, with «did you mean» for anything else."""

import difflib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pixelq.errors import PixelqError

__all__ = [
    "FUNCTION",
    "TEST_GAMES",
    "Game",
    "GameKind",
    "did_you_mean",
    "file_word",
    "function_game",
    "game_kind",
    "game_names",
    "maker_of",
    "resolve_game",
]

GameKind = Literal["atari", "test", "gymnasium", "function"]

_TWO_PLAYERS = {"combat", "joust", "maze_craze", "warlords"}  # ale-py ends the process when given one alone
TEST_GAMES = ("catch",)  # pixelq's own, learned in seconds, for tests
FUNCTION = "make_env:"  # prefix of games that only a Python program can make
_ID = re.compile(r"([\w.-]+/)?[\w.-]+-v\d+")  # Gymnasium's
# packages that register ids at import: prefix of the ids, module to import, package to install
_PACKAGES = (
    ("MiniGrid-", "minigrid", "minigrid"),
    ("BabyAI-", "minigrid", "minigrid"),
    ("Vizdoom", "vizdoom.gymnasium_wrapper", "vizdoom"),
    ("MiniWorld-", "miniworld", "miniworld"),
    ("FlappyBird-", "flappy_bird_gymnasium", "flappy-bird-gymnasium"),
    ("highway-", "highway_env", "highway-env"),
)


class Game(NamedTuple):
    """A game, with the sticky actions that its id implies."""

    name: str  # ROM name, e.g. "ms_pacman"; a Gymnasium id or `module:name` as it was given
    sticky: float  # probability that the emulator repeats the last action, as the id means it

    @property
    def kind(self) -> GameKind:
        """The library that plays it."""
        return game_kind(self.name)


@cache
def game_names() -> tuple[str, ...]:
    """Every Atari ROM of ale-py, sorted, then pixelq's own test games; imports nothing heavy."""
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
        PixelqError: unknown, or it cannot be imported; the line suggests the nearest game.
    """
    if game_kind(text) == "function":
        return Game(text, 0.0)
    if ":" in text:
        maker_of(text)
        return Game(text, 0.0)
    if text in game_names():
        return Game(text, 0.0)
    by_camel = {name.title().replace("_", ""): name for name in game_names()}
    match = re.fullmatch(r"ALE/(\w+)-v5|(\w+)NoFrameskip-v([04])", text)
    if match:
        camel = match[1] or match[2]
        if camel in by_camel:
            return Game(by_camel[camel], 0.0 if match[3] == "4" else 0.25)
        raise PixelqError(f'unknown game "{text}"{did_you_mean(_snake(camel), game_names())}; see: pixelq games')
    camel = re.sub(r"(Deterministic)?-v\d+$", "", text).removeprefix("ALE/")
    if camel in by_camel and _ID.fullmatch(text):
        name = by_camel[camel]
        if name in TEST_GAMES:
            raise PixelqError(f'unknown game "{text}": pixelq\'s own game is called "{name}"')
        if text == f"{camel}-v5":
            raise PixelqError(f'unknown game "{text}" (did you mean "ALE/{text}"?): or use the ROM name "{name}"')
        raise PixelqError(
            f'game id "{text}" has another frame skip: use "{name}", "ALE/{camel}-v5" or "{camel}NoFrameskip-v4"'
        )
    if _ID.fullmatch(text):
        maker_of(text)
        return Game(text, 0.0)
    raise PixelqError(f'unknown game "{text}"{did_you_mean(_snake(text), game_names())}; see: pixelq games')


def game_kind(name: str) -> GameKind:
    """The kind of a game: ale-py's, pixelq's own, Gymnasium's, or a function in a Python program.

    Args:
        name: of a resolved game.
    """
    if name in TEST_GAMES:
        return "test"
    if name.startswith(FUNCTION):
        return "function"
    return "gymnasium" if ":" in name or _ID.fullmatch(name) else "atari"


def file_word(name: str) -> str:
    """A game's name as a part of a file name."""
    return re.sub(r"[^\w.-]+", "-", name)


def function_game(make_env: Callable[[], Any]) -> str:
    """The name of a game that a function makes."""
    return FUNCTION + getattr(make_env, "__qualname__", type(make_env).__name__)


def maker_of(name: str) -> "str | Callable[..., Any]":
    """The maker of a Gymnasium game: a registered id, or a function.

    Args:
        name: `Id-v0`, `module:Id-v0` or `module:function`; modules in the current folder are also found.

    Raises:
        PixelqError: the module cannot be imported, or has no such function; Gymnasium knows no such id.
    """
    module, colon, rest = name.rpartition(":")
    if colon and not (module and rest):
        raise PixelqError(f'game "{name}": must be module:function or module:Id-v0')
    found = _imported(module, name) if colon else None
    if found is None or _ID.fullmatch(rest):
        return _known_id(rest, name)
    if not hasattr(found, rest):
        functions = tuple(word for word, value in vars(found).items() if callable(value))
        raise PixelqError(f'game "{name}": {module} has no "{rest}"{did_you_mean(rest, functions)}')
    function: Callable[..., Any] = getattr(found, rest)
    if not callable(function):
        raise PixelqError(f'game "{name}": "{rest}" is no function that returns a gymnasium.Env')
    return function


def _imported(module: str, name: str) -> Any:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = next((package for _, known, package in _PACKAGES if known == module), None)
        install = f": pip install {package}" if package else "; is it in this folder, or installed?"
        if module.endswith(".py"):
            install = (
                f': a module is named without ".py", as in "{module.removesuffix(".py")}:{name.rpartition(":")[2]}"'
            )
        raise PixelqError(f'game "{name}": there is no module "{error.name}"{install}') from error
    except Exception as error:  # a user's module may raise anything
        text = " ".join(str(error).split())
        raise PixelqError(f'game "{name}": {module} cannot be imported: {type(error).__name__}: {text}') from error


def _known_id(text: str, name: str) -> str:
    """An id that Gymnasium has."""
    import gymnasium  # late: it takes half a second

    if text in gymnasium.registry:
        return text
    for start, module, package in _PACKAGES:
        if text.startswith(start) and text == name:
            raise PixelqError(f'unknown game "{text}": it is "{module}:{text}", of the package {package}')
    near = did_you_mean(text, tuple(gymnasium.registry)) or did_you_mean(_snake(text), game_names())
    if text != name:
        raise PixelqError(f'unknown game "{name}": the module registers no "{text}"{near}')
    raise PixelqError(f'unknown game "{text}"{near}: if its package registers it on import, say "module:{text}"')


def _snake(camel: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", camel.removeprefix("ALE/")).lower()
