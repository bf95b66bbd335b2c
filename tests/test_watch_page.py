"""The page of `pixelq watch` in a real browser."""

import itertools
import time

import pytest

from agents import write_agent
from browser import served

CONTROLS = ("pause", "step", "slower", "faster", "joystick", "epsilon", "seed", "sticky", "restart")


@pytest.fixture(scope="module")
def breakout(tmp_path_factory):
    path = tmp_path_factory.mktemp("agents") / "breakout.safetensors"
    with served("watch", write_agent(path, "breakout", fire_after_life_loss=True)) as server:
        yield server


@pytest.fixture(scope="module")
def catch(tmp_path_factory):
    with served("watch", write_agent(tmp_path_factory.mktemp("agents") / "catch.safetensors")) as server:
        yield server


def until(page, expression, seconds=20):
    """Wait until the page says so; what Playwright itself offers runs text as code, which the page forbids."""
    end = time.monotonic() + seconds
    while not (value := page.evaluate(expression)):
        assert time.monotonic() < end, f"never: {expression}"
        time.sleep(0.02)
    return value


def visit(page, server):
    page.goto(server.url)
    until(page, "window.pixelq !== undefined && pixelq.steps > 3")
    return page


def counts(page):
    return page.evaluate("[pixelq.framesDrawn, pixelq.steps, performance.now() / 1000]")


def rates(page, seconds):
    """Frames drawn and steps shown a second."""
    frames, steps, start = counts(page)
    time.sleep(seconds)
    more_frames, more_steps, end = counts(page)
    return (more_frames - frames) / (end - start), (more_steps - steps) / (end - start)


def some_rates(page, seconds, fits):
    """Rates that fit, of several windows: on a busy machine the browser is held up now and then."""
    seen = []
    while len(seen) < 15:
        seen.append(rates(page, seconds))
        if fits(*seen[-1]):
            return
    raise AssertionError(f"none fits: {seen}")


def paddle(page):
    """The paddle's middle column, of 160."""
    return page.evaluate("""() => {
        const pixels = document.getElementById("screen").getContext("2d").getImageData(8, 190, 144, 1).data;
        const red = [...Array(144).keys()].filter((at) => pixels[4 * at] === 200 && pixels[4 * at + 1] === 72);
        return red.length ? 8 + (red[0] + red.at(-1)) / 2 : null;
    }""")


def glow(page):
    """How many pixels of the saliency map can be seen."""
    return page.evaluate("""() => {
        const pixels = document.getElementById("overlay").getContext("2d").getImageData(0, 0, 84, 84).data;
        return pixels.filter((value, at) => at % 4 === 3 && value > 8).length;
    }""")


@pytest.mark.slow
def test_sixty_frames_a_second_move_and_the_values_with_them(page, breakout):
    visit(page, breakout)
    some_rates(page, 2, lambda frames, steps: 55 <= frames <= 65 and 13.5 <= steps <= 16)
    values, pictures, planes = set(), set(), set()
    page.fill("#epsilon", "0.5")  # else one that never learned anything may stand still
    for _ in range(20):
        values.add(tuple(page.evaluate("pixelq.moment.values")))
        pictures.add(page.evaluate("document.getElementById('screen').toDataURL()"))
        planes.add(page.evaluate("document.querySelector('#planes canvas:last-child').toDataURL()"))
        time.sleep(0.1)
    assert min(map(len, (values, pictures, planes))) > 5
    moment = page.evaluate("({values: pixelq.moment.values, action: pixelq.moment.action})")
    assert len(moment["values"]) == 4
    assert page.locator("#bars .chosen .name").count() == 1
    assert page.evaluate("document.querySelectorAll('#planes canvas').length") == 4
    assert page.evaluate("document.getElementById('timeline').toDataURL().length") > 1_000
    assert page.inner_text("#trained") == "1,000 steps of training"


@pytest.mark.slow
def test_pause_and_step(page, breakout):
    visit(page, breakout)
    page.click("#pause")
    assert page.inner_text("#pause") == "Continue"
    frames, steps, _ = counts(page)
    time.sleep(0.4)
    assert counts(page)[:2] == [frames, steps]
    page.keyboard.press(".")  # to the end of the moment at hand, or of the next
    until(page, f"pixelq.framesDrawn > {frames} && !pixelq.playing")
    for press in (lambda: page.keyboard.press("."), lambda: page.click("#step")):
        frames, steps, _ = counts(page)
        press()
        until(page, f"pixelq.steps > {steps} && !pixelq.playing")
        time.sleep(0.2)
        assert counts(page)[1] == steps + 1
        assert frames < counts(page)[0] <= frames + 4
    page.keyboard.press("p")
    until(page, f"pixelq.steps > {steps + 5}")
    assert page.inner_text("#pause") == "Pause"


@pytest.mark.slow
def test_the_speed_can_be_changed(page, breakout):
    visit(page, breakout)
    page.click("#slower")
    page.keyboard.press("-")
    assert page.inner_text("#speed") == "¼×"
    some_rates(page, 2, lambda frames, steps: 13 <= frames <= 17 and 3 <= steps <= 4.5)
    for _ in range(3):
        page.keyboard.press("+")
    assert page.inner_text("#speed") == "2×"
    some_rates(page, 2, lambda frames, steps: steps >= 22)


@pytest.mark.slow
def test_the_arrow_keys_move_the_paddle_and_the_agent_gets_it_back(page, breakout):
    visit(page, breakout)
    page.keyboard.press("j")
    until(page, "pixelq.moment.holder === 'person'")
    assert page.inner_text("#joystick") == "Give it back"
    assert "playing" in page.evaluate("getComputedStyle(document.querySelector('#side-person h3'), '::after').content")
    places = {}
    for key in ("ArrowRight", "ArrowLeft"):
        page.keyboard.down(key)
        meaning = key.removeprefix("Arrow").upper()
        until(page, f"document.querySelector('#bars .by-person .name')?.textContent === '{meaning}'")
        time.sleep(0.8)
        places[key] = paddle(page)
        page.keyboard.up(key)
    assert places["ArrowRight"] > places["ArrowLeft"] + 30
    until(page, "document.querySelector('#bars .by-person .name')?.textContent === 'NOOP'")
    page.keyboard.press("Space")  # a tap shorter than a step counts
    until(page, "document.querySelector('#bars .by-person .name')?.textContent === 'FIRE'")
    assert page.inner_text("#pause") == "Pause"
    until(page, "pixelq.moment.scores.person.steps > 10")
    assert page.inner_text("#side-person [data-part=rate]").startswith("in 0:0")
    assert page.inner_text("#side-agent [data-part=rate]").startswith("in 0:0")
    page.keyboard.press("Escape")
    until(page, "pixelq.moment.holder === 'agent'")
    assert page.inner_text("#joystick") == "Take the joystick"


@pytest.mark.slow
def test_saliency_is_laid_over_the_screen(page, breakout):
    visit(page, breakout)
    assert glow(page) == 0
    for kind in ("gradient", "occlusion"):
        page.keyboard.press("s")
        assert page.get_attribute(f"[data-look={kind}]", "aria-pressed") == "true"
        until(page, f"pixelq.lookAt !== null && pixelq.lookAt.kind === '{kind}'")
        assert glow(page) > 20
        shown = page.evaluate("pixelq.lookAt.number")
        until(page, f"pixelq.lookAt.number > {shown}")  # it goes with the game
    page.click("#pause")
    until(page, "pixelq.lookAt.number === pixelq.moment.number")  # and catches up
    page.click("[data-look=off]")
    assert glow(page) == 0


@pytest.mark.slow
def test_a_seed_starts_the_same_game_again(page, breakout):
    visit(page, breakout)
    page.fill("#epsilon", "0")
    page.fill("#seed", "12")
    page.fill("#sticky", "0.25")
    page.focus("#stage")
    page.click("#pause")
    games = []
    for press in (lambda: page.click("#restart"), lambda: page.keyboard.press("r")):
        before = page.evaluate("pixelq.start.number")
        press()
        start = until(page, f"pixelq.start.number > {before} && !pixelq.playing && pixelq.start.number")
        values = []
        for number in range(start + 1, start + 16):
            page.keyboard.press(".")
            until(page, f"pixelq.moment.number === {number} && !pixelq.playing")
            values.append(page.evaluate("pixelq.moment.values"))
        games.append(values)
    assert games[0] == games[1]
    assert len(set(map(tuple, games[0]))) > 5
    assert "sticky 0.25, ε 0" in page.inner_text("#conditions")


@pytest.mark.slow
def test_a_seed_that_is_none_is_not_sent(page, catch):
    visit(page, catch)
    page.fill("#seed", "-3")
    page.click("#restart")
    time.sleep(0.2)
    assert page.evaluate("pixelq.closed") is None
    assert page.evaluate("document.getElementById('seed').matches(':invalid')")


@pytest.mark.slow
def test_a_game_ends_and_the_next_begins(page, catch):
    visit(page, catch)
    for _ in range(3):
        page.keyboard.press("+")
    until(page, "document.getElementById('banner').textContent.startsWith('Game over: ')")
    until(page, "pixelq.moment.game === 1")
    assert page.inner_text("#banner") == ""
    assert page.inner_text("#side-agent [data-part=games]").endswith("1 game")


@pytest.mark.slow
def test_controls_work_by_keyboard_alone_and_say_what_they_do(page, catch):
    visit(page, catch)
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.dataset.look"))
        if reached & {"pause"}:
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
            assert outline == "3px" or page.evaluate("document.activeElement === document.body")
    assert reached >= {*CONTROLS, "off", "gradient", "occlusion"}
    for control in CONTROLS:
        assert page.get_attribute(f"#{control}", "title") or page.locator(f"label:has(#{control})").get_attribute(
            "title"
        )
    page.focus("#pause")
    page.keyboard.press("Enter")
    assert page.inner_text("#pause") == "Continue"
    page.keyboard.press("Space")
    assert page.inner_text("#pause") == "Pause"
    page.focus("#seed")
    page.keyboard.press("p")  # is typed, not obeyed
    assert page.inner_text("#pause") == "Pause"


@pytest.mark.slow
def test_light_dark_and_phones(page, breakout):
    shades = []
    for scheme, width in itertools.product(("light", "dark"), (1280, 360)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 800})
        visit(page, breakout)
        shades.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), f"{width} px are too narrow"
        screen = page.locator("#stage").bounding_box()
        assert screen["width"] > (300 if width == 360 else 400)
        assert screen["width"] / screen["height"] == pytest.approx(160 / 210, rel=0.01)
    assert shades[0] == shades[1] != shades[2] == shades[3]


@pytest.mark.slow
def test_a_page_too_many_says_so(page, catch):
    pages = [page, *(page.context.new_page() for _ in range(4))]
    for one in pages[:4]:
        visit(one, catch)
    pages[4].goto(catch.url)
    until(pages[4], "pixelq.closed")
    assert pages[4].inner_text("#banner") == (
        "4 pages watch already: close one of them, then load this one. Reload the page to go on."
    )
    assert pages[4].is_disabled("#pause")


@pytest.mark.slow
def test_the_end_of_the_server_is_shown(page, tmp_path):
    with served("watch", write_agent(tmp_path / "a.safetensors")) as server:
        visit(page, server)
    until(page, "pixelq.closed")
    assert page.inner_text("#banner").endswith("Reload the page to go on.")


@pytest.mark.slow
def test_chance_alone_has_no_values_to_show(page):
    with served("watch", "random", "--game", "catch") as server:
        visit(page, server)
        assert page.inner_text("#values-title") == "Random actions"
        assert not page.is_visible("#timeline")
        assert page.is_disabled("[data-look=gradient]")
        assert not page.is_visible("#trained")
        page.keyboard.press("s")  # does nothing
        assert glow(page) == 0
        page.goto("about:blank")
