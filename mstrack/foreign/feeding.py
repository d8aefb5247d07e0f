"""What a tracker that is not ours is fed: decoded frames, or images as TraX names them; a missing second modality is filled."""

import base64
import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.data.images import FrameFile, Image, decode
from mstrack.data.sequence import Frame, Sequence, fill
from mstrack.errors import UserError

FORMS = ("path", "buffer", "data", "memory")
"""How a TraX tracker may want images, the best first; its documentation says `data`, its implementation `buffer`."""
_FAST = (cv2.IMWRITE_PNG_COMPRESSION, 1)


class Frames:
    """The frames of a sequence, decoded, the next one read while a tracker works on this one.

    Where the sequence has a second modality, each frame has: a black one by the policy `zero`, and by `last` where there was
    none yet; `lacking` of the frame says why.

    Args:
        sequence: The sequence.
        missing: The policy for frames without their second modality, see `sequence.fill`.

    Attributes:
        lacking: Numbers of the frames that came without, so far.
    """

    def __init__(self, sequence: Sequence, missing: str) -> None:
        self._sequence, self._missing = sequence, missing
        self.lacking: list[int] = []

    def __iter__(self) -> Iterator[Frame]:
        last: Image | None = None
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._sequence.frame, 0)
            for number in range(len(self._sequence)):
                frame = coming.result()
                if number + 1 < len(self._sequence):
                    coming = reader.submit(self._sequence.frame, number + 1)
                if self._sequence.aux is not None and frame.aux is None:
                    self.lacking.append(number)
                    frame = fill(frame, self._missing, last, f"sequence '{self._sequence.name}', frame {number}")
                    if frame.aux is None:
                        frame = dataclasses.replace(frame, aux=np.zeros_like(frame.rgb))
                else:
                    last = frame.aux
                yield frame


class Pictures:
    """The images of a sequence as a TraX tracker is told them.

    A plain file is handed over as it lies on disk, a depth map with its millimetres. Frames of videos, recordings and files
    that belong together, and those for which an encoding was asked, are written as PNG and removed when the next is asked for.

    Args:
        sequence: The sequence.
        with_aux: Whether the second modality is told too.
        form: One of `FORMS`.
        missing: The policy for frames whose file of the second modality does not exist, see `sequence.fill`; `zero`, and `last`
            where there was none yet, gives a black image.
        folder: Where images are written.

    Attributes:
        lacking: Numbers of the frames that came without their second modality, so far.
    """

    def __init__(self, sequence: Sequence, with_aux: bool, form: str, missing: str, folder: Path) -> None:
        self._sequence, self._with_aux, self._form, self._missing = sequence, with_aux, form, missing
        self._folder = folder
        self._last: Path | NDArray[Any] | None = None
        self._written: list[Path] = []
        self.lacking: list[int] = []

    def of(self, number: int) -> list[str]:
        """The arguments of a message for one frame: colour, then the second modality.

        Raises:
            UserError: A file cannot be read or written, or a frame lacks its second modality and the policy is `error`.
        """
        self.forget()
        colour = self._sequence.rgb[number]
        images: list[Path | NDArray[Any]] = [colour if isinstance(colour, Path) else decode(colour, cv2.IMREAD_COLOR)]
        if self._with_aux:
            images.append(self._second(number))
        return [self._tell(image, f"{number:08d}-{place}.png") for place, image in enumerate(images)]

    def forget(self) -> None:
        """Remove the images that were written."""
        while self._written:
            self._written.pop().unlink(missing_ok=True)

    def _second(self, number: int) -> Path | NDArray[Any]:
        """The file of the second modality, or its pixels as OpenCV has them (BGR order)."""
        found = self._find_second(number)
        if not isinstance(found, str):
            self._last = found
            return found
        self.lacking.append(number)
        if self._missing == "last" and self._last is not None:
            return self._last
        colour = self._sequence.rgb[number]
        if self._missing == "copy":
            return colour if isinstance(colour, Path) else decode(colour, cv2.IMREAD_COLOR)
        where = f"sequence '{self._sequence.name}', frame {number}"
        fill(Frame(np.empty((0, 0, 3), np.uint8), lacking=found), self._missing, None, where)
        raw_depth = self._sequence.modality == "depth" and self._sequence.encoding is None
        return np.zeros(decode(colour, cv2.IMREAD_GRAYSCALE).shape, np.uint16 if raw_depth else np.uint8)

    def _find_second(self, number: int) -> Path | NDArray[Any] | str:
        """As `_second`; or why there is none."""
        if self._sequence.encoding is not None:
            picture = self._sequence.open_aux(number)
            return picture if isinstance(picture, str) else np.ascontiguousarray(picture.image()[..., ::-1])
        source: FrameFile | None = None if self._sequence.aux is None else self._sequence.aux[number]
        if source is None:
            return f"there is no {self._sequence.modality} frame"
        if not isinstance(source, Path):
            return decode(source, cv2.IMREAD_UNCHANGED)
        return source if source.is_file() else f"{self._sequence.modality} frame {source} does not exist"

    def _tell(self, image: Path | NDArray[Any], name: str) -> str:
        """An image as an argument of a message, in the words of TraX's implementation (`image_encode`)."""
        if self._form == "path":
            return f"file://{(image if isinstance(image, Path) else self._write(image, name)).absolute()}"
        if self._form == "memory":
            pixels = decode(image, cv2.IMREAD_UNCHANGED) if isinstance(image, Path) else image
            return _tell_pixels(pixels)
        data = image.read_bytes() if isinstance(image, Path) else b""
        kind = "jpeg" if data.startswith(b"\xff\xd8") else "png"
        if kind == "png" and not data.startswith(b"\x89PNG"):
            data = _encode(decode(image, cv2.IMREAD_UNCHANGED) if isinstance(image, Path) else image)
        return f"data:image/{kind};{base64.b64encode(data).decode()}"

    def _write(self, image: NDArray[Any], name: str) -> Path:
        path = self._folder / name
        try:
            path.write_bytes(_encode(image))
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}. $TMPDIR says where else there is room.") from error
        self._written.append(path)
        return path


def _encode(image: NDArray[Any]) -> bytes:
    return cv2.imencode(".png", image, _FAST)[1].tobytes()


def _tell_pixels(pixels: NDArray[Any]) -> str:
    """H x W (x 3 in BGR order) as `image:W;H;format;...`."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    kind = "rgb" if pixels.ndim == 3 else "gray16" if pixels.dtype == np.uint16 else "gray8"
    if kind != "gray16" and pixels.dtype != np.uint8:
        raise UserError(
            f"TraX sends no {pixels.dtype} images of {pixels.ndim} dimensions in memory: an encoding makes bytes of it."
        )
    height, width = pixels.shape[:2]
    return f"image:{width};{height};{kind};{base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode()}"
