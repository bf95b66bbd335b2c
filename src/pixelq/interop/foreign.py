"""Agents that Stable-Baselines3 and CleanRL trained, as agents of pixelq: weights only, never a pickle."""

import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from pixelq.agent import Agent, AgentCard
from pixelq.config import DQNConfig, EnvConfig, NetworkConfig
from pixelq.envs import make_envs
from pixelq.errors import PixelqError
from pixelq.games import resolve_game
from pixelq.networks import make_network

__all__ = ["Library", "import_agent"]

Library = Literal["sb3", "cleanrl"]
_NAMES = {"sb3": "Stable-Baselines3", "cleanrl": "CleanRL"}
_LARGEST = 2**30  # bytes of weights
_PLANES = (4, 84, 84)
# modules of the Nature network in order: three convolutions, the dense layer, the outputs
_MODULES = {
    "sb3": [
        *(f"q_net.features_extractor.cnn.{index}" for index in (0, 2, 4)),
        "q_net.features_extractor.linear.0",
        "q_net.q_net.0",
    ],
    "cleanrl": [f"network.{index}" for index in (0, 2, 4, 7, 9)],
}


class _Found(NamedTuple):
    """The useful contents of a file."""

    tensors: dict[str, Tensor]
    step: int
    seed: int
    gamma: float


def import_agent(
    path: Path | str,
    library: Library,
    game: str,
    *,
    fire_after_life_loss: bool = True,
    step: int | None = None,
) -> Agent:
    """Read another library's DQN agent with the Nature network; only tensors are unpickled.

    The observations must be pixelq's: four grey pictures of 84×84, the newest last, as the Atari wrappers of both
    libraries make them.

    Args:
        path: the zip of `DQN.save`, or CleanRL's `.cleanrl_model`, a state dict.
        library: `sb3` or `cleanrl`.
        game: its game, a ROM name or Gymnasium id; the id says whether actions were sticky in training.
        fire_after_life_loss: FIRE was pressed after every lost life, as both libraries' wrappers do.
        step: agent steps of training; None: the file's value, or 0.

    Returns:
        The agent; its values equal the original's.

    Raises:
        PixelqError: the file is not from that library, or pixelq lacks its network or game.
    """
    path = Path(path)
    played = resolve_game(game)
    found = _read_sb3(path) if library == "sb3" else _read_cleanrl(path)
    names = [f"{module}.{kind}" for module in _MODULES[library] for kind in ("weight", "bias")]
    prefix = "q_net." if library == "sb3" else ""  # the target network beside it is left out
    unknown = sorted(name for name in found.tensors if name.startswith(prefix) and name not in names)
    absent = [name for name in names if name not in found.tensors]
    if absent or unknown:
        what = f"it has no {absent[0]}" if absent else f"it has {unknown[0]}"
        raise PixelqError(f"{path} is no DQN of {_NAMES[library]} on the Nature network: {what}")
    weights = [found.tensors[name].detach().float().contiguous() for name in names]
    config = _network_config(weights, path)
    meanings, full = _actions(played.name, len(weights[-1]), path)
    network = make_network(config, len(meanings))
    wanted = network.state_dict()
    for name, (key, tensor), new in zip(names, wanted.items(), weights, strict=True):
        if tensor.shape != new.shape:
            raise PixelqError(f"{path} does not fit: {name} is {list(new.shape)}, not {list(tensor.shape)}")
        if not new.isfinite().all():
            raise PixelqError(f"{path} holds weights that are not finite numbers: {name}")
        wanted[key] = new
    network.load_state_dict(wanted)
    card = AgentCard(
        game=played.name,
        action_meanings=meanings,
        full_action_space=full,
        sticky=float(played.sticky),
        fire_after_life_loss=fire_after_life_loss,
        network=config,
        algo=DQNConfig(gamma=found.gamma, loss="huber" if library == "sb3" else "mse"),
        preset=f"{library}-dqn",
        step=found.step if step is None else step,
        seed=found.seed,
    )
    return Agent(network, card)


def _network_config(weights: list[Tensor], path: Path) -> NetworkConfig:
    first, second, third, hidden = (weights[index] for index in (0, 2, 4, 6))
    if first.dim() != 4 or first.shape[1] != _PLANES[0]:
        raise PixelqError(
            f"{path} sees other observations: its first layer is {list(first.shape)}, pixelq's are four grey "
            "pictures of 84×84"
        )
    channels = (len(first), len(second), len(third))
    return NetworkConfig(channels=channels, hidden=len(hidden))


def _actions(game: str, count: int, path: Path) -> tuple[tuple[str, ...], bool]:
    """Meanings of a game's actions, given their number, and whether they are all 18."""
    counts: list[str] = []
    for full in (False, True):
        envs = make_envs(game, 1, 0, EnvConfig(full_action_space=full), 1)
        meanings = envs.action_meanings
        envs.close()
        if len(meanings) == count:
            return meanings, full and len(counts) > 0
        counts.append(str(len(meanings)))
    raise PixelqError(f"{path} has {count} actions, {game} has {' or '.join(dict.fromkeys(counts))}: give its --game")


def _read_sb3(path: Path) -> _Found:
    try:
        with zipfile.ZipFile(path) as archive:
            tensors = _tensors(_member(archive, "policy.pth", path), path)
            data: Any = json.loads(_member(archive, "data", path))
    except OSError as error:
        raise PixelqError(f"cannot read {path}: {error.strerror or error}") from error
    except zipfile.BadZipFile as error:
        raise PixelqError(f"{path} is damaged, or no zip of Stable-Baselines3") from error
    except (ValueError, RecursionError) as error:
        raise PixelqError(f"{path} is damaged: its data is no JSON") from error
    data = data if isinstance(data, dict) else {}
    kwargs = data.get("policy_kwargs")
    if isinstance(kwargs, dict) and kwargs.get("normalize_images") is False:
        raise PixelqError(f"{path} was trained with normalize_images=False: pixelq divides pixels by 255")
    gamma = data.get("gamma")
    gamma = float(gamma) if isinstance(gamma, int | float) and 0 <= gamma <= 1 else DQNConfig().gamma
    step, seed = (data.get(name) for name in ("num_timesteps", "seed"))
    return _Found(tensors, step if type(step) is int else 0, seed if type(seed) is int else 0, gamma)


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    if name not in archive.namelist():
        raise PixelqError(f"{path} is no zip of Stable-Baselines3: it holds no {name}")
    if archive.getinfo(name).file_size > _LARGEST:
        raise PixelqError(f"{path} cannot be used: its {name} is larger than {_LARGEST >> 20:,} MiB")
    return archive.read(name)


def _read_cleanrl(path: Path) -> _Found:
    try:
        if path.stat().st_size > _LARGEST:
            raise PixelqError(f"{path} cannot be used: it is larger than {_LARGEST >> 20:,} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise PixelqError(f"cannot read {path}: {error.strerror or error}") from error
    return _Found(_tensors(data, path), 0, 0, DQNConfig().gamma)


def _tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict; anything else in it is refused before it is built."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old files
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PixelqError(f"{path} is refused: it holds more than weights, or is no file of PyTorch") from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise PixelqError(f"{path} is damaged, or no file of PyTorch") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise PixelqError(f"{path} is no state dict: it holds more than named tensors")
    return {str(name): tensor for name, tensor in found.items()}
