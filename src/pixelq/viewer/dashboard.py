"""The dashboard: a page, the videos, and a WebSocket that sends the page the runs' news."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from pixelq.viewer.runs import Run, Runs

__all__ = ["make_dashboard"]

_STATIC = Path(__file__).parent / "static"
_PERIOD_SECONDS = 1.0  # between two checks of the runs
_SLICE_SECONDS = 0.02  # of reading, before requests get their turn
_PAUSE_SECONDS = 0.01


def make_dashboard(folder: Path) -> Starlette:
    """Make the app of a folder of runs.

    Args:
        folder: holds run directories, or is one; only read.

    Returns:
        The app; it reads the runs while a page is open.

    Raises:
        PixelqError: there is no such folder.
    """
    watcher = _Watcher(Runs(folder))

    async def page(request: Request) -> FileResponse:
        del request
        return FileResponse(_STATIC / "dashboard.html")

    async def video(request: Request) -> FileResponse:
        run = watcher.runs.runs.get(request.path_params["run"])
        path = run.video(request.path_params["file"]) if run else None
        if path is None:
            raise HTTPException(404)
        return FileResponse(path, media_type="video/mp4")

    async def live(socket: WebSocket) -> None:
        await socket.accept()
        await watcher.tell(socket)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        task = asyncio.create_task(watcher.watch())
        yield
        task.cancel()

    return Starlette(
        routes=[
            Route("/", page),
            Route("/videos/{run:path}/{file}", video),
            WebSocketRoute("/live", live),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        lifespan=lifespan,
    )


class _Watcher:
    """Reads the runs periodically and wakes the senders to the pages."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._pages = 0
        self._page_came = asyncio.Event()
        self._looked = asyncio.Event()

    async def watch(self) -> None:
        """Read for ever; once at the start, then only while a page is open."""
        while True:
            complete = self.runs.refresh(_SLICE_SECONDS)
            self._looked.set()
            self._looked = asyncio.Event()
            if not complete:
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if not self._pages:
                self._page_came.clear()
                await self._page_came.wait()
            else:
                await asyncio.sleep(_PERIOD_SECONDS)

    async def tell(self, socket: WebSocket) -> None:
        """Send a page the state of all runs and then every change, until it closes."""
        self._pages += 1
        self._page_came.set()
        gone = asyncio.create_task(_disconnected(socket))
        told = _Told()
        try:
            while not gone.done():
                looked = self._looked
                for message in told.news(self.runs):
                    await (socket.send_bytes(message) if isinstance(message, bytes) else socket.send_text(message))
                look = asyncio.create_task(looked.wait())
                await asyncio.wait((look, gone), return_when=asyncio.FIRST_COMPLETED)
                look.cancel()
        except WebSocketDisconnect:
            pass
        finally:
            self._pages -= 1
            gone.cancel()


async def _disconnected(socket: WebSocket) -> None:
    """Ends when the page closes; ignores its messages."""
    message = {"type": ""}
    while message["type"] != "websocket.disconnect":
        message = dict(await socket.receive())


class _Told:
    """What one page knows, and how to bring it up to date."""

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}
        self._points: dict[str, tuple[int, int]] = {}
        self._count = -1

    def news(self, runs: Runs) -> Iterator[str | bytes]:
        """Messages: a JSON text with cards, then for each run with new points a block of numbers."""
        there = [run for run in runs.runs.values() if run.version]
        changed = [run for run in there if self._versions.get(run.name) != run.version]
        gone = [name for name in self._versions if name not in runs.runs]
        if changed or gone or self._count != len(runs.runs):
            self._count = len(runs.runs)
            cards = {"folder": runs.root.name, "count": self._count, "gone": gone, "cards": [r.card for r in changed]}
            for name in gone:
                del self._versions[name]
                self._points.pop(name, None)
            self._versions |= {run.name: run.version for run in changed}
            yield json.dumps(cards)
        for run in there:
            now = (run.tail.generation, len(run.tail))
            before = self._points.get(run.name, (-1, 0))
            if now != before:
                self._points[run.name] = now
                yield _block(run, before[1] if before[0] == now[0] else 0)


def _block(run: Run, start: int) -> bytes:
    """A run's points from a row on.

    Four bytes with the length of the header, little-endian; the header, JSON with `run`, `start` (rows before it stay
    as they are, those after it are replaced), `rows` and `keys`; the rows of each key in turn, float64. The header is
    padded so that the numbers begin at a multiple of eight.
    """
    columns = run.tail.columns
    names = {"run": run.name, "start": start, "rows": len(run.tail) - start, "keys": list(columns)}
    header = json.dumps(names).encode()
    header += b" " * (-(4 + len(header)) % 8)
    numbers = (column[start:].tobytes() for column in columns.values())
    return b"".join((len(header).to_bytes(4, "little"), header, *numbers))
