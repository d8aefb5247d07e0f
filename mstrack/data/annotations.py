"""Annotation files: boxes and flags, whatever separates them, and errors that name file and line."""

import re
from collections.abc import Sequence as List
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mstrack.errors import UserError, warn

SEPARATORS = re.compile(r"[,;\s]+")
MARGIN = ",; \t"
"""What may stand before and after the values of a line."""


class UnreadableError(UserError):
    """A text file that cannot be read, or is none."""


def read_text(path: Path, what: str) -> str:
    """A text file in UTF-8, with or without a byte-order mark.

    Args:
        path: The file.
        what: What it is, for the message.

    Raises:
        UnreadableError: It cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UnreadableError(f"{what} {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{what} {path} is not a text file in UTF-8.") from error


def read_boxes(path: Path) -> NDArray[np.float64]:
    """A text file with a box per line -> (N, 4) x, y, w, h; separated by commas, semicolons, tabs or spaces; nan: no box.

    Four values are x, y, w, h. Eight are the corners of a polygon (x1, y1, ..., x4, y4), whose bounding box is taken, with
    width = right - left as the VOT and RGB-T toolkits have it.

    Raises:
        UserError: No such file, no lines, or a line that is neither (with file and line number).
    """
    lines = _read_lines(path)
    rows = _read_plain(lines)
    return rows if rows is not None else np.array([_read_box(path, number, line) for number, line in enumerate(lines, start=1)])


def read_flags(path: Path, present: int = 1) -> NDArray[np.bool_]:
    """A text file with 0 or 1 for each frame, one per line or separated by commas -> (N,) True where the target is present.

    Args:
        path: The file.
        present: The flag of a frame with the target: 1 in COESOT's `absent.txt`, 0 in VisEvent's `absent` files.

    Raises:
        UserError: No such file, no lines, or something else than 0 and 1 (with file and line number).
    """
    flags = []
    for number, line in enumerate(_read_lines(path), start=1):
        for word in SEPARATORS.split(line.strip().strip(MARGIN)):
            if word not in ("0", "1"):
                raise UserError(f"{path}, line {number}: '{word[:80]}' is not a flag; expected 0 or 1.")
            flags.append(int(word) == present)
    return np.array(flags)


def read_attributes(path: Path, names: List[str]) -> tuple[str, ...]:
    """The attributes whose flag is 1 in a file of 0 and 1; none where there is no such file or, with a warning, it is no text.

    Raises:
        UserError: The file has another number of flags.
    """
    if not path.is_file():
        return ()
    try:
        flags = SEPARATORS.split(read_text(path, "attribute file").strip().strip(",;"))
    except UnreadableError as error:
        warn(path.stem, "attributes", f"{error} The sequence has none.")
        return ()
    if len(flags) != len(names) or not set(flags) <= {"0", "1"}:
        raise UserError(f"{path}: expected {len(names)} flags 0 or 1 ({', '.join(names)}), found '{' '.join(flags)[:80]}'.")
    return tuple(name for name, flag in zip(names, flags, strict=True) if flag == "1")


def orient_flags(flags: NDArray[np.bool_], boxes: NDArray[np.float64], name: str) -> NDArray[np.bool_]:
    """Presence flags, turned round where they say the opposite of the boxes.

    The same file name means opposite things in different copies of a data set (VisEvent's `absent` folder has 1 = absent,
    its sequences' `absent_label.txt` 1 = present). Boxes of no size belong to absent frames, so flags that contradict the
    boxes in at least nine of ten frames are of the other kind; a warning says so.
    """
    n = min(len(flags), len(boxes))
    if not n:
        return flags
    sized = usable(boxes[:n])
    if (flags[:n] == sized).mean() <= 0.1:
        warn(name, "flags", "the absent flags contradict the boxes; they are read as the opposite.")
        return ~flags
    return flags


def usable(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N, 4) -> (N,) whether a box is finite and has a size."""
    return np.asarray(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1), dtype=np.bool_)


def _read_plain(lines: list[str]) -> NDArray[np.float64] | None:
    """Lines of four comma- or tab-separated numbers at once; None where any line looks different."""
    separator = next((mark for mark in (",", "\t") if mark in lines[0]), None)
    if separator is None or any(line.count(separator) != 3 for line in lines):
        return None
    text = separator.join(lines)
    if "_" in text:  # Python takes 1_0 for a number
        return None
    try:
        rows = np.array(text.split(separator), dtype=np.float64).reshape(-1, 4)
    except ValueError:
        return None
    return None if np.isinf(rows).any() else rows


def _read_box(path: Path, number: int, line: str) -> list[float]:
    words = SEPARATORS.split(line.strip().strip(MARGIN))
    try:
        row = [] if "_" in line else [float(word) for word in words]
    except ValueError:
        row = []
    if len(row) not in (4, 8) or any(np.isinf(row)):
        raise UserError(
            f"{path}, line {number}: '{line.strip()[:80]}' is not a box; expected x,y,w,h or nan,nan,nan,nan"
            " (or the eight coordinates of four corners)."
        )
    if len(row) == 8:
        (left, top), (right, bottom) = (edge([row[0::2], row[1::2]], axis=1) for edge in (np.min, np.max))
        row = [left, top, right - left, bottom - top]
    return row


def _read_lines(path: Path) -> list[str]:
    """The lines of a text file without empty ones at its end."""
    lines = read_text(path, "annotation").rstrip().splitlines()
    if not lines:
        raise UserError(f"annotation {path} is empty.")
    return lines
