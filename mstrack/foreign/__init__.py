"""Trackers that are not ours, followed through sequences as ours are: over TraX, or as a Python class."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mstrack.errors import UserError
from mstrack.foreign.classes import ClassFollower
from mstrack.foreign.session import TraxFollower

TRAX = "trax:"
INTERPRETERS = re.compile(r"(python|pypy|bash|sh|env|nice|conda|matlab|octave|uv|run|time)[\d.]*", re.IGNORECASE)
"""First words of a command that do not say which tracker it is."""
SCRIPT = re.compile(r"\.(py|sh|m|jar)$")


def choose_tracker(
    checkpoint: str | None, spec: str | None, arguments: Mapping[str, Any], timeout: float
) -> tuple[str | ClassFollower | TraxFollower, str]:
    """What `mstrack.evaluate` takes, and a short name of it: a checkpoint or a tracker that is not ours, one of the two.

    Raises:
        UserError: Both are given, or neither, or arguments without a tracker that could take them.
    """
    if checkpoint is not None and spec is not None:
        raise UserError(
            f"both a checkpoint ('{checkpoint}') and --tracker '{spec}' are given, and one tracker is evaluated at a time."
            " Leave one of them out; several arguments of a tracker are --tracker-argument a=1 --tracker-argument b=2."
        )
    if spec is not None:
        return open_tracker(spec, arguments, timeout), name_tracker(spec, arguments)
    if checkpoint is None:
        raise UserError(
            "nothing to evaluate. Expected a checkpoint (a .safetensors file or a name of `mst list weights`), or a tracker"
            ' that is not ours: --tracker trax:"COMMAND" or --tracker module:Class.'
        )
    if arguments:
        raise UserError(
            f"--tracker-argument {', '.join(arguments)} is for a tracker given with --tracker, not for a checkpoint."
        )
    return checkpoint, name_checkpoint(Path(checkpoint))


def name_checkpoint(path: Path) -> str:
    """A short name of a checkpoint: of a run's own files that of its folder, which tells them from those of other runs."""
    run = path.absolute().parent
    if path.stem == "model":
        return run.name or path.stem
    if path.stem == "best":
        return f"{run.name}-best"
    return f"{run.parent.name}-{path.stem}" if run.name == "kept" else path.stem


def open_tracker(spec: str, arguments: Mapping[str, Any] | None = None, timeout: float = 300.0) -> ClassFollower | TraxFollower:
    """What `mstrack.evaluate` takes in place of a checkpoint.

    Args:
        spec: `trax:COMMAND`, a command that starts a tracker which speaks TraX; or `module:Class`, see `classes`.
        arguments: Of the class; over TraX they are sent as properties.
        timeout: Seconds that a TraX tracker has for each answer.

    Raises:
        UserError: It is neither.
    """
    if spec.startswith(TRAX):
        return TraxFollower(shlex.join(_split(spec)), arguments, timeout)
    module, _, name = spec.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise UserError(
            f"tracker '{spec}' is neither trax:COMMAND, such as trax:\"python my_tracker.py\", nor module:Class, such as"
            " my_tracker:MyTracker. For a checkpoint leave out --tracker."
        )
    return ClassFollower(spec, arguments)


def name_tracker(spec: str, arguments: Mapping[str, Any] | None = None) -> str:
    """A short name of it for folders and pages: its script or class, and those arguments that are words or numbers."""
    if spec.startswith(TRAX):
        words = [Path(word).name for word in _split(spec) if not word.startswith("-") and "=" not in word]
        telling = [word for word in words if not INTERPRETERS.fullmatch(word)]
        scripts = [word for word in telling if SCRIPT.search(word)]
        name = SCRIPT.sub("", (scripts or telling or words or ["trax"])[0])[:40]
    else:
        name = spec.rpartition(":")[2].rpartition(".")[2]
    short = [
        str(value) for value in (arguments or {}).values() if isinstance(value, str | int | float) and "/" not in str(value)
    ]
    return re.sub(r"[^\w.-]+", "-", "-".join([name, *short])).strip("-.") or "tracker"


def _split(spec: str) -> list[str]:
    """The words of a command."""
    try:
        words = shlex.split(spec.removeprefix(TRAX))
    except ValueError as error:
        raise UserError(f"tracker '{spec}': the command cannot be split into words: {error}.") from error
    if not words:
        raise UserError(f"tracker '{spec}' names no command. Expected trax:COMMAND, such as trax:\"python my_tracker.py\".")
    return words
