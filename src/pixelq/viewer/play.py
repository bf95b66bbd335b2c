"""One viewer's game: the emulator and its picture, the agent and a person at the joystick, the scores. No web."""

import dataclasses
import threading
from collections import deque
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelq.actor import epsilon_greedy
from pixelq.agent import Agent
from pixelq.envs import StepResult
from pixelq.envs.episodes import EpisodeTracker
from pixelq.envs.fire import fire_index
from pixelq.envs.interface import EnvSpec, game_seed
from pixelq.evaluation.players import Player, RandomAgent, env_config, fire_assist, make_games
from pixelq.evaluation.protocols import PROTOCOLS
from pixelq.evaluation.screens import make_screen
from pixelq.networks import QNetwork
from pixelq.run.seeding import stream
from pixelq.viewer.joystick import joystick_action
from pixelq.viewer.saliency import gradient_saliency, occlusion_saliency

__all__ = ["Chooser", "Holder", "LiveGame", "Moment", "SaliencyKind", "Score"]

Holder = Literal["agent", "person"]
Chooser = Literal["agent", "chance", "fire", "person"]
"""Source of an action: the agent's best, a random one, FIRE after a lost life, a person."""
SaliencyKind = Literal["gradient", "occlusion"]

_CONDITIONS = dataclasses.replace(PROTOCOLS["noop"], name="watch")  # up to 30 no-ops, half an hour a game
_REMEMBERED = 64  # moments that still offer saliency


class Score(NamedTuple):
    """One side's record at the joystick."""

    points: float = 0.0  # raw score won in this game
    steps: int = 0  # agent steps of this game
    games: int = 0  # whole games played alone
    last: float | None = None  # raw score of the last of them
    best: float | None = None


class Moment(NamedTuple):
    """One step for the viewer: observation, action values, action, result."""

    number: int  # counts the moments, starts of games included
    game: int  # counts the games since the seed was set, from 0
    seen: NDArray[np.uint8]  # [planes, H, W] the agent's view, before the action
    values: NDArray[np.float32] | None  # [A] action values of it; None: random play
    action: int | None  # None: the start of a game
    chooser: Chooser | None
    pictures: tuple[NDArray[np.uint8], ...]  # [H, W, 3] RGB each, while the action lasted; of a start, one
    reward: float
    lives: int
    over: bool  # the next step starts another game
    holder: Holder  # who had the joystick
    scores: dict[Holder, Score]
    trained: int | None  # agent steps of training behind the values


class LiveGame:
    """A game that an agent and a person play by turns, one moment after the other.

    The caller decides its speed. One call at a time may move it; `close`
    waits for that.

    Args:
        player: the agent.
        seed: of the games and of all random numbers, at least 0.
        epsilon: probability of a random action, where the agent chooses.
        sticky: probability that the emulator repeats the last action; None: as it was trained.
    """

    def __init__(
        self, player: Player, seed: int, epsilon: float = _CONDITIONS.epsilon, sticky: float | None = None
    ) -> None:
        self.player = player  # another one of the same game may take its place at any time
        self.epsilon = epsilon
        self.holder: Holder = "agent"
        self.seed = seed
        trained = player.card.sticky if isinstance(player, Agent) else 0.0
        self.sticky = trained if sticky is None else sticky
        self._lock = threading.Lock()
        self._closed = False
        self._number = 0
        self._recent: deque[tuple[int, NDArray[np.uint8]]] = deque(maxlen=_REMEMBERED)
        self._scores: dict[Holder, Score] = {"agent": Score(), "person": Score()}
        self._open()

    @property
    def spec(self) -> EnvSpec:
        """The game's spec."""
        return self._games.spec

    @property
    def action_meanings(self) -> tuple[str, ...]:
        """The meaning of each action."""
        return self._games.action_meanings

    @property
    def conditions(self) -> str:
        """One line that names all of them."""
        protocol = dataclasses.replace(_CONDITIONS, sticky=self.sticky, epsilon=self.epsilon)
        return protocol.describe(self.player.game, fire_assist(self.player), isinstance(self.player, RandomAgent))

    def restart(self, seed: int, sticky: float) -> Moment:
        """Drop the current game and start the first game of a seed.

        Args:
            seed: at least 0; the same seed and joystick give the same games.
            sticky: probability that the emulator repeats the last action.
        """
        with self._held():
            if (seed, sticky) != (self.seed, self.sticky):
                self._shut()
                self.seed, self.sticky = seed, sticky
                self._open()
            self._game = -1
            return self._start()

    def step(self, keys: Set[str] = frozenset()) -> Moment:
        """Play a step; the first one, and the one after a game's end, starts a game.

        Args:
            keys: keys held by a person, of `joystick.KEYS`; they count only while a person has the joystick.
        """
        with self._held():
            if self._result is None or bool(self._result.terminated[0] or self._result.truncated[0]):
                return self._start()
            return self._play(self._result, keys)

    def saliency(self, number: int, kind: SaliencyKind) -> NDArray[np.float32] | None:
        """The saliency of a moment's observation, [H, W]; None if the moment is too old or play is random.

        May be called beside `step`, from another thread.
        """
        seen = dict(self._recent.copy()).get(number)
        if seen is None or not isinstance(self.player, Agent):
            return None
        network, device = self.player.network, self.player.device
        if kind == "gradient" and isinstance(network, QNetwork):
            return gradient_saliency(network.q_values, seen, device)
        return occlusion_saliency(network.q_values, seen, device, self.spec.obs.channels)

    def close(self) -> None:
        """Stop the emulators; may be called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._shut()

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise RuntimeError("the game is closed")
            yield

    def _open(self) -> None:
        conditions = dataclasses.replace(_CONDITIONS, sticky=self.sticky)
        self._games = make_games(self.player, conditions, 1, self.seed, threads=1)
        self._screen = make_screen(self.player.game, env_config(self.player, conditions), 0, self._games)
        self._fire = fire_index(self._games.action_meanings) if fire_assist(self.player) else None
        self._game = -1
        self._result: StepResult | None = None

    def _shut(self) -> None:
        self._screen.close()
        self._games.close()

    def _start(self) -> Moment:
        """Start the next game of the seed by seeding both emulators."""
        self._game += 1
        result = self._games.restart(self._games.state()) if self._game else self._games.reset()
        self._screen.reseed(game_seed(self.seed, 0, self._game))
        self._chance = stream(self.seed, f"watched actions {self._game}")
        self._tracker = EpisodeTracker(1)
        self._tracker.reset(result)
        self._serve = False  # a life was lost, and FIRE was not pressed since
        for side, score in self._scores.items():
            self._scores[side] = score._replace(points=0.0, steps=0)
        picture = self._screen.start(result)
        return self._moment(result, result, self._values(result), None, None, (picture,))

    def _play(self, before: StepResult, keys: Set[str]) -> Moment:
        values = self._values(before)
        action, chooser = self._choose(values, keys)
        self._games.send(np.array([action]))
        result = self._games.recv()
        pictures = tuple(self._screen.step(action, result))
        life_lost, finished = self._tracker.update(result)
        unserved = chooser == "person" and self._serve and action != self._fire
        self._serve = bool(life_lost[0]) or unserved
        score = self._scores[self.holder]
        self._scores[self.holder] = score._replace(points=score.points + float(result.reward[0]), steps=score.steps + 1)
        if any(episode.unit == "game" for episode in finished):
            self._count_game()
        return self._moment(before, result, values, action, chooser, pictures)

    def _choose(self, values: NDArray[np.float32] | None, keys: Set[str]) -> tuple[int, Chooser]:
        """An action and its source."""
        if self.holder == "person":
            return joystick_action(self.action_meanings, keys), "person"
        best = -1 if values is None else int(values.argmax())
        epsilon = 1.0 if values is None else self.epsilon
        count = len(self.action_meanings)
        (action,) = epsilon_greedy(self._chance, 1, count, epsilon, lambda: np.array([best]))
        if self._fire is not None and self._serve:
            return self._fire, "fire"
        return int(action), "agent" if action == best else "chance"

    def _values(self, result: StepResult) -> NDArray[np.float32] | None:
        return self.player.q_values(result.obs)[0] if isinstance(self.player, Agent) else None

    def _count_game(self) -> None:
        """Keep the score of a game that one side played alone."""
        for side, score in self._scores.items():
            if score.steps and sum(other.steps for other in self._scores.values()) == score.steps:
                best = score.points if score.best is None else max(score.best, score.points)
                self._scores[side] = score._replace(games=score.games + 1, last=score.points, best=best)

    def _moment(
        self,
        before: StepResult,
        after: StepResult,
        values: NDArray[np.float32] | None,
        action: int | None,
        chooser: Chooser | None,
        pictures: tuple[NDArray[np.uint8], ...],
    ) -> Moment:
        self._result = after
        self._number += 1
        self._recent.append((self._number, before.obs[0]))
        return Moment(
            number=self._number,
            game=self._game,
            seen=before.obs[0],
            values=values,
            action=action,
            chooser=chooser,
            pictures=pictures,
            reward=float(after.reward[0]),
            lives=int(after.lives[0]),
            over=bool(after.terminated[0] or after.truncated[0]),
            holder=self.holder,
            scores=dict(self._scores),
            trained=self.player.card.step if isinstance(self.player, Agent) else None,
        )
