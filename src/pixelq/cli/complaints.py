"""One-line messages for wrong options of a verb."""

import dataclasses
import itertools
import re
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import tyro

from pixelq.config import ALGO_KINDS, TrainConfig
from pixelq.games import did_you_mean

__all__ = ["explain", "find_empty"]

_LONGEST = 60  # characters of a value that are repeated
_NUMBER = re.compile(r"-(\d|\.\d|inf|nan)")  # a word that begins so is a value, not an option
_WORDS = {int: "a whole number", float: "a number"}


class _Option(NamedTuple):
    name: str  # `--env.noop-max`; for a positional argument its metavar, e.g. `RUN`
    kind: Any  # its type, without annotations
    required: bool
    usage: str  # how it is written, e.g. `--out FILE.mp4`

    @property
    def positional(self) -> bool:
        return not self.name.startswith("-")


def explain(kind: Any, words: Sequence[str], command: str) -> str | None:
    """Find out why words cannot be read as options.

    Args:
        kind: the dataclass whose fields are the options, or an instance of it with the defaults.
        words: what follows the verb.
        command: how the verb is called, e.g. `pixelq eval`.

    Returns:
        One line that names what is wrong and what would be right; None if nothing is found.
    """
    options = list(_options(kind))
    named = {option.name: option for option in options if not option.positional}
    unknown = [name for name in map(_name, filter(_is_option, words)) if name not in named]
    if unknown:
        if foreign := _of_another_algorithm(kind, unknown):
            return foreign
        text = f"unknown option{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}{_near(unknown[0], list(named))}"
        return f"{text}; see: {command} --help"
    wrong, given = _read(words, named, [option for option in options if option.positional])
    if wrong:
        return f"{wrong}; see: {command} --help"
    missing = [option for option in options if option.required and option.name not in given]
    if missing:
        usage = " ".join([command, *(option.usage for option in options if option.required)])
        return f"{missing[0].name} is missing: {usage}"
    return None


def find_empty(kind: Any, words: Sequence[str]) -> str | None:
    """Find an option without its value, as `--games $GAMES` leaves it where the variable is not set.

    The option parser takes an empty word for a value, and no words for an empty list.

    Args:
        kind: as for `explain`.
        words: what follows the verb.

    Returns:
        One line; None if every option has its value.
    """
    named = {option.name: option for option in _options(kind)}
    place = next((option.name for option in named.values() if option.positional), "a word")
    for before, word, after in zip(["", *words], words, [*words[1:], "--"], strict=False):
        if not word:
            return f"{_name(before) if _name(before) in named else place} is empty"
        option = named.get(_name(word))
        if option is None or option.positional or option.kind is bool:
            continue
        _, equals, value = word.partition("=")
        several = ... in typing.get_args(option.kind)
        if not value and (equals or (several and (_is_option(after) or after == "--"))):
            return f"{option.name} needs a value"
    return None


def _options(kind: Any, prefix: str = "") -> Iterator[_Option]:
    """The options of a dataclass, nested ones under their path; for a choice, the default's."""
    default = None if isinstance(kind, type) else kind
    hints = typing.get_type_hints(kind if default is None else type(default), include_extras=True)
    for field in dataclasses.fields(kind):
        hint, marks = _unannotated(hints[field.name])
        name = next((mark.name for mark in marks if getattr(mark, "name", None) is not None), field.name)
        path = ".".join(part for part in (prefix, name.replace("_", "-")) if part)
        value = getattr(default, field.name, None)
        if dataclasses.is_dataclass(hint) or dataclasses.is_dataclass(value):
            yield from _options(hint if value is None else value, path)
            continue
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        metavar = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), name.upper())
        if tyro.conf.Positional in marks:
            yield _Option(metavar, hint, required, metavar)
            continue
        yield _Option(f"--{path}", hint, required, f"--{path} {metavar}")
        if hint is bool and tyro.conf.FlagCreatePairsOff not in marks:
            head, dot, last = path.rpartition(".")
            yield _Option(f"--{head}{dot}no-{last}", hint, False, "")


def _unannotated(hint: Any) -> tuple[Any, list[Any]]:
    if typing.get_origin(hint) is not typing.Annotated:
        return hint, []
    plain, *marks = typing.get_args(hint)
    return plain, marks


_ELSEWHERE = {  # names of these options in other libraries
    "--lr": "--optimiser.learning-rate",
    "--num-envs": "--envs",
    "--n-envs": "--envs",
    "--env": "--game",
    "--env-id": "--game",
    "--buffer-size": "--replay.capacity",
    "--learning-starts": "--replay.learn-start",
    "--train-frequency": "--replay.train-period",
    "--train-freq": "--replay.train-period",
    "--target-network-frequency": "--target-period-steps",
    "--target-update-interval": "--target-period-steps",
    "--total-timesteps": "--total-steps",
    "--timesteps": "--total-steps",
    "--start-e": "--exploration.start",
    "--end-e": "--exploration.end",
    "--cuda": "--device",
    "--gpu": "--device",
}


def _is_option(word: str) -> bool:
    return len(word) > 1 and word.startswith("-") and word != "--" and not _NUMBER.match(word)


def _name(word: str) -> str:
    return word.partition("=")[0].replace("_", "-")


def _of_another_algorithm(kind: Any, unknown: list[str]) -> str | None:
    """The complaint about a setting that only other algorithms have; None if it is no such setting."""
    config = getattr(kind, "config", None)
    if not isinstance(config, TrainConfig):
        return None
    for name in unknown:
        setting = name.replace("--algo.no-", "--algo.")
        owners = [
            algo
            for algo, settings in ALGO_KINDS.items()
            if setting in {option.name for option in _options(settings, "algo")}
        ]
        if owners:
            return f"{setting} does not go with {config.preset}: it is a setting of {', '.join(owners)}"
    return None


def _near(unknown: str, names: list[str]) -> str:
    """A suffix that suggests the option meant: the same name deeper down, another library's name, or a similar one."""
    deeper = [name for name in names if name.endswith("." + unknown.lstrip("-"))]
    deeper += [name for name in names if name == _ELSEWHERE.get(unknown)]
    return f' (did you mean "{deeper[0]}"?)' if deeper else did_you_mean(unknown, names)


def _read(words: Sequence[str], named: dict[str, _Option], places: list[_Option]) -> tuple[str | None, set[str]]:
    """Go through the words; all options are known. Returns the first error, and the names that were given."""
    left = list(words)
    given: set[str] = set()
    while left:
        word = left.pop(0)
        if word == "--":
            continue
        if _is_option(word):
            option = named[_name(word)]
            _, equals, value = word.partition("=")
            if option.kind is bool and equals:
                return f"{option.name} takes no value", given
            following = list(itertools.takewhile(lambda word: not _is_option(word), left))
            count = _count(option.kind, len(following))
            values = [value] if equals else following[:count]
            if len(values) < count:
                return f"{option.name} needs {'a value' if count == 1 else f'{count} values'}", given
            left = left if equals else left[count:]
        elif places:
            option, values = places[0], [word]
            if ... not in typing.get_args(option.kind):  # else it takes all that follow
                places.pop(0)
        else:
            return f'unexpected word "{_shown([word])}"', given
        if not _fits(option.kind, values):
            near = did_you_mean(values[0], _choices(option.kind)) if len(values) == 1 else ""
            return f"{option.name} is {_shown(values)}: must be {_wanted(option.kind)}{near}", given
        given.add(option.name)
    return None, given


def _count(kind: Any, there: int) -> int:
    """Words that an option's value takes, of those that are there."""
    if typing.get_origin(kind) is tuple:
        return max(there, 1) if ... in typing.get_args(kind) else len(typing.get_args(kind))
    return 0 if kind is bool else 1


def _fits(kind: Any, values: list[str]) -> bool:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return values[0] in args
    if origin in (types.UnionType, typing.Union):
        return any(values == ["None"] if part is type(None) else _fits(part, values) for part in args)
    if origin is tuple:
        parts = args[:1] * len(values) if ... in args else args
        return len(parts) == len(values) and all(map(_fits, parts, ([value] for value in values)))
    if kind in _WORDS:
        try:
            kind(values[0])
        except ValueError:
            return False
    return True


def _wanted(kind: Any) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " or ".join(filter(None, (", ".join(args[:-1]), args[-1])))
    if origin in (types.UnionType, typing.Union):
        return _wanted(next(part for part in args if part is not type(None)))
    if origin is tuple and ... in args:
        return f"any of {_wanted(args[0])}"
    if origin is tuple:
        return f"{len(args)} {_WORDS[args[0]].removeprefix('a ')}s"
    return _WORDS.get(kind, "a word")


def _choices(kind: Any) -> tuple[str, ...]:
    """The words a value may be, if they are few."""
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)
    return tuple(word for part in typing.get_args(kind) for word in _choices(part))


def _shown(values: list[str]) -> str:
    text = " ".join(values) or '""'
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
