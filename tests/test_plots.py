"""What `pixelq plot` draws are the numbers that the runs hold."""

import json

import numpy as np
import pytest
from PIL import Image

from pixelq.cli.main import main
from pixelq.errors import PixelqError
from pixelq.evaluation.scores import summarise, summarise_seeds
from pixelq.plots.numbers import plotted
from pixelq.plots.picture import draw
from pixelq.plots.terminal import chart_lines, legend_lines, score_lines
from rundirs import add_evaluation, append, make_run, record
from runs import quick


@pytest.fixture
def runs(tmp_path):
    """Two seeds of one recipe, one of which has come further, and another recipe."""
    first = make_run(tmp_path / "plain-s1", [0.0, 2.0, 4.0], seed=1)
    second = make_run(tmp_path / "plain-s2", [2.0, 6.0, 2.0, 8.0], seed=2)
    other = make_run(tmp_path / "other", [5.0, 5.0], target_period_steps=77)
    add_evaluation(first, [1.0, 2.0, 3.0, 10.0])
    add_evaluation(second, [4.0, 4.0, 8.0, 8.0])
    add_evaluation(other, [7.0, 9.0], protocol="noop")
    return [first, second, other]


def test_curves_are_mean_and_extremes_as_far_as_all_seeds_have_come(runs):
    plain, other = plotted(runs).curves
    assert (plain.label, plain.game, plain.seeds) == ("plain", "breakout", (1, 2))
    assert plain.x.tolist() == [100, 200, 300]
    assert plain.mean.tolist() == [1, 4, 3]
    assert plain.low.tolist() == [0, 2, 2]
    assert plain.high.tolist() == [2, 6, 4]
    assert (other.label, other.seeds, other.mean.tolist()) == ("other", (1,), [5, 5])


@pytest.mark.parametrize("other", [{"total_steps": 20_000}, {"stop_on": "return_per_game"}, {"target_period_steps": 9}])
def test_runs_of_another_length_or_of_other_settings_are_not_one_group(tmp_path, other):
    one = make_run(tmp_path / "a1", [0.0, 4.0], seed=1)
    two = make_run(tmp_path / "a2", [2.0, 8.0], seed=2)
    long = make_run(tmp_path / "b3", [9.0, 9.0, 9.0, 9.0], seed=3, **other)
    assert [curve.seeds for curve in plotted([one, two, long]).curves] == [(1, 2), (3,)]
    assert plotted([one, two, long]).curves[0].mean.tolist() == [1, 6]


def test_each_run_can_have_its_own_curve(runs):
    both = plotted(runs[:2], each=True)
    assert [(curve.label, curve.seeds) for curve in both.curves] == [("plain-s1", (1,)), ("plain-s2", (2,))]
    assert both.curves[1].mean.tolist() == [2, 6, 2, 8]  # to its own end
    assert [(score.label, score.mean) for score in both.scores] == [("plain-s1", 4.0), ("plain-s2", 6.0)]
    assert both.captions()[0] == "Curves: train/return_per_game, each of a single run."


def test_runs_of_the_same_name_are_told_apart_by_their_folders(tmp_path):
    made = [make_run(tmp_path / folder / "run", [1.0], seed=seed) for seed, folder in ((1, "a"), (1, "b"), (2, "c"))]
    assert [curve.label for curve in plotted(made, each=True).curves] == ["a/run", "b/run", "c/run"]
    assert [curve.label for curve in plotted(made[1:]).curves] == ["b/run"]
    with pytest.raises(PixelqError, match=r"^a/run and b/run have the same settings and the same seed"):
        plotted(made)


def test_between_their_points_seeds_are_interpolated(tmp_path):
    one = make_run(tmp_path / "a1", [0.0, 10.0], seed=1, period=100)
    two = make_run(tmp_path / "a2", [0.0, 4.0, 8.0, 8.0], seed=2, period=50, total_steps=10_000)
    (curve,) = plotted([one, two]).curves
    assert curve.x.tolist() == [100, 150, 200]
    assert curve.mean.tolist() == [2, 6.5, 9]  # (0 + 4) / 2, (5 + 8) / 2, (10 + 8) / 2


@pytest.mark.parametrize(("axis", "x"), [("steps", [100, 200]), ("frames", [400, 800]), ("minutes", [1 / 120, 1 / 60])])
def test_axes(runs, axis, x):
    assert plotted(runs[2:], axis=axis).curves[0].x.tolist() == pytest.approx(x)


def test_values_that_are_null_are_left_out(tmp_path):
    run = make_run(tmp_path / "run", [1.0])
    append(run, record(200, **{"loss/td": 0.5}), record(300), record(400, **{"loss/td": 0.25}), '{"step": 500, "lo')
    (curve,) = plotted([run], "loss/td").curves
    assert (curve.x.tolist(), curve.mean.tolist()) == ([200, 400], [0.5, 0.25])


def test_scores_of_one_run_are_those_of_eval(runs):
    (score,) = plotted(runs[:1]).scores
    value = json.loads((runs[0] / "eval" / "nature-step-1000-seed1.json").read_text())
    assert (score.mean, list(score.mean_ci95), score.iqm) == (value["mean"], value["ci95"], value["iqm"])
    assert score.human_normalised == value["human_normalised"]
    assert (score.label, score.steps, score.games) == ("plain-s1", (1_000,), 4)
    assert score.settings in plotted(runs[:1]).captions()


@pytest.mark.slow
def test_scores_of_several_seeds_are_of_all_their_games(runs):
    plain, other = plotted(runs).scores
    assert (plain.seeds, plain.games, plain.mean, plain.iqm) == ((1, 2), 8, 5.0, 4.75)  # (3 + 4 + 4 + 8) / 4
    expected = summarise_seeds([[1.0, 2.0, 3.0, 10.0], [4.0, 4.0, 8.0, 8.0]])
    assert (plain.mean_ci95, plain.iqm_ci95) == (expected.mean_ci95, expected.iqm_ci95)
    assert (other.protocol, other.mean) == ("noop", 8.0)


def test_of_each_protocol_the_newest_agent_counts_and_of_it_most_games(tmp_path):
    run = make_run(tmp_path / "run", [1.0])
    add_evaluation(run, [1.0] * 9, step=100)
    add_evaluation(run, [2.0], step=200, seed=1)
    add_evaluation(run, [3.0, 3.0], step=200, seed=3)
    add_evaluation(run, [4.0, 4.0], step=200, seed=2)
    add_evaluation(run, [5.0], step=50, protocol="machado")
    assert {score.protocol: score.mean for score in plotted([run]).scores} == {"nature": 4.0, "machado": 5.0}


def test_labels_say_what_names_share(tmp_path):
    def labels(*names):
        root = tmp_path / "-".join(names)
        made = [make_run(root / name, [1.0], seed=i, stop_at=i) for i, name in enumerate(names)]
        return [curve.label for curve in plotted(made).curves]

    assert labels("dqn-seed1", "dqn-seed2") == ["dqn"]
    assert labels("a_1", "a_2", "a_3") == ["a"]
    assert labels("1", "2") == ["1"]
    assert labels("only-s1") == ["only-s1"]


def test_what_cannot_be_drawn_is_one_clear_line(runs, tmp_path):
    first, second, other = runs
    twin = make_run(tmp_path / "twin", [1.0], seed=2)
    late = make_run(tmp_path / "late", [], seed=3)
    for bad, line in [
        ([first, first], "plain-s1 is given twice"),
        ([first, tmp_path / "x" / ".." / "plain-s1"], "is given twice|does not exist"),
        ([second, twin], "plain-s2 and twin have the same settings and the same seed: give one of them"),
        ([late], 'late has no values of "train/return_per_game": it has no metrics yet'),
        ([tmp_path], "is not a run directory: it has no config.json"),
    ]:
        with pytest.raises(PixelqError, match=line):
            plotted(bad)
    with pytest.raises(PixelqError, match='other has no values of "loss/x": it has frames, games, lives, perf/st'):
        plotted([other], "loss/x")
    young = make_run(tmp_path / "young", seed=4)
    append(young, record(100, **{"train/return_per_game": None}))
    with pytest.raises(PixelqError, match='young has no values of "train/return_per_game": no game has ended yet'):
        plotted([young])
    append(late, record(100, 1.0), record(200, 1.0))
    append(late, "nonsense\n")
    with pytest.raises(PixelqError, match=r"late/metrics\.jsonl, line 3, is damaged: no metrics"):
        plotted([late])
    ahead = make_run(tmp_path / "ahead", [], seed=4)
    append(ahead, record(900, 1.0))
    with pytest.raises(PixelqError, match="plain-s1, ahead have no part of training in common"):
        plotted([first, ahead])
    (first / "eval" / "bad.json").write_text("{}")
    with pytest.raises(PixelqError, match=r"bad\.json is damaged: not a result of pixelq eval"):
        plotted([first])


@pytest.mark.parametrize("suffix", [".png", ".svg"])
@pytest.mark.slow
def test_pictures_are_written_and_the_same_numbers_give_the_same_file(runs, tmp_path, suffix):
    one, two = tmp_path / "new" / f"one{suffix}", tmp_path / f"two{suffix}"
    for out in (one, two):
        draw(plotted(runs), out)
    assert one.read_bytes() == two.read_bytes()
    if suffix == ".png":
        picture = np.asarray(Image.open(one).convert("RGB"))
        assert picture.shape[1] == 1_600
        colours = {tuple(colour) for colour in picture.reshape(-1, 3)[::7].tolist()}
        assert {(11, 107, 203), (217, 72, 15)} <= colours  # both recipes are there
    else:
        text = one.read_text()
        assert text.count("<path") > 50
        assert "matplotlib" not in text.split("<metadata>")[0]


@pytest.mark.slow
def test_a_game_without_scores_beside_one_with_scores_is_drawn_without_a_warning(runs, tmp_path):
    runs.append(make_run(tmp_path / "pong", [1.0, 2.0], game="pong"))
    draw(plotted(runs), tmp_path / "curves.svg")  # matplotlib would warn, and warnings are errors here


def test_the_terminal_shows_curves_legend_and_scores(runs):
    numbers = plotted(runs)
    lines = ["".join(text for text, _ in line) for line in chart_lines(numbers, "breakout", 60)]
    assert len({len(line) for line in lines[:16]}) == 1
    assert sum("\u2800" < letter <= "\u28ff" for line in lines for letter in line) > 40
    assert {letter for line in lines[:16] for letter in line if letter.isalpha()} == {"A", "B"}
    assert lines[0].lstrip().startswith("5 │")  # the highest value
    legend = ["".join(text for text, _ in line) for line in legend_lines(numbers, "breakout")]
    assert legend[0] == "A plain  2 seeds  3 at 300 steps, seeds 2 to 4"
    assert legend[1] == "B other  seed 1  5 at 200 steps"
    table = score_lines(numbers, "breakout")
    assert table[1].split()[:5] == ["plain", "nature", "2", "8", "5.00"]


@pytest.mark.slow
def test_the_command_writes_prints_and_checks(runs, tmp_path, capsys):
    names = [str(run) for run in runs]
    assert main(["plot", *names, "--json"]) == 0
    shown = capsys.readouterr().out
    numbers = json.loads(shown.splitlines()[-1])
    assert numbers["curves"][0]["mean"] == [1, 4, 3]
    assert numbers["scores"][0]["mean"] == summarise([1, 2, 3, 10, 4, 4, 8, 8]).mean
    assert "protocol nature: cap 18,000 frames" in shown
    out = tmp_path / "plot.svg"
    assert main(["plot", *names, "--axis", "frames", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    for words, line in [
        ([], "RUN is missing: pixelq plot RUN … [--out FILE.png|svg]"),
        ([*names, "--out", "a.pdf"], "--out is a.pdf: must end in .png or .svg"),
        ([*names, "--out", f"{names[0]}/config.json/a.png"], "is not a folder"),
        ([*names, "--outt", "a.png"], 'unknown option --outt (did you mean "--out"?)'),
        ([*names, "--axis", "hours"], "--axis is hours: must be steps, frames or minutes"),
    ]:
        assert main(["plot", *words]) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.count("\n") == 1


@pytest.mark.slow
def test_the_numbers_are_those_that_eval_prints(tmp_path, capsys):
    from pixelq.training.run import train

    run = tmp_path / "run"
    train(quick(), run)
    capsys.readouterr()
    assert main(["eval", str(run), "--episodes", "8", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert main(["plot", str(run), "--json"]) == 0
    (score,) = json.loads(capsys.readouterr().out.splitlines()[-1])["scores"]
    assert {key: score[key] for key in ("game", "protocol", "mean", "iqm", "human_normalised")} == {
        key: printed[key] for key in ("game", "protocol", "mean", "iqm", "human_normalised")
    }
    assert (score["mean_ci95"], score["games"]) == (printed["ci95"], printed["episodes"])
