"""Agents as ONNX and as torch.export programs."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch

from pixelq.agent import Agent, load_agent, save_agent
from pixelq.errors import PixelqError
from pixelq.extras import need
from pixelq.interop.plain import plain_values
from pixelq.networks import CARD_METADATA, QNetwork
from pixelq.run.storage import storage_errors, write_atomically
from pixelq.shipped import RANDOM

__all__ = ["SUFFIXES", "ExportFormat", "WeightType", "export"]

ExportFormat = Literal["safetensors", "onnx", "torch"]
WeightType = Literal["float32", "bfloat16", "float16"]
SUFFIXES: dict[ExportFormat, str] = {"safetensors": ".safetensors", "onnx": ".onnx", "torch": ".pt2"}
_DTYPES: dict[WeightType, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def export(
    agent: Agent | Path | str,
    path: Path | str,
    format: ExportFormat | None = None,
    weights: WeightType = "float32",
) -> ExportFormat:
    """Write an agent to a file, as a whole or not at all.

    ONNX and torch.export programs take observations `obs` [B, planes, H, W] uint8, for any B, and give action values
    `q` [B, A] float32; the division by 255 is inside. The agent's card is in the file's metadata as JSON, under
    `pixelq`.

    Args:
        agent: a run directory (its newest good checkpoint), a `.safetensors` file, the name of an agent that comes with
            pixelq, or an agent that is loaded already; its noise is off.
        path: where to; a file of that name is replaced.
        format: of the file; None: from the name's suffix, `.safetensors`, `.onnx` or `.pt2`.
        weights: how a safetensors file stores them; the others are float32.

    Returns:
        The format.

    Raises:
        PixelqError: the suffix is not the format's, a library is missing, or the file cannot be written.
    """
    path = Path(path)
    by_suffix = {suffix: known for known, suffix in SUFFIXES.items()}
    chosen = format or by_suffix.get(path.suffix)
    if chosen is None or path.suffix != SUFFIXES[chosen]:
        wanted = [SUFFIXES[chosen]] if chosen else list(by_suffix)
        raise PixelqError(f"{path}: an exported agent's name must end in {' or '.join(wanted)}")
    if agent == RANDOM:
        raise PixelqError("random has no weights: give a run directory or a .safetensors file")
    agent = load_agent(agent) if isinstance(agent, str | Path) else agent
    if not isinstance(agent.network, QNetwork):
        raise PixelqError("an agent from an ONNX file is exported already: give its run or its .safetensors file")
    if chosen != "safetensors" and weights != "float32":
        raise PixelqError(f"{weights} weights go with a .safetensors file; {path.suffix} files are float32")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if chosen == "safetensors":
            save_agent(path, agent.network.state_dict(), agent.card, _DTYPES[weights])
        else:
            write_atomically(path, _onnx(agent) if chosen == "onnx" else _program(agent))
    return chosen


def _onnx(agent: Agent) -> bytes:
    need("onnx", "onnx", "onnxscript")
    module, obs = plain_values(agent)
    batch = torch.export.Dim("batch")
    with _quietly(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (obs,),
            dynamo=True,
            dynamic_shapes=({0: batch},),
            input_names=["obs"],
            output_names=["q"],
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
    model.producer_name = "pixelq"
    entry = model.metadata_props.add()
    entry.key, entry.value = CARD_METADATA, agent.card.to_json()
    data: bytes = model.SerializeToString()
    return data


def _program(agent: Agent) -> bytes:
    module, obs = plain_values(agent)
    file = io.BytesIO()
    with _quietly(), torch.no_grad():
        program = torch.export.export(module, (obs,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, file, extra_files={CARD_METADATA: agent.card.to_json()})
    return file.getvalue()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence the exporters' messages about their own code."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
