"""Helper processes that run pixelq's own modules with the import path of this process."""

import json
import os
import sys

__all__ = ["module_command"]

_CODE = (  # takes the path from the first argument, the module from the second
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def module_command(module: str, *words: str) -> list[str]:
    """The command that runs a module as `python -m` does, but with this process's import path.

    `python -m` looks into the working folder first, so that a user's file called `torch.py` would be taken for the
    library; and it does not look where only this process's `sys.path` points. Here the working folder comes last, so
    that a game of the user's is still found.

    Args:
        module: dotted name.
        *words: its arguments.

    Returns:
        Words for `subprocess.Popen`.
    """
    here = os.getcwd()
    places = [place or here for place in sys.path if isinstance(place, str)]
    path = [*(place for place in places if os.path.realpath(place) != os.path.realpath(here)), here]
    return [sys.executable, "-P", "-c", _CODE, json.dumps(path), module, *words]
