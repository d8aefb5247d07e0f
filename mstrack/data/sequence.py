"""`Sequence` and `Frame`, what every dataset yields, and what is done about frames without their second modality."""

import dataclasses
from collections.abc import Sequence as List
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mstrack.data.images import FrameFile, Image, Picture, open_aux, open_rgb, read_rgb
from mstrack.errors import UserError
from mstrack.registry import unknown

MODALITIES = ("event", "depth", "thermal")
POLICIES = ("error", "zero", "copy", "last")
"""What is fed for a frame that lacks its second modality; see `fill`."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One moment; equal only to itself.

    Attributes:
        rgb: H x W x 3 uint8, RGB order.
        aux: The second modality likewise, or None where there is none.
        lacking: Why there is none although there should be.
    """

    rgb: Image
    aux: Image | None = None
    lacking: str | None = None


@dataclass(frozen=True, eq=False)
class Sequence:
    """A video with its annotation; equal only to itself. Paths may be given as text, boxes and flags as lists.

    Attributes:
        name: Unique in its dataset.
        rgb: The N colour frames, in order.
        boxes: (N, 4) float64 x, y, w, h in 0-based pixels; NaN where there is no annotation.
        valid: (N,) bool, True where the target is present and its box usable.
        aux: The N frames of the second modality, None where one is missing; or None.
        modality: `rgb` (no second modality), `event`, `depth` or `thermal`: how `aux` files are read. Images of another sensor
            are `thermal`.
        attributes: Challenges of the sequence (`low_light`, `occlusion`, ...).
        encoding: What is made of `aux` files, see `images.ENCODINGS`; None: the modality's default.
        aux_boxes: (N, 4) boxes in the second modality, where a dataset annotates both (RGBT234).
        first: How many leading frames of the dataset's own sequence were cut off, because the target is absent there.
    """

    name: str
    rgb: List[FrameFile]
    boxes: NDArray[np.float64]
    valid: NDArray[np.bool_]
    aux: List[FrameFile | None] | None = None
    modality: str = "rgb"
    attributes: tuple[str, ...] = field(default=())
    encoding: str | None = None
    aux_boxes: NDArray[np.float64] | None = None
    first: int = 0

    def __post_init__(self) -> None:
        if self.modality not in ("rgb", *MODALITIES):
            known = unknown("modality", str(self.modality), ("rgb", *MODALITIES))
            raise UserError(f"sequence '{self.name}': {known} Images of another sensor are read as they are under 'thermal'.")
        for name in ("rgb", "aux"):
            object.__setattr__(self, name, _paths(getattr(self, name), f"sequence '{self.name}': {name}"))
        for name, kind in (("boxes", np.float64), ("valid", np.bool_), ("aux_boxes", np.float64)):
            try:
                given = getattr(self, name)
                object.__setattr__(self, name, None if given is None else np.asarray(given, dtype=kind))
            except (TypeError, ValueError) as error:
                raise UserError(f"sequence '{self.name}': {name} are no array of numbers: {error}.") from error
        counts = {"rgb frames": len(self.rgb), "boxes": len(self.boxes), "flags": len(self.valid)}
        if self.aux is not None:
            counts[f"{self.modality} frames"] = len(self.aux)
        if self.aux_boxes is not None:
            counts[f"{self.modality} boxes"] = len(self.aux_boxes)
        if len(set(counts.values())) != 1:
            found = ", ".join(f"{n} {what}" for what, n in counts.items())
            raise UserError(f"sequence '{self.name}': the counts differ: {found}. Each frame needs all of them.")
        for name, row in (("boxes", (4,)), ("valid", ()), ("aux_boxes", (4,))):
            array = getattr(self, name)
            if array is not None and len(array) and array.shape[1:] != row:
                raise UserError(f"sequence '{self.name}': {name} are of shape {array.shape}, expected {(len(self), *row)}.")

    def __len__(self) -> int:
        return len(self.rgb)

    def __repr__(self) -> str:
        return f"Sequence('{self.name}', {len(self)} frames, {self.modality})"

    def frame(self, index: int) -> Frame:
        """Read frame `index` from disk; `aux` is None where it is missing or its sensor was dead, and `lacking` says so."""
        rgb = read_rgb(self.rgb[index])
        if self.aux is None:
            return Frame(rgb)
        picture = self.open_aux(index)
        return Frame(rgb, lacking=picture) if isinstance(picture, str) else Frame(rgb, picture.image())

    def open_rgb(self, index: int) -> Picture:
        """Colour frame `index`, decoded."""
        return open_rgb(self.rgb[index])

    def open_aux(self, index: int) -> Picture | str:
        """Frame `index` of the second modality, decoded; or a sentence that says why there is none.

        There is none where the dataset has no file, or the file does not exist, or a depth or thermal image has one value
        everywhere: a dead sensor. A blank event frame is a measurement: nothing moved.
        """
        source = None if self.aux is None else self.aux[index]
        if source is None:
            return f"there is no {self.modality} frame"
        if isinstance(source, Path) and not _may_exist(source):
            return f"{self.modality} frame {source} does not exist"
        picture = open_aux(source, self.modality, self.encoding)
        if self.modality in ("depth", "thermal") and picture.blank:
            return f"{self.modality} frame {source} has the same value everywhere: a dead sensor"
        return picture

    def cut(self, start: int, stop: int) -> "Sequence":
        """The frames from `start` up to `stop`."""
        part = slice(start, stop)
        return dataclasses.replace(
            self,
            rgb=self.rgb[part],
            boxes=self.boxes[part],
            valid=self.valid[part],
            aux=None if self.aux is None else self.aux[part],
            aux_boxes=None if self.aux_boxes is None else self.aux_boxes[part],
            first=self.first + start,
        )


def _paths(files: Any, what: str) -> Any:
    """Frames with paths for texts; as they are where the first one is no text, for lists may be made as they are read.

    Raises:
        UserError: The first one is neither a file nor something that can be decoded.
    """
    first = None if files is None else next((file for file in files if file is not None), None)
    if first is not None and not isinstance(first, str | Path) and not hasattr(first, "decode"):
        raise UserError(
            f"{what} holds {type(first).__name__}, expected files, or objects with decode(flags), which returns the picture as"
            " cv2.imdecode does (BGR)."
        )
    if not isinstance(first, str):
        return files
    return [Path(file) if isinstance(file, str) else file for file in files]


def _may_exist(path: Path) -> bool:
    """Whether a file is there, or in a closed folder: reading it says that."""
    try:
        return path.exists()
    except OSError:
        return True


def fill(frame: Frame, policy: str, last: Image | None, where: str) -> Frame:
    """A frame whose second modality is missing, as the policy has it; others are returned as they are.

    Args:
        frame: The frame.
        policy: `error`; `zero`, no image, which networks are fed as zeros after normalisation (as in training with modality
            dropout); `copy`, the colour image; `last`, the sequence's last image of that modality, none before the first.
        last: That image.
        where: Sequence and frame, for the message.

    Raises:
        UserError: The policy is `error`, or unknown.
    """
    if frame.aux is not None or policy == "zero":
        return frame
    if policy == "error":
        raise UserError(
            f"{where}: {frame.lacking or 'no aux image is given'}, and the network needs one."
            " Go on without by the policy zero, copy or last (--missing, data.missing, or missing=...)."
        )
    return dataclasses.replace(frame, aux=frame.rgb if policy == "copy" else last)


def check_policy(policy: str) -> str:
    """The policy itself.

    Raises:
        UserError: There is no such policy.
    """
    if policy not in POLICIES:
        raise UserError(unknown("policy for a missing modality", policy, POLICIES))
    return policy
