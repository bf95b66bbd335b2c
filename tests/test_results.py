"""Recorded results: compact, complete, and the only source of every figure in the pages."""

import gzip
import json
import math
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import result_data
import result_games
import result_tables
from add_result import _command as shortened_command
from add_result import add
from result_data import FOLDER, ROOT, chain, curves, first_above, read, write_curves
from result_tables import TABLES
from write_results import filled, pages

STUDIES = sorted(path.name.removesuffix(".csv.gz") for path in (FOLDER / "curves").glob("*.csv.gz"))
RAW = {".jsonl", ".json", ".csv", ".gz", ".npz", ".log"}
MOST = 6_000_000  # bytes of all tracked files but the agents that ship


def tracked():
    done = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False)
    return [ROOT / name for name in done.stdout.split("\0") if name] or pytest.skip("not a git checkout")


def test_docs_hold_no_raw_metrics_and_the_repository_is_small():
    files = [path for path in tracked() if path.exists()]
    assert [path for path in files if path.is_relative_to(ROOT / "docs") and path.suffix in RAW] == []
    agents = ROOT / "src/pixelq/agents"
    assert sum(path.stat().st_size for path in files if not path.is_relative_to(agents)) < MOST


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_tables_in_a_page_are_as_the_results_have_them(page):
    text = page.read_text("utf-8")
    assert filled(text) == text, "run python benchmarks/write_results.py"
    assert text.count("<!-- results: ") == text.count("<!-- end -->")


def test_every_table_stands_in_a_page():
    named = {name for page in pages() for name in re.findall(r"<!-- results: ([\w-]+) -->", page.read_text("utf-8"))}
    assert named == set(TABLES)


def test_every_curve_has_a_run_and_every_run_a_curve():
    assert {(row["study"], row["run"]) for row in read("runs")} == {(s, run) for s in STUDIES for run in curves(s)}
    for row in read("leaderboard"):
        assert all(run in curves(row["study"]) for names in row["runs"].split() for run in names.split("+"))
    for row in read("runs"):
        assert row["commit"], row
        assert row["machine"], row


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_is_written_as_it_is_read(study, tmp_path, monkeypatch):
    lines = {run: [dict(zip(curve, point, strict=True)) for point in zip(*curve.values(), strict=True)]
             for run, curve in curves(study).items()}  # fmt: skip
    long = {"return_per_game": "train/return_per_game", "return_per_life": "train/return_per_life"}
    long |= {"epsilon": "train/epsilon", "loss": "loss/td", "q_mean": "q/mean"}
    lines = {run: [{long.get(k, k): v for k, v in line.items()} for line in found] for run, found in lines.items()}
    (tmp_path / "curves").mkdir()
    before = (FOLDER / "curves" / f"{study}.csv.gz").read_bytes()
    monkeypatch.setattr(result_data, "FOLDER", tmp_path)
    write_curves(study, lines)
    after = (tmp_path / "curves" / f"{study}.csv.gz").read_bytes()
    assert gzip.decompress(after) == gzip.decompress(before)


def test_time_to_a_score():
    curve = {"step": np.array([5.0, 10, 15]), "seconds": np.array([1.0, 2, 3])}
    curve["return_per_game"] = np.array([math.nan, 40.0, 41.0])
    assert first_above(curve, 40) == 3.0
    assert first_above(curve, 39.5, "step") == 10.0
    assert first_above(curve, 41) is None


def test_runs_in_a_chain_go_on_where_the_one_before_ended():
    first, second = (curves("shipped")[name] for name in ("pqn-1", "pqn-2"))
    both = chain("shipped", "pqn-1+pqn-2")
    assert both["step"][-1] == first["step"][-1] + second["step"][-1] == 10_301_440
    assert (np.diff(both["seconds"]) > 0).all()


def test_a_run_is_added_with_its_curve_and_scores(tmp_path, monkeypatch):
    run, folder = tmp_path / "run", tmp_path / "results"
    (run / "eval").mkdir(parents=True)
    (folder / "curves").mkdir(parents=True)
    for name in ("runs", "scores"):
        (folder / f"{name}.csv").write_text((FOLDER / f"{name}.csv").read_text("utf-8").partition("\n")[0] + "\n")
    (run / "config.json").write_text(json.dumps({"preset": "fast", "game": "pong", "seed": 3}))
    command = "/somewhere/bin/pixelq train fast --game pong"
    (run / "provenance.json").write_text(json.dumps({"git": {"commit": "0123456789"}, "command": command}))
    line = {"step": 8, "seconds": 1.25, "train/return_per_game": -20.5, "train/epsilon": 1.0, "loss/td": None}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    score = {"protocol": "nature", "game": "pong", "step": 8, "seed": 1, "scores": [1.0, 2.0], "mean": 1.5}
    score |= {"median": 1.5, "iqm": 1.5, "ci95": [1.0, 2.0], "human_normalised": None}
    (run / "eval" / "x.json").write_text(json.dumps(score | {"settings": {"text": ""}, "notes": []}))
    monkeypatch.setattr(result_data, "FOLDER", folder)
    monkeypatch.setattr("add_result.FOLDER", folder)
    try:
        for _ in range(2):  # the second time replaces the first
            assert add(run, "new", "a machine", "nothing") == "fast-pong-s3"
        read.cache_clear()
        curves.cache_clear()
        assert [row["command"] for row in read("runs")] == ["pixelq train fast --game pong"]
        assert [(row["mean"], row["low"], row["commit"]) for row in read("scores")] == [("1.5", "1.0", "0123456")]
        assert curves("new")["fast-pong-s3"]["return_per_game"].tolist() == [-20.5]
    finally:
        read.cache_clear()
        curves.cache_clear()


def test_pictures_of_the_pages_exist():
    for page in pages():
        for name in re.findall(r"!\[[^]]*\]\(([^)\s]+)\)", page.read_text("utf-8")):
            assert (page.parent / Path(name)).is_file(), f"{page.name}: {name}"


README = (ROOT / "README.md").read_text("utf-8")


def test_the_readme_fits_on_two_screens():
    assert len(README.splitlines()) <= 120
    assert len(README.split()) <= 900


def test_every_figure_of_the_readme_comes_from_the_results():
    prose = re.sub(r"<!-- results: .*?<!-- end -->|^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"(?<![\w.])\d[\d.,]*\b", prose) == ["3.11"]  # Python's version


def test_links_of_the_readme_and_of_results_lead_somewhere():
    for page in [ROOT / "README.md", FOLDER / "README.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize(
    ("command", "recorded"),
    [
        ("/a/bin/pixelq train c51 --run /a/b --progress lines --game pong", "pixelq train c51 --game pong"),
        ("/a/src/pixelq/__main__.py train c51", "pixelq train c51"),
        ("/a/worker.py {}", "pixelq sweep c51 --games pong --seeds 2 --set threads=1"),
        (
            "benchmarks/family.py /a/b --presets c51 pqn --seeds 1 2",
            "python benchmarks/family.py FOLDER --presets c51 --games pong --seeds 2 --threads 1 --device cpu",
        ),
    ],
)
def test_a_recorded_command_is_that_of_one_run_and_names_no_place(command, recorded):
    config = {"preset": "c51", "game": "pong", "seed": 2, "threads": 1, "device": "cpu"}
    assert shortened_command(command, config) == recorded


def test_the_mean_over_games_takes_the_seeds_that_every_game_has(monkeypatch):
    ends = {"pong-s1": 14.6, "pong-s2": -20.7, "boxing-s1": 0.1, "boxing-s3": 12.1}  # 1.00, 0, 0 and 1.00 of a human
    rows = [{"study": "games", "game": name.split("-")[0], "seed": name[-1], "run": name, "mean": "0"} for name in ends]
    monkeypatch.setattr(result_games, "TEN", ("pong", "boxing"))
    monkeypatch.setattr(result_games, "read", lambda name: rows if name == "runs" else [])
    found = {run: {"step": [700_000], "return_per_game": [end]} for run, end in ends.items()}
    monkeypatch.setattr(result_games, "curves", lambda study: found)
    _, table = result_games.training_returns()
    assert [row[2] for row in table[:2]] == ["14.6 · −20.7", "0.1 · 12.1"]
    assert table[2][0].endswith("every game has: 1")
    assert table[2][-1] == "**0.50**"
    found["boxing-s1"]["step"] = [1_000]  # stopped there: now no seed is whole in both
    _, table = result_games.training_returns()
    assert (table[2][0][-4:], table[2][-1]) == ("none", "–")


def test_a_run_that_was_stopped_before_a_score_does_not_count_as_one_that_missed_it():
    def run(*points):
        steps, returns = zip(*points, strict=True)
        return {"step": np.array(steps), "seconds": np.array(steps) / 10, "return_per_game": np.array(returns)}

    whole = run((300, 41.0), (700, 101.0))
    stopped = run((290, 41.0))
    slow = run((500, 41.0), (700, 60.0))
    assert result_tables._found([whole, stopped, slow], 40, 700) == [30.0, 29.0, 50.0]
    assert result_tables._found([whole, stopped, slow], 100, 700) == [70.0, None]
