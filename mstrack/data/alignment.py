"""Which frames of two modalities belong together, and which boxes belong to which frames, where files are missing."""

import re
from collections.abc import Sequence as List
from itertools import pairwise

from mstrack.data.imagefiles import FrameFile
from mstrack.errors import warn


def pair(name: str, rgb: List[FrameFile], aux: List[FrameFile | None], modality: str) -> List[FrameFile | None]:
    """The second modality's frame for each colour frame.

    By position where both have as many frames and neither lacks a number. Otherwise by the numbers in their names, so that a
    frame that is missing in the middle does not shift the ones behind it. Where the two count from different numbers (0 and
    1), the difference is taken that leaves the fewest frames alone; if two leave as few, the one that is 0 for names of the
    same width, and the one of the first frames for others. By position, too, where there are no numbers. A warning names the
    sequence, the counts and what was done, unless every frame has found its own.

    Returns:
        As many frames as `rgb`, None where the second modality has none.
    """
    same = len(rgb) == len(aux)
    if same and _is_gapless(rgb) and _is_gapless(aux):
        return aux
    text = f"{len(rgb)} colour frames and {len(aux)} {modality} frames"
    wanted, found = _numbers(rgb), _numbers(aux)
    if wanted and found:
        by_number = dict(zip(found, aux, strict=True))
        shift = _find_shift(wanted, found, _width(rgb[0]) == _width(aux[0]))
        paired = [by_number.get(number + shift) for number in wanted]
        lacking = [number for number, file in zip(wanted, paired, strict=True) if file is None]
        if len(lacking) < 0.5 * len(rgb):
            surplus = len(aux) - len(rgb) + len(lacking)
            said = [f"frame(s) {_some(lacking)} lack theirs"] if lacking else []
            said += [f"{surplus} {modality} frame(s) are ignored"] if surplus else []
            if said:
                warn(name, "pairs", f"{text}, paired by the numbers in their names: {', '.join(said)}.")
            return paired
    if same:
        return aux
    rest = f"the last {len(rgb) - len(aux)} lack theirs" if len(aux) < len(rgb) else "the surplus is ignored"
    warn(name, "pairs", f"{text}, paired by position: {rest}.")
    return aux[: len(rgb)] if len(aux) > len(rgb) else [*aux, *[None] * (len(rgb) - len(aux))]


def lacks_frames(rgb: List[FrameFile], rows: int, aux: List[FrameFile | None] | None = None) -> bool:
    """Whether frames are missing in the middle; or in front, where the annotation has more rows than there are frames.

    Names count from 0 or 1. Those that begin with 1 are taken as whole, unless the second modality has a frame 0 and one for
    each row.
    """
    if not _is_gapless(rgb):
        return True
    first = _number(rgb[0])
    return rows > len(rgb) and first is not None and first > (0 if _counts_from_0(aux, rows) else 1)


def match_rows(rgb: List[FrameFile], rows: int, aux: List[FrameFile | None] | None = None) -> List[int] | None:
    """Which row of an annotation belongs to each colour frame, where frames are missing in front or in the middle.

    The annotation is one of the frames from the first to the last that is there, or from frame 0 or 1 to the last.

    Returns:
        For each frame the number of its row; None where the numbers in the names do not say so.
    """
    numbers = _numbers(rgb)
    if not numbers:
        return None
    for start in (numbers[0], 0, 1):
        unsure = start == 0 and numbers[0] == 1 and not _counts_from_0(aux, rows)
        if numbers[-1] - start + 1 == rows and start <= numbers[0] and not unsure:
            return [number - start for number in numbers]
    return None


def _is_gapless(files: List[FrameFile] | List[FrameFile | None]) -> bool:
    """Whether the numbers of the first and the last file are as far apart as they are; True where there are none."""
    first, last = (_number(files[place]) for place in (0, -1))
    return first is None or last is None or last - first + 1 == len(files)


def _counts_from_0(aux: List[FrameFile | None] | None, rows: int) -> bool:
    """Whether there is a frame of the second modality for each row, numbered from 0."""
    return aux is not None and len(aux) == rows and _numbers(aux) == list(range(rows))


def _numbers(files: List[FrameFile] | List[FrameFile | None]) -> list[int]:
    """The numbers of all files, in order; nothing where one has none, or they do not rise."""
    found = [_number(file) for file in files]
    numbers = [number for number in found if number is not None]
    rising = all(a < b for a, b in pairwise(numbers))
    return numbers if rising and len(numbers) == len(files) else []


def _number(file: FrameFile | None) -> int | None:
    """The last number in a file's name."""
    digits = _digits(file)
    return int(digits) if digits else None


def _width(file: FrameFile | None) -> int:
    return len(_digits(file))


def _digits(file: FrameFile | None) -> str:
    """The last run of digits in the name of whatever has one."""
    return (re.findall(r"\d+", getattr(file, "stem", "")) or [""])[-1]


def _find_shift(wanted: List[int], found: List[int], same_style: bool) -> int:
    """What to add to the numbers of the colour frames to get those of the others."""
    first, last = found[0] - wanted[0], found[-1] - wanted[-1]
    order = (0, first, last) if same_style else (first, 0, last)
    held = set(found)
    return max(order, key=lambda shift: sum(number + shift in held for number in wanted))


def _some(numbers: List[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
