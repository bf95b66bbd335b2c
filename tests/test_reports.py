"""Reports: statistics equal to rliable's, and what is made of folders of runs."""

import csv
import json

import numpy as np
import pytest

import pixelq
from pixelq.cli.main import main
from pixelq.config import to_json
from pixelq.config.assignment import assign
from pixelq.errors import PixelqError
from pixelq.evaluation.scores import human_normalised
from pixelq.presets import preset
from pixelq.reports.statistics import improvement, iqm, iqm_interval, profile

# seeds × games; what rliable 1.2 says of them: IQM by 20,000 resamples, the profile by 5,000, improvement by 3,000
X = [[1.0, 1.3, 0.73, 0.11], [0.55, 0.01, 1.06, 2.34], [0.51, 0.38, 1.49, 1.36], [1.11, 0.07, 0.97, 1.7]]
X += [[-0.34, 0.54, -0.9, -0.29]]
Y = [[1.0, 0.36, -0.67, 0.87], [0.76, 0.41, -1.92, 0.06], [0.55, 0.71, -0.93, 0.12], [-0.38, -0.21, 1.66, -0.21]]
IQM_X, IQM_Y = (0.696, 0.315, 1.031), (0.22375, -0.11875, 0.585)
THRESHOLDS = np.linspace(-1, 3, 9)
PROFILE = [1.0, 0.95, 0.85, 0.65, 0.35, 0.1, 0.05, 0.0, 0.0]
PROFILE_LOW = [1.0, 0.85, 0.7, 0.45, 0.15, 0.0, 0.0, 0.0, 0.0]
PROFILE_HIGH = [1.0, 1.0, 1.0, 0.85, 0.55, 0.2, 0.15, 0.0, 0.0]
X_OVER_Y = (0.625, 0.425, 0.8125)


def games(matrix):
    return list(np.array(matrix).T)


@pytest.mark.parametrize(("scores", "theirs"), [(X, IQM_X), (Y, IQM_Y)])
def test_iqm_is_that_of_rliable(scores, theirs):
    ours = iqm_interval(games(scores))
    assert ours.value == pytest.approx(theirs[0], abs=1e-12)
    assert ours[1:] == pytest.approx(theirs[1:], abs=0.05)  # the bootstrap's noise


def test_profiles_are_those_of_rliable():
    share, low, high = profile(games(X), THRESHOLDS)
    assert share == pytest.approx(PROFILE, abs=1e-12)
    assert low == pytest.approx(PROFILE_LOW, abs=0.051)  # a run of twenty
    assert high == pytest.approx(PROFILE_HIGH, abs=0.051)


def test_improvement_is_that_of_rliable():
    ours = improvement(games(X), games(Y))
    assert ours.value == pytest.approx(X_OVER_Y[0], abs=1e-12)
    assert ours[1:] == pytest.approx(X_OVER_Y[1:], abs=0.03)
    assert ours.value + improvement(games(Y), games(X)).value == pytest.approx(1, abs=1e-12)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        found = iqm_interval(list(generator.normal(0.5, 1, (3, 10))), resamples=300)
        inside += found.low <= 0.5 <= found.high
    assert 170 <= inside <= 199


def test_iqm_leaves_out_a_quarter_at_either_end():
    assert iqm(np.array([-100.0, 1.0, 2.0, 100.0])) == 1.5
    assert iqm(np.array([4.0])) == 4.0
    assert iqm(np.array([[1.0, 2.0, 3.0]])).tolist() == [2.0]  # rounded down: none


# folders


def write_run(path, config, returns):
    """A run directory with a line of metrics each 100 steps."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(to_json(config)))
    lines = [
        {"step": 100 * tick, "seconds": 60.0 * tick, "train/return_per_game": value}
        for tick, value in enumerate(returns, 1)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def config(name="fast", game="pong", seed=1, **settings):
    found = assign(assign(preset(name), "game", game), "seed", seed)
    for setting, value in {"total-steps": 300, **settings}.items():
        found = assign(found, setting, value)
    return found


@pytest.fixture
def folder(tmp_path):
    for recipe, gain in (("fast", 1.0), ("c51", 0.0)):
        for game, start in (("pong", -20.0), ("breakout", 2.0)):
            for seed in (1, 2, 3):
                path = tmp_path / "runs" / f"{recipe}-{game}-s{seed}"
                end = start + 3 * gain + seed
                write_run(path, config(recipe, game, seed), [None, start, end])
    return tmp_path / "runs"


@pytest.mark.slow
def test_a_report_of_a_folder(capsys, folder):
    assert main(["report", str(folder), "--json"]) == 0
    out = capsys.readouterr().out.splitlines()
    said = json.loads(out[-1])
    place = folder / "report"
    assert sorted(path.name for path in place.iterdir()) == ["aggregates.svg", "report.md", "scores.csv"]
    rows = list(csv.DictReader((place / "scores.csv").read_text().splitlines()))
    assert len(rows) == 12
    assert {(row["recipe"], row["game"], row["seed"]): float(row["score"]) for row in rows}["fast", "pong", "2"] == -15
    by_name = {one["recipe"]: one for one in said["aggregates"]}
    scores = [
        human_normalised(game, start + 3 + seed)
        for game, start in (("pong", -20), ("breakout", 2))
        for seed in (1, 2, 3)
    ]
    assert by_name["fast"]["iqm"]["value"] == pytest.approx(float(iqm(np.array(scores))))
    assert by_name["fast"]["games"] == ["breakout", "pong"]
    (pair,) = said["improvements"]
    assert (pair["recipe"], pair["other"]) == ("c51", "fast")
    assert pair["probability"]["value"] == 0  # every run of fast beats every one of c51
    text = (place / "report.md").read_text()
    assert "mean return of the last games in training" in text
    assert "| pong | fast | 1, 2, 3 | -16.00, -15.00, -14.00 | -15.00 |" in text
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    pixelq.report(folder)
    assert before == {path.name: path.read_bytes() for path in place.iterdir()}  # same numbers, same files


def test_recipes_are_told_apart_by_what_differs(tmp_path):
    for steps in (1, 3):
        for seed in (1, 2):
            write_run(tmp_path / f"n{steps}-s{seed}", config(seed=seed, **{"algo.n-step": steps}), [-1.0 * steps])
    made = pixelq.report(tmp_path, tmp_path / "out")
    assert [(one.recipe, one.seeds) for one in made.games] == [("fast n-step=1", (1, 2)), ("fast n-step=3", (1, 2))]


def test_what_is_left_out_is_told(folder):
    write_run(folder / "early", config(seed=4), [None])
    write_run(folder / "catch", config(game="catch"), [3.0, 4.0])
    notes = " ".join(pixelq.report(folder).notes)
    assert "early has no finished game yet" in notes
    assert "no published random and human scores: catch" in notes
    assert "catch is not finished: it has come to step 200 of 300" in notes


@pytest.mark.slow
@pytest.mark.parametrize("solved", [False, True])
def test_a_run_that_may_stop_early_is_finished_once_it_is_solved(folder, solved):
    write_run(folder / "goal", config(seed=5, **{"stop-on": "return_per_game", "stop-at": 20.0}), [3.0, 4.0])
    place = folder / "goal" / "checkpoints" / "step-000000000200"
    place.mkdir(parents=True)
    (place / "state.json").write_text(json.dumps({"step": 200, "solved": solved}))
    told = any("goal is not finished: it has come to step 200 of 300" in note for note in pixelq.report(folder).notes)
    assert told is not solved


def test_folders_without_a_report(capsys, tmp_path, folder):
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "is no folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / "empty")]) == 2
    assert "holds no run: give the folder of a sweep" in capsys.readouterr().err
    write_run(tmp_path / "young" / "a", config(), [None])
    assert main(["report", str(tmp_path / "young")]) == 2
    assert "young: no run has finished a game yet" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["report", str(folder), "--out", str(tmp_path / "file")]) == 2
    assert "file is a file: give a folder" in capsys.readouterr().err
    write_run(folder / "again", config(), [0.0])
    with pytest.raises(PixelqError, match="have the same settings and the same seed"):
        pixelq.report(folder)
