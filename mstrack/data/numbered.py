"""Folders of images whose names are consecutive numbers, as the large RGB sets have them."""

import os
from collections.abc import Sequence as List
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from mstrack.data.layout import Files, list_frames
from mstrack.errors import UserError


@dataclass(frozen=True, slots=True)
class Numbered(List[Path]):
    """Images of one folder whose names are consecutive numbers: their names need no memory."""

    folder: Path
    pattern: str
    """Of a file name, such as `%08d.jpg`."""
    numbers: range

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> "Numbered": ...
    def __getitem__(self, index: int | slice) -> "Path | Numbered":
        if isinstance(index, slice):
            return Numbered(self.folder, self.pattern, self.numbers[index])
        return self.folder / (self.pattern % self.numbers[index])


def list_numbered(folder: Path, pattern: str, first: int) -> Files | Numbered:
    """The images of a folder: `Numbered` where they are what they should be, else as `list_frames` finds them.

    Args:
        folder: The folder.
        pattern: Of a file name, such as `%08d.jpg`.
        first: The number of the first file.

    Raises:
        UserError: No such folder, or no image in it.
    """
    ending = pattern[pattern.index(".") :]
    try:
        names = [name for name in os.listdir(folder) if name.endswith(ending)]  # noqa: PTH208 - names alone, and fast
    except OSError as error:
        raise UserError(f"folder {folder} cannot be read: {error.strerror}.") from error
    numbers = range(first, first + len(names))
    if names and set(names) == {pattern % number for number in numbers}:
        return Numbered(folder, pattern, numbers)
    return list_frames(folder)
