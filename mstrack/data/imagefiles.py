"""Image files: reading them whole or saying why not, and decoding them."""

import re
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.errors import UserError

JPEG_MARKER = re.compile(rb"\xff+[^\x00\x01\xd0-\xd7\xff]")
"""A marker that ends the compressed data of a scan: not a stuffed byte, not a restart."""


class Reference(Protocol):
    """A frame that is not simply a file: a frame of a video, of an event recording, three files in one."""

    def decode(self, flags: int) -> NDArray[Any]:
        """The frame as OpenCV's `imdecode` would give it with these flags (BGR order)."""
        ...


FrameFile = Path | Reference


def decode(source: FrameFile, flags: int) -> NDArray[Any]:
    """One frame through OpenCV, in its channel order (BGR); its absence or damage is named.

    Raises:
        UserError: No such file, truncated (OpenCV would fill up what is missing), damaged, or no image.
    """
    if not isinstance(source, Path):
        return source.decode(flags)
    return decode_bytes(read_bytes(source), flags, source)


def read_bytes(source: Path) -> bytes:
    """A whole image file.

    Raises:
        UserError: No such file, or truncated.
    """
    try:
        data = source.read_bytes()
    except OSError as error:
        raise UserError(f"image {source} cannot be read: {error.strerror}.") from error
    if not is_complete(data):
        raise UserError(f"image {source} is truncated: it ends after {len(data)} bytes. Copy it again.")
    return data


def decode_bytes(data: bytes, flags: int, source: Path) -> NDArray[Any]:
    """The image in a file that has been read.

    Raises:
        UserError: Damaged, or no image.
    """
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
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
