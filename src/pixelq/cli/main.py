"""`pixelq VERB …`: finds the verb and turns every user error into one line and an exit status."""

import contextlib
import importlib
import io
import keyword
import os
import sys
from collections.abc import Sequence

from pixelq.errors import PixelqError
from pixelq.games import did_you_mean

__all__ = ["main"]

_VERBS = {
    "train": "train an agent: pixelq train [PRESET] [--game G] [--run DIR] [options]",
    "resume": "continue a run: pixelq resume RUN",
    "sweep": "train many runs: pixelq sweep PRESET … --folder DIR [--games G …] [--seeds 1-5]",
    "tune": "search for the best settings: pixelq tune PRESET --folder DIR --trials N --search NAME=LOW..HIGH[:log]",
    "report": "tables and pictures of a folder of runs: pixelq report DIR",
    "eval": "score an agent under a named protocol: pixelq eval AGENT [--protocol P]",
    "record": "write a video of an agent: pixelq record AGENT --out FILE.mp4",
    "collect": "write games as an offline dataset: pixelq collect AGENT --out NAME-v0 [--steps N]",
    "export": "write an agent to a file: pixelq export AGENT --out FILE.safetensors|onnx|pt2",
    "import": "import an agent from another library: pixelq import FILE --from sb3|cleanrl --game G --out FILE",
    "push": "send an agent to the Hugging Face hub: pixelq push AGENT USER/NAME [--dry-run]",
    "watch": "watch an agent play in a page, or play against it: pixelq watch AGENT [--port N]",
    "dashboard": "a page over runs, live or finished: pixelq dashboard [RUNS] [--port P]",
    "plot": "draw curves and scores: pixelq plot RUN … [--out FILE.png|svg]",
    "bench": "measure: pixelq bench env, replay, learner [PRESET] or train [PRESET]; [--json]",
    "presets": "list the recipes",
    "games": "list the games",
}
_TRAINING = ("train", "resume", "sweep", "tune")  # continue even if their output fails
_USAGE = "\n".join(
    [
        "pixelq: deep Q-learning from pixels",
        "",
        "usage: pixelq VERB [options]",
        "",
        *(f"  {verb:<11}{text}" for verb, text in _VERBS.items()),
        "",
        "AGENT is a run directory, a .safetensors or .onnx file, hf:USER/NAME[@REVISION] on the Hugging Face hub,",
        "`breakout`, which comes with pixelq, or `random`.",
        "`pixelq VERB --help` lists a verb's options.",
        "Exit status: 0 done, 1 the run failed, 2 bad input, 130 interrupted after saving.",
    ]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: words after `pixelq`; None: the process's own.

    Returns:
        The exit status.
    """
    status = 0
    words = list(sys.argv[1:] if arguments is None else arguments)
    _have_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # ε on a terminal that has no ε is no reason to fail
    try:
        status = _dispatch(words)
        _flush(words)
        return status
    except SystemExit as shown:  # a verb's help
        return int(shown.code or 0)
    except PixelqError as error:
        _complain(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except BrokenPipeError:  # a pipe's reader, for example `head`, has ended
        _let_go()
        return status
    except (OSError, MemoryError) as error:
        _complain(_of_the_machine(error))
        return 1


def _of_the_machine(error: OSError | MemoryError) -> str:
    """What the machine did not do, in a line."""
    if isinstance(error, MemoryError):
        return f"not enough memory{f': {error}' if str(error) else ''}"
    return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}"


def _complain(text: str) -> None:
    """Print one line on stderr, even if its names hold line breaks."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    with contextlib.suppress(OSError, ValueError):  # standard error may be closed
        print(f"pixelq: {line}", file=sys.stderr)


def _flush(words: Sequence[str]) -> None:
    """Flush all output here, where an error can be reported; training does not."""
    try:
        sys.stdout.flush()
    except ValueError:  # it is closed
        pass
    except OSError:
        _let_go()
        if words[0] not in _TRAINING:
            raise


def _let_go() -> None:
    """Let what standard output still holds lead nowhere, or Python would complain at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _have_streams() -> None:
    """Replace closed standard streams by the null device.

    Else the next opened file, for example the metrics, would get its number and all printed text.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  for as long as the process lives


def _dispatch(words: list[str]) -> int:
    if not words:
        raise PixelqError(f"a command is missing: {', '.join(_VERBS)}; see: pixelq --help")
    verb, rest = words[0], words[1:]
    if verb in ("-h", "--help", "help"):
        print(_USAGE)
        return 0
    if verb in ("-V", "--version"):
        import pixelq

        print(f"pixelq {pixelq.__version__}")
        return 0
    if verb not in _VERBS:
        raise PixelqError(f'unknown command "{verb}"{did_you_mean(verb, tuple(_VERBS))}; see: pixelq --help')
    module = f"{verb}_" if keyword.iskeyword(verb) else verb
    status: int = importlib.import_module(f"pixelq.cli.{module}").run(rest)
    return status


if __name__ == "__main__":
    sys.exit(main())
