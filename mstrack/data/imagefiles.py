"""Image files: reading them whole or saying why not, and decoding them."""

import io
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.errors import UserError

JPEG_MARKER = re.compile(rb"\xff+[^\x00\x01\xd0-\xd7\xff]")
"""A marker that ends the compressed data of a scan: not a stuffed byte, not a restart."""
ZEROS = bytes(64)
"""What `find_jpeg_damage` looks for: a lost block of a disk or of a copy is longer."""
NOISE = np.random.default_rng(0).integers(0, 255, 512, dtype=np.uint8).tobytes()
"""Bytes that change a picture whose compressed data end too early, wherever that is; no marker is among them."""


class Reference(Protocol):
    """A frame that is not simply a file: a frame of a video, of an event recording, three files in one."""

    def decode(self, flags: int) -> NDArray[Any]:
        """The frame as OpenCV's `imdecode` would give it with these flags (BGR order)."""
        ...


FrameFile = Path | Reference


def decode(source: FrameFile, flags: int) -> NDArray[Any]:
    """One frame through OpenCV, in its channel order (BGR); its absence or damage is named.

    Raises:
        UserError: No such file, truncated or partly zeros (OpenCV would fill up what is missing), or no image.
    """
    if not isinstance(source, Path):
        return source.decode(flags)
    return decode_bytes(read_bytes(source), flags, source)


def read_bytes(source: Path) -> bytes:
    """A whole image file.

    Raises:
        UserError: No such file, truncated, or a JPEG file with a part that is zeros.
    """
    try:
        data = source.read_bytes()
    except OSError as error:
        raise UserError(f"image {source} cannot be read: {error.strerror}.") from error
    if not is_complete(data):
        raise UserError(f"image {source} is truncated: it ends after {len(data)} bytes. Copy it again.")
    damage = find_jpeg_damage(data)
    if damage:
        raise UserError(f"image {source} is damaged: {damage}. Copy it again.")
    return data


def decode_bytes(data: bytes, flags: int, source: Path) -> NDArray[Any]:
    """The image in a file that has been read, as stored: boxes are those of stored pixels, so Exif turns nothing.

    Raises:
        UserError: Damaged, no image, or larger than OpenCV decodes.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise UserError(f"image {source} cannot be decoded ({len(data)} bytes): OpenCV says '{error.err}'.") from error
    if image is None:
        raise UserError(f"image {source} cannot be decoded ({len(data)} bytes): damaged, or no image.")
    return image


def is_complete(data: bytes) -> bool:
    """Whether a JPEG, PNG or BMP file reaches its end; True for other formats that are not empty."""
    if data.startswith(b"\xff\xd8"):
        return data.endswith(b"\xff\xd9") or _has_jpeg_end(data)
    if data.startswith(b"\x89PNG"):
        return data.endswith(b"IEND\xaeB`\x82") or _has_png_end(data)
    if data.startswith(b"BM"):
        return len(data) >= int.from_bytes(data[2:6], "little")
    return bool(data)


def find_jpeg_damage(data: bytes) -> str | None:
    """What is wrong with the compressed data of a JPEG file whose end is there, as far as bytes alone say it.

    A block of coefficients ends with a code of its own, and the code of zeros alone is that of a table's first symbol: where
    that is not the end of a block, as in the tables that most cameras and programs use, no picture has `ZEROS`. Zeros before
    the end of a scan may be padding.
    """
    if not data.startswith(b"\xff\xd8") or ZEROS not in data:
        return None
    for scan in _scans(data):
        at = data.find(ZEROS, scan.start, scan.stop) if scan.is_dense else -1
        rest = data[at : scan.stop].lstrip(b"\0") if at >= 0 else b""
        if rest:
            return f"{scan.stop - at - len(rest)} bytes from byte {at} on are zeros"
    return None


def is_cut_short(data: bytes, image: NDArray[Any]) -> bool:
    """Whether the compressed data of a JPEG file end before its picture does, although its end marker is there.

    A decoder fills up such a picture in grey, or leaves it coarse where there are several scans. Several scans are too few
    where they do not have every bit of every coefficient. Else further bytes before the end marker change the picture, and do
    not change a whole one; they are tried where the last pixel is of that grey, or there are several scans, by Pillow, which
    decodes without printing (False where it is not installed).

    Args:
        data: The file.
        image: Its picture, by OpenCV.
    """
    if not data.startswith(b"\xff\xd8") or image.dtype != np.uint8:
        return False
    grey = bool((image[-1, -1] == 128).all())
    if not grey and b"\xff\xc2" not in data and data.count(b"\xff\xda") == 1:
        return False
    scans = list(_scans(data))
    if not scans or not (grey or len(scans) > 1):
        return False
    header = jpeg_header(data)
    finished = {key for scan in scans for key in scan.finished}
    if header is not None and len(finished) < 64 * header.channels:
        return True
    try:
        from PIL import Image
    except ImportError:
        return False
    end = scans[-1].stop
    try:
        pictures = [Image.open(io.BytesIO(part)).tobytes() for part in (data, data[:end] + NOISE + data[end:])]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return pictures[0] != pictures[1]


class _Scan(NamedTuple):
    """The compressed data of a scan."""

    start: int
    stop: int
    is_dense: bool
    """Whether zeros cannot be whole blocks there."""
    finished: tuple[tuple[int, int], ...]
    """(component, coefficient) that it has the last bit of."""


def _scans(data: bytes) -> Iterator[_Scan]:
    """The scans of a JPEG file, up to its end marker; none of one that is compressed in another way than Huffman's."""
    position, progressive, first = 2, False, dict[int, int]()
    while marker := JPEG_MARKER.search(data, position):
        kind, start = marker.group()[-1], marker.end()
        if kind == 0xD9 or 0xC9 <= kind <= 0xCF:
            return
        position = start + max(int.from_bytes(data[start : start + 2], "big"), 2)
        segment = data[start + 2 : position]
        if kind == 0xC4:
            while len(segment) > 17:
                first[segment[0]] = segment[17]
                segment = segment[17 + sum(segment[1:17]) :]
        elif kind in (0xC2, 0xC6):
            progressive = True
        elif kind == 0xDA and segment and len(segment) >= 2 * segment[0] + 4:
            tables = [segment[2 * i + 2] & 15 for i in range(segment[0])]
            low, high, bits = (segment[-3], segment[-2], segment[-1]) if progressive else (0, 63, 0)
            coded = not progressive or (low > 0 and bits < 16)
            sized = any(first.get(0x10 | table, 1 - table) & 15 for table in tables)
            finished = () if bits & 15 else product(segment[1 : 2 * segment[0] + 1 : 2], range(low, high + 1))
            end = JPEG_MARKER.search(data, position)
            stop = end.start() if end else len(data)
            yield _Scan(position, stop, coded and sized, tuple(finished))
            position = stop


class JpegHeader(NamedTuple):
    """What the start of a JPEG file says."""

    height: int
    width: int
    channels: int
    subsampled: bool
    """Whether colour has fewer pixels than brightness."""


def jpeg_header(data: bytes) -> JpegHeader | None:
    """Size and channels of a JPEG file; None for other files."""
    position = 2
    while data.startswith(b"\xff\xd8") and (marker := JPEG_MARKER.search(data, position)):
        kind, start = marker.group()[-1], marker.end()
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            frame = data[start + 3 : start + 11]
            if len(frame) < 8:
                return None
            height, width = (int.from_bytes(frame[i : i + 2], "big") for i in (0, 2))
            return JpegHeader(height, width, frame[4], frame[4] > 1 and data[start + 9] != 0x11)
        position = start + max(int.from_bytes(data[start : start + 2], "big"), 2)
    return None


def _has_jpeg_end(data: bytes) -> bool:
    """Walk the segments of a JPEG, which may be followed by other data, to its end marker."""
    position = 2
    while marker := JPEG_MARKER.search(data, position):
        kind = marker.group()[-1]
        if kind == 0xD9:
            return True
        length = int.from_bytes(data[marker.end() : marker.end() + 2], "big")
        position = marker.end() + max(length, 2)
    return False


def _has_png_end(data: bytes) -> bool:
    """Walk the chunks of a PNG, which may be followed by other data, to its end chunk."""
    position = 8
    while position + 12 <= len(data):
        if data[position + 4 : position + 8] == b"IEND":
            return True
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return False
