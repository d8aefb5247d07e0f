"""`Sequence` and `Frame`, what every dataset yields, and the readers of images and annotations."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.errors import UserError

MODALITIES = ("event", "depth", "thermal")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
JPEG_MARKER = re.compile(rb"\xff+[^\x00\x01\xd0-\xd7\xff]")
"""A marker that ends the compressed data of a scan: not a stuffed byte, not a restart."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Frame:
    """One moment: `rgb` (H x W x 3 uint8, RGB order) and `aux` likewise, or None where there is no second modality."""

    rgb: Image
    aux: Image | None = None


@dataclass(frozen=True)
class Sequence:
    """A video with its annotation.

    Attributes:
        name: Unique in its dataset.
        rgb: The N colour frames, in order.
        boxes: (N, 4) float64 x, y, w, h in 0-based pixels; NaN where there is no annotation.
        valid: (N,) bool, True where the target is present and its box usable.
        aux: The N frames of the second modality, or None.
        modality: `rgb` (no second modality), `event`, `depth` or `thermal`: how `aux` files are read.
        attributes: Challenges of the sequence (`low_light`, `occlusion`, ...).
    """

    name: str
    rgb: tuple[Path, ...]
    boxes: NDArray[np.float64]
    valid: NDArray[np.bool_]
    aux: tuple[Path, ...] | None = None
    modality: str = "rgb"
    attributes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        counts = {"rgb frames": len(self.rgb), "boxes": len(self.boxes), "flags": len(self.valid)}
        if self.aux is not None:
            counts[f"{self.modality} frames"] = len(self.aux)
        if len(set(counts.values())) != 1:
            found = ", ".join(f"{n} {what}" for what, n in counts.items())
            raise UserError(f"sequence '{self.name}': the counts differ: {found}. Each frame needs all of them.")

    def __len__(self) -> int:
        return len(self.rgb)

    def frame(self, index: int) -> Frame:
        """Read frame `index` from disk."""
        aux = None if self.aux is None else read_aux(self.aux[index], self.modality)
        return Frame(read_rgb(self.rgb[index]), aux)


def read_rgb(path: Path) -> Image:
    """An image file as H x W x 3 uint8, RGB order."""
    return np.ascontiguousarray(_decode(path, cv2.IMREAD_COLOR)[..., ::-1])


def read_aux(path: Path, modality: str) -> Image:
    """A file of the second modality as H x W x 3 uint8.

    `event`: rendered event frame, RGB order. `thermal`: 8 or 16 bits, one channel is repeated to three.
    `depth`: 16-bit millimetres to colours by `depth_to_colour`; a file that already has three channels is taken as it is.
    """
    image = _decode(path, cv2.IMREAD_UNCHANGED)
    if image.ndim == 3:
        return np.ascontiguousarray(image[..., 2::-1])
    if modality == "depth":
        return depth_to_colour(image)
    if image.dtype == np.uint16:
        image = _stretch(image)
    return np.repeat(image[..., None], 3, axis=-1)


def depth_to_colour(depth: NDArray[np.uint16]) -> Image:
    """H x W depth in millimetres -> H x W x 3 uint8, ViPT's `rgbcolormap`.

    Clipped at min(3 x median, 10000) (the median counts the zeros of missing depth), min-max normalised per frame, JET
    colours left in OpenCV's BGR order.
    """
    nearest = np.minimum(depth, min(3.0 * float(np.median(depth)), 10000.0)).astype(np.float32)
    grey = _stretch(nearest)
    return cv2.applyColorMap(grey, cv2.COLORMAP_JET)


def _stretch(image: NDArray[Any]) -> Any:
    """H x W numbers -> H x W uint8, the smallest 0 and the largest 255."""
    return cv2.normalize(image, np.empty(image.shape, np.uint8), 0, 255, cv2.NORM_MINMAX, dtype=cv2.CV_8U)


def list_frames(folder: Path) -> tuple[Path, ...]:
    """The images of a folder in the order of the last number in their names.

    Raises:
        UserError: No such folder, or no image in it.
    """
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    except OSError as error:
        raise UserError(f"folder {folder} cannot be read: {error.strerror}.") from error
    if not found:
        raise UserError(f"folder {folder} holds no images ({', '.join(SUFFIXES)}).")
    return tuple(sorted(found, key=_number))


def read_boxes(path: Path) -> NDArray[np.float64]:
    """A text file with x, y, w, h per line -> (N, 4); separated by commas, semicolons, tabs or spaces; nan: no box.

    Raises:
        UserError: No such file, no lines, or a line that is not four numbers (with file and line number).
    """
    rows = []
    for number, line in enumerate(_read_lines(path), start=1):
        words = re.split(r"[,;\s]+", line.strip().strip(",;"))
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) != 4 or any(np.isinf(row)):
            raise UserError(f"{path}, line {number}: '{line.strip()[:80]}' is not a box; expected x,y,w,h or nan,nan,nan,nan.")
        rows.append(row)
    return np.array(rows)


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
        for word in re.split(r"[,;\s]+", line.strip().strip(",;")):
            if word not in ("0", "1"):
                raise UserError(f"{path}, line {number}: '{word[:80]}' is not a flag; expected 0 or 1.")
            flags.append(int(word) == present)
    return np.array(flags)


def _read_lines(path: Path) -> list[str]:
    """The lines of a text file without empty ones at its end."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"annotation {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"annotation {path} is not a text file.") from error
    lines = text.rstrip().splitlines()
    if not lines:
        raise UserError(f"annotation {path} is empty.")
    return lines


def _number(path: Path) -> tuple[int, str]:
    """Sorting key: the last number in the name, then the name."""
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else -1, path.name


def _decode(path: Path, flags: int) -> Any:
    """One image file through OpenCV; its absence or damage is named. OpenCV would fill up what is missing of a file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"image {path} cannot be read: {error.strerror}.") from error
    if not _is_complete(data):
        raise UserError(f"image {path} is truncated: it ends after {len(data)} bytes. Copy it again.")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise UserError(f"image {path} cannot be decoded ({len(data)} bytes): damaged, or no image.")
    return image


def _is_complete(data: bytes) -> bool:
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
