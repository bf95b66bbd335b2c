"""The server of `pixelq watch`: a conversation, attacks, and what is left when the pages have gone."""

import asyncio
import contextlib
import http.client
import json
import os
import socket
import threading
import time
import zlib
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import connect

from agents import write_agent, write_checkpoint
from browser import run_async, served
from pixelq.cli.main import main
from pixelq.evaluation.players import RandomAgent
from pixelq.viewer.play import LiveGame
from pixelq.viewer.watch import MOST_GAMES, Watch


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that withstands the whole module; it may say nothing on stderr."""
    agent = write_agent(tmp_path_factory.mktemp("agents") / "catch.safetensors")
    with served("watch", agent, "--seed", 5) as server:
        yield server


def visit(server, *, query="", **parts):
    """A page's connection."""
    host = urlsplit(server.url).hostname
    parts = {"origin": f"http://{host}:{server.port}", "compression": None, "max_size": None, **parts}
    return connect(f"ws://{host}:{server.port}/play{query}", **parts)


def say(page, **entries):
    page.send(json.dumps(entries))


def hear(page):
    """The next answer, without its pixels."""
    message = page.recv(timeout=20)
    if isinstance(message, str):
        return json.loads(message)
    length = int.from_bytes(message[:4], "little")
    facts = json.loads(message[4 : 4 + length])
    return facts | {"bytes": len(zlib.decompress(message[4 + length :]))}


def let_in(server, stack):
    """A page that is let in, and its state; those before may be counted out only a little after they went."""
    for _ in range(100):
        with contextlib.ExitStack() as tried, contextlib.suppress(ConnectionClosed, InvalidMessage, OSError):
            page = tried.enter_context(visit(server))
            state = hear(page)
            assert state["type"] == "state"
            stack.enter_context(tried.pop_all())
            return page, state
        time.sleep(0.1)
    raise AssertionError("games are left over")


@contextlib.contextmanager
def playing(server):
    """A page that was told its state and its first moment."""
    with contextlib.ExitStack() as stack:
        page, _ = let_in(server, stack)
        hear(page)
        yield page


@contextlib.contextmanager
def full(server):
    """As many pages as there may be, each told its state."""
    with contextlib.ExitStack() as stack:
        yield [let_in(server, stack)[0] for _ in range(MOST_GAMES)]


def settled(server):
    """Wait until every game is given back."""
    with full(server):
        pass


# a conversation


@pytest.mark.slow
def test_a_page_is_told_the_state_and_the_first_moment(server):
    with contextlib.ExitStack() as stack:
        page, state = let_in(server, stack)
        assert (state["type"], state["game"], state["actions"]) == ("state", "catch", ["NOOP", "RIGHT", "LEFT"])
        assert (state["seed"], state["sticky"], state["holder"], state["sees"]) == (5, 0.0, "agent", True)
        assert state["name"].endswith("catch.safetensors")
        assert "ε 0.01" in state["conditions"]
        moment = hear(page)
        assert (moment["type"], moment["number"], moment["action"]) == ("moment", 1, None)
        assert moment["bytes"] == 84 * 84 * 3 + 4 * 84 * 84
        page.close()


@pytest.mark.slow
def test_every_request_is_answered_in_order(server):
    with playing(server) as page:
        say(page, do="next", keys=[])
        say(page, do="epsilon", value=0.5)
        say(page, do="joystick", holder="person")
        say(page, do="next", keys=["left"])
        say(page, do="restart", seed=9, sticky=0.25)
        say(page, do="next", keys=["right"])
        answers = [hear(page) for _ in range(7)]
    kinds = ["moment", "state", "state", "moment", "state", "moment", "moment"]
    assert [answer["type"] for answer in answers] == kinds
    assert answers[1]["epsilon"] == 0.5
    assert "ε 0.5" in answers[1]["conditions"]
    assert answers[2]["holder"] == "person"
    assert (answers[3]["action"], answers[3]["chooser"]) == (2, "person")
    assert (answers[4]["seed"], answers[4]["sticky"], answers[4]["holder"]) == (9, 0.25, "person")
    assert (answers[5]["action"], answers[6]["action"]) == (None, 1)
    assert answers[6]["scores"]["person"]["steps"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gradient", "occlusion"])
def test_a_look_is_a_map_of_its_moment(server, kind):
    with playing(server) as page:
        say(page, do="look", number=1, kind=kind)
        answer = hear(page)
        assert (answer["type"], answer["number"], answer["kind"], answer["found"]) == ("look", 1, kind, True)
        assert answer["bytes"] == 84 * 84
        say(page, do="look", number=2**40, kind=kind)
        answer = hear(page)
        assert (answer["found"], answer["bytes"]) == (False, 0)


def test_two_pages_do_not_share_a_game(server):
    with playing(server) as one, playing(server) as other:
        say(one, do="joystick", holder="person")
        assert hear(one)["holder"] == "person"
        say(other, do="next", keys=["left"])
        moment = hear(other)
        assert (moment["number"], moment["holder"]) == (2, "agent")


@pytest.mark.slow
def test_a_run_is_followed(tmp_path):
    run = write_checkpoint(tmp_path / "run", 100)
    with served("watch", run) as server, visit(server) as page:
        hear(page)
        assert hear(page)["trained"] == 100
        write_checkpoint(run, 200)
        trained, end = 100, time.monotonic() + 20
        while trained == 100 and time.monotonic() < end:
            say(page, do="next", keys=[])
            trained = hear(page)["trained"]
            time.sleep(0.05)
        assert trained == 200


# the page's files


def get(server, path, **headers):
    connection = http.client.HTTPConnection(urlsplit(server.url).hostname, server.port, timeout=10)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response, body


def test_the_page_and_its_files_are_there_and_nothing_else(server):
    response, page = get(server, "/")
    assert response.status == 200
    assert response.headers["content-security-policy"].startswith("default-src 'self'")
    assert "http://" not in page
    assert "https://" not in page
    for name in ("watch.js", "watch-draw.js", "watch.css"):
        response, text = get(server, f"/static/{name}")
        assert response.status == 200
        assert "//cdn" not in text
    for path in ("/static/", "/static/../watch.py", "/static/%2e%2e/watch.py", "/static//etc/passwd", "/play", "/x"):
        assert get(server, path)[0].status in (404, 405)


# attacks; after each the server must go on


@pytest.fixture
def _goes_on(server):
    yield
    settled(server)


@pytest.mark.usefixtures("_goes_on")
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", None])
def test_a_foreign_page_is_not_let_in(server, origin):
    with pytest.raises(InvalidStatus) as error:
        visit(server, origin=origin)
    assert error.value.response.status_code == 403


@pytest.mark.usefixtures("_goes_on")
def test_a_rebound_name_is_not_let_in(server):
    assert get(server, "/", Host="evil.example")[0].status == 400
    assert get(server, "/static/watch.js", Host=f"evil.example:{server.port}")[0].status == 400
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(
            b"GET /play HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 403")


@pytest.mark.slow
def test_for_others_there_is_a_token(tmp_path):
    with served("watch", write_agent(tmp_path / "a.safetensors"), "--host", "0.0.0.0") as server:
        (token,) = parse_qs(urlsplit(server.url).query)["token"]
        with pytest.raises(InvalidStatus):
            visit(server)
        with pytest.raises(InvalidStatus):
            visit(server, query="?token=guess")
        assert get(server, "/")[0].status == 403
        assert get(server, "/static/watch.js")[0].status == 403
        response, _ = get(server, f"/?token={token}")
        assert response.status == 200
        cookie = response.headers["set-cookie"].split(";")[0]  # what the page's own requests carry
        assert get(server, "/static/watch.js", Cookie=cookie)[0].status == 200
        with visit(server, additional_headers={"Cookie": cookie}) as page:
            assert hear(page)["type"] == "state"


def refusal(server, *messages):
    """How the server ends a visit in which these are sent."""
    with playing(server) as page, pytest.raises(ConnectionClosed) as error:  # noqa: PT012
        for message in messages:
            page.send(message)
        while True:
            hear(page)
    return error.value.rcvd


@pytest.mark.usefixtures("_goes_on")
@pytest.mark.parametrize("message", ["x" * 10_000_000, b"\0" * 10_000_000, '{"keys": [' + '"left",' * 1_500_000])
def test_ten_megabytes_are_too_many(server, message):
    closed = refusal(server, message)
    assert closed is None or closed.code == 1009  # the connection may break before the goodbye is read


@pytest.mark.usefixtures("_goes_on")
@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("nonsense", "must be JSON"),
        ('{"do": "epsilon", "value": NaN}', "must be JSON"),
        ('{"do": "epsilon", "value": 1e400}', '"value" is Infinity: must be a number from 0 to 1'),
        ('{"do": "restart", "seed": 1e300, "sticky": 0}', '"seed" is 1e+300: must be a whole number'),
        ('{"do": "restart", "seed": ' + "9" * 4_000 + ', "sticky": 0}', '"seed" is 9999'),
        (
            '{"do": "next", "keys": [["up"]]}',
            '"keys" is [["up"]]: must be a list of any of',
        ),
        ('{"do": "' + "ü" * 5_000 + '"}', '"do" is'),
        ("[" * 60_000, "must be JSON"),
        (b'{"do": "next", "keys": []}', "a message must be text"),
        (b"", "a message must be text"),
    ],
)
def test_nonsense_ends_the_visit_with_a_reason(server, message, reason):
    closed = refusal(server, message)
    assert closed.code == 1008
    assert reason in closed.reason


@pytest.mark.usefixtures("_goes_on")
def test_maps_are_computed_one_at_a_time(server):
    look = json.dumps({"do": "look", "number": 1, "kind": "occlusion"})
    assert refusal(server, *[look] * 3).reason == "one look at a time"


@pytest.mark.usefixtures("_goes_on")
@pytest.mark.slow
def test_no_page_can_hurry_the_server(server):
    with playing(server) as page:
        started = time.monotonic()
        for _ in range(150):
            say(page, do="next", keys=[])
        for _ in range(150):
            hear(page)
        assert time.monotonic() - started > 0.9  # 150 / 120, less what may be caught up


@pytest.mark.usefixtures("_goes_on")
def test_pages_that_vanish_leave_nothing_behind(server):
    for _ in range(12):
        # those before may still be counted, and this one be refused
        with contextlib.suppress(ConnectionClosed), visit(server) as page:
            for _ in range(5):
                say(page, do="next", keys=[])
            page.socket.shutdown(socket.SHUT_RDWR)  # no goodbye
    settled(server)


@pytest.mark.slow
def test_a_page_too_many_is_told_why_and_comes_in_when_another_has_gone(server):
    with full(server) as pages:
        with visit(server) as page, pytest.raises(ConnectionClosed) as error:
            hear(page)
        assert error.value.rcvd.code == 1013
        assert error.value.rcvd.reason == "4 pages watch already: close one of them, then load this one"
        for page in pages:  # they play on
            hear(page)
            say(page, do="next", keys=[])
            assert hear(page)["type"] == "moment"
    settled(server)


@pytest.mark.usefixtures("_goes_on")
@pytest.mark.slow
def test_two_hundred_connections_are_bounded(server):
    refused = 0
    with full(server), contextlib.ExitStack() as stack:
        for _ in range(200):
            try:
                hear(stack.enter_context(visit(server, open_timeout=10)))
            except (ConnectionClosed, InvalidStatus, OSError, EOFError):
                refused += 1
        assert refused == 200
    with contextlib.ExitStack() as stack:  # and such as say nothing
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))


# what is left


def emulator_threads():
    """Threads of this process that Python has not started."""
    return len(os.listdir("/proc/self/task")) - threading.active_count()


def settled_threads():
    """The same, once no more of them end."""
    count, since = emulator_threads(), time.monotonic()
    while time.monotonic() < since + 1:
        time.sleep(0.01)
        if emulator_threads() != count:
            count, since = emulator_threads(), time.monotonic()
    return count


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="counts threads in /proc")
@pytest.mark.slow
def test_emulators_are_freed_when_the_pages_close(monkeypatch):
    closed = []
    close = LiveGame.close

    def count(self):
        closed.append(self)
        close(self)

    monkeypatch.setattr(LiveGame, "close", count)
    watch = Watch(lambda: RandomAgent("breakout"), "random")

    async def page(leave, first):
        """A page that stays until it is told to leave, as the server sees it."""
        told = iter([{"type": "websocket.connect"}])

        async def receive():
            with contextlib.suppress(StopIteration):
                return next(told)
            await leave.wait()
            return {"type": "websocket.disconnect", "code": 1001}

        async def send(message):
            if message.get("bytes"):
                first.set()

        scope = {"type": "websocket", "path": "/play", "headers": [], "query_string": b"", "subprotocols": []}
        await watch.app(scope, receive, send)

    async def visits():
        leave, firsts = asyncio.Event(), [asyncio.Event() for _ in range(3)]
        pages = [asyncio.create_task(page(leave, first)) for first in firsts]
        for first in firsts:
            await asyncio.wait_for(first.wait(), 30)
        open_now = (watch.games, emulator_threads(), len(closed))
        leave.set()
        await asyncio.gather(*pages)
        return open_now

    run_async(visits())  # threads that libraries start once and keep
    closed.clear()
    before = settled_threads()
    assert run_async(visits()) == (3, before + 6, 0)
    assert (watch.games, settled_threads(), len(closed)) == (0, before, 3)


# the command


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "AGENT is missing: pixelq watch AGENT"),
        (
            ["nowhere"],
            "nowhere does not exist: give a run directory, a .safetensors file or an agent that ships: breakout",
        ),
        (["random", "--port", "70000"], "--port is 70000: must be between 0 and 65535"),
        (["random", "--port", "x"], "--port is x: must be a whole number"),
        (["random", "--seed", "-1"], "--seed is -1: must be between 0 and 2147483647"),
        (["random", "--game", "brekout"], 'unknown game "brekout" (did you mean "breakout"?); see: pixelq games'),
        (["random", "--hots", "0.0.0.0"], 'unknown option --hots (did you mean "--host"?); see: pixelq watch --help'),
        (["random", "--host", "no.such.host.invalid"], "--host no.such.host.invalid is unknown"),
    ],
)
@pytest.mark.slow
def test_a_wrong_word_is_one_line(capsys, words, line):
    assert main(["watch", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"pixelq: {line}")
    assert err.count("\n") == 1
