"""Pictures of the pages for the README: python benchmarks/screenshots.py OUT_FOLDER [--runs FOLDER] [--agent AGENT].

Of the dashboard over a folder of runs, and of an agent at play: NAME-light.png, NAME-dark.png (1280 × 900, two pixels a
dot) and NAME-phone.png (390 × 844), NAME being dashboard or watch.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page

from chromium import browser, served

_SIZES = {"light": (1280, 900), "dark": (1280, 900), "phone": (390, 844)}
_SETTLE_MS = 3_000  # the runs are read once more in full
_PLAY_MS = 25_000  # by then the timeline is full and some bricks are gone


def _dashboard(page: Page) -> None:
    page.wait_for_selector("#charts .first canvas")
    page.wait_for_timeout(_SETTLE_MS)


def _watch(page: Page) -> None:
    page.wait_for_selector("#bars .chosen")
    page.click("button[data-look=occlusion]")
    page.wait_for_timeout(_PLAY_MS)
    page.click("#pause")


def _take(name: str, path: Path, out: Path, ready: Callable[[Page], None]) -> None:
    with served(name, path) as (url, _), browser() as chromium:
        for look, (width, height) in _SIZES.items():
            context = chromium.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if look == "dark" else "light",
                device_scale_factor=2,
            )
            page = context.new_page()
            page.goto(url)
            ready(page)
            page.screenshot(path=out / f"{name}-{look}.png")
            print(out / f"{name}-{look}.png")
            context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT_FOLDER")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="for the dashboard")
    parser.add_argument("--agent", type=Path, metavar="AGENT", help="for the watch page")
    options = parser.parse_args()
    if not (options.runs or options.agent):
        parser.error("nothing to take a picture of: give --runs, --agent or both")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.runs:
        _take("dashboard", options.runs, options.out, _dashboard)
    if options.agent:
        _take("watch", options.agent, options.out, _watch)


if __name__ == "__main__":
    main()
