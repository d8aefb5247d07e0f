"""FE108's event frames: three grey files, one for each third of the interval, are the three channels of one frame."""

import re
from collections import defaultdict
from collections.abc import Sequence as List
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.data.images import decode
from mstrack.data.layout import list_frames
from mstrack.errors import UserError, warn

PART = re.compile(r"(.*)_([123])")


@dataclass(frozen=True, slots=True)
class Stack:
    """One frame, in three files."""

    paths: tuple[Path, Path, Path]
    """The earliest, the middle and the latest third: red, green and blue."""

    @property
    def stem(self) -> str:
        """The common part of the files' names: the number of the frame."""
        return self.paths[0].stem[:-2]

    def decode(self, flags: int) -> NDArray[Any]:
        """H x W x 3 uint8 in BGR order; H x W where `flags` ask for grey.

        Raises:
            UserError: A file cannot be read, or the three differ in size.
        """
        parts = [decode(path, cv2.IMREAD_GRAYSCALE) for path in reversed(self.paths)]
        sizes = {part.shape for part in parts}
        if len(sizes) > 1:
            raise UserError(f"{self}: the three parts differ in size: {', '.join(f'{w} x {h}' for h, w in sorted(sizes))}.")
        image = np.stack(parts, axis=-1)
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if flags == cv2.IMREAD_GRAYSCALE else image

    def __str__(self) -> str:
        return f"{self.paths[0].with_stem(f'{self.stem}_*')}"


@dataclass(frozen=True, slots=True)
class Stacks(List[Stack]):
    """The frames of one folder, in order: as light as their names."""

    folder: Path
    names: tuple[tuple[str, str, str], ...]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Stack: ...
    @overload
    def __getitem__(self, index: slice) -> "Stacks": ...
    def __getitem__(self, index: int | slice) -> "Stack | Stacks":
        if isinstance(index, slice):
            return Stacks(self.folder, self.names[index])
        first, second, third = self.names[index]
        return Stack((self.folder / first, self.folder / second, self.folder / third))


def list_stacks(folder: Path) -> Stacks:
    """The frames of a folder of `<number>_<part>` images, part 1, 2, 3, in the order of their numbers.

    A frame that lacks a part is left out, with a warning.

    Raises:
        UserError: No such folder, or no complete frame in it.
    """
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for name in list_frames(folder).names:
        match = PART.fullmatch(name.rpartition(".")[0])
        if match:
            found[match[1]][match[2]] = name
    whole = tuple((parts["1"], parts["2"], parts["3"]) for parts in found.values() if len(parts) == 3)
    if not whole:
        raise UserError(f"folder {folder} holds no frames of three parts (0001_1.jpg, 0001_2.jpg, 0001_3.jpg).")
    lacking = [stem for stem, parts in found.items() if len(parts) < 3]
    if lacking:
        text = f"{len(lacking)} frame(s) in {folder} lack one of their three parts and are left out: {', '.join(lacking[:5])}."
        warn(folder.parent.name, "parts", text)
    return Stacks(folder, whole)
