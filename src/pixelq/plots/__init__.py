"""Pictures of runs, for a paper and for a terminal. Imports no torch."""
