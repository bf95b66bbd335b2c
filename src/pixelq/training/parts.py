"""The parts of a run, made from its config: `resolve` decides everything `auto`, `make_parts` builds."""

import dataclasses
import os
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from pixelq.actor import Actor
from pixelq.config import TrainConfig, validate
from pixelq.device import resolve_device
from pixelq.envs import VectorEnvs, make_envs
from pixelq.envs.episodes import EpisodeTracker
from pixelq.envs.fire import fire_index
from pixelq.games import TEST_GAMES, resolve_game
from pixelq.learner import Learner, has_fast_bfloat16
from pixelq.replay import ReplayBuffer
from pixelq.replay.stores import choose_store
from pixelq.run.seeding import stream, stream_seed

__all__ = ["Parts", "make_parts", "resolve"]


@dataclass
class Parts:
    """Everything stateful of a run; `training.state` saves it and restores it."""

    config: TrainConfig
    device: torch.device
    envs: VectorEnvs
    tracker: EpisodeTracker
    learner: Learner
    actor: Actor
    buffer: ReplayBuffer
    step: int = 0
    """Steps done, over all games."""
    obs: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    """[N, 4, 84, 84], what the games last showed."""
    life_lost: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    """[N], games that lost a life at the last step and go on."""
    seconds: float = 0.0
    """Time spent training, over all processes of the run."""
    solved: bool = False

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.solved or self.step >= self.config.total_steps


def resolve(config: TrainConfig) -> TrainConfig:
    """Check a config and decide all that it leaves to the machine, so that a resumed run decides nothing anew.

    Raises:
        PixelqError: a setting out of range, an unknown game, a device that isn't there.
    """
    validate(config)
    game = resolve_game(config.game)
    device = resolve_device(config.device)
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
    sticky = game.sticky if config.env.sticky is None else config.env.sticky
    return dataclasses.replace(
        config,
        game=game.name,
        device=device.type,  # type: ignore[arg-type]
        precision=precision,
        threads=config.threads or _cores(),
        replay=dataclasses.replace(
            config.replay, store=choose_store(config.replay.store, config.replay.capacity, device)
        ),
        env=dataclasses.replace(config.env, sticky=None if game.name in TEST_GAMES else sticky),
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_parts(config: TrainConfig) -> Parts:
    """Build a run at step 0 from a resolved config.

    Raises:
        PixelqError: not enough memory for the replay.
    """
    torch.set_num_threads(config.threads)
    device = torch.device(config.device)
    buffer = ReplayBuffer(
        config.replay,
        config.envs,
        config.algo.gamma,
        config.algo.n_step,
        device,
        stream(config.seed, "replay"),
    )
    threads = min(config.threads, config.envs)
    envs = make_envs(config.game, config.envs, stream_seed(config.seed, "games") % 2**31, config.env, threads)
    num_actions = len(envs.action_meanings)
    weights = torch.Generator().manual_seed(stream_seed(config.seed, "weights"))
    learner = Learner(config, num_actions, device, weights)
    fire = fire_index(envs.action_meanings) if config.env.fire_after_life_loss else None
    actor = Actor(learner.online, device, num_actions, fire, stream(config.seed, "explore"))
    tracker = EpisodeTracker(
        config.envs, config.window_episodes, config.env.max_steps_per_life, config.env.clip_rewards
    )
    return Parts(config, device, envs, tracker, learner, actor, buffer)
