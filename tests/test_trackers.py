"""Trackers hear what metrics.jsonl says, in their own libraries, and never change or stop a run."""

import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import pixelq.trackers.tracking as tracking
from pixelq.cli.main import main
from pixelq.errors import PixelqError
from pixelq.extras import install_command
from pixelq.training.run import resume, train
from rundirs import add_video
from runs import Watch, assert_same_run, metrics, quick

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries' own threads

CONFIG = quick(total_steps=800)


def go(run, *trackers, config=CONFIG):
    watch = Watch(config)
    return train(config, run, progress=watch, callbacks=trackers), watch


def numbers(run):
    """What trackers must know: the numbers of metrics.jsonl by step and name, without the clock's."""
    return {
        (record["step"], name): value
        for record in metrics(run)
        for name, value in record.items()
        if name != "step" and isinstance(value, int | float)
    }


def of_clock(name):
    return name in ("seconds", "perf/steps_per_second")


class Diary:
    """A tracker that remembers."""

    def __init__(self):
        self.calls, self.seen = [], {}

    def start(self, options, run, known, settings):
        self.calls.append(("start", known))
        self.settings = settings
        return known or "number one"

    def log(self, step, metrics):
        self.seen |= {(step, name): value for name, value in metrics.items() if not of_clock(name)}

    def video(self, step, path):
        self.calls.append(("video", step))

    def finish(self, agent):
        self.calls.append(("finish", agent is not None and agent.is_file()))


@pytest.fixture
def diary(monkeypatch):
    made = Diary()
    monkeypatch.setitem(tracking.TRACKERS, "wandb", lambda: made)
    return made


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    run = tmp_path_factory.mktemp("alone") / "run"
    go(run)
    return run


class StopAt:
    def __init__(self, step):
        self.step = step

    def on_log(self, run):
        if run.step == self.step:
            run.stop()


@pytest.mark.slow
def test_a_tracker_hears_everything_and_a_resume_goes_on_with_it(diary, alone, tmp_path):
    run = tmp_path / "run"
    go(run, tracking.Tracking(["wandb"]), StopAt(400))
    assert diary.calls == [("start", None), ("finish", False)]
    assert (diary.settings["config.preset"], diary.settings["config.env.noop_max"]) == ("keras-example", 30)
    again = tracking.saved_tracking(tracking.RunDir(run))
    resume(run, progress=Watch(CONFIG), callbacks=[again])
    assert diary.calls[2:] == [("start", "number one"), ("finish", True)]
    assert diary.seen == numbers(run)
    assert_same_run(alone, run)
    assert not list(run.glob(".agent*"))


@pytest.mark.slow
def test_a_tracker_that_fails_is_one_line(diary, alone, tmp_path):
    def fail(*arguments):
        raise ConnectionError("no\nnetwork")

    diary.log = fail
    _, watch = go(tmp_path / "run", tracking.Tracking(["wandb"]))
    assert [note for note in watch.notes if "tracks" in note] == ["wandb tracks no more: no network"]
    assert_same_run(alone, tmp_path / "run")


@pytest.mark.slow
def test_wandb_without_a_key_never_asks_for_one(alone, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs wandb: pip install 'pixelq[wandb]'")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    _, watch = go(tmp_path / "run", tracking.Tracking(["wandb"]))
    assert "wandb tracks no more: no API key: wandb login, or WANDB_MODE=offline" in watch.notes
    assert_same_run(alone, tmp_path / "run")


@pytest.mark.slow
def test_a_tracker_that_hangs_holds_nothing_up(diary, alone, tmp_path, monkeypatch):
    release = threading.Event()
    diary.log = lambda *arguments: release.wait()
    monkeypatch.setattr(tracking, "_FINISH_SECONDS", 0.2)
    started = time.monotonic()
    _, watch = go(tmp_path / "run", tracking.Tracking(["wandb"]))
    release.set()
    assert time.monotonic() - started < 60
    assert "wandb is not done" in watch.notes[-1]
    assert_same_run(alone, tmp_path / "run")


def test_a_library_that_is_missing_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("pixelq.extras.importlib.util.find_spec", lambda name: None)
    for name in ("wandb", "mlflow", "trackio"):
        with pytest.raises(PixelqError, match=re.escape(install_command(name))):
            tracking.Tracking([name])
        assert main(["train", "--run", str(tmp_path / "run"), "--track", name]) == 2
        assert install_command(name) in capsys.readouterr().err
    assert main(["train", "--track", "wandbb"]) == 2
    assert "--track" in capsys.readouterr().err
    run = tmp_path / "tracked"
    run.mkdir()
    (run / "trackers.json").write_text(json.dumps({"options": {"project": "p"}, "runs": {"mlflow": "1"}}))
    again = tracking.saved_tracking(tracking.RunDir(run))  # a resume goes on all the same
    assert again is not None
    assert install_command("mlflow") in again._absent[0]


def wandb_records(path):
    """The records of an offline run, which is a log in LevelDB's format."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, part = path.read_bytes(), 7, b""  # after wandb's own header
    while place + 7 <= len(data):
        left = 32_768 - place % 32_768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(part)
            part = b""


@pytest.mark.slow
def test_wandb_offline_has_the_run(alone, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs wandb: pip install 'pixelq[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    _, watch = go(run, tracking.Tracking(["wandb"], tracking.TrackOptions("games", "mine", ("tag",))))
    assert not [note for note in watch.notes if "tracks" in note or "tracked" in note]
    (path,) = (run / "wandb").glob("offline-run-*/*.wandb")
    records = list(wandb_records(path))
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    seen = {(row["step"], name): value for row in rows for name, value in row.items() if name[0] != "_"}
    seen = {key: value for key, value in seen.items() if key[1] != "step" and not of_clock(key[1])}
    assert seen == numbers(run)
    (begun,) = {(r.run.project, r.run.display_name, *r.run.tags) for r in records if r.HasField("run")}
    assert begun == ("games", "mine", "tag")
    assert_same_run(alone, run)


@pytest.mark.slow
def test_several_at_once_have_the_run_and_its_agent_and_change_nothing(alone, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow: pip install 'pixelq[mlflow]'")
    names = ["mlflow", "tensorboard", *(name for name in ("wandb", "trackio") if importlib.util.find_spec(name))]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = tmp_path / "run"
    monkeypatch.setattr(tracking, "_FINISH_SECONDS", 300.0)  # it makes its database
    level = logging.getLogger("alembic").level
    _, watch = go(run, tracking.Tracking(names, tracking.TrackOptions("games", tags=("tag",))), StopAt(400))
    assert not [note for note in watch.notes if "tracks" in note or "tracked" in note]
    resume(run, progress=Watch(CONFIG), callbacks=[tracking.saved_tracking(tracking.RunDir(run))])
    logging.getLogger("alembic").setLevel(level)
    client = mlflow.MlflowClient()
    (experiment,) = [found for found in client.search_experiments() if found.name == "games"]
    (tracked,) = client.search_runs([experiment.experiment_id])
    names = [name for name in tracked.data.metrics if not of_clock(name)]
    history = [metric for name in names for metric in client.get_metric_history(tracked.info.run_id, name)]
    assert {(metric.step, metric.key): metric.value for metric in history} == numbers(run)
    assert (tracked.info.status, tracked.info.run_name) == ("FINISHED", "run")
    assert tracked.data.params["config.algo.gamma"] == str(CONFIG.algo.gamma)
    assert tracked.data.tags["tag"] == "true"
    kept = client.download_artifacts(tracked.info.run_id, "agent", str(tmp_path))
    from pixelq.agent import load_agent

    (agent,) = tmp_path.glob("agent/*.safetensors")
    assert kept
    assert load_agent(agent).card == load_agent(run).card
    assert load_agent(tmp_path / "tensorboard" / "games" / "run" / "agent.safetensors").card == load_agent(run).card
    assert_tensorboard_has(tmp_path / "tensorboard" / "games" / "run", run)
    assert_same_run(alone, run)


def assert_tensorboard_has(folder, run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not of_clock(tag)]
    assert {(point.step, tag) for tag in tags for point in events.Scalars(tag)} == set(numbers(run))
    for (step, tag), value in numbers(run).items():
        (found,) = [point.value for point in events.Scalars(tag) if point.step == step]  # once, after a resume too
        assert found == pytest.approx(value, rel=1e-6)
    (text,) = events.Tensors("settings/text_summary")
    assert b"| config.seed | 1 |" in text.tensor_proto.string_val[0]


def test_tensorboard_shows_the_beginning_of_a_video_and_keeps_runs_apart(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGDIR", str(tmp_path / "logs"))
    (tmp_path / "videos").mkdir()
    path = add_video(tmp_path, 500)
    for name in ("run", "run-2"):
        tracker = tracking.TRACKERS["tensorboard"]()
        place = tracker.start(tracking.TrackOptions(), tmp_path / "run", None, {"config.seed": 1})
        assert place == str(tmp_path / "logs" / "pixelq" / name)
        tracker.video(500, path)
        tracker.finish(None)
        (shown,) = EventAccumulator(place).Reload().Images("video")
        assert (shown.step, shown.width, shown.encoded_image_string[:4]) == (500, 160, b"GIF8")


@pytest.mark.slow
def test_trackio_on_this_machine_has_the_run_its_video_and_its_agent(alone, tmp_path):
    """Trackio needs pillow below 13, which the other tests' environment is not: `make test-trackio`."""
    pytest.importorskip("trackio", reason="needs trackio: make test-trackio")
    script = """
import sys, trackio
from pathlib import Path
from pixelq.trackers.tracking import Tracking, TrackOptions, saved_tracking, TRACKERS
from pixelq.run.rundir import RunDir
from pixelq.training.run import resume, train
from pixelq.extras import install_command
from runs import Watch, quick
from test_trackers import CONFIG, StopAt
run, video = Path(sys.argv[1]), Path(sys.argv[2])
watch = Watch(CONFIG)
train(CONFIG, run, progress=watch, callbacks=[Tracking(["trackio"], TrackOptions("games", tags=("tag",))), StopAt(400)])
resume(run, progress=watch, callbacks=[saved_tracking(RunDir(run))])
tracker = TRACKERS["trackio"]()
tracker.start(TrackOptions("games", tags=("tag",)), run, "run", {"config.seed": 1})
tracker.video(900, video)
tracker.finish(None)
assert not [note for note in watch.notes if "tracks" in note or "tracked" in note], watch.notes
"""
    (tmp_path / "videos").mkdir()
    video = add_video(tmp_path)
    folder = str(tmp_path / "trackio")
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"TRACKIO_DIR": folder, "PYTHONPATH": path}
    words = [sys.executable, "-c", script, str(tmp_path / "run"), str(video)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    read = """
import json, trackio
from trackio.sqlite_storage import SQLiteStorage
(run,) = trackio.Api().runs("games")
logs = SQLiteStorage.get_logs("games", "run", run_id=run.id)
print(json.dumps({"name": run.name, "config": run.config, "logs": logs}, default=str))
"""
    found = subprocess.run([sys.executable, "-c", read], env=environment, capture_output=True, text=True, check=True)
    kept = json.loads(found.stdout.splitlines()[-1])
    own = ("step", "timestamp", "video")
    seen = {(row["step"], name): value for row in kept["logs"] for name, value in row.items() if name not in own}
    assert {key: value for key, value in seen.items() if not of_clock(key[1])} == numbers(tmp_path / "run")
    assert (kept["name"], kept["config"]["config.seed"], kept["config"]["tags"]) == ("run", 1, ["tag"])
    media = [path.read_bytes() for path in (tmp_path / "trackio").rglob("*") if path.is_file()]
    assert video.read_bytes() in media
    assert any(b'"pixelq"' in data[:4000] for data in media)  # the agent, whose card is in its head
    assert_same_run(alone, tmp_path / "run")
