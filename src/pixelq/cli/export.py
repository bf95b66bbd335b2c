"""`pixelq export`: write an agent to a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pixelq.cli.options import parse
from pixelq.cli.places import check_new_file
from pixelq.cli.players import open_agent
from pixelq.errors import PixelqError
from pixelq.extras import need
from pixelq.run.rundir import find_agent
from pixelq.shipped import RANDOM

__all__ = ["run"]

_SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx", "torch": ".pt2"}
_FILES = {"safetensors": "an agent file", "onnx": "an ONNX file", "torch": "a torch.export program"}


@dataclass(frozen=True)
class _Options:
    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")]
    """A run directory (its newest checkpoint), a .safetensors file, hf:USER/NAME, or `breakout` (ships with pixelq)."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File to write: .safetensors, .onnx or .pt2. An existing file is replaced."""
    format: Literal["auto", "safetensors", "onnx", "torch"] = "auto"
    """Format: weights and card, an ONNX model, or a torch.export program. auto: by the file's name."""
    weights: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the weights in a .safetensors file. The 16-bit formats halve the file and round the weights."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    about = (
        "Write an agent to one file. A .safetensors file has weights and card; eval, record, watch and train --init "
        "take it. A model for other programs maps uint8 observations [B, planes, height, width] (on Atari "
        "[B, 4, 84, 84]) to float32 action values [B, A]; its metadata hold the card."
    )
    options = parse(_Options, words, "pixelq export", about)
    if options.agent == RANDOM:
        raise PixelqError("random has no weights: give a run directory or a .safetensors file")
    kinds = {suffix: kind for kind, suffix in _SUFFIXES.items()}
    if options.format == "auto" and options.out.suffix not in kinds:
        raise PixelqError(f"--out {options.out}: an agent file's name must end in .safetensors, .onnx or .pt2")
    kind = kinds[options.out.suffix] if options.format == "auto" else options.format
    check_new_file("--out", options.out, _SUFFIXES[kind], _FILES[kind], "agent")
    find_agent(options.agent)
    if kind == "onnx":
        need("onnx", "onnx", "onnxscript")

    from pixelq.interop.exports import export

    agent = open_agent(options.agent, "cpu")
    export(agent, options.out, weights=options.weights)
    card, size = agent.card, options.out.stat().st_size
    what = options.weights if kind == "safetensors" else kind
    print(f"{options.out}: {card.game}, {card.preset}, step {card.step:,}, {what}, {size / 1e6:.1f} MB")
    return 0
