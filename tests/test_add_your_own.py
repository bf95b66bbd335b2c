"""A user's own algorithm, without changing the package, as in docs/algorithms/add-your-own.md."""

import ast
import dataclasses
import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import pixelq
from moving import moving_learner
from pixelq.algos import ALGOS, Algo
from pixelq.cli.main import main
from pixelq.config import ALGO_KINDS, DQNConfig, PQNConfig, TrainConfig, from_json, to_json
from pixelq.engines.kernels import KernelEngine
from pixelq.errors import ConfigError, PixelqError
from pixelq.evaluation.evaluate import evaluate
from pixelq.evaluation.protocols import PROTOCOLS
from pixelq.losses import td
from pixelq.losses.checks import check_tensors
from pixelq.native.library import kernels
from pixelq.native.network import NetworkKernel
from pixelq.networks import DuelingHead, make_network
from pixelq.presets import PRESETS, Preset, preset
from pixelq.training.parts import resolve
from pixelq.training.run import resume
from pixelq.types import Batch, LossOutput
from runs import Watch, assert_same_run, go, metrics, stop_at, tensors, tiny

# the algorithm: settings, loss, network


@dataclass(frozen=True)
class MellowConfig:
    """Q-learning with mellowmax in place of the maximum (Asadi & Littman 2017)."""

    gamma: float = 0.99
    """Discount a step."""
    n_step: int = 1
    """Rewards summed before bootstrapping."""
    omega: float = 5.0
    """ω: towards 0 the mean, towards infinity the maximum."""


def mellow_q_learning(q_tm1, a_tm1, r_t, discount_t, q_t, omega):
    """Errors [B] of `r + discount · log(mean_a exp(ω q_t)) / ω − q_tm1[a_tm1]`."""
    check_tensors(
        q_tm1=(q_tm1, "B A"),
        a_tm1=(a_tm1, "int64 B"),
        r_t=(r_t, "B"),
        discount_t=(discount_t, "B"),
        q_t=(q_t, "B A"),
    )
    v_t = (torch.logsumexp(omega * q_t, dim=1) - math.log(q_t.shape[1])) / omega
    return (r_t + discount_t * v_t).detach() - q_tm1.gather(1, a_tm1[:, None]).squeeze(1)


def loss(config, online, target, batch, generator):
    with torch.no_grad():
        target.redraw_noise(generator)
        q_t = target.q_values(batch.obs_t)
    online.redraw_noise(generator)
    q_tm1 = online.q_values(batch.obs_tm1)
    error = mellow_q_learning(q_tm1, batch.a_tm1, batch.r_t, batch.discount_t, q_t, config.omega)
    return LossOutput(td.huber(error), q_tm1.detach(), error.detach())


def make_dueling_network(network, config, num_actions, generator, shape):
    return make_network(dataclasses.replace(network, dueling=True), num_actions, generator, shape)


MELLOW = Algo(make_dueling_network, loss)


@pytest.fixture
def registered(monkeypatch):
    """The algorithm is known while a test runs."""
    monkeypatch.setitem(ALGO_KINDS, "mellow", MellowConfig)
    monkeypatch.setitem(ALGOS, MellowConfig, MELLOW)


def mellow(**fields):
    return tiny("nature-dqn", preset="mellow", algo=MellowConfig(n_step=2), **{"total_steps": 400, **fields})


# its oracle


@pytest.mark.slow
def test_the_error_by_hand():
    q_t = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)], [7.0, 9.0]])
    q_tm1 = torch.tensor([[0.1, 5.0], [5.0, 0.2], [0.25, 5.0]], requires_grad=True)
    step = (torch.tensor([0, 1, 0]), torch.tensor([0.5, 0.0, -1.0]), torch.tensor([0.9, 0.5, 0.0]))
    # ω 1: log((1 + 3) / 2) = log 2;  ω 2: log((1 + 9) / 2) / 2 = log 5 / 2;  the last row terminated
    one = mellow_q_learning(q_tm1, *step, q_t, 1.0)
    two = mellow_q_learning(q_tm1, *step, q_t, 2.0)
    torch.testing.assert_close(one, torch.tensor([0.5 + 0.9 * math.log(2) - 0.1, 0.5 * math.log(2) - 0.2, -1.25]))
    torch.testing.assert_close(two[1], torch.tensor(0.25 * math.log(5) - 0.2))
    one.sum().backward()
    assert q_tm1.grad.tolist() == [[-1, 0], [0, -1], [-1, 0]]


def test_the_loss_asks_the_right_network_about_the_right_observation():
    def network(before, after):
        values = {0: torch.tensor([before]), 1: torch.tensor([after])}
        return SimpleNamespace(q_values=lambda obs: values[int(obs[0, 0, 0, 0])], redraw_noise=lambda generator: None)

    online, target = network([1.0, 3.0], [50.0, 60.0]), network([70.0, 80.0], [2.0, 2.0])
    obs = torch.zeros(1, 4, 84, 84, dtype=torch.uint8)
    batch = Batch(obs, torch.tensor([1]), torch.tensor([0.5]), torch.tensor([0.9]), obs + 1)
    output = loss(MellowConfig(omega=3.0), online, target, batch, torch.Generator())
    # mellowmax of equal values is their value: 0.5 + 0.9 · 2 − 3 = −0.7, half its square 0.245
    torch.testing.assert_close(output.error, torch.tensor([-0.7]))
    torch.testing.assert_close(output.loss, torch.tensor([0.245]))
    assert output.q_tm1.tolist() == [[1.0, 3.0]]


# a run of it


@pytest.mark.slow
def test_it_trains_saves_resumes_and_evaluates(tmp_path, registered):
    config = mellow(replay={"batch_size": 8, "train_period": 8})
    go(config, tmp_path / "whole")
    first, _ = go(config, tmp_path / "parts", stop_at(200))
    assert (first.step, first.interrupted) == (200, True)
    assert resume(tmp_path / "parts", progress=Watch(config)).step == 400
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert metrics(tmp_path / "whole")[-1]["loss/td"] > 0
    assert json.loads((tmp_path / "whole/config.json").read_text())["algo"] == {
        **{"kind": "mellow", "gamma": 0.99, "n_step": 2, "omega": 5.0},
    }

    agent = pixelq.load_agent(tmp_path / "whole")
    assert agent.card.algo == config.algo
    assert isinstance(agent.network.head, DuelingHead)
    assert agent.network.state_dict().keys() == tensors(tmp_path / "whole", "agent").keys()
    assert -10 <= evaluate(agent, PROTOCOLS["nature"], episodes=2, num_envs=2).mean <= 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [
        {"network": {"noisy": True}, "replay": {"sampling": "prioritised"}},
        {"network": {"torso": "impala", "spectral_norm": True, "max_pool": 6}},
    ],
)
def test_it_combines_with_the_other_parts(tmp_path, registered, parts):
    config = mellow(total_steps=80, replay=parts.get("replay"))
    network = dataclasses.replace(config.network, **parts["network"])
    config = dataclasses.replace(config, network=network, log_every_steps=80)
    go(config, tmp_path / "run")
    assert metrics(tmp_path / "run")[-1]["loss/td"] > 0


@pytest.mark.skipif(kernels() is None, reason="needs a processor with vectors and a C compiler")
def test_kernels_compute_its_network_without_a_line_for_them(registered, monkeypatch):
    passes = []
    forward = NetworkKernel.forward
    monkeypatch.setattr(NetworkKernel, "forward", lambda *given, **named: passes.append(1) or forward(*given, **named))
    config = dataclasses.replace(preset("nature-dqn"), algo=MellowConfig(), device="cpu", precision="auto")
    config = resolve(config)
    assert config.precision == "bfloat16"
    learners = [
        moving_learner(
            dataclasses.replace(config, compile=wanted), 4, torch.device("cpu"), torch.Generator().manual_seed(0)
        )
        for wanted in (True, False)
    ]
    assert isinstance(learners[0].engine, KernelEngine)
    generator = torch.Generator().manual_seed(1)
    obs = torch.randint(0, 256, (2, 8, 4, 84, 84), dtype=torch.uint8, generator=generator)
    batch = Batch(obs[0], torch.arange(8) % 4, torch.randn(8, generator=generator), torch.full((8,), 0.9), obs[1])
    errors = [learner.update(batch) for learner in learners]
    assert len(passes) == 2  # the target network's values, and the online network's
    torch.testing.assert_close(*errors, rtol=0.05, atol=0.05)


def test_the_command_line_takes_its_settings_for_options(tmp_path, registered, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "mellow", Preset("a mellow maximum", "Asadi & Littman 2017", mellow()))
    assert main(["presets"]) == 0
    assert "a mellow maximum" in capsys.readouterr().out
    assert main(["train", "mellow", "--algo.omega", "2.5", "--total-steps", "80", "--run", "run"]) == 0
    assert from_json(TrainConfig, json.loads((tmp_path / "run/config.json").read_text())).algo.omega == 2.5
    capsys.readouterr()
    assert main(["train", "mellow", "--algo.double"]) == 2
    assert capsys.readouterr().err.startswith("pixelq: --algo.double does not go with mellow: it is a setting of dqn")
    assert main(["train", "mellow", "--help"]) == 0
    assert "towards infinity the maximum" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_one_without_replay_derives_its_settings_from_pqns(tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class Scaled(PQNConfig):
        scale: float = 0.5

    def scaled_loss(config, online, target, batch, generator):
        assert target is online
        online.redraw_noise(generator)
        q_tm1 = online.q_values(batch.obs_tm1)
        error = batch.return_t - q_tm1.gather(1, batch.a_tm1[:, None]).squeeze(1)
        return LossOutput(config.scale * td.squared(error), q_tm1.detach(), error.detach())

    monkeypatch.setitem(ALGO_KINDS, "scaled", Scaled)
    monkeypatch.setitem(ALGOS, Scaled, Algo(make_dueling_network, scaled_loss, memory="rollout"))
    config = tiny("pqn", preset="scaled", total_steps=240, algo=Scaled(rollout_steps=5, minibatches=2))
    go(config, tmp_path / "whole")
    go(config, tmp_path / "parts", stop_at(200))
    resume(tmp_path / "parts", progress=Watch(config))
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert pixelq.load_agent(tmp_path / "whole").card.algo == config.algo


# messages when something is missing


def test_a_class_without_a_name_is_refused():
    with pytest.raises(
        ConfigError, match=r"^MellowConfig is not in pixelq.config.ALGO_KINDS: add it there under a nam"
    ):
        resolve(mellow())


def test_a_class_without_a_loss_is_refused(monkeypatch):
    monkeypatch.setitem(ALGO_KINDS, "mellow", MellowConfig)
    with pytest.raises(ConfigError, match=r"^MellowConfig is not in pixelq.algos.ALGOS: add its network and its loss"):
        resolve(mellow())


def test_settings_that_the_replay_memory_needs_are_asked_for(monkeypatch):
    @dataclass(frozen=True)
    class Short:
        gamma: float = 0.99

    monkeypatch.setitem(ALGO_KINDS, "short", Short)
    with pytest.raises(ConfigError, match=r"^Short has no n_step: an algorithm that learns from a replay buffer needs"):
        resolve(dataclasses.replace(mellow(), algo=Short()))


def test_who_does_not_know_the_algorithm_says_so(tmp_path, monkeypatch):
    with monkeypatch.context() as known:
        known.setitem(ALGO_KINDS, "mellow", MellowConfig)
        known.setitem(ALGOS, MellowConfig, MELLOW)
        go(mellow(total_steps=80), tmp_path / "run")
        values = to_json(mellow())
    says = r'"algo.kind" is \'mellow\': must be \'dqn\' or'
    with pytest.raises(ConfigError, match=says):
        from_json(TrainConfig, values)
    with pytest.raises(PixelqError, match=says):
        resume(tmp_path / "run")
    with pytest.raises(PixelqError, match=says):
        pixelq.load_agent(tmp_path / "run")


def test_the_package_knows_nothing_of_it_afterwards():
    assert "mellow" not in ALGO_KINDS
    assert MellowConfig not in ALGOS
    assert ALGO_KINDS["dqn"] is DQNConfig


# the page

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/algorithms/add-your-own.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def named(name):
    (code,) = (block for block in blocks("python") if block.startswith(f"# {name}\n"))
    return code


@pytest.fixture
def put_back():
    """Whatever a script adds to the tables is gone afterwards."""
    tables = (ALGO_KINDS, ALGOS, PRESETS)
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


@pytest.mark.slow
def test_the_script_of_the_page_runs(tmp_path, monkeypatch, capsys, put_back):
    monkeypatch.chdir(tmp_path)
    script = {"__name__": "__main__"}
    exec(compile(named("mine.py"), "mine.py", "exec"), script)
    assert -10 <= float(capsys.readouterr().out.splitlines()[-1]) <= 10
    assert pixelq.load_agent("runs/mine").card.algo == script["ClippedDoubleConfig"](n_step=3)

    def end(*words):
        monkeypatch.setattr(sys, "argv", ["mine.py", *words])
        with pytest.raises(SystemExit) as done:
            exec(compile(named("mine.py, its end"), "mine.py", "exec"), script)
        assert done.value.code == 0
        return capsys.readouterr().out

    assert "the lesser of two estimates" in end("presets")
    assert "is finished, at step 504" in end("resume", "runs/mine")
    for line in re.findall(r"^python mine.py (train .*) --run", PAGE, re.MULTILINE):
        words = ["--total-steps", "40", "--log-every-steps", "40", "--run", "runs/other"]
        assert "step 40 (100.0%)" in end(*line.split(), *words)
    assert pixelq.load_agent("runs/other").card.algo.n_step == 5


def test_the_loss_of_the_script_by_hand(put_back):
    script = {"__name__": "mine"}
    exec(compile(named("mine.py"), "mine.py", "exec"), script)

    def network(before, after):
        values = [torch.tensor([before]), torch.tensor([after])]
        return SimpleNamespace(q_values=lambda obs: values[int(obs[0, 0, 0, 0])], redraw_noise=lambda generator: None)

    obs = torch.zeros(1, 4, 84, 84, dtype=torch.uint8)
    batch = Batch(obs, torch.tensor([1]), torch.tensor([0.5]), torch.tensor([0.5]), obs + 1)
    for target, error in (([9.0, 4.0], 0.5 + 0.5 * 4 - 3), ([0.0, 8.0], 0.5 + 0.5 * 6 - 3)):
        # the online network chooses action 1, worth 6 to itself
        output = script["loss"](None, network([1.0, 3.0], [5.0, 6.0]), network([70.0, 80.0], target), batch, None)
        torch.testing.assert_close(output.error, torch.tensor([error]))


def apply(block, root):
    """Apply a diff of the page to a file: each hunk's old lines must occur once."""
    name, _, rest = block.partition("\n")
    path = root / name.removeprefix("--- ")
    text = path.read_text()
    for hunk in rest.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if not line.startswith("+"))
        after = "".join(line[1:] for line in lines if not line.startswith("-"))
        assert text.count(before) == 1, f"{name} does not have once:\n{before}"
        text = text.replace(before, after)
    path.write_text(text)
    ast.parse(text)


@pytest.fixture
def package(tmp_path):
    """A copy of the package with the page's second algorithm in it."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    for code in blocks("python"):
        name = code.partition("\n")[0].removeprefix("# ")
        if "/" in name:
            assert not (ROOT / name).exists()
            (tmp_path / name).write_text(code.partition("\n")[2])
    for block in blocks("diff"):
        apply(block, tmp_path)
    return tmp_path


def test_the_edits_of_the_page_still_fit_the_package(package):
    assert len(blocks("diff")) == 5
    assert "ExpectedSarsaConfig" in (package / "src/pixelq/presets.py").read_text()


@pytest.mark.slow
def test_the_package_of_the_page_trains_resumes_and_evaluates(package):
    def pixelq(*words):
        env = os.environ | {"PYTHONPATH": str(package / "src")}
        command = [sys.executable, "-m", "pixelq", *words]
        done = subprocess.run(command, check=False, cwd=package, env=env, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    (line,) = re.findall(r"`pixelq (train expected-sarsa .*?)`", PAGE)
    small = "--game catch --total-steps 400 --replay.capacity 500 --replay.learn-start 100 --network.hidden 16"
    small += " --network.channels 4 4 4 --threads 1 --video-every-episodes 1 --video-min-seconds 0"
    assert pixelq(*line.split(), *small.split(), "--run", "run")[0] == 0
    algo = json.loads((package / "run/config.json").read_text())["algo"]
    assert algo == {"kind": "expected_sarsa", "gamma": 0.99, "n_step": 1, "policy_epsilon": 0.05}
    assert list((package / "run/videos").glob("*.mp4"))
    assert pixelq("resume", "run") == (0, "run is finished, at step 400\n")
    assert pixelq("eval", "run", "--episodes", "2")[0] == 0
    says = "pixelq: --algo.policy-epsilon is 2.0: must be between 0 and 1\n"
    assert pixelq("train", "expected-sarsa", "--algo.policy-epsilon", "2") == (2, says)


@pytest.mark.slow
def test_the_test_of_the_page_passes(package):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    env = os.environ | {"PYTHONPATH": str(package / "src")}
    done = subprocess.run(command, check=False, cwd=package, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
