"""Texts of boxes as anybody writes them: what separates the values, what they mean, and the values."""

import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mstrack.errors import UserError

LONGEST = 10_000
"""Characters of a line."""
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", " ": "spaces"}
GIVEN = 1
"""What the VOT toolkit writes instead of the box that the tracker was given; 0 and 2: it has none, or lost its target."""
_SPACED = str.maketrans(dict.fromkeys(SEPARATORS, " "))
_ORIGIN = ({"x", "x1", "xmin", "x_min", "left", "l"}, {"y", "y1", "ymin", "y_min", "top", "t"})
_FORMS = {
    "xywh": (*_ORIGIN, {"w", "width"}, {"h", "height"}),
    "corners": (*_ORIGIN, {"x2", "xmax", "x_max", "right", "r"}, {"y2", "ymax", "y_max", "bottom", "b"}),
}
"""What a header may call the four columns."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class BoxText:
    """The boxes of one file.

    Attributes:
        rows: (M, 4) as in the file; of eight values, x, y, w, h of their bounding box; NaN where there is none.
        polygons: Whether there are rows of eight values, or outlines or masks.
        separator: What stands between the values, in words.
        integers: Whether all values are written as whole numbers.
        header: The form that the first line names: `xywh`, `corners`, or empty where it is unknown; None without a header.
        empty: Numbers of the rows that are an empty line.
        given: Whether row 0 is the VOT toolkit's code for the box that the tracker was given.
    """

    rows: Values
    polygons: bool = False
    separator: str = ""
    integers: bool = False
    header: str | None = None
    empty: tuple[int, ...] = field(default=())
    given: bool = False


def parse_boxes(text: str, where: str) -> BoxText:
    """A line per frame: four values or eight, with anything between them; a code of the VOT toolkit, or nothing.

    Raises:
        UserError: No lines, a line that is too long, or one that is none of these (with its number).
    """
    lines = _split(text, where)
    header, columns, first = _read_header(lines)
    body = [_outline(line) if line.startswith("m") else line for line in lines[first:]]
    if not body:
        raise UserError(f"{where} holds no boxes.")
    spaced = "\n".join(body).translate(_SPACED).split("\n")
    counts = np.array([len(line.split()) for line in spaced])
    if not (counts > 1).any():
        raise UserError(f"{where} holds no boxes: no line has more than one value.")
    rows = np.full((len(body), 4), np.nan)
    polygons = False
    for count in np.unique(counts).tolist():
        chosen = np.flatnonzero(counts == count)
        if count == 0:
            continue
        table = _parse_table([spaced[i] for i in chosen] if len(chosen) < len(body) else spaced, count)
        if table is None or not _is_usable(table, columns):
            _blame(body, spaced, chosen, columns, where, first)
        elif columns is not None and count > 1:
            rows[chosen] = table[:, columns]
        elif count == 4:
            rows[chosen] = table
        elif count == 8:
            rows[chosen], polygons = _bound(table), True
    rows[np.isinf(rows)] = np.nan
    return BoxText(
        rows=rows,
        polygons=polygons,
        separator=next((words for mark, words in SEPARATORS.items() if mark in body[-1].strip()), "a value"),
        integers="." not in "".join(body),
        header=header,
        empty=tuple(np.flatnonzero(counts == 0).tolist()),
        given=bool(counts[0] == 1) and float(spaced[0]) == GIVEN,
    )


def parse_column(text: str, where: str) -> Values:
    """The first number of every line -> (M,); NaN for an empty line.

    Raises:
        UserError: A line that is too long or begins with something else.
    """
    spaced = "\n".join(_split(text, where)).translate(_SPACED).split("\n")
    words = [(line.split(None, 1) or ["nan"])[0] for line in spaced]
    table = _parse_table(words, 1)
    if table is None:
        number = next(i for i, word in enumerate(words, start=1) if _parse_table([word], 1) is None)
        raise UserError(f"{where}, line {number}: '{words[number - 1][:80]}' is not a number.")
    return table[:, 0]


def parse_binary(data: bytes, where: str) -> BoxText:
    """The VOT toolkit's `.bin`: a code, rectangle, outline or mask per frame.

    Raises:
        UserError: It ends early, or is something else.
    """
    try:
        version, length = struct.unpack_from("<hI", data)
        if version != 1 or length > len(data):
            raise UserError(f"{where} is not a binary result of the VOT toolkit.")
        rows, place, polygons, given = np.full((length, 4), np.nan), 6, False, False
        for index in range(length):
            kind, place = data[place], place + 1
            if kind == 0:
                given |= index == 0 and struct.unpack_from("<I", data, place)[0] == GIVEN
                place += 4
            elif kind == 1:
                rows[index], place = struct.unpack_from("<4f", data, place), place + 16
            elif kind == 2:
                (count,) = struct.unpack_from("<H", data, place)
                corners = np.array([struct.unpack_from(f"<{2 * count}f", data, place + 2)])
                rows[index], place, polygons = _bound(corners)[0], place + 2 + 8 * count, True
            elif kind == 3:
                *box, count = struct.unpack_from("<hhHHH", data, place)
                rows[index], place, polygons = box, place + 10 + 2 * count, True
            elif kind == 4:
                place += 8
            else:
                raise UserError(f"{where}, frame {index}: there is no region of kind {kind}.")
        if place > len(data):
            raise IndexError
    except (struct.error, IndexError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where} ends early: it is damaged.") from error
    return BoxText(rows, polygons, "binary", given=given)


def _split(text: str, where: str) -> list[str]:
    """Lines without empty ones at the end."""
    lines = text.lstrip("\ufeff").rstrip().replace("\r\n", "\n").replace("\r", "\n").split("\n")
    longest = max(map(len, lines))
    if longest > LONGEST:
        number = next(i for i, line in enumerate(lines, start=1) if len(line) == longest)
        raise UserError(f"{where}, line {number} has {longest} characters; a line of boxes has at most {LONGEST}.")
    return lines if lines != [""] else []


def _read_header(lines: list[str]) -> tuple[str | None, list[int] | None, int]:
    """The form that it names, the columns of x, y and so on where it names them, and the number of lines before the boxes."""
    form, columns = None, None
    for first, line in enumerate(lines):
        words = line.lstrip("#%/ ").translate(_SPACED).replace('"', " ").lower().split()
        comment = line.startswith(("#", "%", "//"))
        if not comment and (form is not None or not words or any(_parse_table([word], 1) is not None for word in words)):
            return form, columns, first
        form = ""
        for name, labels in _FORMS.items():
            places = [[i for i, word in enumerate(words) if word in label] for label in labels]
            if all(len(found) == 1 for found in places) and "x3" not in words:
                form, columns = name, [found[0] for found in places]
    return form, columns, len(lines)


def _outline(line: str) -> str:
    """The box of a mask, which its first four values are."""
    return ",".join(line[1:].split(",")[:4])


def _parse_table(spaced: Sequence[str], columns: int) -> Values | None:
    """Lines of as many numbers each -> (M, columns); None where something is no number."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            values = np.fromstring(" ".join(spaced), dtype=np.float64, sep=" ")
    except (ValueError, DeprecationWarning):
        return None
    return values.reshape(-1, columns) if values.size == len(spaced) * columns else None


def _is_usable(table: Values, columns: list[int] | None) -> bool:
    """Whether rows of so many numbers are boxes, or codes."""
    width = table.shape[1]
    if width == 1:
        return bool((np.isin(table, (0, 1, 2)) | np.isnan(table)).all())
    return width in (4, 8) if columns is None else width > max(columns)


def _blame(
    body: list[str], spaced: list[str], chosen: NDArray[np.int64], columns: list[int] | None, where: str, first: int
) -> None:
    """Raise the error that names the first line that is not a box."""
    for index in chosen.tolist():
        table = _parse_table([spaced[index]], len(spaced[index].split()))
        if table is None or not _is_usable(table, columns):
            raise UserError(
                f"{where}, line {first + index + 1}: '{body[index].strip()[:80]}' is not a box; expected four values, such as"
                " x,y,w,h, or the eight of four corners."
            )


def _bound(corners: Values) -> Values:
    """(M, 2K) outlines x1, y1, x2, ... -> (M, 4) x, y, w, h of their bounding boxes, width = right - left."""
    x, y = corners[:, 0::2], corners[:, 1::2]
    low = np.stack([x.min(axis=1), y.min(axis=1)], axis=1)
    return np.concatenate([low, np.stack([x.max(axis=1), y.max(axis=1)], axis=1) - low], axis=1)
