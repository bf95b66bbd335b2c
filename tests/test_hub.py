"""Agents go to the hub and come back the same; what comes from there is checked; each error is one line."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from agents import card, weights, write_agent, write_checkpoint
from hub_server import TOKEN, Hub
from pixelq.agent import load_agent, save_agent
from pixelq.cli.main import main
from pixelq.errors import PixelqError
from pixelq.extras import install_command
from pixelq.hub import is_hub_address, parse_address, parse_repository
from pixelq.hub.checks import check_agent_file
from rundirs import add_video, make_run

pytest.importorskip("huggingface_hub", reason="needs huggingface_hub: pip install 'pixelq[hub]'")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the library's own uploads


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A local hub with a signed-in user, and a separate cache."""
    import huggingface_hub.constants

    made = Hub()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield made
    made.close()


@pytest.fixture
def evaluated(tmp_path):
    """A run with an agent, a curve, a video, and scores of this step and of another."""
    run = make_run(tmp_path / "run", [1.0, 2.0, 3.0], game="catch")
    write_checkpoint(run, 300)
    assert main(["eval", str(run), "--episodes", "6"]) == 0
    other = json.loads((run / "eval" / "nature-step-300-seed1.json").read_text()) | {"step": 200}
    (run / "eval" / "nature-step-200-seed1.json").write_text(json.dumps(other))
    add_video(run, 300)
    return run


def scores(text):
    return [line for line in text.splitlines() if line.startswith("raw scores")]


def kept_scores(run):
    kept = json.loads((run / "eval" / "nature-step-300-seed1.json").read_text())["scores"]
    return [f"raw scores        {' '.join(f'{score:g}' for score in kept)}"]


@pytest.mark.slow
def test_an_agent_goes_up_and_comes_down_the_same(hub, evaluated, capsys, tmp_path):
    here = kept_scores(evaluated)
    assert main(["push", str(evaluated), "tester/catcher"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{hub.url}/tester/catcher: hf:tester/catcher"
    ((commit, files),) = hub.models["tester/catcher"]
    assert set(files) == {"agent.safetensors", "card.json", "README.md", "curve.png", "replay.mp4"}
    assert json.loads(files["card.json"])["step"] == 300
    assert files["replay.mp4"] == (evaluated / "videos" / "step-000000000300.mp4").read_bytes()
    for address in ("hf:tester/catcher", f"hf:tester/catcher@{commit}"):
        assert main(["eval", address, "--episodes", "6"]) == 0
        assert scores(capsys.readouterr().out) == here
    out = tmp_path / "copy.safetensors"
    assert main(["export", "hf:tester/catcher", "--out", str(out)]) == 0
    obs = np.random.default_rng(0).integers(0, 256, (3, 4, 84, 84), np.uint8)
    np.testing.assert_array_equal(load_agent(out).q_values(obs), load_agent(evaluated).q_values(obs))
    assert list((tmp_path / "cache" / "pixelq" / "hub").rglob("agent.safetensors"))


@pytest.mark.slow
def test_the_page_has_the_scores_of_this_step_where_the_hub_reads_them(hub, evaluated):
    from huggingface_hub import ModelCard

    assert main(["push", str(evaluated), "tester/catcher"]) == 0
    page = ModelCard(hub.models["tester/catcher"][0][1]["README.md"].decode())
    assert (page.data.library_name, page.data.pipeline_tag) == ("pixelq", "reinforcement-learning")
    assert page.data.model_name == "catcher"
    (result,) = page.data.eval_results
    kept = json.loads((evaluated / "eval" / "nature-step-300-seed1.json").read_text())
    assert result.metric_value == f"{kept['mean']:.2f} +/- {np.std(kept['scores']):.2f}"
    assert result.metric_name == "mean raw score, protocol nature, 6 games, seed 1"
    for text in (kept["settings"]["text"], "pixelq eval hf:tester/catcher --protocol nature --episodes 6 --seed 1"):
        assert text in page.text
    assert "](curve.png)" in page.text
    assert "](replay.mp4)" in page.text


def test_a_dry_run_writes_the_folder_and_asks_nobody(hub, evaluated, monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["push", str(evaluated), "somebody/catcher", "--dry-run"]) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "hub" / "somebody" / "catcher"
    for path in folder.iterdir():
        assert f"{path.name:<20}{path.stat().st_size:>14,} bytes" in said
    assert len(list(folder.iterdir())) == 5
    assert said.splitlines()[-1] == "nothing was sent; somebody/catcher would get hub/somebody/catcher"
    assert not hub.asked
    assert main(["push", str(evaluated), "somebody/catcher", "--dry-run"]) == 2
    assert "hub/somebody/catcher exists already" in capsys.readouterr().err


def test_a_second_push_is_a_new_revision_and_a_private_model_needs_the_token(hub, tmp_path, monkeypatch, capsys):
    first, second = (write_agent(tmp_path / f"{step}.safetensors", step=step) for step in (1, 2))
    assert main(["push", str(first), "hf:tester/a", "--private"]) == 0
    assert "no scores of step 1" in capsys.readouterr().out
    assert main(["push", str(second), "tester/a"]) == 0
    (old, _), _ = hub.models["tester/a"]
    assert (load_agent("hf:tester/a").card.step, load_agent(f"hf:tester/a@{old}").card.step) == (2, 1)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert main(["eval", "hf:tester/a"]) == 2
    assert "hf:tester/a: the hub has no such model, or it is private: then log in" in capsys.readouterr().err


@pytest.mark.slow
def test_a_fresh_process_with_another_cache_gets_the_same_scores(hub, evaluated, tmp_path):
    here = kept_scores(evaluated)
    assert main(["push", str(evaluated), "tester/catcher"]) == 0
    words = [sys.executable, "-m", "pixelq", "eval", "hf:tester/catcher", "--episodes", "6"]
    fresh = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "fresh"), "HF_HUB_DISABLE_XET": "1"}
    fresh.pop("HF_TOKEN")
    done = subprocess.run(words, env=fresh, capture_output=True, text=True, check=True)
    assert scores(done.stdout) == here
    assert done.stderr == ""
    hub.close()
    again = subprocess.run(words, env=fresh, capture_output=True, text=True, check=True)  # offline: from the cache
    assert scores(again.stdout) == here


def told(capsys, *words):
    """The one line of bad input."""
    capsys.readouterr()
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("pixelq: ")


def test_what_is_wrong_is_one_line(hub, tmp_path, monkeypatch, capsys):
    agent = str(write_agent(tmp_path / "a.safetensors"))
    for name in ("nobody", "a/b/c", "a b/c", "../x", "a/b--c", "a/" + "x" * 99):
        assert "is no name on the hub: give USER/NAME" in told(capsys, "push", agent, name)
    for name in ("hf:", "hf:a", "hf:a/b@", "hf:a/b@x y", "hf:a/../b", "hf:/a/b"):
        assert "is no address on the hub: give hf:USER/NAME" in told(capsys, "eval", name)
    assert told(capsys, "eval", "hf:tester/none").startswith("hf:tester/none: the hub has no such model")
    hub.commit("tester/other", {"README.md": b"no agent"})
    assert (
        told(capsys, "eval", "hf:tester/other") == "hf:tester/other has no agent.safetensors: it is no agent of pixelq"
    )
    assert told(capsys, "eval", "hf:tester/other@v2") == "hf:tester/other@v2: the model has no such revision"
    assert "the hub does not let you write there" in told(capsys, "push", agent, "somebody/else")
    assert "random has no weights" in told(capsys, "push", "random", "tester/a")
    assert "does not exist" in told(capsys, "push", "nowhere", "tester/a")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "the hub does not take your token: log in by `hf auth login`" in told(capsys, "push", agent, "tester/a")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert told(capsys, "push", agent, "tester/a").startswith("the hub needs a token to write: log in by")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "hf:tester/gone: the hub cannot be reached: " in told(capsys, "eval", "hf:tester/gone")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: TOKEN)
    assert "the hub cannot be reached: " in told(capsys, "push", agent, "tester/a")
    monkeypatch.setattr("pixelq.extras.importlib.util.find_spec", lambda name: None)
    assert install_command("hub") in told(capsys, "push", agent, "tester/a")
    assert install_command("hub") in told(capsys, "eval", "hf:tester/a")


def test_a_game_that_would_run_a_module_is_played_only_if_it_is_named(hub, tmp_path, capsys):
    save_agent(tmp_path / "b.safetensors", weights(), replace(card(), game="os:abort"))
    hub.commit("tester/b", {"agent.safetensors": (tmp_path / "b.safetensors").read_bytes()})
    line = told(capsys, "eval", "hf:tester/b")
    assert line == "hf:tester/b plays os:abort, which runs that module's code: say --game os:abort"


def header(length, text):
    return length.to_bytes(8, "little") + text


BAD = {
    "a pickle": b"\x80\x04\x95" + b"x" * 100,
    "nothing": b"",
    "a header too long": header(2**40, b"{}"),
    "no JSON": header(4, b"{{{{"),
    "a list": header(2, b"[]"),
    "another type": safetensors.numpy.save({"w": np.zeros(4, np.int64)}),
    "cut off": safetensors.numpy.save({"w": np.zeros(4, np.float32)})[:-3],
    "more than it says": safetensors.numpy.save({"w": np.zeros(4, np.float32)}) + b"more",
    "a shape below zero": header(49, b'{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0]}}'[:49]),
    "no card": safetensors.numpy.save({"w": np.zeros(4, np.float32)}),
}


@pytest.mark.parametrize("what", BAD)
def test_what_comes_down_is_checked(what, hub, tmp_path, capsys):
    hub.commit("tester/bad", {"agent.safetensors": BAD[what]})
    assert told(capsys, "eval", "hf:tester/bad")


def test_a_file_that_is_too_large_is_not_downloaded(hub, tmp_path, capsys):
    hub.commit("tester/huge", {"agent.safetensors": b"x"})
    hub.lies["agent.safetensors"] = 2**40
    assert "an agent has at most" in told(capsys, "eval", "hf:tester/huge")
    assert [verb for verb, path in hub.asked if path.endswith("agent.safetensors")] == ["HEAD"]


def test_addresses():
    assert parse_address("hf:a/b@v1.0") == ("a/b", "v1.0")
    assert str(parse_address("hf:a/b")) == "hf:a/b"
    assert parse_repository("hf:a/b-1.c_d") == "a/b-1.c_d"
    assert not is_hub_address("./hf:a/b")
    with pytest.raises(PixelqError, match="a push always makes a new revision"):
        parse_repository("a/b@v1")


def test_every_agent_of_pixelq_passes_the_check(tmp_path):
    for dtype in ("float32", "bfloat16", "float16"):
        out = tmp_path / f"{dtype}.safetensors"
        source = write_agent(tmp_path / "a.safetensors")
        assert main(["export", str(source), "--out", str(out), "--weights", dtype]) == 0
        check_agent_file(out, "it")
