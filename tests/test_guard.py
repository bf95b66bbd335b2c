"""Access to pixelq's pages, and the server's limits."""

import asyncio
import http.client
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest
from starlette.responses import PlainTextResponse
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from browser import run_async, served
from pixelq.errors import PixelqError
from pixelq.viewer.guard import Guard, serve
from rundirs import make_run


def ask(guard, *, method="GET", query="", kind="http", body=(b"",), **headers):
    """What the guard answers: status, headers, text; of a WebSocket the first message's type."""
    given = {"host": "127.0.0.1:8000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": kind,
        "method": method,
        "path": "/",
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items() if value is not None],
        "server": ("127.0.0.1", 8000),
    }
    parts, said = list(body), []

    async def receive():
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message):
        said.append(message)

    run_async(guard(scope, receive, send))
    if kind == "websocket":
        return said[0]["type"]
    found = {name.decode(): value.decode() for name, value in said[0]["headers"]}
    return said[0]["status"], found, b"".join(message.get("body", b"") for message in said[1:]).decode()


async def app(scope, receive, send):
    """Answers what it was sent."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    text, more = b"", scope["method"] == "POST"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            await PlainTextResponse("broken off", 499)(scope, receive, send)
            return
        text, more = text + message["body"], message["more_body"]
    await PlainTextResponse(f"hello {len(text)}")(scope, receive, send)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:9999", "LOCALHOST", "[::1]:8000", "127.8.9.10"])
def test_names_of_this_machine_are_let_in(host):
    status, headers, text = ask(Guard(app), host=host)
    assert (status, text) == (200, "hello 0")
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "host",
    [
        *(None, "", "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example"),
        *("127.0.0.1:8000@evil.example", "127.0.0.1:", "[::1", "a b", "localhost:999999", "10.0.0.7"),
    ],
)
def test_other_hosts_are_refused(host):
    status, headers, text = ask(Guard(app), host=host)
    assert status == 400
    assert text == "the Host header does not name this server\n"
    assert "content-security-policy" in headers


def test_two_hosts_are_one_too_many():
    guard = Guard(app)
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "server": ("", 1)}
    scope["headers"] = [(b"host", b"localhost"), (b"host", b"localhost")]
    said = []

    async def send(message):
        said.append(message)

    run_async(guard(scope, None, send))
    assert said[0]["status"] == 400


OWN = "http://127.0.0.1:8000"
NEIGHBOURS = ["http://127.0.0.1:9000", "http://localhost:8000", f"{OWN}.evil.example"]


@pytest.mark.parametrize("origin", [None, "", "null", "http://evil.example", *NEIGHBOURS])
def test_a_foreign_origin_opens_no_websocket_and_posts_nothing(origin):
    assert ask(Guard(app), kind="websocket", origin=origin) == "websocket.close"
    assert ask(Guard(app), method="POST", origin=origin)[0] == 403
    assert ask(Guard(app), method="DELETE", origin=origin)[0] == 403
    assert ask(Guard(app), origin=origin)[0] == 200  # reading by its name is anybody's, but no page can see the answer


def test_the_page_itself_may_do_both():
    assert ask(Guard(app), kind="websocket", origin=OWN) == "websocket.accept"
    assert ask(Guard(app), method="POST", origin=OWN)[0] == 200


def test_a_token_is_asked_for_in_the_query_or_the_cookie():
    guard = Guard(app, "0.0.0.0", "right")
    for query, cookie in [("", None), ("token=wrong", None), ("token=", None), ("token=rightx", "pixelq-8000=wrong")]:
        assert ask(guard, query=query, cookie=cookie)[0] == 403
        assert ask(guard, query=query, cookie=cookie, kind="websocket", origin=OWN) == "websocket.close"
    assert ask(guard, query="token=\N{SNOWMAN}", cookie='a="b', host="10.0.0.7")[0] == 403
    status, headers, _ = ask(guard, query="token=right")
    assert status == 200
    assert headers["set-cookie"] == "pixelq-8000=right; Path=/; HttpOnly; SameSite=Lax"
    status, headers, _ = ask(guard, cookie="other=1; pixelq-8000=right", host="10.0.0.7:8000")
    assert status == 200
    assert "set-cookie" not in headers
    assert ask(guard, cookie="pixelq-8000=right", kind="websocket", origin=OWN) == "websocket.accept"


def test_beyond_loopback_addresses_and_own_names_are_let_in_and_no_others():
    guard = Guard(app, "0.0.0.0", "right")
    for host in ("10.0.0.7", "[fe80::1]:8000", socket.gethostname()):
        assert ask(guard, query="token=right", host=host)[0] == 200
    assert ask(guard, query="token=right", host="evil.example")[0] == 400


def test_long_requests_are_refused_whether_they_say_so_or_not():
    guard = Guard(app, message_bytes=1_000)
    said = {"method": "POST", "origin": OWN}
    assert ask(guard, **said, body=[b"x" * 1_000])[2] == "hello 1000"
    assert ask(guard, **said, content_length="1001")[0] == 413
    assert ask(guard, **said, content_length="-1")[0] == 413
    assert ask(guard, **said, body=[b"x" * 600, b"x" * 600])[0] == 499


def test_websockets_are_counted_and_given_back():
    opened, release = [], asyncio.Event()

    async def slow(scope, receive, send):
        await send({"type": "websocket.accept"})
        await release.wait()

    async def main():
        guard = Guard(slow, websockets=3)
        scope = {"type": "websocket", "headers": [(b"host", b"localhost"), (b"origin", b"http://localhost")]}

        async def send(message):
            opened.append(message["type"])

        tasks = [asyncio.create_task(guard(scope, None, send)) for _ in range(5)]
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*tasks)
        await guard(scope, None, send)

    run_async(main())
    assert opened == ["websocket.accept"] * 3 + ["websocket.close"] * 2 + ["websocket.accept"]


@pytest.mark.parametrize(
    ("host", "port", "line"),
    [
        ("127.0.0.1", 70_000, "--port is 70000: must be between 0 and 65535"),
        ("127.0.0.1", -1, "--port is -1: must be between 0 and 65535"),
        ("no.such.host.invalid", 0, "--host no.such.host.invalid is unknown"),
        ("192.0.2.1", 0, "--host 192.0.2.1 is no address of this machine"),
    ],
)
def test_where_nothing_can_be_served_is_one_clear_line(host, port, line):
    with pytest.raises(PixelqError, match=line):
        serve(app, host, port, "test")


def test_a_port_that_is_taken_is_one_clear_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PixelqError, match=f"--port {port} is in use: give another one, or 0 for any that is free"):
            serve(app, "127.0.0.1", port, "test")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "run", [1.0, 2.0])
    with served("dashboard", folder) as server:
        yield server


def get(server, path="/", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, text


def live(server, origin=True, **options):
    own = f"http://127.0.0.1:{server.port}"
    return connect(
        f"ws://127.0.0.1:{server.port}/live", origin=own if origin is True else origin, proxy=None, **options
    )


def test_the_server_refuses_foreign_hosts_and_origins(server):
    assert get(server)[0] == 200
    assert get(server, Host="evil.example")[0] == 400
    for origin in ("http://evil.example", None):
        with pytest.raises(InvalidHandshake):
            live(server, origin)
    with live(server) as socket:
        assert '"name": "run"' in socket.recv(timeout=10)


def shout(socket):
    socket.send("x" * 10_000_000)
    while True:
        socket.recv(timeout=10)


def post(server, body):
    """The answer's status, or that there was none."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("POST", "/", body, {"Origin": f"http://127.0.0.1:{server.port}"})
        return connection.getresponse().status
    except ConnectionError:
        return "closed"
    finally:
        connection.close()


def test_ten_megabytes_are_refused_and_the_server_goes_on(server):
    with live(server) as socket, pytest.raises((ConnectionClosed, OSError)):
        shout(socket)
    assert post(server, b"x" * 10_000_000) in (413, "closed")
    assert post(server, [b"x" * 1_000_000] * 10) in (405, "closed")  # in chunks, without its length; nobody reads it
    assert get(server)[0] == 200


def test_two_hundred_connections_are_bounded_and_the_server_goes_on(server):
    with ExitStack() as stack:
        opened = 0
        for _ in range(200):
            try:
                stack.enter_context(live(server, open_timeout=10))
            except (InvalidHandshake, OSError, EOFError):
                continue
            opened += 1
        assert opened == 32
        assert get(server)[0] == 200  # a page still opens
    with ExitStack() as stack:
        for _ in range(200):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
        silent.settimeout(10)
        assert silent.recv(1) == b""  # closed at once: those before it have all places
    deadline = time.monotonic() + 10
    while True:  # the closed ones are noticed one by one
        try:
            assert get(server)[0] == 200
            break
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < deadline


SILENT = """
import sys
import pixelq.viewer.guard as guard
guard._SILENT_SECONDS = 0.2
from pixelq.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_who_says_nothing_is_shown_out_but_not_who_listens(tmp_path):
    with (
        served("dashboard", tmp_path, program=["-c", SILENT]) as server,
        live(server) as page,
        socket.create_connection(("127.0.0.1", server.port)) as silent,
        socket.create_connection(("127.0.0.1", server.port)) as slow,
    ):
        slow.sendall(b"GET / HTTP/1.1\r\nHost: local")
        assert silent.recv(1) == b""
        assert slow.recv(1) == b""
        assert page.ping().wait(5)


def test_for_others_than_this_machine_there_is_a_token(tmp_path):
    with served("dashboard", tmp_path, "--host", "0.0.0.0") as server:
        path, token = server.url.split("?token=")
        assert len(token) >= 20
        assert not path.startswith("http://0.0.0.0")
        assert get(server)[0] == 403
        assert get(server, "/static/dashboard.js")[0] == 403
        assert get(server, "/?token=" + "x" * 22)[0] == 403
        assert get(server, f"/?token={token}")[0] == 200
        assert get(server, "/static/dashboard.js", Cookie=f"pixelq-{server.port}={token}")[0] == 200
        with pytest.raises(InvalidHandshake):
            live(server)
        with live(server, additional_headers={"Cookie": f"pixelq-{server.port}={token}"}) as page:
            assert "cards" in page.recv(timeout=10)


def test_bad_input_is_one_line_with_status_2(tmp_path):
    words = [sys.executable, "-m", "pixelq", "dashboard", str(tmp_path / "none")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == f"pixelq: {tmp_path}/none is no folder: give the folder that holds the runs, or a run\n"
