"""`pixelq games`: list the games."""

from collections.abc import Sequence
from dataclasses import dataclass

from pixelq.cli.options import parse
from pixelq.games import TEST_GAMES, game_names

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    pass


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    parse(_Options, words, "pixelq games", "List the games, one a line.")
    for name in game_names():
        print(f"{name}  (pixelq's own, learned in minutes)" if name in TEST_GAMES else name)
    return 0
