"""What a user is told: the one error that is shown without a traceback, and what is wrong with data but can be lived with."""

import warnings
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: the message says what was given, what was expected, what exists and what to do. Exit code 2."""


class DataWarning(UserWarning):
    """Something untidy in a data set that was dealt with; issued through `warnings.warn`.

    Attributes:
        sequence: The sequence or file.
        kind: A short name of the finding, such as `pairs`, `length`, `flags`: the doctor groups by it.
        text: What was found, and what was done about it.
    """

    def __init__(self, sequence: str, kind: str, text: str) -> None:
        super().__init__(f"{sequence}: {text}")
        self.sequence, self.kind, self.text = sequence, kind, text

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), (self.sequence, self.kind, self.text)


def warn(sequence: str, kind: str, text: str) -> None:
    """Issue a `DataWarning`."""
    warnings.warn(DataWarning(sequence, kind, text), stacklevel=3)


def some(names: Iterable[str], shown: int = 3) -> str:
    """The first names of a list, and how many more there are."""
    listed = list(names)
    return ", ".join(listed[:shown]) + (f" and {len(listed) - shown} more" if len(listed) > shown else "")
