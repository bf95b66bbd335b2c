"""pixelq: deep Q-learning from pixels."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixelq.agent import load_agent
    from pixelq.presets import preset
    from pixelq.reports.report import report
    from pixelq.sweeps.runner import sweep
    from pixelq.training.callbacks import Callback
    from pixelq.training.run import train
    from pixelq.tuning.tune import tune

from pixelq.system import wait_passively

__all__ = ["Callback", "load_agent", "preset", "report", "sweep", "train", "tune"]
__version__ = "0.1.0"

wait_passively()  # before torch is loaded, if it is not

_HOMES = {
    "Callback": "pixelq.training.callbacks",
    "load_agent": "pixelq.agent",
    "preset": "pixelq.presets",
    "report": "pixelq.reports.report",
    "sweep": "pixelq.sweeps.runner",
    "train": "pixelq.training.run",
    "tune": "pixelq.tuning.tune",
}


def __getattr__(name: str) -> Any:
    """Import the few public functions when they are first used: `import pixelq` loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pixelq' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
