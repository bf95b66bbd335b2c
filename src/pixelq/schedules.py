"""Schedules as pure functions of the step."""

import math

__all__ = ["exponential", "linear"]


def linear(step: int, start: float, end: float, duration_steps: int, begin_step: int = 0) -> float:
    """Linear interpolation from `start` to `end`, constant outside.

    Args:
        step: agent steps done so far.
        start: value up to `begin_step`.
        end: value from `begin_step + duration_steps` on.
        duration_steps: length of the slope in agent steps; 0 jumps to `end` at `begin_step`.
        begin_step: the step at which the slope begins.

    Returns:
        The value at `step`.

    Source: Mnih et al. 2015, "Human-level control through deep reinforcement learning", Methods, Training details.
    """
    if step < begin_step:
        return start
    if step >= begin_step + duration_steps:
        return end
    return start + (end - start) * (step - begin_step) / duration_steps


def exponential(step: int, start: float, end: float, time_constant_steps: int, begin_step: int = 0) -> float:
    """Exponential decay from `start` towards `end`, constant before it begins.

    Args:
        step: agent steps done so far.
        start: value up to `begin_step`.
        end: value that is approached.
        time_constant_steps: agent steps in which the distance to `end` falls by a factor e; 0 jumps to `end`.
        begin_step: the step at which the decay begins.

    Returns:
        end + (start − end) · exp(−(step − begin_step) / time_constant_steps).

    Source: Clark et al. 2024, "Beyond The Rainbow", its published code.
    """
    if step < begin_step:
        return start
    if time_constant_steps == 0:
        return end
    return end + (start - end) * math.exp(-(step - begin_step) / time_constant_steps)
