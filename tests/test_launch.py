"""What a process sets before it computes, and that it starts again at most once and with the same words."""

import os
import platform
import subprocess
import sys

import pytest

from pixelq.cli import launch, main

GLIBC = platform.libc_ver()[0] == "glibc"
SCRIPT = """
import os, sys
from pixelq.cli.launch import set_memory_and_start_again
print("begun", os.getpid(), flush=True)
set_memory_and_start_again()
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:])
"""


def environment(**given: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"} | given


def lines(env: dict[str, str]) -> list[str]:
    words = [sys.executable, "-c", SCRIPT, "a word", "--ä"]
    return subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_a_process_starts_again_once_with_its_words_and_its_number():
    first, second, last = lines(environment())
    assert first == second  # the same process
    assert last == f"{':'.join(launch._MEMORY)} ['a word', '--ä']"


@pytest.mark.parametrize("given", ["", "glibc.malloc.arena_max=2"])
def test_what_the_environment_says_stands(given):
    begun, last = lines(environment(GLIBC_TUNABLES=given))
    assert begun.startswith("begun")
    assert last == f"{given} ['a word', '--ä']"


def test_nothing_happens_without_glibc(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    monkeypatch.delenv("GLIBC_TUNABLES")
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started again"))
    launch.set_memory_and_start_again()
    assert "GLIBC_TUNABLES" not in os.environ


@pytest.mark.parametrize(("words", "again"), [(["train", "--help"], True), (["games"], False), ([], False)])
def test_only_commands_that_compute_start_again(monkeypatch, capsys, words, again):
    calls = []
    monkeypatch.setattr(sys, "argv", ["pixelq", *words])
    monkeypatch.setattr(main, "set_memory_and_start_again", lambda: calls.append(1))
    main.entry()
    assert bool(calls) is again
