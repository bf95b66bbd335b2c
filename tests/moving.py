"""A learner together with an engine that moves it, as one object."""

from typing import Any

import torch

from pixelq.config import TrainConfig
from pixelq.engines import Engine, make_engine
from pixelq.engines.recorded import RecordedEngine
from pixelq.learner import Learner


class MovingLearner:
    """The engine's part and the learner's remaining part."""

    def __init__(self, engine: Engine) -> None:
        self.__dict__["engine"] = engine

    def _owner(self, name: str) -> Any:
        return self.engine if hasattr(self.engine, name) else self.engine.learner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._owner(name), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._owner(name), name, value)


def noise_on(device: torch.device) -> torch.Generator:
    return torch.Generator(device if device.type == "cuda" else "cpu")


def moving_learner(
    config: TrainConfig, num_actions: int, device: torch.device, generator: torch.Generator
) -> MovingLearner:
    """With the engine that is chosen for it."""
    return MovingLearner(make_engine(Learner(config, num_actions, device, generator), noise_on(device)))


def recorded_learner(
    config: TrainConfig, num_actions: int, device: torch.device, generator: torch.Generator
) -> MovingLearner:
    """With the engine of GPUs, which elsewhere records nothing."""
    return MovingLearner(RecordedEngine(Learner(config, num_actions, device, generator), noise_on(device)))
