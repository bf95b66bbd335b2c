"""Logging of runs to experiment trackers."""
