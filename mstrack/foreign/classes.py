"""A tracker that is a Python class with two methods, followed through sequences.

`init(frame, box)` is given a `Frame` (`rgb` and `aux`, H x W x 3 uint8; `aux` is None where the data has none) and the target's
box, (4,) x, y, w, h in pixels. `update(frame)` returns a box, or (box, score), or `mstrack.tracker.Output`; (None, score) says
that it sees no target.
"""

import importlib
import inspect
import json
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mstrack.data.sequence import Sequence
from mstrack.errors import UserError
from mstrack.foreign.feeding import Frames
from mstrack.registry import look_here
from mstrack.results import Track

METHODS = ("init", "update")


class ClassFollower:
    """A tracker class; one object follows one sequence after the other.

    Args:
        target: `module:Class`; the module is also looked for in the current folder.
        arguments: Of its constructor.
    """

    batch = 1

    def __init__(self, target: str, arguments: Mapping[str, Any] | None = None) -> None:
        self._target, self._arguments = target, dict(arguments or {})
        self._tracker: Any = None

    def identify(self) -> dict[str, Any]:
        """The class, and its arguments."""
        return {"tracker": self._target, "tracker arguments": json.loads(json.dumps(self._arguments, default=str))}

    def open(self) -> None:
        """Import the class and make an object of it."""
        if self._tracker is None:
            made = import_class(self._target)
            _check_arguments(self._target, made, self._arguments)
            self._tracker = _call(f"{self._target} cannot be made", made, **self._arguments)

    def close(self) -> None:
        """Let the object go."""
        self._tracker = None

    def follow(self, sequences: Iterable[Sequence], missing: str, clock: object) -> Iterator[tuple[Sequence, Track]]:
        """Track sequences from their first box, and yield each when it ends.

        Raises:
            UserError: The class cannot be used; one of its methods raises, or returns what is no box (with sequence and frame);
                or a frame cannot be read.
        """
        self.open()
        for sequence in sequences:
            yield sequence, self._track(sequence, missing)

    def _track(self, sequence: Sequence, missing: str) -> Track:
        boxes, confidence = np.full((len(sequence), 4), np.nan), np.zeros(len(sequence))
        boxes[0], confidence[0] = sequence.boxes[0], 1.0
        if not np.isfinite(boxes[0]).all() or (boxes[0, 2:] <= 0).any():
            raise UserError(
                f"sequence '{sequence.name}': the first box is {boxes[0].tolist()}: nothing can be followed from there."
            )
        frames = Frames(sequence, missing)
        for number, frame in enumerate(frames):
            where = f"sequence '{sequence.name}', frame {number}: {self._target}"
            if number == 0:
                _call(f"{where}.init", self._tracker.init, frame, boxes[0].copy())
            else:
                answer = _call(f"{where}.update", self._tracker.update, frame)
                boxes[number], confidence[number] = read_answer(answer, f"{where}.update")
        return Track(boxes, confidence, tuple(frames.lacking))


def import_class(target: str) -> Any:
    """The class that `module:Class` names.

    Raises:
        UserError: It cannot be imported, or lacks a method.
    """
    module, _, name = target.partition(":")
    look_here()
    found = _call(f"module '{module}' of tracker '{target}' cannot be imported", importlib.import_module, module)
    for part in name.split("."):
        if not hasattr(found, part):
            classes = sorted(key for key, value in vars(found).items() if inspect.isclass(value) and not key.startswith("_"))
            raise UserError(f"tracker '{target}': {module} has no '{part}'. Classes there: {', '.join(classes) or 'none'}.")
        found = getattr(found, part)
    lacking = [method for method in METHODS if not callable(getattr(found, method, None))]
    if lacking or not callable(found):
        raise UserError(
            f"tracker '{target}' has no method {' and no method '.join(lacking) or '__call__'}."
            " Expected a class with init(frame, box) and update(frame)."
        )
    return found


def read_answer(answer: Any, where: str) -> tuple[NDArray[np.float64], float]:
    """(4,) x, y, w, h, NaN where there is no target, and the score, of what `update` returned.

    Raises:
        UserError: It is something else, or not finite.
    """
    box, score = answer, None
    if isinstance(answer, tuple | list) and len(answer) == 2:
        box, score = answer
    try:
        numbers = np.full(4, np.nan) if box is None and score is not None else np.asarray(box, dtype=np.float64).reshape(-1)
        sure = float((1.0 if box is not None else 0.0) if score is None else score)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{where} returned {_show(answer)}: {error}. {_EXPECTED}") from error
    if numbers.shape != (4,):
        raise UserError(f"{where} returned {_show(answer)}. {_EXPECTED}")
    if box is not None and not np.isfinite([*numbers, sure]).all():
        raise UserError(f"{where} returned {_show(answer)}: not finite. {_EXPECTED}")
    return numbers, sure


_EXPECTED = "Expected a box x, y, w, h in pixels, or (box, score); (None, score) where there is no target."


def _show(answer: Any) -> str:
    shown = " ".join(repr(answer).split())
    return shown if len(shown) <= 120 else f"{shown[:117]}..."


def _check_arguments(target: str, made: Any, arguments: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(made)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        takes = ", ".join(str(parameter) for parameter in signature.parameters.values())
        raise UserError(
            f"{target}: {error}. It takes: {takes or 'nothing'}. Given with --tracker-argument KEY=VALUE."
        ) from error


def _call(what: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call somebody's code; whatever it raises is a `UserError` that says where, and how it came about."""
    try:
        return function(*arguments, **named)
    except UserError as error:
        raise UserError(f"{what}: {error}") from error
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        raise UserError(
            f"{what}: {said[:400]} ({place.filename}, line {place.lineno}; --debug shows the traceback)."
        ) from error
