"""Rollouts again, step by step: games played anew, and returns by recursion over each episode."""

import numpy as np
import torch

from pixelq.actor import Actor
from pixelq.config import EnvConfig, PQNConfig
from pixelq.engines.plain import PlainActing, PlainEngine
from pixelq.envs.episodes import EpisodeTracker
from pixelq.envs.testing import CounterEnv, decode
from pixelq.learner import Learner
from pixelq.rollouts import Rollouts
from pixelq.training.parts import Parts, begin
from runs import tiny

CPU = torch.device("cpu")
ACTIONS = 4
FIRE = 1
GAMMA, LAMBDA = 0.9, 0.5
CHANCE = 5  # seed of ε


def lambda_return(steps, gamma, trace_decay):
    """The return of the first of an episode's steps (reward, value after it, whether it terminated)."""
    (reward, value, terminated), *later = steps
    if terminated:
        return reward
    rest = value if not later else (1 - trace_decay) * value + trace_decay * lambda_return(later, gamma, trace_decay)
    return reward + gamma * rest


def naive_returns(history, gamma, trace_decay):
    """The return of each step of one game, cut into episodes; None where the step was ignored."""
    returns, episode = [], []

    def close():
        returns.extend(lambda_return(episode[start:], gamma, trace_decay) for start in range(len(episode)))
        episode.clear()

    for step in history:
        if step["ignored"]:
            returns.append(None)
            continue
        episode.append((step["reward"], step["value"], step["terminated"]))
        if step["terminated"] or step["truncated"]:
            close()
    close()
    return returns


def table(says):
    """Values [N, A] made up from game, episode and step [N, 3]."""
    return ((says @ [7, 31, 13])[:, None] * [1, 3, 5, 9] + [0, 4, 2, 7]) % 17 / 4 - 2


class Table:
    """A stand-in for a network: values computed from the newest plane's code."""

    def q_values(self, obs):
        return torch.from_numpy(table(decode(obs.numpy()[:, -1]))).float()

    def redraw_noise(self, generator):
        """There is none."""


# truncations at a rollout's last step (of 7), lives lost there, three lives lost, games of one step, and none of it
SCRIPT = ("..L.U..T..", "......U", "T", ".L.L.L.U", "......L.", ".")
ENV = EnvConfig(life_loss_terminal=True)


def make(env=ENV, *, network=None, fire=FIRE, rollout_steps=7, **fields):
    """A run of PQN on scripted games, begun; the actor is asked by `Table`, or by a network of its own."""
    config = tiny(
        "pqn",
        envs=len(SCRIPT),
        env=env,
        precision="float32",
        algo=PQNConfig(gamma=GAMMA, trace_decay=LAMBDA, rollout_steps=rollout_steps, epochs=2, minibatches=4),
        **fields,
    )
    envs = CounterEnv(config.envs, seed=3, script=SCRIPT)
    tracker = EpisodeTracker(config.envs, clip=env.rewards == "sign")
    learner = Learner(config, ACTIONS, CPU, torch.Generator().manual_seed(0))
    noise = torch.Generator().manual_seed(1)
    engine = PlainEngine(learner, noise)
    acting = PlainActing(network or learner.online, CPU, noise)
    actor = Actor(acting, ACTIONS, fire, np.random.default_rng(CHANCE))
    memory = Rollouts(rollout_steps, config.envs, CPU, np.random.default_rng(4))
    parts = Parts(config, CPU, envs, tracker, learner, engine, actor, memory)
    begin(parts)
    return parts


def naive_play(env, epsilons, fire=FIRE):
    """The same games again, step by step: a list of steps for each, and the games and lives that ended."""
    envs, chance = CounterEnv(len(SCRIPT), seed=3, script=SCRIPT), np.random.default_rng(CHANCE)
    now = envs.reset()
    tracker = EpisodeTracker(len(SCRIPT), clip=env.rewards == "sign")
    tracker.reset(now)
    histories, ended = [[] for _ in SCRIPT], []
    lost_before = [False] * len(SCRIPT)
    for epsilon in epsilons:
        explore, at_random = chance.random(len(SCRIPT)) < epsilon, chance.integers(0, ACTIONS, len(SCRIPT))
        best = table(decode(now.obs[:, -1])).argmax(axis=1)
        envs.send(np.zeros(len(SCRIPT), np.int64))  # actions change nothing in these games
        then = envs.recv()
        ended += tracker.update(then)[1]
        for n, history in enumerate(histories):
            lost = bool(then.lives[n] < now.lives[n])
            action = at_random[n] if explore[n] else best[n]
            raw = float(then.reward[n])
            over = bool(then.terminated[n] or then.truncated[n])
            history.append(
                {
                    "obs": now.obs[n],
                    "action": FIRE if lost_before[n] and fire is not None else int(action),
                    "reward": float(np.sign(raw)) if env.rewards == "sign" else raw,
                    "terminated": bool(then.terminated[n]) or (lost and env.life_loss_terminal),
                    "truncated": bool(then.truncated[n]),
                    "ignored": bool(then.reset[n]),
                    "value": table(decode(then.obs[n, -1:]))[0].max(),
                    "lost": lost,
                    "raw": raw,
                }
            )
            lost_before[n] = lost and not over
        now = then
    return histories, ended, now, lost_before


class Recorder:
    """A stand-in for a learner: keeps its batches."""

    def __init__(self):
        self.batches, self.rates, self.learning_rate = [], [], None

    def update(self, batch):
        self.batches.append(batch)
        self.rates.append(self.learning_rate)
