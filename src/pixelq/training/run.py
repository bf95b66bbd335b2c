"""Training as a whole: start a run, or go on with one."""

import dataclasses
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from pixelq.agent import load_agent
from pixelq.config import TrainConfig, from_json, to_json, validate
from pixelq.envs.episodes import EpisodeTracker
from pixelq.errors import PixelqError
from pixelq.run.checkpoint import CheckpointStore
from pixelq.run.metrics import MetricsLog
from pixelq.run.provenance import provenance
from pixelq.run.rundir import RunDir
from pixelq.training.parts import Parts, make_parts, resolve
from pixelq.training.progress import Progress, make_progress
from pixelq.training.replay_loop import begin, replay_loop
from pixelq.training.session import Session
from pixelq.training.state import restore_parts, save_parts, saved_arrays
from pixelq.training.videos import Videos

__all__ = ["RunResult", "resume", "train"]


class RunResult(NamedTuple):
    """How a run stands when its process stops."""

    run_dir: Path
    step: int
    games: int
    lives: int
    return_per_game: float | None  # mean of the last games
    return_per_life: float | None
    solved: bool
    interrupted: bool  # saved before its end; `resume` goes on


def train(
    config: TrainConfig, run_dir: Path | str, init: str | None = None, progress: Progress | None = None
) -> RunResult:
    """Start a run and train until it is solved, out of steps or interrupted.

    Args:
        config: the recipe; see `pixelq.preset`.
        run_dir: where everything is written; must not exist.
        init: an agent whose weights to begin with.
        progress: what to show; None: a live bar on a terminal, lines elsewhere.

    Returns:
        How the run stands.

    Raises:
        PixelqError: a setting, path or agent that cannot be used.
    """
    config = resolve(config)
    if Path(run_dir).exists():
        RunDir.create(run_dir)  # says why not, before anything costly
    parts = make_parts(config)
    with closing(parts.envs):
        if init is not None:
            _load_initial(parts, init)
        run = RunDir.create(run_dir)
        with run.lock():
            run.write_json("config.json", to_json(config))
            run.write_json("provenance.json", provenance())
            begin(parts)
            store = CheckpointStore(run.checkpoints, config.keep_checkpoints)
            with closing(MetricsLog(run.metrics, run.tb)) as log:
                chunks = save_parts(store, parts, [], log.offset())
                return _go_on(run, parts, log, store, chunks, progress or make_progress(config))


def resume(
    run_dir: Path | str,
    device: str | None = None,
    total_steps: int | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Go on with a run from its newest good checkpoint.

    Args:
        run_dir: the run.
        device: another device than the run's; None: the same.
        total_steps: another length than the run's; None: the same.
        progress: as in `train`.

    Returns:
        How the run stands; a finished run comes back as it is.

    Raises:
        PixelqError: no run, no good checkpoint, another process writing it, a device that isn't there.
    """
    run = RunDir.open(run_dir)
    with run.lock():
        config = resolve(_saved_config(run, device, total_steps))
        show = progress or make_progress(config)
        store = CheckpointStore(run.checkpoints, config.keep_checkpoints)
        checkpoint = store.load_newest(lambda line: show.note(f"{line}; using the checkpoint before it"))
        if checkpoint.state["solved"] or checkpoint.step >= config.total_steps:
            show.note(f"{run.path} is finished, at step {checkpoint.step:,}")
            tracker = EpisodeTracker(config.envs, config.window_episodes)
            tracker.restore(saved_arrays(checkpoint, "tracker"))
            return _result(run, checkpoint.step, tracker, bool(checkpoint.state["solved"]), False)
        parts = make_parts(config)
        with closing(parts.envs):
            started = time.monotonic()
            chunks = restore_parts(parts, checkpoint, show.restoring)
            show.note(f"resumed at step {parts.step:,}, restored in {time.monotonic() - started:.1f} s")
            offset = int(checkpoint.state["metrics_offset"])
            with closing(MetricsLog(run.metrics, run.tb, offset, parts.step + 1)) as log:
                if log.missing_bytes:
                    show.note(f"{run.metrics} lost {log.missing_bytes} bytes that were written before")
                return _go_on(run, parts, log, store, chunks, show)


def _saved_config(run: RunDir, device: str | None, total_steps: int | None) -> TrainConfig:
    """The run's config; a new length is written down, another device is for this process alone."""
    config: TrainConfig = from_json(TrainConfig, run.read_json("config.json"))
    if total_steps is not None:
        config = dataclasses.replace(config, total_steps=total_steps)
        validate(config)
        run.write_json("config.json", to_json(config))
    return dataclasses.replace(config, device=device or config.device)  # type: ignore[arg-type]


def _load_initial(parts: Parts, init: str) -> None:
    agent = load_agent(init)
    if agent.card.network != parts.config.network or agent.action_meanings != parts.envs.action_meanings:
        raise PixelqError(
            f"--init {init}: its network or actions differ from this run's "
            f"({agent.card.network}, {len(agent.action_meanings)} actions)"
        )
    parts.learner.load_weights(dict(agent.network.state_dict()))


def _go_on(
    run: RunDir,
    parts: Parts,
    log: MetricsLog,
    store: CheckpointStore,
    chunks: list[tuple[int, int]],
    progress: Progress,
) -> RunResult:
    config = parts.config
    videos = Videos(run.videos, config.video_every_episodes, config.video_min_seconds, config.keep_videos)
    session = Session(parts, log, store, chunks, videos, progress)
    with session.signals(), progress, closing(videos):
        progress.note(
            f"{config.preset} on {config.game}: {config.envs} games, {config.device}, {config.precision}, "
            f"{config.threads} threads, seed {config.seed}; run directory {run.path}"
        )
        replay_loop(parts, session)
        session.finish()
        if session.interrupted and not parts.finished:
            progress.note(f"saved at step {parts.step:,}; go on with: pixelq resume {run.path}")
    interrupted = session.interrupted and not parts.finished
    return _result(run, parts.step, parts.tracker, parts.solved, interrupted)


def _result(run: RunDir, step: int, tracker: EpisodeTracker, solved: bool, interrupted: bool) -> RunResult:
    means = (tracker.mean_per_game(), tracker.mean_per_life())
    return RunResult(run.path, step, tracker.games, tracker.lives, *means, solved, interrupted)
