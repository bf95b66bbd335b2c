"""Losses as pure functions on tensors; time is in the names: `q_tm1` before the step, `q_t` after it."""
