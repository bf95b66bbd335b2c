"""`pixelq presets`: list the recipes."""

from collections.abc import Sequence
from dataclasses import dataclass

from pixelq.cli.options import parse
from pixelq.presets import DEFAULT_PRESET, PRESETS

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    pass


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    parse(_Options, words, "pixelq presets", "List the recipes.")
    for name, preset in PRESETS.items():
        mark = " (the default)" if name == DEFAULT_PRESET else ""
        print(f"{name:<16}{preset.summary}{mark}\n{'':<16}{preset.source}")
    return 0
