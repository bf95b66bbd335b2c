"""The dashboard: its messages, that no path leaves the folder, and its page in a real browser."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from array import array
from urllib.parse import quote

import pytest
from websockets.sync.client import connect

from browser import served
from rundirs import add_evaluation, add_video, append, make_run, record


def get(server, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), text


def decode(block):
    """A block of numbers: its header and its columns."""
    length = int.from_bytes(block[:4], "little")
    header = json.loads(block[4 : 4 + length])
    numbers = array("d", block[4 + length :])
    rows = header["rows"]
    return header, {key: list(numbers[i * rows : (i + 1) * rows]) for i, key in enumerate(header["keys"])}


@pytest.mark.slow
def test_a_page_is_told_what_there_is_and_then_what_is_new(tmp_path):
    run = make_run(tmp_path / "one", [1.0, 2.0])
    own = {"origin": None, "proxy": None}
    with served("dashboard", tmp_path) as server:
        own["origin"] = f"http://127.0.0.1:{server.port}"
        with connect(f"ws://127.0.0.1:{server.port}/live", **own) as page:
            cards = json.loads(page.recv(timeout=10))
            if not cards["cards"]:  # the run is found, and not read yet
                assert cards["count"] == 1
                cards = json.loads(page.recv(timeout=10))
            assert (cards["count"], [card["name"] for card in cards["cards"]], cards["gone"]) == (1, ["one"], [])
            header, columns = decode(page.recv(timeout=10))
            assert (header["run"], header["start"]) == ("one", 0)
            assert columns["train/return_per_game"] == [1.0, 2.0]
            append(run, record(300, 3.0))
            header, columns = decode(page.recv(timeout=10))
            assert header["start"] == 2  # only what is new
            assert columns["step"] == [300]
            os.truncate(run / "metrics.jsonl", len(record(100, 1.0)))
            header, columns = decode(page.recv(timeout=10))
            assert header["start"] == 0  # all of it, since it has changed
            assert columns["train/return_per_game"] == [1.0]
            shutil.rmtree(run)
            cards = json.loads(page.recv(timeout=10))
            assert (cards["count"], cards["cards"], cards["gone"]) == (0, [], ["one"])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of runs beside a private file, and its server."""
    root = tmp_path_factory.mktemp("house")
    (root / "secret.mp4").write_text("secret")
    (root / "secret.txt").write_text("secret")
    run = make_run(root / "runs" / "a b" / "run", [1.0])
    add_video(run)
    (run / "videos" / "link.mp4").symlink_to(root / "secret.mp4")
    (root / "runs" / "out").symlink_to(root)
    (run / "notes.txt").write_text("secret")
    with served("dashboard", root / "runs") as server:
        yield server


UP = ["../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%5c", "..\\", "%252e%252e%252f", "..%c0%af", "....//", "//", "%00/"]


@pytest.mark.parametrize("up", UP)
def test_no_path_leaves_the_folder(place, up):
    for start in ("/", "/static/", "/static/vendor/", "/videos/", "/videos/a%20b/run/", "/live/"):
        for depth in (1, 2, 3, 12):
            for end in ("secret.mp4", "etc/passwd", "run/config.json", "guard.py"):
                status, _, text = get(place, start + up * depth + quote(end))
                assert status in (400, 404, 405), start + up * depth + end
                assert b"secret" not in text
                assert b"root:" not in text


def test_only_videos_of_runs_are_given(place):
    status, headers, text = get(place, "/videos/a%20b/run/step-000000001000.mp4")
    assert (status, headers["content-type"]) == (200, "video/mp4")
    status, headers, part = get(place, "/videos/a%20b/run/step-000000001000.mp4", Range="bytes=100-199")
    assert (status, part) == (206, text[100:200])  # what a player needs to jump
    links = ("videos/a%20b/run/link.mp4", "videos/out/secret.mp4", "videos/out/runs/a%20b/run/step-000000001000.mp4")
    others = ("videos/a%20b/run/notes.txt", "videos/a%20b/run/config.json", "videos/", "config.json")
    for path in (*links, *others, "static/", "static"):
        assert get(place, f"/{path}")[0] in (307, 404), path


def test_the_page_asks_for_nothing_that_is_not_in_it():
    static = os.path.join(os.path.dirname(__import__("pixelq").__file__), "viewer", "static")
    names = [name for name in os.listdir(static) if name.endswith((".html", ".js", ".css"))]
    assert len(names) >= 8
    for name in names:
        with open(os.path.join(static, name), encoding="utf-8") as file:
            text = file.read()
        assert not re.search(r"https?://|innerHTML|eval\(|<style|style=|onclick=", text), name


@pytest.fixture
def runs(tmp_path):
    for seed in (1, 2, 3):
        run = make_run(tmp_path / f"plain-s{seed}", [seed * i / 10 for i in range(100)], seed=seed)
        add_evaluation(run, [10.0 * seed, 20.0, 30.0], step=10_000)
    other = make_run(tmp_path / "other", [i / 5 for i in range(60)], target_period_steps=77)
    add_video(other, 5_000)
    add_video(other, 6_000)
    return tmp_path


def drawn(page, runs):
    page.wait_for_selector(f"#charts[data-runs='{runs}'] .first canvas")


def texts(page, selector):
    return page.locator(selector).all_inner_texts()


@pytest.mark.slow
def test_everything_is_shown(runs, page):
    with served("dashboard", runs) as server:
        page.goto(server.url)
        drawn(page, 4)
        assert [re.split(r"\s{2,}|\n", text)[0] for text in texts(page, "#list li")] == [
            "other",
            *(f"plain-s{seed}" for seed in (1, 2, 3)),
        ]
        captions = texts(page, "#charts figcaption")
        assert [caption.split(" raw")[0].split(" clipped")[0] for caption in captions[:2]] == [
            "Return per game",
            "Return per life",
        ]
        scores = texts(page, "#scores tbody tr")
        assert len(scores) == 3
        assert "26.67" in scores[0]  # the best first: (30 + 20 + 30) / 3
        assert "up to 30 no-ops" in page.inner_text("#scores")
        assert texts(page, "#settings thead th") == ["Run", "seed", "target_period_steps"]
        assert "A processor" in page.inner_text("#machine")
        assert "10,000" in page.inner_text("#progress")
        # three seeds are one line with a band, the other run one line and its unsmoothed self behind it
        assert page.get_attribute("#charts .first", "data-series") == "5"
        page.uncheck("#together")
        assert page.get_attribute("#charts .first", "data-series") == "8"  # each with its unsmoothed self
        page.fill("#smoothing", "0")
        assert page.get_attribute("#charts .first", "data-series") == "4"
        page.fill("#filter", "plain")
        drawn(page, 3)
        page.fill("#filter", "")
        page.click("#none")
        drawn_none = page.wait_for_selector("#charts[data-runs='0']", state="attached")
        assert drawn_none.query_selector_all(".chart") == []
        page.click("#all")
        drawn(page, 4)
        page.click("li[data-run=other] .about")
        assert "keras_adam" in page.inner_text("#about")


@pytest.mark.slow
def test_a_run_that_went_on_elsewhere_names_each_machine_and_commit(tmp_path, page):
    first = {"git": {"commit": "a" * 40, "dirty": False}, "cpu": "One", "cores": 2}
    again = [
        {"step": 2_000, "command": "pixelq resume", "started": "2026-01-02T00:00:00+00:00"},  # nothing is another
        {"step": 3_000, "git.commit": "b" * 40, "cpu": "Two"},
        {"step": 4_000, "git": None},  # an installed package, on the first machine again
        "damaged",
        {"git.commit": "b" * 40, "cpu": "Two"},
    ]
    for name, resumed in (("moved", again), ("odd", "damaged"), ("stayed", None)):
        run = make_run(tmp_path / name, [1.0])
        (run / "provenance.json").write_text(json.dumps(first | ({"resumed": resumed} if resumed else {})))
    with served("dashboard", tmp_path) as server:
        page.goto(server.url)
        drawn(page, 3)
        rows = [re.split(r"\t", text) for text in texts(page, "#machine tbody tr")]
    assert [(row[0], row[-2], row[-1]) for row in rows] == [
        ("One", "a" * 9, "moved, odd, stayed"),
        ("Two", "b" * 9, "moved from step 3,000"),
        ("One", "–", "moved from step 4,000"),
    ]


@pytest.mark.slow
def test_it_is_used_with_the_keyboard(runs, page):
    with served("dashboard", runs) as server:
        page.goto(server.url)
        drawn(page, 4)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.focus("input[name=axis][value=steps]")
        page.keyboard.press("ArrowRight")
        assert page.is_checked("input[name=axis][value=frames]")
        page.focus(".first .plot")
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        assert "emulator frames" in page.inner_text(".first .reading")
        assert "plain · 3 seeds" in page.inner_text(".first .reading")
        page.keyboard.press("+")
        assert page.is_visible("#whole")
        page.keyboard.press("0")
        assert not page.is_visible("#whole")
        page.focus("li[data-run=other] input")
        page.keyboard.press("Space")
        drawn(page, 3)


@pytest.mark.slow
def test_no_mean_is_drawn_past_the_end_of_the_shortest_seed(tmp_path, page):
    for seed, length in ((1, 100), (2, 50), (3, 50)):
        make_run(tmp_path / f"plain-s{seed}", [30.0 if length == 50 else 20.0] * length, seed=seed)
    with served("dashboard", tmp_path) as server:
        page.goto(server.url)
        drawn(page, 3)
        assert page.get_attribute("#charts .first", "data-series") == "4"  # a band of two, the mean, a seed alone
        page.focus("#charts .first .plot")
        for key, says, not_said in (("Home", "plain · 3 seeds", "alone"), ("End", "plain-s1 alone", "seeds")):
            page.keyboard.press(key)
            reading = page.inner_text(".first .reading")
            assert says in reading
            assert not_said not in reading


@pytest.mark.slow
def test_a_video_plays_in_the_page(runs, page):
    with served("dashboard", runs) as server:
        page.goto(server.url)
        drawn(page, 4)
        page.locator("#videos").scroll_into_view_if_needed()
        page.wait_for_selector("#videos video[src$='other/step-000000006000.mp4']")  # the newest
        page.select_option("#videos select", "step-000000005000.mp4")
        page.wait_for_selector("#videos video[src$='other/step-000000005000.mp4']")
        played = page.evaluate(
            """async () => {
                const video = document.querySelector("#videos video");
                await video.play();
                while (video.currentTime < 0.3) await new Promise((done) => setTimeout(done, 20));
                return [video.videoWidth, video.videoHeight, video.error];
            }"""
        )
        assert played == [64, 80, None]


TRAIN = (
    "train keras-example --game catch --total-steps 1000000 --log-every-steps 40 --threads 1 --video-every-episodes 0 "
    "--network.channels 4 4 4 --network.hidden 16 --replay.capacity 2000 --replay.batch-size 8 --replay.train-period 8"
)


@pytest.mark.slow
def test_a_run_that_trains_is_watched_while_it_grows(tmp_path, page):
    with served("dashboard", tmp_path) as server:
        page.goto(server.url)
        page.wait_for_selector("#link.live")
        assert page.is_visible("#nothing")
        page.evaluate("window.never = 'reloaded'")
        words = [sys.executable, "-m", "pixelq", *TRAIN.split(), "--run", str(tmp_path / "live")]
        training = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            page.wait_for_selector("li[data-run=live] .running", timeout=30_000)
            drawn(page, 1)
            before = int(page.get_attribute("li[data-run=live]", "data-points"))
            page.wait_for_selector(f"li[data-run=live][data-points]:not([data-points='{before}'])")
            assert int(page.get_attribute("li[data-run=live]", "data-points")) > before > 0
        finally:
            training.send_signal(signal.SIGTERM)
            training.wait()
        page.wait_for_selector("li[data-run=live] .stopped")
        assert page.evaluate("window.never") == "reloaded"


@pytest.mark.slow
def test_runs_may_go_be_cut_and_the_server_come_back(runs, page):
    with served("dashboard", runs) as server:
        page.goto(server.url)
        drawn(page, 4)
        shutil.rmtree(runs / "plain-s3")
        drawn(page, 3)
        metrics = runs / "other" / "metrics.jsonl"
        os.truncate(metrics, metrics.stat().st_size // 2)
        page.wait_for_selector(f"li[data-run=other][data-points='{metrics.read_text().count(chr(10))}']")
        hurt = runs / "hurt"
        hurt.mkdir()
        (hurt / "config.json").write_text('{"game": "bre')
        (hurt / "metrics.jsonl").write_text('{"step": 1, "tra')
        page.wait_for_selector("li[data-run=hurt]")
        drawn(page, 3)
    page.wait_for_selector("#link.lost")
    shutil.rmtree(runs / "other")
    with served("dashboard", runs, port=server.port):
        drawn(page, 2)
        assert page.inner_text("#link") == "live"


@pytest.mark.slow
def test_with_a_token_the_page_works_and_the_address_forgets_it(runs, page):
    with served("dashboard", runs, "--host", "0.0.0.0") as server:
        page.goto(re.sub(r"//[^:/]+", "//127.0.0.1", server.url))
        drawn(page, 4)
        assert "token" not in page.url
        page.reload()
        drawn(page, 4)


@pytest.mark.slow
def test_what_is_done_to_the_numbers(runs, page):
    """Worked out by hand."""
    with served("dashboard", runs) as server:
        page.goto(server.url)

        def maths(expression):
            return page.evaluate(f"async () => {{ const m = await import('/static/maths.js'); return {expression}; }}")

        assert maths("m.finitePoints([1, 2, 2, 3, 4], [5, NaN, 6, 7, Infinity])") == {"x": [1, 2, 3], "y": [5, 6, 7]}
        # two points half of whose weight is lost between them: 4, (4/2 + 8) / (1/2 + 1)
        halves = maths("m.smooth({x: [0, 1], y: [4, 8]}, 1 / Math.LN2).y")
        assert halves == pytest.approx([4, 10 / 1.5])
        assert maths("m.smooth({x: [0, 1], y: [4, 8]}, 0).y") == [4, 8]
        assert maths("m.onGrid({x: [1, 3], y: [10, 20]}, [0, 1, 1.5, 3, 4])") == [None, 10, 12.5, 20, None]
        found = maths("m.band([[1, null, 3], [3, null, null]])")
        assert found == {"mean": [2, None, None], "low": [1, None, None], "high": [3, None, None]}
        curves = "[[1, 2, 3, null], [null, 4, 5, null], [6, 7, 8, 9]]"
        assert maths(f"m.beyond({curves})") == [{"index": 2, "values": [None, None, 8, 9]}]
        assert maths("m.beyond([[1, 2], [3, 4]])") == []
        apart = [{"index": 0, "values": [1, None]}, {"index": 1, "values": [None, 2]}]
        assert maths("m.beyond([[1, null], [null, 2]])") == apart
        assert maths("m.differing([{a: 1, b: [1, 2], c: 3}, {a: 1, b: [1, 3]}])") == ["b", "c"]
        briefly = maths("[0, 0.5, -12.34, 123456, 2.5e6, NaN].map(m.brief)")
        assert briefly == ["0.00", "0.500", "−12.3", "123k", "2.5M", "–"]
        assert maths("[59.6, 3725].map(m.clock)") == ["1:00", "1:02:05"]
        values = "[null, true, [1, null], [{step: 5, a: [1, 2]}, {step: 6}]]"
        assert maths(f"{values}.map(m.shown)") == ["–", "true", "1, –", "step 5, a 1, 2; step 6"]
