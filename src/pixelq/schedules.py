"""Schedules as pure functions of the step."""

__all__ = ["linear"]


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
