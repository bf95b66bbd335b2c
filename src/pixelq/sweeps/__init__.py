"""Many runs on one machine: their plan, their state, and their runner."""
