"""For every end of a run or of its surroundings: it saves and says so, or continues."""

import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pixelq.agent import load_agent
from pixelq.cli.main import main
from pixelq.errors import PixelqError
from pixelq.run import storage
from pixelq.run.checkpoint import CheckpointStore
from pixelq.run.newrun import free_place, new_run
from pixelq.run.rundir import RunDir, is_unborn
from pixelq.run.storage import StorageError
from pixelq.training.output import Output
from pixelq.training.run import resume, train
from pixelq.training.saving import Saver
from pixelq.training.stopping import SIGNALS, Clock, Stop
from runs import Watch, assert_same_run, go, metrics, quick

TRAIN = shlex.split(
    "train cleanrl-dqn --game catch --seed 3 --envs 2 --threads 1 --device cpu --total-steps 400 "
    "--log-every-steps 100 --checkpoint-every-steps 200 --checkpoint-min-seconds 0 --video-every-episodes 0 "
    "--network.channels 2 2 2 --network.hidden 8 --replay.capacity 500 --replay.learn-start 64"
)
ENDLESS = [*TRAIN, "--total-steps", "100000000"]


@pytest.fixture(autouse=True)
def usual_signals():
    """Signals as a terminal leaves them: the tests may run where some are ignored, a shell's background say."""
    usual = {number: signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL for number in SIGNALS}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield usual
    for number, handler in before.items():
        signal.signal(number, handler)


def command(*words):
    return [sys.executable, "-m", "pixelq", *map(str, words)]


def send(number, at, *, then=lambda: None):
    """Sends this process a signal when the run's metrics come to step `at`."""

    def act(record):
        if record["step"] == at:
            os.kill(os.getpid(), number)
            then()

    return act


def wait_for(happens, process):
    deadline = time.monotonic() + 120
    while not happens():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


# signals


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_every_signal_that_asks_to_stop_saves(tmp_path, usual_signals, number):
    result, watch = go(quick(total_steps=600), tmp_path / "run", send(number, 200))
    assert (result.step, result.interrupted) == (200, True)
    said = {signal.SIGINT: "saving; Ctrl-C again loses everything after step 0"}
    assert said.get(number, f"saving, since {number.name} asks the run to stop") in watch.notes
    assert watch.notes[-1] == f"saved at step 200; to continue: pixelq resume {tmp_path / 'run'}"
    assert load_agent(tmp_path / "run").card.step == 200
    assert {number: signal.getsignal(number) for number in SIGNALS} == usual_signals


def test_two_interrupts_at_once_are_one(tmp_path):
    again = lambda: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    result, watch = go(quick(total_steps=600), tmp_path / "run", send(signal.SIGINT, 200, then=again))
    assert (result.step, result.interrupted) == (200, True)
    assert "saving; Ctrl-C again loses everything after step 0" in watch.notes


@pytest.mark.slow
def test_a_second_interrupt_gives_up_and_says_what(tmp_path, monkeypatch):
    save, watch = Saver.save, Watch(quick(), send(signal.SIGINT, 600))

    def slow(saver, last):
        if last:
            assert watch.notes[-1] == "saving; Ctrl-C again loses everything after step 400"
            time.sleep(0.6)  # to read it
            os.kill(os.getpid(), signal.SIGINT)
        save(saver, last)

    monkeypatch.setattr(Saver, "save", slow)
    with pytest.raises(KeyboardInterrupt):
        train(quick(), tmp_path / "run", progress=watch)
    assert watch.notes[-1] == f"everything after step 400 is lost; to continue: pixelq resume {tmp_path / 'run'}"
    assert load_agent(tmp_path / "run").card.step == 400


def test_an_interrupt_of_the_last_video_ends_the_wait_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("pixelq.training.videos.Videos.final", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    result, watch = go(quick(total_steps=200), tmp_path / "run")
    assert (result.step, result.interrupted) == (200, False)
    assert watch.notes[-1] == "interrupted: no video of the final agent, all else is saved"


@pytest.mark.slow
def test_who_handles_a_signal_already_goes_on_handling_it(tmp_path):
    seen = []
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(True))
    assert go(quick(total_steps=400), tmp_path / "run", send(signal.SIGUSR1, 200))[0].step == 400
    assert seen == [True]


def test_signals_are_left_alone_outside_of_the_main_thread(tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(go(quick(total_steps=200), tmp_path / "run")[0].step))
    thread.start()
    thread.join()
    assert found == [200]


@pytest.mark.slow
def test_nohup(tmp_path):
    run = tmp_path / "run"
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(["nohup", *command(*ENDLESS, "--run", run)], stdout=out, stderr=out)
    wait_for(lambda: (run / "metrics.jsonl").exists() and metrics(run), process)
    process.send_signal(signal.SIGHUP)
    lines = len(metrics(run))
    wait_for(lambda: len(metrics(run)) > lines + 2, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert "saving, since SIGTERM asks the run to stop" in (tmp_path / "out").read_text(encoding="utf-8")


def test_a_signal_before_there_is_anything_to_save_ends_at_once_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("pixelq.training.run.begin", lambda _, background: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        go(quick(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


# stopped time


def test_time_that_the_process_is_stopped_does_not_count(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("pixelq.training.stopping.time.monotonic", lambda: now[0])
    clock = Clock()
    with clock.stops_with_the_process():
        now[0] += 5
        clock.tick()
        now[0] += 3_600
        os.kill(os.getpid(), signal.SIGCONT)
        now[0] += 2
        assert clock.lap() == 7
        now[0] += 1
        assert clock.lap() == 1
    assert signal.getsignal(signal.SIGCONT) == signal.SIG_DFL


@pytest.mark.slow
def test_a_run_that_is_stopped_and_goes_on(tmp_path):
    run = tmp_path / "run"
    process = subprocess.Popen(command(*ENDLESS, "--run", run), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: (run / "metrics.jsonl").exists() and metrics(run), process)
    process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    time.sleep(4)
    process.send_signal(signal.SIGCONT)
    stopped = time.monotonic() - began
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    lived = time.monotonic() - began
    before, after = seconds(run)[0], load_state(run)["seconds"]
    assert stopped >= 4
    assert after - before < lived  # what was played in between counts, the pause does not
    assert max(b - a for a, b in zip(seconds(run), [*seconds(run)[1:], after], strict=True)) < 3


def seconds(run):
    return [json.loads(line)["seconds"] for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def load_state(run):
    return CheckpointStore(run / "checkpoints").load_newest(sys.exit).state


# output


class Gone:
    """An output that takes nothing."""

    encoding = "utf-8"

    def __init__(self, error):
        self._error = error

    def write(self, text):
        raise self._error

    def flush(self):
        raise self._error

    def isatty(self):
        raise self._error


@pytest.mark.slow
@pytest.mark.parametrize(
    "stream",
    [None, Gone(BrokenPipeError(errno.EPIPE, "")), Gone(OSError(errno.EIO, "")), Gone(ValueError("closed file"))],
    ids=["none", "a pipe without a reader", "a terminal that is gone", "closed"],
)
def test_training_goes_on_without_output(tmp_path, monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", stream)
    assert train(quick(total_steps=400), tmp_path / "run").step == 400


def test_a_bar_on_a_terminal(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self):
            return True

    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stdout", stream)
    assert train(quick(total_steps=400), tmp_path / "run").step == 400
    assert "run directory" in stream.getvalue()
    assert "400/400" in stream.getvalue()


def test_output_is_what_standard_output_is_at_the_moment(capsys):
    print("ε – ⠋", file=Output(), end="", flush=True)
    assert capsys.readouterr().out == "ε – ⠋"


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    ["{} | head -n 1", "{} >/dev/full", "{} <&- >&- 2>&-"],
)
def test_the_command_goes_on_without_output(tmp_path, line):
    run = tmp_path / "run"
    words = shlex.join(command(*TRAIN, "--total-steps", 200, "--run", run))
    done = subprocess.run(
        ["bash", "-c", "set -o pipefail; " + line.format(words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done
    assert done.stderr == ""
    assert metrics(run)[-1]["step"] == 200
    assert load_agent(run).card.step == 200


def test_listing_ends_quietly_at_a_broken_pipe():
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shlex.join(command('games'))} | true"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# beginnings


@pytest.fixture
def full(monkeypatch):
    """A disk that is full at the n-th file."""

    def at(number):
        count, write = [0], storage.DigestWriter.write

        def count_and_write(file, data):
            count[0] += 1
            if count[0] >= number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(file, data)

        monkeypatch.setattr(storage.DigestWriter, "write", count_and_write)

    return at


@pytest.mark.parametrize("number", [1, *(pytest.param(later, marks=pytest.mark.slow) for later in (2, 5, 9))])
def test_a_run_that_fails_before_it_begins_leaves_nothing(tmp_path, full, monkeypatch, number):
    full(number)
    with pytest.raises(StorageError, match="the disk is full"):
        go(quick(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()  # a folder that was there stays
    with pytest.raises(StorageError, match="the disk is full"):
        go(quick(), tmp_path / "mine")
    monkeypatch.undo()
    assert go(quick(total_steps=200), tmp_path / "mine")[0].step == 200


@pytest.mark.slow
def test_what_a_killed_beginning_left_is_taken(tmp_path):
    left, calm = tmp_path / "left", tmp_path / "calm"
    go(quick(total_steps=200), calm)
    go(quick(total_steps=200), left)
    (left / "config.json").unlink()
    assert not is_unborn(left)  # a run that somebody took the settings from
    with pytest.raises(PixelqError, match="exists already"):
        go(quick(total_steps=200), left)
    (left / "checkpoints/step-000000000200").rename(tmp_path / "away")
    (left / "metrics.jsonl").write_bytes(b"")
    (left / "checkpoints/.tmp-step-000000000000").mkdir()
    (left / ".tmp-config.json").touch()
    assert is_unborn(left)
    go(quick(total_steps=200), left)
    assert_same_run(calm, left)
    assert len(list((left / "tb").iterdir())) == 1


@pytest.mark.parametrize(
    "mine", ["notes.txt", "checkpoints/step-000000000400/x", "videos/a.mp4", "eval/a.json", "config.json"]
)
def test_a_folder_with_anything_else_is_never_taken(tmp_path, mine):
    (tmp_path / mine).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / mine).write_text("mine", encoding="utf-8")
    assert not is_unborn(tmp_path)
    with pytest.raises(PixelqError, match="exists already"), new_run(tmp_path):
        pass
    assert (tmp_path / mine).read_text(encoding="utf-8") == "mine"


def test_two_begin_the_same_run(tmp_path):
    run = tmp_path / "run"
    with new_run(run) as first:
        with pytest.raises(PixelqError, match="is in use"), new_run(run):
            pass
        assert first.checkpoints.is_dir()  # not cleared away by the one that came second
        first.write_json("config.json", {})
    with pytest.raises(PixelqError, match="pixelq resume"), new_run(run):
        pass
    assert RunDir.open(run).config.exists()


def test_runs_without_a_name_of_the_same_second(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pixelq.run.newrun.time.strftime", lambda _: "20260101-120000")
    places = [free_place("catch-fast-s1") for _ in range(3)]
    assert [str(place) for place in places] == [f"runs/catch-fast-s1-20260101-120000{end}" for end in ("", "-2", "-3")]
    config = quick(total_steps=200)
    assert train(config, progress=Watch(config)).run_dir == Path("runs/catch-keras-example-s1-20260101-120000")


@pytest.mark.slow
def test_one_command_starts_and_goes_on(tmp_path, capsys):
    run = tmp_path / "run"
    words = [*TRAIN, "--run", str(run), "--or-resume"]
    for steps in ("200", "400"):
        assert main([*words, "--total-steps", steps]) == 0
        capsys.readouterr()
        resume(run, total_steps=400, progress=Watch(quick()))
    assert load_agent(run).card.step == 400
    assert main(words) == 0
    assert capsys.readouterr().out == f"{run} is finished, at step 400\n"
    assert main([*words, "--seed", "4"]) == 2
    error = f"pixelq: {run} is another run: seed is 3 there and 4 here; give --run a new path\n"
    assert capsys.readouterr().err == error
    assert main([*TRAIN, "--or-resume"]) == 2


# eval of what may only be read


def test_a_result_of_a_run_that_may_only_be_read(tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    go(quick(total_steps=200), run)

    def refuse(path, data):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pixelq.run.rundir.write_atomically", refuse)
    assert main(["eval", str(run), "--episodes", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1].startswith(f"not kept: cannot write {run}/eval/nature-step-200-seed1.json: the file system is read")


def test_stop_asked_by_the_program():
    stop = Stop()
    assert stop.answer(5) is None
    stop.ask()
    assert stop.asked
    assert stop.answer(5) == "saving, since SIGTERM asks the run to stop"
