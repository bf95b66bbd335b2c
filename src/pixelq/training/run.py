"""Training as a whole: start or continue a run."""

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pixelq.algos import algo_of
from pixelq.config import StopOn, TrainConfig, check_shares, from_json, to_json, with_actors
from pixelq.device import tiny_as_zero
from pixelq.engines import machine_notes
from pixelq.envs import EnvSpec
from pixelq.envs.episodes import EpisodeTracker
from pixelq.envs.interface import ACTORS
from pixelq.errors import PixelqError
from pixelq.games import file_word, function_game
from pixelq.run.checkpoint import Checkpoint, CheckpointStore
from pixelq.run.metrics import MetricsLog
from pixelq.run.newrun import free_place, new_run
from pixelq.run.provenance import add_resume, provenance
from pixelq.run.rundir import RunDir
from pixelq.system import load
from pixelq.training.callbacks import Callbacks, RunView
from pixelq.training.changes import allowed_changes, check_same_recipe, still_solved
from pixelq.training.initial import load_initial
from pixelq.training.parts import Actors, MakeEnv, Parts, begin, make_parts, resolve
from pixelq.training.progress import Progress, ProgressKind, follow_restoring, make_progress
from pixelq.training.replay_loop import replay_loop
from pixelq.training.rollout_loop import rollout_loop
from pixelq.training.saving import Saver
from pixelq.training.session import Session
from pixelq.training.state import restore_parts, restore_with_fresh_games, save_parts, saved_arrays
from pixelq.training.stopping import Stop
from pixelq.training.videos import Videos

__all__ = ["LOOPS", "RunResult", "game_notes", "load_notes", "resume", "train"]

LOOPS = {"replay": replay_loop, "rollout": rollout_loop}  # by the source of an algorithm's batches


class RunResult(NamedTuple):
    """The state of a run when its process stops."""

    run_dir: Path
    step: int
    games: int
    lives: int
    return_per_game: float | None  # mean of the last games
    return_per_life: float | None
    solved: bool
    interrupted: bool  # saved before its end; `resume` continues


@tiny_as_zero()
def train(
    config: TrainConfig,
    run_dir: Path | str | None = None,
    init: str | None = None,
    progress: Progress | ProgressKind = "auto",
    *,
    or_resume: bool = False,
    callbacks: Sequence[object] = (),
    make_env: MakeEnv | None = None,
    actors: Actors | None = None,
) -> RunResult:
    """Start a run and train until it is solved, out of steps or interrupted.

    Args:
        config: the recipe; see `pixelq.preset`.
        run_dir: where everything is written. It must not exist, or be empty, or be left by a run that was killed before
            its first step. None: runs/GAME-PRESET-sSEED-TIME.
        init: an agent to take the first weights from.
        progress: "bar", "lines" or "none"; "auto": a bar in a notebook and on a terminal, else lines.
        or_resume: if `run_dir` already holds a run of this recipe and seed, resume it. One call then serves a job that
            may be ended and started again at any time.
        callbacks: called at certain moments; see `pixelq.Callback`.
        make_env: makes one environment of your own game, in place of `config.game`. `resume`, `evaluate` and `record`
            need it again.
        actors: processes elsewhere that play the games, `config.envs` each; see `pixelq.RayActors`. None: this process.

    Returns:
        The state of the run.

    Raises:
        PixelqError: a setting, path or agent cannot be used.
        StorageError: the disk is full or cannot be written.
        DivergedError: the loss or the weights became NaN.
    """
    hooks = Callbacks(callbacks)
    if not isinstance(config, TrainConfig):
        raise PixelqError(f"config is a {type(config).__name__}: must be a TrainConfig, e.g. pixelq.preset('fast')")
    if make_env is not None:
        config = dataclasses.replace(config, game=function_game(make_env))
    if actors is not None:
        config = with_actors(config, actors.number, make_env is not None)
    config = resolve(config)
    if or_resume:
        if run_dir is None:
            raise PixelqError("or_resume needs a run_dir: the run is found again by its path")
        if (Path(run_dir) / "config.json").is_file():
            check_same_recipe(config, RunDir(Path(run_dir)))
            return resume(run_dir, progress=progress, callbacks=callbacks, make_env=make_env, actors=actors)
    stop = Stop()
    with stop.heeded():
        if run_dir is not None:
            RunDir.check_new(run_dir)  # before anything costly
        parts = make_parts(config, make_env, actors)
        with closing(parts.envs):
            if init is not None:
                load_initial(parts, init)
            place = (
                free_place(f"{file_word(config.game)}-{config.preset}-s{config.seed}") if run_dir is None else run_dir
            )
            show = make_progress(config, progress)
            with new_run(place) as run, show:
                run.write_json("provenance.json", provenance(parts.engine.instructions))
                if parts.actors is not None:
                    parts.actors.follow(parts.learner, lambda: stop.asked, show.note)
                begin(parts, background=init is None)
                store = CheckpointStore(run.checkpoints, config.keep_checkpoints)
                with closing(MetricsLog(run.metrics, run.tb)) as log:
                    chunks = save_parts(store, parts, [], log.offset())
                    # last, so that what has a config.json can be resumed
                    run.write_json("config.json", to_json(config))
                    return _go_on(run, parts, Saver(parts, log, store, chunks, show.note), show, stop, hooks)


@tiny_as_zero()
def resume(
    run_dir: Path | str,
    device: str | None = None,
    total_steps: int | None = None,
    progress: Progress | ProgressKind = "auto",
    *,
    threads: int | None = None,
    cuda_graphs: bool | None = None,
    compile: bool | None = None,
    checkpoint_every_steps: int | None = None,
    stop_on: StopOn | None = None,
    stop_at: float | None = None,
    keep_going: bool | None = None,
    fresh_games: bool = False,
    callbacks: Sequence[object] = (),
    make_env: MakeEnv | None = None,
    actors: Actors | None = None,
) -> RunResult:
    """Go on with a run from its newest good checkpoint.

    Args:
        run_dir: the run.
        device: device of this process only; None: the run's.
        total_steps: new length of the run; None: the same.
        progress: as in `train`.
        threads: number of threads of this process only; None: the run's.
        cuda_graphs: whether this process records GPU work as CUDA graphs; None: as before.
        compile: whether this process compiles updates on a GPU; None: as before.
        checkpoint_every_steps: new distance between checkpoints; None: the same.
        stop_on: new running mean that ends the run as solved. A run that was solved by another mean, or by a lower
            `stop_at`, continues. None: the same.
        stop_at: new value that the running mean must exceed; None: the same.
        keep_going: whether to train on when the disk is full, from now on; None: the same.
        fresh_games: start new games instead of replaying the old ones. This is faster, but the run is no longer bit for
            bit the same.
        callbacks: as in `train`.
        make_env: as in `train`.
        actors: other processes that play the run's games from now on, an equal share each; None: this process plays,
            even if actors played before. Games of actors cannot be restored: new games start.

    Returns:
        The state of the run; a finished run is returned unchanged.

    Raises:
        PixelqError: no run, no good checkpoint, a changed setting, another process writing it, a device that isn't
            there.
        StorageError, DivergedError: as in `train`.
    """
    hooks = Callbacks(callbacks)
    run = RunDir.open(run_dir)
    stop = Stop()
    with stop.heeded(), run.lock():
        saved: TrainConfig = from_json(TrainConfig, run.read_json("config.json"))
        lasting = _given(
            total_steps=total_steps,
            checkpoint_every_steps=checkpoint_every_steps,
            stop_on=stop_on,
            stop_at=stop_at,
            keep_going=keep_going,
        )
        passing = _given(device=device, threads=threads, cuda_graphs=cuda_graphs, compile=compile)
        config = resolve(dataclasses.replace(saved, **lasting, **passing))
        if actors is not None:
            check_shares(config, actors.number, make_env is not None)
        show = make_progress(config, progress)
        store = CheckpointStore(run.checkpoints, config.keep_checkpoints)
        damage: list[str] = []
        checkpoint = store.load_newest(damage.append)
        for line in damage:
            show.note(f"{line}; using the checkpoint before it")
        for change in allowed_changes(config, checkpoint):
            show.note(change)
        if lasting:
            run.write_json("config.json", to_json(dataclasses.replace(saved, **lasting)))
        solved = still_solved(config, checkpoint)
        if solved or checkpoint.step >= config.total_steps:
            end = f"at step {checkpoint.step:,}"
            ending = f"solved, {end}; --stop-on none continues" if solved else f"finished, {end}"
            show.note(f"{run.path} is {ending}")
            return _finished(run, config, checkpoint, solved)
        with show:
            return _restore_and_go_on(run, config, store, checkpoint, show, stop, fresh_games, hooks, make_env, actors)


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _finished(run: RunDir, config: TrainConfig, checkpoint: Checkpoint, solved: bool) -> RunResult:
    tracker = EpisodeTracker(config.envs, config.window_episodes)
    tracker.restore(saved_arrays(checkpoint, "tracker"))
    return _result(run, checkpoint.step, tracker, solved, False)


def _restore_and_go_on(
    run: RunDir,
    config: TrainConfig,
    store: CheckpointStore,
    checkpoint: Checkpoint,
    show: Progress,
    stop: Stop,
    fresh_games: bool,
    hooks: Callbacks,
    make_env: MakeEnv | None,
    actors: Actors | None,
) -> RunResult:
    parts = make_parts(config, make_env, actors, checkpoint.step)
    with closing(parts.envs):
        started = time.monotonic()
        show.note(f"restoring {checkpoint.path}")
        if parts.actors is not None:
            fresh_games = True
            parts.actors.follow(parts.learner, lambda: stop.asked, show.note)
            show.note("actors start new games; the old games are dropped")
        elif ACTORS in checkpoint.tensors("envs"):
            fresh_games = True
            show.note(
                f"actors played these games, which are dropped: this process starts {config.envs} new ones; "
                "with --ray and --actors, actors do"
            )
        elif not parts.envs.spec.deterministic:
            fresh_games = True
            show.note("this environment is not deterministic: new games are started")
        if fresh_games:
            chunks = restore_with_fresh_games(parts, checkpoint)
        else:
            chunks = restore_parts(parts, checkpoint, follow_restoring(show))
        games = "with fresh games" if fresh_games else f"restored in {time.monotonic() - started:.1f} s"
        show.note(f"resumed at step {parts.step:,}, {games}")
        for line in add_resume(run, parts.step, parts.engine.instructions):
            show.note(line)
        offset = int(checkpoint.state["metrics_offset"])
        with closing(MetricsLog(run.metrics, run.tb, offset, parts.step + 1)) as log:
            if log.missing_bytes:
                show.note(f"{run.metrics} lost {log.missing_bytes} bytes that were written before")
            return _go_on(run, parts, Saver(parts, log, store, chunks, show.note), show, stop, hooks)


def _go_on(run: RunDir, parts: Parts, saver: Saver, show: Progress, stop: Stop, hooks: Callbacks) -> RunResult:
    config = parts.config
    videos = Videos(run.videos, config.video_every_episodes, config.video_min_seconds, config.keep_videos, show.note)
    session = Session(parts, saver, videos, show, stop, hooks)
    with closing(videos), session.clock.stops_with_the_process(), _given_up(run, saver, show), stop.saves_first():
        machine = filter(
            None,
            (
                config.device,
                config.precision,
                parts.engine.describe(),
                f"{config.threads} thread{'s' * (config.threads > 1)}",
            ),
        )
        show.note(
            f"{config.preset} on {config.game}: {config.envs} games, {', '.join(machine)}, seed {config.seed}; "
            f"run directory {run.path}"
        )
        for line in game_notes(parts.envs.spec, parts.actors is not None, _background(parts)):
            show.note(line)
        if parts.actors is not None:
            show.note(parts.actors.describe())
        kind = algo_of(config.algo).memory
        used = f", {config.total_steps:,} of them used" if config.total_steps < config.replay.capacity else ""
        size = f"replay buffer of {config.replay.capacity:,} transitions{used}: " if kind == "replay" else ""
        show.note(size + parts.memory.describe())
        for line in machine_notes(config, parts.learner) + load_notes(config):
            show.note(line)
        hooks.start(RunView(parts, run.path, lambda: stop.ask("a callback"), show.note))
        LOOPS[kind](parts, session)
        session.finish()
        hooks.end()
        if parts.actors is not None:
            show.note(parts.actors.summary())
        if session.interrupted and not parts.finished:
            show.note(f"saved at step {parts.step:,}; to continue: pixelq resume {run.path}")
    interrupted = session.interrupted and not parts.finished
    return _result(run, parts.step, parts.tracker, parts.solved, interrupted)


@contextmanager
def _given_up(run: RunDir, saver: Saver, show: Progress) -> Iterator[None]:
    """Say what a second Ctrl-C lost."""
    try:
        yield
    except KeyboardInterrupt:
        show.note(f"everything after step {saver.saved_step:,} is lost; to continue: pixelq resume {run.path}")
        raise


def game_notes(spec: EnvSpec, actors: bool, background: Sequence[float] | None = None) -> list[str]:
    """The network's observations and whether the games can be replayed, in lines; few for Atari.

    Args:
        spec: the games' spec.
        actors: whether other processes play them.
        background: what the network subtracts from the pixels of each colour; None: nothing.
    """
    notes = [spec.view] if spec.view else []
    if background is not None:
        notes.append(
            f"the background is subtracted: brightness {', '.join(f'{value:.0f}' for value in background)} of 255"
        )
    if not spec.deterministic:
        why = "actors play these games" if actors else "this environment is not deterministic"
        notes.append(f"{why}: a resumed run starts new games")
    return notes


def _background(parts: Parts) -> list[float] | None:
    background = parts.learner.online.background
    return None if background is None else background.tolist()


def load_notes(config: TrainConfig) -> list[str]:
    """Warnings for a machine with other work, in lines.

    Args:
        config: resolved.
    """
    busy, machine = load(), os.cpu_count() or 1
    if config.device != "cpu" or config.threads == 1 or busy is None or busy + config.threads <= machine + 0.6:
        return []
    fewer = min(config.threads - 1, max(1, round(machine - busy)))
    return [
        f"this machine has other work (load {busy:.1f} on {machine} cores), and many threads are slow then: "
        f"--threads {fewer} may be faster, also for pixelq resume"
    ]


def _result(run: RunDir, step: int, tracker: EpisodeTracker, solved: bool, interrupted: bool) -> RunResult:
    means = (tracker.mean_per_game(), tracker.mean_per_life())
    return RunResult(run.path, step, tracker.games, tracker.lives, *means, solved, interrupted)
