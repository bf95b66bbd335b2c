"""The documentation site, built and looked at in a real browser."""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

if not os.environ.get("CI"):  # where changes are checked it must be there
    pytest.importorskip("material", reason="the extra `docs` is not installed")
    pytest.importorskip("mkdocstrings", reason="the extra `docs` is not installed")

ROOT = Path(__file__).parents[1]
PHONE = {"width": 390, "height": 844}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site's folder and its address; any warning of the build is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_every_page_in_light_and_dark_and_on_a_phone(site, page):
    folder, address = site
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html") if path.name != "404.html")
    assert len(names) > 30
    page.set_viewport_size(PHONE)
    for number, name in enumerate(names):
        page.emulate_media(color_scheme="dark" if number % 2 else "light")
        page.goto(f"{address}/{name}")
        assert page.locator("h1").count() == 1, name
        scheme = page.evaluate("document.body.dataset.mdColorScheme")
        assert scheme == ("slate" if number % 2 else "default"), name
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 1, f"{name} is {wide} pixels too wide for a phone"
        broken = page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
        assert broken == [], name


@pytest.mark.slow
def test_the_search_finds_epsilon(site, page):
    page.goto(f"{site[1]}/index.html")
    ready = page.locator(".md-search-result__meta", has_text="Type to start searching")
    ready.wait_for(state="attached")  # what is typed before is lost
    page.keyboard.press("s")
    page.locator("input.md-search__input:focus").press_sequentially("epsilon")
    found = page.locator(".md-search-result__link")
    found.first.wait_for()
    assert found.count() > 3
    assert any("settings" in link.get_attribute("href") for link in found.all())


@pytest.mark.slow
def test_mathematics_is_drawn_without_what_was_not_understood(site):
    pages = {path.name: path.read_text("utf-8") for path in (site[0] / "algorithms").glob("*.html")}
    maths = {name: re.findall(r"<math.*?</math>", text, re.DOTALL) for name, text in pages.items()}
    assert sum(map(len, maths.values())) > 20
    assert {name: found for name, all_of in maths.items() if (found := [one for one in all_of if "\\" in one])} == {}
    assert all("arithmatex" not in text for text in pages.values())


@pytest.mark.slow
def test_a_table_learns_the_maze_by_keyboard(site, page):
    page.goto(f"{site[1]}/deep-q-learning.html")
    maze = page.locator(".pixelq-maze")
    assert maze.locator(".pixelq-grid div").count() == 20
    maze.get_by_role("button", name="100 episodes").focus()
    page.keyboard.press("Enter")
    maze.get_by_text("100 episodes. The last one took").wait_for()
    page.keyboard.press("Tab")  # to «forget»
    first = maze.locator(".pixelq-grid div").first
    assert first.text_content() == "→ 0.53"  # 0.9 to the power of 6: seven steps to the goal
    page.keyboard.press("Enter")
    assert first.text_content() == "0"
    slider = maze.get_by_role("slider", name="ε")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert maze.locator("output").first.text_content() == "0.35"


@pytest.mark.slow
def test_curves_follow_their_sliders_by_keyboard(site, page):
    page.goto(f"{site[1]}/deep-q-learning.html")

    def press(box, name, key, times=1):
        slider = box.get_by_role("slider", name=name, exact=True)
        slider.focus()
        for _ in range(times):
            page.keyboard.press(key)
        return slider.get_attribute("aria-valuetext"), box.locator("[aria-live]").text_content()

    def drawn(box, kind):
        return box.locator(f"path.{kind}").get_attribute("d")

    box = page.locator(".pixelq-gamma")
    assert "A reward after 100 steps counts 37%." in box.text_content()  # 0.99 to the power of 100
    before = drawn(box, "one")
    shown, says = press(box, "γ", "Home")
    assert shown == "0.499"  # 1 − 10^−0.3
    assert "All weights add up to 2.0" in says
    assert drawn(box, "one") != before
    assert "A reward after 0 steps counts 100%." in press(box, "reward after, steps", "Home")[1]
    box = page.locator(".pixelq-target")
    assert re.search(r"reaches 90% of 10\.0 after \d+ updates", press(box, "updates between copies", "ArrowLeft", 9)[1])
    assert "does not reach 90%" in press(box, "updates between copies", "End")[1]
    assert drawn(box, "two") != drawn(box, "one")
    box = page.locator(".pixelq-epsilon")
    run, schedule = drawn(box, "two"), drawn(box, "one")
    assert "At step 100,000 ε is 1.00." in press(box, "all random until step", "End")[1]
    assert press(box, "ε at the end", "End")[0] == "0.50"
    assert drawn(box, "one") != schedule
    assert drawn(box, "two") == run  # what was recorded stays
