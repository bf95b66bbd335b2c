"""Training: one straight loop a family of algorithms, and what surrounds it."""
