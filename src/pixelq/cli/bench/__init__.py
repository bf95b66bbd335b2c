"""`pixelq bench WHAT`: measure a part of pixelq on this machine; one file a part."""

import importlib
from collections.abc import Sequence

from pixelq.errors import PixelqError
from pixelq.games import did_you_mean

__all__ = ["run"]

_BENCHES = {
    "env": "the games: emulator frames a second, in all and a core",
    "replay": "the replay buffer: resident memory, adding, sampling",
    "learner": "the update: milliseconds, its parts, arithmetic a second",
    "train": "training as a whole: steps a second while learning, and what bounds them",
}
"""Benchmarks behind `pixelq bench`; each is the module of its name."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    what, rest = (words[0], words[1:]) if words else ("", [])
    if what in ("-h", "--help"):
        print(
            "usage: pixelq bench WHAT [options]\n",
            *(f"  {name:<9}{about}" for name, about in _BENCHES.items()),
            sep="\n",
        )
        return 0
    if what not in _BENCHES:
        known = ", ".join(_BENCHES)
        said = f'unknown benchmark "{what}"{did_you_mean(what, tuple(_BENCHES))}' if what else "which benchmark?"
        raise PixelqError(f"{said}; there is: {known}; see: pixelq bench --help")
    status: int = importlib.import_module(f"pixelq.cli.bench.{what}").run(rest)
    return status
