"""The cache of crops: around every annotated box, the part of the frame that training crops are cut from, in small tiles.

Tiles lie on a fixed grid, and a crop decodes those that it touches. JPEG frames are kept as JPEG of quality 95, depth and
event frames without loss, all before their colours are made (`images.Picture`). What a cache lacks is read from the dataset,
and sequences of one frame always: a still is drawn too seldom to be worth a folder.

    FOLDER/<key of the sequence>/crops.bin    tiles of each frame behind their lengths, then a table of frames
    FOLDER/<key of the sequence>/about.json   what it was made from, its size and its SHA-256
"""

import dataclasses
import hashlib
import json
import weakref
import zlib
from collections.abc import Iterator
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.data.crops import Square
from mstrack.data.imagefiles import FrameFile
from mstrack.data.images import colour_jet, keep_channels, repeat_channel, reverse_channels
from mstrack.data.sequence import Sequence
from mstrack.errors import UserError
from mstrack.machine import cache_root

VERSION = 2
TILE = 128
"""Side of a tile in pixels, a multiple of the blocks of JPEG files: 16."""
RECORD = np.dtype(
    [(name, "<u8") for name in ("offset", "stamp")]
    + [(name, "<u2") for name in ("height", "width", "row", "column", "rows", "columns")]
    + [(name, "u1") for name in ("reduction", "channels", "codec", "finish")]
)
"""A frame: where its tiles lie in the file; size and time of its own file (`stamp`); its size; the first row and column of its
tiles and their numbers (0: none); whether it was decoded at a fraction of its size (1, 2, 4, 8), which the tiles are of; and
how they are made and to be coloured."""
JPEG, ZLIB = range(2)
FINISHES = (reverse_channels, repeat_channel, colour_jet, keep_channels)


class Tiles:
    """The part of a frame that is kept; `tiles[rows, columns]` decodes it, as a `crops.Raster`.

    Attributes:
        size: (H, W) of the frame.
        reduction: The tiles have one pixel for this many of the frame, in width and height.
        shape: (h, w) or (h, w, C) of the frame so reduced.
        finish: Colours of a part, see `images.Picture`.
    """

    def __init__(self, path: Path, record: NDArray[Any], where: str) -> None:
        self._path, self._where = path, where
        self._offset, _, *numbers, channels, self._codec, finish = (int(value) for value in record.tolist())
        height, width, self._row, self._column, self._rows, self._columns, self.reduction = numbers
        self.size = height, width
        self.finish = FINISHES[finish]
        kept = -(-height // self.reduction), -(-width // self.reduction)
        self.shape: tuple[int, ...] = (*kept, channels) if channels > 1 else kept

    def covers(self, square: Square) -> bool:
        """Whether all that a crop reads of the frame is kept."""
        whole = self.reduction == 1
        rows, columns = square.inside(self.size) if whole else square.inside_reduced(self.size, self.reduction)
        if rows.start == rows.stop or columns.start == columns.stop:
            return True
        return (
            self._row * TILE <= rows.start
            and rows.stop <= min((self._row + self._rows) * TILE, self.shape[0])
            and self._column * TILE <= columns.start
            and columns.stop <= min((self._column + self._columns) * TILE, self.shape[1])
        )

    def __getitem__(self, part: tuple[slice, slice]) -> NDArray[np.uint8]:
        """Decode rows and columns that are kept.

        Raises:
            UserError: The file is damaged.
        """
        rows, columns = part
        patch = np.empty((rows.stop - rows.start, columns.stop - columns.start, *self.shape[2:]), dtype=np.uint8)
        if not patch.size:
            return patch
        first, last = columns.start // TILE - self._column, (columns.stop - 1) // TILE - self._column
        try:
            with self._path.open("rb", buffering=0) as file:
                head = _read_at(file, self._offset, 4 * self._rows * self._columns)
                ends = np.cumsum(np.frombuffer(head, "<u4"), dtype=np.int64) + self._offset + len(head)
                for row in range(rows.start // TILE - self._row, (rows.stop - 1) // TILE - self._row + 1):
                    bounds = [self._offset + len(head), *ends.tolist()]
                    bounds = bounds[row * self._columns + first : row * self._columns + last + 2]
                    data = _read_at(file, bounds[0], bounds[-1] - bounds[0])
                    for column, (start, stop) in enumerate(pairwise(bounds), first):
                        tile = self._decode(data[start - bounds[0] : stop - bounds[0]], row + self._row, column + self._column)
                        _paste(tile, (row + self._row) * TILE, (column + self._column) * TILE, patch, rows, columns)
        except (OSError, ValueError, zlib.error, cv2.error) as error:
            raise UserError(f"{self._where}: {self._path} is damaged ({error}): run `mst data cache` again.") from error
        return patch

    def _decode(self, data: bytes, row: int, column: int) -> NDArray[np.uint8]:
        height, width = (min(TILE, length - TILE * at) for length, at in zip(self.shape, (row, column), strict=False))
        shape = (height, width, *self.shape[2:])
        if self._codec == ZLIB:
            return np.frombuffer(zlib.decompress(data), np.uint8).reshape(shape)
        tile = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if tile is None or tile.shape != shape:
            raise ValueError(f"tile {row}, {column} cannot be decoded")
        return np.asarray(tile, dtype=np.uint8)


def _paste(tile: NDArray[np.uint8], top: int, left: int, patch: NDArray[np.uint8], rows: slice, columns: slice) -> None:
    """Copy what of a tile at (top, left) lies within rows and columns to its place in their patch."""
    y0, y1 = max(top, rows.start), min(top + tile.shape[0], rows.stop)
    x0, x1 = max(left, columns.start), min(left + tile.shape[1], columns.stop)
    patch[y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start] = tile[
        y0 - top : y1 - top, x0 - left : x1 - left
    ]


class Entry(NamedTuple):
    """A sequence in the cache."""

    path: Path
    table: int
    """Where its table of frames begins."""
    modalities: int


class CropCache:
    """A folder of kept crops, for reading. Sequences that it does not hold are no error.

    Args:
        folder: The folder.
        verify: Read every sequence's file whole, when it is first used, and compare its SHA-256.
    """

    def __init__(self, folder: Path, verify: bool = False) -> None:
        self.folder, self.verify = folder, verify
        self._entries: dict[int, tuple[weakref.ref[Sequence], Entry | None]] = {}

    def __reduce__(self) -> tuple[type["CropCache"], tuple[Path, bool]]:
        return CropCache, (self.folder, self.verify)

    def find(self, sequence: Sequence, index: int, modality: int) -> Tiles | None:
        """What is kept of a frame: of its colours (modality 0) or of the second modality (1).

        Raises:
            UserError: The sequence is kept, but damaged, or the file of this frame has changed since.
        """
        entry = self._find_entry(sequence) if len(sequence) > 1 else None
        if entry is None or modality >= entry.modalities:
            return None
        where = f"sequence '{sequence.name}', frame {index}"
        record = _read_record(entry, index * entry.modalities + modality, where)
        if not record["rows"]:
            return None
        files = sequence.aux if modality else sequence.rgb
        source = None if files is None else files[index]
        if stamp(source) != record["stamp"]:
            problem = f"{source} has changed since it was made"
            raise UserError(f"{where}: crop cache {entry.path.parent}: {problem}. Run `mst data cache` again.")
        return Tiles(entry.path, record, where)

    def _find_entry(self, sequence: Sequence) -> Entry | None:
        """A sequence's place, looked for once in its life."""
        key, entries = id(sequence), self._entries
        if key not in entries:
            entry = open_entry(self.folder, sequence, self.verify)
            entries[key] = weakref.ref(sequence, lambda _: entries.pop(key, None)), entry
        return entries[key][1]


def _read_record(entry: Entry, number: int, where: str) -> NDArray[Any]:
    try:
        with entry.path.open("rb", buffering=0) as file:
            return np.frombuffer(_read_at(file, entry.table + RECORD.itemsize * number, RECORD.itemsize), RECORD)[0]
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"{where}: {entry.path} is damaged ({error}): run `mst data cache` again.") from error


def _read_at(file: FileIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def open_entry(folder: Path, sequence: Sequence, verify: bool = False) -> Entry | None:
    """A sequence's place in the cache, or None; the size of its file is compared.

    Raises:
        UserError: It is there, but damaged.
    """
    place = folder / name_entry(sequence)
    about = read_about(place)
    if about is None:
        return None
    problem = find_damage(place, about, verify)
    if problem is not None:
        raise UserError(f"sequence '{sequence.name}': crop cache {place}: {problem}. Run `mst data cache` again.")
    return Entry(place / "crops.bin", about["table"], about["modalities"])


def read_about(place: Path) -> dict[str, Any] | None:
    """The description of a finished entry, or None."""
    try:
        about = json.loads((place / "about.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"crop cache {place}: about.json cannot be read ({error}): remove the folder.") from error
    return about if about.get("version") == VERSION else None


def find_damage(place: Path, about: dict[str, Any], verify: bool) -> str | None:
    """What is wrong with the file of an entry: its size, and with `verify` its content."""
    path = place / "crops.bin"
    size = path.stat().st_size if path.is_file() else -1
    if size != about["bytes"]:
        return f"crops.bin has {size} bytes, expected {about['bytes']}" if size >= 0 else "crops.bin is missing"
    if verify:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != about["sha256"]:
                return "the content of crops.bin has changed (SHA-256)"
    return None


# ---------------------------------------------------------------- names
def default_folder() -> Path:
    """Where crops are kept when nobody chose a folder."""
    return cache_root() / "crops"


def name_entry(sequence: Sequence) -> str:
    """The key of a sequence: its files by name, its annotation, and what is made of the files."""
    key = hashlib.sha256(repr((VERSION, TILE, sequence.modality, sequence.encoding)).encode())
    for files in (sequence.rgb, sequence.aux or ()):
        key.update("\n".join(str(file) if isinstance(file, Path) else repr(file) for file in files).encode())
    key.update(np.ascontiguousarray(sequence.boxes).tobytes() + np.ascontiguousarray(sequence.valid).tobytes())
    return key.hexdigest()[:24]


def identify(sequence: Sequence) -> str:
    """A hash of the sizes and times of the files of all frames."""
    files = (file for files in (sequence.rgb, sequence.aux or ()) for file in files)
    return hashlib.sha256(np.fromiter((stamp(file) for file in files), "<u8").tobytes()).hexdigest()


def stamp(file: FrameFile | None) -> int:
    """The size and time of the file behind a frame, as one number: of an image, a video, a recording; of all if it has more."""
    facts = []
    for path in _paths(file):
        try:
            found = path.stat()
            facts.append((found.st_size, found.st_mtime_ns))
        except OSError:
            facts.append((-1, 0))
    return int.from_bytes(hashlib.sha256(repr(facts).encode()).digest()[:8], "little")


def _paths(part: object) -> Iterator[Path]:
    """The files behind a frame: itself, or what a reference names in its fields."""
    if isinstance(part, Path):
        yield part
    elif isinstance(part, tuple):
        for each in part:
            yield from _paths(each)
    elif dataclasses.is_dataclass(part):
        for field in dataclasses.fields(part):
            yield from _paths(getattr(part, field.name))
