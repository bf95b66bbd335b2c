"""The command line: one file a verb, each with `run(arguments) -> exit status`."""
