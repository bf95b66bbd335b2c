"""Games that actors in other processes play, as the training loop sees games. Imports no Ray.

The loop first asks for actions. It gets the actions of the next row, which the actors have executed. A row has a
place for every actor's games. If an actor is lost or not there yet, its place is empty: nothing is learned from
it and it counts for no step. The loop waits for all others, so that each has its share.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelq.config import TrainConfig
from pixelq.distributed.batches import BatchError, Row
from pixelq.distributed.lanes import Accounts, Lane
from pixelq.distributed.player import actor_epsilon, pack_weights
from pixelq.envs import EnvSpec, StepResult
from pixelq.envs.interface import ACTORS
from pixelq.errors import PixelqError
from pixelq.learner import Learner

__all__ = ["Arrived", "Event", "Feed", "Lost", "Transport"]

BATCHES_AHEAD = 3  # most batches that an actor plays ahead; then it waits for the learner
_PUBLISH_ROWS = 32  # between two sets of weights, at least
_PUBLISH_SECONDS = 0.5
_LOOK_ROWS = 8  # at most, between two checks for new batches
_WAIT_SECONDS = 0.1  # for a batch, before a check whether the run must stop
_GATHER_SECONDS = 20.0  # at the start, the first actor waits so long for the others
_SILENCE_SECONDS = 60.0  # after that an actor counts as lost
_FRUITLESS = 5  # an actor's lives in a row without a batch, before the run gives up


class Arrived(NamedTuple):
    """A batch came."""

    actor: int
    life: int
    number: int
    data: bytes


class Lost(NamedTuple):
    """An actor's process has ended; its requested batches will not come."""

    actor: int
    life: int
    why: str


Event = Arrived | Lost


class Transport(Protocol):
    """The connection to actors. It may lose, double and reorder their batches."""

    def begin(self, actor: int, life: int) -> None:
        """Start an actor; end its process of an earlier life, if there is one."""

    def ask(self, actor: int, life: int, number: int) -> None:
        """Let an actor play one more batch, after its earlier requests."""

    def publish(self, weights: bytes) -> None:
        """Actors use these weights in all batches requested from now on."""

    def poll(self, seconds: float) -> Sequence[Event]:
        """The new arrivals; waits at most `seconds` if there are none.

        Raises:
            PixelqError: an actor cannot play at all.
        """

    def close(self) -> None:
        """End all actors; may be called twice."""


class Feed:
    """The games of N actors, in place of `VectorEnvs`; a person cannot play them.

    Args:
        config: the run's, resolved; its games are all actors' games together.
        actors: N.
        spec: of the games.
        transport: to the actors.
        clock: seconds.

    Source: Horgan et al. 2018, "Distributed prioritized experience replay", Algorithm 1.
    """

    def __init__(
        self,
        config: TrainConfig,
        actors: int,
        spec: EnvSpec,
        transport: Transport,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.num_envs = config.envs
        self.spec = dataclasses.replace(spec, deterministic=False)
        self._each = config.envs // actors
        shape, num_actions = spec.obs, len(spec.action_meanings)
        self.lanes = [Lane(actor, self._each, num_actions, shape, BATCHES_AHEAD) for actor in range(actors)]
        epsilons = [actor_epsilon(actor, actors) for actor in range(actors)]
        self.epsilon = float(np.mean(epsilons))
        """Mean probability of a random action, over actors."""
        self.greediest = np.repeat(np.array(epsilons) == min(epsilons), self._each)
        """[N · E] games of the actor that explores least."""
        self.absent = config.envs
        """Number of games without an actor: the newest step has no data for them, and they start there."""
        self._transport, self._clock = transport, clock
        self._learner: Learner | None = None
        self._asked: Callable[[], bool] = lambda: False
        self._say: Callable[[str], None] = _nothing
        self._rows: list[Row | None] = []
        self._given = self._published = self._steps = 0
        self._published_at = self._gathering_since = -np.inf
        self._began: list[float | None] = [None] * actors  # start of lives without a first batch
        self._heard = [-np.inf] * actors

    @property
    def action_meanings(self) -> tuple[str, ...]:
        """One for each action."""
        return self.spec.action_meanings

    @property
    def accounts(self) -> Accounts:
        """Over all actors."""
        return sum((lane.accounts for lane in self.lanes), Accounts())

    def follow(self, learner: Learner, asked: Callable[[], bool], say: Callable[[str], None]) -> None:
        """Connect the learner, before games start.

        Args:
            learner: gives the weights.
            asked: returns whether the run must stop, which ends all waiting.
            say: shows the user one line.
        """
        self._learner, self._asked, self._say = learner, asked, say

    def reset(self) -> StepResult:
        """Start all actors; waits for none, so that all places are still empty."""
        self._publish()
        for lane in self.lanes:
            self._begin(lane)
        return self._result([None] * len(self.lanes))

    def restart(self, state: Mapping[str, NDArray[np.generic]]) -> StepResult:
        """The same: actors always play new games."""
        del state
        return self.reset()

    def restore(
        self, state: Mapping[str, NDArray[np.generic]], progress: Callable[[int, int], None] | None = None
    ) -> StepResult:
        """Games of actors are never replayed: their runs resume by `restart`.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError

    def chosen(self) -> NDArray[np.int64]:
        """The actions [N · E] of the next row, once it is there."""
        self._rows = self._next_rows()
        no = np.zeros(self._each, np.int64)
        return np.concatenate([no if row is None else row.actions.astype(np.int64) for row in self._rows])

    def send(self, actions: NDArray[np.int64]) -> None:
        """Does nothing: these actions were executed."""

    def recv(self) -> StepResult:
        """The results of these actions."""
        self._publish()
        result = self._result(self._rows)
        self._steps += self.num_envs - self.absent
        return result

    def state(self) -> dict[str, NDArray[np.generic]]:
        """The number of actors; their games cannot be restored."""
        return {ACTORS: np.array(len(self.lanes), np.int64)}

    def close(self) -> None:
        """End all actors."""
        self._transport.close()

    def describe(self) -> str:
        """The players, in words."""
        first, last = (actor_epsilon(actor, len(self.lanes)) for actor in (0, len(self.lanes) - 1))
        spread = f"ε {first:.2g}" if len(self.lanes) == 1 else f"ε from {first:.2g} to {last:.2g}"
        return (
            f"{_count(len(self.lanes), 'actor')} with {_count(self._each, 'game')} each, "
            f"{spread} in place of --exploration"
        )

    def summary(self) -> str:
        """The batches received and lost since the start, in words."""
        all_ = self.accounts
        open_ones = all_.asked - all_.received - all_.lost
        unused = sum(lane.batches for lane in self.lanes)
        dropped = f", {all_.twice} dropped that came twice" if all_.twice else ""
        dropped += f", {all_.late} dropped that came late" if all_.late else ""
        return (
            f"{_count(all_.received, 'batch', 'es')} received with {self._steps:,} steps learned from, {all_.lost} lost"
            f"{dropped}; actors replaced {all_.lives - len(self.lanes)} times; "
            f"{unused} received and {open_ones} under way at the end are not learned from"
        )

    def check_valid(self) -> None:
        """Raise AssertionError if the books do not balance."""
        for lane in self.lanes:
            lane.check_valid()

    def _next_rows(self) -> list[Row | None]:
        if self._given % _LOOK_ROWS == 0:
            self._take(0.0)
        since = self._clock()
        while not self._ready():
            if self._asked():
                return [None] * len(self.lanes)
            self._take(_WAIT_SECONDS)
            self._look_for_silence(since)
        self._given += 1
        rows = [lane.pop() if lane.has_row else None for lane in self.lanes]
        for lane in self.lanes:
            self._ask(lane)
        return rows

    def _ready(self) -> bool:
        """Whether every running actor has a row, and at least one actor runs."""
        if not any(lane.has_row for lane in self.lanes):
            return False
        if self._given == 0 and not all(lane.has_row for lane in self.lanes):
            if self._gathering_since < 0:
                self._gathering_since = self._clock()
            if self._clock() - self._gathering_since < _GATHER_SECONDS:
                return False
        return all(lane.has_row or not lane.present for lane in self.lanes)

    def _take(self, seconds: float) -> None:
        """Take in the batches that have arrived, or arrive within this many seconds."""
        for event in self._transport.poll(seconds):
            lane = self.lanes[event.actor]
            if isinstance(event, Lost):
                if event.life == lane.life:
                    self._replace(lane, event.why)
                continue
            if event.life == lane.life:
                self._heard[lane.actor], self._began[lane.actor] = self._clock(), None
            try:
                lane.arrived(event.life, event.number, event.data)
            except BatchError as error:
                self._replace(lane, str(error))

    def _look_for_silence(self, since: float) -> None:
        """Replace actors that have been silent for too long; say which have not begun."""
        now = self._clock()
        for lane in self.lanes:
            began = self._began[lane.actor]
            waiting = lane.present and not lane.has_row
            if waiting and now - max(since, self._heard[lane.actor]) > _SILENCE_SECONDS:
                self._replace(lane, f"nothing came for {_SILENCE_SECONDS:.0f} s")
            elif began is not None and now - began > _SILENCE_SECONDS:
                self._began[lane.actor] = None
                self._say(f"actor {lane.actor} has not begun after {_SILENCE_SECONDS:.0f} s; the cluster may be full")

    def _replace(self, lane: Lane, why: str) -> None:
        lost = lane.end()
        numbers = f"{lost.first}" if lost.batches == 1 else f"{lost.first}-{lost.first + lost.batches - 1}"
        self._say(
            f"actor {lane.actor} was lost ({why}), with {_count(lost.batches, 'batch', 'es')} of it"
            f"{f' (number {numbers})' if lost.batches else ''}; another takes its place, with new games"
        )
        if lane.fruitless >= _FRUITLESS:
            raise PixelqError(
                f"actor {lane.actor} was lost {lane.fruitless} times before its first batch, last: {why}; "
                "the run's newest checkpoint is as it was"
            )
        self._begin(lane)

    def _begin(self, lane: Lane) -> None:
        life = lane.begin()
        self._began[lane.actor] = self._clock()
        self._transport.begin(lane.actor, life)
        self._ask(lane)

    def _ask(self, lane: Lane) -> None:
        for number in lane.wanted():
            self._transport.ask(lane.actor, lane.life, number)

    def _publish(self) -> None:
        """Send actors the present weights, unless they got some a moment ago."""
        assert self._learner is not None
        now, since = self._clock(), self._given - self._published
        if self._published_at >= 0 and (since < _PUBLISH_ROWS or now - self._published_at < _PUBLISH_SECONDS):
            return
        self._published, self._published_at = self._given, now
        self._transport.publish(pack_weights(self._learner.online.state_dict()))

    def _result(self, rows: Sequence[Row | None]) -> StepResult:
        """The rows side by side; empty places are all zeros, and start games."""
        held = [self._empty if row is None else row for row in rows]
        together = Row(*(np.concatenate(parts) for parts in zip(*held, strict=True)))
        obs = np.zeros((self.num_envs, *self.spec.obs.obs), np.uint8)  # the replay buffer has the older pictures
        self.spec.obs.newest(obs)[:] = together.pictures
        self.absent = self._each * sum(row is None for row in rows)
        return StepResult(
            obs,
            together.reward,
            together.terminated,
            together.truncated,
            together.lives,
            together.reset,
        )

    @property
    def _empty(self) -> Row:
        no = np.zeros(self._each, np.bool_)
        pictures = np.zeros((self._each, *self.spec.obs.picture), np.uint8)
        zeros = no.astype(np.uint8), no.astype(np.float32)
        return Row(*zeros, no, no, ~no, no.astype(np.int32), pictures)


def _count(number: int, word: str, plural: str = "s") -> str:
    return f"{number:,} {word}{'' if number == 1 else plural}"


def _nothing(text: str) -> None:
    del text
