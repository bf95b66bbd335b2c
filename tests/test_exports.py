"""Exported agents give the values of the agent: in onnxruntime, as torch.export programs, and at play."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from agents import MEANINGS, write_agent
from pixelq.agent import Agent, AgentCard, load_agent
from pixelq.algos import algo_of
from pixelq.cli.main import main
from pixelq.errors import PixelqError
from pixelq.extras import install_command
from pixelq.interop.exports import export
from pixelq.networks import QNetwork
from pixelq.presets import PRESETS
from pixelq.training.initial import load_initial

ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'pixelq[onnx]'")
pytest.importorskip("onnxscript", reason="needs onnxscript: pip install 'pixelq[onnx]'")

KINDS = {repr((p.config.network, type(p.config.algo))): name for name, p in reversed(PRESETS.items())}
SHIPPED = "breakout"  # trained: its values are large
TOLERANCE = 1e-5  # of the largest value, or of 1 if that is less: float32 sums, each side in its own order


@pytest.fixture(scope="module")
def obs():
    """Breakout as the agent that comes with pixelq plays it, [1000, 4, 84, 84] uint8."""
    from check_exports import observations  # needs onnxruntime

    return observations(1_000)


def assert_same_values(values_of, agent, obs):
    """`values_of` gives the agent's values, for many observations at once and for one."""
    batches = [*np.array_split(obs, 10), obs[:1]]
    found = [values_of(batch) for batch in batches]
    assert {values.dtype for values in found} == {np.dtype(np.float32)}
    wanted = [agent.q_values(batch) for batch in batches]
    largest = max(1.0, float(np.abs(np.concatenate(wanted)).max()))
    assert float(np.abs(np.concatenate(found) - np.concatenate(wanted)).max()) <= TOLERANCE * largest


def agent_of(name):
    if name == SHIPPED:
        return load_agent(name)
    config = PRESETS[name].config
    make = algo_of(config.algo).make_network
    network = make(config.network, config.algo, 4, torch.Generator().manual_seed(0), config.env.obs_shape)
    facts = {"full_action_space": False, "sticky": 0.0, "fire_after_life_loss": True, "step": 7, "seed": 1}
    meanings = MEANINGS["breakout"]
    card = AgentCard("breakout", meanings, network=config.network, algo=config.algo, preset=name, **facts)
    return Agent(network, card)


@pytest.mark.slow
@pytest.mark.parametrize("name", [SHIPPED, *KINDS.values()])
def test_every_network_gives_the_same_values_in_onnxruntime(name, obs, tmp_path):
    agent = agent_of(name)
    path = tmp_path / "agent.onnx"
    assert export(agent, path) == "onnx"
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert_same_values(lambda batch: session.run(None, {"obs": batch})[0], agent, obs)
    assert AgentCard.from_json(session.get_modelmeta().custom_metadata_map["pixelq"]) == agent.card
    assert list(tmp_path.iterdir()) == [path]  # weights are inside


@pytest.mark.slow
@pytest.mark.parametrize("name", [SHIPPED, "fast", "btr"])
def test_a_torch_export_program_gives_the_same_values(name, obs, tmp_path):
    agent = agent_of(name)
    path = tmp_path / "agent.pt2"
    export(agent, path)
    files = {"pixelq": ""}
    program = torch.export.load(path, extra_files=files).module()
    some = obs[::10] if name == "btr" else obs  # large
    assert_same_values(lambda batch: program(torch.from_numpy(batch)).detach().numpy(), agent, some)
    assert AgentCard.from_json(files["pixelq"]) == agent.card


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    source = write_agent(folder / "agent.safetensors", fire_after_life_loss=True)
    assert main(["export", str(source), "--out", str(folder / "agent.onnx")]) == 0
    return source, folder / "agent.onnx"


def scores(capsys, agent):
    assert main(["eval", str(agent), "--episodes", "3", "--seed", "5", "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
def test_an_exported_agent_plays_as_the_agent_does(exported, capsys):
    assert scores(capsys, exported[0]) == scores(capsys, exported[1])
    agent = load_agent(exported[1])
    assert agent.card == load_agent(exported[0]).card
    assert not isinstance(agent.network, QNetwork)


def test_an_exported_agent_cannot_be_learned_on_or_exported_again(exported, tmp_path):
    agent = load_agent(exported[1])
    with pytest.raises(PixelqError, match="exported already"):
        export(agent, tmp_path / "again.safetensors")

    class Parts:
        class envs:
            action_meanings = agent.action_meanings

    with pytest.raises(PixelqError, match="cannot be learned on"):
        load_initial(Parts, str(exported[1]))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--out", "a.bin"], "must end in .safetensors, .onnx or .pt2"),
        (["--out", "a.pt2", "--format", "onnx"], "must end in .onnx"),
        (["--out", "a.onnx", "--weights", "float16"], "go with a .safetensors file"),
    ],
)
def test_what_cannot_be_exported_is_one_line(words, says, exported, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(exported[0]), *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_exported_agents_are_one_line(exported, tmp_path, capsys):
    import onnx

    model = onnx.load(exported[1])
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "no_card.onnx")
    (tmp_path / "noise.onnx").write_bytes(b"\x08\x01noise")
    other = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["x"], ["y"])],
            "g",
            *([onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1])] for name in "xy"),
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.save(other, tmp_path / "other.onnx")
    for name, says in (("no_card", "no agent card"), ("noise", "no ONNX file"), ("other", "does not take obs")):
        assert main(["eval", str(tmp_path / f"{name}.onnx")]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1


def test_without_the_libraries_the_extra_is_named(exported, tmp_path):
    code = (
        "import sys; sys.modules.update({n: None for n in ('onnx', 'onnxscript', 'onnxruntime')});"
        "import importlib.util as u; find = u.find_spec;"
        "u.find_spec = lambda n, *a: None if n.startswith('onnx') else find(n, *a);"
        "from pixelq.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    for words in (["export", str(exported[0]), "--out", "a.onnx"], ["eval", str(exported[1])]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert install_command("onnx") in done.stderr
        assert done.stderr.count("\n") == 1
