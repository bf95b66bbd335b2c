"""Options of the benchmarks that take a preset: which recipes, with which settings changed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from pixelq.cli.bench.checks import check_seconds
from pixelq.cli.options import parse
from pixelq.config import TrainConfig, validate
from pixelq.errors import PixelqError
from pixelq.games import resolve_game
from pixelq.presets import DEFAULT_PRESET, PRESETS, preset

__all__ = ["RecipeOptions", "in_turn", "parse_recipes"]


@dataclass(frozen=True)
class RecipeOptions:
    """A recipe and how to measure it."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    all_presets: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Every preset in turn, each with the settings given."""
    seconds: Annotated[float, tyro.conf.arg(metavar="S")] = 10.0
    """Seconds to measure each recipe."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The last line of stdout is the results as JSON."""


def parse_recipes(words: Sequence[str], command: str, about: str) -> list[RecipeOptions]:
    """Read `[PRESET] [options]`, as in `pixelq train`.

    Args:
        words: what follows the verb.
        command: the command's name, e.g. `pixelq bench train`.
        about: its description, for `--help`.

    Returns:
        The options of each recipe to measure, their settings checked.

    Raises:
        PixelqError: unknown, missing or ill-typed; a setting out of range.
        SystemExit: the help was asked for and printed.
    """
    words = list(words)
    named = words.pop(0) if words and not words[0].startswith("-") else None
    name = named or DEFAULT_PRESET
    about = (
        f"{about} Presets: {', '.join(PRESETS)}; see: pixelq presets. The defaults below come from {name}. The "
        "benchmark itself sets ε, capacity and start of the replay, length, checkpoints and videos, whatever is given."
    )

    def read(name: str) -> RecipeOptions:
        return parse(
            RecipeOptions, words, f"{command} {named}" if named else command, about, RecipeOptions(preset(name))
        )

    first = read(name)
    if first.config.preset != name:
        raise PixelqError(f"--preset is not how to choose one: {command} {first.config.preset} …")
    if first.all_presets and named:
        raise PixelqError(f"--all-presets measures {named} too: leave out one of the two")
    check_seconds(first.seconds)
    recipes = [read(each) for each in PRESETS] if first.all_presets else [first]
    # everything that can be wrong without torch is said before torch is loaded
    for recipe in recipes:
        validate(recipe.config)
        resolve_game(recipe.config.game)
    return recipes


def in_turn(recipes: Sequence[RecipeOptions]) -> Iterator[RecipeOptions]:
    """Each recipe; if there are several, a line says when its turn comes."""
    for recipe in recipes:
        if len(recipes) > 1:
            print(f"  measuring {recipe.config.preset} …", flush=True)
        yield recipe
