"""The training loop of algorithms with a replay buffer. Read it from top to bottom."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from pixelq.actor import epsilon_at
from pixelq.config import TrainConfig
from pixelq.envs import StepResult
from pixelq.optimisers import learning_rate_at
from pixelq.schedules import linear
from pixelq.training.parts import Parts
from pixelq.training.rewards import learning_rewards, learning_terminated
from pixelq.training.session import Session, crossed

__all__ = ["importance_exponent_at", "learn", "remember", "replay_loop", "updates_due"]


def replay_loop(parts: Parts, session: Session) -> None:
    """Play, store and learn until the session ends.

    Args:
        parts: the run, begun or restored.
        session: what happens once in a while, and when to stop.

    Source: Mnih et al. 2015, Methods, Algorithm 1, over N games at once.
    """
    config = parts.config
    while not session.over:
        # choose an action for every game, and let the emulator's threads play it
        epsilon = epsilon_at(config.exploration, parts.step)
        actions = parts.actor.act(parts.obs, epsilon, parts.life_lost, parts.catch_up)
        parts.envs.send(actions)

        # meanwhile, remember the step before, and learn as much as the steps done so far demand
        parts.catch_up()
        learn(parts)

        # get the results, count them
        result = parts.envs.recv()
        life_lost, finished = parts.tracker.update(result)
        parts.put_off = partial(remember, parts, actions, result, life_lost)
        parts.obs = result.obs
        parts.life_lost = life_lost & ~result.terminated & ~result.truncated
        parts.newest_steps = config.envs - parts.absent
        parts.step += parts.newest_steps

        # once in a while: log, record, save
        session.after_steps(parts.newest_steps, finished)
    parts.catch_up()


def updates_due(step: int, before: int, train_period: int) -> int:
    """Updates owed for the steps in (before, step], one for each multiple of `train_period`."""
    return step // train_period - before // train_period


def importance_exponent_at(config: TrainConfig, step: int) -> float:
    """β of prioritised sampling after `step` steps are done (Schaul et al. 2016, section 3.4)."""
    replay = config.replay
    return linear(step, replay.importance_exponent_start, replay.importance_exponent_end, config.total_steps)


def learn(parts: Parts) -> None:
    """Do the updates owed for the last step of the games, and copy the target network when it is due."""
    config, step = parts.config, parts.step
    before = max(step - parts.newest_steps, 0)
    if len(parts.buffer) >= config.replay.learn_start:
        parts.learner.learning_rate = learning_rate_at(config.optimiser, step, config.total_steps)
        updates = updates_due(step, before, config.replay.train_period)
        parts.engine.learn_from(parts.buffer, importance_exponent_at(config, step), updates)
    if crossed(step, before, config.target_period_steps):
        parts.learner.copy_to_target()


def remember(parts: Parts, actions: NDArray[np.int64], result: StepResult, life_lost: NDArray[np.bool_]) -> None:
    """Store the step for learning: rewards clipped or scaled, lost lives as ends if `life_loss_terminal` is set."""
    env = parts.config.env
    parts.buffer.append(
        actions,
        learning_rewards(env, result),
        learning_terminated(env, result, life_lost),
        result.truncated,
        result.reset,
        parts.envs.spec.obs.newest(result.obs),
    )
