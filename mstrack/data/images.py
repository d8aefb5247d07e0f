"""Image files: decoding, and what makes three colour channels of depth and thermal files."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.errors import UserError
from mstrack.registry import unknown

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
ENCODINGS = {"rgb": ("stored",), "event": ("stored",), "depth": ("jet", "inverse", "normals"), "thermal": ("stored", "grey")}
"""What can be made of the files of each modality; the first is the default. See `open_aux`."""
JPEG_MARKER = re.compile(rb"\xff+[^\x00\x01\xd0-\xd7\xff]")
"""A marker that ends the compressed data of a scan: not a stuffed byte, not a restart."""

Image = NDArray[np.uint8]


class Reference(Protocol):
    """A frame that is not simply a file: a frame of a video, of an event recording, three files in one."""

    def decode(self, flags: int) -> NDArray[Any]:
        """The frame as OpenCV's `imdecode` would give it with these flags (BGR order)."""
        ...


FrameFile = Path | Reference


class Picture(NamedTuple):
    """A decoded frame whose colours are made where they are needed: of the whole, or of a part that was cut out."""

    raw: NDArray[Any]
    """H x W (x channels) as stored."""
    finish: Callable[[NDArray[Any]], Image]
    """Any rectangle of `raw` -> h x w x 3 uint8 in RGB order."""
    blank: bool = False
    """Whether all pixels of the file are equal: what a sensor that failed delivers."""

    def image(self) -> Image:
        """The whole frame, H x W x 3 uint8."""
        return np.ascontiguousarray(self.finish(self.raw))


def open_rgb(source: FrameFile) -> Picture:
    """A colour frame (a grey file has three equal channels)."""
    return Picture(decode(source, cv2.IMREAD_COLOR), reverse_channels)


def open_aux(source: FrameFile, modality: str, encoding: str | None = None) -> Picture:
    """A frame of the second modality.

    Args:
        source: The frame.
        modality: `event`: a rendered event frame. `thermal`: 8 or 16 bits; one channel is repeated to three, 16 bits are
            stretched per frame. `depth`: 16-bit millimetres; a file that already has three channels is taken as it is.
        encoding: `depth`: `jet` (`depth_to_colour`), `inverse` (`depth_to_inverse`), `normals` (`depth_to_normals`);
            `thermal`: `stored`, or `grey` to read one channel of files that have three. None: the modality's first.

    Raises:
        UserError: The file cannot be read; no such encoding of this modality.
    """
    chosen = check_encoding(modality, encoding)
    image = decode(source, cv2.IMREAD_GRAYSCALE if chosen == "grey" else cv2.IMREAD_UNCHANGED)
    blank = _is_blank(image)
    if image.ndim == 3:
        return Picture(_to_bytes(image), reverse_channels, blank)
    if modality == "depth":
        return Picture(*DEPTH[chosen](image), blank)
    return Picture(_to_bytes(image), repeat_channel, blank)


def check_encoding(modality: str, encoding: str | None) -> str:
    """The encoding, or the modality's default for None.

    Raises:
        UserError: The modality has no such encoding.
    """
    known = ENCODINGS[modality]
    if encoding is not None and encoding not in known:
        raise UserError(unknown(f"encoding of {modality}", encoding, known))
    return encoding or known[0]


def read_rgb(source: FrameFile) -> Image:
    """A colour frame as H x W x 3 uint8, RGB order."""
    return open_rgb(source).image()


def read_aux(source: FrameFile, modality: str, encoding: str | None = None) -> Image:
    """A frame of the second modality as H x W x 3 uint8; see `open_aux`."""
    return open_aux(source, modality, encoding).image()


def reverse_channels(image: Image) -> Image:
    """BGR or BGRA -> RGB."""
    return np.ascontiguousarray(image[..., 2::-1])


def repeat_channel(image: Image) -> Image:
    """H x W -> H x W x 3, three equal channels."""
    return np.repeat(image[..., None], 3, axis=-1)


def _is_blank(image: NDArray[Any]) -> bool:
    """Whether all pixels are equal; a few of them are asked first."""
    corner = image[:1, :1]
    return bool((image[::37, ::41] == corner).all() and (image == corner).all())


def _to_bytes(image: NDArray[Any]) -> Image:
    """Images of more than 8 bits: the smallest value 0 and the largest 255."""
    if image.dtype == np.uint8:
        return image
    stretched: Any = cv2.normalize(image, np.empty(image.shape, np.uint8), 0, 255, cv2.NORM_MINMAX, dtype=cv2.CV_8U)
    return stretched


# ---------------------------------------------------------------- depth
def depth_to_colour(depth: NDArray[np.uint16]) -> Image:
    """H x W depth in millimetres -> H x W x 3 uint8, the `rgbcolormap` of ViPT, SDSTrack and their VOT wrappers.

    Clipped at min(3 x median, 10000), rounded down (the median counts the zeros of missing depth); min-max normalised per
    frame, rounded to the nearest; JET colours left in OpenCV's BGR order.
    """
    return Picture(*_open_jet(depth)).image()


def depth_to_inverse(depth: NDArray[np.uint16]) -> Image:
    """H x W depth in millimetres -> H x W x 3 uint8, three equal channels that grow with 1 / depth.

    0 where depth is missing; 1 at min(3 x median, 10000) mm and beyond (median of what is there), 255 at the nearest percent
    of the frame.
    """
    return Picture(*_open_inverse(depth)).image()


def depth_to_normals(depth: NDArray[np.uint16]) -> Image:
    """H x W depth in millimetres -> H x W x 3 uint8, the surface normal (x, y, z) in [-1, 1] mapped to [0, 255].

    The slope is the gradient of log(depth) per pixel (Scharr) times the width of the frame in pixels: the geometry of a
    camera whose focal length is its image's width, so no intrinsics are needed. 128 in all channels where depth, or that of
    a neighbour, is missing.
    """
    return Picture(*_open_normals(depth)).image()


Opened = tuple[Image, Callable[[NDArray[Any]], Any]]


def _open_jet(depth: NDArray[Any]) -> Opened:
    limit = int(min(3.0 * float(np.median(depth)), 10000.0))
    grey = cv2.normalize(np.minimum(depth, limit), np.empty_like(depth), 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return grey, lambda part: cv2.applyColorMap(part, cv2.COLORMAP_JET)


def _open_inverse(depth: NDArray[Any]) -> Opened:
    present = depth[depth > 0]
    if not present.size:
        return np.zeros(depth.shape, np.uint8), repeat_channel
    near = float(np.percentile(present, 1))
    far = max(min(3.0 * float(np.median(present)), 10000.0), near * 1.001)
    share = (1.0 / np.clip(depth, near, far).astype(np.float32) - 1.0 / far) / (1.0 / near - 1.0 / far)
    return np.where(depth > 0, np.rint(1 + 254 * share), 0).astype(np.uint8), repeat_channel


def _open_normals(depth: NDArray[Any]) -> Opened:
    logarithm = np.log(np.maximum(depth, 1).astype(np.float32))
    right, down = (cv2.Scharr(logarithm, cv2.CV_32F, *axis) * (depth.shape[1] / 32) for axis in ((1, 0), (0, 1)))
    normal = np.stack([-right, -down, np.ones_like(logarithm)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    image = np.rint((normal + 1) * 127.5).astype(np.uint8)
    image[cv2.dilate((depth == 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0] = 128
    return image, lambda part: part


DEPTH = {"jet": _open_jet, "inverse": _open_inverse, "normals": _open_normals}


# ---------------------------------------------------------------- files
def decode(source: FrameFile, flags: int) -> NDArray[Any]:
    """One frame through OpenCV, in its channel order (BGR); its absence or damage is named.

    Raises:
        UserError: No such file, truncated (OpenCV would fill up what is missing), damaged, or no image.
    """
    if not isinstance(source, Path):
        return source.decode(flags)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise UserError(f"image {source} cannot be read: {error.strerror}.") from error
    if not is_complete(data):
        raise UserError(f"image {source} is truncated: it ends after {len(data)} bytes. Copy it again.")
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
