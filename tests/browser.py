"""Shared parts of the page tests: a server as a user starts it, and a real Chromium."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
GONE = "net::ERR_CONNECTION_REFUSED"
NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium():
    """The browser's path; without one the test is skipped, but never where changes are checked."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        text = "no Chromium on this machine: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return found


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests."""
    path = find_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A tab; at the test's end it must have logged no error and asked no other host for anything."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)  # on a machine with other work
    errors, hosts = [], set()
    # a page that outlives its server looks for it
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" and GONE not in m.text else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    for event in ("request", "websocket"):
        page.on(event, lambda request: hosts.add(urlsplit(request.url).hostname))
    yield page
    context.close()
    assert errors == []
    assert hosts - {"127.0.0.1", "", None} == set()


def run_async(coroutine):
    """The result of asyncio.run in another thread, because Playwright keeps its own loop in the test's thread."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(asyncio.run, coroutine).result()


@contextmanager
def served(*words, port=0, program=("-m", "pixelq")):
    """Run `pixelq WORDS --port PORT`, give the URL it prints, and end it as Ctrl-C does; nothing may be on stderr."""
    process = subprocess.Popen(
        [sys.executable, *program, *map(str, words), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = _kill_later(process)  # a server that never starts
    try:
        url = None
        while url is None:
            line = process.stdout.readline()
            assert line, f"ended without a URL: {process.stderr.read()}"
            url = re.search(r"http://\S+", line)
        watchdog.cancel()
        yield Served(url[0], process)
    finally:
        watchdog.cancel()
        watchdog = _kill_later(process)  # or never ends
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        watchdog.cancel()
    assert process.returncode == 0, said
    assert not [line for line in said.splitlines() if "not encrypted" not in line], said


def _kill_later(process):
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    return watchdog


class Served:
    """A running server: its URL (with the token, if it has one) and its process."""

    def __init__(self, url, process):
        self.url, self.process = url, process
        self.port = urlsplit(url).port
