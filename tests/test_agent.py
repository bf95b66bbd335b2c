import dataclasses
import json

import numpy as np
import pytest
import safetensors.torch
import torch

from pixelq import shipped
from pixelq.agent import Agent, AgentCard, load_agent, save_agent
from pixelq.config import DQNConfig, NetworkConfig
from pixelq.errors import CheckpointError, ConfigError, PixelqError
from pixelq.networks import make_network
from pixelq.run.checkpoint import CheckpointStore

NETWORK = NetworkConfig(channels=(2, 3, 4), hidden=8)
CARD = AgentCard(
    game="breakout",
    action_meanings=("NOOP", "FIRE", "RIGHT", "LEFT"),
    full_action_space=False,
    sticky=0.0,
    fire_after_life_loss=True,
    network=NETWORK,
    algo=DQNConfig(),
    preset="nature-dqn",
    step=50_000,
    seed=1,
)
OBS = np.random.default_rng(0).integers(0, 256, (5, 4, 84, 84), dtype=np.uint8)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Two threads that wait for each other are slow beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(seed=0, actions=4):
    return make_network(NETWORK, actions, torch.Generator().manual_seed(seed))


def line(error):
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


@pytest.fixture
def agent_file(tmp_path):
    path = tmp_path / "agent.safetensors"
    save_agent(path, network().state_dict(), CARD)
    return path


@pytest.fixture
def run(tmp_path):
    """A run with checkpoints at steps 100 and 200 and different weights."""
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    for seed, step in enumerate((100, 200)):
        card = dataclasses.replace(CARD, step=step)
        weights = {name: tensor.contiguous() for name, tensor in network(seed).state_dict().items()}
        store.save(step, {}, {"agent": weights}, (), {"agent": {"pixelq": card.to_json()}})
    return tmp_path / "run"


def break_agent(run, step):
    (path,) = run.glob(f"checkpoints/step-*{step}/agent.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_file_gives_the_network_back(agent_file):
    agent = load_agent(agent_file)
    expected = network().q_values(torch.from_numpy(OBS)).detach().numpy()
    values = agent.q_values(OBS)
    assert values.dtype == np.float32
    assert values.shape == (5, 4)
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    actions = agent.act(OBS)
    assert actions.dtype == np.int64
    np.testing.assert_array_equal(actions, values.argmax(axis=1))
    assert (agent.card, agent.game, agent.action_meanings) == (CARD, "breakout", CARD.action_meanings)


def test_a_file_is_float32_and_nothing_else_is_left_beside_it(agent_file):
    save_agent(agent_file, network().to(torch.bfloat16).state_dict(), CARD)
    stored = safetensors.torch.load_file(agent_file)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    assert [path.name for path in agent_file.parent.iterdir()] == ["agent.safetensors"]


def test_an_agent_can_be_made_of_a_network_at_hand():
    agent = Agent(network(), CARD)
    assert not agent.network.training
    np.testing.assert_array_equal(agent.act(OBS), agent.q_values(OBS).argmax(axis=1))


def test_observations_may_be_read_only_or_strided(agent_file):
    agent = load_agent(agent_file)
    expected = agent.q_values(OBS)
    frozen = OBS.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(agent.q_values(frozen), expected)
    np.testing.assert_array_equal(agent.act(frozen), expected.argmax(axis=1))
    np.testing.assert_allclose(agent.q_values(OBS[::-1]), expected[::-1], rtol=1e-5)


@pytest.mark.parametrize(
    ("obs", "says"),
    [
        (OBS.astype(np.float32), "uint8, got float32"),
        (OBS.tolist(), "uint8, got list"),
        (OBS[0], r"\[4, 84, 84\]"),
        (OBS[:, :3], r"\[5, 3, 84, 84\]"),
        (OBS.transpose(0, 2, 3, 1), r"\[5, 84, 84, 4\]"),
    ],
)
def test_other_observations_are_refused(agent_file, obs, says):
    agent = load_agent(agent_file)
    for method in (agent.act, agent.q_values):
        with pytest.raises(ValueError, match=says):
            method(obs)


def test_a_run_gives_its_newest_agent(run):
    agent = load_agent(run)
    assert agent.card.step == 200
    expected = network(1).q_values(torch.from_numpy(OBS)).detach().numpy()
    np.testing.assert_allclose(agent.q_values(OBS), expected, rtol=1e-5, atol=1e-6)


def test_a_checkpoint_that_replaced_another_of_its_step_is_newer(run):
    card = dataclasses.replace(CARD, step=200, seed=7)
    weights = {name: tensor.contiguous() for name, tensor in network(7).state_dict().items()}
    before = {path.name for path in run.glob("checkpoints/step-*")}
    CheckpointStore(run / "checkpoints", keep=9).save(
        200, {}, {"agent": weights}, (), {"agent": {"pixelq": card.to_json()}}
    )
    assert {path.name for path in run.glob("checkpoints/step-*")} != before
    assert load_agent(run).card.seed == 7


def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(run):
    break_agent(run, 200)
    said = []
    assert load_agent(run, on_damage=said.append).card.step == 100
    assert len(said) == 1
    assert "000200" in said[0]
    assert "damaged" in said[0]
    with pytest.warns(UserWarning, match="damaged"):
        load_agent(run)


def test_a_run_with_nothing_but_damage_says_so(run):
    for step in (100, 200):
        break_agent(run, step)
    with pytest.raises(CheckpointError) as error:
        load_agent(run, on_damage=lambda _: None)
    assert "no undamaged checkpoint" in line(error)


def test_replay_chunks_are_not_read(run):
    (manifest,) = run.glob("checkpoints/step-*200/manifest.json")
    listed = json.loads(manifest.read_text())
    assert "agent.safetensors" in listed["files"]
    for path in run.glob("checkpoints/step-*/state.json"):
        path.unlink()  # load_agent has no use for it
    assert load_agent(run).card.step == 200


def test_paths_that_hold_no_agent(tmp_path, agent_file):
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    (tmp_path / "model.pt").write_bytes(b"\x80\x02")
    (tmp_path / "model.pth").write_bytes(b"\x80\x02")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    (tmp_path / "hole.safetensors").write_bytes(b"")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(agent_file.read_bytes()[:-100])
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, foreign)
    cases = {
        "nowhere": "does not exist",
        ".": "no run directory",
        "empty": "no checkpoint yet",
        "model.pt": "pixelq loads .safetensors and .onnx",
        "model.pth": "pixelq loads .safetensors and .onnx",
        "junk.safetensors": "damaged",
        "hole.safetensors": "damaged",
        "cut.safetensors": "damaged",
        "foreign.safetensors": "not an agent of pixelq",
    }
    for name, says in cases.items():
        with pytest.raises(PixelqError) as error:
            load_agent(tmp_path / name)
        assert says in line(error), name


def test_files_that_do_not_fit_their_card(tmp_path):
    good = {name: tensor.contiguous() for name, tensor in network().state_dict().items()}
    missing = {name: tensor for name, tensor in good.items() if name != "head.output.bias"}
    nan = {name: tensor * float("nan") for name, tensor in good.items()}
    cases = [
        (network(actions=3).state_dict(), CARD, "head.output.bias is [3], not [4]"),
        (missing, CARD, "head.output.bias is None, not [4]"),
        ({**good, "extra": torch.zeros(1)}, CARD, "extra is [1], not None"),
        (nan, CARD, "not finite"),
        (
            good,
            dataclasses.replace(CARD, network=NetworkConfig(channels=(0, 1, 1), hidden=8)),
            "--network.channels is (0, 1, 1): must be",
        ),
        # a card alone must not cost memory
        (good, dataclasses.replace(CARD, network=NetworkConfig(width=16, hidden=16_384)), "does not fit"),
    ]
    for weights, card, says in cases:
        path = tmp_path / "agent.safetensors"
        save_agent(path, weights, card)
        with pytest.raises(PixelqError) as error:
            load_agent(path)
        assert says in line(error)


def test_a_card_survives_json():
    assert AgentCard.from_json(CARD.to_json()) == CARD
    assert AgentCard.from_json(dataclasses.replace(CARD, sticky=0).to_json()).sticky == 0.0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 1}, "format 1"),
        ({"game": 3}, '"game"'),
        ({"step": None}, '"step"'),
        ({"seed": True}, '"seed"'),
        ({"action_meanings": []}, '"action_meanings"'),
        ({"action_meanings": [1]}, '"action_meanings"'),
        ({"network": {"hidden": "many"}}, "network.hidden"),
        ({"network": [1]}, "network"),
        ({"network": {"hidden": 0}}, "--network.hidden is 0"),
        ({"algo": "dqn"}, "algo"),
        ({"algo": {"kind": "dqn", "atoms": 3}}, "algo.atoms"),
        ({"algo": {"kind": "c51", "v_min": 11.0}}, "--algo.v-min is 11.0"),
    ],
)
def test_other_cards_are_refused(change, says):
    with pytest.raises(ConfigError) as error:
        AgentCard.from_json(json.dumps(json.loads(CARD.to_json()) | change))
    assert says in line(error)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "null"])
def test_text_that_is_no_card_is_refused(text):
    with pytest.raises(ConfigError) as error:
        AgentCard.from_json(text)
    assert "card" in line(error)


def test_devices(agent_file):
    assert load_agent(agent_file, "auto").device.type in ("cpu", "cuda")
    with pytest.raises(PixelqError, match="tpu"):
        load_agent(agent_file, "tpu")
    with pytest.raises(PixelqError, match="no CUDA GPU"):
        load_agent(agent_file, "cuda")


def test_an_agent_file_is_named_so(tmp_path):
    with pytest.raises(PixelqError, match=r"\.safetensors"):
        save_agent(tmp_path / "agent.pt", network().state_dict(), CARD)
    with pytest.raises(PixelqError, match="cannot write"):
        save_agent(tmp_path / "no" / "agent.safetensors", network().state_dict(), CARD)


def test_an_agent_that_comes_along_has_a_name(tmp_path, monkeypatch):
    folder = tmp_path / "package"
    folder.mkdir()
    save_agent(folder / "toy.safetensors", network().state_dict(), CARD)
    monkeypatch.setattr(shipped, "SHIPPED_FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    assert shipped.shipped_agents() == ["toy"]
    assert load_agent("toy").card == CARD
    (tmp_path / "toy").mkdir()  # a path of that name is meant, if there is one
    with pytest.raises(PixelqError, match="toy is no run directory"):
        load_agent("toy")
    for path in ("./tay", "tay", "package/toy"):
        with pytest.raises(PixelqError, match="does not exist"):
            load_agent(path)
