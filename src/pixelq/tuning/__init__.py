"""Search for settings by many runs: trials of a study, each several games and seeds, chosen by Optuna."""
