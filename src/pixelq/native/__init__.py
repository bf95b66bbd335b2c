"""Arithmetic in C: sampling's, and for processors with AMX an update's, for which PyTorch takes three times as long.

Everything works without it, in the same precision; nothing but speed depends on it.
"""
