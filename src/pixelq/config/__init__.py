"""Every setting of a run: dataclasses, their checks, and their JSON. Imports no torch."""

from pixelq.config.algos import (
    ALGO_KINDS,
    AlgoConfig,
    C51Config,
    DQNConfig,
    IQNConfig,
    MunchausenConfig,
    PQNConfig,
    QRConfig,
    kind_of,
)
from pixelq.config.serialisation import from_json, to_json
from pixelq.config.settings import (
    ATARI_SHAPE,
    FRAME_SKIP,
    EnvConfig,
    ExplorationConfig,
    NetworkConfig,
    ObsShape,
    OptimiserConfig,
    ReplayConfig,
    StopOn,
    StoreName,
    TrainConfig,
    ViewConfig,
)
from pixelq.config.validation import option, validate, validate_agent, validate_view

__all__ = [
    "ALGO_KINDS",
    "ATARI_SHAPE",
    "FRAME_SKIP",
    "AlgoConfig",
    "C51Config",
    "DQNConfig",
    "EnvConfig",
    "ExplorationConfig",
    "IQNConfig",
    "MunchausenConfig",
    "NetworkConfig",
    "ObsShape",
    "OptimiserConfig",
    "PQNConfig",
    "QRConfig",
    "ReplayConfig",
    "StopOn",
    "StoreName",
    "TrainConfig",
    "ViewConfig",
    "from_json",
    "kind_of",
    "option",
    "to_json",
    "validate",
    "validate_agent",
    "validate_view",
]
