"""Runs told to experiment trackers."""
