"""Actors of one run on a Ray cluster: a user gives `RayActors` to `train` or `resume`."""

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pixelq.config import TrainConfig
from pixelq.distributed.feed import Arrived, Event, Feed, Lost
from pixelq.distributed.player import Player, make_player
from pixelq.distributed.ray_cluster import connected
from pixelq.envs import make_envs
from pixelq.errors import PixelqError
from pixelq.run.seeding import stream_seed

__all__ = ["RayActors", "RayPlayer", "RayTransport"]


@dataclass(frozen=True)
class RayActors:
    """Actors on a Ray cluster that play a run's games; replay buffer and learner stay in this process.

    Args:
        address: HOST:PORT of the cluster, `auto` for the one that this machine is part of, `local` for one of this
            machine alone.
        number: of actors, each with one processor.

    Source: Horgan et al. 2018, "Distributed prioritized experience replay".
    """

    address: str
    number: int

    def games(self, config: TrainConfig, step: int) -> Feed:
        """The games of a run; see `pixelq.training.parts.Actors`.

        Args:
            config: the run's, resolved; its games are shared out evenly.
            step: the step where the run begins or continues.

        Raises:
            PixelqError: Ray is missing, there is no cluster, or it has too few processors.
        """
        one = make_envs(config.game, 1, stream_seed(config.seed, "games") % 2**31, config.env, 1)
        spec = one.spec
        one.close()
        with contextlib.ExitStack() as stack:
            ray = stack.enter_context(connected(self.address, self.number)).ray
            _check_room(ray, self.address, self.number)
            each = dataclasses.replace(config, envs=config.envs // self.number)
            transport = RayTransport(ray, each, self.number, step, stack.pop_all())
        return Feed(config, self.number, spec, transport)


class RayPlayer:
    """The process of an actor, as Ray runs it.

    Args:
        config: the run's; `envs` counts this actor's games only.
        number: the actor's.
        actors: how many there are.
        stream_name: of its random streams.
    """

    def __init__(self, config: TrainConfig, number: int, actors: int, stream_name: str) -> None:
        self._trouble: PixelqError | None = None
        self._held: Any = None  # the weights that it acts by
        try:
            self._player: Player = make_player(config, number, actors, stream_name)
        except PixelqError as error:
            self._trouble = error

    def play(self, weights: Sequence[Any]) -> bytes | str:
        """A batch; or a text that says why this actor cannot play.

        Args:
            weights: a list with one reference to the weights, so that Ray fetches them only on request.
        """
        if self._trouble is not None:
            return str(self._trouble)
        import ray

        new = None if weights[0] == self._held else ray.get(weights[0])
        self._held = weights[0]
        try:
            return self._player.play(new)
        except PixelqError as error:
            return str(error)


class RayTransport:
    """Reaches actors by Ray's calls: each is one batch.

    Args:
        ray: the library, connected.
        config: the run's; `envs` counts one actor's games.
        actors: how many.
        step: the step where the run begins or continues.
        connection: closed at the end.
    """

    def __init__(self, ray: Any, config: TrainConfig, actors: int, step: int, connection: contextlib.ExitStack) -> None:
        self._ray, self._config, self._actors, self._step = ray, config, actors, step
        self._connection = connection
        self._handles: dict[int, tuple[int, Any]] = {}  # life and process of each actor
        self._calls: dict[Any, tuple[int, int, int]] = {}  # what each batch that is under way is
        self._weights: Any = None
        self._class = ray.remote(RayPlayer)

    def begin(self, actor: int, life: int) -> None:
        """Start an actor; end its process of an earlier life, if there is one."""
        self._end(actor)
        handle = self._class.options(
            num_cpus=1, num_gpus=0, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        ).remote(self._config, actor, self._actors, f"actor {actor}, life {life}, from step {self._step}")
        self._handles[actor] = (life, handle)

    def ask(self, actor: int, life: int, number: int) -> None:
        """Let an actor play one more batch, after its earlier requests."""
        self._calls[self._handles[actor][1].play.remote([self._weights])] = (actor, life, number)

    def publish(self, weights: bytes) -> None:
        """Actors use these weights in all batches requested from now on."""
        self._weights = self._ray.put(weights)

    def poll(self, seconds: float) -> Sequence[Event]:
        """The new arrivals; waits at most `seconds` if there are none.

        Raises:
            PixelqError: an actor cannot play at all.
        """
        calls = list(self._calls)
        if not calls:
            return []
        done, _ = self._ray.wait(calls, num_returns=1, timeout=seconds)
        if done:  # and all others that are ready
            done, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        return [self._event(call) for call in done]

    def close(self) -> None:
        """End all actors; may be called twice."""
        for actor in list(self._handles):
            self._end(actor)
        self._connection.close()

    def _event(self, call: Any) -> Event:
        actor, life, number = self._calls.pop(call)
        errors = self._ray.exceptions
        try:
            batch = self._ray.get(call)
        except errors.RayTaskError as error:  # the actor's own program failed
            raise PixelqError(f"actor {actor} failed: {_last_line(error)}") from error
        except errors.RayError as error:
            return Lost(actor, life, _last_line(error))
        if isinstance(batch, str):
            raise PixelqError(f"actor {actor} cannot play: {batch}")
        return Arrived(actor, life, number, batch)

    def _end(self, actor: int) -> None:
        _, handle = self._handles.pop(actor, (0, None))
        if handle is not None:
            with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
                self._ray.kill(handle)


def _check_room(ray: Any, address: str, actors: int) -> None:
    have = int(ray.cluster_resources().get("CPU", 0))
    if have < actors:
        raise PixelqError(
            f"--actors is {actors}: the cluster at --ray {address} has {have} processors, one for each actor"
        )


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
