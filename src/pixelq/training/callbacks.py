"""What a program may do at certain moments of a run, without changing it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pixelq.agent import Agent, make_agent
from pixelq.config import TrainConfig
from pixelq.envs.episodes import Episode
from pixelq.errors import PixelqError
from pixelq.training.parts import Parts
from pixelq.training.state import agent_card

__all__ = ["Callback", "Callbacks", "RunView"]

_HOOKS = ("on_start", "on_step", "on_episode", "on_log", "on_checkpoint", "on_end")


class RunView:
    """A callback's view of a run: it can read and ask the run to stop, but change nothing.

    Args:
        parts: the run.
        path: its directory.
        stop: asks the run to save and stop.
        note: tells a person one line.
    """

    def __init__(self, parts: Parts, path: Path, stop: Callable[[], None], note: Callable[[str], None]) -> None:
        self._parts = parts
        self._metrics: Mapping[str, Any] = MappingProxyType({})
        self.path = path
        """The run directory."""
        self.stop = stop
        """Let the run save and stop after this step; `resume` continues."""
        self.note = note
        """Tells a person one line, beside the run's own."""

    @property
    def config(self) -> TrainConfig:
        """The run's settings."""
        return self._parts.config

    @property
    def step(self) -> int:
        """Agent steps done, over all games."""
        return self._parts.step

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The newest line of `metrics.jsonl` of this process, by its keys; empty before the first."""
        return self._metrics

    @property
    def finished(self) -> bool:
        """Whether the run is solved or out of steps."""
        return self._parts.finished

    @property
    def agent(self) -> Agent:
        """A copy of the agent of this moment, on the CPU."""
        weights = {name: tensor.detach().cpu().clone() for name, tensor in self._parts.learner.weights().items()}
        return make_agent(weights, agent_card(self._parts))


class Callback:
    """Moments of a run. Inherit and override some, or write any class with methods of these names.

    Hooks run in the training thread, between steps of the games, so the run waits for them. An exception ends the run
    as an error; the newest checkpoint stays.
    """

    def on_start(self, run: RunView) -> None:
        """The run is about to take its first step, also after a resume."""

    def on_step(self, run: RunView) -> None:
        """All games have taken a step; an algorithm that learns from rollouts calls it once a rollout."""

    def on_episode(self, run: RunView, episode: Episode) -> None:
        """A game or a life ended: `episode.unit`, its return `total`, its `steps`."""

    def on_log(self, run: RunView) -> None:
        """A line of metrics was written: `run.metrics`."""

    def on_checkpoint(self, run: RunView) -> None:
        """A checkpoint was written, at `run.step`."""

    def on_end(self, run: RunView) -> None:
        """The run stops in this process. Everything is saved; it is finished, or can be resumed."""


class Callbacks:
    """The callbacks of a run by hook; an unused hook costs nothing.

    Args:
        callbacks: objects with some of the hooks of `Callback`.

    Raises:
        PixelqError: one has none of the hooks.
    """

    def __init__(self, callbacks: Sequence[object] = ()) -> None:
        self._hooks: dict[str, list[Callable[..., None]]] = {name: [] for name in _HOOKS}
        if not isinstance(callbacks, Iterable):
            raise PixelqError(f"callbacks is a {type(callbacks).__name__}: must be a list")
        for callback in callbacks:
            if isinstance(callback, type):
                raise PixelqError(f"{callback.__name__} is a class: must be an object of it, {callback.__name__}()")
            found = [name for name in _HOOKS if _has(callback, name)]
            if not found and not isinstance(callback, Callback):
                raise PixelqError(f"{type(callback).__name__} is no callback: it has none of {', '.join(_HOOKS)}")
            for name in found:
                self._hooks[name].append(getattr(callback, name))
        self.hear_steps = bool(self._hooks["on_step"] or self._hooks["on_episode"])
        """Whether `steps` must be called at all."""
        self._view: RunView | None = None

    def start(self, view: RunView) -> None:
        """The run begins or continues."""
        self._view = view
        self._call("on_start")

    def steps(self, finished: Sequence[Episode]) -> None:
        """Steps were taken, with which games and lives ended."""
        for episode in finished:
            self._call("on_episode", episode)
        self._call("on_step")

    def log(self, record: Mapping[str, Any]) -> None:
        """A line of metrics was written."""
        if self._view is not None:
            self._view._metrics = MappingProxyType(dict(record))
        self._call("on_log")

    def checkpoint(self) -> None:
        """A checkpoint was written."""
        self._call("on_checkpoint")

    def end(self) -> None:
        """The process's share of the run ends."""
        self._call("on_end")

    def _call(self, hook: str, *arguments: Any) -> None:
        for function in self._hooks[hook] if self._view is not None else ():
            function(self._view, *arguments)


def _has(callback: object, hook: str) -> bool:
    function = getattr(callback, hook, None)
    inherited = getattr(type(callback), hook, None) is getattr(Callback, hook)
    return callable(function) and not inherited
