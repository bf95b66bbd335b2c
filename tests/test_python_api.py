"""What a verb does, a function of the package does, too."""

import inspect
import json
import re
import typing
from pathlib import Path

import pytest

import pixelq
from agents import write_agent, write_checkpoint
from own_games import make
from pixelq.cli.main import main
from pixelq.evaluation import PROTOCOLS, Changes, choose_protocol
from pixelq.evaluation.players import RandomAgent
from pixelq.run.reading import read_evaluation
from pixelq.run.storage import StorageError
from runs import tiny

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
FUNCTIONS = [
    name for name in pixelq.__all__ if callable(getattr(pixelq, name)) and not inspect.isclass(getattr(pixelq, name))
]


def blocks(text):
    """The Python code of a page."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_there_is_a_function_for_every_verb():
    named = (
        "train resume sweep report evaluate record collect export import_agent plot preset game_names load_agent tune"
    )
    assert sorted(FUNCTIONS) == sorted(named.split())
    assert "fast" in pixelq.PRESETS
    assert "breakout" in pixelq.game_names()
    assert sorted(pixelq.__all__) == sorted(pixelq._HOMES)
    with pytest.raises(AttributeError, match="no attribute 'resumed'"):
        _ = pixelq.resumed


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_typed_and_say_what_they_take(name):
    function = inspect.unwrap(getattr(pixelq, name))
    parameters = inspect.signature(function).parameters
    assert set(function.__annotations__) == {*parameters, "return"}
    text = inspect.getdoc(function)
    for parameter in parameters:
        assert f"\n    {parameter}: " in text, f"{name} does not say what {parameter} is"
    if parameters:
        assert "\nRaises:" in text
    if parameters and function.__annotations__["return"] is not None and name not in ("preset", "load_agent"):
        assert "\nReturns:" in text


@pytest.mark.slow
def test_the_page_names_every_function_and_does_what_it_says(tmp_path, monkeypatch, capsys):
    text = PAGE.read_text()
    assert all(f"pixelq.{name}" in text for name in {*pixelq.__all__} - {"Agent", "Callback"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mygame.py").write_text(blocks(PAGE.with_name("your-own-game.md").read_text())[0])
    scope = {}
    for block in blocks(text):
        exec(compile(block, str(PAGE), "exec"), scope)  # the page's own code
    assert (tmp_path / "runs/first/eval/nature-step-4000-seed1.json").is_file()
    assert all((tmp_path / name).is_file() for name in ("catch.mp4", "catch.safetensors", "curves.svg"))
    assert "nature, ε 0.001, cap 2000" in capsys.readouterr().out


# conditions in the place of a protocol's own


@pytest.mark.parametrize(
    ("changes", "name", "word"),
    [
        (Changes(), "nature", "nature"),
        (Changes(epsilon=0.05, sticky=0.0, noops=30, max_frames=18_000), "nature", "nature"),
        (Changes(epsilon=0.001), "nature, ε 0.001", "nature-epsilon-0.001"),
        (Changes(0.0, 0.25, 0, 400), "nature, ε 0, sticky 0.25, no-ops 0, cap 400", None),
    ],
)
def test_a_protocol_of_other_conditions_has_another_name(changes, name, word):
    protocol = choose_protocol(None, "breakout", changes)
    assert protocol.name == name
    if word:
        assert protocol.file_word == word
    assert re.fullmatch(r"[\w.-]+", protocol.file_word, re.ASCII)
    found = (protocol.epsilon, protocol.sticky, protocol.noop_max, protocol.max_frames)
    assert found == tuple(
        own if new is None else new for new, own in zip(changes, (0.05, 0.0, 30, 18_000), strict=True)
    )
    words = iter(protocol.options.split())
    again = {word: next(words) for word in words}
    shares = [float(again[word]) if word in again else None for word in ("--epsilon", "--sticky")]
    counts = [int(again[word]) if word in again else None for word in ("--noops", "--max-frames")]
    assert choose_protocol(again["--protocol"], "breakout", Changes(*shares, *counts)) == protocol
    assert protocol.describe("breakout", False).startswith(f"protocol {name}: ")


@pytest.mark.parametrize(
    ("agent", "options", "says"),
    [
        ("breakout", {"epsilon": 1.5}, "--epsilon is 1.5: must be between 0 and 1"),
        ("breakout", {"sticky": -1.0}, "--sticky is -1: must be between 0 and 1"),
        ("breakout", {"noops": 10_001}, "--noops is 10001: must be between 0 and 10,000"),
        ("breakout", {"max_frames": 3}, "--max-frames is 3: must be between 4 and 1,000,000,000"),
        ("random", {"epsilon": 0.5}, "--epsilon means nothing to random, which plays every action at random"),
        ("random", {"game": "catch", "noops": 3}, "--noops means nothing to catch"),
        ("random", {"game": "CartPole-v1", "sticky": 0.1}, "--sticky means nothing to CartPole-v1"),
    ],
)
def test_conditions_that_cannot_be(agent, options, says, tmp_path, capsys):
    for play, words in ((pixelq.evaluate, ()), (pixelq.record, (tmp_path / "a.mp4",))):
        with pytest.raises(pixelq.PixelqError) as error:
            play(agent, *words, **options)
        assert says in str(error.value)
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["eval", agent, *words]) == 2
    assert says in capsys.readouterr().err


def test_what_is_kept_of_other_conditions_stands_beside_the_protocols_own(tmp_path, capsys):
    run = write_checkpoint(tmp_path / "run", 700)
    assert main(["eval", str(run), "--episodes", "3"]) == 0
    assert main(["eval", str(run), "--episodes", "3", "--epsilon", "0.001", "--json"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert json.loads(said[-1])["protocol"] == "nature, ε 0.001"
    options = {read_evaluation(path).options for path in (run / "eval").iterdir()}
    assert options == {"--protocol nature", "--protocol nature --epsilon 0.001"}
    kept = {path.name: read_evaluation(path) for path in (run / "eval").iterdir()}
    assert {name: result.protocol for name, result in kept.items()} == {
        "nature-step-700-seed1.json": "nature",
        "nature-epsilon-0.001-step-700-seed1.json": "nature, ε 0.001",
    }


# evaluate, record, export, plot


def test_evaluate_is_what_the_verb_says(tmp_path, capsys):
    run = write_checkpoint(tmp_path / "run", 700)
    assert main(["eval", str(run), "--episodes", "4", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    file = next((run / "eval").iterdir())
    text = file.read_text()
    file.unlink()
    for agent in (run, str(run), pixelq.load_agent(run)):
        assert pixelq.evaluate(agent, episodes=4).to_json() == said
    assert not file.exists()
    assert pixelq.evaluate(run, "nature", 4, keep=True).to_json() == said
    assert file.read_text() == text


def test_only_a_run_keeps_results(tmp_path, monkeypatch):
    file = write_agent(tmp_path / "agent.safetensors")
    for agent in (file, "random", RandomAgent("catch"), pixelq.load_agent(file)):
        with pytest.raises(pixelq.PixelqError, match="keep=True needs a run directory"):
            pixelq.evaluate(agent, game="catch", keep=True)
    run = write_checkpoint(tmp_path / "run", 700)
    monkeypatch.setattr("pixelq.evaluation.kept.os.access", lambda path, mode: False)
    with pytest.raises(StorageError, match="eval: permission denied"):
        pixelq.evaluate(run, keep=True)


@pytest.mark.slow
def test_games_of_a_function_are_trained_resumed_scored_and_recorded(tmp_path):
    config = tiny(total_steps=200, envs=1)
    pixelq.train(config, tmp_path / "run", progress="none", make_env=make)
    assert pixelq.resume(tmp_path / "run", total_steps=300, progress="none", make_env=make).step == 300
    for agent in (tmp_path / "run", "random"):
        assert pixelq.evaluate(agent, episodes=2, max_frames=80, make_env=make).protocol.name == "plain, cap 80"
        assert pixelq.record(agent, tmp_path / "game.mp4", max_frames=80, make_env=make).frames > 1
    with pytest.raises(pixelq.PixelqError, match="make_env=function"):
        pixelq.evaluate(tmp_path / "run", episodes=2)


def test_a_name_in_place_of_a_config_is_refused(tmp_path):
    with pytest.raises(
        pixelq.PixelqError, match=r"config is a str: must be a TrainConfig, e.g. pixelq.preset\('fast'\)"
    ):
        pixelq.train("fast", tmp_path / "run")


def test_one_name_or_value_does_where_several_may_be(tmp_path, monkeypatch):
    planned = []
    monkeypatch.setattr("pixelq.sweeps.runner.run_all", lambda folder, runs, jobs, cluster: planned.append(runs))
    for folder, presets, games, seeds, value in (("a", "c51", "pong", "1-2", 3), ("b", ["c51"], ["pong"], (1, 2), [3])):
        pixelq.sweep(presets, tmp_path / folder, games=games, seeds=seeds, settings={"algo.n-step": value})
    one, other = planned
    assert one == other
    assert [run.name for run in one] == ["c51-pong-s1", "c51-pong-s2"]
    assert one[0].config.algo.n_step == 3


def test_export_takes_what_load_agent_takes(tmp_path):
    file = write_agent(tmp_path / "agent.safetensors")
    for agent in (file, str(file), pixelq.load_agent(file)):
        assert pixelq.export(agent, tmp_path / "copy.safetensors") == "safetensors"
        assert (tmp_path / "copy.safetensors").read_bytes() == file.read_bytes()
    with pytest.raises(pixelq.PixelqError, match="random has no weights"):
        pixelq.export("random", tmp_path / "copy.safetensors")


@pytest.mark.slow
def test_plot_draws_or_prints(tmp_path, capsys):
    pixelq.train(tiny(total_steps=400, envs=2), tmp_path / "run", progress="none")
    capsys.readouterr()
    numbers = pixelq.plot(tmp_path / "run")
    assert "catch: train/return_per_game" in capsys.readouterr().out
    assert pixelq.plot([tmp_path / "run"], tmp_path / "a.svg").to_json() == numbers.to_json()
    assert (tmp_path / "a.svg").read_bytes().startswith(b"<?xml")
    assert capsys.readouterr().out == ""
    for runs, out, says in (
        ([], None, "no runs are given"),
        ([tmp_path / "run"], tmp_path / "a.gif", "must end in .png"),
    ):
        with pytest.raises(pixelq.PixelqError, match=says):
            pixelq.plot(runs, out)


def test_named_types_are_there():
    hints = typing.get_type_hints(inspect.unwrap(pixelq.load_agent))
    assert hints["return"] is pixelq.Agent
    assert PROTOCOLS["nature"].changed(Changes()) == PROTOCOLS["nature"]
