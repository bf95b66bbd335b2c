"""Trackers hear what metrics.jsonl says, in their own libraries, and never change or stop a run."""

import json
import logging
import threading
import time

import pytest

import pixelq.trackers.tracking as tracking
from pixelq.cli.main import main
from pixelq.errors import PixelqError
from pixelq.training.run import resume, train
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


def test_a_tracker_that_fails_is_one_line(diary, alone, tmp_path):
    def fail(*arguments):
        raise ConnectionError("no\nnetwork")

    diary.log = fail
    _, watch = go(tmp_path / "run", tracking.Tracking(["wandb"]))
    assert [note for note in watch.notes if "tracks" in note] == ["wandb tracks no more: no network"]
    assert_same_run(alone, tmp_path / "run")


def test_wandb_without_a_key_never_asks_for_one(alone, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs wandb: pip install 'pixelq[wandb]'")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    _, watch = go(tmp_path / "run", tracking.Tracking(["wandb"]))
    assert "wandb tracks no more: no API key: wandb login, or WANDB_MODE=offline" in watch.notes
    assert_same_run(alone, tmp_path / "run")


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
    for name in ("wandb", "mlflow"):
        with pytest.raises(PixelqError, match=rf"pip install 'pixelq\[{name}\]'"):
            tracking.Tracking([name])
        assert main(["train", "--run", str(tmp_path / "run"), "--track", name]) == 2
        assert f"pixelq[{name}]" in capsys.readouterr().err
    assert main(["train", "--track", "wandbb"]) == 2
    assert "--track" in capsys.readouterr().err
    run = tmp_path / "tracked"
    run.mkdir()
    (run / "trackers.json").write_text(json.dumps({"options": {"project": "p"}, "runs": {"mlflow": "1"}}))
    again = tracking.saved_tracking(tracking.RunDir(run))  # a resume goes on all the same
    assert again is not None
    assert "pixelq[mlflow]" in again._absent[0]


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
def test_mlflow_on_a_local_database_has_the_run_and_its_agent(alone, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow: pip install 'pixelq[mlflow]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = tmp_path / "run"
    monkeypatch.setattr(tracking, "_FINISH_SECONDS", 300.0)  # it makes its database
    level = logging.getLogger("alembic").level
    _, watch = go(run, tracking.Tracking(["mlflow"], tracking.TrackOptions("games", tags=("tag",))), StopAt(400))
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
    assert_same_run(alone, run)
