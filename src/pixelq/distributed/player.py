"""An actor's games and its network: on request it plays some steps and returns them in bytes. Imports no Ray."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelq.actor import Actor
from pixelq.config import TrainConfig
from pixelq.distributed.batches import Row, pack
from pixelq.engines import make_engine, quick_precision
from pixelq.envs import VectorEnvs, make_envs
from pixelq.envs.episodes import EpisodeTracker
from pixelq.envs.fire import fire_index
from pixelq.learner import Learner
from pixelq.run.seeding import stream, stream_seed

__all__ = ["Player", "Playing", "actor_epsilon", "make_player", "pack_weights"]

_EPSILON, _ALPHA = 0.4, 7.0


def actor_epsilon(number: int, actors: int) -> float:
    """Probability of a random action of an actor, as long as it plays: 0.4^(1 + 7 i / (N − 1)).

    Args:
        number: i, from 0.
        actors: N; a single one has 0.4.

    Source: Horgan et al. 2018, "Distributed prioritized experience replay", section 4.1.
    """
    return _EPSILON ** (1 + _ALPHA * number / (actors - 1)) if actors > 1 else _EPSILON


def pack_weights(weights: Mapping[str, Tensor]) -> bytes:
    """Weights for actors, in the precision that the learner computes with.

    Args:
        weights: by name.
    """
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})


class Playing(Protocol):
    """Chooses an actor's actions."""

    def act(self, obs: NDArray[np.uint8], life_lost: NDArray[np.bool_]) -> NDArray[np.int64]:
        """An action [E] for each game, by observations [E, planes, H, W]."""

    def load(self, weights: bytes) -> None:
        """Act by these weights from now on."""


class Player:
    """Plays E games without end, some steps at a time.

    Args:
        envs: the games, not started yet.
        playing: chooses the actions.
        most_rows: steps of a batch, at most.
        most_seconds: about the longest time of a batch: with slow games it has fewer steps.
        clock: seconds.
    """

    def __init__(
        self,
        envs: VectorEnvs,
        playing: Playing,
        most_rows: int = 32,
        most_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._envs, self._playing = envs, playing
        self._most_rows, self._most_seconds, self._clock = most_rows, most_seconds, clock
        self._tracker = EpisodeTracker(envs.num_envs)
        self._obs: NDArray[np.uint8] | None = None
        self._life_lost = np.zeros(envs.num_envs, np.bool_)

    def play(self, weights: bytes | None = None) -> bytes:
        """Play a batch. The first begins with a row that starts all games.

        Args:
            weights: to use from now on; None: the present ones.
        """
        if weights is not None:
            self._playing.load(weights)
        began = self._clock()
        rows = [] if self._obs is not None else [self._start()]
        while not rows or (len(rows) < self._most_rows and self._clock() - began < self._most_seconds):
            rows.append(self._step())
        return pack(rows)

    def close(self) -> None:
        """Stop the games."""
        self._envs.close()

    def _start(self) -> Row:
        result = self._envs.reset()
        self._tracker.reset(result)
        self._obs = result.obs
        no = np.zeros(self._envs.num_envs, np.bool_)
        pictures = self._envs.spec.obs.newest(result.obs)
        return Row(no.astype(np.uint8), no.astype(np.float32), no, no, ~no, result.lives, pictures)

    def _step(self) -> Row:
        assert self._obs is not None
        actions = self._playing.act(self._obs, self._life_lost)
        self._envs.send(actions)
        result = self._envs.recv()
        life_lost, _ = self._tracker.update(result)
        self._obs = result.obs
        self._life_lost = life_lost & ~result.terminated & ~result.truncated
        pictures = self._envs.spec.obs.newest(result.obs)
        flags = (result.terminated, result.truncated, result.reset)
        return Row(actions.astype(np.uint8), result.reward, *flags, result.lives, pictures)


class _NetworkPlaying:
    """With its own network on this processor, ε-greedily."""

    def __init__(self, learner: Learner, actor: Actor, epsilon: float) -> None:
        self._learner, self._actor, self._epsilon = learner, actor, epsilon

    def act(self, obs: NDArray[np.uint8], life_lost: NDArray[np.bool_]) -> NDArray[np.int64]:
        return self._actor.act(obs, self._epsilon, life_lost)

    def load(self, weights: bytes) -> None:
        loaded = safetensors.torch.load(weights)
        self._learner.load_weights({name: tensor.float() for name, tensor in loaded.items()})


def make_player(config: TrainConfig, number: int, actors: int, stream_name: str) -> Player:
    """An actor of a run.

    Args:
        config: the run's, resolved; `envs` counts this actor's games only.
        number: the actor's, from 0.
        actors: how many the run has.
        stream_name: of its random streams; a new name for each life, so that no games are played twice.

    Raises:
        PixelqError: this machine does not have the game.
    """
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    config = dataclasses.replace(
        config,
        device="cpu",
        threads=1,
        precision=quick_precision(dataclasses.replace(config, device="cpu"), cpu),
        env=dataclasses.replace(config.env, vector="one-thread"),
    )

    def seed(what: str) -> int:
        return stream_seed(config.seed, f"{what} of {stream_name}")

    envs = make_envs(config.game, config.envs, seed("games") % 2**31, config.env, 1)
    num_actions = len(envs.action_meanings)
    learner = Learner(config, num_actions, cpu, torch.Generator().manual_seed(seed("weights")))
    engine = make_engine(learner, torch.Generator().manual_seed(seed("noise")))
    fire = fire_index(envs.action_meanings) if config.env.fire_after_life_loss else None
    actor = Actor(engine.acting, num_actions, fire, stream(config.seed, f"explore of {stream_name}"))
    return Player(envs, _NetworkPlaying(learner, actor, actor_epsilon(number, actors)))
