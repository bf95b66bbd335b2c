"""Every preset's network, exported, against the agent on real observations: `python benchmarks/check_exports.py`.

Both are also compared with the same network in float64: what they differ by is the rounding of float32 sums, each in
its own order. So the bound is one relative to the largest value.
"""

import argparse
import copy
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from pixelq.agent import Agent, load_agent
from pixelq.algos import algo_of
from pixelq.config import TrainConfig
from pixelq.envs import make_envs
from pixelq.interop.exports import export
from pixelq.presets import PRESETS


def observations(count: int, games: int = 10) -> np.ndarray:
    """Breakout as the shipped agent sees it, ε = 0.1, [count, 4, 84, 84] uint8."""
    agent = load_agent("breakout")
    envs = make_envs("breakout", games, 1, PRESETS["fast"].config.env, 1)
    generator = np.random.default_rng(0)
    seen = [envs.reset().obs]
    while len(seen) * games < count:
        for _ in range(3):  # else neighbours look alike
            explore = generator.random(games) < 0.1
            envs.send(np.where(explore, generator.integers(0, 4, games), agent.act(seen[-1])))
            result = envs.recv()
        seen.append(result.obs)
    envs.close()
    return np.concatenate(seen)[:count]


def exported(agent: Agent, obs: np.ndarray, folder: Path) -> tuple[float, float, float, float]:
    """Largest differences: exported from agent, agent from float64, exported from float64; and the largest value."""
    export(agent, folder / "agent.onnx")
    session = onnxruntime.InferenceSession(folder / "agent.onnx", providers=["CPUExecutionProvider"])
    batches = np.array_split(obs, max(1, len(obs) // 100))
    exact = copy.deepcopy(agent.network).double()
    worst = np.zeros(4)
    for batch in batches:
        theirs, ours = session.run(None, {"obs": batch})[0], agent.q_values(batch)
        with torch.inference_mode():
            true = exact.q_values(torch.from_numpy(batch)).numpy()
        pairs = np.abs(theirs - ours), np.abs(ours - true), np.abs(theirs - true), np.abs(true)
        worst = np.maximum(worst, [part.max() for part in pairs])
    return tuple(map(float, worst))


def network_agent(config: TrainConfig) -> Agent:
    """An agent of a preset with fresh weights."""
    make = algo_of(config.algo).make_network
    card = dataclasses.replace(load_agent("breakout").card, network=config.network, algo=config.algo)
    return Agent(make(config.network, config.algo, 4, torch.Generator().manual_seed(0), card.obs_shape), card)


def main() -> None:
    """Print the largest difference for every preset; fail above 1e-5 of the largest value."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--observations", type=int, default=1000)
    obs = observations(parser.parse_args().observations)
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        agents = {"shipped agent": load_agent("breakout")}
        agents |= {name: network_agent(preset.config) for name, preset in PRESETS.items()}
        for name, agent in agents.items():
            apart, ours, theirs, scale = exported(agent, obs, Path(folder))
            worst = max(worst, apart / max(1.0, scale))
            exact = f"from float64 {ours:.1e} and {theirs:.1e}"
            print(f"{name:16} agent and ONNX differ by {apart:.1e}, {exact}, values up to {scale:.2f}", flush=True)
    assert worst <= 1e-5, worst


if __name__ == "__main__":
    main()
