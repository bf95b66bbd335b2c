"""Runs on a disk that takes no more, runs that diverge, and runs that are killed."""

import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pixelq.agent import load_agent
from pixelq.divergence import DeviceWatch, HostWatch, all_finite
from pixelq.run import storage
from pixelq.run.storage import StorageError
from pixelq.training.run import resume
from pixelq.training.saving import DivergedError
from runs import Watch, assert_same_run, edit, go, metrics, quick


class Disk:
    """A disk that can be full: no metrics and no checkpoints then, as the system would refuse them."""

    def __init__(self, monkeypatch):
        self.full = False
        self.metrics_full = False
        write, append = storage.DigestWriter.write, os.write
        monkeypatch.setattr(
            storage.DigestWriter, "write", lambda file, data: self._check(self.full) or write(file, data)
        )
        monkeypatch.setattr(
            "pixelq.run.metrics.os.write", lambda fd, data: self._check(self.metrics_full) or append(fd, data)
        )

    def _check(self, full):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def at_steps(actions):
    """Calls the action of a step when the run's metrics reach it."""
    return lambda record: actions.get(record["step"], lambda: None)()


def setter(target, **values):
    return lambda: [setattr(target, name, value) for name, value in values.items()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happened to."""
    run = tmp_path_factory.mktemp("whole") / "run"
    go(quick(), run)
    return run


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(tmp_path, whole, disk):
    run = tmp_path / "run"
    with pytest.raises(StorageError) as caught:
        go(quick(), run, at_steps({600: setter(disk, full=True)}))
    place = run / "checkpoints/step-000000000"
    assert str(caught.value) == (
        f"cannot write {place}800: the disk is full; training stops at step 800, the last good checkpoint is {place}400"
    )
    assert caught.value.exit_status == 1
    disk.full = False
    resume(run, progress=Watch(quick()))
    assert_same_run(whole, run)


@pytest.mark.slow
def test_metrics_that_cannot_be_written_stop_the_run(tmp_path, whole, disk):
    run = tmp_path / "run"
    with pytest.raises(StorageError, match=r"metrics\.jsonl: the disk is full; training stops at step 800, .*0400$"):
        go(quick(), run, at_steps({600: setter(disk, metrics_full=True)}))
    disk.metrics_full = False
    resume(run, progress=Watch(quick()))
    assert_same_run(whole, run)


@pytest.mark.slow
def test_a_run_that_keeps_going_tries_the_next_checkpoint(tmp_path, whole, disk):
    run = tmp_path / "run"
    acts = {600: setter(disk, full=True), 1_000: setter(disk, full=False)}
    _, watch = go(quick(keep_going=True), run, at_steps(acts))
    assert [note for note in watch.notes if "disk" in note] == [
        f"cannot write {run}/checkpoints/step-000000000800: the disk is full; training continues, the next checkpoint "
        f"is tried again, the last good checkpoint is {run}/checkpoints/step-000000000400",
        "the disk takes checkpoints again: saved at step 1,200",
    ]
    assert_same_run(whole, run)


@pytest.mark.slow
def test_no_line_of_metrics_is_lost_when_a_run_keeps_going(tmp_path, whole, disk):
    run = tmp_path / "run"
    seen = {}

    def look():
        seen["steps"] = [line["step"] for line in metrics(run)]
        seen["checkpoints"] = sorted(path.name for path in run.glob("checkpoints/step-*"))
        disk.metrics_full = False

    acts = {600: setter(disk, metrics_full=True), 1_000: look}
    _, watch = go(quick(keep_going=True), run, at_steps(acts))
    # no checkpoint is ahead of the lines that belong to it
    assert seen == {"steps": [200, 400, 600], "checkpoints": ["step-000000000000", "step-000000000400"]}
    assert any("the metrics wait in memory" in note for note in watch.notes)
    assert "the waiting metrics are written, 2 lines" in watch.notes
    assert_same_run(whole, run)


@pytest.mark.slow
def test_the_last_checkpoint_must_be_written_even_by_a_run_that_keeps_going(tmp_path, disk):
    with pytest.raises(StorageError, match="training stops at step 1,600"):
        go(quick(keep_going=True), tmp_path / "run", at_steps({1_400: setter(disk, full=True)}))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB, and a function that fills it up."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", folder)
    yield folder
    subprocess.run(["umount", "-R", str(folder)], check=True)


def mount(*words):
    done = shutil.which("mount") and subprocess.run(["mount", *map(str, words)], capture_output=True, check=False)
    if not done or done.returncode:
        pytest.skip("mounting needs root")


def fill(folder):
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (4_096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass


def pixelq(*words):
    """What the command line says and how it ends."""
    command = [sys.executable, "-m", "pixelq", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_really_full_disk(small_disk, whole):
    run = small_disk / "run"
    with pytest.raises(StorageError, match="the disk is full; training stops at step"):
        go(quick(), run, at_steps({600: lambda: fill(small_disk)}))
    assert load_agent(run).card.step == 400
    done = pixelq("resume", run)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"pixelq: cannot write {run}")
    assert "the disk is full" in done.stderr
    assert load_agent(run).card.step == 400
    (small_disk / "filler").unlink()
    assert pixelq("resume", run).returncode == 0
    assert_same_run(whole, run)


@pytest.mark.slow
def test_a_read_only_folder(small_disk, whole):
    run = small_disk / "run"
    folder = run / "checkpoints"

    def protect():
        mount("--bind", folder, folder)
        mount("-o", "remount,bind,ro", folder)

    with pytest.raises(StorageError, match=r"the file system is read-only; training stops at step 800, .*0400$"):
        go(quick(), run, at_steps({600: protect}))
    done = pixelq("resume", run)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "the file system is read-only; training stops at step 800" in done.stderr
    assert load_agent(run).card.step == 400
    subprocess.run(["umount", str(folder)], check=True)
    resume(run, progress=Watch(quick()))
    assert_same_run(whole, run)


@pytest.mark.slow
def test_a_video_that_fails_is_told_and_ends_nothing(tmp_path, monkeypatch):
    recorder = tmp_path / "recorder"
    recorder.write_text("#!/bin/sh\necho 'pixelq: cannot write it: the disk is full' >&2; exit 1\n")
    recorder.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(recorder))
    config = quick(total_steps=400, video_every_episodes=5)
    result, watch = go(config, tmp_path / "one")
    assert result.step == 400
    assert "no video: cannot write it: the disk is full" in watch.notes

    def refuse(*_):
        raise StorageError("cannot write the agent: the disk is full")

    monkeypatch.setattr("pixelq.training.videos.save_agent", refuse)
    result, watch = go(config, tmp_path / "two")
    assert result.step == 400
    assert "no video: cannot write the agent: the disk is full" in watch.notes
    assert list((tmp_path / "two/videos").iterdir()) == []


def spoil_gradients(monkeypatch):
    """From now on all gradients are NaN."""

    def spoil(config, norms):
        return torch.full_like(norms, torch.nan)

    monkeypatch.setattr("pixelq.engines.plain.clipping_factors", spoil)


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run_with_all_that_explains_it(tmp_path, monkeypatch, whole):
    run = tmp_path / "run"
    acts = {600: lambda: spoil_gradients(monkeypatch)}
    with pytest.raises(DivergedError) as caught:
        go(quick(), run, at_steps(acts))
    assert caught.value.exit_status == 1
    figures = r"loss {0}, gradient norm {0}, Q {0} to {0}, rewards -?[01] to -?[01], discounts [\d.]+ to 0.99; "
    number = r"-?[\d.]+(e-\d+)?"
    expected = (
        r"learning diverged at step 608, update \d+; its batch: "
        + figures.format("nan")
        + "the update before: "
        + figures.format(number)
        + rf"training stops, the last good checkpoint is {run}/checkpoints/step-000000000400; a new run .*"
    )
    assert re.fullmatch(expected, str(caught.value))
    assert metrics(run)[-1]["loss/td"] is None
    monkeypatch.undo()
    resume(run, progress=Watch(quick()))
    assert_same_run(whole, run)


def test_weights_that_are_no_numbers_are_never_saved(tmp_path, monkeypatch):
    run = tmp_path / "run"
    acts = {200: lambda: spoil_gradients(monkeypatch)}
    with pytest.raises(DivergedError, match=r"at step 200, .* the last good checkpoint is .*step-000000000104"):
        go(quick(checkpoint_every_steps=104), run, at_steps(acts))  # the next line of metrics is of step 400
    assert load_agent(run).card.step == 104


WATCHES = pytest.mark.parametrize("make_watch", [HostWatch, lambda: DeviceWatch(torch.device("cpu"))])


@WATCHES
def test_the_watch_keeps_the_first_bad_update_and_the_one_before(make_watch):
    watch = make_watch()
    assert watch.describe() == (0, "before any update")

    watch.expect(("Q", "rewards", "discounts"))

    def note(loss, reward):
        ranges = {
            "Q": torch.tensor([[1.0, -7.0]]),
            "rewards": torch.tensor([-1.0, reward]),
            "discounts": torch.tensor([0.0, 0.9]),
        }
        watch.note(torch.tensor(loss), ranges, torch.tensor([3.0, 4.0]))

    note(0.5, 1.0)
    assert not watch.found
    rest = "gradient norm 5, Q -7 to 1, rewards -1 to {}, discounts 0 to 0.9"
    assert watch.describe() == (0, "its batch: loss 0.5, " + rest.format(1))
    note(1.5, 2.0)
    note(float("inf"), 3.0)
    assert watch.found
    note(float("nan"), 4.0)
    note(2.0, 5.0)
    ago, text = watch.describe()
    assert ago == 2
    assert text == (f"its batch: loss inf, {rest.format(3)}; the update before: loss 1.5, {rest.format(2)}")


@WATCHES
@pytest.mark.parametrize("good", [0, 1, 2])
def test_an_update_without_any_number_is_an_update(good, make_watch):
    # so it is where a rollout is played with weights that are NaN: the returns are too
    watch = make_watch()
    watch.expect(("returns",))
    for value in [2.0] * good + [torch.nan] * 3:
        watch.note(torch.tensor(value), {"returns": torch.tensor([value])}, torch.tensor([value]))
    before = "; the update before: loss 2, gradient norm 2, returns 2 to 2" if good else ""
    assert watch.describe() == (2, "its batch: loss nan, gradient norm nan, returns nan to nan" + before)


@pytest.mark.parametrize(
    ("value", "finite"), [(1.0, True), (3e38, True), (torch.inf, False), (-torch.inf, False), (torch.nan, False)]
)
def test_every_number_is_looked_at(value, finite):
    tensors = [torch.arange(3), torch.zeros(2, 3), torch.ones(()), torch.zeros(5, dtype=torch.float64)]
    tensors[1][1, 2] = value
    assert all_finite(tensors) == finite


@pytest.mark.slow
@pytest.mark.parametrize(
    "signals", [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGINT), (signal.SIGKILL,)]
)
def test_a_real_process_stops_as_it_is_told_and_can_be_resumed(tmp_path, signals):
    config = quick(game="breakout", envs=2, total_steps=1_000_000, checkpoint_every_steps=50)
    go(dataclasses.replace(config, total_steps=2), run := tmp_path / "run")
    edit(run, {"total_steps": 1_000_000})
    process = subprocess.Popen(
        [sys.executable, "-m", "pixelq", "resume", str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while (
        not (run / "checkpoints/step-000000000200").exists()
        and not sorted(run.glob("checkpoints/step-*"))[-1].name > "step-000000000200"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.002)
    _, err = process.communicate(timeout=60)
    if signals[0] == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        assert "Traceback" not in err
    step = load_agent(run).card.step
    assert resume(run, total_steps=step + 100, progress=Watch(config)).step == step + 100


@pytest.mark.slow
def test_a_short_kill_storm(tmp_path):
    script = Path(__file__).parent.parent / "benchmarks/kill_storm.py"
    command = [sys.executable, str(script), "--kills", "8", "--game", "catch", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] == 8
    assert set(result["identical"].values()) == {True}
