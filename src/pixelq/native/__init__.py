"""Arithmetic in C: sampling's, and for most x86 processors an update's, for which PyTorch takes longer.

Everything works without it; nothing depends on it but speed, and the precision that is chosen for the sake of speed.
"""
