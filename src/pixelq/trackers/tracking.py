"""The callback that logs a run to trackers, each from its own thread, so that no tracker can slow or stop the run."""

import json
import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pixelq.agent import save_agent
from pixelq.config import to_json
from pixelq.errors import PixelqError
from pixelq.run.reading import flat
from pixelq.run.rundir import RunDir
from pixelq.trackers.mlflow_runs import MlflowRuns
from pixelq.trackers.protocol import Tracker, TrackerName, TrackOptions
from pixelq.trackers.tensorboard_folders import TensorBoard
from pixelq.trackers.trackio_runs import TrackioRuns
from pixelq.trackers.weights_and_biases import WeightsAndBiases
from pixelq.training.callbacks import Callback, RunView

__all__ = ["TRACKERS", "Tracking", "saved_tracking"]

TRACKERS: dict[TrackerName, Callable[[], Tracker]] = {
    "wandb": WeightsAndBiases,
    "mlflow": MlflowRuns,
    "trackio": TrackioRuns,
    "tensorboard": TensorBoard,
}
_FILE = "trackers.json"
_MOST_WAITING = 10_000  # calls
_FINISH_SECONDS = 60.0  # the longest wait for trackers at a run's end


class Tracking(Callback):
    """Tells trackers of a run: settings at the start, each line of metrics, videos, the final agent.

    A resumed run continues under its ids in the trackers, which `trackers.json` in the run directory keeps.

    Args:
        names: of `TRACKERS`.
        options: how the run is called there.

    Raises:
        PixelqError: a library is missing; says how to install it.
    """

    def __init__(self, names: Sequence[TrackerName], options: TrackOptions | None = None) -> None:
        self._options = options or TrackOptions()
        self._followers = [_Follower(name, TRACKERS[name]()) for name in dict.fromkeys(names)]
        self._videos: set[str] = set()
        self._absent: list[str] = []  # reported at the start

    def on_start(self, run: RunView) -> None:
        """Begin, or continue the runs in `trackers.json`."""
        for line in self._absent:
            run.note(line)
        place = RunDir(run.path)
        saved = place.read_json(_FILE) if (run.path / _FILE).exists() else {}
        known: dict[str, str] = saved.get("runs", {})
        known_of = flat({"config": to_json(run.config), "provenance": place.read_json("provenance.json")})
        settings = {path: json.dumps(value) if isinstance(value, list) else value for path, value in known_of.items()}
        self._videos = {path.name for path in (run.path / "videos").glob("step-*.mp4")}
        identities = dict(known)
        lock = threading.Lock()

        def begin(follower: _Follower) -> None:
            name = follower.name
            identity = follower.tracker.start(self._options, run.path, known.get(name), settings)
            with lock:
                identities[name] = identity
                options = {"project": self._options.project, "name": self._options.name}
                tags = list(self._options.tags)
                place.write_json(_FILE, {"options": {**options, "tags": tags}, "runs": identities})

        for follower in self._followers:
            follower.begin(partial(begin, follower), run.note)

    def on_log(self, run: RunView) -> None:
        """Pass on a line of metrics, and videos that were finished since."""
        numbers = {
            name: float(value)
            for name, value in run.metrics.items()
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
        }
        self._tell("log", run.step, numbers)
        self._pass_on_videos(run)

    def on_end(self, run: RunView) -> None:
        """Pass on the last video and the final agent, and wait a while for the trackers."""
        self._pass_on_videos(run)
        agent: Path | None = None
        if run.finished and self._followers:
            agent = run.path / ".agent-final.safetensors"
            final = run.agent
            save_agent(agent, final.network.state_dict(), final.card)
        self._tell("finish", agent)
        for follower in self._followers:
            follower.end(run.note)
        if agent is not None:
            agent.unlink(missing_ok=True)

    def _pass_on_videos(self, run: RunView) -> None:
        for path in sorted((run.path / "videos").glob("step-*.mp4")):
            if path.name not in self._videos:
                self._videos.add(path.name)
                self._tell("video", int(path.stem.split("-")[1]), path)

    def _tell(self, method: str, *arguments: Any) -> None:
        for follower in self._followers:
            follower.tell(partial(getattr(follower.tracker, method), *arguments))


class _Follower:
    """One tracker with its thread: calls wait in a queue; after the first that fails it is left alone."""

    def __init__(self, name: TrackerName, tracker: Tracker) -> None:
        self.name = name
        self.tracker = tracker
        self._calls: queue.Queue[Callable[[], object] | None] = queue.Queue(_MOST_WAITING)
        self._say: Callable[[str], None] = _nothing
        self._failed = False
        self._thread: threading.Thread | None = None

    def begin(self, call: Callable[[], object], say: Callable[[str], None]) -> None:
        self._say = say
        self._calls.put(call)
        self._thread = threading.Thread(target=self._follow, name=f"track {self.name}", daemon=True)
        self._thread.start()

    def tell(self, call: Callable[[], object]) -> None:
        try:
            if not self._failed:
                self._calls.put_nowait(call)
        except queue.Full:
            self._fail("it takes too long")

    def end(self, say: Callable[[str], None]) -> None:
        self.tell_last()
        if self._thread is not None:
            self._thread.join(_FINISH_SECONDS)
            if self._thread.is_alive():
                self._failed = True
                say(f"{self.name} is not done after {_FINISH_SECONDS:.0f} s; its remaining records are lost")

    def tell_last(self) -> None:
        try:
            self._calls.put_nowait(None)
        except queue.Full:
            self._fail("it takes too long")

    def _follow(self) -> None:
        while (call := self._calls.get()) is not None:
            if self._failed:
                continue
            try:
                call()
            except BaseException as error:  # the run continues despite any error of a library
                self._fail(" ".join(str(error).split()) or type(error).__name__)

    def _fail(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            self._say(f"{self.name} tracks no more: {why[:200]}")


def saved_tracking(run: RunDir) -> Tracking | None:
    """The trackers that a run began with; None: it has none.

    If a library is missing now, the run says so when it continues.

    Raises:
        PixelqError: `trackers.json` is damaged.
    """
    if not (run.path / _FILE).exists():
        return None
    saved = run.read_json(_FILE)
    names = [name for name in TRACKERS if name in saved.get("runs", {})]
    given = saved.get("options", {})
    options = TrackOptions(given.get("project", "pixelq"), given.get("name"), tuple(given.get("tags", ())))
    there: list[TrackerName] = []
    absent = []
    for name in names:
        try:
            TRACKERS[name]()
        except PixelqError as error:
            absent.append(f"{name} does not track on: {error}")
        else:
            there.append(name)
    tracking = Tracking(there, options)
    tracking._absent = absent
    return tracking


def _nothing(text: str) -> None:
    del text
