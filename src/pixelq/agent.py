"""Agents for users: a network with its game and its training; and agent files."""

import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from pixelq.actor import greedy_actions
from pixelq.algos import algo_of
from pixelq.config import (
    AlgoConfig,
    NetworkConfig,
    ObsShape,
    TrainConfig,
    ViewConfig,
    from_json,
    to_json,
    validate_agent,
)
from pixelq.device import resolve_device
from pixelq.errors import CheckpointError, ConfigError, PixelqError
from pixelq.networks import CARD_METADATA, OnnxNetwork, QNetwork
from pixelq.run.manifest import MANIFEST, read_manifest, verify_file
from pixelq.run.rundir import find_agent
from pixelq.run.storage import storage_errors, write_atomically

__all__ = ["Agent", "AgentCard", "load_agent", "make_agent", "save_agent"]

_FORMAT = 2
_FILE = "agent.safetensors"  # an agent in a checkpoint
_CARD_TYPES: dict[str, type] = {
    "game": str,
    "full_action_space": bool,
    "sticky": float,
    "fire_after_life_loss": bool,
    "preset": str,
    "step": int,
    "seed": int,
}


@dataclass(frozen=True)
class AgentCard:
    """Metadata of an agent file: everything needed to build the network and to play as in training."""

    game: str
    """ROM name, or `catch`."""
    action_meanings: tuple[str, ...]
    """One for each action, in order."""
    full_action_space: bool
    """It was trained with all 18 actions."""
    sticky: float
    """Probability of a repeated action in training."""
    fire_after_life_loss: bool
    """In training FIRE was pressed after every lost life."""
    network: NetworkConfig
    """The network: torso, dense layers, sizes."""
    algo: AlgoConfig
    """The algorithm, which decides the network's head."""
    preset: str
    """Name of the recipe the run started from."""
    step: int
    """Agent steps of training behind the weights."""
    seed: int
    """The run's seed."""
    view: ViewConfig = field(default_factory=ViewConfig)
    """The network's observations of the game."""

    @property
    def obs_shape(self) -> ObsShape:
        """Shape of the network's observations."""
        return self.view.obs_shape

    def to_json(self) -> str:
        """The card as the JSON text that `from_json` reads."""
        return json.dumps({"format": _FORMAT, **to_json(self), "sticky": float(self.sticky)})

    @classmethod
    def from_json(cls, text: str) -> "AgentCard":
        """Read the output of `to_json`.

        Raises:
            ConfigError: it is no card, or one of another format; names the entry.
        """
        try:
            values: dict[str, Any] = dict(json.loads(text))
        except (ValueError, RecursionError, TypeError) as error:
            raise ConfigError("its agent card is no JSON object") from error
        if values.get("format") != _FORMAT:
            raise ConfigError(f"its agent card has format {values.get('format')}: this pixelq reads format {_FORMAT}")
        wrong = [name for name, kind in _CARD_TYPES.items() if type(values.get(name)) is not kind]
        meanings = values.get("action_meanings")
        if not (isinstance(meanings, list) and meanings and all(isinstance(word, str) for word in meanings)):
            wrong.append("action_meanings")
        if wrong:
            raise ConfigError(f'its agent card has no proper "{wrong[0]}"')
        config: TrainConfig = from_json(TrainConfig, {name: values.get(name) for name in ("network", "algo")})
        view: ViewConfig = from_json(ViewConfig, values.get("view", {}), "view")  # older cards have none: Atari's
        validate_agent(config.network, config.algo, view)
        facts = {name: values[name] for name in _CARD_TYPES}
        return cls(
            action_meanings=tuple(values["action_meanings"]),
            network=config.network,
            algo=config.algo,
            view=view,
            **facts,
        )


class Agent:
    """A trained network with its card. It acts greedily; the caller adds exploration.

    Args:
        network: as in `card.network`; a network from an ONNX file plays, but has no weights.
        card: its game and how it was trained.
        device: the network's device.
    """

    def __init__(self, network: QNetwork | OnnxNetwork, card: AgentCard, device: torch.device | None = None) -> None:
        self.card = card
        self.device = device or torch.device("cpu")
        self.network: QNetwork | OnnxNetwork = network.to(self.device).eval()

    @property
    def game(self) -> str:
        """ROM name of the game it plays."""
        return self.card.game

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """Shape of an observation, [planes, H, W], on Atari [4, 84, 84]."""
        return self.card.obs_shape.obs

    @property
    def action_meanings(self) -> tuple[str, ...]:
        """The meaning of each action, e.g. ("NOOP", "FIRE", "RIGHT", "LEFT")."""
        return self.card.action_meanings

    def act(self, obs: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The actions of highest value.

        Args:
            obs: [B, planes, H, W] uint8 as in `obs_shape`, on Atari [B, 4, 84, 84]; newest picture last.

        Returns:
            [B] int64, indices into `action_meanings`.

        Raises:
            ValueError: another dtype or shape.
        """
        return greedy_actions(self.network, _checked_obs(obs, self.card.obs_shape), self.device)

    def q_values(self, obs: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The expected return of every action.

        Args:
            obs: [B, planes, H, W] uint8 as in `obs_shape`, on Atari [B, 4, 84, 84]; newest picture last.

        Returns:
            [B, A] float32.

        Raises:
            ValueError: another dtype or shape.
        """
        with torch.inference_mode():
            values = self.network.q_values(torch.from_numpy(_checked_obs(obs, self.card.obs_shape)).to(self.device))
        return np.asarray(values.float().cpu().numpy())


def save_agent(
    path: Path | str, state_dict: Mapping[str, Tensor], card: AgentCard, dtype: torch.dtype = torch.float32
) -> None:
    """Write an agent file, as a whole or not at all.

    Args:
        path: file name, ending in `.safetensors`.
        state_dict: the network's tensors by name.
        card: metadata of the file.
        dtype: dtype of the stored tensors; `load_agent` converts them to float32.

    Raises:
        PixelqError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise PixelqError(f"{path}: an agent file's name ends in .safetensors")
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in state_dict.items()}
    with storage_errors(path):
        write_atomically(path, safetensors.torch.save(tensors, {CARD_METADATA: card.to_json()}))


def load_agent(path: Path | str, device: str = "cpu", on_damage: Callable[[str], None] = warnings.warn) -> Agent:
    """Read an agent; nothing is unpickled.

    Args:
        path: a run directory (the newest undamaged checkpoint's agent), a `.safetensors` or `.onnx` file from pixelq,
            `hf:USER/NAME[@REVISION]` on the Hugging Face hub, or the name of an agent that ships with pixelq, e.g.
            `breakout`.
        device: `cpu`, `cuda`, `mps` or `auto`.
        on_damage: called with one line for each newer checkpoint that is damaged.

    Raises:
        PixelqError: the path, its content or the device cannot be used.
    """
    where = resolve_device(device)
    path = find_agent(path)
    if path.is_dir():
        data, path = _read_newest(path, on_damage)
    else:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PixelqError(f"cannot read {path}: {error.strerror or error}") from error
    if path.suffix == ".onnx":
        return _onnx_agent(data, path)
    tensors, card = _parse(data, path)
    return Agent(_build(tensors, card, path), card, where)


def make_agent(weights: dict[str, Tensor], card: AgentCard) -> Agent:
    """An agent from weights in memory, on the CPU.

    Args:
        weights: by name, as in the card's network; the agent takes them over.
        card: its game and its training.

    Raises:
        PixelqError: the weights do not fit the card's network.
    """
    return Agent(_build(weights, card, "agent"), card)


def _checked_obs(obs: NDArray[np.uint8], shape: ObsShape) -> NDArray[np.uint8]:
    if not isinstance(obs, np.ndarray) or obs.dtype != np.uint8:
        kind = obs.dtype if isinstance(obs, np.ndarray) else type(obs).__name__
        raise ValueError(f"obs must be a numpy array of uint8, got {kind}")
    if obs.ndim != 4 or obs.shape[1:] != shape.obs:
        raise ValueError(f"obs must have the shape [B, {', '.join(map(str, shape.obs))}], got {list(obs.shape)}")
    return np.require(obs, requirements=["C", "W"])  # torch takes no negative strides, and warns of read-only memory


def _read_newest(run: Path, on_damage: Callable[[str], None]) -> tuple[bytes, Path]:
    """The bytes of the newest undamaged agent of a run, and its path; the run's replay is not read."""
    folder = run / "checkpoints"
    places = sorted(folder.glob("step-*"), key=_age)
    damage = ""
    for place in reversed(places):
        path = place / _FILE
        try:
            files = read_manifest(place / MANIFEST).files
            if _FILE not in files:
                raise CheckpointError(f"{place} holds no agent")
            return verify_file(path, files[_FILE]), path
        except OSError as error:
            raise PixelqError(f"cannot read {place}: {error.strerror or error}") from error
        except CheckpointError as error:
            if not place.exists():  # the run's writer removed it and has newer ones
                return _read_newest(run, on_damage)
            damage = damage or str(error)
            on_damage(str(error))
    if damage:
        raise CheckpointError(f"{run} has no undamaged checkpoint: {damage}")
    raise CheckpointError(f"{run} has no checkpoint yet")


def _age(place: Path) -> tuple[str, int, str]:
    """Sorts `step-000000050000`, then `step-000000050000-2` that replaced it, then later steps."""
    return place.name.split("-")[1].zfill(20), len(place.name), place.name


def _parse(data: bytes, path: Path) -> tuple[dict[str, Tensor], AgentCard]:
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged, or no safetensors file") from error
    text = header.get("__metadata__", {}).get(CARD_METADATA)
    if text is None:
        raise PixelqError(f"{path} is not an agent of pixelq: it has no agent card")
    try:
        return tensors, AgentCard.from_json(text)
    except ConfigError as error:
        raise PixelqError(f"{path} cannot be used: {error}") from error


def _onnx_agent(data: bytes, path: Path) -> Agent:
    """The agent of an ONNX file, on the CPU."""
    try:
        network = OnnxNetwork(data)
        if network.card is None:
            raise PixelqError("it has no agent card: it was not exported by pixelq")
        card = AgentCard.from_json(network.card)
    except PixelqError as error:
        raise PixelqError(f"{path} cannot be used: {error}") from error
    agent = Agent(network, card)
    found, wanted = (network.num_actions, *network.obs_shape), (len(card.action_meanings), *agent.obs_shape)
    if found != wanted:
        raise PixelqError(f"{path} does not fit its agent card: actions and observations are {found}, not {wanted}")
    return agent


def _build(tensors: dict[str, Tensor], card: AgentCard, path: Path | str) -> QNetwork:
    """The network of a card with a file's tensors in it."""
    with torch.device("meta"):  # shapes only, so that a wrong card costs no memory
        make_network = algo_of(card.algo).make_network
        network = make_network(card.network, card.algo, len(card.action_meanings), None, card.obs_shape)
    wanted = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in sorted(wanted.keys() | tensors.keys()):
        found = list(tensors[name].shape) if name in tensors else None
        if found != wanted.get(name):
            raise PixelqError(f"{path} does not fit its agent card: {name} is {found}, not {wanted.get(name)}")
    if not all(math.isfinite(tensor.float().sum()) for tensor in tensors.values()):
        raise PixelqError(f"{path} holds weights that are not finite numbers")
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
