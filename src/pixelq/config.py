"""Every setting of a run: frozen dataclasses whose fields are the command line's options. Imports no torch."""

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pixelq.errors import ConfigError

__all__ = [
    "FRAME_SKIP",
    "AlgoConfig",
    "DQNConfig",
    "EnvConfig",
    "ExplorationConfig",
    "NetworkConfig",
    "OptimiserConfig",
    "ReplayConfig",
    "StoreName",
    "TrainConfig",
    "from_json",
    "option",
    "to_json",
    "validate",
]

FRAME_SKIP = 4  # emulator frames per agent step, in all of pixelq
StoreName = Literal["auto", "lz4", "ram", "device"]


@dataclass(frozen=True)
class EnvConfig:
    """How the games are played and what learning sees of them."""

    sticky: float | None = None
    """Probability that the emulator repeats the last action; None: what the game's id says (ROM names: 0)."""
    noop_max: int = 30
    """At most this many no-op frames at a game's start, drawn at random."""
    max_frames_per_game: int = 108_000
    """A game is truncated after this many emulator frames."""
    full_action_space: bool = False
    """All 18 actions instead of the game's minimal set."""
    fire_at_start: bool = True
    """Press FIRE at a game's start, in games that have it."""
    fire_after_life_loss: bool = False
    """The actor presses FIRE after every lost life, in games that have it; the executed action is what is stored."""
    life_loss_terminal: bool = False
    """A lost life ends the episode, for learning only; the game goes on."""
    max_steps_per_life: int = 0
    """Close the return per life after this many steps, the game going on; 0: no cap."""
    clip_rewards: bool = True
    """Learn from the sign of the reward; scores stay raw."""


@dataclass(frozen=True)
class NetworkConfig:
    """The Q-network: three convolutions, a dense layer, a linear head."""

    channels: tuple[int, int, int] = (32, 64, 64)
    """Filters of the three convolutions."""
    hidden: int = 512
    """Units of the dense layer."""
    init: Literal["torch", "glorot_uniform"] = "torch"
    """Initial weights: PyTorch's default, or Glorot uniform with zero biases as Keras has it."""


@dataclass(frozen=True)
class DQNConfig:
    """Deep Q-learning (Mnih et al. 2015)."""

    gamma: float = 0.99
    """Discount a step."""
    n_step: int = 1
    """Rewards summed before bootstrapping."""
    loss: Literal["huber", "mse"] = "huber"
    """Huber with threshold 1 or squared error."""
    terminal_target: float | None = None
    """Quirk of the Keras example: the target at an episode's end, in place of the reward."""


AlgoConfig = DQNConfig  # becomes a union as algorithms are added


@dataclass(frozen=True)
class OptimiserConfig:
    """How gradients become steps."""

    name: Literal["adam", "keras_adam", "centred_rmsprop"] = "adam"
    """Adam; Adam with ε added to the uncorrected root as Keras does; centred RMSProp with ε inside the root."""
    learning_rate: float = 1e-4
    """Step size."""
    epsilon: float = 1e-8
    """The optimiser's ε."""
    decay: float = 0.95
    """Decay of both moving averages of the centred RMSProp."""
    clip: Literal["none", "per_variable", "global"] = "none"
    """What `clip_norm` bounds: nothing, each variable's gradient, or all gradients together."""
    clip_norm: float = 1.0
    """Largest Euclidean norm of a gradient."""


@dataclass(frozen=True)
class ReplayConfig:
    """Experience replay."""

    capacity: int = 1_000_000
    """Transitions held, over all games."""
    batch_size: int = 32
    """Transitions an update."""
    train_period: int = 4
    """Steps an update."""
    learn_start: int = 50_000
    """Transitions that must be there before the first update."""
    store: StoreName = "auto"
    """Where frames are kept: LZ4 blocks in host memory, raw in host memory, raw in the device's own memory; auto: the
    last on a GPU if they take less than half of its free memory, else LZ4."""
    sampling: Literal["uniform", "prioritised"] = "uniform"
    """Draw transitions all alike, or the more often, the larger their error was."""
    priority_exponent: float = 0.6
    """α: a priority is (|error| + ε)^α; 0 draws all alike."""
    priority_epsilon: float = 1e-6
    """ε, which keeps transitions without error from never being drawn again."""
    importance_exponent_start: float = 0.4
    """β at the first step: how far importance weights make up for unequal probabilities; 1: wholly."""
    importance_exponent_end: float = 1.0
    """β at the last step, linear in between."""


@dataclass(frozen=True)
class ExplorationConfig:
    """Epsilon-greedy exploration, linear in the step."""

    start: float = 1.0
    """ε at the start."""
    end: float = 0.1
    """ε after the decay."""
    decay_steps: int = 1_000_000
    """Length of the slope in steps."""
    decay_from_step: int = 0
    """Step at which the slope begins."""
    random_steps: int = 0
    """All actions are random before this step, whatever ε says."""


@dataclass(frozen=True)
class TrainConfig:
    """A whole run. A step is an agent step, 4 emulator frames."""

    preset: str = "custom"
    """Name of the recipe the settings started from; `pixelq train` takes it as its first word."""
    game: str = "breakout"
    """ROM name or Gymnasium id; see `pixelq games`."""
    seed: int = 1
    """Seed of every random stream."""
    total_steps: int = 10_000_000
    """Steps to train for, over all games."""
    envs: int = 8
    """Games played at once."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network lives."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Torso and dense layer in bfloat16 with float32 masters, or all in float32; auto: bfloat16 where it is fast."""
    threads: int = 0
    """CPU threads of torch and of the emulator; 0: one a core."""
    log_every_steps: int = 2_000
    """Steps between two lines of metrics."""
    checkpoint_every_steps: int = 50_000
    """Steps between two checkpoints."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept, at least two."""
    keep_going: bool = False
    """Train on when the disk takes no more, and try again at the next checkpoint; else stop."""
    notebook_log: bool = False
    """Print the Keras example's own line whenever the target network is copied."""
    stop_on: Literal["none", "return_per_life", "return_per_game"] = "none"
    """The running mean that ends the run as solved."""
    stop_at: float = 40.0
    """Solved once the running mean is above this."""
    window_episodes: int = 100
    """Finished lives or games in each running mean; it must be full before a run counts as solved."""
    video_every_episodes: int = 100
    """Record a game every so many episodes (lives if `stop_on` counts lives, else games); 0: no videos."""
    video_min_seconds: float = 60.0
    """Least time between two videos."""
    keep_videos: int = 20
    """Newest videos kept."""
    target_period_steps: int = 10_000
    """Steps between two copies of the online network to the target network."""
    env: EnvConfig = field(default_factory=EnvConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    algo: AlgoConfig = field(default_factory=DQNConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)

    @property
    def episode_unit(self) -> Literal["life", "game"]:
        """What «episode» counts in this run's messages and videos."""
        return "life" if self.stop_on == "return_per_life" else "game"


class _Bound(typing.NamedTuple):
    path: str
    ok: Callable[[Any], bool]
    wanted: str


_MOST = 10**15  # of anything: beyond it libraries' integers overflow


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
    _between("envs", 1, 4096),
    _Bound("threads", lambda value: 0 <= value <= 1024, "between 0 (one a core) and 1,024"),
    _at_least("log_every_steps", 1),
    _at_least("checkpoint_every_steps", 1),
    _at_least("keep_checkpoints", 2),
    _finite("stop_at"),
    _between("window_episodes", 1, 1_000_000),
    _at_least("video_every_episodes", 0),
    _at_least("video_min_seconds", 0),
    _at_least("keep_videos", 1),
    _at_least("target_period_steps", 1),
    _share("env.sticky"),
    _between("env.noop_max", 0, 10_000),
    _between("env.max_frames_per_game", FRAME_SKIP, 10**9),
    _at_least("env.max_steps_per_life", 0),
    _Bound(
        "network.channels",
        lambda value: len(value) == 3 and min(value) >= 1 and max(value) <= 1024,
        "three counts between 1 and 1,024",
    ),
    _between("network.hidden", 1, 16_384),
    _share("algo.gamma"),
    _between("algo.n_step", 1, 100),
    _finite("algo.terminal_target"),
    _above("optimiser.learning_rate", 0),
    _above("optimiser.epsilon", 0),
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
)


def option(path: str) -> str:
    """The command-line option of a field: `env.noop_max` is `--env.noop-max`."""
    return "--" + path.replace("_", "-")


def _value(config: TrainConfig, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def validate(config: TrainConfig) -> None:
    """Check every setting by itself and against the others.

    Raises:
        ConfigError: the first that is wrong, with what would be right.
    """
    for path, ok, wanted in _BOUNDS:
        value = _value(config, path)
        if (isinstance(value, float) and not math.isfinite(value)) or not ok(value):
            raise ConfigError(f"{option(path)} is {value}: must be {wanted}")
        if isinstance(value, int) and value > _MOST:
            raise ConfigError(f"{option(path)} is {value}: must be at most {_MOST:,}")
    replay, exploration = config.replay, config.exploration
    if config.algo.terminal_target is not None and config.algo.gamma**config.algo.n_step == 0:
        raise ConfigError("--algo.gamma is 0 with an --algo.terminal-target: every step would count as terminal")
    if exploration.end > exploration.start:
        raise ConfigError(
            f"--exploration.end is {exploration.end}: must not be above --exploration.start ({exploration.start})"
        )
    if replay.capacity < replay.batch_size:
        raise ConfigError(f"--replay.capacity is {replay.capacity}: must hold a batch, at least {replay.batch_size}")
    if replay.learn_start > replay.capacity:
        raise ConfigError(
            f"--replay.learn-start is {replay.learn_start}: must not be above --replay.capacity ({replay.capacity})"
        )
    if replay.capacity < config.envs * (config.algo.n_step + 1):
        raise ConfigError(
            f"--replay.capacity is {replay.capacity}: too small for {config.envs} games, "
            f"at least {config.envs * (config.algo.n_step + 1)}"
        )


def to_json(config: Any) -> dict[str, Any]:
    """A config as plain JSON values, nested like the dataclasses."""
    return dataclasses.asdict(config)


def from_json(kind: type, values: dict[str, Any], path: str = "") -> Any:
    """The inverse of `to_json`.

    Args:
        kind: the dataclass to build.
        values: what `to_json` gave; a field that is missing takes its default.
        path: where `values` stands, for the error's text.

    Raises:
        ConfigError: a name that `kind` does not have or a value of another type.
    """
    if not isinstance(values, dict):
        raise ConfigError(f'"{path}" must be an object' if path else "the settings must be an object")
    hints = typing.get_type_hints(kind)
    built: dict[str, Any] = {}
    for name, value in values.items():
        where = f"{path}.{name}" if path else name
        if name not in hints:
            raise ConfigError(f'unknown setting "{where}"')
        built[name] = _typed(hints[name], value, where)
    return kind(**built)


def _typed(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast("type", hint), value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        ok = value in args
    elif origin is tuple:
        ok = isinstance(value, list | tuple) and len(value) == len(args)
        value = tuple(value) if ok else value
        ok = ok and all(type(item) is kind for item, kind in zip(value, args, strict=True))
    elif origin in (types.UnionType, typing.Union):
        return None if value is None else _typed(next(kind for kind in args if kind is not type(None)), value, where)
    elif hint is float:
        ok = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        ok = type(value) is hint
    if not ok:
        raise ConfigError(f'"{where}" is {value!r}: must be {_in_words(hint)}')
    return value


def _in_words(hint: Any) -> str:
    """What a JSON value of a type is."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, args))
    if typing.get_origin(hint) is tuple:
        return f"{len(args)} whole numbers"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[hint]
