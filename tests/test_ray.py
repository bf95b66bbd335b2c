"""Runs on a Ray cluster: what Ray is asked for, and that a node that is lost changes nothing of them."""

import importlib.util
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import pixelq
from pixelq.cli.main import main
from pixelq.distributed import task
from pixelq.distributed.processes import Job
from pixelq.distributed.ray_cluster import RayCluster, connected
from pixelq.errors import PixelqError
from pixelq.extras import install_command
from pixelq.presets import preset
from pixelq.run.rundir import RunDir
from pixelq.sweeps.plan import Plan, planned_runs
from pixelq.sweeps.state import run_state
from runs import assert_same_run, quick
from test_sweeps import SHORT, wait_for, words


def wait_long(condition):
    wait_for(condition, 1_200)  # Ray alone takes a minute to start on a busy machine


@pytest.mark.parametrize("verb", ["sweep", "tune"])
def test_without_ray_one_line_says_what_to_install(monkeypatch, capsys, tmp_path, verb):
    if verb == "tune":
        pytest.importorskip("optuna", reason="needs optuna: pip install 'pixelq[tune]'")
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ray" else find(name))
    more = ["--trials", "2", "--search", "algo.n-step=1..3"] if verb == "tune" else []
    assert main([verb, "fast", "--folder", str(tmp_path / "new"), "--ray", "local", *more]) == 2
    assert capsys.readouterr().err == f"pixelq: this needs ray: {install_command('ray')}\n"
    assert not (tmp_path / "new").exists()


# what Ray is asked for


class FakeRay:
    """A cluster that starts nothing."""

    def __init__(self, *nodes):
        self._nodes = nodes
        self.asked = []

    def cluster_resources(self):
        return {name: sum(node.get(name, 0) for node in self._nodes) for name in ("CPU", "GPU", "memory")}

    def nodes(self):
        return [{"Alive": True, "Resources": node} for node in self._nodes]

    def remote(self, function):
        assert function is task.run_task
        return self

    def options(self, **options):
        def remote(*arguments):
            self.asked.append((options, arguments))

        self.asked_options = options
        return type("Task", (), {"remote": staticmethod(remote)})


def test_runs_share_processors_or_gpus():
    cpu = preset("fast").__class__(device="cpu")
    either = preset("fast")
    small = RayCluster(FakeRay({"CPU": 8}, {"CPU": 4}))
    assert small.room([cpu] * 20, None) == (12, 1)
    assert small.room([quick(threads=4)] * 20, None) == (3, 4)
    assert small.room([cpu] * 20, 5) == (5, 1)
    assert small.room([either] * 2, None) == (2, 1)
    large = RayCluster(FakeRay({"CPU": 16, "GPU": 2}, {"CPU": 16, "GPU": 2}))
    assert large.room([either] * 20, None) == (4, 8)
    assert large.room([cpu] * 50, None) == (32, 1)


def test_a_run_asks_for_what_it_needs(tmp_path):
    ray = FakeRay({"CPU": 4, "GPU": 1, "memory": 8e9})
    cluster = RayCluster(ray)
    job = Job(quick(threads=2, device="auto"), tmp_path / "a.json", tmp_path / "a", tmp_path / "a.log", 10**9)
    cluster.start(job)
    options, arguments = ray.asked[0]
    assert (options["num_cpus"], options["num_gpus"], options["memory"]) == (2, 1, 10**9)
    assert arguments[:4] == tuple(str(tmp_path / name) for name in ("a.json", "a", "a.log", "a.stop"))
    with pytest.raises(PixelqError, match="no node of the cluster has 8 processors"):
        cluster.start(job._replace(config=quick(threads=8)))
    with pytest.raises(PixelqError, match=r"20.0 GB of memory, which a needs"):
        cluster.start(job._replace(memory=20 * 10**9))


@pytest.mark.parametrize("address", ["nowhere", "192.0.2.1", "host:"])
def test_an_address_that_is_none_is_named(address):
    pytest.importorskip("ray")
    with pytest.raises(PixelqError, match="must be HOST:PORT, auto or local"), connected(address):
        pass


# what a node does


def write_config(folder, config):
    from pixelq.config import to_json

    path = folder / "run.json"
    path.write_text(json.dumps(to_json(config)))
    return str(path)


@pytest.mark.slow
def test_a_task_stops_when_its_file_appears_and_goes_on(tmp_path):
    config = quick(total_steps=4_000, device="cpu")
    given = (write_config(tmp_path, config), str(tmp_path / "run"), str(tmp_path / "log"), str(tmp_path / "stop"), {})
    stop = tmp_path / "stop"
    stopper = threading.Thread(
        target=lambda: (wait_long((tmp_path / "run" / "config.json").exists), stop.write_text(""))
    )
    stopper.start()
    assert task.run_task(*given) == 130, (tmp_path / "log").read_text()
    stopper.join()
    assert task.run_task(*given) == task.STOPPED  # not begun at all
    stop.unlink()
    assert task.run_task(*given) == 0
    pixelq.train(config, tmp_path / "single")
    assert_same_run(tmp_path / "run", tmp_path / "single")


def test_a_task_waits_for_the_process_that_its_node_left_behind(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with RunDir(run).lock():
        stopper = threading.Timer(1.0, (tmp_path / "stop").touch)
        stopper.start()
        assert not task._free(run, tmp_path / "stop")
    (tmp_path / "stop").unlink()
    assert task._free(run, tmp_path / "stop")


# a cluster


@pytest.fixture
def nodes():
    """Two nodes of a processor each: their address, and what ends one of them."""
    pytest.importorskip("ray")
    program = Path(__file__).with_name("ray_nodes.py")
    with subprocess.Popen(
        [sys.executable, str(program), "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        address = process.stdout.readline().strip()

        def kill():
            process.stdin.write("kill\n")
            process.stdin.flush()
            assert process.stdout.readline() == "killed\n"

        yield address, kill
        process.stdin.close()


@pytest.mark.slow
def test_a_sweep_outlives_a_node(tmp_path, nodes):
    address, kill = nodes
    settings = SHORT | {"total-steps": 1_500}
    plan = Plan(("cleanrl-dqn",), ("catch",), (1, 2), tuple((name, (value,)) for name, value in settings.items()))
    folder, runs = tmp_path / "sweep", planned_runs(plan)
    command = [sys.executable, "-m", "pixelq", *words(plan, folder), "--ray", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            wait_long(
                lambda: (
                    process.poll() is not None
                    or all(
                        (folder / run.name / "metrics.jsonl").exists() and checkpoints(folder / run.name) > 1
                        for run in runs
                    )
                )
            )
            kill()
        finally:
            said = process.communicate()[0] if process.poll() is None else process.stdout.read()
    assert process.returncode == 0, said
    assert "2 of 2 runs finished" in said
    told = []
    for run in runs:
        assert run_state(folder, run).status == "finished"
        told.append((folder / run.name / "provenance.json").read_text())
        pixelq.train(run.config, tmp_path / "single" / run.name)
        assert_same_run(folder / run.name, tmp_path / "single" / run.name)
    assert any('"resumed"' in text for text in told)


def checkpoints(run):
    return len(list((run / "checkpoints").glob("step-*")))


@pytest.mark.slow
def test_a_study_on_a_cluster_of_this_machine_is_stopped_and_gone_on_with(tmp_path):
    pytest.importorskip("ray")
    pytest.importorskip("optuna")
    folder = tmp_path / "study"
    command = ["tune", "cleanrl-dqn", "--folder", str(folder), "--trials", "2", "--games", "catch", "--ray", "local"]
    command += ["--search", "optimiser.learning-rate=1e-4..1e-2:log", "--jobs", "1"]
    for name, value in SHORT.items():
        command += ["--set", f"{name}={' '.join(map(str, value)) if isinstance(value, list) else value}"]
    command = [sys.executable, "-m", "pixelq", *command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_long(lambda: process.poll() is not None or list(folder.glob("trial-0000-*/config.json")))
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[0]
    assert process.returncode == 130, said
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 trials complete, 0 pruned, 0 failed" in done.stdout
