"""What Stable-Baselines3 and CleanRL trained plays the same in pixelq."""

import pickle
import warnings
import zipfile

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from agents import MEANINGS
from pixelq.agent import load_agent
from pixelq.cli.main import main
from pixelq.interop.foreign import import_agent

OBS = np.random.default_rng(0).integers(0, 256, (1_000, 4, 84, 84), dtype=np.uint8)


class Stacks(gymnasium.Env):
    """Four pictures of noise and a reward for one action, [84, 84, 4] uint8 or channels first."""

    action_space = gymnasium.spaces.Discrete(4)
    observation_space = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._obs(), {}

    def step(self, action):
        self._step += 1
        return self._obs(), float(action == 2), self._step % 20 == 0, False, {}

    def _obs(self):
        return self.np_random.integers(0, 256, (4, 84, 84), dtype=np.uint8)


@pytest.mark.slow
def test_a_dqn_of_stable_baselines3_has_the_same_values_and_actions(tmp_path, capsys):
    sb3 = pytest.importorskip("stable_baselines3", reason="needs stable-baselines3: pip install 'pixelq[sb3]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sb3.DQN(
            "CnnPolicy", Stacks(), buffer_size=300, learning_starts=50, gamma=0.95, seed=3, verbose=0, device="cpu"
        )
        model.learn(200)
        model.save(tmp_path / "dqn.zip")
    out = tmp_path / "agent.safetensors"
    words = ["import", str(tmp_path / "dqn.zip"), "--from", "sb3", "--game", "ALE/Breakout-v5", "--out", str(out)]
    assert main(words) == 0
    assert "sb3-dqn, step 200, actions NOOP FIRE RIGHT LEFT" in capsys.readouterr().out
    agent = load_agent(out)
    with torch.no_grad():
        expected = model.q_net(torch.from_numpy(OBS)).numpy()
    np.testing.assert_allclose(agent.q_values(OBS), expected, rtol=1e-5, atol=1e-5)
    actions, _ = model.predict(OBS, deterministic=True)
    best = np.sort(expected, axis=1)
    clear = best[:, -1] - best[:, -2] > 2e-5  # rounding decides the others
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(agent.act(OBS)[clear], actions[clear])
    card = agent.card
    assert (card.step, card.seed, card.algo.gamma, card.sticky) == (200, 3, 0.95, 0.25)
    assert main(["eval", str(out), "--protocol", "machado", "--episodes", "1"]) == 2  # it asks for 18 actions
    assert "18 actions" in capsys.readouterr().err


def cleanrl(actions=4, hidden=512):
    """The network of CleanRL's dqn_atari.py."""
    torch.manual_seed(0)

    class QNetwork(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(
                *(nn.Conv2d(4, 32, 8, stride=4), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2), nn.ReLU()),
                *(nn.Conv2d(64, 64, 3, stride=1), nn.ReLU(), nn.Flatten(), nn.Linear(3136, hidden), nn.ReLU()),
                nn.Linear(hidden, actions),
            )

        def forward(self, x):
            return self.network(x / 255.0)

    return QNetwork()


def saved(tmp_path, value):
    path = tmp_path / "dqn_atari.cleanrl_model"
    torch.save(value, path)
    return path


@pytest.mark.slow
def test_a_model_of_cleanrl_has_the_same_values(tmp_path):
    model = cleanrl()
    agent = import_agent(saved(tmp_path, model.state_dict()), "cleanrl", "BreakoutNoFrameskip-v4", step=10)
    with torch.no_grad():
        expected = model(torch.from_numpy(OBS)).numpy()
    np.testing.assert_allclose(agent.q_values(OBS), expected, rtol=1e-5, atol=1e-5)
    assert agent.action_meanings == MEANINGS["breakout"]
    assert (agent.card.full_action_space, agent.card.step, agent.card.sticky) == (False, 10, 0.0)


def test_eighteen_outputs_are_all_the_actions(tmp_path):
    agent = import_agent(saved(tmp_path, cleanrl(18, 16).state_dict()), "cleanrl", "breakout")
    assert agent.card.full_action_space
    assert len(agent.action_meanings) == 18


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def refused(capsys, path, library, says, game="breakout"):
    out = path.parent / "out.safetensors"
    assert main(["import", str(path), "--from", library, "--game", game, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert says in error, error
    assert error.count("\n") == 1
    assert not out.exists()


def test_what_cannot_be_imported_is_one_line(tmp_path, capsys):
    good = cleanrl(hidden=16).state_dict()
    refused(capsys, tmp_path / "nowhere", "cleanrl", "is no file")
    refused(capsys, saved(tmp_path, good), "sb3", "no policy.pth")
    refused(capsys, saved(tmp_path, good), "cleanrl", "has 4 actions, seaquest has 18", "seaquest")
    refused(capsys, saved(tmp_path, good | {"atoms": torch.zeros(51)}), "cleanrl", "it has atoms")
    wide = {name: value for name, value in good.items() if not name.startswith("network.9")}
    refused(capsys, saved(tmp_path, wide), "cleanrl", "it has no network.9.weight")
    refused(capsys, saved(tmp_path, good | {"network.0.weight": torch.zeros(32, 12, 8, 8)}), "cleanrl", "observations")
    refused(capsys, saved(tmp_path, good | {"network.2.weight": torch.zeros(64, 32, 5, 5)}), "cleanrl", "does not fit")
    nan = good | {"network.9.bias": torch.full((4,), torch.nan)}
    refused(capsys, saved(tmp_path, nan), "cleanrl", "not finite")
    refused(capsys, saved(tmp_path, {"model": 1}), "cleanrl", "no state dict")
    noise = tmp_path / "noise.cleanrl_model"
    noise.write_bytes(b"noise")
    refused(capsys, noise, "cleanrl", "is refused")
    refused(capsys, noise, "sb3", "no zip")


def test_nothing_is_unpickled(tmp_path, capsys):
    marker = tmp_path / "made"
    refused(capsys, saved(tmp_path, {"network.0.weight": Trap(marker)}), "cleanrl", "is refused")
    (tmp_path / "plain.cleanrl_model").write_bytes(pickle.dumps(Trap(marker)))
    refused(capsys, tmp_path / "plain.cleanrl_model", "cleanrl", "is refused")
    with zipfile.ZipFile(tmp_path / "dqn.zip", "w") as archive:
        archive.write(saved(tmp_path, {"q_net.q_net.0.weight": Trap(marker)}), "policy.pth")
        archive.writestr("data", "{}")
    refused(capsys, tmp_path / "dqn.zip", "sb3", "is refused")
    assert not marker.exists()
