"""Annotated still images as sequences of one frame."""

import json
from array import array
from collections.abc import Sequence as List
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mstrack.data.sequence import Sequence
from mstrack.errors import UserError


class Stills(List[Sequence]):
    """Sequences of one frame, each made when it is asked for: 860,000 of them as objects would take a gigabyte.

    The cache of crops (`cropcache.py`) neither keeps them nor looks for them.

    Args:
        folder: Of the images.
        files: Their names.
        images: (N,) index into `files` of each sequence.
        ids: (N, 2) numbers of the image and of the annotation: `<image>-<annotation>` is the sequence's name.
        boxes: (N, 4) x, y, w, h.
    """

    def __init__(
        self,
        folder: Path,
        files: List[str],
        images: NDArray[np.int32],
        ids: NDArray[np.int64],
        boxes: NDArray[np.float64],
    ) -> None:
        self.folder, self.files, self.images, self.ids, self.boxes = folder, files, images, ids, boxes

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int) -> Sequence: ...
    @overload
    def __getitem__(self, index: slice) -> "Stills": ...
    def __getitem__(self, index: int | slice) -> "Sequence | Stills":
        if isinstance(index, slice):
            return self._take(index)
        image, annotation = self.ids[index]
        return Sequence(
            name=f"{image}-{annotation}",
            rgb=(self.folder / self.files[self.images[index]],),
            boxes=self.boxes[index][None],
            valid=np.ones(1, dtype=bool),
        )

    @property
    def names(self) -> list[str]:
        """What the sequences are called."""
        return [f"{image}-{annotation}" for image, annotation in self.ids.tolist()]

    def above(self, size: float) -> "Stills":
        """Those whose box is wider and higher than `size` pixels."""
        return self._take(np.flatnonzero((self.boxes[:, 2:] > size).all(axis=1)))

    def one_per_image(self) -> "Stills":
        """The first sequence of each image."""
        return self._take(np.unique(self.images, return_index=True)[1])

    def _take(self, which: "slice | NDArray[np.intp]") -> "Stills":
        return Stills(self.folder, self.files, self.images[which], self.ids[which], self.boxes[which])


def read_instances(file: Path) -> tuple[dict[int, str], NDArray[np.int64], NDArray[np.float64]]:
    """Images and boxes of a file of COCO's instances.

    Each object of the file is taken apart as soon as it is parsed, so that its outlines are never in memory together.

    Returns:
        File names by image number; (N, 2) numbers of image and annotation, and (N, 4) x, y, w, h, of all that is no crowd.

    Raises:
        UserError: It is not such a file.
    """
    names: dict[int, str] = {}
    ids, boxes = array("q"), array("d")

    def take(found: dict[str, Any]) -> dict[str, Any] | None:
        if "bbox" in found:
            if not found.get("iscrowd"):
                ids.extend((found["image_id"], found["id"]))
                boxes.extend(found["bbox"])
            return None
        if "file_name" in found:
            names[found["id"]] = found["file_name"]
            return None
        return found

    try:
        with file.open(encoding="utf-8") as text:
            json.load(text, object_hook=take)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not an annotation of COCO's instances: {error!r}. Copy it again.") from error
    if len(boxes) != 2 * len(ids):
        raise UserError(f"{file}: expected four numbers in each bbox.")
    return names, np.array(ids, np.int64).reshape(-1, 2), np.array(boxes, np.float64).reshape(-1, 4)
