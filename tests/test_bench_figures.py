"""`pixelq bench env | learner | train`: output, counts, and that whole periods are timed."""

import dataclasses
import json
import subprocess
import sys
import time
import weakref

import pytest
import torch

from pixelq.actor import epsilon_at
from pixelq.algos import ALGOS
from pixelq.bench import learner, roofline, train
from pixelq.bench.child import in_own_process, peak_resident_bytes
from pixelq.bench.env import EnvMeasurement, measure_env
from pixelq.bench.learner import LearnerMeasurement
from pixelq.bench.roofline import matmul_flops_per_second
from pixelq.bench.train import TrainMeasurement
from pixelq.bench.workload import Update, workload_of
from pixelq.cli.bench import recipes, tables
from pixelq.cli.main import main
from pixelq.config import EnvConfig, ExplorationConfig, validate
from pixelq.engines.plain import PlainEngine
from pixelq.errors import PixelqError
from pixelq.native.library import instructions, kernels
from pixelq.presets import PRESETS, preset
from pixelq.training.parts import resolve
from runs import quick, tiny

SMALL = ("--game", "catch", "--network.channels", "4", "4", "4", "--network.hidden", "16", "--threads", "1")


def bench(capsys, *words):
    status = main(["bench", *words])
    said = capsys.readouterr()
    return status, said.out.splitlines(), said.err


def results(lines):
    return json.loads(lines[-1])["results"]


@pytest.mark.slow
def test_env_ends_with_one_line_of_json(capsys):
    words = ("--game", "catch", "--envs", "1", "4", "--threads", "1", "--seconds", "0.1", "--json")
    status, lines, _ = bench(capsys, "env", *words)
    assert status == 0
    assert len(lines) == 1 + 2 + 1  # a head, two rows, the JSON
    assert [list(result) for result in results(lines)] == [list(EnvMeasurement._fields)] * 2
    assert [(result["game"], result["envs"]) for result in results(lines)] == [("catch", 1), ("catch", 4)]


@pytest.mark.slow
def test_learner_ends_with_one_line_of_json(capsys):
    status, lines, _ = bench(capsys, "learner", "nature-dqn", *SMALL, "--seconds", "0.1", "--json")
    assert status == 0
    assert len(lines) == 1 + 1 + 1
    (result,) = results(lines)
    assert list(result) == list(LearnerMeasurement._fields)
    assert (result["preset"], result["batch_size"], result["threads"]) == ("nature-dqn", 32, 1)
    assert result["instructions"] is None or result["instructions"] in lines[1]


@pytest.mark.slow
def test_train_measures_every_preset(capsys, monkeypatch):
    monkeypatch.setattr(recipes, "PRESETS", {name: PRESETS[name] for name in ("keras-example", "nature-dqn")})
    words = ("--all-presets", *SMALL, "--envs", "2", "--device", "cpu", "--seconds", "0.1", "--json")
    status, lines, _ = bench(capsys, "train", *words)
    assert status == 0
    assert lines[:2] == ["  measuring keras-example …", "  measuring nature-dqn …"]
    assert len(lines) == 2 + 1 + 2 + 1
    assert [result["preset"] for result in results(lines)] == ["keras-example", "nature-dqn"]
    for result in results(lines):
        assert list(result) == list(TrainMeasurement._fields)
        assert (result["game"], result["envs"], result["device"], result["threads"]) == ("catch", 2, "cpu", 1)
        assert result["steps_per_second"] == result["steps"] / result["seconds"]
        assert result["frames_per_second"] == 4 * result["steps_per_second"]
        assert result["flops_per_second"] < result["flops_per_second_possible"]
        assert 50e6 < result["peak_resident_bytes"] < 5e9


@pytest.mark.slow
def test_train_measures_breakout(capsys):
    words = ("keras-example", *SMALL[2:], "--envs", "1", "--seconds", "0.5", "--json")
    status, lines, _ = bench(capsys, "train", *words)
    assert status == 0
    (result,) = results(lines)
    assert result["game"] == "breakout"
    assert result["steps"] % 4 == 0
    # learning costs something, and one game on one thread is the emulator's share of it
    assert 4 < result["frames_per_second"] < 2 * result["emulator_frames_per_second_per_core"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("train naturedqn", 'unknown preset "naturedqn"'),
        ("train nature-dqn --all-presets", "--all-presets measures nature-dqn too: leave out one of the two"),
        ("train --preset nature-dqn", "--preset is not how to choose one: pixelq bench train nature-dqn …"),
        ("train --seconds 3601", "--seconds is 3601: must be between 0 and 3,600"),
        ("train --seconds nan", "--seconds is nan: must be between 0 and 3,600"),
        ("train --game breakuot", 'did you mean "breakout"?'),
        ("train --envs 0", "--envs is 0: must be between 1 and 4,096"),
        ("train --threads -1", "--threads is -1: must be between 0 (one a core) and 1,024"),
        ("train keras-example extra", 'unexpected word "extra"; see: pixelq bench train keras-example --help'),
        ("learner --second 3", 'unknown option --second (did you mean "--seconds"?); see: pixelq bench learner --help'),
        ("learner --replay.batch-size 0", "--replay.batch-size is 0: must be between 1 and 65,536"),
        ("env --envs", "--envs needs a value"),
        ("env --envs 1 5000", "--envs is 5000: must be between 1 and 4,096"),
        ("env --game pogn", 'did you mean "pong"?'),
        ("env --seconds -1", "--seconds is -1: must be between 0 and 3,600"),
        ("trian", 'unknown benchmark "trian" (did you mean "train"?); there is: env, replay, learner, train'),
    ],
)
def test_bad_words_are_told_in_one_line(capsys, words, line):
    status, lines, error = bench(capsys, *words.split())
    assert status == 2
    assert lines == []
    assert line in error
    assert error.startswith("pixelq: ")
    assert error.count("\n") == 1


def test_help_names_the_presets(capsys):
    status, lines, _ = bench(capsys, "train", "--help")
    assert status == 0
    said = " ".join(lines)
    assert "--all-presets" in said
    assert all(name in said for name in PRESETS)


def test_games_are_played_for_a_while():
    measured = measure_env("catch", 3, EnvConfig(), 1, 0.05)
    assert measured.steps % 3 == 0
    assert 0.05 <= measured.seconds < 5
    assert measured.num_actions == 3
    assert measured.frames_per_second == pytest.approx(4 * measured.steps / measured.seconds)
    assert measured.frames_per_second_per_core == measured.frames_per_second  # on one thread
    assert measured.bytes_per_second == pytest.approx(4 * 84 * 84 * measured.steps_per_second)


def test_no_time_is_one_step_of_the_games():
    assert measure_env("catch", 2, EnvConfig(), 1, 0.0).steps == 2


@pytest.fixture
def small_products(monkeypatch):
    monkeypatch.setattr(roofline, "_MATMUL_SIZE", {"cpu": 256})
    monkeypatch.setattr(roofline, "_MATMUL_SECONDS", 0.0)


@pytest.mark.usefixtures("small_products")
def test_the_parts_of_an_update_add_up():
    config = resolve(quick(device="cpu"))
    measured = learner._measure(config, 0.0)
    assert measured.updates == 5
    assert measured.update_ms > 0
    assert measured.forward_ms > 0
    assert measured.backward_ms > 0
    parts = measured.forward_ms + measured.backward_ms + measured.optimiser_ms
    assert parts == pytest.approx(max(measured.update_ms, measured.forward_ms + measured.backward_ms))
    assert measured.flops_per_second == pytest.approx(1e3 * measured.flops_per_update / measured.update_ms)


@pytest.mark.slow
@pytest.mark.usefixtures("small_products")
@pytest.mark.skipif(kernels() is None, reason="needs a processor with AMX, AVX512 or AVX2, and a C compiler")
def test_an_update_in_one_kernel_has_no_parts():
    measured = learner._measure(resolve(dataclasses.replace(preset("fast"), device="cpu")), 0.0)
    assert measured.update_ms > 0
    assert measured.instructions == instructions()
    assert (measured.forward_ms, measured.backward_ms, measured.optimiser_ms) == (None, None, None)
    assert measured.flops_per_second == pytest.approx(1e3 * measured.flops_per_update / measured.update_ms)


def test_no_loss_of_another_stream_lives_while_a_gpu_may_record_an_update():
    weight, losses, alive = torch.ones(3, requires_grad=True), [], []

    def forward():
        loss = weight.square().sum()
        losses.append(weakref.ref(loss))
        return loss

    def whole():
        alive.append(losses[-1]() is not None)

    learner._round(Update(1, forward, whole, whole, 0, None), torch.device("cpu"))
    assert alive == [False]


@pytest.mark.usefixtures("small_products")
def test_a_matrix_product_is_timed(monkeypatch):
    assert 1e7 < matmul_flops_per_second(torch.device("cpu"), "float32") < 1e14
    ticks = iter(range(1_000))
    monkeypatch.setattr(roofline.time, "perf_counter", lambda: float(next(ticks)))
    # a second each: 256 × 256 results of 256 multiplications and additions
    assert matmul_flops_per_second(torch.device("cpu"), "float32") == 2 * 256**3


@pytest.mark.usefixtures("small_products")
@pytest.mark.parametrize(
    ("precision", "quick", "multiplied"),
    [("bfloat16", True, torch.bfloat16), ("bfloat16", False, torch.float32), ("float32", True, torch.float32)],
)
def test_no_product_is_timed_in_what_pytorch_has_to_imitate(precision, quick, multiplied, monkeypatch):
    asked = []

    def product(left, right, out):
        asked.append((left.dtype, right.dtype, out.dtype))

    monkeypatch.setattr(roofline, "has_fast_bfloat16", lambda _: quick)
    monkeypatch.setattr(roofline.torch, "mm", product)
    matmul_flops_per_second(torch.device("cpu"), precision)
    assert set(asked) == {(multiplied,) * 3}


@pytest.mark.slow
@pytest.mark.parametrize(("envs", "period"), [(2, 4), (8, 4), (3, 4), (1, 1)])
def test_the_loop_learns_at_the_recipes_ratio_while_it_is_timed(monkeypatch, envs, period):
    config = resolve(quick(envs=envs, device="cpu", replay={"train_period": period}))
    updates, seen = [0], {}
    learn, advance = PlainEngine.learn, train._Stopwatch.advance

    def counting_learn(self, batch, count):
        updates[0] += count
        return learn(self, batch, count)

    def noting_advance(self, step):
        seen[step] = updates[0]
        advance(self, step)

    monkeypatch.setattr(PlainEngine, "learn", counting_learn)
    monkeypatch.setattr(train._Stopwatch, "advance", noting_advance)
    timed = train._measure(config, 0.05)
    end = max(seen)  # the run stops there
    assert timed.steps % envs == timed.steps % period == 0
    assert seen[end] - seen[end - timed.steps] == timed.steps // period
    assert seen[end - timed.steps] >= 20 - envs  # the warm-up; an update may be owed for the last step of the games
    assert timed.seconds >= 0.05


def test_whole_periods_are_timed(monkeypatch):
    clock, stops = [0.0], []
    monkeypatch.setattr(train.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(train.signal, "raise_signal", stops.append)
    watch = train._Stopwatch(warm_up_steps=100, cycle_steps=12, seconds=5.0)
    for step in range(3, 300, 3):  # one step of the games a second
        watch.advance(step)
        clock[0] += 1.0
    # the warm-up ends at 108, the first multiple of 12; the next after 5 seconds is 132, 8 steps of the games later
    assert watch.timed is not None
    assert (watch.timed.steps, watch.timed.seconds) == (24, 8.0)
    assert len(stops) == 1


def test_a_run_that_stops_early_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(train, "train", lambda *_, **__: None)
    with pytest.raises(PixelqError, match="keras-example: the run was stopped before it was measured"):
        train._measure(resolve(quick(device="cpu")), 0.1)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("envs", [1, 8, 4096])
def test_every_recipe_learns_at_once_with_its_last_epsilon(name, envs):
    base = preset(name)
    rollouts = ALGOS[type(base.algo)].memory == "rollout"
    algo = base.algo if rollouts else dataclasses.replace(base.algo, n_step=3)
    config = resolve(dataclasses.replace(base, envs=envs, algo=algo, device="cpu"))
    workload = workload_of(config)
    quick = workload.at_once(config)
    validate(quick)
    for step in (0, 10_000):
        assert epsilon_at(quick.exploration, step) == epsilon_at(config.exploration, config.total_steps)
    if rollouts:
        assert (quick.algo, quick.replay) == (config.algo, config.replay)
        assert workload.warm_up_steps(quick) == workload.cycle_steps(quick) == envs * algo.rollout_steps
        return
    assert quick.replay.learn_start <= 500
    assert quick.replay.train_period == config.replay.train_period
    assert quick.replay.batch_size == config.replay.batch_size
    assert (quick.network, quick.optimiser, quick.env) == (config.network, config.optimiser, config.env)
    assert workload.warm_up_steps(quick) >= quick.replay.learn_start + 20 * 4


def test_epsilon_is_that_of_the_last_step():
    config = tiny(total_steps=1_000, exploration={"start": 1.0, "end": 0.0, "decay_steps": 2_000, "random_steps": 0})
    exploration = workload_of(config).at_once(config).exploration
    assert exploration == ExplorationConfig(start=0.5, end=0.5, decay_steps=2_000)


def test_a_process_of_its_own_does_not_count_its_parents_memory():
    own, child = peak_resident_bytes(), in_own_process("memory", peak_resident_bytes)
    if own is None:
        pytest.skip("this system does not tell")
    assert 5e6 < child < 0.7 * own  # torch is loaded here and not there


def test_what_a_child_raises_arrives():
    with pytest.raises(PixelqError, match='unknown preset "nothing"'):
        in_own_process("nothing", preset, "nothing")


def test_a_table_that_is_too_wide_becomes_blocks(capsys, monkeypatch):
    rows = [
        {"preset": "keras-example", "device": "cpu", "steps/s": "300"},
        {"preset": "nature-dqn", "device": "cuda", "steps/s": "1,200"},
    ]
    tables.print_table(rows)
    table = [["preset", "device", "steps/s"], ["keras-example", "cpu", "300"], ["nature-dqn", "cuda", "1,200"]]
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == table
    monkeypatch.setattr(tables, "_WIDTH", len("keras-example  device  steps/s"))
    tables.print_table(rows)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == table
    monkeypatch.setattr(tables, "_WIDTH", len("keras-example  device  steps/s") - 1)
    tables.print_table(rows)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        *(["preset", "keras-example"], ["device", "cpu"], ["steps/s", "300"], []),
        *(["preset", "nature-dqn"], ["device", "cuda"], ["steps/s", "1,200"], []),
    ]


def test_memory_that_nobody_tells_is_a_dash():
    assert tables.megabytes(None) == "–"
    assert tables.megabytes(416_661_504) == "417 MB"
    assert tables.gigaflops(29_503_491_866.0) == "29.5"


@pytest.mark.slow
def test_a_child_ends_with_the_process_that_started_it():
    script = (
        "import os, signal, time\n"
        "from pixelq.bench.child import in_own_process\n"
        "if __name__ == '__main__':\n"
        "    in_own_process('sleep', print, 'there', flush=True)\n"  # it can start at all
        "    in_own_process('sleep', time.sleep, 600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout.readline() == b"there\n"
        time.sleep(2)  # the second child is on its way
        parent.kill()
        assert parent.stdout.read() == b""  # comes to its end once every process that holds it has ended
