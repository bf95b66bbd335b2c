"""Every verb on an agent whose game is not Atari's: in colour, of another size, a frame skip of 2."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from browser import served
from pixelq.agent import load_agent
from pixelq.cli.main import main
from runs import assert_same_run, metrics

pytestmark = pytest.mark.slow  # its runs take a while

COLOUR = "own_games:make"
SMALL = (
    "--envs 2 --threads 1 --device cpu --network.channels 4 4 4 --network.hidden 16 --replay.capacity 300 "
    "--replay.learn-start 40 --replay.batch-size 8 --replay.train-period 8 --log-every-steps 100 "
    "--checkpoint-every-steps 100 --checkpoint-min-seconds 0 --video-every-episodes 0 --progress none"
)
VIEW = "--env.colour --env.height 60 --env.width 80 --env.stack 2 --env.frame-skip 2"
SHAPE = (6, 60, 80)


def until(page, expression, seconds=60):
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never: {expression}"
        time.sleep(0.05)


def words(text, *more):
    return [*text.split(), *map(str, more)]


def pixelq(text, *more):
    assert main(words(text, *more)) == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs in colour: one of 400 steps, and one that got to 200 and was resumed."""
    folder = tmp_path_factory.mktemp("own")
    command = f"train keras-example --game {COLOUR} --env.vector one-thread {VIEW} {SMALL}"
    pixelq(f"{command} --total-steps 400 --run", folder / "kept" / "whole")
    pixelq(f"{command} --total-steps 200 --run", folder / "halves")
    pixelq("resume", folder / "halves", "--total-steps", 400, "--progress", "none")
    pixelq("eval", folder / "kept" / "whole", "--episodes", 3, "--device", "cpu")
    return folder


def test_a_resumed_run_is_the_same(runs):
    assert_same_run(runs / "kept" / "whole", runs / "halves")
    last = metrics(runs / "kept" / "whole")[-1]
    assert last["frames"] == 2 * last["step"] == 800  # as the frame skip says
    assert load_agent(runs / "kept" / "whole").obs_shape == SHAPE


def test_eval_keeps_scores_of_the_plain_protocol(runs, capsys):
    (path,) = (runs / "kept" / "whole" / "eval").glob("*.json")
    kept = json.loads(path.read_text())
    assert (kept["protocol"], kept["game"], kept["human_normalised"]) == ("plain", COLOUR, None)
    pixelq("eval", runs / "kept" / "whole", "--episodes", 3, "--device", "cpu", "--json")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["scores"] == kept["scores"]
    assert main(words("eval", runs / "kept" / "whole", "--protocol", "nature")) == 2
    assert "leave --protocol out" in capsys.readouterr().err


def test_record(runs, tmp_path):
    import av

    pixelq("record", runs / "kept" / "whole", "--out", tmp_path / "game.mp4", "--device", "cpu")
    with av.open(str(tmp_path / "game.mp4")) as video:
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(pictures) > 5
    assert pictures[0].shape == (4 * 48, 4 * 60, 3)  # the game's own size, enlarged
    assert max(picture.max() for picture in pictures) > 200


def test_export_in_every_format(runs, tmp_path, capsys):
    agent = load_agent(runs / "kept" / "whole")
    obs = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), np.uint8)
    pixelq("export", runs / "kept" / "whole", "--out", tmp_path / "a.safetensors")
    np.testing.assert_array_equal(load_agent(tmp_path / "a.safetensors").q_values(obs), agent.q_values(obs))
    pixelq("export", runs / "kept" / "whole", "--out", tmp_path / "a.pt2")
    assert (tmp_path / "a.pt2").stat().st_size
    pytest.importorskip("onnxruntime", reason="needs onnx: pip install 'pixelq[onnx]'")
    pixelq("export", runs / "kept" / "whole", "--out", tmp_path / "a.onnx")
    same = load_agent(tmp_path / "a.onnx")
    assert same.obs_shape == SHAPE
    np.testing.assert_allclose(same.q_values(obs), agent.q_values(obs), rtol=1e-5, atol=1e-5)
    capsys.readouterr()
    pixelq("eval", tmp_path / "a.onnx", "--episodes", 3, "--device", "cpu", "--json")
    kept = json.loads(next((runs / "kept" / "whole" / "eval").glob("*.json")).read_text())["scores"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["scores"] == kept


def test_push_writes_a_page_that_names_the_module(runs, tmp_path):
    pixelq("push", runs / "kept" / "whole", "me/dodger", "--dry-run", "--folder", tmp_path / "page")
    page = (tmp_path / "page" / "README.md").read_text()
    assert f"pixelq eval hf:me/dodger --game {COLOUR} --protocol plain --episodes 3 --seed 1" in page
    assert "2 pictures of 60×80, colour" in page


def test_init_takes_its_weights(runs, tmp_path, capsys):
    command = f"train keras-example --game {COLOUR} --env.vector one-thread {SMALL} --total-steps 50"
    pixelq(f"{command} {VIEW} --init", runs / "kept" / "whole", "--run", tmp_path / "more")
    assert main(words(f"{command} --init", runs / "kept" / "whole", "--run", tmp_path / "other")) == 2  # other pictures
    assert capsys.readouterr().err.startswith("pixelq: --init")


def test_plot_and_report_read_it(runs, tmp_path, capsys):
    pixelq("plot", runs / "kept" / "whole", "--out", tmp_path / "curve.svg")
    pixelq("plot", runs / "kept" / "whole")
    assert COLOUR in capsys.readouterr().out
    pixelq("report", runs / "kept")


def test_bench_counts_the_frames_that_are_played(capsys):
    pixelq(f"bench env --game {COLOUR} --envs 2 --seconds 0.1 --json")
    (result,) = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert result["frames_per_step"] == 1
    assert result["frames_per_second"] == pytest.approx(result["steps_per_second"])


def test_watch_shows_its_colours_and_its_saliency(runs, page, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with served("watch", runs / "kept" / "whole") as server:
        page.goto(server.url)
        until(page, "window.pixelq !== undefined && pixelq.steps > 3")
        assert page.inner_text("#planes-form") == "2 colour pictures of 60×80, newest right"
        look = """(() => {
            const canvas = document.querySelector("#planes canvas:last-child");
            const pixels = canvas.getContext("2d").getImageData(0, 0, 80, 60).data;
            const all = [...Array(60 * 80).keys()].map((at) => [...pixels.slice(4 * at, 4 * at + 3)]);
            return {size: [canvas.width, canvas.height], red: all.some(([r, g, b]) => r > 200 && g < 80 && b < 80)};
        })()"""
        assert page.evaluate(look) == {"size": [80, 60], "red": True}  # the player
        page.keyboard.press("s")
        until(page, "pixelq.lookAt !== null && pixelq.lookAt.kind === 'gradient'")
        assert page.evaluate("document.getElementById('overlay').width") == 80
        assert page.locator("#bars .name").all_inner_texts() == ["NOOP", "LEFT", "RIGHT"]


def test_the_dashboard_lists_it(runs, page):
    with served("dashboard", runs) as server:
        page.goto(server.url)
        until(page, "document.querySelectorAll('#progress tbody tr').length === 2")
        assert "plain" in page.inner_text("#scores")


def test_a_process_killed_in_mid_run_is_told_and_the_run_goes_on_from_its_checkpoint(tmp_path):
    run = tmp_path / "run"
    command = f"train keras-example --game own_games:Slow --env.vector processes {SMALL} --total-steps 2000 --run {run}"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    training = subprocess.Popen(
        [sys.executable, "-m", "pixelq", *words(command)], env=environment, stderr=subprocess.PIPE, text=True
    )
    while training.poll() is None and len(list(run.glob("checkpoints/step-*"))) < 2:
        time.sleep(0.05)
    children = Path(f"/proc/{training.pid}/task/{training.pid}/children")
    if not children.exists():
        training.kill()
        pytest.skip("the system does not list a process's children")
    games = [int(pid) for pid in children.read_text().split() if b"spawn_main" in cmdline(pid) or fork_of(pid)]
    os.kill(games[-1], signal.SIGKILL)
    _, said = training.communicate(timeout=300)
    assert training.returncode == 1
    assert "was killed by signal 9" in said.splitlines()[-1]
    step = load_agent(run).card.step
    assert step > 0
    assert main(words(f"resume {run} --total-steps {step + 40} --progress none")) == 0
    assert load_agent(run).card.step == step + 40


def cmdline(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def fork_of(pid):
    return b"pixelq" in cmdline(pid) and b"resource_tracker" not in cmdline(pid)
