"""Checks of a whole config: each setting alone, and against the others."""

import dataclasses
import math
import typing
from collections.abc import Callable
from typing import Any

from pixelq.config.algos import ALGO_KINDS, AlgoConfig, DQNConfig, IQNConfig, PQNConfig
from pixelq.config.settings import FRAME_SKIP, EnvConfig, NetworkConfig, TrainConfig, ViewConfig
from pixelq.errors import ConfigError

__all__ = [
    "SMALLEST_SIDE",
    "check_shares",
    "option",
    "validate",
    "validate_agent",
    "validate_view",
    "with_actors",
]


class _Bound(typing.NamedTuple):
    path: str
    ok: Callable[[Any], bool]
    wanted: str


SMALLEST_SIDE = 36  # of a picture: the three Nature convolutions reduce it to one pixel
_MOST_GAMES = 4096
_MOST = 10**15  # largest of any count: libraries' integers overflow beyond it


def _at_least(path: str, low: float) -> _Bound:
    return _Bound(path, lambda value: value >= low, f"at least {low:,}")


def _between(path: str, low: int, high: int) -> _Bound:
    return _Bound(path, lambda value: low <= value <= high, f"between {low:,} and {high:,}")


def _finite(path: str) -> _Bound:
    return _Bound(path, lambda value: True, "a finite number")


def _above(path: str, low: float) -> _Bound:
    return _Bound(path, lambda value: value > low, f"above {low:g}")


def _share(path: str) -> _Bound:
    return _Bound(path, lambda value: value is None or 0 <= value <= 1, "between 0 and 1")


_BOUNDS = (
    _Bound("seed", lambda value: 0 <= value < 2**31, "between 0 and 2147483647"),
    _at_least("total_steps", 1),
    _between("envs", 1, _MOST_GAMES),
    _Bound("threads", lambda value: 0 <= value <= 1024, "between 0 (one a core) and 1,024"),
    _at_least("log_every_steps", 1),
    _at_least("checkpoint_every_steps", 1),
    _at_least("keep_checkpoints", 2),
    _finite("stop_at"),
    _between("window_episodes", 1, 1_000_000),
    _at_least("video_every_episodes", 0),
    _at_least("checkpoint_min_seconds", 0),
    _at_least("video_min_seconds", 0),
    _at_least("keep_videos", 1),
    _at_least("target_period_steps", 1),
    _between("env.frame_skip", 0, 60),
    _between("env.height", SMALLEST_SIDE, 512),
    _between("env.width", SMALLEST_SIDE, 512),
    _between("env.stack", 1, 16),
    _Bound("env.crop", lambda value: len(value) == 4 and min(value) >= 0, "four counts of at least 0"),
    _share("env.sticky"),
    _between("env.noop_max", 0, 10_000),
    _between("env.max_frames_per_game", FRAME_SKIP, 10**9),
    _at_least("env.max_steps_per_life", 0),
    _at_least("env.max_steps", 0),
    _above("env.reward_scale", 0),
    _between("env.reseed_steps", 0, 1_000_000),
    _Bound(
        "network.channels",
        lambda value: len(value) == 3 and min(value) >= 1 and max(value) <= 1024,
        "three counts between 1 and 1,024",
    ),
    _between("network.width", 1, 16),
    _between("network.hidden", 1, 16_384),
    _between("network.noisy_sigma", 0, 10),
    _between("network.max_pool", 0, 11),
    _share("algo.gamma"),
    _between("algo.n_step", 1, 100),
    _finite("algo.terminal_target"),
    _between("algo.atoms", 2, 1_001),
    _finite("algo.v_min"),
    _finite("algo.v_max"),
    _between("algo.quantiles", 1, 1_000),
    _between("algo.target_quantiles", 1, 1_000),
    _between("algo.policy_quantiles", 1, 1_000),
    _between("algo.cosines", 1, 1_000),
    _at_least("algo.kappa", 0),
    _share("algo.munchausen_alpha"),
    _above("algo.munchausen_temperature", 0),
    _Bound("algo.munchausen_clip", lambda value: value <= 0, "at most 0"),
    _share("algo.trace_decay"),
    _between("algo.rollout_steps", 1, 100_000),
    _between("algo.epochs", 1, 1_000),
    _between("algo.minibatches", 1, 100_000),
    _above("optimiser.learning_rate", 0),
    _Bound("optimiser.learning_rate_end", lambda value: value is None or value >= 0, "at least 0"),
    _above("optimiser.epsilon", 0),
    _between("optimiser.weight_decay", 0, 1_000),
    _Bound("optimiser.decay", lambda value: 0 <= value < 1, "at least 0 and below 1"),
    _above("optimiser.clip_norm", 0),
    _at_least("replay.capacity", 1),
    _between("replay.batch_size", 1, 65_536),
    _at_least("replay.train_period", 1),
    _at_least("replay.learn_start", 1),
    _share("replay.priority_exponent"),
    _above("replay.priority_epsilon", 0),
    _share("replay.importance_exponent_start"),
    _share("replay.importance_exponent_end"),
    _share("exploration.start"),
    _share("exploration.end"),
    _at_least("exploration.decay_steps", 0),
    _at_least("exploration.decay_from_step", 0),
    _at_least("exploration.random_steps", 0),
    _at_least("exploration.off_after_step", 0),
)


def option(path: str) -> str:
    """The command-line option of a field: `env.noop_max` is `--env.noop-max`."""
    return "--" + path.replace("_", "-")


def validate(config: TrainConfig) -> None:
    """Check every setting alone and against the others.

    Raises:
        ConfigError: names the first wrong setting and a correct value.
    """
    _check_bounds(config)
    if config.exploration.end > config.exploration.start:
        raise ConfigError(
            f"--exploration.end is {config.exploration.end}: "
            f"must not be above --exploration.start ({config.exploration.start})"
        )
    if config.optimiser.weight_decay * config.optimiser.learning_rate >= 1:
        raise ConfigError(
            f"--optimiser.weight-decay is {config.optimiser.weight_decay}: must be below 1 / --optimiser.learning-rate "
            f"({1 / config.optimiser.learning_rate:g})"
        )
    _check_network(config)
    _check_algo(config)
    if isinstance(config.algo, PQNConfig):
        _check_rollouts(config, config.algo)
    else:
        _check_replay(config, config.algo.n_step)


def validate_agent(network: NetworkConfig, algo: AlgoConfig, view: ViewConfig | None = None) -> None:
    """Check the settings that build an agent's network.

    Raises:
        ConfigError: names the first wrong setting and a correct value.
    """
    env = EnvConfig(**vars(view)) if view is not None else EnvConfig()
    config = TrainConfig(network=network, algo=algo, env=env)
    _check_bounds(config)
    _check_network(config)
    _check_algo(config)


def validate_view(env: EnvConfig, kind: str) -> None:
    """Check that a game supports the settings of its observations.

    Args:
        env: how it is played.
        kind: the kind of game, a `pixelq.games.GameKind`.

    Raises:
        ConfigError: the first setting that it does not have.
    """
    if kind not in ("atari", "test"):
        return
    fixed = ["crop", "observation", "max_steps", "vector"]
    if kind == "test":
        fixed += ["frame_skip", "colour", "height", "width", "stack"]
    for name in fixed:
        if getattr(env, name) != getattr(EnvConfig(), name):
            who = "Atari games have" if kind == "atari" else "catch has"
            raise ConfigError(f"{option('env.' + name)}: {who} no such choice; leave it out")


def with_actors(config: TrainConfig, actors: int, make_env: bool = False) -> TrainConfig:
    """A run that actors in other processes play: `envs` of the config are each actor's, of the result all of them.

    Args:
        config: its settings.
        actors: how many.
        make_env: whether its game comes from a function of this process.

    Raises:
        ConfigError: actors cannot play this run.
    """
    _check_actors(config, actors, make_env)
    games = config.envs * actors
    if games > _MOST_GAMES:
        raise ConfigError(
            f"--actors is {actors} with --envs {config.envs}: {games:,} games, at most {_MOST_GAMES:,} together"
        )
    return dataclasses.replace(config, envs=games)


def check_shares(config: TrainConfig, actors: int, make_env: bool = False) -> None:
    """Check that a run's games can be shared out among actors from now on.

    Args:
        config: the run's.
        actors: how many.
        make_env: as for `with_actors`.

    Raises:
        ConfigError: they cannot.
    """
    _check_actors(config, actors, make_env)
    if config.envs % actors:
        fitting = [number for number in range(1, config.envs + 1) if config.envs % number == 0]
        raise ConfigError(
            f"--actors is {actors}: this run has {config.envs} games, which {actors} actors cannot share evenly; "
            f"{', '.join(map(str, fitting))} can"
        )


def _check_actors(config: TrainConfig, actors: int, make_env: bool) -> None:
    if actors < 1:
        raise ConfigError(f"--actors is {actors}: must be at least 1")
    if isinstance(config.algo, PQNConfig):
        raise ConfigError(
            "--actors does not go with pqn, which learns from fresh rollouts: use an algorithm with a replay buffer"
        )
    if make_env:
        raise ConfigError("actors cannot have make_env, a function of this process: name the game as module:function")


def _check_bounds(config: TrainConfig) -> None:
    for path, ok, wanted in _BOUNDS:
        group, _, name = path.rpartition(".")
        holder = getattr(config, group) if group else config
        if not hasattr(holder, name):  # another algorithm's
            continue
        value = getattr(holder, name)
        if (isinstance(value, float) and not math.isfinite(value)) or not ok(value):
            raise ConfigError(f"{option(path)} is {value}: must be {wanted}")
        if isinstance(value, int) and value > _MOST:
            raise ConfigError(f"{option(path)} is {value}: must be at most {_MOST:,}")


def _check_network(config: TrainConfig) -> None:
    network = config.network
    if network.torso == "impala" and network.norm != "none":
        raise ConfigError(f"--network.norm {network.norm} does not go with --network.torso impala, which has no norm")
    if network.torso != "impala" and network.spectral_norm:
        raise ConfigError("--network.spectral-norm needs --network.torso impala: it is put on residual convolutions")
    if network.torso != "impala" and network.max_pool:
        raise ConfigError("--network.max-pool needs --network.torso impala")
    if network.norm != "none" and network.noisy:
        raise ConfigError("--network.norm does not go with --network.noisy: noisy layers are not normalised")


def _check_algo(config: TrainConfig) -> None:
    algo = config.algo
    _check_class(algo)
    if isinstance(algo, DQNConfig) and algo.terminal_target is not None and algo.gamma**algo.n_step == 0:
        raise ConfigError("--algo.gamma is 0 with an --algo.terminal-target: every step would count as terminal")
    if isinstance(algo, IQNConfig) and algo.munchausen and algo.double:
        raise ConfigError(
            "--algo.double does not go with --algo.munchausen: its target is a mean over the policy, not one action's"
        )
    v_min, v_max = getattr(algo, "v_min", None), getattr(algo, "v_max", None)
    if v_min is not None and v_max is not None and v_min >= v_max:
        raise ConfigError(f"--algo.v-min is {v_min}: must be below --algo.v-max ({v_max})")


def _check_class(algo: object) -> None:
    """A user's own class must have a name in files, and the fields that the replay buffer needs."""
    name = type(algo).__name__
    if type(algo) not in ALGO_KINDS.values():
        raise ConfigError(f"{name} is not in pixelq.config.ALGO_KINDS: add it there under a name")
    missing = [field for field in ("gamma", "n_step") if not hasattr(algo, field)]
    if missing and not isinstance(algo, PQNConfig):
        raise ConfigError(f"{name} has no {missing[0]}: an algorithm that learns from a replay buffer needs it")


def _check_rollouts(config: TrainConfig, algo: PQNConfig) -> None:
    """A rollout must give every update a minibatch; settings of a replay buffer or a target network are refused."""
    steps = algo.rollout_steps * config.envs
    if algo.minibatches > steps:
        raise ConfigError(f"--algo.minibatches is {algo.minibatches}: a rollout has {steps} steps, at most that many")
    missing, default = "which learns from fresh rollouts: leave it out", TrainConfig()
    for name, value in vars(config.replay).items():
        if value != getattr(default.replay, name):
            raise ConfigError(f"{option('replay.' + name)} does not go with pqn, {missing}")
    if config.target_period_steps != default.target_period_steps:
        raise ConfigError("--target-period-steps does not go with pqn, which has no target network: leave it out")


def _check_replay(config: TrainConfig, n_step: int) -> None:
    replay = config.replay
    if replay.capacity < replay.batch_size:
        raise ConfigError(f"--replay.capacity is {replay.capacity}: must hold a batch, at least {replay.batch_size}")
    if replay.learn_start > replay.capacity:
        raise ConfigError(
            f"--replay.learn-start is {replay.learn_start}: must not be above --replay.capacity ({replay.capacity})"
        )
    if replay.capacity < config.envs * (n_step + 1):
        raise ConfigError(
            f"--replay.capacity is {replay.capacity}: too small for {config.envs} games, "
            f"at least {config.envs * (n_step + 1)}"
        )
