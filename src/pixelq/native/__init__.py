"""Arithmetic in C: sampling's, and for processors with AMX or AVX512 an update's, for which PyTorch takes longer.

Everything works without it, in the same precision; nothing but speed depends on it.
"""
