"""Frames as pictures: what makes three colour channels of colour, event, depth and thermal files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.data.imagefiles import FrameFile, decode, decode_bytes, jpeg_header, read_bytes
from mstrack.data.imagefiles import Reference as Reference
from mstrack.data.imagefiles import is_complete as is_complete
from mstrack.errors import UserError
from mstrack.registry import unknown

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
REDUCED = {
    2: (cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    4: (cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    8: (cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
}
ENCODINGS = {"rgb": ("stored",), "event": ("stored",), "depth": ("jet", "inverse", "normals"), "thermal": ("stored", "grey")}
"""What can be made of the files of each modality; the first is the default. See `open_aux`."""
Image = NDArray[np.uint8]


class Picture(NamedTuple):
    """A decoded frame whose colours are made where they are needed: of the whole, or of a part that was cut out."""

    raw: NDArray[Any]
    """H x W (x channels) as stored."""
    finish: Callable[[NDArray[Any]], Image]
    """Any rectangle of `raw` -> h x w x 3 uint8 in RGB order."""
    blank: bool = False
    """Whether all pixels of the file are equal: what a sensor that failed delivers."""
    reduction: int = 1
    """`raw` has one pixel for this many of the frame, in width and height."""
    size: tuple[int, int] | None = None
    """(H, W) of the frame, where `raw` is smaller."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) of the frame."""
        return self.size or self.raw.shape[:2]

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
    blank = is_blank(image)
    if image.ndim == 3:
        return Picture(_to_bytes(image), reverse_channels, blank)
    if modality == "depth":
        return Picture(*DEPTH[chosen](image), blank)
    return Picture(_to_bytes(image), repeat_channel, blank)


def open_reduced(source: FrameFile | None, modality: str, encoding: str | None, reduction: int) -> Picture | None:
    """A frame of any modality (`rgb` too) decoded at 1/`reduction` of its size (2, 4 or 8), or None.

    None, and nothing is said about the frame, where it is no JPEG file, its pixels are not colours or brightness (depth of
    one channel), or it is blank.
    """
    if reduction == 1 or not isinstance(source, Path) or not os.path.isfile(source):  # noqa: PTH113 - never raises
        return None
    data = read_bytes(source)
    header = jpeg_header(data)
    if header is None or (modality == "depth" and header.channels == 1):
        return None
    grey = modality != "rgb" and (encoding == "grey" or header.channels == 1)
    raw = decode_bytes(data, REDUCED[reduction][grey], source)
    if is_blank(raw):
        return None
    finish = repeat_channel if grey else reverse_channels
    return Picture(raw, finish, reduction=reduction, size=(header.height, header.width))


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
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB), dtype=np.uint8)


def repeat_channel(image: Image) -> Image:
    """H x W -> H x W x 3, three equal channels."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), dtype=np.uint8)


def is_blank(image: NDArray[Any]) -> bool:
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


def colour_jet(image: Image) -> Image:
    """H x W -> H x W x 3, OpenCV's JET colours in its own channel order (blue first)."""
    return np.asarray(cv2.applyColorMap(image, cv2.COLORMAP_JET), dtype=np.uint8)


def keep_channels(image: Image) -> Image:
    """The image itself."""
    return image


def _open_jet(depth: NDArray[Any]) -> Opened:
    lowest, highest, _, _ = cv2.minMaxLoc(depth)
    limit = min(3.0 * median(depth, int(highest)), 10000.0, highest)
    # What cv2.normalize(..., 0, 255, NORM_MINMAX) does to the clipped frame, in one pass and straight to bytes.
    least, most = (float(int(value)) for value in (min(lowest, limit), limit))
    scale = 255 / (most - least) if most > least else 0.0
    clipped = cv2.threshold(depth, most, 0, cv2.THRESH_TRUNC)[1]
    return np.asarray(cv2.convertScaleAbs(clipped, alpha=scale, beta=-least * scale), dtype=np.uint8), colour_jet


def median(image: NDArray[Any], highest: int) -> float:
    """`np.median` of an image whose largest value is known, faster for unsigned integers of 8 and 16 bits."""
    if image.dtype not in (np.uint8, np.uint16) or image.size >= 1 << 24:  # the counts are float32
        return float(np.median(image))
    counts = cv2.calcHist([image], [0], None, [highest + 1], [0, highest + 1]).ravel()
    below = np.cumsum(counts, dtype=np.float64)
    return float(np.searchsorted(below, [(image.size - 1) // 2, image.size // 2], side="right").mean())


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
    return image, keep_channels


DEPTH = {"jet": _open_jet, "inverse": _open_inverse, "normals": _open_normals}
