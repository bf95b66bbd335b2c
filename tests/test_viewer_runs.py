"""Which runs a folder holds, what is said about each, and that nothing outside of it is read."""

import json
import os

import pytest

from pixelq.errors import PixelqError
from pixelq.run.reading import flat, read_evaluation, read_object, same_but_seed
from pixelq.run.rundir import RunDir
from pixelq.viewer.runs import Runs
from rundirs import add_evaluation, add_video, append, make_run, record


def look(runs):
    while not runs.refresh(1.0):
        pass
    return runs.runs


def card(runs, name):
    return look(runs)[name].card


def test_runs_are_found_some_levels_deep_and_links_are_not_followed(tmp_path):
    root, outside = tmp_path / "runs", tmp_path / "outside"
    make_run(root / "b")
    make_run(root / "sweep" / "deep" / "a")
    make_run(root / ".hidden")
    make_run(root / "b" / "checkpoints" / "inner")  # a run holds no runs
    make_run(outside / "secret")
    (root / "link").symlink_to(outside / "secret")
    (root / "links").symlink_to(outside)
    (root / "empty").mkdir()
    assert list(look(Runs(root))) == ["b", "sweep/deep/a"]


def test_a_run_by_itself_is_a_folder_of_one(tmp_path):
    run = make_run(tmp_path / "only", [1.0])
    assert list(look(Runs(run))) == ["only"]


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(PixelqError, match="nowhere is no folder: give the folder that holds the runs"):
        Runs(tmp_path / "nowhere")


def test_runs_come_grow_and_go(tmp_path):
    first = make_run(tmp_path / "first", [1.0])
    runs = Runs(tmp_path)
    assert list(look(runs)) == ["first"]
    make_run(tmp_path / "second", [1.0, 2.0])
    append(first, record(200, 5.0))
    assert [len(run.tail) for run in look(runs).values()] == [2, 2]
    first.rename(tmp_path / "third")
    assert list(look(runs)) == ["second", "third"]


def test_nothing_is_written(tmp_path):
    run = make_run(tmp_path / "run", [1.0])
    add_evaluation(run, [1.0])
    for folder, _, files in os.walk(tmp_path):
        os.chmod(folder, 0o555)
        for file in files:
            os.chmod(os.path.join(folder, file), 0o444)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    look(Runs(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    for folder, _, _ in os.walk(tmp_path):
        os.chmod(folder, 0o755)


def test_a_card_says_what_there_is(tmp_path):
    run = make_run(tmp_path / "run", [1.0] * 3, seed=7)
    add_evaluation(run, [1.0, 2.0, 6.0], step=300)
    add_video(run, 200)
    said = card(Runs(tmp_path), "run")
    assert said["config"]["seed"] == 7
    assert said["config"]["algo.gamma"] == 0.99
    assert said["provenance"]["packages.torch"] == "2"
    assert [(e["protocol"], e["step"], e["games"], e["mean"]) for e in said["evaluations"]] == [("nature", 300, 3, 3.0)]
    assert said["videos"] == [{"file": "step-000000000200.mp4", "step": 200}]
    json.dumps(said, allow_nan=False)


def test_a_card_changes_when_the_files_do_and_only_then(tmp_path):
    run = make_run(tmp_path / "run", [1.0])
    runs = Runs(tmp_path)
    versions = [look(runs)["run"].version]
    append(run, record(200))
    versions.append(look(runs)["run"].version)
    add_evaluation(run, [1.0])
    versions.append(look(runs)["run"].version)
    add_video(run)
    versions.append(look(runs)["run"].version)
    assert versions == [1, 1, 2, 3]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a":' * 3_000, "\0\0\0"])
def test_half_written_and_damaged_files_are_lived_with(tmp_path, text):
    run = make_run(tmp_path / "run", [1.0])
    for name in ("config.json", "provenance.json", "eval/nature-step-1-seed1.json"):
        (run / name).write_text(text)
    good = add_evaluation(run, [4.0], step=2)
    said = card(Runs(tmp_path), "run")
    assert (said["config"], said["provenance"]) == ({}, {})
    assert [e["file"] for e in said["evaluations"]] == [good.name]


def test_numbers_that_json_has_not_do_not_reach_the_page(tmp_path):
    run = make_run(tmp_path / "run", [1.0])
    (run / "config.json").write_text('{"a": [NaN], "b": 1e999}')
    json.dumps(card(Runs(tmp_path), "run"), allow_nan=False)


def test_deeply_nested_settings_are_lived_with(tmp_path):
    run = make_run(tmp_path / "run", [1.0])
    (run / "config.json").write_text('{"a":' * 950 + "1" + "}" * 950)
    assert card(Runs(tmp_path), "run")["name"] == "run"


def test_who_writes_a_run_is_seen_by_its_lock(tmp_path):
    run = make_run(tmp_path / "run", [1.0])
    runs = Runs(tmp_path)
    assert card(runs, "run")["state"] == "stopped"
    with RunDir(run).lock():
        assert card(runs, "run")["state"] == "running"
    assert card(runs, "run")["state"] == "stopped"


def test_without_a_list_of_locks_a_run_lives_that_has_just_written(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", [1.0])
    monkeypatch.setattr("pixelq.viewer.runs._locked_inodes", lambda: None)
    runs = Runs(tmp_path)
    assert card(runs, "run")["state"] == "running"
    os.utime(run / "metrics.jsonl", (1, 1))
    assert card(runs, "run")["state"] == "stopped"


def test_how_a_run_has_ended(tmp_path):
    make_run(tmp_path / "done", [1.0] * 3, total_steps=300)
    solved = make_run(tmp_path / "solved", [1.0] * 3, stop_on="return_per_game")
    for step, value in ((0, False), (250, True)):
        checkpoint = solved / "checkpoints" / f"step-{step:012d}"
        checkpoint.mkdir()
        (checkpoint / "state.json").write_text(json.dumps({"solved": value}))
    make_run(tmp_path / "broken off", [1.0] * 3)
    make_run(tmp_path / "empty")
    runs = Runs(tmp_path)
    states = {name: run.card["state"] for name, run in look(runs).items()}
    assert states == {"done": "finished", "solved": "solved", "broken off": "stopped", "empty": "stopped"}


def test_a_link_that_leaves_the_folder_leads_nowhere(tmp_path):
    outside = make_run(tmp_path / "outside", [1.0])
    add_evaluation(outside, [1.0])
    video = add_video(outside)
    run = make_run(tmp_path / "runs" / "run", [1.0])
    for name in ("config.json", "provenance.json", "metrics.jsonl"):
        (run / name).unlink()
        (run / name).symlink_to(outside / name)
    for name in ("eval", "videos"):
        (run / name).rmdir()
        (run / name).symlink_to(outside / name)
    runs = Runs(tmp_path / "runs")
    said = card(runs, "run")
    assert (said["config"], said["provenance"], said["evaluations"], said["videos"]) == ({}, {}, [], [])
    assert len(runs.runs["run"].tail) == 0
    assert runs.runs["run"].video(video.name) is None


def test_a_video_that_became_a_link_is_not_given_away(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    run = make_run(tmp_path / "runs" / "run", [1.0])
    video = add_video(run)
    runs = Runs(tmp_path / "runs")
    look(runs)
    assert runs.runs["run"].video(video.name) == video
    video.unlink()
    video.symlink_to(secret)
    assert runs.runs["run"].video(video.name) is None
    assert runs.runs["run"].video("../config.json") is None


def test_names_that_no_page_can_show_are_left_out(tmp_path):
    make_run(tmp_path / "good")
    (tmp_path / os.fsdecode(b"bad-\xff")).mkdir()
    make_run(tmp_path / os.fsdecode(b"bad-\xff") / "inner")
    make_run(tmp_path / "new\nline")
    assert list(look(Runs(tmp_path))) == ["good"]


def test_seeds_are_told_from_settings():
    config = {"seed": 1, "threads": 2, "device": "cpu", "algo": {"gamma": 0.99}, "replay": {"store": "ram"}}
    same = {"seed": 2, "threads": 1, "device": "cuda", "algo": {"gamma": 0.99}, "replay": {"store": "lz4"}}
    assert flat(config)["algo.gamma"] == 0.99
    assert same_but_seed(config) == same_but_seed(same)
    for other in ({"algo": {"gamma": 0.9}}, {"total_steps": 9}, {"stop_on": "return_per_life"}):
        assert same_but_seed(config) != same_but_seed({**config, **other})
    ends = [{"stop_on": "return_per_life", "stop_at": at} for at in (20.0, 40.0)]
    assert same_but_seed(ends[0]) != same_but_seed(ends[1])
    assert same_but_seed({"stop_on": "none", "stop_at": 1.0}) == same_but_seed({"stop_on": "none", "stop_at": 2.0})


def test_an_evaluation_is_read_whole_or_refused(tmp_path):
    run = make_run(tmp_path / "run")
    path = add_evaluation(run, [1.0, 2.0, 4.0])
    value = json.loads(path.read_text())
    result = read_evaluation(path)
    assert (result.scores, result.mean, result.ci95) == ((1.0, 2.0, 4.0), value["mean"], tuple(value["ci95"]))
    for change in ({"scores": []}, {"mean": "x"}, {"ci95": [1]}, {"scores": [1e999]}, {"settings": None}):
        path.write_text(json.dumps(value | change))
        with pytest.raises(PixelqError, match="is damaged"):
            read_evaluation(path)
    with pytest.raises(PixelqError, match="cannot read"):
        read_object(tmp_path / "nothing")
    with pytest.raises(PixelqError, match="is no JSON file"):
        read_object(tmp_path)
