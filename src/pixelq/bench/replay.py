"""The replay buffer alone: its size, and how fast it stores transitions and samples batches."""

import gc
import mmap
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pixelq.agent import Agent
from pixelq.bench.child import in_own_process
from pixelq.config import EnvConfig, ReplayConfig, StoreName, ViewConfig
from pixelq.envs import make_envs
from pixelq.envs.episodes import EpisodeTracker
from pixelq.errors import PixelqError
from pixelq.evaluation.players import Player, Policy, view_of
from pixelq.replay import ReplayBuffer

__all__ = ["Measurement", "Played", "bench_replay", "play"]

_EMULATED_STEPS = 20_000  # at most, a game
_EPSILON = 0.1  # of an agent, so that the planes are as varied as in training
_NUM_ENVS = 8
_BATCH_SIZE = 32
_LEAST_BATCHES = 50
_STATM = Path("/proc/self/statm")


class Played(NamedTuple):
    """T steps of N games, in the replay buffer's format."""

    planes: NDArray[np.uint8]  # [T + 1, N, 84, 84] or the player's own shape, the newest picture of each observation
    actions: NDArray[np.int64]  # [T, N]
    rewards: NDArray[np.float32]  # [T, N], their signs
    terminated: NDArray[np.bool_]  # [T, N]
    truncated: NDArray[np.bool_]  # [T, N]
    ignored: NDArray[np.bool_]  # [T, N]


class Measurement(NamedTuple):
    """A store that was filled with a game."""

    store: str
    game: str
    transitions: int
    resident_bytes: int  # growth of the process
    bytes_per_transition: float
    sample32_ms_median: float  # milliseconds to sample a batch of 32 transitions
    adds_per_second: float  # transitions, without their emulation


def bench_replay(
    player: Player,
    stores: Sequence[StoreName],
    transitions: int,
    seconds: float,
    on_skip: Callable[[str], None],
) -> Iterator[Measurement]:
    """Fill a replay buffer with a player's games and measure it, each store in its own process.

    At most 20,000 steps are emulated. They are appended over and over, each time as if they were other games.

    Args:
        player: the player; an agent explores with ε = 0.1.
        stores: which ones, not `auto`.
        transitions: capacity, filled once.
        seconds: for how long to sample.
        on_skip: called with one line for each store that does not fit into the free memory.

    Yields:
        A measurement a store.

    Raises:
        PixelqError: resident memory cannot be read here, or a process was killed.
    """
    if not _STATM.exists():
        raise PixelqError(f"pixelq bench replay reads resident memory from {_STATM}: there is none on this system")
    with tempfile.TemporaryDirectory(prefix="pixelq-bench-") as folder:
        path = Path(folder) / "played.npz"
        np.savez(path, **play(player, min(_EMULATED_STEPS, transitions))._asdict())
        for store in stores:
            try:
                what = f"{player.game}, {store}"
                yield in_own_process(what, _measure, path, player.game, view_of(player), store, transitions, seconds)
            except _TooLargeError as error:
                on_skip(f"{player.game}, {store}: {error}")


def play(player: Player, steps: int) -> Played:
    """Play 8 games side by side, `steps` steps over all of them."""
    full = isinstance(player, Agent) and player.card.full_action_space
    view = view_of(player)
    newest = view.obs_shape.newest
    with closing(make_envs(player.game, _NUM_ENVS, 1, EnvConfig(**vars(view), full_action_space=full))) as envs:
        policy = Policy(player, envs.action_meanings, _EPSILON, np.random.default_rng(1))
        tracker, result = EpisodeTracker(_NUM_ENVS), envs.reset()
        tracker.reset(result)
        life_lost = np.zeros(_NUM_ENVS, np.bool_)
        planes, rows = [newest(result.obs).copy()], []
        for _ in range(max(1, steps // _NUM_ENVS)):
            actions = policy.act(result.obs, life_lost)
            envs.send(actions)
            result = envs.recv()
            life_lost, _ = tracker.update(result)
            planes.append(newest(result.obs).copy())
            rows.append((actions, np.sign(result.reward), result.terminated, result.truncated, result.reset))
        return Played(np.stack(planes), *(np.stack(column) for column in zip(*rows, strict=True)))


class _TooLargeError(PixelqError):
    """A store does not fit into the free memory."""


def _measure(
    path: Path, game: str, view: ViewConfig, store: StoreName, transitions: int, seconds: float
) -> Measurement:
    with np.load(path) as arrays:
        played = Played(**arrays)
    config = ReplayConfig(capacity=transitions, store=store)
    device = torch.device("cuda" if store == "device" and torch.cuda.is_available() else "cpu")
    before = _resident_bytes()
    try:
        buffer = ReplayBuffer(config, _NUM_ENVS, 0.99, 1, device, np.random.default_rng(1), shape=view.obs_shape)
    except PixelqError as error:
        raise _TooLargeError(str(error)) from error
    started = time.perf_counter()
    _append(buffer, played, -(-transitions // _NUM_ENVS))
    adding = time.perf_counter() - started
    taken = _resident_bytes() - before
    return Measurement(
        store, game, transitions, taken, taken / transitions, _sample_ms(buffer, seconds), transitions / adding
    )


def _append(buffer: ReplayBuffer, played: Played, rows: int) -> None:
    """Append this many rows; repeat the played steps."""
    buffer.ring.start(played.planes[0])
    for row in range(rows):
        at = row % (len(played.actions) + 1)
        if at == len(played.actions):
            buffer.restart(played.planes[0])
        else:
            flags = (played.terminated[at], played.truncated[at], played.ignored[at])
            buffer.append(played.actions[at], played.rewards[at], *flags, played.planes[at + 1])


def _sample_ms(buffer: ReplayBuffer, seconds: float) -> float:
    """Median milliseconds a batch of 32."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < _LEAST_BATCHES or time.perf_counter() < end:
        started = time.perf_counter()
        batch = buffer.batch(buffer.draw(_BATCH_SIZE, 1.0))
        if batch.obs_t.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))


def _resident_bytes() -> int:
    gc.collect()
    return int(_STATM.read_text("utf-8").split()[1]) * mmap.PAGESIZE
