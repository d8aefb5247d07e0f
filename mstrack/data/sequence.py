"""`Sequence` and `Frame`, what every dataset yields, and the readers of one image."""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.errors import UserError

MODALITIES = ("event", "depth", "thermal")
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
        image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX, dtype=cv2.CV_8U)
    return np.repeat(image[..., None], 3, axis=-1)


def depth_to_colour(depth: NDArray[np.uint16]) -> Image:
    """H x W depth in millimetres -> H x W x 3 uint8, ViPT's `rgbcolormap`.

    Clipped at min(3 x median, 10000) (the median counts the zeros of missing depth), min-max normalised per frame, JET
    colours left in OpenCV's BGR order.
    """
    nearest = np.minimum(depth, min(3.0 * float(np.median(depth)), 10000.0)).astype(np.float32)
    grey = cv2.normalize(nearest, None, 0, 255, cv2.NORM_MINMAX, dtype=cv2.CV_8U)
    return cv2.applyColorMap(grey, cv2.COLORMAP_JET)


def _decode(path: Path, flags: int) -> NDArray:
    """One image file through OpenCV; its absence or damage is named."""
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UserError(f"image {path} cannot be read: {error.strerror}.") from error
    image = cv2.imdecode(data, flags) if data.size else None
    if image is None:
        raise UserError(f"image {path} cannot be decoded ({data.size} bytes): truncated, or no image.")
    return image
