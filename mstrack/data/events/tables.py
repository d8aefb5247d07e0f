"""Events out of .npz and .h5 files: columns t, x, y, p under one of several names, in a few layouts.

An .h5 file of any length is read block by block; an .npz file is held in memory as a whole, because its members cannot be read
in pieces.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mstrack.data.events.types import BLOCK, Events, Recording, check_size, damage
from mstrack.errors import UserError, warn

COLUMNS = {
    "t": ("t", "ts", "timestamp", "timestamps"),
    "x": ("x",),
    "y": ("y",),
    "p": ("p", "on", "pol", "polarity"),
}
"""Names under which .npz and .h5 files keep the columns: at the root, in a group `events`, or as fields of one array."""

Take = Callable[[slice], tuple[Any, ...]]


def holds_columns(path: Path) -> bool:
    """Whether an .npz or .h5 file holds events, by the names of its arrays; False for one that cannot be read."""
    try:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as members:
                return _columns({name.removesuffix(".npy"): _Header(members, name) for name in members.namelist()}) is not None
        with h5py.File(path) as file:
            return _columns(file) is not None
    except (OSError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile):
        return False


def open_npz(path: Path, size: tuple[int, int] | None = None) -> Recording:
    """Read an .npz file; `size` is that of the colour frames, for a file without `width` and `height`.

    Raises:
        UserError: It is damaged, or does not hold events.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            table = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"recording {path} is damaged or no .npz file ({error}). Copy it again.") from error
    take, count = _require_columns(path, table)
    width, height = _table_size(path, table, {}, take, count, size)
    return Recording(path, width, height, ("events",), lambda quiet: _slices(path, take, count))


def open_h5(path: Path, size: tuple[int, int] | None = None) -> Recording:
    """Read the header of an .h5 file; `size` as in `open_npz`.

    Raises:
        UserError: It is damaged, or does not hold events.
    """
    try:
        with h5py.File(path) as file:
            take, count = _require_columns(path, file)
            attributes = {**file.attrs, **(file["events"].attrs if "events" in file else {})}
            width, height = _table_size(path, file, attributes, take, count, size)
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(f"recording {path} is damaged or no HDF5 file ({error}). Copy it again.") from error
    return Recording(path, width, height, ("events",), lambda quiet: _read_h5(path))


def _read_h5(path: Path) -> Iterator[Events]:
    with h5py.File(path) as file:
        yield from _slices(path, *_require_columns(path, file))


class _Header:
    """The type of an array in an .npz file, without its content."""

    def __init__(self, members: zipfile.ZipFile, name: str) -> None:
        with members.open(name) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            self.shape, _, self.dtype = read(file)


def _columns(table: Any) -> tuple[Take, list[int]] | None:
    """How to take a slice of t, x, y, p out of a file, and the lengths of the four; None where it does not hold them."""
    for place in (table, *(table[name] for name in table)):
        fields = getattr(getattr(place, "dtype", None), "names", None)
        if fields is None and not isinstance(place, Mapping):
            continue
        known = place if fields is None else fields
        names = [next((name for name in spellings if name in known), "") for spellings in COLUMNS.values()]
        if "" in names:
            continue
        if fields is not None:
            return partial(_take_fields, place, names), [_length(place)] * 4
        return partial(_take_arrays, place, names), [_length(place[name]) for name in names]
    return None


def _take_fields(rows: Any, names: list[str], part: slice) -> tuple[Any, ...]:
    block = rows[part]
    return tuple(block[name] for name in names)


def _take_arrays(place: Any, names: list[str], part: slice) -> tuple[Any, ...]:
    return tuple(place[name][part] for name in names)


def _length(array: Any) -> int:
    return array.shape[0] if getattr(array, "shape", ()) else 0


def _require_columns(path: Path, table: Any) -> tuple[Take, int]:
    found = _columns(table)
    if found is None:
        raise UserError(
            f"recording {path} does not hold events: it has {', '.join(list(table)[:8]) or 'nothing'}; expected arrays t"
            " (microseconds), x, y, p at its root or under 'events'."
        )
    take, lengths = found
    if len(set(lengths)) != 1:
        raise UserError(f"recording {path}: t, x, y, p have {', '.join(map(str, lengths))} values; each event needs all four.")
    return take, lengths[0]


def _slices(path: Path, take: Take, count: int) -> Iterator[Events]:
    for first in range(0, count, BLOCK):
        try:
            t, x, y, p = take(slice(first, min(first + BLOCK, count)))
        except (OSError, RuntimeError) as error:
            raise damage(path, str(error), first, 0) from error
        if p.dtype != np.bool_ and len(p) and (p.min() < -1 or p.max() > 1):
            raise UserError(f"recording {path}: polarity {p.min()} to {p.max()}; expected 0 and 1, or -1 and 1.")
        yield Events(_whole(path, "t", t), _whole(path, "x", x), _whole(path, "y", y), p > 0)


def _whole(path: Path, name: str, values: Any) -> NDArray[np.integer]:
    """Whole numbers, also where they are stored as floats."""
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind != "f" or not (values == np.trunc(values)).all():
        expected = "whole microseconds" if name == "t" else "whole pixels"
        raise UserError(f"recording {path}: {name} holds {values.dtype} values such as {values[0]}; expected {expected}.")
    return values.astype(np.int64)


def _table_size(
    path: Path, table: Any, attributes: Mapping[str, Any], take: Take, count: int, size: tuple[int, int] | None
) -> tuple[int, int]:
    """(width, height) as the file states them, else those of the colour frames, else what its events span."""
    stated = {name: table[name][()] for name in ("width", "height") if name in table} | dict(attributes)
    if "width" in stated and "height" in stated:
        return check_size(path, int(stated["width"]), int(stated["height"]))
    if not count:
        raise UserError(f"recording {path} holds no events, and states no `width` and `height`.")
    width = height = 0
    for block in _slices(path, take, count):
        width, height = max(width, int(block.x.max()) + 1), max(height, int(block.y.max()) + 1)
    if size is not None and width <= size[0] and height <= size[1]:
        return check_size(path, *size)
    beyond = "" if size is None else f", beyond the colour frames of {size[0]} x {size[1]}"
    text = (
        f"it states no size: {width} x {height} pixels taken, which its events span{beyond}. Add the sensor's, as arrays or"
        " attributes `width` and `height`"
    )
    warn(str(path), "size", text)
    return check_size(path, width, height)
