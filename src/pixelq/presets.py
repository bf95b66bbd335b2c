"""Recipes by name: what each is, its paper, and its numbers. Their departures from it are listed in docs/algorithms."""

import dataclasses
from typing import Any, NamedTuple

from pixelq.config import (
    AlgoConfig,
    C51Config,
    DQNConfig,
    EnvConfig,
    ExplorationConfig,
    IQNConfig,
    MunchausenConfig,
    NetworkConfig,
    OptimiserConfig,
    PQNConfig,
    QRConfig,
    ReplayConfig,
    TrainConfig,
)
from pixelq.errors import PixelqError
from pixelq.games import did_you_mean

__all__ = ["DEFAULT_PRESET", "PRESETS", "Preset", "preset"]


class Preset(NamedTuple):
    """A recipe and its source."""

    summary: str
    source: str
    config: TrainConfig


DEFAULT_PRESET = "fast"

_KERAS_EXAMPLE = TrainConfig(
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
    total_steps=10_000_000,
    target_period_steps=1_000,
    env=EnvConfig(fire_after_life_loss=True, life_loss_terminal=True),
    algo=DQNConfig(loss="mse"),
    optimiser=OptimiserConfig(name="adam", learning_rate=1e-4, epsilon=1e-8),
    replay=ReplayConfig(capacity=1_000_000, learn_start=80_000),
    exploration=ExplorationConfig(end=0.01, decay_steps=1_000_000),
)

_PRIORITISED = dataclasses.replace(
    _NATURE_DQN.replay,
    sampling="prioritised",
    priority_exponent=0.6,
    importance_exponent_start=0.4,
    importance_exponent_end=1.0,
)
_TO_1_PERCENT = dataclasses.replace(_NATURE_DQN.exploration, end=0.01)
_BY_NOISE = ExplorationConfig(start=0.0, end=0.0, decay_steps=0, random_steps=50_000)  # noisy layers explore


def _adam(learning_rate: float, epsilon: float) -> OptimiserConfig:
    return OptimiserConfig(name="adam", learning_rate=learning_rate, epsilon=epsilon)


def _rmsprop(learning_rate: float, **fields: Any) -> OptimiserConfig:
    return dataclasses.replace(_NATURE_DQN.optimiser, learning_rate=learning_rate, **fields)


def _like_nature(algo: AlgoConfig, **fields: Any) -> TrainConfig:
    """nature-dqn with another algorithm, and with what else its paper changes."""
    return dataclasses.replace(_NATURE_DQN, algo=algo, **fields)


def _distributional(algo: AlgoConfig, learning_rate: float) -> TrainConfig:
    """Adam with ε 0.01/32 and exploration down to 1%, as the papers on distributions of returns have it."""
    return _like_nature(algo, optimiser=_adam(learning_rate, 0.01 / 32), exploration=_TO_1_PERCENT)


_DUELING_DQN = _like_nature(
    DQNConfig(double=True),
    network=NetworkConfig(dueling=True),
    optimiser=_rmsprop(6.25e-5, clip="global", clip_norm=10.0),
)

_NOISY_DQN = _like_nature(DQNConfig(), network=NetworkConfig(noisy=True), exploration=_BY_NOISE)

_RAINBOW = _like_nature(
    C51Config(double=True, n_step=3),
    target_period_steps=8_000,  # 32,000 frames
    network=NetworkConfig(dueling=True, noisy=True),
    optimiser=_adam(6.25e-5, 1.5e-4),
    replay=dataclasses.replace(_PRIORITISED, learn_start=20_000, priority_exponent=0.5),
    exploration=dataclasses.replace(_BY_NOISE, random_steps=20_000),
)

_BTR = TrainConfig(
    total_steps=50_000_000,
    envs=64,
    target_period_steps=32_000,  # 500 updates
    env=EnvConfig(sticky=0.25),
    network=NetworkConfig(
        torso="impala", channels=(16, 32, 32), width=2, spectral_norm=True, max_pool=6, dueling=True, noisy=True
    ),
    algo=IQNConfig(gamma=0.997, n_step=3, quantiles=8, target_quantiles=8, policy_quantiles=8, munchausen=True),
    optimiser=OptimiserConfig(name="adam", learning_rate=1e-4, epsilon=0.005 / 256, clip="global", clip_norm=10.0),
    replay=ReplayConfig(
        capacity=1_048_576,
        batch_size=256,
        train_period=64,
        learn_start=200_000,
        sampling="prioritised",
        priority_exponent=0.2,
        importance_exponent_start=0.2,
        importance_exponent_end=0.2,
    ),
    exploration=ExplorationConfig(
        shape="exponential", end=0.01, decay_steps=2_000_000, random_steps=200_000, off_after_step=25_000_000
    ),
)

_PQN = TrainConfig(
    total_steps=50_000_000,
    envs=128,
    env=EnvConfig(fire_after_life_loss=True, life_loss_terminal=True),
    network=NetworkConfig(norm="layer_per_pixel", init="he_normal"),
    algo=PQNConfig(trace_decay=0.65, rollout_steps=32, epochs=2, minibatches=32),
    optimiser=OptimiserConfig(name="radam", learning_rate=2.5e-4, epsilon=1e-8, clip="global", clip_norm=10.0),
    exploration=ExplorationConfig(end=0.001, decay_steps=5_000_000),
)

# narrow layers, since on a CPU the update is what takes the time; two steps and priorities, to need few of them;
# not three steps, with which Breakout is learned later;
# rectified Adam, since Adam's first steps, as long as its later ones, silence the network of Pong;
# no background, since an even grey turns all weights of a filter the same way, and then it never answers again
_FAST = TrainConfig(
    total_steps=700_000,
    envs=16,
    target_period_steps=4_000,
    env=EnvConfig(fire_after_life_loss=True, life_loss_terminal=True),
    network=NetworkConfig(channels=(16, 32, 32), hidden=256, init="centred_orthogonal", background="common"),
    algo=DQNConfig(n_step=2, double=True),
    optimiser=OptimiserConfig(
        name="radam",
        learning_rate=4.5e-4,
        learning_rate_end=4.5e-5,
        epsilon=1e-6,
        weight_decay=0.1,
        clip="global",
        clip_norm=10.0,
    ),
    replay=dataclasses.replace(_PRIORITISED, batch_size=64, train_period=8, learn_start=10_000, priority_exponent=0.5),
    exploration=ExplorationConfig(end=0.01, decay_steps=100_000, decay_from_step=10_000, random_steps=10_000),
)

_RECIPES = (
    (
        "fast",
        "two rewards, priorities and narrow layers: the soonest to play well on two CPU cores",
        "pixelq, chosen by runs: docs/results/fast.md",
        _FAST,
    ),
    (
        "keras-example",
        "Adam, Huber, replay of 100,000, solved at 40 a life",
        "Chapman & Lechner 2020, Keras example «Deep Q-Learning for Atari Breakout»",
        _KERAS_EXAMPLE,
    ),
    (
        "nature-dqn",
        "centred RMSProp, replay of 1,000,000",
        "Mnih et al. 2015, «Human-level control through deep reinforcement learning»",
        _NATURE_DQN,
    ),
    (
        "cleanrl-dqn",
        "Adam, squared error, target copied every 1,000 steps",
        "Huang et al. 2022, «CleanRL», dqn_atari.py",
        _CLEANRL_DQN,
    ),
    (
        "double-dqn",
        "nature-dqn, the online network choosing the next action",
        "van Hasselt et al. 2016, «Deep reinforcement learning with double Q-learning»",
        _like_nature(DQNConfig(double=True)),
    ),
    (
        "dueling-dqn",
        "double-dqn with separate layers for value and advantage",
        "Wang et al. 2016, «Dueling network architectures for deep reinforcement learning»",
        _DUELING_DQN,
    ),
    (
        "prioritized-dqn",
        "double-dqn, transitions drawn by their error",
        "Schaul et al. 2016, «Prioritized experience replay»",
        _like_nature(DQNConfig(double=True), replay=_PRIORITISED, optimiser=_rmsprop(2.5e-4 / 4)),
    ),
    (
        "n-step-dqn",
        "nature-dqn, three rewards before bootstrapping",
        "Sutton 1988, «Learning to predict by the methods of temporal differences»; n as Hessel et al. 2018",
        _like_nature(DQNConfig(n_step=3)),
    ),
    (
        "noisy-dqn",
        "nature-dqn, exploring by noise on the weights",
        "Fortunato et al. 2018, «Noisy networks for exploration»",
        _NOISY_DQN,
    ),
    (
        "c51",
        "the distribution of returns on 51 atoms",
        "Bellemare et al. 2017, «A distributional perspective on reinforcement learning»",
        _distributional(C51Config(), 2.5e-4),
    ),
    (
        "qr-dqn",
        "the distribution of returns as 200 quantiles",
        "Dabney et al. 2018, «Distributional reinforcement learning with quantile regression»",
        _distributional(QRConfig(), 5e-5),
    ),
    (
        "iqn",
        "the distribution of returns as a network of the quantile's fraction",
        "Dabney et al. 2018, «Implicit quantile networks for distributional reinforcement learning»",
        _distributional(IQNConfig(), 5e-5),
    ),
    (
        "munchausen-dqn",
        "soft Q-learning, the log-policy added to the reward",
        "Vieillard et al. 2020, «Munchausen reinforcement learning»",
        _distributional(MunchausenConfig(), 5e-5),
    ),
    (
        "rainbow",
        "c51, double, dueling, noisy, prioritised, three rewards",
        "Hessel et al. 2018, «Rainbow: combining improvements in deep reinforcement learning»",
        _RAINBOW,
    ),
    (
        "btr",
        "iqn, Munchausen, impala torso, dueling, noisy, prioritised, 64 games, batches of 256",
        "Clark et al. 2024, «Beyond The Rainbow: high performance deep reinforcement learning on a desktop PC»",
        _BTR,
    ),
    (
        "pqn",
        "Q(λ) on rollouts of 128 games, no replay, no target network",
        "Gallici et al. 2024, «Simplifying deep temporal difference learning»",
        _PQN,
    ),
)

PRESETS: dict[str, Preset] = {
    name: Preset(summary, source, dataclasses.replace(config, preset=name))
    for name, summary, source, config in _RECIPES
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
