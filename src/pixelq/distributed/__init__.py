"""A run in its own process: on this machine, or on a Ray cluster."""
