"""Every setting of a run: frozen dataclasses; their fields are the command line's options. Imports no torch."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

from pixelq.config.algos import AlgoConfig, DQNConfig

__all__ = [
    "FRAME_SKIP",
    "EnvConfig",
    "ExplorationConfig",
    "NetworkConfig",
    "ObsShape",
    "OptimiserConfig",
    "ReplayConfig",
    "StopOn",
    "StoreName",
    "TrainConfig",
    "ViewConfig",
]

FRAME_SKIP = 4  # emulator frames an agent step on Atari; elsewhere `EnvSpec.frames_per_step` says
StoreName = Literal["auto", "lz4", "ram", "device"]
StopOn = Literal["none", "return_per_life", "return_per_game"]


class ObsShape(NamedTuple):
    """The shape of observations: the newest pictures of a game, one plane each if grey, three if in colour."""

    stack: int = 4
    """Pictures in an observation."""
    channels: int = 1
    """Planes a picture: 1 or 3."""
    height: int = 84
    width: int = 84

    @property
    def planes(self) -> int:
        """Planes in an observation."""
        return self.stack * self.channels

    @property
    def obs(self) -> tuple[int, int, int]:
        """Shape of an observation, [planes, H, W]; the newest picture's planes are the last."""
        return self.planes, self.height, self.width

    @property
    def picture(self) -> tuple[int, ...]:
        """Shape of one picture in the replay buffer: [H, W] in grey, [3, H, W] in colour."""
        return (self.height, self.width) if self.channels == 1 else (self.channels, self.height, self.width)

    @property
    def picture_bytes(self) -> int:
        """Bytes of one picture."""
        return self.channels * self.height * self.width

    def newest(self, obs: Any) -> Any:
        """The newest pictures [N, ...] of observations [N, planes, H, W]."""
        return obs[:, -1] if self.channels == 1 else obs[:, -self.channels :]


ATARI_SHAPE = ObsShape()
"""Four grey pictures of 84×84."""


@dataclass(frozen=True)
class ViewConfig:
    """The observations of a game. An agent plays with the settings that it learned with."""

    frame_skip: int = 0
    """Frames an action lasts. The picture is the brighter of the last two. 0: 4 on Atari, 1 elsewhere."""
    colour: bool = False
    """Three planes a picture (red, green, blue) instead of a grey one."""
    height: int = 84
    """Rows of a picture, at least 36."""
    width: int = 84
    """Columns of a picture, at least 36."""
    stack: int = 4
    """Newest pictures that the network sees at once."""
    crop: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Pixels cut off at the top, bottom, left and right, before the picture is resized; not on Atari."""
    observation: str = "auto"
    """The picture to learn from, not on Atari: `render`, or an entry of a dictionary observation. auto: the observation
    if it is a uint8 picture with both sides at least 36, else `render`."""

    @property
    def obs_shape(self) -> ObsShape:
        """Shape of the network's observations."""
        return ObsShape(self.stack, 3 if self.colour else 1, self.height, self.width)

    @property
    def view(self) -> "ViewConfig":
        """These settings alone."""
        return ViewConfig(**{one.name: getattr(self, one.name) for one in fields(ViewConfig)})


@dataclass(frozen=True)
class EnvConfig(ViewConfig):
    """How the games are played and what learning sees of them."""

    sticky: float | None = None
    """Probability that the emulator repeats the last action; None: as the game's id says (ROM names: 0)."""
    noop_max: int = 30
    """At most this many no-op frames at a game's start, drawn at random."""
    max_frames_per_game: int = 108_000
    """A game is truncated after this many emulator frames."""
    full_action_space: bool = False
    """All 18 actions instead of the game's minimal set."""
    fire_at_start: bool = True
    """Press FIRE at a game's start, if the game has it."""
    fire_after_life_loss: bool = False
    """Press FIRE after each lost life, if the game has it. The replay buffer stores the executed action."""
    life_loss_terminal: bool = False
    """A lost life ends the episode for learning. The game continues."""
    max_steps_per_life: int = 0
    """Close the return per life after this many steps; the game continues. 0: no cap."""
    rewards: Literal["sign", "scaled", "raw"] = "sign"
    """What learning sees: the reward's sign, the reward times `--env.reward-scale`, or the reward. Scores stay raw."""
    reward_scale: float = 0.01
    """Factor of `scaled` rewards."""
    max_steps: int = 0
    """Truncate a game after this many steps. 0: the environment's own limit. Not on Atari, which counts frames."""
    vector: Literal["auto", "processes", "one-thread"] = "auto"
    """Play each game in its own process, or all games in one thread. One thread is faster for fast games. auto: measure
    the first steps. Not on Atari, which has threads."""
    reseed_steps: int = 0
    """Seed a game's emulator again at the first new game after this many steps. A resume replays the steps since then.
    0: 5,000, on a GPU 20,000."""


@dataclass(frozen=True)
class NetworkConfig:
    """The Q-network: a torso over pixels, dense layers, and the head that the algorithm asks for."""

    torso: Literal["nature", "impala"] = "nature"
    """Three convolutions (Mnih et al. 2015), or three stages of residual blocks (Espeholt et al. 2018)."""
    channels: tuple[int, int, int] = (32, 64, 64)
    """Filters of the three convolutions, or of the three stages."""
    width: int = 1
    """Multiplies `channels`."""
    hidden: int = 512
    """Units of each dense layer."""
    dueling: bool = False
    """Separate dense layers for value and advantage (Wang et al. 2016)."""
    noisy: bool = False
    """Factorised noise on the weights of the dense layers (Fortunato et al. 2018)."""
    noisy_sigma: float = 0.5
    """σ₀: initial size of the noise; it is divided by √inputs."""
    norm: Literal["none", "dense", "layer", "layer_per_pixel"] = "none"
    """LayerNorm before the ReLU of the dense layer alone, its gains 1/√units at first; or, gains 1 at first, before
    each ReLU of the nature torso too: over all of a layer, or at each pixel over its channels."""
    spectral_norm: bool = False
    """Divide residual convolutions of the impala torso by their largest singular value."""
    max_pool: int = 0
    """Max-pool the impala torso's last planes to this many rows and columns. 0: no pooling."""
    init: Literal["torch", "glorot_uniform", "he_normal", "orthogonal", "centred_orthogonal"] = "torch"
    """Initial weights: PyTorch's default, Glorot uniform, He normal, or orthogonal (gain √2, last layer 1). All but
    PyTorch's have zero biases. Centred: filters of the first layer have mean zero, so an even background gives no
    answer."""
    background: Literal["none", "common"] = "none"
    """common: subtract the most common brightness of a game's first pictures from all pixels, of each colour by itself.
    An even background is then 0."""


@dataclass(frozen=True)
class OptimiserConfig:
    """How gradients become steps."""

    name: Literal["adam", "keras_adam", "radam", "centred_rmsprop"] = "adam"
    """Adam; Adam with ε added to the uncorrected root as Keras does; rectified Adam; centred RMSProp with ε inside the
    root."""
    learning_rate: float = 1e-4
    """Step size, at the start."""
    learning_rate_end: float | None = None
    """Step size at the last step; linear in between. None: constant."""
    epsilon: float = 1e-8
    """The optimiser's ε."""
    weight_decay: float = 0.0
    """λ: each update first multiplies weights and biases by 1 − step size · λ. Gradients and moments do not see it."""
    decay: float = 0.95
    """Decay of both moving averages of centred RMSProp."""
    clip: Literal["none", "per_variable", "global"] = "none"
    """What `--optimiser.clip-norm` bounds: nothing, each variable's gradient, or all gradients together."""
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
    """Transitions in the replay buffer before the first update."""
    store: StoreName = "auto"
    """Storage of frames: LZ4 blocks in host memory, raw in host memory (ram), or raw on the device. auto: on a GPU the
    device, if they take less than half of its free memory; else LZ4."""
    sampling: Literal["uniform", "prioritised"] = "uniform"
    """Draw transitions uniformly, or more often the larger their error was."""
    priority_exponent: float = 0.6
    """α: a priority is (|error| + ε)^α. 0: uniform."""
    priority_epsilon: float = 1e-6
    """ε of the priority: a transition without error can still be drawn."""
    importance_exponent_start: float = 0.4
    """β at the first step: how far importance weights correct unequal probabilities. 1: fully."""
    importance_exponent_end: float = 1.0
    """β at the last step, linear in between."""


@dataclass(frozen=True)
class ExplorationConfig:
    """Epsilon-greedy exploration."""

    shape: Literal["linear", "exponential"] = "linear"
    """How ε falls: linearly, or as exp(−t / decay_steps)."""
    start: float = 1.0
    """ε at the start."""
    end: float = 0.1
    """ε after the decay."""
    decay_steps: int = 1_000_000
    """Steps of the linear decay, or the exponential's time constant."""
    decay_from_step: int = 0
    """Step at which the decay begins."""
    random_steps: int = 0
    """All actions are random before this step, whatever ε says."""
    off_after_step: int = 0
    """ε is 0 from this step on. 0: never."""


@dataclass(frozen=True)
class TrainConfig:
    """A whole run. A step is an agent step, 4 frames on Atari."""

    preset: str = "custom"
    """Recipe that the settings started from. `pixelq train` takes it as its first word."""
    game: str = "breakout"
    """ROM name (see `pixelq games`), Gymnasium id, `module:Id-v0` (the module is imported first), or `module:function`,
    which returns a gymnasium.Env."""
    seed: int = 1
    """Seed of every random stream."""
    total_steps: int = 10_000_000
    """Steps to train for, over all games."""
    envs: int = 8
    """Games played at once."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the network lives."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Torso and dense layers in bfloat16 with float32 masters, or all in float32. auto: bfloat16 if it is faster."""
    cuda_graphs: bool = True
    """On a GPU: replay updates and acting as CUDA graphs, and sample on the GPU if the frames are there. Off: run
    operation by operation, and sample on the CPU."""
    compile: bool = True
    """On a GPU: fuse the update with torch.compile, if Triton and a C compiler are there; it takes some ten seconds at
    the start. On a CPU: use our C kernels for sampling, updates and acting where they exist. Off: use neither."""
    threads: int = 0
    """CPU threads of torch and of the emulator. 0: one a core."""
    log_every_steps: int = 2_000
    """Steps between two lines of metrics."""
    checkpoint_every_steps: int = 50_000
    """Steps between two checkpoints."""
    checkpoint_min_seconds: float = 30.0
    """Seconds between two checkpoints, at least. A GPU does many steps in a second."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept, at least two."""
    keep_going: bool = False
    """Train on when the disk is full, and try again at the next checkpoint. Otherwise stop."""
    notebook_log: bool = False
    """Print the Keras example's log line at each copy of the target network."""
    stop_on: StopOn = "none"
    """The running mean that ends the run as solved."""
    stop_at: float = 40.0
    """Solved once the running mean is above this."""
    window_episodes: int = 100
    """Lives or games in each running mean. A run counts as solved only when this many have finished."""
    video_every_episodes: int = 100
    """Number of episodes between recorded games: lives if `--stop-on` counts lives, else games. 0: no videos."""
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
