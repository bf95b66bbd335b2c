"""An update's arithmetic in C, for processors with AMX, for which PyTorch's own takes two to three times as long.

Everything works without it, in the same precision; nothing but speed depends on it.
"""
