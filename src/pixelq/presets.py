"""Recipes by name: what each is, its paper, and its numbers. Departures are listed in docs/presets.md."""

from typing import NamedTuple

from pixelq.config import (
    DQNConfig,
    EnvConfig,
    ExplorationConfig,
    NetworkConfig,
    OptimiserConfig,
    ReplayConfig,
    TrainConfig,
)
from pixelq.errors import PixelqError
from pixelq.games import did_you_mean

__all__ = ["DEFAULT_PRESET", "PRESETS", "Preset", "preset"]


class Preset(NamedTuple):
    """A recipe and where it comes from."""

    summary: str
    source: str
    config: TrainConfig


DEFAULT_PRESET = "keras-example"

_KERAS_EXAMPLE = TrainConfig(
    preset="keras-example",
    total_steps=10_000_000,
    notebook_log=True,
    stop_on="return_per_life",
    stop_at=40.0,
    target_period_steps=10_000,
    env=EnvConfig(fire_after_life_loss=True, life_loss_terminal=True, max_steps_per_life=10_000),
    network=NetworkConfig(init="glorot_uniform"),
    algo=DQNConfig(loss="huber", terminal_target=-1.0),
    optimiser=OptimiserConfig(
        name="keras_adam", learning_rate=2.5e-4, epsilon=1e-7, clip="per_variable", clip_norm=1.0
    ),
    replay=ReplayConfig(capacity=100_000, learn_start=33),
    exploration=ExplorationConfig(end=0.1, decay_steps=1_000_000, random_steps=50_000),
)

_NATURE_DQN = TrainConfig(
    preset="nature-dqn",
    total_steps=50_000_000,
    target_period_steps=40_000,  # 10,000 updates
    env=EnvConfig(life_loss_terminal=True),
    algo=DQNConfig(loss="huber"),
    # ε is 0.01 on gradients summed over the batch of 32; ours are averaged
    optimiser=OptimiserConfig(name="centred_rmsprop", learning_rate=2.5e-4, epsilon=0.01 / 32**2, decay=0.95),
    replay=ReplayConfig(capacity=1_000_000, learn_start=50_000),
    exploration=ExplorationConfig(end=0.1, decay_steps=1_000_000, decay_from_step=50_000, random_steps=50_000),
)

_CLEANRL_DQN = TrainConfig(
    preset="cleanrl-dqn",
    total_steps=10_000_000,
    target_period_steps=1_000,
    env=EnvConfig(fire_after_life_loss=True, life_loss_terminal=True),
    algo=DQNConfig(loss="mse"),
    optimiser=OptimiserConfig(name="adam", learning_rate=1e-4, epsilon=1e-8),
    replay=ReplayConfig(capacity=1_000_000, learn_start=80_000),
    exploration=ExplorationConfig(end=0.01, decay_steps=1_000_000),
)

PRESETS: dict[str, Preset] = {
    "keras-example": Preset(
        "Adam, Huber, replay of 100,000, solved at 40 a life",
        "Chapman & Lechner 2020, Keras example «Deep Q-Learning for Atari Breakout»",
        _KERAS_EXAMPLE,
    ),
    "nature-dqn": Preset(
        "centred RMSProp, replay of 1,000,000",
        "Mnih et al. 2015, «Human-level control through deep reinforcement learning»",
        _NATURE_DQN,
    ),
    "cleanrl-dqn": Preset(
        "Adam, squared error, target copied every 1,000 steps",
        "Huang et al. 2022, «CleanRL», dqn_atari.py",
        _CLEANRL_DQN,
    ),
}


def preset(name: str) -> TrainConfig:
    """The config of a recipe.

    Args:
        name: one of `PRESETS`.

    Raises:
        PixelqError: unknown; the line suggests the nearest.
    """
    if name not in PRESETS:
        raise PixelqError(f'unknown preset "{name}"{did_you_mean(name, tuple(PRESETS))}; see: pixelq presets')
    return PRESETS[name].config
