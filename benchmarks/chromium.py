"""A headless Chromium and a served page for the scripts beside this one."""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

__all__ = ["browser", "served"]

_ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
_ARGUMENTS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@contextmanager
def browser() -> Iterator[Browser]:
    """The machine's Chromium."""
    path = shutil.which("chromium")
    if path is None:
        sys.exit("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield opened
        opened.close()


@contextmanager
def served(page: str, path: Path) -> Iterator[tuple[str, int]]:
    """A page, `dashboard` or `watch`, over a folder of runs or an agent: its URL and the server's process id."""
    command = [sys.executable, "-m", "pixelq", page, str(path), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        assert server.stdout is not None
        url = re.search(r"http://\S+", server.stdout.readline())
        assert url is not None, "the server did not start"
        yield url[0], server.pid
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
