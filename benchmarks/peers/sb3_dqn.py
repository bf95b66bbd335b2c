"""DQN of Stable-Baselines3 on Breakout, timed while it learns.

    python sb3_dqn.py [--seconds 20] [--threads 0]

Its Nature CNN behind its own Atari wrappers, one game, with the Keras example's numbers: batch 32, an update every
fourth step, Adam 2.5e-4, γ 0.99, a memory of 100,000, the target copied every 10,000 steps, ε 0.1 from the start.
Learning starts after 100 steps. The memory holds each stack once (`optimize_memory_usage`), which is the leaner and
quicker of its two; gradients are clipped to a joint norm of 10, as is its custom. In float32, as it comes.
"""

import argparse

import ale_py
import gymnasium
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecFrameStack
from stopwatch import Stopwatch

gymnasium.register_envs(ale_py)

ENDLESS = 10**9  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    games = VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", n_envs=1, seed=1), n_stack=4)
    model = DQN(
        "CnnPolicy",
        games,
        learning_rate=2.5e-4,
        buffer_size=100_000,
        learning_starts=100,
        batch_size=32,
        gamma=0.99,
        train_freq=4,
        gradient_steps=1,
        target_update_interval=10_000,
        exploration_initial_eps=0.1,
        exploration_final_eps=0.1,
        optimize_memory_usage=True,
        replay_buffer_kwargs={"handle_timeout_termination": False},
        seed=1,
        device="cpu",
    )
    watch = Stopwatch(options.seconds)
    model.learn(ENDLESS, callback=lambda _locals, _globals: watch.step())
    watch.report("stable-baselines3", "torch", "gymnasium", "ale-py", "numpy")


if __name__ == "__main__":
    main()
