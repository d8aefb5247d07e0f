"""Width and height of image files, from their first bytes."""

import struct
from pathlib import Path

import cv2

from mstrack.data.imagefiles import decode, jpeg_header
from mstrack.errors import UserError

HEAD = 1024
"""Bytes that are read at first; most headers end before."""


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, as stored. JPEG, PNG and BMP are not decoded; what their headers do not say, is.

    Raises:
        UserError: The file cannot be read, or is no image.
    """
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(HEAD)
            size = _read_size(head) or (_read_size(head + file.read()) if head.startswith(b"\xff\xd8") else None)
    except OSError as error:
        raise UserError(f"image {path} cannot be read: {error.strerror}.") from error
    if size is None or min(size) < 1:
        height, width = decode(path, cv2.IMREAD_UNCHANGED).shape[:2]
        return width, height
    return size


def _read_size(head: bytes) -> tuple[int, int] | None:
    if head.startswith(b"\xff\xd8"):
        found = jpeg_header(head)
        return None if found is None else (found.width, found.height)
    if head.startswith(b"\x89PNG") and head[12:16] == b"IHDR" and len(head) >= 24:
        width, height = struct.unpack(">II", head[16:24])
        return width, height
    if head.startswith(b"BM") and head[14:18] == b"\x28\0\0\0" and len(head) >= 26:
        width, height = struct.unpack("<ii", head[18:26])
        return width, abs(height)
    return None
