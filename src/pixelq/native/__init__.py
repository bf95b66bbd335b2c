"""Kernels in C: for sampling, and on most x86 processors for updates.

Everything works without it; nothing depends on it but speed, and the precision that is chosen for the sake of speed.
"""
