"""What a checkpoint holds: everything that a run needs to continue as if it had never stopped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from pixelq.agent import AgentCard
from pixelq.config import TrainConfig, to_json
from pixelq.device import restore_generator_on
from pixelq.envs.interface import ACTORS
from pixelq.errors import CheckpointError
from pixelq.replay import ReplayBuffer
from pixelq.replay.ring import Ring, Rows
from pixelq.run.checkpoint import Checkpoint, CheckpointStore, Chunk
from pixelq.run.seeding import generator_state, restore_generator
from pixelq.training.changes import still_solved
from pixelq.training.parts import Parts

__all__ = ["agent_card", "replay_chunks", "restore_parts", "restore_with_fresh_games", "save_parts", "saved_arrays"]

# of pictures in a chunk file at most, before compression; held twice while it is written
_CHUNK_BYTES = 8_192 * 84 * 84


def agent_card(parts: Parts) -> AgentCard:
    """What an agent file says of itself."""
    config = parts.config
    return AgentCard(
        game=config.game,
        action_meanings=parts.envs.action_meanings,
        full_action_space=config.env.full_action_space,
        sticky=config.env.sticky or 0.0,
        fire_after_life_loss=config.env.fire_after_life_loss,
        network=config.network,
        algo=config.algo,
        preset=config.preset,
        step=parts.step,
        seed=config.seed,
        view=config.env.view,
    )


def replay_chunks(ring: Ring, on_disk: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Which chunks of rows hold the ring now: those on disk that are still needed, then new ones up to the head."""
    needed = [(start, end) for start, end in on_disk if end > ring.oldest]
    start = needed[-1][1] if needed else ring.oldest
    most = max(1, _CHUNK_BYTES // (ring.shape.picture_bytes * ring.num_envs))
    while start < ring.head:
        end = min(start + most, ring.head)
        needed.append((start, end))
        start = end
    return needed


def save_parts(
    store: CheckpointStore, parts: Parts, chunks: list[tuple[int, int]], metrics_offset: int
) -> list[tuple[int, int]]:
    """Write a checkpoint; changes nothing in the run, but that its memory catches up.

    Args:
        store: where to.
        parts: the run.
        chunks: replay chunks on disk already.
        metrics_offset: bytes of metrics.jsonl that belong to the run so far.

    Returns:
        Replay chunks on disk now.

    Raises:
        PixelqError: the disk is full or not writable; earlier checkpoints stay intact.
    """
    parts.catch_up()
    replay = parts.memory if isinstance(parts.memory, ReplayBuffer) else None
    chunks = [] if replay is None else replay_chunks(replay.ring, chunks)
    state = {
        "step": parts.step,
        "seconds": parts.seconds,
        "solved": parts.solved,
        "metrics_offset": metrics_offset,
        "chunks": chunks,
        "config": to_json(parts.config),
        "explore": generator_state(parts.actor.generator),
        "batches": generator_state(parts.memory.generator),
    }
    tensors: dict[str, dict[str, Any]] = {
        "agent": dict(parts.learner.weights()),
        "learner": dict(parts.learner.state()),
        "envs": parts.envs.state(),
        "pending": {"life_lost": parts.life_lost},
        "chance": {"noise": parts.actor.noise.get_state()},
        "tracker": parts.tracker.state(),
    }
    lazy: list[Chunk] = []
    if replay is not None:
        tensors["head"] = replay.ring.head_row()
        if sampler := replay.state():
            tensors["sampler"] = sampler
        lazy = [Chunk(start, end, _chunk_arrays(replay.ring, start, end)) for start, end in chunks]
    store.save(parts.step, state, tensors, lazy, {"agent": {"pixelq": agent_card(parts).to_json()}})
    return chunks


def _chunk_arrays(ring: Ring, start: int, end: int) -> Callable[[], dict[str, np.ndarray]]:
    def arrays() -> dict[str, np.ndarray]:
        rows = ring.read_rows(start, end)._asdict()
        rows["planes"] = rows["planes"].swapaxes(0, 1)  # one game after the other compresses better
        return rows

    return arrays


def restore_parts(
    parts: Parts, checkpoint: Checkpoint, progress: Callable[[int, int], None] | None = None
) -> list[tuple[int, int]]:
    """Bring fresh parts to where a checkpoint was taken.

    Args:
        parts: made from the same config.
        checkpoint: verified.
        progress: called with the emulator steps replayed and to replay.

    Returns:
        Replay chunks on disk.

    Raises:
        CheckpointError: it does not fit the parts.
    """
    with _fitting(checkpoint):
        chunks = _restore_all_but_games(parts, checkpoint)
        parts.life_lost = saved_arrays(checkpoint, "pending")["life_lost"]
        parts.obs = parts.envs.restore(saved_arrays(checkpoint, "envs"), progress).obs
    return chunks


def restore_with_fresh_games(parts: Parts, checkpoint: Checkpoint) -> list[tuple[int, int]]:
    """Like `restore_parts`, but drop the old games and start new ones.

    Earlier transitions stay in the replay buffer, which treats the old games as truncated. Unfinished games
    and lives count for no return.
    """
    with _fitting(checkpoint):
        chunks = _restore_all_but_games(parts, checkpoint)
        state = saved_arrays(checkpoint, "envs")
        # of games that actors played elsewhere nothing is known here
        result = parts.envs.reset() if ACTORS in state else parts.envs.restart(state)
        parts.tracker.reset(result)
        if isinstance(parts.memory, ReplayBuffer):
            parts.memory.restart(parts.envs.spec.obs.newest(result.obs))
        parts.life_lost = np.zeros(parts.config.envs, np.bool_)
        parts.obs = result.obs
    return chunks


@contextmanager
def _fitting(checkpoint: Checkpoint) -> Iterator[None]:
    try:
        yield
    except (KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint.path} does not fit this run: {error}") from error


def _restore_all_but_games(parts: Parts, checkpoint: Checkpoint) -> list[tuple[int, int]]:
    state = checkpoint.state
    parts.step, parts.seconds = int(state["step"]), float(state["seconds"])
    parts.solved = still_solved(parts.config, checkpoint)
    parts.actor.generator = restore_generator(state["explore"])
    restore_generator_on(parts.actor.noise, checkpoint.tensors("chance")["noise"])
    parts.memory.generator = restore_generator(state["batches"])
    parts.learner.restore(checkpoint.tensors("agent"), checkpoint.tensors("learner"))
    parts.tracker.restore(saved_arrays(checkpoint, "tracker"))
    if isinstance(parts.memory, ReplayBuffer):
        _restore_replay(parts.memory, parts.config, checkpoint)
    return [(int(start), int(end)) for start, end in state["chunks"]]


def _restore_replay(replay: ReplayBuffer, config: TrainConfig, checkpoint: Checkpoint) -> None:
    for start, rows in _saved_rows(checkpoint):
        replay.ring.write_rows(start, rows)
    replay.ring.restore_head(saved_arrays(checkpoint, "head"))
    # a memory that a CPU samples uniformly has nothing there, and a GPU's own sampler can do without
    needed = config.replay.sampling == "prioritised" or checkpoint.has("sampler")
    replay.restore(saved_arrays(checkpoint, "sampler") if needed else {})


def saved_arrays(checkpoint: Checkpoint, name: str) -> dict[str, np.ndarray]:
    """A group of a checkpoint's tensors as NumPy arrays."""
    return {key: tensor.numpy() for key, tensor in checkpoint.tensors(name).items()}


def _saved_rows(checkpoint: Checkpoint) -> Iterator[tuple[int, Rows]]:
    for chunk in checkpoint.chunks:
        arrays = dict(chunk.arrays())
        arrays["planes"] = arrays["planes"].swapaxes(0, 1)
        yield chunk.start, Rows(**arrays)
