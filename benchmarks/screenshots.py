"""Pictures of the dashboard for the README: python benchmarks/screenshots.py RUNS OUT_FOLDER.

Writes dashboard-light.png and dashboard-dark.png (1280 × 900, two pixels a dot) and dashboard-phone.png (390 × 844).
"""

import sys
from pathlib import Path

from chromium import browser, served

_SIZES = {"light": (1280, 900), "dark": (1280, 900), "phone": (390, 844)}
_SETTLE_MS = 3_000  # the runs are read once more in full


def main(runs: str, out: str) -> None:
    """Take them."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with served(Path(runs)) as (url, _), browser() as chromium:
        for name, (width, height) in _SIZES.items():
            context = chromium.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if name == "dark" else "light",
                device_scale_factor=2,
            )
            page = context.new_page()
            page.goto(url)
            page.wait_for_selector("#charts .first canvas")
            page.wait_for_timeout(_SETTLE_MS)
            page.screenshot(path=folder / f"dashboard-{name}.png")
            print(folder / f"dashboard-{name}.png")
            context.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
