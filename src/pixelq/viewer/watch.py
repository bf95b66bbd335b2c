"""The server behind `pixelq watch`: a page, and a game for each open page. It plays a step when the page asks."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request as PageRequest
from starlette.responses import FileResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from pixelq.errors import PixelqError
from pixelq.evaluation.players import Player, RandomAgent
from pixelq.evaluation.screens import picture_form
from pixelq.viewer.messages import (
    Epsilon,
    Joystick,
    Look,
    Next,
    Request,
    Restart,
    pack_look,
    pack_moment,
    read_request,
)
from pixelq.viewer.play import LiveGame

__all__ = ["MOST_GAMES", "Watch"]

MOST_GAMES = 4  # two emulators each
_STATIC = Path(__file__).parent / "static"
_FASTEST = 120  # steps a second, eight times real speed
_SLACK_SECONDS = 0.25  # that a page which was held up may catch up
_GONE, _REFUSED, _FULL = 1006, 1008, 1013  # close codes: no goodbye, policy violation, try again later
_LONGEST_REASON = 123  # bytes, RFC 6455


class Watch:
    """The page's app.

    Args:
        player: returns the agent to watch; called before every step, so that a run can be followed.
        name: the agent's name on the page.
        seed: of a page's first games.
    """

    def __init__(self, player: Callable[[], Player], name: str, seed: int = 1) -> None:
        self._player = player
        self._name = name
        self._seed = seed
        self.games = 0  # open now
        self.app = Starlette(
            routes=[
                Route("/", _page),
                WebSocketRoute("/play", self._serve),
                Mount("/static", StaticFiles(directory=_STATIC)),
            ]
        )

    async def _serve(self, socket: WebSocket) -> None:
        """Play a game for a page as long as it is open."""
        await socket.accept()  # first, for a page learns nothing of why it was not accepted
        if self.games >= MOST_GAMES:
            await _close(socket, _FULL, f"{MOST_GAMES} pages watch already: close one of them, then load this one")
            return
        self.games += 1
        try:
            game = await asyncio.to_thread(lambda: LiveGame(self._player(), self._seed))
            visit = _Visit(socket, game, self._player, self._name)
            try:
                await visit.serve()
            finally:
                await asyncio.shield(visit.end())
        except WebSocketDisconnect:
            pass
        except (PixelqError, ValueError) as error:
            await _close(socket, _REFUSED, str(error))
        finally:
            self.games -= 1


class _Visit:
    """One page and its game."""

    def __init__(self, socket: WebSocket, game: LiveGame, player: Callable[[], Player], name: str) -> None:
        self._socket = socket
        self._game = game
        self._player = player
        self._name = name
        self._rate = picture_form(game.player.game, game.spec).rate
        self._due = 0.0  # when the next step may be played
        self._looking: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Answer the page, until it leaves.

        Raises:
            ValueError: it sent an unknown message.
            WebSocketDisconnect: the page has closed.
        """
        await self._send_state()
        await self._send_moment(frozenset())
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is None:
                raise ValueError("a message must be text")
            await self._answer(read_request(message["text"]))

    async def end(self) -> None:
        """Let go of the emulators."""
        if self._looking is not None:
            await asyncio.wait([self._looking])
        await asyncio.to_thread(self._game.close)

    async def _answer(self, request: Request) -> None:
        match request:
            case Next(keys):
                await self._pace()
                await self._send_moment(keys)
            case Look():
                if self._looking is not None and not self._looking.done():
                    raise ValueError("one look at a time")
                self._looking = asyncio.create_task(self._look(request))
            case Restart(seed, sticky):
                packed = await asyncio.to_thread(lambda: pack_moment(self._game.restart(seed, sticky)))
                await self._send_state()
                await self._send(packed)
            case Epsilon(value):
                self._game.epsilon = value
                await self._send_state()
            case Joystick(holder):
                self._game.holder = holder
                await self._send_state()

    async def _pace(self) -> None:
        """Slow down a page that asks too fast."""
        now = time.monotonic()
        self._due = max(self._due + 1 / _FASTEST, now - _SLACK_SECONDS)
        if self._due > now:
            await asyncio.sleep(self._due - now)

    async def _send_moment(self, keys: frozenset[str]) -> None:
        await self._send(await asyncio.to_thread(self._step, keys))

    def _step(self, keys: frozenset[str]) -> bytes:
        self._game.player = self._player()
        return pack_moment(self._game.step(keys))

    async def _look(self, look: Look) -> None:
        """Compute a map while the game continues."""
        saliency = await asyncio.to_thread(self._game.saliency, look.number, look.kind)
        with contextlib.suppress(WebSocketDisconnect):  # `serve` notices too
            await self._send(pack_look(look, saliency))

    async def _send(self, message: bytes | str) -> None:
        if self._socket.application_state is not WebSocketState.CONNECTED:  # an earlier message found the page gone
            raise WebSocketDisconnect(_GONE)
        await (self._socket.send_bytes(message) if isinstance(message, bytes) else self._socket.send_text(message))

    async def _send_state(self) -> None:
        game = self._game
        facts = {
            "type": "state",
            "name": self._name,
            "game": game.player.game,
            "actions": game.action_meanings,
            "sees": not isinstance(game.player, RandomAgent),
            "pictures_a_second": self._rate,
            "steps_a_second": game.spec.steps_per_second,
            "seen": game.spec.obs._asdict(),
            "seed": game.seed,
            "epsilon": game.epsilon,
            "sticky": game.sticky,
            "holder": game.holder,
            "conditions": game.conditions,
        }
        await self._send(json.dumps(facts))


async def _page(request: PageRequest) -> FileResponse:
    del request
    return FileResponse(_STATIC / "watch.html")


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    """Close a connection with a reason that its page can show."""
    text = reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
    if socket.application_state is WebSocketState.CONNECTED:
        with contextlib.suppress(WebSocketDisconnect):
            await socket.close(code, text)
