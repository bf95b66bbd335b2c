"""The parts of a run, made from its config: `resolve` decides everything `auto`, `make_parts` builds."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pixelq.actor import Actor, epsilon_at
from pixelq.algos import algo_of
from pixelq.config import PQNConfig, TrainConfig, validate, validate_view
from pixelq.device import generator_on, resolve_device
from pixelq.engines import Engine, make_engine, quick_precision, samples_on_device
from pixelq.envs import RESEED_STEPS, VectorEnvs, make_envs
from pixelq.envs.episodes import EpisodeTracker
from pixelq.envs.fire import fire_index
from pixelq.games import TEST_GAMES, resolve_game
from pixelq.learner import Learner
from pixelq.replay import ReplayBuffer
from pixelq.replay.stores import choose_store
from pixelq.rollouts import Rollouts
from pixelq.run.seeding import stream, stream_seed
from pixelq.system import cores

if TYPE_CHECKING:
    import gymnasium

__all__ = ["ActorGames", "Actors", "MakeEnv", "Parts", "begin", "make_parts", "resolve"]

MakeEnv = Callable[[], "gymnasium.Env[Any, Any]"]
# settings for Atari only: no-ops and FIRE at a game's start, sticky actions, the set of actions
_NOT_ATARI: dict[str, Any] = {
    **{"sticky": None, "noop_max": 0, "full_action_space": False},
    **{"fire_at_start": False, "fire_after_life_loss": False},
}


class ActorGames(VectorEnvs, Protocol):
    """Games that actors in other processes play, by actions that they choose themselves."""

    epsilon: float
    """Mean probability of a random action."""
    absent: int
    """Number of games without an actor: the newest step has no data for them, and they start there."""
    greediest: NDArray[np.bool_]
    """[N] games of the actor that explores least."""

    def follow(self, learner: Learner, asked: Callable[[], bool], say: Callable[[str], None]) -> None:
        """Who learns, before games are started.

        Args:
            learner: gives the weights.
            asked: returns whether the run must stop, which ends all waiting.
            say: shows the user one line.
        """

    def chosen(self) -> NDArray[np.int64]:
        """The actions [N] of the step that `recv` gives next."""

    def describe(self) -> str:
        """Who plays, in words."""

    def summary(self) -> str:
        """The batches received and lost since the start, in words."""


class Actors(Protocol):
    """Other processes that play a run's games, each with its own network."""

    @property
    def number(self) -> int:
        """How many."""

    def games(self, config: TrainConfig, step: int) -> ActorGames:
        """The games of a run, not started yet.

        Args:
            config: the run's, resolved; its games are shared out evenly.
            step: the step where the run begins or continues, so that no games are played twice.

        Raises:
            PixelqError: the actors cannot be reached.
        """


@dataclass
class Parts:
    """Everything stateful of a run; `training.state` saves it and restores it."""

    config: TrainConfig
    device: torch.device
    envs: VectorEnvs
    tracker: EpisodeTracker
    learner: Learner
    """What is learned."""
    engine: Engine
    """How."""
    actor: Actor
    memory: ReplayBuffer | Rollouts
    """What batches are drawn from."""
    actors: ActorGames | None = None
    """`envs`, if actors elsewhere play them."""
    step: int = 0
    """Steps done, over all games."""
    newest_steps: int = 0
    """How many of them were done last, by all games at once."""
    obs: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    """[N, 4, 84, 84], the games' newest observations."""
    life_lost: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    """[N], games that lost a life at the last step and continue."""
    seconds: float = 0.0
    """Time spent training, over all processes of the run."""
    solved: bool = False
    put_off: Callable[[], None] | None = None
    """Stores the last step in the replay buffer; None: it is stored."""

    def catch_up(self) -> None:
        """Store the last step in the replay buffer, if that was postponed until the games play again."""
        if self.put_off is not None:
            self.put_off()
            self.put_off = None

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.solved or self.step >= self.config.total_steps

    @property
    def epsilon(self) -> float:
        """Probability of a random action now; with actors elsewhere their mean."""
        return epsilon_at(self.config.exploration, self.step) if self.actors is None else self.actors.epsilon

    @property
    def absent(self) -> int:
        """Games that took no part in the newest step, since their actor is lost."""
        return 0 if self.actors is None else self.actors.absent

    @property
    def buffer(self) -> ReplayBuffer:
        """The replay buffer of a run that has one."""
        assert isinstance(self.memory, ReplayBuffer)
        return self.memory


def resolve(config: TrainConfig) -> TrainConfig:
    """Check a config and decide all that it leaves to the machine, so that a resumed run decides nothing anew.

    Raises:
        PixelqError: a setting out of range, an unknown game, a device that isn't there.
    """
    validate(config)
    game = resolve_game(config.game)
    validate_view(config.env, game.kind)
    device = resolve_device(config.device)
    precision = quick_precision(config, device) if config.precision == "auto" else config.precision
    replay = config.replay
    if algo_of(config.algo).memory == "replay":
        replay = dataclasses.replace(
            replay, store=choose_store(replay.store, replay.capacity, device, config.env.obs_shape)
        )
    sticky = game.sticky if config.env.sticky is None else config.env.sticky
    env = dataclasses.replace(
        config.env,
        sticky=None if game.name in TEST_GAMES else sticky,
        reseed_steps=config.env.reseed_steps or RESEED_STEPS[device.type],
    )
    if game.kind in ("gymnasium", "function"):
        env = dataclasses.replace(env, **_NOT_ATARI)
    return dataclasses.replace(
        config,
        game=game.name,
        device=device.type,  # type: ignore[arg-type]
        precision=precision,
        threads=config.threads or cores(),
        replay=replay,
        env=env,
    )


def make_parts(
    config: TrainConfig, make_env: MakeEnv | None = None, actors: Actors | None = None, step: int = 0
) -> Parts:
    """Build a run at step 0 from a resolved config.

    Args:
        config: resolved.
        make_env: makes one environment, if the game's name does not say how.
        actors: processes that play the games; None: this process.
        step: the step where the run will continue, for `actors`.

    Raises:
        PixelqError: not enough memory for the replay, or actors that cannot be reached.
    """
    device = torch.device(config.device)
    # beside a GPU the CPU only copies arrays; threads that wait for the next copy would take the emulator's cores
    torch.set_num_threads(config.threads if device.type == "cpu" else 1)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # tries its convolutions once for each shape; there are few shapes
    memory = _make_memory(config, device)
    threads = min(config.threads, config.envs)
    games = None if actors is None else actors.games(config, step)
    seed = stream_seed(config.seed, "games") % 2**31
    envs = games or make_envs(config.game, config.envs, seed, config.env, threads, make_env)
    num_actions = len(envs.action_meanings)
    learner = Learner(config, num_actions, device, _torch_stream(config, "weights"))
    fire = fire_index(envs.action_meanings) if config.env.fire_after_life_loss else None
    noise = generator_on(device, _torch_stream(config, "noise"))
    engine = make_engine(learner, noise, memory if isinstance(memory, ReplayBuffer) else None)
    chosen = None if games is None else games.chosen
    actor = Actor(engine.acting, num_actions, fire, stream(config.seed, "explore"), chosen)
    tracker = EpisodeTracker(
        config.envs,
        config.window_episodes,
        config.env.max_steps_per_life,
        config.env.rewards == "sign",
        None if games is None else games.greediest,
    )
    return Parts(config, device, envs, tracker, learner, engine, actor, memory, actors=games, newest_steps=config.envs)


def _make_memory(config: TrainConfig, device: torch.device) -> ReplayBuffer | Rollouts:
    """Before anything else is made, since it may not fit."""
    algo = config.algo
    if isinstance(algo, PQNConfig):
        return Rollouts(
            algo.rollout_steps, config.envs, device, stream(config.seed, "minibatches"), config.env.obs_shape
        )
    generator = stream(config.seed, "replay")
    where = (device, generator, samples_on_device(config, device))
    return ReplayBuffer(
        config.replay, config.envs, algo.gamma, algo.n_step, *where, kernels=config.compile, shape=config.env.obs_shape
    )


def _torch_stream(config: TrainConfig, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(config.seed, name))


def begin(parts: Parts, background: bool = True) -> None:
    """Start all games, at step 0.

    Args:
        parts: the run.
        background: networks that subtract a background take it from the first pictures; False: their weights came with
            one.
    """
    result = parts.envs.reset()
    parts.tracker.reset(result)
    parts.obs = result.obs
    parts.life_lost = np.zeros(parts.config.envs, np.bool_)
    pictures = parts.envs.spec.obs.newest(result.obs)
    if background:
        parts.learner.see_background(pictures)
    if isinstance(parts.memory, ReplayBuffer):
        parts.memory.ring.start(pictures)
