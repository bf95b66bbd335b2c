"""The loop of the algorithms that learn from fresh rollouts: no replay, no target network. It reads top to bottom."""

import numpy as np

from pixelq.actor import epsilon_at
from pixelq.algos import pqn
from pixelq.config import PQNConfig
from pixelq.envs.episodes import Episode
from pixelq.optimisers import learning_rate_at
from pixelq.rollouts import Rollouts
from pixelq.training.parts import Parts
from pixelq.training.rewards import learning_rewards, learning_terminated
from pixelq.training.session import Session

__all__ = ["collect", "learn", "rollout_loop"]


def rollout_loop(parts: Parts, session: Session) -> None:
    """Play T steps of all games and learn from them, until the session ends.

    Args:
        parts: the run, begun or restored.
        session: what happens once in a while, and when to stop.

    Source: Gallici et al. 2024, "Simplifying deep temporal difference learning", Algorithm 1.
    """
    algo = parts.config.algo
    assert isinstance(algo, PQNConfig)
    while not session.over:
        before = parts.step
        finished = collect(parts, algo.rollout_steps)
        learn(parts, algo)
        # once in a while: log, record, save; between rollouts, so that no checkpoint holds half a rollout
        session.after_steps(parts.step - before, finished)


def collect(parts: Parts, rollout_steps: int) -> list[Episode]:
    """Play T steps of all games with the network as it is; returns the games and lives that ended."""
    config, rollouts = parts.config, _rollouts(parts)
    ended: list[Episode] = []
    for _ in range(rollout_steps):
        epsilon = epsilon_at(config.exploration, parts.step)
        actions, values = parts.actor.act_with_values(parts.obs, epsilon, parts.life_lost)
        parts.envs.send(actions)
        result = parts.envs.recv()
        life_lost, finished = parts.tracker.update(result)
        rollouts.append(
            parts.obs,
            values.max(axis=1),
            actions,
            learning_rewards(config.env, result),
            learning_terminated(config.env, result, life_lost),
            result.truncated,
            result.reset,
        )
        parts.obs = result.obs
        parts.life_lost = life_lost & ~result.terminated & ~result.truncated
        parts.step += config.envs
        ended += finished
    return ended


def learn(parts: Parts, algo: PQNConfig) -> None:
    """Update on minibatches of the rollout just played, in random order, epoch after epoch."""
    rollouts = _rollouts(parts)
    parts.learner.learning_rate = learning_rate_at(parts.config.optimiser, parts.step, parts.config.total_steps)
    rollout = rollouts.rollout(np.max(parts.actor.q_values(parts.obs), axis=1))
    returns = pqn.returns(algo, rollout)
    for _ in range(algo.epochs):
        for batch in rollouts.minibatches(rollout, returns, algo.minibatches):
            parts.engine.update(batch)


def _rollouts(parts: Parts) -> Rollouts:
    assert isinstance(parts.memory, Rollouts)
    return parts.memory
