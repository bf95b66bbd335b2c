"""Kernels in C: for sampling, and on most x86 processors for updates.

Everything works without kernels. They change only the speed, and the precision that `auto` chooses for speed.
"""
