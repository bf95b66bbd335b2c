"""pixelq: deep Q-learning from pixels."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixelq.agent import Agent, load_agent
    from pixelq.distributed.ray_actors import RayActors
    from pixelq.errors import PixelqError
    from pixelq.evaluation.collect import collect
    from pixelq.evaluation.evaluate import evaluate
    from pixelq.evaluation.record import record
    from pixelq.games import game_names
    from pixelq.interop.exports import export
    from pixelq.interop.foreign import import_agent
    from pixelq.plots.plot import plot
    from pixelq.presets import PRESETS, preset
    from pixelq.reports.report import report
    from pixelq.sweeps.runner import sweep
    from pixelq.training.callbacks import Callback
    from pixelq.training.run import resume, train
    from pixelq.tuning.tune import tune

from pixelq.system import let_cpu_help_apples_gpu, wait_passively

__all__ = [
    "PRESETS",
    "Agent",
    "Callback",
    "PixelqError",
    "RayActors",
    "collect",
    "evaluate",
    "export",
    "game_names",
    "import_agent",
    "load_agent",
    "plot",
    "preset",
    "record",
    "report",
    "resume",
    "sweep",
    "train",
    "tune",
]
__version__ = "0.1.0"

wait_passively()  # before torch is loaded, if it is not
let_cpu_help_apples_gpu()

_HOMES = {
    "Agent": "pixelq.agent",
    "Callback": "pixelq.training.callbacks",
    "PRESETS": "pixelq.presets",
    "PixelqError": "pixelq.errors",
    "RayActors": "pixelq.distributed.ray_actors",
    "collect": "pixelq.evaluation.collect",
    "evaluate": "pixelq.evaluation.evaluate",
    "export": "pixelq.interop.exports",
    "game_names": "pixelq.games",
    "import_agent": "pixelq.interop.foreign",
    "load_agent": "pixelq.agent",
    "plot": "pixelq.plots.plot",
    "preset": "pixelq.presets",
    "record": "pixelq.evaluation.record",
    "report": "pixelq.reports.report",
    "resume": "pixelq.training.run",
    "sweep": "pixelq.sweeps.runner",
    "train": "pixelq.training.run",
    "tune": "pixelq.tuning.tune",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: `import pixelq` loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pixelq' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
