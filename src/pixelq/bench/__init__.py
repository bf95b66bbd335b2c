"""Benchmarks behind `pixelq bench`."""
