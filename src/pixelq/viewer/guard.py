"""The guard of every page that pixelq serves: access, limits, and the server's start and end."""

import asyncio
import errno
import ipaddress
import os
import re
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pixelq.errors import PixelqError

__all__ = ["Guard", "serve"]

_MESSAGE_BYTES = 65_536  # a page sends settings and keys
_CONNECTIONS = 96  # open at once; a browser takes six
_WEBSOCKETS = 32  # fewer, so that a page still opens when all of them are taken
_SILENT_SECONDS = 10.0  # a connection that has not asked for anything by then is closed
_SHUTDOWN_SECONDS = 2

_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")


class Guard:
    """ASGI middleware that lets in only the page's own requests, and bounds them.

    - The Host header must name this machine, or else a foreign site could rebind its own name to it.
    - A WebSocket and every method but GET and HEAD must carry the page's own Origin.
    - With a token, every request must carry it: in the query (`?token=…`, which sets a cookie) or in the cookie.
    - A request's body is bounded, and so is the number of WebSockets; messages are bounded by `serve`.
    - Every response forbids the page to load, send or be framed by anything foreign.

    Args:
        app: the app to guard.
        host: where it listens; off the loopback, all of the machine's addresses and names reach it.
        token: the secret in the URL; None: no secret.
        websockets: most open at once.
        message_bytes: longest body of a request.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str = "127.0.0.1",
        token: str | None = None,
        websockets: int = _WEBSOCKETS,
        message_bytes: int = _MESSAGE_BYTES,
    ) -> None:
        self._app = app
        self._token = token
        self._loopback = _is_loopback(host)
        self._names = {"localhost"} if self._loopback else {"localhost", host.lower(), *_machine_names()}
        self._free_websockets = websockets
        self._message_bytes = message_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if scope["type"] == "websocket":
            if refusal or self._free_websockets < 1:
                await send({"type": "websocket.close", "code": 1008, "reason": refusal[1] if refusal else "too many"})
                return
            self._free_websockets -= 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._free_websockets += 1
        elif refusal:
            status, text = refusal
            await PlainTextResponse(f"{text}\n", status)(scope, receive, self._with_headers(scope, send, None))
        else:
            await self._http(scope, receive, self._with_headers(scope, send, self._new_cookie(scope)))

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Status and reason of a refusal; None: allowed."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._knows(hosts[0]):
            return 400, "the Host header does not name this server"
        safe = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        origin = headers.get("origin", "").lower()
        if not safe and origin not in (f"http://{hosts[0].lower()}", f"https://{hosts[0].lower()}"):
            return 403, "the Origin header is not this page's"
        if self._token is not None and not self._has_token(scope, headers):
            return 403, "the token is missing or wrong: open the URL that was printed"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._message_bytes:
            return 413, f"the request is longer than {self._message_bytes:,} bytes"
        return None

    def _knows(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if not match:
            return False
        name = match[1].strip("[]").lower()
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return address.is_loopback or not self._loopback  # an address cannot be rebound

    def _has_token(self, scope: Scope, headers: Headers) -> bool:
        given = [*_query_tokens(scope)]
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_cookie_name(scope))
        except CookieError:
            cookie = None
        if cookie is not None:
            given.append(cookie.value)
        return any(self._is_token(text) for text in given)

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(errors="replace"), (self._token or "").encode())

    def _new_cookie(self, scope: Scope) -> str | None:
        """The cookie for a request with the token in the URL."""
        if self._token is None or not any(map(self._is_token, _query_tokens(scope))):
            return None
        return f"{_cookie_name(scope)}={self._token}; Path=/; HttpOnly; SameSite=Lax"

    def _with_headers(self, scope: Scope, send: Send, cookie: str | None) -> Send:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if cookie:
                    headers.append("set-cookie", cookie)
            await send(message)

        return send_with_headers

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; a body that turns out too long counts as broken off."""
        read = 0

        async def receive_bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            return {"type": "http.disconnect"} if read > self._message_bytes else message

        await self._app(scope, receive_bounded, send)


def serve(app: ASGIApp, host: str, port: int, what: str) -> None:
    """Serve an app behind a `Guard` until Ctrl-C or SIGTERM; prints the URL once it can be opened.

    Args:
        app: an ASGI app; its lifespan brackets the serving, so it closes its resources there.
        host: address or name to listen at; off the loopback, the URL carries a new token.
        port: 0 takes any free port.
        what: name of the service, shown before the URL.

    Raises:
        PixelqError: the port is taken or no port, or the host is not this machine's.
    """
    import uvicorn  # late: `--help` needs none of it

    listener = _listen(host, port)
    token = None if _is_loopback(host) else secrets.token_urlsafe(16)
    config = uvicorn.Config(
        Guard(app, host, token),
        http=_bounded_protocol(_CONNECTIONS),  # type: ignore[arg-type]  # called as a factory
        loop="asyncio",
        ws="websockets-sansio",
        ws_max_size=_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    listener.listen()  # connections wait from here on
    print(f"{what}: {_url(host, listener.getsockname()[1], token)}  (Ctrl-C ends it)", flush=True)
    if token:
        print("anyone with this URL can open the page; the connection is not encrypted", file=sys.stderr, flush=True)
    # uvicorn shuts down in order, then raises the signal again
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, previous)
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket."""
    if not 0 <= port <= 65_535:
        raise PixelqError(f"--port is {port}: must be between 0 and 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise PixelqError(f"--host {host} is unknown: give an address of this machine, or 0.0.0.0 for all") from error
    family, kind, _, _, address = found[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PixelqError(f"--port {port} is in use: give another one, or 0 for any that is free") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise PixelqError(f"--host {host} is no address of this machine; 0.0.0.0 stands for all") from error
        said = os.strerror(error.errno or errno.EINVAL).lower()
        raise PixelqError(f"--port {port} at --host {host} cannot be opened: {said}") from error
    return listener


def _url(host: str, port: int, token: str | None) -> str:
    if host in ("0.0.0.0", "::", ""):
        host = _own_address()
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def _own_address() -> str:
    """The address at which other machines reach this one, as far as it knows."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address; a datagram socket sends nothing here
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _machine_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, f"{name}.local", socket.getfqdn().lower()}


def _query_tokens(scope: Scope) -> list[str]:
    return parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])


def _cookie_name(scope: Scope) -> str:
    """Cookies ignore ports, so their names contain the port."""
    server = scope.get("server") or ("", 0)
    return f"pixelq-{server[1]}"


def _bounded_protocol(most: int) -> Callable[..., Any]:
    """A factory of connections: refuses more than `most`, and closes idle ones."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    alive: set[H11Protocol] = set()

    def make(**parts: Any) -> H11Protocol | _Refusal:
        # the transport tells, also after it was handed on to a WebSocket
        alive.difference_update([one for one in alive if one.transport is not None and one.transport.is_closing()])
        if len(alive) >= most:
            return _Refusal()
        protocol = H11Protocol(**parts)
        alive.add(protocol)
        asyncio.get_running_loop().call_later(_SILENT_SECONDS, _close_if_silent, protocol)
        return protocol

    return make


def _close_if_silent(protocol: Any) -> None:
    handed_on = protocol.transport is not None and protocol.transport.get_protocol() is not protocol
    if protocol.transport is not None and protocol.cycle is None and not handed_on:
        protocol.transport.close()


class _Refusal:
    """The protocol of a refused connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        del error
